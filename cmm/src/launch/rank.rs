//! One rank's process and the descriptors its agent holds.

use super::group::Group;
use super::program::{LaunchError, resolve};
use crate::cores;
use cmm_core::api::ExitStatus;
use command_fds::CommandFdExt;
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::CpuSet;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What a rank runs, and in which surroundings.
#[derive(Clone, Debug, Default)]
pub struct RankCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// The whole environment, but for `PMI_FD`, which is added.
    pub env: BTreeMap<String, String>,
    /// The CPUs it may run on; none: all there are. Never those of the agent's own thread, which is pinned.
    pub cpus: Vec<usize>,
}

/// A rank that was started. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct RankProcess {
    child: Child,
    /// The agent's end of the PMI connection; does not block.
    pub pmi: UnixStream,
    /// What the rank writes to its standard output; does not block.
    pub stdout: File,
    /// What the rank writes to its standard error; does not block.
    pub stderr: File,
    /// Becomes readable when the process ends.
    pub exit: OwnedFd,
}

impl RankCommand {
    /// Starts the process: a process group of its own, standard input empty, the PMI socket and nothing else
    /// of ours inherited, and a member of `group`.
    ///
    /// The process is put into `group` directly after it was started. What it forks before that is a member
    /// all the same, if its environment has the group's [`Group::environment`].
    ///
    /// # Errors
    /// If the process does not run or cannot be controlled; then nothing of it is left.
    pub fn spawn(&self, group: &Group) -> Result<RankProcess, LaunchError> {
        let name = self.argv.first().ok_or(LaunchError::NoProgram)?;
        let directory = |source| LaunchError::WorkingDirectory { path: self.cwd.clone(), source };
        if !self.cwd.metadata().map_err(directory)?.is_dir() {
            return Err(directory(io::ErrorKind::NotADirectory.into()));
        }
        let program = resolve(name, &self.cwd, self.env.get("PATH").map(String::as_str))?;
        let other = |source| LaunchError::Other { path: program.clone(), source };

        // What this library opens is closed on exec anyway; what we inherited ourselves need not be.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let (ours, theirs) = UnixStream::pair().map_err(other)?;
        ours.set_nonblocking(true).map_err(other)?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(&program);
        command
            .arg0(name)
            .args(&self.argv[1..])
            .current_dir(&self.cwd)
            .env_clear()
            .envs(&self.env)
            // The number it has here: another one might be in use by the standard library between fork and exec.
            .env("PMI_FD", theirs.as_raw_fd().to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .preserved_fds(vec![theirs]);
        let child = with_affinity(&self.cpus, || cores::with_former_limit(|| command.spawn()))
            .map_err(other)?
            .map_err(|source| LaunchError::from_exec(program.clone(), source))?;
        // Holds the rank's end of the socket, which has to close when the rank ends.
        drop(command);
        RankProcess::adopt(child, ours, group).map_err(other)
    }
}

impl RankProcess {
    fn adopt(mut child: Child, pmi: UnixStream, group: &Group) -> io::Result<RankProcess> {
        let mut take_over = || -> io::Result<(File, File, OwnedFd)> {
            group.add(child.id())?;
            let stdout = File::from(OwnedFd::from(child.stdout.take().expect("it is piped")));
            let stderr = File::from(OwnedFd::from(child.stderr.take().expect("it is piped")));
            rustix::io::ioctl_fionbio(&stdout, true)?;
            rustix::io::ioctl_fionbio(&stderr, true)?;
            let exit = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            Ok((stdout, stderr, exit))
        };
        match take_over() {
            Ok((stdout, stderr, exit)) => Ok(RankProcess { child, pmi, stdout, stderr, exit }),
            Err(error) => {
                // Not reaped yet, so the number is still its own.
                let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, or `None` while it runs. Reaps it.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?.map(classify))
    }

    /// Sends a signal to the rank's process group. Nothing happens if the rank was reaped.
    pub fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A failure means that all members have ended meanwhile.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
        }
    }
}

/// How a process ended that is neither stopped nor running.
fn classify(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => unreachable!("a process ends by exit or by signal: {status:?}"),
    }
}

/// Runs `start` while this thread may run on `cpus` only: a child has the affinity of the thread that forks it.
fn with_affinity<T>(cpus: &[usize], start: impl FnOnce() -> T) -> io::Result<T> {
    let ours = rustix::thread::sched_getaffinity(None)?;
    let mut theirs = CpuSet::new();
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).collect();
    for cpu in if cpus.is_empty() { &all } else { cpus } {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no CPU {cpu}")));
        }
        theirs.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &theirs)?;
    let result = start();
    // Fails only if all our CPUs were taken from us meanwhile; then there is nothing to go back to.
    let _ = rustix::thread::sched_setaffinity(None, &ours);
    Ok(result)
}
