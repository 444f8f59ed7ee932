//! The emulated power switch of a local cluster: switching a node off ends every process of its tree at
//! once, switching it on starts its agent, as booting a machine would.
//!
//! A real site has a fence agent, ipmitool or Redfish here.

use cl::runtime::Signals;
use cmm::cores;
use cmm::launch::{Group, group};
use cmm::layout::Layout;
use cmm_core::identity::NodeId;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Agents get this long to end their jobs when the cluster is stopped in good order.
const GRACE: Duration = Duration::from_secs(5);

/// All nodes' power switches.
pub(crate) struct Power {
    layout: Layout,
    cluster: String,
    agents: BTreeMap<NodeId, Child>,
}

impl Power {
    /// The switches of the cluster `cluster`, whose directory is `layout`; all nodes are off.
    pub(crate) fn new(layout: Layout, cluster: String) -> Power {
        Power { layout, cluster, agents: BTreeMap::new() }
    }

    /// Starts a node that is off.
    ///
    /// # Errors
    /// If its agent cannot be started.
    pub(crate) fn on(&mut self, node: NodeId) -> io::Result<()> {
        let dir = self.layout.node(node);
        std::fs::create_dir_all(&dir)?;
        let log = OpenOptions::new().create(true).append(true).open(self.layout.node_log(node, "agent"))?;
        let group = Group::node(&self.cluster, &node.to_string());
        let mut command = Command::new(sibling("ghidrah-agent")?);
        command
            .args(["--dir".as_ref(), self.layout.root().as_os_str()])
            .args(["--node", &node.0.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .envs(group.environment())
            .process_group(0);
        let child = cores::with_former_limit(|| Signals::unblock_in(&mut command).spawn())?;
        // On a thread: this can take seconds on a busy machine. What the agent forks before has the marker.
        let pid = child.id();
        std::thread::spawn(move || {
            if let Err(error) = group.add(pid) {
                tracing::warn!(pid, %error, "the agent is not held by a control group");
            }
        });
        self.agents.insert(node, child);
        Ok(())
    }

    /// Ends every process of a node, now. Returns when none is left.
    ///
    /// # Errors
    /// If some process would not end.
    pub(crate) fn off(&mut self, node: NodeId) -> io::Result<()> {
        group::kill_tree(&self.cluster, &node.to_string())?;
        if let Some(mut child) = self.agents.remove(&node) {
            child.wait()?;
        }
        Ok(())
    }

    /// Has all agents read the roster again.
    pub(crate) fn reload(&self) {
        self.agents.values().for_each(cmm::daemon::tell_to_reload);
    }

    /// Takes note of agents that have ended by themselves; their nodes are dead until somebody resets them.
    pub(crate) fn reap(&mut self) -> Vec<(NodeId, std::process::ExitStatus)> {
        let mut ended = Vec::new();
        for (node, child) in &mut self.agents {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((*node, status));
            }
        }
        for (node, _) in &ended {
            self.agents.remove(node);
        }
        ended
    }

    /// Stops everything in good order: agents are asked to end first, what is left after a while is ended.
    pub(crate) fn all_off(&mut self, nodes: &[NodeId]) {
        for child in self.agents.values() {
            let pid = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + GRACE;
        while !self.agents.is_empty() && Instant::now() < deadline {
            self.reap();
            std::thread::sleep(Duration::from_millis(10));
        }
        for node in nodes {
            if let Err(error) = self.off(*node) {
                tracing::error!(%node, %error, "not everything on the node could be ended");
            }
            // What could not be ended has just been said.
            let _ = Group::node(&self.cluster, &node.to_string()).remove();
        }
    }
}

/// The program `name` beside this one.
fn sibling(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        let text = format!("{} is missing; `cargo build --release` makes it", path.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(path)
}
