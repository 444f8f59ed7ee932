//! Heartbeats that agents bundle for each other, as in clusters of a thousand nodes.

use std::time::Duration;
use system_tests::{Cluster, Options, wait_until};

#[test]
fn a_bundler_that_keeps_heartbeats_back_is_named_and_one_that_dies_is_not_missed() {
    // Nodes 5 to 9 are a group in which 7, 8 and 9 bundle.
    let fault = ("GHIDRAH_TEST_SUPPRESS_HEARTBEATS".to_owned(), "node8".to_owned());
    let cluster = Cluster::start_with(Options { nodes: 9, env: vec![fault], ..Options::default() });
    cluster.cli(["down"]).succeeded();
    let path = cluster.dir().join("cluster.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let with_tree = config.replace("heartbeat_tree_nodes = 1000", "heartbeat_tree_nodes = 8");
    assert_ne!(with_tree, config);
    std::fs::write(&path, with_tree).unwrap();
    cluster.cli(["up"]).succeeded();

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
