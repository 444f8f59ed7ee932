//! What those can do who call in the name of another and receive the answers, at an address of their own: nothing to a peer that
//! lives. And what a peer has to wait for that has started anew, where it was or elsewhere.

use cl_base::{PeerId, Rng, Time};
use rcl_proto::{CallRefusal, CloseReason, Config, Event, Heap, Node};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const DEAD_AFTER: Duration = Duration::from_secs(4);
/// How long a peer may be silent that is asked whether it lives.
const PATIENCE: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_micros(10);
/// As it is numbered on the wire.
const ASK: u8 = 16;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn config() -> Config {
    Config { dead_after: DEAD_AFTER, window: 64, ..Config::new(1000) }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").map_or(default, |s| s.parse().expect("SEEDS is a number"))
}

/// A party at its address; others may call themselves the same.
struct Place {
    name: PeerId,
    node: Node<Heap>,
    /// It sends from the first of these, and receives at all.
    at: Vec<SocketAddr>,
    events: Vec<Event<Vec<u8>>>,
    /// It does nothing at present; what arrives waits.
    stopped: bool,
}

/// A frame under way: from whom, from where, to where.
type Flying = (PeerId, SocketAddr, SocketAddr, Vec<u8>);

/// Frames go to addresses here, not to names.
struct Net {
    places: Vec<Place>,
    /// By time of arrival.
    flying: BTreeMap<(Time, u64), Flying>,
    count: u64,
    now: Time,
    rng: Rng,
    /// Of a hundred frames so many are lost, and the others are late by up to that.
    loss: u64,
    jitter: Duration,
    asked: u64,
}

impl Net {
    fn new(seed: u64) -> Net {
        Net {
            places: Vec::new(),
            flying: BTreeMap::new(),
            count: 0,
            now: Time::ZERO + Duration::from_secs(1000),
            rng: Rng::new(seed),
            loss: 0,
            jitter: Duration::ZERO,
            asked: 0,
        }
    }

    fn add(&mut self, name: PeerId, port: u16, config: Config) -> usize {
        let secret = std::array::from_fn(|_| self.rng.next_u64() as u8);
        let node = Node::new(config, &secret, Heap);
        self.places.push(Place { name, node, at: vec![addr(port)], events: Vec::new(), stopped: false });
        self.places.len() - 1
    }

    /// A at port 1 and B at port 2, with a connection.
    fn connected(seed: u64) -> (Net, usize, usize) {
        let mut net = Net::new(seed);
        let (a, b) = (net.add(A, 1, config()), net.add(B, 2, config()));
        net.connect(a, B, 2);
        net.run_for(Duration::from_millis(1));
        assert!(net.places[b].node.is_connected(A));
        net.places.iter_mut().for_each(|place| place.events.clear());
        (net, a, b)
    }

    /// The party at a place dies, and another one is there.
    fn restart(&mut self, place: usize) {
        let (name, at) = (self.places[place].name, self.places[place].at.clone());
        let new = self.add(name, at[0].port(), config());
        self.places.swap(place, new);
        self.places.truncate(new);
    }

    fn connect(&mut self, place: usize, peer: PeerId, port: u16) {
        let now = self.now;
        self.places[place].node.connect(now, peer, addr(port));
        self.drain(place);
    }

    fn send(&mut self, place: usize, to: PeerId, message: u32) {
        self.places[place].node.send(to, message.to_le_bytes().to_vec()).expect("connected");
        self.drain(place);
    }

    fn drain(&mut self, place: usize) {
        let Net { places, flying, count, now, rng, loss, jitter, asked } = self;
        let Place { name, node, at, events, stopped } = &mut places[place];
        if *stopped {
            return;
        }
        while let Some(event) = node.poll_event() {
            events.push(event);
        }
        while let Some(t) = node.poll_transmit(*now) {
            *asked += u64::from(t.head[1] == ASK);
            let late = Duration::from_nanos(rng.below(jitter.as_nanos() as u64 + 1));
            *count += 1;
            if rng.below(100) >= *loss {
                let frame = [t.head, t.body].concat();
                flying.insert((*now + DELAY + late, *count), (*name, at[0], t.addr, frame));
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.flying.keys().next().map_or(Time::MAX, |&(at, _)| at);
            let awake = self.places.iter().filter(|place| !place.stopped);
            let deadline = awake.map(|place| place.node.next_deadline()).min().unwrap_or(Time::MAX);
            let next = arrival.min(deadline.max(self.now));
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if arrival == next {
                let (from, from_at, to_at, frame) = self.flying.pop_first().expect("just seen").1;
                if let Some(place) = self.places.iter().position(|place| place.at.contains(&to_at)) {
                    if self.places[place].stopped {
                        self.count += 1;
                        let later = (next + Duration::from_millis(1), self.count);
                        self.flying.insert(later, (from, from_at, to_at, frame));
                        continue;
                    }
                    self.places[place].node.on_frame(next, from, from_at, frame);
                    self.drain(place);
                }
            }
            for place in 0..self.places.len() {
                if !self.places[place].stopped && self.places[place].node.next_deadline() <= next {
                    self.places[place].node.on_deadline(next);
                    self.drain(place);
                }
            }
        }
    }

    /// Takes the events of a place: the messages, and how connections have ended.
    fn take(&mut self, place: usize) -> (Vec<u32>, Vec<CloseReason>) {
        let (mut messages, mut ends) = (Vec::new(), Vec::new());
        for event in std::mem::take(&mut self.places[place].events) {
            match event {
                Event::Message { buf, .. } => messages.push(u32::from_le_bytes(buf[..].try_into().unwrap())),
                Event::Closed(_, reason) => ends.push(reason),
                _ => {}
            }
        }
        (messages, ends)
    }
}

const TAKEN: CloseReason = CloseReason::Refused(CallRefusal::NameTaken);

#[test]
fn who_calls_in_the_name_of_a_living_peer_is_refused_at_once() {
    let (mut net, a, b) = Net::connected(1);
    let stranger = net.add(A, 3, config());
    net.connect(stranger, B, 2);
    net.send(stranger, B, 666);
    // Call, answer, confirmation, question, its answer, refusal.
    net.run_for(6 * DELAY);
    assert_eq!(net.take(stranger), (vec![], vec![TAKEN]));
    net.send(a, B, 1);
    net.run_for(Duration::from_secs(20));
    assert_eq!(net.take(b), (vec![1], vec![]));
    assert_eq!(net.take(a), (vec![], vec![]));
    assert_eq!(net.places[b].node.counters().taken, 1);
}

#[test]
fn a_peer_in_whose_name_others_call_all_the_time_is_asked_and_disturbed_by_nothing() {
    for seed in seeds(20) {
        let (mut net, a, b) = Net::connected(seed);
        (net.loss, net.jitter) = (seed % 3 * 10, Duration::from_millis(seed % 2 * 3));
        let strangers: Vec<_> = (3..6).map(|port| net.add(A, port, config())).collect();
        let (start, mut sent, mut refused) = (net.now, 0, 0);
        while net.now < start + Duration::from_secs(10) {
            for &stranger in &strangers {
                net.connect(stranger, B, 2);
                let (messages, ends) = net.take(stranger);
                assert_eq!(messages, []);
                refused += ends.iter().filter(|&&end| end == TAKEN).count();
            }
            if net.places[a].node.send(B, u32::to_le_bytes(sent).to_vec()).is_ok() {
                sent += 1;
            }
            net.drain(a);
            net.run_for(Duration::from_millis(5));
        }
        net.run_for(Duration::from_secs(2));
        let (messages, ends) = net.take(b);
        assert_eq!((messages.len() as u32, ends), (sent, vec![]), "seed {seed}");
        assert!(messages.is_sorted() && net.take(a).1.is_empty(), "seed {seed}");
        assert!(refused > 30, "seed {seed}: {refused}");
        assert!(net.asked <= 12 * 100 + 10, "seed {seed}: asked {} times in 12 s", net.asked);
    }
}

#[test]
fn a_peer_that_has_started_anew_where_it_was_is_recognised_within_one_more_round_trip() {
    let (mut net, a, b) = Net::connected(1);
    net.restart(a);
    net.connect(a, B, 2);
    net.send(a, B, 8);
    // There, back, and there; question and answer.
    net.run_for(5 * DELAY);
    let events = std::mem::take(&mut net.places[b].events);
    assert!(
        matches!(events[..], [Event::Closed(A, CloseReason::Restarted), Event::Connected(A)]),
        "{events:?}"
    );
    // What came with the call is sent again.
    net.run_for(Duration::from_millis(10));
    assert_eq!((net.take(b), net.take(a)), ((vec![8], vec![]), (vec![], vec![])));
}

#[test]
fn nor_longer_if_it_has_just_said_that_it_lives() {
    let (mut net, a, b) = Net::connected(1);
    let stranger = net.add(A, 3, config());
    net.connect(stranger, B, 2);
    net.run_for(6 * DELAY);
    assert_eq!(net.take(stranger), (vec![], vec![TAKEN]));
    net.connect(stranger, B, 2);
    net.run_for(4 * DELAY);
    assert_eq!(net.take(stranger), (vec![], vec![TAKEN]), "it is not asked again so soon");
    assert_eq!(net.asked, 1);
    net.restart(a);
    net.connect(a, B, 2);
    net.run_for(5 * DELAY);
    assert_eq!((net.take(b), net.take(a)), ((vec![], vec![CloseReason::Restarted]), (vec![], vec![])));
}

#[test]
fn restarts_under_loss_and_delay_mix_no_lives() {
    for seed in seeds(100) {
        let (mut net, a, b) = Net::connected(seed);
        (net.loss, net.jitter) = (10, Duration::from_millis(3));
        let mut expected = 0;
        for life in 1..6u32 {
            for n in 0..20 {
                net.send(a, B, life << 8 | n);
            }
            let pause = Duration::from_micros(net.rng.below(40_000));
            net.run_for(pause);
            net.restart(a);
            net.connect(a, B, 2);
        }
        net.send(a, B, 6 << 8);
        net.run_for(Duration::from_secs(2));
        let (messages, ends) = net.take(b);
        for message in &messages {
            let (life, n) = (message >> 8, message & 0xff);
            let first = life > expected >> 8 && n == 0;
            assert!(first || *message == expected + 1, "seed {seed}: {message:x} after {expected:x}");
            expected = *message;
        }
        assert_eq!(messages.last(), Some(&(6 << 8)), "seed {seed}");
        // Of lives that never got through nothing is told.
        assert!((1..=5).contains(&ends.len()), "seed {seed}: {ends:?}");
        assert!(
            ends.iter().all(|end| *end == CloseReason::Restarted || *end == CloseReason::Reset),
            "{ends:?}"
        );
        assert_eq!(net.take(a).1, [], "seed {seed}");
    }
}

#[test]
fn a_peer_that_has_started_anew_elsewhere_waits_until_the_silence_is_long_enough() {
    let (mut net, a, b) = Net::connected(1);
    let elsewhere = net.add(A, 3, config());
    net.places[a].at = vec![addr(99)];
    net.connect(elsewhere, B, 2);
    net.send(elsewhere, B, 8);
    net.run_for(PATIENCE);
    assert_eq!(net.take(b), (vec![], vec![]));
    net.run_for(4 * DELAY);
    assert_eq!(net.take(b), (vec![], vec![CloseReason::Restarted]));
    net.run_for(Duration::from_secs(1));
    assert_eq!((net.take(b), net.take(elsewhere)), ((vec![8], vec![]), (vec![], vec![])));
}

#[test]
fn who_was_stopped_itself_does_not_blame_the_peer_for_the_silence() {
    let (mut net, a, b) = Net::connected(1);
    let stranger = net.add(A, 3, config());
    net.connect(stranger, B, 2);
    // The call is confirmed, and the question under way.
    net.run_for(3 * DELAY);
    net.places[b].stopped = true;
    net.run_for(2 * PATIENCE);
    net.places[b].stopped = false;
    // Nothing of what has arrived is looked at before the time is.
    let now = net.now;
    net.places[b].node.on_deadline(now);
    net.run_for(Duration::from_millis(10));
    assert_eq!((net.take(b), net.take(a)), ((vec![], vec![]), (vec![], vec![])));
    assert_eq!(net.take(stranger), (vec![], vec![TAKEN]));
}

#[test]
fn a_call_that_is_under_way_is_not_taken_over_from_elsewhere() {
    let mut net = Net::new(1);
    let (a, b, stranger) = (net.add(A, 1, config()), net.add(B, 2, config()), net.add(A, 3, config()));
    net.places[a].stopped = true;
    net.connect(b, A, 1);
    net.send(b, A, 7);
    net.connect(stranger, B, 2);
    net.run_for(PATIENCE / 2);
    net.places[a].stopped = false;
    net.run_for(PATIENCE);
    assert_eq!((net.take(a), net.take(b)), ((vec![7], vec![]), (vec![], vec![])));
    assert_eq!(net.take(stranger), (vec![], vec![TAKEN]));
}

#[test]
fn a_call_to_where_the_peer_is_no_more_goes_to_where_it_calls_from() {
    let mut net = Net::new(1);
    let (b, a) = (net.add(B, 2, config()), net.add(A, 3, config()));
    net.connect(b, A, 1);
    net.send(b, A, 7);
    net.connect(a, B, 2);
    net.send(a, B, 8);
    net.run_for(PATIENCE / 2);
    assert_eq!((net.take(a), net.take(b)), ((vec![], vec![]), (vec![], vec![])));
    net.run_for(DEAD_AFTER);
    assert_eq!((net.take(a), net.take(b)), ((vec![7], vec![]), (vec![8], vec![])));
}

#[test]
fn parties_with_several_addresses_that_call_each_other_at_once_have_one_connection() {
    for seed in seeds(200) {
        let mut net = Net::new(seed);
        let (a, b) = (net.add(A, 1, config()), net.add(B, 2, config()));
        // Both send from another address than they are called at.
        net.places[a].at.push(addr(11));
        net.places[b].at.push(addr(12));
        (net.loss, net.jitter) = (seed % 2 * 20, Duration::from_micros(50));
        net.connect(a, B, 12);
        net.send(a, B, 1);
        let pause = Duration::from_micros(net.rng.below(150));
        net.run_for(pause);
        net.connect(b, A, 11);
        net.send(b, A, 2);
        net.run_for(Duration::from_secs(3));
        let got = (net.take(a), net.take(b));
        assert_eq!(got, ((vec![2], vec![]), (vec![1], vec![])), "seed {seed}");
    }
}

#[test]
fn who_finds_no_place_is_told_so_at_once() {
    let mut net = Net::new(1);
    let b = net.add(B, 2, Config { connections_max: 1, ..config() });
    let first = net.add(A, 1, config());
    net.connect(first, B, 2);
    net.send(first, B, 1);
    net.run_for(Duration::from_millis(1));
    let second = net.add(PeerId::new(3, 0), 3, config());
    net.connect(second, B, 2);
    net.run_for(2 * DELAY);
    assert_eq!(net.take(second), (vec![], vec![CloseReason::Refused(CallRefusal::Full)]));
    assert_eq!(net.take(b), (vec![1], vec![]));
    // And when there is one again, it can call again.
    net.places[first].node.close(B);
    net.drain(first);
    net.run_for(Duration::from_secs(10));
    net.connect(second, B, 2);
    net.send(second, B, 3);
    net.run_for(Duration::from_millis(10));
    assert_eq!(net.take(b).0, [3]);
}

/// Addresses other than those of the test's machine.
fn far(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

/// Invented peers that live at one address, and answer whatever they are asked.
fn crowd(net: &mut Net, host: u8, ports: std::ops::Range<u16>) -> Vec<usize> {
    let invent = |port: u16| {
        let place = net.add(PeerId::new(u32::from(host) << 16 | u32::from(port), 0), port, config());
        net.places[place].at = vec![far(host, port)];
        net.connect(place, B, 2);
        place
    };
    ports.map(invent).collect()
}

#[test]
fn one_address_gets_its_places_and_no_more() {
    let mut net = Net::new(1);
    let limits = Config { connections_max: 100, connections_per_address: 25, ..config() };
    let b = net.add(B, 2, limits);
    let invented = crowd(&mut net, 1, 1..41);
    net.run_for(Duration::from_millis(1));
    let ends: Vec<_> = invented.iter().flat_map(|&place| net.take(place).1).collect();
    assert_eq!(ends, [CloseReason::Refused(CallRefusal::AddressFull); 15]);
    let other = crowd(&mut net, 2, 1..2)[0];
    net.send(other, B, 1);
    net.run_for(Duration::from_millis(1));
    assert_eq!((net.take(b), net.take(other)), ((vec![1], vec![]), (vec![], vec![])));
    assert_eq!(net.places[b].node.connections().count(), 26);
}

#[test]
fn places_over_which_nothing_has_gone_are_given_up_first_and_those_of_the_crowd_before_others() {
    let mut net = Net::new(1);
    let limits = Config { connections_max: 20, connections_per_address: 15, ..config() };
    let b = net.add(B, 2, limits);
    // One that has said something, and one that has not.
    let (used, quiet) = (crowd(&mut net, 1, 1..2)[0], crowd(&mut net, 2, 1..2)[0]);
    net.send(used, B, 1);
    crowd(&mut net, 3, 1..16);
    crowd(&mut net, 4, 1..4);
    net.run_for(Duration::from_millis(500));
    assert_eq!(net.places[b].node.connections().count(), 20);
    // Too early for that.
    let early = crowd(&mut net, 5, 1..2)[0];
    net.run_for(Duration::from_millis(10));
    assert_eq!(net.take(early).1, [CloseReason::Refused(CallRefusal::Full)]);
    assert_eq!(net.take(b), (vec![1], vec![]));
    net.run_for(Duration::from_secs(1));
    let late = crowd(&mut net, 5, 2..9);
    for &place in &late {
        net.send(place, B, 2);
    }
    net.run_for(Duration::from_millis(50));
    let (messages, ends) = net.take(b);
    assert_eq!((messages, ends), (vec![2; 7], vec![CloseReason::Unused; 7]));
    for place in [used, quiet].into_iter().chain(late) {
        assert_eq!(net.take(place).1, []);
    }
}

/// How long B takes to get 2000 messages of A while a crowd has taken what it can get, and says something or nothing.
fn with_crowd(says: Option<u32>) -> Duration {
    let (mut net, a, b) = (Net::new(1), 1, 0);
    let limits = Config {
        connections_max: 400,
        connections_per_address: 100,
        window_of_all: 128,
        own_address: Some(far(9, 2).ip()),
        ..config()
    };
    assert_eq!(net.add(B, 2, limits), b);
    assert_eq!(net.add(A, 1, config()), a);
    let invented = if says.is_none() { Vec::new() } else { crowd(&mut net, 1, 1..200) };
    net.run_for(Duration::from_millis(10));
    for &place in invented.iter().filter(|_| says == Some(1)) {
        net.places[place].node.send(B, 1u32.to_le_bytes().to_vec()).ok();
        net.drain(place);
    }
    net.connect(a, B, 2);
    net.run_for(Duration::from_millis(10));
    net.take(b);
    let (start, mut sent, mut received) = (net.now, 0u32, 0);
    while received < 2000 {
        while sent < 2000 && net.places[a].node.send(B, vec![1; 900]).is_ok() {
            sent += 1;
        }
        net.drain(a);
        net.run_for(DELAY);
        let events = std::mem::take(&mut net.places[b].events);
        received += events.iter().filter(|e| matches!(e, Event::Message { from: A, .. })).count();
        assert!(net.now < start + Duration::from_secs(10), "{received}");
    }
    net.now.saturating_since(start)
}

#[test]
fn a_crowd_at_one_address_takes_no_more_than_its_part_of_the_window() {
    let (alone, silent, talking) = (with_crowd(None), with_crowd(Some(0)), with_crowd(Some(1)));
    println!(
        "{alone:?} alone, {silent:?} among a hundred that are silent, {talking:?} among a hundred that talk"
    );
    assert!(silent <= alone * 3 / 2, "{silent:?} instead of {alone:?}");
    assert!(talking <= alone * 3, "{talking:?} instead of {alone:?}");
}
