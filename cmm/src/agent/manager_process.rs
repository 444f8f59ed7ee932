//! The manager process of a node whose node is a member of the manager group: the agent starts it, and
//! starts it again, with its memory, when it dies.

use crate::daemon;
use crate::layout::Layout;
use cl::runtime::Signals;
use cl_base::Time;
use cmm_core::api::ExitStatus;
use cmm_core::identity::NodeId;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The first wait before a manager that died is started again; doubled each time, up to the longest. Long
/// enough that the others have replaced a primary before it is back: one that dies again and again must not
/// hold them up each time.
const RESTART_FIRST: Duration = Duration::from_secs(3);
const RESTART_LONGEST: Duration = Duration::from_secs(30);
/// A manager that lived this long did not die of how it was started: the next wait is the first again.
const LIVED_WELL: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct ManagerProcess {
    layout: Layout,
    node: NodeId,
    wanted: bool,
    child: Option<Child>,
    started: Time,
    wait: Duration,
    restart_at: Option<Time>,
}

impl ManagerProcess {
    pub(super) fn new(layout: Layout, node: NodeId) -> ManagerProcess {
        ManagerProcess {
            layout,
            node,
            wanted: false,
            child: None,
            started: Time::ZERO,
            wait: RESTART_FIRST,
            restart_at: None,
        }
    }

    /// From now on a manager is wanted on this node, or not.
    pub(super) fn want(&mut self, now: Time, wanted: bool) {
        self.stop();
        self.wanted = wanted;
        self.wait = RESTART_FIRST;
        if wanted {
            self.start(now);
        }
    }

    /// When [`ManagerProcess::on_timer`] is needed.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.restart_at
    }

    pub(super) fn on_timer(&mut self, now: Time) {
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.start(now);
        }
    }

    /// To be called when some child has ended: how the manager ended, if it was it.
    pub(super) fn reap(&mut self, now: Time) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        if now.saturating_since(self.started) >= LIVED_WELL {
            self.wait = RESTART_FIRST;
        }
        if self.wanted {
            tracing::warn!(%status, wait = ?self.wait, "the manager has ended; it is started again");
            self.restart_at = Some(now + self.wait);
            self.wait = (self.wait * 2).min(RESTART_LONGEST);
        }
        Some(match status.signal() {
            Some(signal) => ExitStatus::Signal(signal),
            None => ExitStatus::Code(status.code().unwrap_or(-1)),
        })
    }

    /// Has the manager, if there is one, read the roster again.
    pub(super) fn reload(&self) {
        if let Some(child) = &self.child {
            daemon::tell_to_reload(child);
        }
    }

    /// Ends the manager, if there is one.
    pub(super) fn stop(&mut self) {
        self.wanted = false;
        self.restart_at = None;
        if let Some(mut child) = self.child.take() {
            // Everything it promised is on its disk; there is nothing to wait for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn start(&mut self, now: Time) {
        self.started = now;
        match self.spawn() {
            Ok(child) => {
                tracing::info!(pid = child.id(), "manager started");
                self.child = Some(child);
            }
            Err(error) => {
                tracing::error!(%error, "the manager cannot be started");
                self.restart_at = Some(now + self.wait);
                self.wait = (self.wait * 2).min(RESTART_LONGEST);
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log =
            OpenOptions::new().create(true).append(true).open(self.layout.node_log(self.node, "manager"))?;
        let program = std::env::current_exe()?.with_file_name("ghidrah-manager");
        let mut command = Command::new(program);
        command
            .args(["--dir".as_ref(), self.layout.root().as_os_str()])
            .args(["--node", &self.node.0.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Signals::unblock_in(&mut command).spawn()
    }
}
