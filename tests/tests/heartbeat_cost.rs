//! What heartbeats cost the managers: Figure 7.6 of the dissertation.

use std::time::{Duration, Instant};
use system_tests::{Cluster, Options, Process, cpu_time, report, wait_until};

const MEASURED_FOR: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// A cluster of `agents` nodes whose agents send a heartbeat every `period_ms`; none are suspected meanwhile.
fn cluster(agents: u32, period_ms: u64, tree: bool) -> Cluster {
    let cluster = Cluster::start_with(Options { nodes: agents, cores: 1, ..Options::default() });
    cluster.cli(["down"]).succeeded();
    let path = cluster.dir().join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let set = |text: String, key: &str, value: u64| {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} ="))).expect(key);
        text.replace(line, &format!("{key} = {value}"))
    };
    let text = set(text, "heartbeat_ms", period_ms);
    let text = set(text, "suspect_after_ms", 600_000);
    let text = set(text, "heartbeat_tree_nodes", if tree { 4 } else { 1000 });
    std::fs::write(&path, text).unwrap();
    cluster.cli(["up"]).succeeded();
    wait_until("all nodes have joined", Duration::from_secs(120), || {
        let nodes = cluster.json(&["nodes"]);
        nodes.as_array().is_some_and(|all| all.iter().all(|node| node["state"] == "up"))
    });
    std::thread::sleep(Duration::from_secs(2));
    cluster
}

/// The processor time of each manager's process, in percent of one core: (role, percent), the median of rounds.
fn measure(cluster: &Cluster) -> Vec<(String, f64)> {
    let managers = cluster.status().managers;
    let processes = |pid| [Process { pid, command: String::new(), node: None }];
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); managers.len()];
    for _ in 0..ROUNDS {
        let before: Vec<Duration> = managers.iter().map(|m| cpu_time(&processes(m.pid))).collect();
        let started = Instant::now();
        std::thread::sleep(MEASURED_FOR);
        let elapsed = started.elapsed();
        for ((manager, before), shares) in managers.iter().zip(before).zip(&mut shares) {
            let used = cpu_time(&processes(manager.pid)) - before;
            shares.push(used.as_secs_f64() / elapsed.as_secs_f64() * 100.0);
        }
    }
    let median = |mut shares: Vec<f64>| {
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    };
    managers.into_iter().map(|m| m.role).zip(shares.into_iter().map(median)).collect()
}

/// Measures one system and prints what its managers use.
fn report_on(agents: u32, period_ms: u64, tree: bool) {
    let cluster = cluster(agents, period_ms, tree);
    let shares: Vec<String> =
        measure(&cluster).iter().map(|(role, share)| format!("{role} {share:.2} %")).collect();
    let rate = u64::from(agents) * 1000 / period_ms;
    let how = if tree { ", agents bundle" } else { "" };
    report(&format!("{agents} agents, {rate} heartbeats per second{how}: {}", shares.join(", ")));
    cluster.down();
}

#[test]
#[ignore = "minutes; see docs/PERFORMANCE.md"]
fn no_heartbeats_to_speak_of() {
    report_on(20, 60_000, false);
}

#[test]
#[ignore = "minutes; see docs/PERFORMANCE.md"]
fn twenty_agents_and_1000_heartbeats_per_second() {
    report_on(20, 20, false);
}

#[test]
#[ignore = "minutes; see docs/PERFORMANCE.md"]
fn a_hundred_agents_and_1000_heartbeats_per_second() {
    report_on(100, 100, false);
}

#[test]
#[ignore = "minutes; see docs/PERFORMANCE.md"]
fn a_hundred_agents_that_bundle_and_1000_heartbeats_per_second() {
    report_on(100, 100, true);
}
