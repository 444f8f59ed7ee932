//! How much gets through, in virtual time, so that the numbers repeat themselves.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::PeerId;
use cl_sim::Link;
use rcl_proto::{Config, Counters};
use std::time::Duration;
use world::World;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// 10 Gbit/s, of which Ethernet frames carry 1.21 GB/s of contents.
const BANDWIDTH: u64 = 10_000_000_000;
/// Bytes that a port of the switch holds.
const QUEUE: usize = 1 << 20;
const MESSAGE_LEN: usize = 100_000;

fn config() -> Config {
    Config::new(1372)
}

/// A round trip takes 100 microseconds.
fn path(faults: &str) -> Link {
    Link { delay: Duration::from_micros(50), ..Link::PERFECT }.with_faults(faults)
}

/// Sends from `senders` to B for so long; bytes that each of them got through, and B's counters.
fn stream(faults: &str, senders: &[PeerId], time: Duration) -> (Vec<u64>, World) {
    let peers: Vec<PeerId> = [&[B], senders].concat();
    let mut world = World::new(1, path(faults), config(), &peers);
    world.set_downlink(B, Link::PERFECT.with_bandwidth(BANDWIDTH, QUEUE));
    for &sender in senders {
        world.set_uplink(sender, Link::PERFECT.with_bandwidth(BANDWIDTH, QUEUE));
        world.connect(sender, B);
    }
    let end = world.now() + time;
    loop {
        for &sender in senders {
            while world.node(sender).sizes(B).is_some_and(|s| s.held < 20 * MESSAGE_LEN) {
                world.node(sender).send(B, vec![sender.principal.0 as u8; MESSAGE_LEN]).unwrap();
            }
        }
        if !world.step(end) {
            break;
        }
    }
    let mut bytes = vec![0; senders.len()];
    for message in world.messages(B) {
        let sender = senders.iter().position(|s| s.principal.0 as u8 == message[0]).unwrap();
        bytes[sender] += message.len() as u64;
    }
    (bytes, world)
}

/// Megabytes a second from A to B.
fn goodput(faults: &str) -> (u64, Counters) {
    let time = Duration::from_millis(100);
    let (bytes, mut world) = stream(faults, &[A], time);
    (bytes[0] / time.as_micros() as u64, world.node(A).counters())
}

#[test]
fn goodput_under_faults_is_what_it_was() {
    let (clean, counters) = goodput("");
    assert_eq!(counters.retransmissions, 0, "{counters:?}");
    let mut table = vec![format!("clean {clean} MB/s")];
    for (faults, least) in [("drop=1%", 60), ("reorder=1%", 90), ("duplicate=1%", 90), ("delay=200us@1%", 80)]
    {
        let (bad, counters) = goodput(faults);
        table.push(format!("{faults} {bad} MB/s"));
        assert!(bad * 100 >= clean * least, "{table:?} {counters:?}");
    }
    println!("{table:?}");
    assert_eq!(table, SNAPSHOT, "another protocol than before; is it better?");
}

/// What [`goodput_under_faults_is_what_it_was`] found when it was last looked at.
const SNAPSHOT: [&str; 5] = [
    "clean 1202 MB/s",
    "drop=1% 1189 MB/s",
    "reorder=1% 1202 MB/s",
    "duplicate=1% 1190 MB/s",
    "delay=200us@1% 1190 MB/s",
];

#[test]
fn sixty_four_to_one_all_get_their_part() {
    let senders: Vec<PeerId> = (0..64).map(|n| PeerId::new(10 + n, 0)).collect();
    let time = Duration::from_millis(100);
    let (bytes, world) = stream("", &senders, time);
    let mean = bytes.iter().sum::<u64>() / 64;
    let slowest = *bytes.iter().min().unwrap();
    let total = mean * 64 / time.as_micros() as u64;
    println!("{total} MB/s altogether, the slowest {slowest}, the mean {mean}: {:?}", world.counts());
    assert!(slowest * 2 >= mean, "slowest {slowest}, mean {mean}");
    assert!(total >= 1000, "{total} MB/s of 1210");
}
