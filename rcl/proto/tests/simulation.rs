//! Two parties and a bad network in virtual time: one seed, one run.

use cl_base::{Incarnation, PeerId, Rng, Time};
use rcl_proto::{CloseReason, Config, Event, Node, SendError};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

/// What the network does to a frame, in thousandths.
#[derive(Clone, Copy)]
struct Faults {
    loss: u64,
    duplication: u64,
    /// Up to so many microseconds on the way; frames overtake each other.
    delay_max_us: u64,
}

const CLEAN: Faults = Faults { loss: 0, duplication: 0, delay_max_us: 1 };
const BAD: Faults = Faults { loss: 100, duplication: 100, delay_max_us: 3000 };

struct World {
    now: Time,
    rng: Rng,
    faults: Faults,
    nodes: BTreeMap<PeerId, Node>,
    /// Frames under way by time of arrival: from, to, bytes.
    network: BTreeMap<(Time, u64), (PeerId, PeerId, Vec<u8>)>,
    frames: u64,
    events: BTreeMap<PeerId, VecDeque<Event>>,
}

fn config() -> Config {
    Config { dead_after: Duration::from_secs(5), ..Config::new(100) }
}

impl World {
    fn new(seed: u64, faults: Faults) -> World {
        World::with(seed, faults, config())
    }

    fn with(seed: u64, faults: Faults, config: Config) -> World {
        let nodes = [A, B].map(|p| (p, Node::new(config.clone(), Incarnation(1000)))).into();
        World {
            now: Time::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            faults,
            nodes,
            network: BTreeMap::new(),
            frames: 0,
            events: BTreeMap::new(),
        }
    }

    fn node(&mut self, peer: PeerId) -> &mut Node {
        self.nodes.get_mut(&peer).unwrap()
    }

    fn restart(&mut self, peer: PeerId) {
        let incarnation = Incarnation(self.now.as_nanos());
        self.nodes.insert(peer, Node::new(config(), incarnation));
    }

    /// Puts what the nodes have to send on the way, and collects their events.
    fn drain(&mut self) {
        for (&from, node) in &mut self.nodes {
            while let Some(t) = node.poll_transmit(self.now) {
                let copies = match () {
                    () if self.rng.chance(self.faults.loss, 1000) => 0,
                    () if self.rng.chance(self.faults.duplication, 1000) => 2,
                    () => 1,
                };
                for _ in 0..copies {
                    let delay = Duration::from_micros(10 + self.rng.below(self.faults.delay_max_us));
                    self.frames += 1;
                    let frame = (from, t.to, [t.head(), t.body()].concat());
                    self.network.insert((self.now + delay, self.frames), frame);
                }
            }
            let events = self.events.entry(from).or_default();
            events.extend(std::iter::from_fn(|| node.poll_event()));
        }
    }

    /// Lets the next thing happen, before `end`. False if there is none.
    fn step(&mut self, end: Time) -> bool {
        self.drain();
        let arrival = self.network.first_key_value().map_or(Time::MAX, |((t, _), _)| *t);
        let deadline = self.nodes.values().map(Node::next_deadline).min().unwrap();
        let next = arrival.min(deadline);
        if next > end {
            self.now = end;
            return false;
        }
        self.now = self.now.max(next);
        if arrival <= deadline {
            let (_, (from, to, bytes)) = self.network.pop_first().unwrap();
            self.nodes.get_mut(&to).unwrap().on_frame(self.now, from, &bytes);
        } else {
            self.nodes.values_mut().for_each(|n| n.on_deadline(self.now));
        }
        self.drain();
        true
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Takes the reasons of the connections that have ended at `peer`.
    fn closed(&mut self, peer: PeerId) -> Vec<CloseReason> {
        let events = std::mem::take(self.events.entry(peer).or_default());
        let reason = |e| if let Event::Closed(_, reason) = e { Some(reason) } else { None };
        events.into_iter().filter_map(reason).collect()
    }
}

/// The seeds to try: `default` of them, or as many as the variable SEEDS says.
fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").map_or(default, |s| s.parse().expect("SEEDS is a number"))
}

fn message(number: u32, rng: &mut Rng) -> Vec<u8> {
    let len = *rng.pick(&[0, 1, 50, 100, 101, 1000, 6000]).unwrap();
    let mut m = number.to_le_bytes().to_vec();
    m.extend((0..len).map(|i| (i as u32 ^ number) as u8));
    m
}

/// Sends `count` messages each way under `faults`, closes, and checks what arrives.
fn exchange(seed: u64, faults: Faults, count: u32) {
    let mut world = World::new(seed, faults);
    let now = world.now;
    world.node(A).connect(now, B);
    if seed.is_multiple_of(2) {
        world.node(B).connect(now, A);
    }
    let mut rng = Rng::new(seed ^ 0x5eed);
    let messages: Vec<Vec<u8>> = (0..count).map(|n| message(n, &mut rng)).collect();
    let (mut sent, mut received) = ([0; 2], [Vec::new(), Vec::new()]);
    let end = world.now + Duration::from_secs(600);
    let mut last_progress = world.now;
    while received.iter().any(|r| r.len() < messages.len()) {
        for (side, (me, other)) in [(A, B), (B, A)].into_iter().enumerate() {
            while sent[side] < messages.len() {
                let copy = messages[sent[side]].clone();
                if world.node(me).send(other, copy).is_err() {
                    break;
                }
                sent[side] += 1;
            }
            // A reader that is slow at times.
            while !world.rng.chance(1, 3)
                && let Some(m) = world.node(me).receive(other)
            {
                received[side].push(m);
                last_progress = world.now;
            }
        }
        assert!(world.step(end), "seed {seed}: nothing more happens");
        let stuck = world.now.saturating_since(last_progress) > Duration::from_secs(4);
        assert!(!stuck, "seed {seed}: {} and {} of {count}", received[0].len(), received[1].len());
    }
    for r in &received {
        assert!(r == &messages, "seed {seed}: lost, doubled or out of order");
    }
    world.node(A).close(B);
    world.run_for(Duration::from_secs(20));
    for side in [A, B] {
        assert_eq!(world.closed(side), [CloseReason::Graceful], "seed {seed}, {side}");
        assert_eq!(world.node(side).next_deadline(), Time::MAX, "seed {seed}: nothing is left behind");
    }
}

#[test]
fn over_a_clean_network_all_messages_arrive_in_order() {
    seeds(20).for_each(|seed| exchange(seed, CLEAN, 100));
}

#[test]
fn over_a_bad_network_all_messages_arrive_in_order_exactly_once() {
    seeds(20).for_each(|seed| exchange(seed, BAD, 40));
}

#[test]
fn under_heavy_loss_too() {
    let faults = Faults { loss: 300, ..BAD };
    seeds(10).for_each(|seed| exchange(seed, faults, 15));
}

#[test]
fn a_clean_network_carries_a_large_message_without_waiting_for_timeouts() {
    let mut world = World::new(1, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    let long: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
    world.node(A).send(B, long.clone()).unwrap();
    world.run_for(Duration::from_millis(100));
    assert!(world.node(B).receive(A) == Some(long), "it is not there, or not the same");
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    let config = Config { window: 8, send_buffer: 1000, ..config() };
    let mut world = World::with(3, CLEAN, config);
    let now = world.now;
    world.node(A).connect(now, B);
    let mut accepted = 0u32;
    for _ in 0..100 {
        while world.node(A).send(B, accepted.to_le_bytes().to_vec()).is_ok() {
            accepted += 1;
        }
        let refused = world.node(A).send(B, vec![7; 4]);
        assert!(matches!(refused, Err(SendError::Backpressure(m)) if m == [7; 4]));
        world.run_for(Duration::from_millis(10));
    }
    assert_eq!(accepted, 8 + 250, "a window at the receiver and a buffer at the sender");
    for expected in 0..accepted {
        let next = loop {
            if let Some(m) = world.node(B).receive(A) {
                break m;
            }
            world.run_for(Duration::from_millis(1));
        };
        assert_eq!(next, expected.to_le_bytes());
    }
}

#[test]
fn a_window_that_opens_unheard_is_found_by_asking() {
    let mut world = World::with(4, CLEAN, Config { window: 1, ..config() });
    let now = world.now;
    world.node(A).connect(now, B);
    (0..3).for_each(|n| world.node(A).send(B, vec![n]).unwrap());
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.node(B).receive(A), Some(vec![0]));
    // The news that the window is open is lost.
    world.faults.loss = 1000;
    world.run_for(Duration::from_millis(1));
    world.faults.loss = 0;
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.node(B).receive(A), Some(vec![1]));
}

#[test]
fn a_silent_peer_is_dead_within_the_bound_and_not_before() {
    let mut world = World::new(5, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.closed(A), [], "an idle connection stays");
    world.faults.loss = 1000;
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.closed(A), []);
    world.run_for(Duration::from_secs(3));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Dead], vec![CloseReason::Dead]));
    assert!(matches!(world.node(A).send(B, vec![1]), Err(SendError::NotConnected(_))));
}

#[test]
fn a_party_that_did_not_listen_for_long_does_not_blame_its_peer() {
    let mut world = World::new(7, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_secs(1));
    // Both were stopped for a while; one of them learns of the time before it hears the other.
    world.now += Duration::from_secs(60);
    let now = world.now;
    world.node(A).on_deadline(now);
    world.run_for(Duration::from_secs(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![], vec![]));
}

#[test]
fn a_peer_that_never_answers_is_dead_within_the_bound() {
    let mut world = World::new(6, Faults { loss: 1000, ..CLEAN });
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_millis(5100));
    assert_eq!(world.closed(A), [CloseReason::Dead]);
}

#[test]
fn a_restarted_peer_is_noticed_and_its_former_life_does_not_mix_with_the_new() {
    for seed in seeds(40) {
        let mut world = World::new(seed, Faults { duplication: 300, delay_max_us: 20_000, loss: 50 });
        let now = world.now;
        world.node(A).connect(now, B);
        for n in 0..50 {
            world.node(A).send(B, vec![n; 300]).unwrap();
        }
        world.run_for(Duration::from_millis(30 + seed));
        world.restart(A);
        // Now the peer calls, as a new life; the frames of the old one are still on the way.
        let now = world.now;
        world.node(A).connect(now, B);
        world.node(A).send(B, b"new life".to_vec()).unwrap();
        // What the old life had delivered is there until the new one calls.
        let mut received = Vec::new();
        while received.last().is_none_or(|m: &Vec<u8>| m != b"new life") {
            assert!(world.step(now + Duration::from_secs(5)), "seed {seed}");
            received.extend(std::iter::from_fn(|| world.nodes.get_mut(&B).unwrap().receive(A)));
        }
        for (n, m) in received[..received.len() - 1].iter().enumerate() {
            assert_eq!(m, &vec![n as u8; 300], "seed {seed}");
        }
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.node(B).receive(A), None, "seed {seed}");
        assert_eq!(world.closed(A), [], "seed {seed}: the new connection stays");
        let closed = world.closed(B);
        // Whichever comes first: the call of the new life, or its answer to a frame meant for the old one.
        let known = [vec![], vec![CloseReason::Restarted], vec![CloseReason::Reset]];
        assert!(known.contains(&closed), "seed {seed}: {closed:?}");
    }
}

#[test]
fn a_peer_that_lost_its_memory_and_waits_to_be_called_resets_the_old_connection() {
    let mut world = World::new(8, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_millis(10));
    world.restart(B);
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.closed(A), [CloseReason::Reset]);
}

#[test]
fn an_abort_is_told_to_the_peer() {
    let mut world = World::new(9, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_millis(10));
    world.node(B).abort(A);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Reset], vec![CloseReason::Aborted]));
    let now = world.now;
    world.node(A).connect(now, B);
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.node(B).receive(A), Some(vec![1]), "a new connection can be made");
}

#[test]
fn messages_sent_before_the_close_arrive_before_the_end() {
    let mut world = World::new(10, BAD);
    let now = world.now;
    world.node(A).connect(now, B);
    (0..20).for_each(|n| world.node(A).send(B, vec![n; 500]).unwrap());
    world.node(A).close(B);
    assert!(matches!(world.node(A).send(B, vec![]), Err(SendError::NotConnected(_))));
    world.run_for(Duration::from_secs(5));
    for n in 0..20 {
        assert_eq!(world.node(B).receive(A), Some(vec![n; 500]));
    }
    assert_eq!(
        (world.closed(A), world.closed(B)),
        (vec![CloseReason::Graceful], vec![CloseReason::Graceful])
    );
}

#[test]
fn hostile_frames_do_no_harm() {
    let mut rng = Rng::new(11);
    let mut world = World::new(11, CLEAN);
    let now = world.now;
    world.node(A).connect(now, B);
    world.run_for(Duration::from_millis(10));
    // Well-formed frames of random meaning, from strangers and as if from the peer.
    for i in 0..50_000u64 {
        let mut frame = vec![1, rng.below(9) as u8, 0, 0, 0, 0, 0, 0];
        for _ in 0..5 {
            // Often near what is in use.
            let word = if rng.chance(1, 3) { rng.next_u64() } else { 995 + rng.below(10) };
            frame.extend_from_slice(&word.to_le_bytes());
        }
        frame.extend((0..*rng.pick(&[0, 0, 1, 32, 100]).unwrap()).map(|_| i as u8));
        let from = PeerId::new(rng.below(10_000) as u32 + 1, 0);
        let now = world.now;
        world.node(B).on_frame(now, from, &frame);
        if i % 100 == 0 {
            while world.node(B).poll_transmit(now).is_some() {}
            while world.node(B).poll_event().is_some() {}
            world.now = now + Duration::from_millis(1);
            let now = world.now;
            world.node(B).on_deadline(now);
        }
    }
    assert!(world.node(B).counters().stale > 0 && world.node(B).counters().malformed > 0);
}
