//! MPI programs that know nothing of this provider, over it: MPICH from PyPI loads it at run time, with shared memory of
//! its own switched off.

mod common;

use common::{Way, mpi, program, provider};
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A job under way.
struct Job(Child);

impl Job {
    fn start(ranks: u32, way: Way, variables: &[(&str, &str)], command: &[&OsStr]) -> Job {
        let mut launcher = Command::new(mpi().join("venv/bin/mpiexec"));
        launcher.arg("-n").arg(ranks.to_string()).args(command);
        launcher.env("FI_PROVIDER_PATH", provider()).env("FI_PROVIDER", "rcl");
        launcher.env("MPIR_CVAR_CH4_NETMOD", "ofi").env("MPIR_CVAR_NOLOCAL", "1");
        launcher.env("LD_LIBRARY_PATH", mpi().join("venv/lib")).envs(way.variables());
        launcher.envs(variables.iter().copied());
        launcher.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Job(launcher.spawn().expect("mpiexec can be started"))
    }

    /// Its output, once it has ended; its processes are ended when it takes too long.
    fn finish_within(mut self, limit: Duration) -> (bool, String) {
        let mut pipes = [
            Box::new(self.0.stdout.take().expect("it has one")) as Box<dyn std::io::Read + Send>,
            Box::new(self.0.stderr.take().expect("it has one")),
        ];
        let readers = pipes.each_mut().map(|pipe| std::mem::replace(pipe, Box::new(std::io::empty())));
        let readers = readers.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                pipe.read_to_end(&mut text).expect("a pipe can be read");
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                break Some(status);
            }
            if started.elapsed() > limit {
                // mpiexec passes this on to its ranks.
                let pid = self.0.id().to_string();
                Command::new("kill").args(["-TERM", &pid]).status().expect("kill can be run");
                std::thread::sleep(Duration::from_secs(2));
                self.0.kill().expect("it is ours");
                self.0.wait().expect("it is ours");
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = readers.map(|reader| reader.join().expect("it does not panic")).concat();
        let Some(status) = status else { panic!("not finished within {limit:?}; output:\n{text}") };
        (status.success(), text)
    }

    fn succeeds(self, saying: &str) {
        let (succeeded, text) = self.finish_within(Duration::from_secs(120));
        assert!(succeeded && text.contains(saying), "output:\n{text}");
    }
}

fn stress(ranks: u32, way: Way, rounds: u32, variables: &[(&str, &str)]) {
    let (python, script) = (mpi().join("venv/bin/python"), program("stress.py"));
    let rounds = rounds.to_string();
    let command = [python.as_os_str(), script.as_os_str(), OsStr::new("1"), OsStr::new(&rounds)];
    Job::start(ranks, way, variables, &command).succeeds(": OK");
}

#[test]
fn the_library_is_loaded_and_chosen() {
    let python = mpi().join("venv/bin/python");
    let program = "from mpi4py import MPI; print('rank', MPI.COMM_WORLD.rank)";
    let command = [python.as_os_str(), OsStr::new("-c"), OsStr::new(program)];
    let job = Job::start(2, Way::SharedMemory, &[("MPIR_CVAR_DEBUG_SUMMARY", "1")], &command);
    job.succeeds("libfabric provider: rcl");
}

#[test]
fn all_data_are_right_over_shared_memory() {
    stress(2, Way::SharedMemory, 2, &[]);
    stress(4, Way::SharedMemory, 2, &[]);
}

#[test]
fn all_data_are_right_over_the_network() {
    stress(2, Way::Network, 2, &[]);
    stress(4, Way::Network, 2, &[]);
}

#[test]
fn all_data_are_right_over_a_network_that_loses_and_disorders() {
    let faults = ("GHIDRAH_CL_FAULTS", "drop=1%,duplicate=1%,delay=1ms@1%,seed=7");
    stress(3, Way::Network, 1, &[faults]);
}

#[test]
fn a_silent_rank_is_an_error_for_who_waits_for_it() {
    let (python, script) = (mpi().join("venv/bin/python"), program("silent.py"));
    let command = [python.as_os_str(), script.as_os_str()];
    let job = Job::start(3, Way::Network, &[("RCL_DEAD_AFTER", "2")], &command);
    let (succeeded, text) = job.finish_within(Duration::from_secs(60));
    assert!(!succeeded && text.contains("Connection reset by peer"), "output:\n{text}");
    assert!(!text.contains("a message of a silent rank"), "output:\n{text}");
}
