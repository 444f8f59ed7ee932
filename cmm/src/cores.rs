//! Core dumps: none of a daemon, for its memory holds keys; those of what it starts as if it were not there.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::io;
use std::sync::OnceLock;

/// One byte, which is too short for a core. With 0 the kernel would still dump to a program that collects cores (core(5)).
const NO_CORE: u64 = 1;

/// The limit that was in force when this process started.
static FOUND: OnceLock<Rlimit> = OnceLock::new();

/// Forbids core dumps of this process.
///
/// The superuser's cannot be traced any more either. For other users that is not possible: their processes find each
/// other by reading `/proc/PID/environ` (`launch`), which it would forbid.
///
/// # Errors
/// If the system refuses.
pub fn forbid() -> io::Result<()> {
    let found = FOUND.get_or_init(|| getrlimit(Resource::Core));
    let core = found.maximum.map_or(NO_CORE, |most| most.min(NO_CORE));
    setrlimit(Resource::Core, Rlimit { current: Some(core), maximum: found.maximum })?;
    if rustix::process::geteuid().is_root() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Runs `start`, which starts a process, while the limit is the one that was found: a child has that of its parent.
pub fn with_former_limit<T>(start: impl FnOnce() -> T) -> T {
    let ours = getrlimit(Resource::Core);
    // Both are below a limit that only the superuser raises, and that nobody here lowers.
    let set = |limit: &Rlimit| {
        let _ = setrlimit(Resource::Core, *limit);
    };
    set(FOUND.get().unwrap_or(&ours));
    let started = start();
    set(&ours);
    started
}
