//! What the system tests have in common: clusters that clean up after themselves, commands with a deadline,
//! the MPI programs, and a look at what runs on the machine.
//!
//! The tests use the programs `ghidrah` and its daemons as a user would, from the build directory that the
//! tests themselves are in, and link against nothing of Ghidrah.

mod cluster;
mod command;
mod processes;
mod programs;

pub use cluster::{Cluster, Manager, Options, Status};
pub use command::{Finished, Started, run};
pub use processes::{Process, cpu_time, udp_sockets};
pub use programs::{Mpi, ghidrah, imb, mpi_program, mpich5_libraries, python, repository};

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints a measurement, also when the test passes: `println!` would be kept back then.
pub fn report(measurement: &str) {
    let _ = writeln!(std::io::stderr(), "measured: {measurement}");
}

/// Looks every 20 ms until `what` gives something.
///
/// # Panics
/// If it has not after `patience`; the message names `description`.
pub fn wait_for<T>(description: &str, patience: Duration, mut what: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(started.elapsed() < patience, "{description}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`wait_for`] a condition.
///
/// # Panics
/// As there.
pub fn wait_until(description: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(description, patience, || condition().then_some(()));
}
