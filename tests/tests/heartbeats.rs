//! Heartbeats that agents bundle for each other, as in clusters of a thousand nodes, and those that wait at a manager that
//! somebody floods.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use system_tests::{Cluster, Manager, Options, udp_sockets, wait_for, wait_until};

#[test]
fn a_bundler_that_keeps_heartbeats_back_is_named_and_one_that_dies_is_not_missed() {
    // Nodes 5 to 9 are a group in which 7, 8 and 9 bundle.
    let fault = ("GHIDRAH_TEST_SUPPRESS_HEARTBEATS".to_owned(), "node8".to_owned());
    let options = Options { nodes: 9, env: vec![fault], ..Options::default() };
    let cluster = cluster(options, "heartbeat_tree_nodes = 1000", "heartbeat_tree_nodes = 8");

    let withdrawn = |node: &str| {
        let events = cluster.events();
        events.iter().any(|(kind, text)| kind == "bundler-withdrawn" && text.starts_with(&format!("{node} ")))
    };
    wait_until("f+1 managers miss what node 8 bundles", Duration::from_secs(30), || withdrawn("node8"));
    wait_until("its group goes round it", Duration::from_secs(10), || {
        [5, 6, 7, 9].iter().all(|node| cluster.log(*node, "agent").contains("bundlers=[NodeId(8)]"))
    });
    // Another bundler of the group dies; one of three is left.
    assert!(cluster.kill_node(7) > 0);
    cluster.wait_for_rejoin(7, 1);
    for (kind, text) in cluster.events().iter().filter(|(kind, _)| kind == "node-dead") {
        assert!(text.contains("node7"), "{kind}: {text}");
    }
    cluster.cli(["run", "-n", "9", "--per-node", "1", "/bin/true"]).succeeded();
    cluster.down();
}

/// How long a node may be silent, and how long the managers' sockets are flooded.
const SUSPECT_AFTER_MS: u64 = 3000;
const FLOOD: Duration = Duration::from_millis(2 * SUSPECT_AFTER_MS);

/// A cluster whose configuration has `new` in place of `old`.
fn cluster(options: Options, old: &str, new: &str) -> Cluster {
    let cluster = Cluster::start_with(options);
    cluster.cli(["down"]).succeeded();
    let path = cluster.dir().join("cluster.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    assert!(config.contains(old), "{config}");
    std::fs::write(&path, config.replace(old, new)).unwrap();
    cluster.cli(["up"]).succeeded();
    cluster
}

#[test]
fn a_flood_at_the_managers_heartbeat_ports_displaces_no_heartbeats() {
    let patience = format!("suspect_after_ms = {SUSPECT_AFTER_MS}");
    let cluster = cluster(Options::default(), "suspect_after_ms = 1000", &patience);
    let backups =
        |managers: &[Manager]| managers.iter().filter(|m| m.role == "backup").map(|m| m.node).collect();
    let (managers, nodes): (_, Vec<u32>) = wait_for("two backups", Duration::from_secs(10), || {
        let managers = cluster.status().managers;
        let nodes: Vec<u32> = backups(&managers);
        (nodes.len() == 2).then_some((managers, nodes))
    });
    let roster = std::fs::read_to_string(cluster.dir().join("keys/roster.toml")).unwrap();
    let ports: Vec<SocketAddr> = managers
        .iter()
        .filter(|m| m.role == "backup")
        .flat_map(|m| udp_sockets(m.pid))
        .filter(|at| !roster.contains(&format!("\"{at}\"")))
        .collect();
    assert!(ports.len() >= 2, "the sockets that are in no roster: {ports:?}");
    // Long enough for all to have found out that their datagrams arrive.
    std::thread::sleep(Duration::from_secs(2));

    let says = |what: &str| nodes.iter().all(|node| cluster.log(*node, "manager").contains(what));
    let (stranger, started) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Instant::now());
    while started.elapsed() < FLOOD || !says("too many datagrams") {
        assert!(started.elapsed() < Duration::from_secs(30), "the flood is not noticed");
        // More than there is room for, in a tenth of the time in which a node is suspected.
        for i in 0..1000_u32 {
            // Nobody has to take them.
            let _ = stranger.send_to(&i.to_le_bytes().repeat(30), ports[i as usize % ports.len()]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for node in &nodes {
        let log = cluster.log(*node, "manager");
        let line = log.lines().find(|line| line.contains("too many datagrams")).unwrap();
        assert!(!line.contains("found=0 ") && !line.contains("refused=0 "), "{line}");
    }
    wait_until("heartbeats may come as datagrams again", Duration::from_secs(20), || {
        says("as datagrams again")
    });
    for manager in &managers {
        let log = cluster.log(manager.node, "manager");
        // One that is held up by other work on the machine may be; without sessions it would be all six.
        assert!(log.matches("no heartbeats").count() < 3, "nodes were suspected: {log}");
    }
    cluster.down();
}
