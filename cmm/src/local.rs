//! A local cluster: every node a process tree with its own directory and loopback address, on one machine.

use crate::config::Config;
use crate::daemon;
use crate::keys::entry_name;
use crate::launch::Group;
use crate::layout::Layout;
use cmm_core::identity::{NodeId, Role};
use mml::Roster;
use mml::roster::Plan;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions, Permissions};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ports, the same on every node's address.
const AGENT_PORT: u16 = 7101;
const MANAGER_PORT: u16 = 7102;
const HARDCORE_PORT: u16 = 7100;
/// How long `down` waits for the hardcore to end the cluster in good order.
const DOWN_WAIT: Duration = Duration::from_secs(20);

/// Makes a new cluster's directory: configuration, keys, an empty directory for each node.
///
/// # Errors
/// A sentence for the user; nothing that was there is overwritten.
pub fn create(layout: &Layout, name: &str, nodes: u32, cores: u32) -> Result<Config, String> {
    let root = layout.root();
    let at = |path: &std::path::Path, e: std::io::Error| format!("cannot write {}: {e}", path.display());
    if root.exists() && std::fs::read_dir(root).map_err(|e| at(root, e))?.next().is_some() {
        return Err(format!(
            "{} exists and is no cluster's directory; name an empty or new one with --dir",
            root.display()
        ));
    }
    let random = mml::keys::entropy().map_err(|e| e.to_string())?;
    let id: String = random[..4].iter().map(|b| format!("{b:02x}")).collect();
    let config = Config::local(name, &id, nodes, cores);
    config.check()?;
    let roles = [Role::Hardcore, Role::User(0)]
        .into_iter()
        .chain(config.node_ids().into_iter().flat_map(|n| [Role::Agent(n), Role::Manager(n)]));
    let net = free_network(&random[4..])?;
    let plan = |role: Role| Plan {
        principal: role.principal(),
        name: entry_name(role),
        role: match role {
            Role::Agent(_) => "agent",
            Role::Manager(_) => "manager",
            Role::Hardcore => "hardcore",
            Role::User(_) => "user",
        }
        .to_owned(),
        address: net.address(role),
    };
    // Keys, and in the journals every job's environment: nobody else's business.
    std::fs::create_dir_all(root)
        .and_then(|()| std::fs::set_permissions(root, Permissions::from_mode(0o700)))
        .map_err(|e| at(root, e))?;
    std::fs::create_dir_all(layout.keys()).map_err(|e| at(&layout.keys(), e))?;
    Roster::generate(layout.keys(), &roles.map(plan).collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    for node in config.node_ids() {
        let path = layout.first_boot(node);
        std::fs::create_dir_all(layout.node(node))
            .and_then(|()| File::create(&path))
            .map_err(|e| at(&path, e))?;
    }
    // Last: from now on it is a cluster's directory.
    std::fs::write(layout.config(), config.to_toml()).map_err(|e| at(&layout.config(), e))?;
    Ok(config)
}

/// A range of loopback addresses, 127.A.B.0/24: a node's number is its last byte.
#[derive(Clone, Copy)]
struct Network(u8, u8);

impl Network {
    fn address(self, role: Role) -> Option<SocketAddr> {
        let (host, port) = match role {
            Role::Agent(n) => (n.0 as u8, AGENT_PORT),
            Role::Manager(n) => (n.0 as u8, MANAGER_PORT),
            Role::Hardcore => (254, HARDCORE_PORT),
            Role::User(_) => return None,
        };
        Some((Ipv4Addr::new(127, self.0, self.1, host), port).into())
    }
}

/// A network of addresses in which nothing listens where we would.
fn free_network(random: &[u8]) -> Result<Network, String> {
    for pair in random.chunks_exact(2) {
        let net = Network(64 + pair[0] % 128, pair[1]);
        let taken = [Role::Hardcore, Role::Agent(NodeId(1))]
            .into_iter()
            .filter_map(|r| net.address(r))
            .any(|a| UdpSocket::bind(a).is_err());
        if !taken {
            return Ok(net);
        }
    }
    Err("no free loopback addresses were found; are there many local clusters on this machine?".to_owned())
}

/// Starts the cluster's hardcore, which powers the nodes on, as a daemon of its own.
///
/// # Errors
/// If it runs already or does not start.
pub fn start(layout: &Layout, config: &Config) -> Result<Child, String> {
    let at = |e: std::io::Error| format!("cannot start the hardcore: {e}");
    drop(daemon::lock(layout)?);
    if config.node_ids().iter().any(|n| !Group::node(&config.process_group(), &n.to_string()).is_empty()) {
        return Err(format!(
            "nodes of this cluster run without their hardcore, which has died; `ghidrah --dir {} down` ends them, then start it again",
            layout.root().display()
        ));
    }
    let log = OpenOptions::new().create(true).append(true).open(layout.hardcore_log()).map_err(at)?;
    let program = std::env::current_exe().map_err(at)?.with_file_name("ghidrah-hardcore");
    if !program.exists() {
        return Err(format!("{} is missing; `cargo build --release` makes it", program.display()));
    }
    Command::new(program)
        .arg("--dir")
        .arg(layout.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(at)?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(at)
}

/// Stops a cluster that [`start`] has just started. Its hardcore may not have got so far yet that [`stop`]
/// finds it.
///
/// # Errors
/// As [`stop`].
pub fn stop_started(layout: &Layout, config: &Config, mut hardcore: Child) -> Result<Stopped, String> {
    // That it has ended already is no error.
    let _ = kill_process(Pid::from_child(&hardcore), Signal::TERM);
    let deadline = Instant::now() + DOWN_WAIT;
    while matches!(hardcore.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    stop(layout, config)
}

/// What [`stop`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A running cluster, which has ended.
    Running,
    /// Only leftovers of one whose hardcore had died.
    Leftovers,
    /// Nothing.
    Nothing,
}

/// Stops a cluster and makes sure that nothing of it runs.
///
/// # Errors
/// If something would not end.
pub fn stop(layout: &Layout, config: &Config) -> Result<Stopped, String> {
    let pid = daemon::running(layout);
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)
            .map_err(|e| format!("cannot stop the hardcore (process {pid:?}): {e}"))?;
        let deadline = Instant::now() + DOWN_WAIT;
        while daemon::running(layout).is_some() {
            if Instant::now() >= deadline {
                kill_process(pid, Signal::KILL).ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let mut left = false;
    let mut errors = Vec::new();
    for node in config.node_ids() {
        let group = Group::node(&config.process_group(), &node.to_string());
        left |= !group.is_empty();
        match group.kill() {
            Ok(()) => drop(group.remove()),
            Err(error) => errors.push(format!("{node}: not everything could be ended: {error}")),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    Ok(match (pid, left) {
        (Some(_), _) => Stopped::Running,
        (None, true) => Stopped::Leftovers,
        (None, false) => Stopped::Nothing,
    })
}
