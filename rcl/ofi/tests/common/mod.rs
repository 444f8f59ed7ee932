//! Where things are, and how ranks reach each other.
#![allow(unreachable_pub)]

use std::path::{Path, PathBuf};

/// Where `.ci/setup` puts MPI libraries and programs.
pub fn mpi() -> PathBuf {
    let mpi = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/mpi");
    assert!(mpi.join("venv/bin/mpiexec").exists(), "MPICH is missing; run .ci/setup");
    mpi
}

pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// The directory of the provider's library, built with these tests.
pub fn provider() -> PathBuf {
    let here = std::env::current_exe().expect("a test has a program");
    let dir = here.parent().expect("which is somewhere").to_owned();
    assert!(dir.join("librcl_fi.so").exists(), "no librcl_fi.so in {}", dir.display());
    dir
}

/// How the ranks reach each other.
#[derive(Clone, Copy)]
pub enum Way {
    SharedMemory,
    /// As if each were on a host of its own.
    Network,
}

impl Way {
    /// What tells the provider.
    pub fn variables(self) -> [(&'static str, &'static str); 2] {
        let shared = match self {
            Way::SharedMemory => "1",
            Way::Network => "0",
        };
        [("RCL_SHM", shared), ("RCL_ADDRESS", "127.0.0.1")]
    }
}
