//! Keys that change while the cluster runs.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::time::Duration;
use system_tests::{Cluster, wait_until};

const TAKEN_UP: &str = "the changed roster is taken up";
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the daemons have taken up a roster, all together.
fn taken_up(cluster: &Cluster) -> usize {
    let managers: Vec<u32> = cluster.status().managers.iter().map(|m| m.node).collect();
    let agents = (1..=6).map(|node| cluster.log(node, "agent"));
    let logs: Vec<String> = agents.chain(managers.iter().map(|node| cluster.log(*node, "manager"))).collect();
    logs.iter().map(|log| log.matches(TAKEN_UP).count()).sum()
}

/// Changes a key and waits until so many of the six agents and four managers know.
fn change(cluster: &Cluster, args: [&str; 2], daemons: usize) {
    let before = taken_up(cluster);
    let said = cluster.cli(["keys"].iter().chain(&args)).succeeded();
    said.saying(&["the running daemons have been told"]);
    wait_until("all daemons have the roster", PATIENCE, || taken_up(cluster) >= before + daemons);
}

#[test]
fn new_keys_are_taken_up_by_a_running_cluster_which_forgets_nothing() {
    let cluster = Cluster::start();
    cluster.cli(["run", "/bin/true"]).succeeded();
    let job = cluster.spawn(["run", "-n", "4", "/bin/sleep", "4"]);
    wait_until("the job runs", PATIENCE, || {
        let jobs = cluster.json(&["queue"]);
        jobs.as_array().is_some_and(|jobs| jobs.iter().any(|job| job["state"] == "running"))
    });
    // Of more agents than an election may miss, and of the primary.
    for name in ["agent-node1", "agent-node2", "agent-node5", "manager-node1", "hardcore"] {
        change(&cluster, ["rotate", name], 10);
    }
    job.finish().succeeded();
    cluster.cli(["run", "/bin/true"]).succeeded();
    for kind in ["node-dead", "manager-exited"] {
        assert_eq!(cluster.count_events(kind), 0, "{kind}: {:?}", cluster.events());
    }
    // Started again, it has the same managers with the same books.
    cluster.cli(["down"]).succeeded();
    cluster.cli(["up"]).succeeded();
    let jobs = cluster.json(&["queue", "--all"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(3), "{jobs}");
    let nodes = cluster.dir().join("nodes");
    assert!(nodes.join("node1/replica-1").exists() && !nodes.join("node1/replica-2").exists());
    cluster.cli(["run", "/bin/true"]).succeeded();
    cluster.down();
}

#[test]
fn a_revoked_agent_is_heard_no_more_and_a_broken_roster_is_not_taken_up() {
    let cluster = Cluster::start();
    // The agent itself finds that it has no place in this roster.
    change(&cluster, ["revoke", "agent-node6"], 9);
    wait_until("the managers miss it", PATIENCE, || cluster.node(6)["state"] != "up");
    let log = cluster.log(6, "agent");
    assert!(log.contains("is not taken up") && log.contains("revoked"), "it knows why:\n{log}");
    cluster.cli(["run", "/bin/true"]).succeeded();

    let (roster, good) = (cluster.dir().join("keys/roster.toml"), cluster.dir().join("keys/roster.good"));
    std::fs::copy(&roster, &good).unwrap();
    std::fs::write(&roster, "not a roster").unwrap();
    cluster.hardcore().signal(Signal::HUP);
    for daemon in ["agent", "manager"] {
        wait_until("it is refused", PATIENCE, || {
            let log = cluster.log(1, daemon);
            log.lines().any(|line| line.contains("is not taken up") && line.contains("roster.toml"))
        });
    }
    std::fs::rename(&good, &roster).unwrap();
    cluster.cli(["run", "/bin/true"]).succeeded();
    cluster.down();
}

/// The limit on cores in a text like `/proc/PID/limits`, as far as it is enforced.
fn core_limit(limits: &str) -> String {
    let line =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("all limits are there");
    line.split_whitespace().nth(4).expect("the soft limit").to_owned()
}

#[test]
fn daemons_leave_no_cores_with_their_keys_and_jobs_leave_theirs() {
    let ours = getrlimit(Resource::Core);
    let most = ours.maximum.unwrap_or(u64::MAX);
    // One that is neither none nor what the daemons set.
    let jobs = most.min(8192);
    setrlimit(Resource::Core, Rlimit { current: Some(jobs), maximum: ours.maximum }).unwrap();
    let cluster = Cluster::start();
    for process in cluster.processes() {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        assert_eq!(core_limit(&limits), most.min(1).to_string(), "{process:?}");
    }
    let job = cluster.cli(["run", "/bin/cat", "/proc/self/limits"]).succeeded();
    assert_eq!(core_limit(&job.stdout), jobs.to_string());
    cluster.down();
}
