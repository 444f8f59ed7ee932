//! The exit code of `run` is the job's, however the job ends.

use rustix::process::Signal;
use std::time::Duration;
use system_tests::{Cluster, Finished, Mpi, Started, mpi_program, wait_until};

fn sh(cluster: &Cluster, script: &str) -> Finished {
    cluster.cli(["run", "/bin/sh", "-c", script])
}

fn mpi(cluster: &Cluster, program: &str, args: &[&str]) -> Finished {
    let program = mpi_program(program, Mpi::Mpich5);
    cluster.cli(["run", "-n", "3", program.to_str().unwrap()].iter().chain(args))
}

/// Starts ranks that sleep for a minute, and waits until they do.
fn sleepers(cluster: &Cluster) -> Started {
    let program = mpi_program("sleeper", Mpi::Mpich5);
    let mut run = cluster.spawn(["run", "-n", "3", program.to_str().unwrap(), "60"]);
    run.wait_for_output("asleep", Duration::from_secs(30));
    run
}

fn ranks_alive(cluster: &Cluster) -> bool {
    cluster.processes().iter().any(|p| p.node.is_some() && p.command.contains("sleeper"))
}

#[test]
fn a_programs_own_code_is_that_of_run() {
    let cluster = Cluster::start();
    sh(&cluster, "exit 0").succeeded();
    sh(&cluster, "exit 7").ended_with(7).failed_saying(&["job 2 failed", "7"]);
    mpi(&cluster, "exitcode", &["2", "42"]).ended_with(42).failed_saying(&["rank 2", "42"]);
    let waited = cluster.cli(["job", "--wait", "2"]).ended_with(7);
    waited.saying(&["state     failed", "exit code 7"]);
    cluster.down();
}

#[test]
fn a_signal_counts_as_128_plus_its_number() {
    let cluster = Cluster::start();
    sh(&cluster, "kill -9 $$").ended_with(137).failed_saying(&["signal 9"]);
    mpi(&cluster, "crash", &["1", "0.3", "abort"]).ended_with(134).failed_saying(&["rank 1", "signal 6"]);
    assert!(!cluster.processes().iter().any(|p| p.command.contains("crash")), "ranks are left");
    cluster.down();
}

#[test]
fn mpi_abort_and_an_end_without_finalize_end_the_whole_job() {
    let cluster = Cluster::start();
    mpi(&cluster, "crash", &["1", "0.3", "mpi"]).ended_with(7).failed_saying(&["job 1 failed", "MPI_Abort"]);
    mpi(&cluster, "crash", &["1", "0.3", "exit"]).failed_saying(&["job 2 failed", "rank 1", "MPI_Finalize"]);
    assert!(!cluster.processes().iter().any(|p| p.command.contains("crash")), "ranks are left");
    cluster.down();
}

#[test]
fn a_cancelled_job_ends_with_130() {
    let cluster = Cluster::start();
    let run = sleepers(&cluster);
    cluster.cli(["cancel", "1"]).succeeded();
    run.finish().ended_with(130).failed_saying(&["job 1 cancelled"]);
    assert!(!ranks_alive(&cluster));
    // What has ended cannot be cancelled again into another state.
    cluster.cli(["cancel", "1"]);
    assert_eq!(cluster.job(1)["state"], "cancelled");

    let run = sleepers(&cluster);
    run.signal(Signal::INT);
    run.finish().ended_with(130).failed_saying(&["cancelling job 2", "job 2 cancelled"]);
    assert!(!ranks_alive(&cluster));
    cluster.down();
}

#[test]
fn a_job_does_not_outlive_a_run_that_was_killed() {
    let cluster = Cluster::start();
    let run = sleepers(&cluster);
    run.signal(Signal::KILL);
    run.finish().ended_with(137);
    wait_until("the job ends", Duration::from_secs(40), || !ranks_alive(&cluster));
    let job = cluster.wait_for_job(1, Duration::from_secs(5));
    assert_ne!(job["state"], "done");
    assert!(job["reason"].is_string(), "{job}");
    cluster.down();
}
