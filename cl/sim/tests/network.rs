//! What the simulated network does to datagrams.

use cl_base::faults::Faults;
use cl_base::{PeerId, Time};
use cl_sim::{Happening, Link, Outbox, Party, World};
use std::time::Duration;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const C: PeerId = PeerId::new(3, 0);

/// Sends what it is told to, and remembers what arrives.
struct Recorder {
    to_send: Vec<(PeerId, Vec<u8>)>,
    received: Vec<(Time, PeerId, Vec<u8>)>,
    wake: Time,
    woken: Vec<Time>,
}

impl Recorder {
    fn new() -> Recorder {
        Recorder { to_send: Vec::new(), received: Vec::new(), wake: Time::MAX, woken: Vec::new() }
    }

    fn numbers(&self) -> Vec<u32> {
        self.received.iter().map(|(_, _, m)| u32::from_le_bytes(m[..4].try_into().unwrap())).collect()
    }
}

impl Party for Recorder {
    fn on_datagram(&mut self, now: Time, from: PeerId, bytes: Vec<u8>) {
        self.received.push((now, from, bytes));
    }

    fn on_deadline(&mut self, now: Time) {
        self.woken.push(now);
        self.wake = Time::MAX;
    }

    fn next_deadline(&self) -> Time {
        self.wake
    }

    fn drain(&mut self, _: Time, out: &mut Outbox) {
        self.to_send.drain(..).for_each(|(to, bytes)| out.send(to, bytes));
    }
}

fn world(seed: u64, paths: Link) -> World<Recorder> {
    let mut world = World::new(seed);
    world.set_paths(paths);
    for peer in [A, B, C] {
        world.insert(peer, Recorder::new());
    }
    world
}

fn send(world: &mut World<Recorder>, from: PeerId, to: PeerId, bytes: impl Into<Vec<u8>>) {
    world.party_mut(from).to_send.push((to, bytes.into()));
}

/// Sends `count` numbered datagrams of `len` bytes, one every `every`, and waits for all of them.
fn stream(world: &mut World<Recorder>, count: u32, len: usize, every: Duration) {
    for n in 0..count {
        let mut bytes = n.to_le_bytes().to_vec();
        bytes.resize(len, n as u8);
        send(world, A, B, bytes);
        world.run_for(every);
    }
    world.run_for(Duration::from_secs(10));
}

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

#[test]
fn a_datagram_takes_the_time_that_links_take() {
    let mut world = world(1, Link { delay: micros(30), ..Link::PERFECT });
    let begin = world.now();
    // A megabyte a second: a byte takes a microsecond.
    world.set_uplink(A, Link { delay: micros(5), ..Link::PERFECT }.with_bandwidth(8_000_000, 10_000));
    world.set_downlink(B, Link::PERFECT.with_bandwidth(16_000_000, 10_000));
    send(&mut world, A, B, [1; 100]);
    send(&mut world, A, B, [2; 200]);
    send(&mut world, C, B, [3; 10]);
    world.run_for(Duration::from_secs(1));
    let received: Vec<_> = world
        .party(B)
        .received
        .iter()
        .map(|(at, from, m)| (at.saturating_since(begin), *from, m[0]))
        .collect();
    assert_eq!(received, [(micros(35), C, 3), (micros(185), A, 1), (micros(435), A, 2)]);
    assert_eq!(world.uplink_counts(A).backlog_max, micros(300));
    assert_eq!((world.downlink_counts(B).datagrams, world.downlink_counts(B).bytes), (3, 310));
    assert_eq!(world.counts().delivered_bytes, 310);
}

#[test]
fn a_full_queue_loses_what_comes_last() {
    let mut world = world(1, Link::PERFECT.with_bandwidth(8_000_000, 1000));
    for n in 0..5u32 {
        send(&mut world, A, B, [&n.to_le_bytes()[..], &[0; 396]].concat());
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.party(B).numbers(), [0, 1]);
    // One that is longer than the queue goes if it is alone.
    send(&mut world, A, B, [9; 5000]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.party(B).received.len(), 3);
    assert_eq!((world.counts().losses.overflows, world.path_counts(A, B).overflows), (3, 3));
    assert_eq!(world.trace().filter(|e| e.happening == Happening::Overflow).count(), 3);
}

#[test]
fn what_many_send_to_one_meets_at_its_downlink() {
    let mut world: World<Recorder> = World::new(3);
    let senders: Vec<PeerId> = (1..=64).map(|n| PeerId::new(100 + n, 0)).collect();
    world.insert(A, Recorder::new());
    world.set_paths(Link { delay: micros(10), ..Link::PERFECT });
    world.set_downlink(A, Link::PERFECT.with_bandwidth(8_000_000_000, 32 * 1000));
    let begin = world.now();
    for &sender in &senders {
        world.insert(sender, Recorder::new());
        send(&mut world, sender, A, [0; 1000]);
    }
    world.run_for(Duration::from_secs(1));
    let received = &world.party(A).received;
    assert_eq!((received.len(), world.counts().losses.overflows), (32, 32));
    let last = received.last().unwrap().0;
    assert_eq!(last.saturating_since(begin), micros(10 + 32), "a microsecond each");
}

#[test]
fn faults_come_as_often_as_they_should_and_every_datagram_is_accounted_for() {
    let rates = "drop=10%,duplicate=5%,corrupt=1%,reorder=5%,delay=1ms@5%";
    let mut world = world(4, Link { delay: micros(50), ..Link::PERFECT }.with_faults(rates));
    const COUNT: u32 = 20_000;
    stream(&mut world, COUNT, 100, micros(10));
    let (counts, c) = (world.counts(), world.path_counts(A, B).faults);
    assert_eq!((counts.faults, counts.sent, c.messages), (c, COUNT.into(), COUNT.into()));
    assert_eq!(counts.delivered, counts.sent - c.dropped + c.duplicated);
    assert_eq!(counts.losses.dropped, c.dropped);
    let near = |count: u64, percent: u64| {
        let expected = u64::from(COUNT) * percent / 100;
        assert!(count.abs_diff(expected) < expected / 4, "{count}, not {expected}: {c:?}");
    };
    near(c.dropped, 10);
    near(c.duplicated, 5);
    near(c.corrupted, 1);
    near(c.reordered, 5);
    near(c.delayed, 5);
    let (mut damaged, party) = (0, world.party(B));
    for (number, (_, _, bytes)) in party.numbers().iter().zip(&party.received) {
        let intact = *number < COUNT && bytes[4..].iter().all(|b| *b == *number as u8);
        damaged += u64::from(!intact);
    }
    // A changed number may look like another one; a changed datagram may arrive twice.
    near(damaged, 1);
}

#[test]
fn a_reordered_datagram_is_displaced_by_a_few() {
    let mut world = world(5, Link { delay: micros(50), ..Link::PERFECT }.with_faults("reorder=10%"));
    stream(&mut world, 2000, 10, micros(1));
    let numbers = world.party(B).numbers();
    let displaced = numbers.iter().enumerate().filter(|(i, n)| *i != **n as usize).count();
    assert!(displaced > 200, "{displaced}");
    assert!(numbers.iter().enumerate().all(|(i, n)| i.abs_diff(*n as usize) <= 6), "{numbers:?}");
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..2000).collect::<Vec<_>>());
}

#[test]
fn jitter_lets_datagrams_overtake_each_other_within_its_bound() {
    let mut world = world(6, Link { delay: micros(50), jitter: micros(100), ..Link::PERFECT });
    let begin = world.now();
    (0..1000u32).for_each(|n| send(&mut world, A, B, n.to_le_bytes()));
    world.run_for(Duration::from_secs(1));
    assert!(!world.party(B).numbers().is_sorted());
    let times: Vec<Duration> =
        world.party(B).received.iter().map(|(at, _, _)| at.saturating_since(begin)).collect();
    assert_eq!(times.len(), 1000);
    assert!(times[0] >= micros(50) && times[0] < micros(52), "{:?}", times[0]);
    assert!(times[999] <= micros(150) && times[999] > micros(148), "{:?}", times[999]);
}

#[test]
fn a_cut_network_loses_what_crosses_the_cut() {
    let mut world = world(7, Link { delay: Duration::from_millis(1), ..Link::PERFECT });
    let both_ways = |world: &mut World<Recorder>| {
        for (from, to) in [(A, B), (B, A), (A, C), (B, C)] {
            send(world, from, to, [0]);
        }
        world.run_for(Duration::from_secs(1));
        [A, B, C].map(|p| std::mem::take(&mut world.party_mut(p).received).len())
    };
    assert_eq!(both_ways(&mut world), [1, 1, 2]);
    world.cut(A, B);
    assert_eq!(both_ways(&mut world), [1, 0, 2]);
    world.partition([C]);
    assert_eq!(both_ways(&mut world), [1, 0, 0]);
    world.heal();
    assert_eq!(both_ways(&mut world), [1, 1, 2]);
    // What is on the way when the network is cut is lost, too.
    send(&mut world, A, B, [0]);
    world.run_for(micros(500));
    world.partition([A]);
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.party(B).received.len(), world.counts().losses.cut), (0, 1 + 1 + 2 + 1));
}

#[test]
fn a_party_that_is_gone_receives_nothing_and_its_successor_does() {
    let mut world = world(8, Link { delay: Duration::from_millis(1), ..Link::PERFECT });
    send(&mut world, A, B, [1]);
    world.run_for(micros(100));
    assert!(world.remove(B).is_some());
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.counts().losses.no_party, 1);
    send(&mut world, A, B, [2]);
    world.run_for(micros(100));
    assert!(world.insert(B, Recorder::new()).is_none());
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.party(B).received.len(), 1);
}

#[test]
fn deadlines_come_on_time_and_after_a_sleep_late() {
    let mut world = world(9, Link::PERFECT);
    let begin = world.now();
    let wake = |world: &mut World<Recorder>, at| world.party_mut(A).wake = begin + Duration::from_secs(at);
    wake(&mut world, 3);
    world.run_for(Duration::from_secs(2));
    assert!(world.party(A).woken.is_empty());
    world.run_for(Duration::from_secs(2));
    wake(&mut world, 5);
    world.sleep(Duration::from_secs(60));
    assert!(world.run_until(Duration::from_secs(1), |w| w.party(A).woken.len() == 2));
    let woken: Vec<u64> =
        world.party(A).woken.iter().map(|at| at.saturating_since(begin).as_secs()).collect();
    assert_eq!(woken, [3, 64]);
    assert!(!world.run_until(Duration::from_secs(1), |w| w.party(A).woken.len() == 3), "nothing more");
    assert_eq!(world.now(), begin + Duration::from_secs(65));
}

#[test]
fn faults_can_begin_and_end() {
    let mut world = world(10, Link::PERFECT);
    stream(&mut world, 10, 4, micros(1));
    world.set_faults("drop=100%".parse().unwrap());
    stream(&mut world, 10, 4, micros(1));
    world.set_faults(Faults::NONE);
    stream(&mut world, 10, 4, micros(1));
    assert_eq!((world.party(B).received.len(), world.counts().losses.dropped), (20, 10));
}

fn bad_run(seed: u64) -> u64 {
    let bad = Link { delay: micros(50), jitter: micros(20), ..Link::PERFECT }
        .with_bandwidth(50_000_000, 3_000)
        .with_faults("any=20%,corrupt=1e-4/byte");
    let mut world = world(seed, bad);
    for n in 0..1000 {
        let [from, to] = if world.rng().chance(1, 2) { [A, B] } else { [C, B] };
        send(&mut world, from, to, vec![n as u8; 1000]);
        world.run_for(micros(80));
    }
    world.run_for(Duration::from_secs(1));
    let losses = world.counts().losses;
    assert!(losses.dropped > 0 && losses.overflows > 0, "{losses:?}");
    world.digest()
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..5 {
        assert_eq!(bad_run(seed), bad_run(seed));
        assert_ne!(bad_run(seed), bad_run(seed + 1));
    }
    // On every machine. It changes with the network's own rules, and with nothing else.
    assert_eq!(format!("{:016x}", bad_run(7)), "34cfd06605e3b371");
}

#[test]
#[should_panic = "time stands still"]
fn a_party_that_never_lets_time_pass_is_found_out() {
    struct Hasty;
    impl Party for Hasty {
        fn on_datagram(&mut self, _: Time, _: PeerId, _: Vec<u8>) {}
        fn on_deadline(&mut self, _: Time) {}
        fn next_deadline(&self) -> Time {
            Time::ZERO
        }
        fn drain(&mut self, _: Time, _: &mut Outbox) {}
    }
    let mut world: World<Box<dyn Party>> = World::new(0);
    world.insert(A, Box::new(Hasty));
    world.run_for(Duration::from_secs(1));
}
