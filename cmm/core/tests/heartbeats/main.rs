//! Heartbeats of thousands of agents through a tree of bundlers, some of which keep back or forge what passes through
//! them, in virtual time.

mod world;

use cmm_core::heartbeat::Tree;
use cmm_core::identity::NodeId;
use std::collections::BTreeSet;
use world::{Behaviour, World};

const SECOND: u64 = 1_000_000;

fn set(nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
    nodes.into_iter().collect()
}

/// The bundlers of the group that the `i`-th hundred of nodes is in.
fn bundlers(tree: &Tree, i: u32) -> [NodeId; 3] {
    tree.bundlers(NodeId(100 * i + 1)).expect("it is a node of the cluster")
}

#[test]
fn in_an_honest_cluster_nobody_is_suspected_or_withdrawn() {
    let mut world = World::new(1, 2000);
    world.lose_permille = 50;
    world.run(12 * SECOND);
    assert_eq!((world.suspected, world.withdrawn), (Default::default(), BTreeSet::new()));
    // An agent's heartbeat reaches each of four managers in one message of many, not in one of its own.
    let (beats, messages) = (world.beats_sent, world.manager_messages);
    assert!(messages * 2 < beats, "{messages} messages to four managers for {beats} heartbeats");
}

#[test]
fn who_suppresses_or_forges_is_withdrawn_and_its_agents_go_round_it() {
    let mut world = World::new(2, 2500);
    world.lose_permille = 20;
    let tree = world.tree.clone();
    let mut faulty = BTreeSet::new();
    for (i, behaviour) in [
        (1, Behaviour::Suppresses { permille: 1000 }),
        (3, Behaviour::Suppresses { permille: 600 }),
        (5, Behaviour::Forges),
        (7, Behaviour::Forges),
    ] {
        world.set(bundlers(&tree, i)[i as usize % 3], behaviour);
        faulty.insert(bundlers(&tree, i)[i as usize % 3]);
    }
    // Two of a group, and all three of a group.
    let all = Behaviour::Suppresses { permille: 1000 };
    faulty.extend(bundlers(&tree, 10)[..2].iter().chain(&bundlers(&tree, 14)));
    faulty
        .iter()
        .filter(|b| !world.is_faulty(**b))
        .copied()
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|b| world.set(b, all));
    // An agent that died, of which a forger goes on to speak.
    let dead = *tree.group_of(NodeId(501)).first().unwrap();
    world.run(5 * SECOND);
    world.set(dead, Behaviour::Dead);
    world.run(25 * SECOND);
    assert_eq!(world.withdrawn, faulty);
    assert!(world.forged() > 1000, "{} forged heartbeats were seen", world.forged());
    assert!(world.dead.contains(&dead), "nobody can speak for the dead");
    // Only where all three kept quiet the managers had to ask; and not any more.
    let alone = set(tree.group_of(bundlers(&tree, 14)[0]).iter().copied().chain([dead]));
    let suspected = set(world.suspected.keys().copied());
    assert!(suspected.is_subset(&alone), "{:?}", suspected.difference(&alone));
    assert!(suspected.len() > alone.len() / 2, "{suspected:?}");
    world.suspected.clear();
    world.run(10 * SECOND);
    assert_eq!(world.suspected.len(), 0, "{:?}", world.suspected);
    assert_eq!(world.withdrawn, faulty);
}

#[test]
fn agents_that_lie_about_a_bundler_and_managers_that_lie_have_nobody_withdrawn() {
    let mut world = World::new(3, 2000);
    let tree = world.tree.clone();
    // Two agents do not send what they say they sent, in several groups.
    for i in [1, 4, 9] {
        for liar in &tree.group_of(NodeId(100 * i + 1))[..2] {
            world.set(*liar, Behaviour::OmitsWhatGoesBy(bundlers(&tree, i)[1]));
        }
    }
    // A backup forwards nothing, and accuses everybody.
    world.faulty_manager = Some(2);
    world.run(15 * SECOND);
    assert_eq!((world.suspected, world.withdrawn), (Default::default(), BTreeSet::new()));
}

#[test]
fn bundlers_that_die_are_dead_and_not_to_blame() {
    let mut world = World::new(4, 2000);
    world.lose_permille = 20;
    let tree = world.tree.clone();
    world.run(5 * SECOND);
    let mut dead = BTreeSet::new();
    for i in [2, 6, 11] {
        dead.insert(bundlers(&tree, i)[0]);
    }
    dead.extend(&bundlers(&tree, 15)[1..]);
    dead.iter().for_each(|node| world.set(*node, Behaviour::Dead));
    world.run(12 * SECOND);
    assert_eq!(world.dead, dead);
    assert_eq!(set(world.suspected.keys().copied()), dead, "their agents reach the managers by the others");
    assert_eq!(world.withdrawn, BTreeSet::new());
}
