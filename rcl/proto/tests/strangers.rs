//! What those can do who send frames in others' names but do not receive what is sent to these: nothing that lasts.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::{PeerId, Rng, Time};
use rcl_proto::{Checksum, CloseReason, Config, Counters, Event, HEADER_LEN, Heap, Node};
use std::net::SocketAddr;
use std::time::Duration;
use world::{CLEAN, World, addr, seeds};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// Kinds of frames, as they are numbered on the wire.
const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const RESET: u8 = 13;
const CONFIRM: u8 = 14;

fn config() -> Config {
    // Whoever makes a frame up can make up its checksum.
    Config { checksum: Checksum::None, dead_after: Duration::from_secs(5), window: 64, ..Config::new(1000) }
}

fn connected() -> World {
    let mut world = World::new(1, CLEAN, config(), &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    world
}

/// A frame without a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frame {
    kind: u8,
    source: u64,
    destination: u64,
    sequence: u64,
    ack: u64,
    grant: u32,
    delay: u32,
}

impl Frame {
    fn hello(number: u64) -> Frame {
        Frame { kind: HELLO, source: number, grant: 64, ..Frame::default() }
    }

    /// What a caller says to this answer to its call.
    fn confirm(self) -> Frame {
        assert_eq!(self.kind, WELCOME);
        let (source, destination) = (self.destination, self.source);
        Frame { kind: CONFIRM, source, destination, ..self }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![5, self.kind, 0, 0, 0, 0, 0, 0];
        for word in [self.source, self.destination, self.sequence, self.ack] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.grant.to_le_bytes());
        bytes.extend_from_slice(&self.delay.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Frame {
        let word = |at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let half = |at| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Frame {
            kind: bytes[1],
            source: word(8),
            destination: word(16),
            sequence: word(24),
            ack: word(32),
            grant: half(40),
            delay: half(44),
        }
    }
}

/// A party, and everything that it sends.
struct Alone {
    node: Node<Heap>,
    now: Time,
}

impl Alone {
    fn new(life: u8) -> Alone {
        let node = Node::new(config(), &[life; 32], Heap);
        Alone { node, now: Time::ZERO + Duration::from_secs(3600) }
    }

    /// Takes in a frame; tells what is said to that.
    fn hear(&mut self, from: PeerId, at: SocketAddr, frame: Frame) -> Vec<Frame> {
        self.node.on_frame(self.now, from, at, frame.bytes());
        let mut said = Vec::new();
        while let Some(t) = self.node.poll_transmit(self.now) {
            assert_eq!((t.to, t.addr), (from, at));
            said.push(Frame::parse(t.head));
        }
        said
    }

    /// The answer to a call.
    fn welcome(&mut self, from: PeerId, at: SocketAddr, hello: Frame) -> Frame {
        let said = self.hear(from, at, hello);
        let [welcome] = said[..] else { panic!("{said:?}") };
        assert_eq!((welcome.kind, welcome.destination), (WELCOME, hello.source));
        welcome
    }

    fn is_connected(&self) -> bool {
        self.node.is_connected(A)
    }
}

#[test]
fn a_call_is_answered_by_one_frame_that_is_no_longer_and_nothing_is_remembered() {
    let (mut b, mut rng) = (Alone::new(1), Rng::new(1));
    for peer in 1..=10_000 {
        let stranger = PeerId::new(peer, 0);
        let hello = Frame::hello(rng.next_u64());
        assert_eq!(hello.bytes().len(), HEADER_LEN);
        b.welcome(stranger, addr(stranger), hello);
        assert!(!b.node.is_connected(stranger) && b.node.sizes(stranger).is_none());
        b.now += Duration::from_millis(1);
        b.node.on_deadline(b.now);
        assert!(!b.node.has_work(), "nor is anything said later");
    }
    assert_eq!(b.node.next_deadline(), Time::MAX);
    assert!(b.node.poll_event().is_none());
    assert_eq!(b.node.counters(), Counters::default());
}

#[test]
fn an_address_is_answered_so_often_and_no_more() {
    let mut b = Alone::new(1);
    let mut answered = 0;
    for n in 1..=30_000 {
        answered += b.hear(A, addr(A), Frame::hello(n)).len();
    }
    assert_eq!(answered, 10_000);
    assert_eq!(b.node.counters().unanswered, 20_000);
    assert_eq!(b.hear(B, addr(B), Frame::hello(1)).len(), 1, "others are answered");
    let stray = Frame { kind: RESET - 1, source: 1, destination: 2, ..Frame::default() };
    assert_eq!(b.hear(A, addr(A), stray), [], "a frame of no connection counts as well");
    b.now += Duration::from_secs(1);
    assert_eq!(b.hear(A, addr(A), stray).len(), 1);
}

#[test]
fn what_confirms_a_call_holds_for_its_peer_its_address_one_life_and_half_a_minute() {
    let mut b = Alone::new(1);
    let at = addr(A);
    let welcome = b.welcome(A, at, Frame::hello(5));
    let confirm = welcome.confirm();
    let forged = [
        (A, addr(B), confirm),
        (B, at, confirm),
        (A, at, Frame { sequence: confirm.sequence ^ 1, ..confirm }),
        (A, at, Frame { sequence: 0, ..confirm }),
        (A, at, Frame { source: 6, ..confirm }),
        (A, at, Frame { destination: confirm.destination ^ 1, ..confirm }),
        (A, at, Frame { delay: confirm.delay ^ (1 << 20), ..confirm }),
    ];
    for (n, (from, at, frame)) in (1..).zip(forged) {
        let said = b.hear(from, at, frame);
        assert!(said.iter().all(|f| f.kind == RESET) && said.len() <= 1, "{said:?}");
        assert_eq!((b.node.counters().unproven, b.is_connected()), (n, false), "{frame:?}");
    }
    let mut another = Alone::new(2);
    another.hear(A, at, confirm);
    assert!(!another.is_connected(), "it was meant for a former life");

    b.now += Duration::from_secs(61);
    b.hear(A, at, confirm);
    assert!(!b.is_connected(), "it has expired");
    let confirm = b.welcome(A, at, Frame::hello(5)).confirm();
    b.now += Duration::from_secs(29);
    b.hear(A, at, confirm);
    assert!(b.is_connected());

    b.node.abort(A);
    while b.node.poll_event().is_some() {}
    let said = b.hear(A, at, confirm);
    assert!(!b.is_connected() && said.iter().all(|f| [RESET, WELCOME].contains(&f.kind)), "once: {said:?}");
    // The call may be a copy of a former one: if nobody waits for the answer, nothing comes of it.
    let another = b.welcome(A, at, Frame::hello(5));
    assert_ne!(another.source, welcome.source);
    assert!(!b.is_connected());
}

#[test]
fn a_forged_call_neither_ends_the_connection_nor_shuts_the_peer_out() {
    let mut world = connected();
    let mut rng = Rng::new(2);
    for n in 0..10_000u64 {
        let now = world.now();
        let elsewhere = if n % 3 == 0 { addr(A) } else { addr(PeerId::new(9, 0)) };
        let forged = match n % 5 {
            // Whoever does not hear the answer has to guess the token.
            0 => Frame {
                destination: rng.next_u64(),
                sequence: rng.next_u64(),
                ..Frame::hello(rng.next_u64())
            },
            _ => Frame::hello(rng.next_u64()),
        };
        let forged = if n % 5 == 0 { Frame { kind: CONFIRM, ..forged } } else { forged };
        world.node(B).on_frame(now, A, elsewhere, forged.bytes());
        if n % 10 == 0 {
            // The answers go to A, which knows nothing of them.
            world.run_for(Duration::from_micros(50));
        }
    }
    world.run_for(Duration::from_secs(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![], vec![]));
    let (a, b) = (world.node(A).counters(), world.node(B).counters());
    assert!(a.stale > 1000 && b.unproven == 2000, "{a:?} {b:?}");
    world.node(A).send(B, vec![7]).unwrap();
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.messages(B), [[7]]);

    // The true peer starts anew, and is heard one round trip later than one of which nothing was known.
    world.restart(A);
    world.connect(A, B);
    world.node(A).send(B, vec![8]).unwrap();
    world.run_for(5 * CLEAN.delay);
    let event = world.event(B);
    assert!(matches!(event, Some(Event::Closed(A, CloseReason::Restarted))), "{event:?}");
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.messages(B), [[8]]);
}

/// How long B takes to get 2000 messages of A, and the frames of A for it, while invented peers call.
fn transfer(calls_per_ms: u64) -> (Duration, u64) {
    let config = Config { connections_max: 4, window_of_all: 64, small_len: 0, ..config() };
    let mut world = World::new(3, CLEAN, config, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    let (start, mut rng, mut sent, mut received) = (world.now(), Rng::new(4), 0u32, 0);
    while received < 2000 {
        while sent < 2000 && world.node(A).send(B, vec![1; 900]).is_ok() {
            sent += 1;
        }
        let end = world.now() + Duration::from_millis(1);
        for _ in 0..calls_per_ms {
            let (now, stranger) = (world.now(), PeerId::new(100 + rng.below(10_000) as u32, 0));
            let hello = Frame::hello(rng.next_u64());
            world.node(B).on_frame(now, stranger, addr(stranger), hello.bytes());
        }
        while received < 2000 && world.step(end) {
            received += world.messages(B).len();
        }
        assert!(world.now().saturating_since(start) < Duration::from_secs(10), "{received} received");
    }
    assert_eq!(world.node(B).counters().refused, 0, "there is room all the time");
    (world.now().saturating_since(start), world.node(A).counters().segments)
}

#[test]
fn invented_peers_take_no_room_and_no_share_of_the_window() {
    let alone = transfer(0);
    let flooded = transfer(1000);
    assert_eq!(alone, flooded);
}

#[test]
fn who_knows_the_numbers_of_both_ends_but_not_the_token_ends_nothing_by_a_reset() {
    let mut b = Alone::new(1);
    let welcome = b.welcome(A, addr(A), Frame::hello(5));
    b.hear(A, addr(A), welcome.confirm());
    assert!(b.is_connected());
    let reset = Frame { kind: RESET, source: 5, destination: welcome.source, ..Frame::default() };
    for sequence in [0, 1, welcome.sequence ^ 1] {
        b.hear(A, addr(A), Frame { sequence, ..reset });
        assert!(b.is_connected(), "it asks whether that is so");
    }
    for other in [Frame { source: 6, ..reset }, Frame { destination: 6, ..reset }] {
        b.hear(A, addr(A), Frame { sequence: welcome.sequence, ..other });
        assert!(b.is_connected());
    }
    b.hear(A, addr(A), Frame { sequence: welcome.sequence, ..reset });
    assert!(!b.is_connected());
}

#[test]
fn a_lost_answer_and_a_lost_confirmation_are_repeated() {
    for lost_after in [5, 15, 25] {
        let mut world = World::new(5, CLEAN, config(), &[A, B]);
        world.connect(A, B);
        world.node(A).send(B, vec![1]).unwrap();
        // The call is there after 10 microseconds, the answer after 20, confirmation and message after 30.
        world.run_for(Duration::from_micros(lost_after));
        world.lose_all(true);
        world.run_for(Duration::from_millis(1));
        world.lose_all(false);
        world.run_for(Duration::from_millis(200));
        assert_eq!(world.messages(B), [[1]], "lost after {lost_after} us");
        assert_eq!((world.closed(A), world.closed(B)), (vec![], vec![]));
    }
}

#[test]
fn calls_get_through_whatever_is_lost_of_them() {
    for seed in seeds(200) {
        let mut world = World::new(seed, CLEAN.with_faults("drop=40%,duplicate=20%"), config(), &[A, B]);
        world.connect(A, B);
        if seed % 2 == 0 {
            let later = world.rng().below(40);
            world.run_for(Duration::from_micros(later));
            world.connect(B, A);
        }
        // Nothing is sent: both hear of the connection all the same.
        world.run_for(Duration::from_secs(5));
        let known = [A, B].map(|me| world.node(me).is_connected(if me == A { B } else { A }));
        assert_eq!((known, world.closed(A), world.closed(B)), ([true; 2], vec![], vec![]), "seed {seed}");
    }
}
