//! Nodes that die or hang under jobs.

use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use system_tests::{Cluster, Mpi, Options, Started, mpi_program};

const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// Six nodes with a core each: four ranks fill node1 to node4.
fn cluster() -> Cluster {
    Cluster::start_with(Options { cores: 1, ..Options::default() })
}

#[test]
fn a_job_on_a_node_that_dies_fails_with_the_reason_and_other_jobs_go_on() {
    let cluster = cluster();
    let lost = cluster.compute_pi(&[], 60);
    let program = mpi_program("pi", Mpi::Mpich5);
    let mut other = cluster.spawn(["run", "-n", "2", program.to_str().unwrap(), "8"]);
    other.wait_for_output("pi = ", STARTED_WITHIN);
    assert_eq!(cluster.job(1)["nodes"], serde_json::json!([1, 2, 3, 4]));
    assert_eq!(cluster.job(2)["nodes"], serde_json::json!([5, 6]));

    // node3 has a backup manager besides a rank.
    assert!(cluster.kill_node(3) >= 3, "an agent, a manager and a rank");
    lost.finish().failed_saying(&["job 1 failed", "node3"]);
    let job = cluster.job(1);
    assert_eq!(job["state"], "failed");
    assert_ne!(job["exit_code"], 0);
    other.finish().succeeded().saying(&["checksum OK"]);

    cluster.wait_for_rejoin(3, 1);
    for kind in ["node-suspected", "node-dead", "node-reset"] {
        assert_eq!(cluster.count_events(kind), 1, "{kind}: {:?}", cluster.events());
    }
    // It is as good as new.
    cluster.cli(["run", "-n", "6", "--per-node", "1", "/bin/true"]).succeeded();
    cluster.down();
}

/// Starts a job whose ranks find out if they run twice at once, on node1 to node4.
fn start_exclusive(cluster: &Cluster, dir: &Path) -> Started {
    std::fs::create_dir(dir).unwrap();
    let program = mpi_program("exclusive", Mpi::Mpich5);
    let (program, dir) = (program.to_str().unwrap(), dir.to_str().unwrap());
    let mut run = cluster.spawn(["run", "--requeue", "-n", "4", "--per-node", "1", program, dir, "4"]);
    run.wait_for_output("all ranks run", STARTED_WITHIN);
    run
}

/// The job runs from its start a second time, to a good end; no rank ran twice at once.
fn runs_again_alone(cluster: Cluster, run: Started, dir: &Path, node: u32) {
    let run = run.finish().succeeded();
    assert!(run.stderr.contains("runs again from its start"), "{run:#?}");
    assert!(run.stderr.contains(&format!("node{node}")), "the reason; {run:#?}");
    assert_eq!(run.stdout.matches("all ranks run").count(), 2, "{run:#?}");
    assert!(!dir.join("twice").exists(), "two copies of a rank ran at once; {run:#?}");
    for rank in 0..4 {
        let lives = std::fs::read_to_string(dir.join(format!("rank-{rank}"))).unwrap();
        assert_eq!(lives.lines().count(), 2, "lives of rank {rank}: {lives}");
    }
    let job = cluster.job(1);
    assert_eq!((&job["state"], &job["requeues"]), (&"done".into(), &1.into()), "{job}");
    cluster.wait_for_rejoin(node, 1);
    cluster.down();
}

#[test]
fn a_requeued_job_runs_again_after_its_node_has_died() {
    let cluster = cluster();
    let dir = cluster.scratch().join("ranks");
    let run = start_exclusive(&cluster, &dir);
    assert!(cluster.kill_node(4) >= 2, "an agent and a rank");
    runs_again_alone(cluster, run, &dir, 4);
}

#[test]
fn a_requeued_job_waits_until_the_ranks_of_a_hung_agent_are_gone() {
    let cluster = cluster();
    let dir = cluster.scratch().join("ranks");
    let run = start_exclusive(&cluster, &dir);
    // Its rank runs on, and nobody but the hardcore can end it.
    let agents = cluster.processes().into_iter().filter(|p| p.command.contains("ghidrah-agent"));
    let agent = agents.into_iter().find(|p| p.node == Some(4)).expect("node4 has an agent");
    agent.signal(Signal::STOP);
    runs_again_alone(cluster, run, &dir, 4);
}
