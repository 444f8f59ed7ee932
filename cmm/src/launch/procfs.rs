//! Finding processes by their environment.

use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::os::fd::OwnedFd;

/// A process that has a marker; its number stays its own as long as this lives.
pub(super) struct Marked {
    pub(super) pid: u32,
    handle: OwnedFd,
}

impl Marked {
    /// Sends a signal; that the process has ended meanwhile is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, signal);
    }
}

/// All living processes, this one excepted, that were started with every one of `variables` (`NAME=value`).
///
/// A process that was executed with another environment is not found, nor is one of another user unless this
/// is the superuser. Zombies have no environment and are not found either.
pub(super) fn marked(variables: &[String]) -> Vec<Marked> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| marked_process(pid, variables))
        .collect()
}

fn marked_process(pid: u32, variables: &[String]) -> Option<Marked> {
    if !has_variables(pid, variables) {
        return None;
    }
    let handle =
        rustix::process::pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    // Looked at again: the number may have gone to another process before the handle was opened.
    has_variables(pid, variables).then_some(Marked { pid, handle })
}

fn has_variables(pid: u32, variables: &[String]) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let mut wanted = variables.iter();
    wanted.all(|w| environ.split(|b| *b == 0).any(|v| v == w.as_bytes()))
}
