//! A cluster that is stopped, in good order or not, and started again.

use rustix::process::Signal;
use std::time::Duration;
use system_tests::{Cluster, wait_until};

#[test]
fn what_users_hand_in_is_nobody_elses_business() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start();
    cluster.cli(["run", "--env", "SECRET=xyzzy-4711", "/bin/true"]).succeeded();
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(cluster.dir()), 0o700);
    assert_eq!(mode(&cluster.dir().join("nodes/node1/replica-1")), 0o600);
    cluster.down();
}

fn history(cluster: &Cluster) -> Vec<(u64, String)> {
    let jobs = cluster.json(&["queue", "--all"]);
    let jobs = jobs.as_array().expect("an array").iter();
    jobs.map(|j| (j["job"].as_u64().unwrap(), j["state"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_cluster_that_went_down_remembers_its_jobs() {
    let cluster = Cluster::start();
    cluster.cli(["run", "/bin/true"]).succeeded();
    cluster.cli(["run", "/bin/false"]).ended_with(1);
    let before = history(&cluster);
    assert_eq!(before, [(1, "done".into()), (2, "failed".into())]);
    for _ in 0..2 {
        cluster.cli(["down"]).succeeded();
        cluster.assert_nothing_left();
        cluster.cli(["up"]).succeeded();
        assert_eq!(history(&cluster)[..2], before[..]);
    }
    cluster.cli(["run", "/bin/true"]).succeeded();
    assert_eq!(cluster.job(3)["state"], "done", "numbers go on");
    cluster.down();
}

#[test]
fn a_cluster_whose_power_failed_remembers_its_jobs() {
    let cluster = Cluster::start();
    cluster.cli(["run", "/bin/true"]).succeeded();
    let sleeper = cluster.spawn(["run", "-n", "2", "/bin/sleep", "60"]);
    wait_until("the second job runs", Duration::from_secs(10), || {
        history(&cluster).contains(&(2, "running".into()))
    });
    drop(sleeper);
    wait_until("nothing lives", Duration::from_secs(5), || {
        cluster.processes().iter().for_each(|p| p.signal(Signal::KILL));
        cluster.processes().is_empty()
    });
    cluster.cli(["up"]).succeeded();
    assert_eq!(history(&cluster)[0], (1, "done".into()));
    let lost = cluster.wait_for_job(2, Duration::from_secs(20));
    assert_eq!(lost["state"], "failed", "{lost}");
    cluster.cli(["run", "-n", "4", "/bin/true"]).succeeded();
    cluster.down();
}

#[test]
fn down_ends_what_a_dead_hardcore_has_left() {
    let cluster = Cluster::start();
    let job = cluster.spawn(["run", "-n", "2", "/bin/sleep", "60"]);
    wait_until("the job runs", Duration::from_secs(10), || {
        cluster.processes().iter().any(|p| p.command == "/bin/sleep 60")
    });
    cluster.hardcore().signal(Signal::KILL);
    cluster.cli(["status"]).succeeded().saying(&["the hardcore does not run"]);
    cluster.cli(["up"]).failed_saying(&["hardcore", "has died", "down"]);
    assert!(cluster.processes().iter().any(|p| p.command == "/bin/sleep 60"), "the job was harmed");
    cluster.cli(["down"]).succeeded().saying(&["the hardcore", "had died"]);
    drop(job);
    cluster.assert_nothing_left();
    cluster.cli(["down"]).failed_saying(&["no cluster runs", "ghidrah up"]);
}
