//! Managers that die, hang or lie under a running job.

use rustix::process::Signal;
use std::time::Duration;
use system_tests::{Cluster, Manager, Options, Started, report, wait_for, wait_until};

/// So soon after a manager's death submissions are accepted again.
const SERVICE_WITHIN: Duration = Duration::from_secs(2);
/// How long a manager that was killed may take to be back.
const RETURN_WITHIN: Duration = Duration::from_secs(20);

/// Submits a job as the first thing after a fault, and proves that it is accepted in time.
fn submission_is_accepted(cluster: &Cluster) -> u64 {
    let output = cluster.scratch().join("after.txt");
    let (job, after) = cluster.submit(&["-o", output.to_str().unwrap(), "/bin/hostname"]);
    report(&format!("a submission was accepted {:.0} ms after the fault", after.as_secs_f64() * 1e3));
    assert!(after < SERVICE_WITHIN, "accepted only after {after:?}");
    job
}

fn finishes_right(pi: Started) {
    pi.finish().succeeded().saying(&["checksum OK"]);
}

/// Waits until the manager works again, in another process, with what it had on its disk. Batches above its
/// last stable checkpoint are executed again only as they are needed.
fn comes_back_with_its_memory(cluster: &Cluster, before: &Manager) {
    let back = wait_for("the killed manager is back", RETURN_WITHIN, || {
        let status = cluster.try_status()?;
        Some(status.manager(before.node).clone()).filter(|m| m.normal && m.pid != before.pid)
    });
    assert!(back.view >= before.view, "{before:?} has come back as {back:?}");
    assert!(back.executed >= before.stable, "{before:?} has come back as {back:?}");
    let log = cluster.log(before.node, "manager");
    let mut records =
        log.lines().filter_map(|l| l.split_once("back with its memory records=")?.1.parse().ok());
    assert!(records.next_back().is_some_and(|n: u32| n > 0), "it has forgotten everything:\n{log}");
}

#[test]
fn the_primary_is_killed_and_a_new_one_takes_over() {
    let cluster = Cluster::start();
    let pi = cluster.compute_pi(&[], 8);
    let before = cluster.status();
    let victim = before.primary().clone();
    victim.signal(Signal::KILL);
    let second = submission_is_accepted(&cluster);
    let after = wait_for("a new primary", SERVICE_WITHIN, || {
        cluster.try_status().filter(|s| s.primary.is_some_and(|p| p != victim.node))
    });
    assert!(after.view > before.view, "{after:?}");
    assert_eq!(cluster.wait_for_job(second, Duration::from_secs(10))["state"], "done");
    finishes_right(pi);
    comes_back_with_its_memory(&cluster, &victim);
    assert_eq!(cluster.count_events("manager-exited"), 1);
    cluster.down();
}

#[test]
fn primaries_that_are_killed_one_after_the_other_are_replaced_equally_fast() {
    let cluster = Cluster::start();
    for _ in 0..5 {
        let victim = cluster.status().primary().clone();
        victim.signal(Signal::KILL);
        let job = submission_is_accepted(&cluster);
        assert_eq!(cluster.wait_for_job(job, Duration::from_secs(10))["state"], "done");
        comes_back_with_its_memory(&cluster, &victim);
    }
    cluster.down();
}

#[test]
fn a_backup_is_killed_and_no_view_change_is_needed() {
    let cluster = Cluster::start();
    let pi = cluster.compute_pi(&[], 5);
    let before = cluster.status();
    let victim = before.first("backup").clone();
    victim.signal(Signal::KILL);
    let second = submission_is_accepted(&cluster);
    finishes_right(pi);
    assert_eq!(cluster.wait_for_job(second, Duration::from_secs(10))["state"], "done");
    comes_back_with_its_memory(&cluster, &victim);
    let after = cluster.status();
    assert_eq!((after.view, after.primary), (before.view, before.primary));
    cluster.down();
}

#[test]
fn a_primary_that_hangs_is_replaced_and_follows_when_it_goes_on() {
    let cluster = Cluster::start();
    let pi = cluster.compute_pi(&[], 8);
    let before = cluster.status();
    let victim = before.primary().clone();
    victim.signal(Signal::STOP);
    let second = submission_is_accepted(&cluster);
    wait_until("a new primary", SERVICE_WITHIN, || {
        cluster.try_status().is_some_and(|s| s.primary.is_some_and(|p| p != victim.node))
    });
    assert_eq!(cluster.wait_for_job(second, Duration::from_secs(10))["state"], "done");
    victim.signal(Signal::CONT);
    let after = wait_for("the manager that hung is in the new view", RETURN_WITHIN, || {
        cluster.try_status().filter(|s| s.manager(victim.node).normal && s.managers.iter().all(|m| m.normal))
    });
    assert_eq!(after.manager(victim.node).pid, victim.pid, "it is the same process");
    assert_ne!(after.primary, Some(victim.node));
    finishes_right(pi);
    cluster.down();
}

/// A cluster in which the manager of `node` lies from its start. A job runs as if it did not, and the lies
/// are noticed.
fn outvotes_a_liar(node: u32) {
    let fault = ("GHIDRAH_TEST_CORRUPT_MANAGER".to_owned(), format!("flip-outputs@node{node}"));
    let cluster = Cluster::start_with(Options { env: vec![fault], ..Options::default() });
    let pi = cluster.compute_pi(&[], 3);
    finishes_right(pi);
    let file = cluster.scratch().join("word.txt");
    let (job, _) = cluster.submit(&["-o", file.to_str().unwrap(), "/bin/echo", "a true word"]);
    assert_eq!(cluster.wait_for_job(job, Duration::from_secs(10))["exit_code"], 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a true word\n");
    // What the agents were told is what was submitted: no job, launch or end that nobody asked for.
    let jobs = cluster.json(&["queue", "--all"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(2), "{jobs}");
    for kind in ["job-starting", "job-running", "job-done"] {
        assert_eq!(cluster.count_events(kind), 2, "{kind}: {:?}", cluster.events());
    }
    for kind in ["node-suspected", "node-dead", "node-reset"] {
        assert_eq!(cluster.count_events(kind), 0, "{kind}: {:?}", cluster.events());
    }
    wait_until("the agents report the liar", Duration::from_secs(10), || {
        let mut events = cluster.events().into_iter();
        events.any(|(kind, text)| kind == "manager-outvoted" && text.contains(&format!("node{node}")))
    });
    let others = cluster.events().into_iter().filter(|(kind, _)| kind == "manager-outvoted");
    let blamed: Vec<String> = others.map(|e| e.1).filter(|t| !t.contains(&format!("node{node}"))).collect();
    assert_eq!(blamed, [] as [&str; 0], "an honest manager is blamed");
    cluster.down();
}

#[test]
fn a_backup_that_lies_is_outvoted() {
    outvotes_a_liar(2);
}

#[test]
fn a_primary_that_lies_is_outvoted() {
    outvotes_a_liar(1);
}
