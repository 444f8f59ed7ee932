//! What is counted is what was.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::PeerId;
use cl_sim::Link;
use rcl_proto::{Config, Event};
use std::collections::BTreeSet;
use std::time::Duration;
use world::{CLEAN, World, seeds};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

fn config() -> Config {
    Config { window: 64, small_len: 0, ..Config::new(1000) }
}

#[test]
fn needless_retransmissions_are_those_of_which_another_copy_has_arrived() {
    let mut all = (0, 0);
    for seed in seeds(20) {
        // Frames overtake each other by many round trips, get lost, and are doubled on the way.
        let late = Link { jitter: Duration::from_millis(20), ..CLEAN };
        let mut world = World::new(seed, late, config(), &[A, B]);
        world.set_path(A, B, late.with_faults("drop=5%,duplicate=10%"));
        world.connect(A, B);
        world.run_for(Duration::from_secs(1));
        world.note_segments(B);
        let (mut sent, mut received) = (0u32, 0);
        let end = world.now() + Duration::from_secs(600);
        while received < 500 {
            while sent < 500 && world.node(A).send(B, vec![1; 900]).is_ok() {
                sent += 1;
            }
            assert!(world.step(end), "seed {seed}: {received} received");
            received += world.messages(B).len();
        }
        // The last word about it is on the way.
        world.run_for(Duration::from_secs(2));
        let arrived = world.segments(B);
        let numbers: BTreeSet<u64> = arrived.iter().map(|(number, _)| *number).collect();
        let needless = (arrived.len() - numbers.len()) as u64;
        let counters = world.node(A).counters();
        // What is a whole window late is not recognized.
        let counted = counters.spurious;
        assert!(
            counted <= needless && counted + 2 + needless / 10 >= needless,
            "seed {seed}: {needless} and {counters:?}"
        );
        assert!(counters.retransmissions > needless, "seed {seed}: some were lost, {counters:?}");
        all = (all.0 + counters.retransmissions, all.1 + needless);
    }
    assert!(all.1 > 100, "{all:?}");
}

#[test]
fn nothing_is_needless_where_frames_are_only_lost_or_doubled() {
    let mut world = World::new(1, CLEAN, config(), &[A, B]);
    world.set_path(A, B, CLEAN.with_faults("drop=5%,duplicate=10%"));
    world.connect(A, B);
    for _ in 0..300 {
        world.node(A).send(B, vec![1; 900]).unwrap();
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.messages(B).len(), 300);
    let (counters, of_b) = (world.node(A).counters(), world.node(B).counters());
    assert!(counters.retransmissions > 5 && of_b.duplicates > 10, "{counters:?} {of_b:?}");
    assert_eq!(counters.spurious, 0, "{counters:?}");
}

#[test]
fn what_is_dropped_is_counted_of_the_peer_in_whose_name_it_came() {
    const C: PeerId = PeerId::new(3, 0);
    let mut world = World::new(1, CLEAN, config(), &[A, B, C]);
    world.set_path(A, B, CLEAN.with_faults("corrupt=5%"));
    for peer in [A, C] {
        world.connect(peer, B);
        for _ in 0..300 {
            world.node(peer).send(B, vec![1; 900]).unwrap();
        }
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.messages(B).len(), 600);
    // One of no connection of ours, in the name of C.
    let (now, at) = (world.now(), world::addr(C));
    world.node(B).on_frame(now, C, at, vec![9; 3]);
    let all = world.node(B).counters();
    assert!(all.checksum > 5 && all.duplicates + all.truncated > 0, "{all:?}");
    let of = |peer: PeerId, world: &mut World| {
        let mut connections = world.node(B).connections();
        let (_, counters, _) = connections.find(|(p, ..)| *p == peer).expect("a connection");
        (counters.checksum, counters.truncated)
    };
    assert_eq!(of(A, &mut world), (all.checksum, 0));
    assert_eq!(of(C, &mut world), (0, 1));
}

#[test]
fn messages_and_bytes_are_counted_at_both_ends_of_every_kind() {
    let mut world = World::new(1, CLEAN, Config { small_len: 100, ..config() }, &[A, B]);
    world.connect(A, B);
    let lens = [0, 1, 50, 99, 100, 101, 999, 1000, 1001, 20_000];
    for len in lens {
        world.node(A).send(B, vec![1; len]).unwrap();
    }
    let large = [0, 5000];
    for len in large {
        world.node(A).send_large(B, Box::new(vec![2u8; len])).unwrap();
    }
    assert!(world.node(A).sizes(B).unwrap().waiting >= 8);
    let end = world.now() + Duration::from_secs(1);
    while world.step(end) {
        while let Some(event) = world.event(B) {
            if let Event::Announced { id, len, .. } = event {
                world.node(B).accept(A, id, Box::new(vec![0u8; len as usize]));
            }
        }
    }
    let messages = (lens.len() + large.len()) as u64;
    let bytes = lens.iter().chain(&large).sum::<usize>() as u64;
    let (a, b) = (world.node(A).counters(), world.node(B).counters());
    assert_eq!((a.messages_sent, a.bytes_sent), (messages, bytes));
    assert_eq!((b.messages_received, b.bytes_received), (messages, bytes));
    assert_eq!((a.messages_received, b.messages_sent), (0, 0));
    assert_eq!(world.node(A).sizes(B).unwrap().waiting, 0);
}

#[test]
fn a_stall_is_counted_once_however_often_it_is_looked_at() {
    let mut world = World::new(1, CLEAN, Config { window: 4, ..config() }, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    world.set_deaf(B, true);
    for _ in 0..10 {
        world.node(A).send(B, vec![1; 900]).unwrap();
    }
    world.run_for(Duration::from_secs(2));
    let before = world.node(A).counters().credit_stalls;
    assert_eq!(before, 1, "it has asked many times since");
    assert_eq!(world.node(A).sizes(B).unwrap().waiting, 6);
    world.set_deaf(B, false);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.messages(B).len(), 10);
}
