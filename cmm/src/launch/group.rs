//! All processes of a job's attempt on a node, or of a whole node.
//!
//! A job may start anything, and leave its process group and session. Its processes are found by variables
//! in their environment. A node's are held by a control group besides (`ghidrah-<cluster>/<node>` of cgroup
//! v2), which nothing can leave, so a node's reset ends even what has wiped its environment.
//!
//! Attempts have no control group of their own: moving a process into one waits for an RCU grace period with
//! the kernel's cgroup lock held, which took up to 2.8 s on a machine busy with spinning MPI ranks. An agent
//! that waits is silent, and a silent node is reset. A node's agent is moved once, when it is powered on, and
//! what it starts is born inside.

use super::cgroup::Cgroup;
use super::procfs::{Marked, marked};
use cmm_core::api::Attempt;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

/// How long [`Group::kill`] waits: a killed process with a large memory takes a second or two to go. What
/// is left later hangs in the kernel.
pub const KILL_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const KILL_POLL: Duration = Duration::from_millis(5);

/// Processes that belong together.
#[derive(Debug)]
pub struct Group {
    node_marker: (String, String),
    job_marker: Option<(String, String)>,
    cgroup: Option<Cgroup>,
}

/// Names become directories and parts of variables.
fn check(name: &str) {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    assert!(!name.is_empty() && !name.starts_with('.') && name.bytes().all(fine), "not a name: {name:?}");
}

impl Group {
    /// The group of all processes of `node` of `cluster`, its agent included if that is added.
    ///
    /// # Panics
    /// If a name has anything but letters, digits, `-`, `_` and `.`.
    pub fn node(cluster: &str, node: &str) -> Group {
        check(node);
        Group::of_node(cluster, node, Cgroup::create(&[&cluster_directory(cluster), node]))
    }

    fn of_node(cluster: &str, node: &str, cgroup: Option<Cgroup>) -> Group {
        let node_marker = ("GHIDRAH_NODE".to_owned(), format!("{cluster}:{node}"));
        Group { node_marker, job_marker: None, cgroup }
    }

    /// The group of an attempt's processes on `node`.
    ///
    /// # Panics
    /// As [`Group::node`].
    pub fn job(cluster: &str, node: &str, attempt: Attempt) -> Group {
        check(node);
        Group {
            job_marker: Some(("GHIDRAH_JOB".to_owned(), attempt.to_string())),
            ..Group::of_node(cluster, node, None)
        }
    }

    /// Whether members are held by a control group.
    pub fn has_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// The variables that mark members; to be part of their environment.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        [Some(self.node_marker.clone()), self.job_marker.clone()].into_iter().flatten()
    }

    /// Makes a process a member, and all it starts from now on. That it has ended is no error, nor is that
    /// control groups may be made here but not filled: then its environment has to do.
    ///
    /// # Errors
    /// If the system refuses for any other reason.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        match self.cgroup.as_ref().map_or(Ok(()), |c| c.add(pid)) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }

    /// The members that live, this process excepted if it is one only by its environment.
    pub fn pids(&self) -> BTreeSet<u32> {
        let held = self.cgroup.iter().flat_map(Cgroup::pids);
        held.chain(self.marked().iter().map(|m| m.pid)).collect()
    }

    /// Whether no member lives. Zombies do not count.
    pub fn is_empty(&self) -> bool {
        !self.cgroup.as_ref().is_some_and(Cgroup::is_populated) && self.marked().is_empty()
    }

    /// Sends a signal to every member.
    pub fn signal(&self, signal: Signal) {
        for pid in self.cgroup.iter().flat_map(Cgroup::pids) {
            self.signal_held(pid, signal);
        }
        for process in self.marked() {
            process.signal(signal);
        }
    }

    /// Kills every member there is now, without waiting for their end.
    ///
    /// What is forked meanwhile may survive where there is no control group: to be repeated until the
    /// group [is empty](Group::is_empty).
    pub fn kill_now(&self) {
        if !self.cgroup.as_ref().is_some_and(Cgroup::kill) {
            return self.signal(Signal::KILL);
        }
        for process in self.marked() {
            process.signal(Signal::KILL);
        }
    }

    /// Kills every member and waits until none is left, at most [`KILL_WAIT`]. Members that are children of
    /// this process need not be reaped for that.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] with the numbers of those that are left.
    pub fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_WAIT;
        loop {
            self.kill_now();
            if self.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("processes {:?} cannot be killed", self.pids());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            std::thread::sleep(KILL_POLL);
        }
    }

    /// Removes the control group, and those within. Nothing of it may live.
    ///
    /// # Errors
    /// If it has members.
    pub fn remove(&self) -> io::Result<()> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        cgroup.remove()?;
        if self.job_marker.is_none() {
            cgroup.remove_empty_parent();
        }
        Ok(())
    }

    /// Signals a process while it is a member of the control group: its number may go to another.
    fn signal_held(&self, pid: u32, signal: Signal) {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(Ok(handle)) = number.map(|p| rustix::process::pidfd_open(p, PidfdFlags::empty())) else {
            return;
        };
        if self.cgroup.as_ref().is_some_and(|c| c.pids().contains(&pid)) {
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
    }

    fn marked(&self) -> Vec<Marked> {
        let variables: Vec<String> =
            self.environment().map(|(name, value)| format!("{name}={value}")).collect();
        marked(&variables)
    }
}

/// Kills everything that runs on `node` of `cluster` on this machine, its agent included: what pulling the
/// plug does. This process goes too, if it is in the node's control group. Creates nothing where there is no
/// such node.
///
/// # Errors
/// As [`Group::kill`].
///
/// # Panics
/// As [`Group::node`].
pub fn kill_tree(cluster: &str, node: &str) -> io::Result<()> {
    check(node);
    Group::of_node(cluster, node, Cgroup::find(&[&cluster_directory(cluster), node])).kill()
}

fn cluster_directory(cluster: &str) -> String {
    check(cluster);
    format!("ghidrah-{cluster}")
}
