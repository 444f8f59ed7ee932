//! What every daemon does at its start and end.

use crate::config::Config;
use crate::cores;
use crate::keys::{Keyring, entry_name};
use crate::layout::Layout;
use cl::runtime::{Runtime, RuntimeConfig};
use cl::{EndpointConfig, PoolConfig, SharedMemory};
use cl_base::PeerId;
use cmm_core::bootstrap;
use cmm_core::identity::{NodeId, Role};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How long an address may be in use by a process that has ended.
const ADDRESS_WAIT: Duration = Duration::from_secs(15);

/// Starts logging to standard error, with the time and the daemon's name on each line. `GHIDRAH_LOG` chooses
/// how much (`warn`, `info`, `debug`, or per module as in `cmm=debug,mml=info`).
pub fn log_to_stderr(name: &'static str) {
    let filter = EnvFilter::try_from_env("GHIDRAH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("{name} caught itself in an impossible state and stops: {info}");
        panic(info);
    }));
}

/// Keeps the keys in this process's memory out of core dumps.
pub fn keep_keys_out_of_dumps() {
    if let Err(error) = cores::forbid() {
        tracing::warn!("the keys of this process may get into a core dump: {error}");
    }
}

/// The process's end: an error is said and gives exit code 1.
pub fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the lock of a running cluster, for as long as the file is held.
///
/// # Errors
/// If the cluster runs already, or the file cannot be made.
pub fn lock(layout: &Layout) -> Result<File, String> {
    let path = layout.lock();
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(layout.hardcore()).map_err(at)?;
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(at)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(format!(
            "a cluster runs already in {} (process {}); `ghidrah status` shows it, `ghidrah down` stops it",
            layout.root().display(),
            running(layout).map_or("unknown".to_owned(), |pid| pid.to_string())
        )),
        Err(TryLockError::Error(e)) => Err(at(e)),
    }
}

/// The process id of the hardcore whose cluster runs in this directory, if one does.
pub fn running(layout: &Layout) -> Option<i32> {
    let mut file = OpenOptions::new().read(true).write(true).open(layout.lock()).ok()?;
    match file.try_lock() {
        Ok(()) => None, // Nobody holds it; ours goes with the file.
        Err(_) => {
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            text.trim().parse().ok()
        }
    }
}

/// Has a daemon that this one has started read the roster again.
pub fn tell_to_reload(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(child);
    if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::HUP) {
        tracing::warn!(?pid, %error, "a daemon was not told of the changed roster");
    }
}

/// What all of a cluster's agents have in common in an election.
///
/// # Errors
/// If the configuration has too few nodes.
pub fn election(config: &Config, keyring: &Keyring) -> Result<bootstrap::Config, String> {
    let agents = config.node_ids().into_iter().map(|n| Role::Agent(n).peer()).collect();
    bootstrap::Config::new(keyring.cluster(), agents, config.f as usize).map_err(|e| e.to_string())
}

/// The address that the roster gives a role.
///
/// # Errors
/// If it gives none.
pub fn address(keyring: &Keyring, role: Role) -> Result<SocketAddr, String> {
    keyring.roster().get(role.principal()).and_then(|e| e.address).ok_or_else(|| {
        format!("the roster gives {} no address; add `address = \"IP:PORT\"`", entry_name(role))
    })
}

/// Opens a daemon's event loop at its address in the roster. An address still in use is waited for: a ring of
/// the process that had it before is taken apart by the kernel only after that process has ended.
///
/// # Errors
/// If the roster gives no address or it cannot be opened in time.
pub fn open<M: Send + 'static>(keyring: &Keyring, role: Role) -> Result<Runtime<M>, String> {
    let bind = address(keyring, role)?;
    let mut endpoint = EndpointConfig::new(role.peer(), bind);
    endpoint.pool = PoolConfig::small();
    // Nodes do not share memory, and those of a local cluster stand for such nodes.
    endpoint.shared_memory = SharedMemory::Never;
    let config = RuntimeConfig { address_wait: ADDRESS_WAIT, ..RuntimeConfig::new(Some(endpoint)) };
    Runtime::open(config).map_err(|error| format!("cannot open {bind}: {error}"))
}

/// The node of an agent's identity.
pub fn agent_node(peer: PeerId) -> Option<NodeId> {
    match Role::of(peer.principal) {
        Some(Role::Agent(node)) => Some(node),
        _ => None,
    }
}
