//! Heartbeats, bundles of them and the datagrams they travel in, as agents and managers send them. Half of the tags are taken
//! for genuine.
#![no_main]

use cl_base::{Incarnation, PeerId, Time};
use cmm_core::heartbeat::{Bundler, Heartbeat, Monitor, NODES_MAX, Tree, datagram};
use cmm_core::identity::NodeId;
use std::time::Duration;

const NODES: u32 = 40;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some(read) = datagram::read(input) {
        let mut written = Vec::new();
        datagram::write(&mut written, read.kind, read.from, read.body, |tagged| {
            assert_eq!(tagged, read.tagged);
            *read.tag
        });
        assert_eq!(written, input);
    }
    let tree = Tree::new((1..=NODES).map(NodeId));
    let (me, other) = (PeerId::from_u64(0), PeerId::from_u64(1));
    let mut bundler = Bundler::new(NodeId(NODES), tree.clone());
    let mut monitor = Monitor::with_tree(Duration::from_secs(1), tree);
    if let Some(heartbeat) = Heartbeat::read(input) {
        assert_eq!(heartbeat.to_bytes(), input);
        let managers: Vec<PeerId> = heartbeat.tags.iter().map(|(manager, _)| *manager).collect();
        if bundler.collect(heartbeat) {
            assert_eq!(bundler.take_bundles(&managers).len(), 1);
        }
    }
    let mut heard = 0;
    for (i, piece) in input.chunks(256).enumerate() {
        let now = Time::from_nanos((1 << 40) + i as u64 * 100_000_000);
        // A table of all possible nodes takes long to fill.
        let genuine = |node: NodeId, tag: &[u8; 16]| {
            assert!(node.0 < NODES_MAX);
            node.0 <= NODES && tag[0] & 1 == 0
        };
        heard += monitor.heard_bundle(now, piece, |node, _, tag| genuine(node, tag));
        heard += monitor.heard_group_bundle(now, me, piece, |node, _, tag| genuine(node, tag));
        let forwarded: usize = monitor.take_bundles(&[me, other]).iter().map(|(_, bundle)| bundle.len()).sum();
        assert!(forwarded <= 4 * piece.len());
        let expected = (1..=NODES).map(|node| (NodeId(node), Incarnation(1)));
        assert!(monitor.overdue(now, expected).len() <= NODES as usize);
        assert!(monitor.suppressors(now).len() <= NODES as usize);
    }
    assert!(heard <= input.len());
});
