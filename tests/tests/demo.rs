//! The main job: `ghidrah demo`, with each kind of victim.

use std::time::Duration;
use system_tests::{Cluster, Finished, Started, ghidrah, python};

/// Runs the demonstration in a directory of its own and proves that nothing of it is left.
fn demo(args: &[&str]) -> Finished {
    let place = Cluster::prepare(Vec::new());
    let mut command = place.command(["demo"].iter().chain(args));
    command.env("MPICC", python().with_file_name("mpicc")).env("TMPDIR", place.scratch());
    let told = Started::new(command).finish_within(Duration::from_secs(90)).succeeded();
    println!("{}", told.stdout);
    place.assert_nothing_left();
    assert!(!place.dir().exists(), "the demonstration removes its cluster");
    told.saying(&[
        "bootstrapped: view ",
        "4 MPI ranks run on",
        "was submitted and accepted",
        "the cluster is down",
    ])
}

#[test]
fn a_job_survives_the_death_of_the_primary_manager() {
    demo(&["--seconds", "6"]).saying(&[
        "KILLED the primary manager on node",
        "the primary was node",
        "checksum OK",
        "is done, exit code 0",
        "is back, with its memory",
    ]);
}

#[test]
fn a_job_survives_the_death_of_a_backup_manager() {
    demo(&["--seconds", "4", "--kill", "backup"]).saying(&[
        "KILLED the backup manager on node",
        "checksum OK",
        "is done, exit code 0",
        "is back, with its memory",
    ]);
}

#[test]
fn a_node_that_dies_is_reported_reset_and_taken_back() {
    demo(&["--seconds", "6", "--kill", "node"]).saying(&[
        "KILLED node",
        "was reported failed: node",
        "the hardcore has reset node",
        "it is part of the cluster again",
    ]);
}

#[test]
fn a_missing_compiler_is_named_with_the_remedy() {
    let place = Cluster::prepare(Vec::new());
    let mut command = place.command(["demo"]);
    command.env("MPICC", "/nowhere/mpicc");
    system_tests::run(command).failed_saying(&["/nowhere/mpicc", "apt-get install mpich"]);
    assert!(ghidrah().exists() && !place.dir().exists());
}

#[test]
fn an_interrupted_demonstration_leaves_nothing() {
    let mut place = Cluster::prepare(Vec::new());
    let mut command = place.command(["demo", "--seconds", "30"]);
    command.env("MPICC", python().with_file_name("mpicc")).env("TMPDIR", place.scratch());
    let mut demo = Started::new(command);
    demo.wait_for_output("4 MPI ranks run on", Duration::from_secs(40));
    place.started();
    demo.signal(rustix::process::Signal::INT);
    let demo = demo.finish_within(Duration::from_secs(20));
    assert_ne!(demo.code, 0, "{demo:#?}");
    place.assert_nothing_left();
}
