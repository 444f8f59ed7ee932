//! A C program that uses the provider as MPI libraries do and beyond what those use, by two libfabrics: Debian's, with whose
//! headers it is built, and the one that MPICH's wheel brings.

mod common;

use common::{Way, mpi, program, provider};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, built into `dir`.
fn build(dir: &Path) -> PathBuf {
    let binary = dir.join("fabric");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&binary)
        .arg(program("fabric.c"))
        .arg("-lfabric");
    let built = cc.output().expect("a C compiler is missing; on Debian: apt-get install gcc");
    let messages = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "is libfabric there? On Debian: apt-get install libfabric-dev\n{messages}"
    );
    binary
}

/// `library`: the directory of another libfabric than the system's.
fn run(way: Way, library: Option<PathBuf>, version: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(build(dir.path()));
    command.env("FI_PROVIDER_PATH", provider()).env("FI_PROVIDER", "rcl").envs(way.variables());
    command.env("RCL_DEAD_AFTER", "2");
    if let Some(library) = library {
        command.env("LD_LIBRARY_PATH", library);
    }
    // It ends itself when something takes too long.
    let output = command.output().expect("it was built just now");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("all OK"), "{text}");
    assert!(text.contains(version), "another libfabric: {text}");
}

#[test]
fn everything_offered_works_over_shared_memory() {
    run(Way::SharedMemory, None, "libfabric 1.");
}

#[test]
fn everything_offered_works_over_the_network() {
    run(Way::Network, None, "libfabric 1.");
}

#[test]
fn everything_offered_works_with_the_libfabric_of_mpich() {
    run(Way::SharedMemory, Some(mpi().join("venv/lib/mpich")), "libfabric 2.");
}
