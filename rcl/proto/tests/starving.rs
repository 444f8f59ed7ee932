//! Peers that begin long messages and do not end them hold buffers of which there are few. The others go on.

use cl_base::{PeerId, Time};
use rcl_proto::{Config, Event, Memory, Node};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

const B: PeerId = PeerId::new(2, 0);
/// Messages that need a buffer of the few, and how many of these there are.
const LARGE: usize = 100_000;
const FEW: usize = 4;
/// Invented names at one address.
const NAMES: u32 = 40;
/// Frames that each of them says: its call, its confirmation, and the beginning of a message.
const BEGINNING: usize = 4;

/// Memory of which only the large buffers are few.
#[derive(Clone, Default)]
struct Few(Rc<Cell<usize>>);

struct Buf {
    bytes: Vec<u8>,
    taken: Option<Rc<Cell<usize>>>,
}

impl Buf {
    fn of(bytes: Vec<u8>) -> Buf {
        Buf { bytes, taken: None }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            taken.set(taken.get() - 1);
        }
    }
}

impl Memory for Few {
    type Buf = Buf;

    fn alloc(&self, capacity: usize) -> Option<Buf> {
        let mut buf = Buf::of(Vec::with_capacity(capacity));
        if capacity >= LARGE {
            if self.0.get() == FEW {
                return None;
            }
            self.0.set(self.0.get() + 1);
            buf.taken = Some(Rc::clone(&self.0));
        }
        Some(buf)
    }

    fn is_scarce(&self, capacity: usize) -> bool {
        capacity >= LARGE && self.0.get() * 2 >= FEW
    }

    fn capacity_max(&self) -> usize {
        LARGE
    }

    fn append(buf: &mut Buf, bytes: &[u8]) {
        buf.bytes.extend_from_slice(bytes);
    }

    fn advance(buf: &mut Buf, n: usize) {
        buf.bytes.drain(..n);
    }
}

fn config() -> Config {
    Config { message_len_max: LARGE, window: 64, ..Config::new(1000) }
}

/// B, and those that talk to it: each where it is.
struct Town {
    now: Time,
    b: Node<Few>,
    taken: Rc<Cell<usize>>,
    others: HashMap<PeerId, (SocketAddr, Node<Few>)>,
    /// Lengths of what B has received.
    received: HashMap<PeerId, Vec<usize>>,
}

impl Town {
    fn new() -> Town {
        let memory = Few::default();
        let taken = Rc::clone(&memory.0);
        let b = Node::new(config(), &[2; 32], memory);
        let now = Time::from_nanos(3_600_000_000_000);
        Town { now, b, taken, others: HashMap::new(), received: HashMap::new() }
    }

    fn add(&mut self, name: u32, last: u8) -> PeerId {
        let (peer, addr) = (PeerId::new(name, 0), SocketAddr::from(([10, 0, 0, last], name as u16)));
        let mut node = Node::new(config(), &[name as u8; 32], Few::default());
        node.connect(self.now, B, SocketAddr::from(([10, 0, 0, 2], 1)));
        self.others.insert(peer, (addr, node));
        peer
    }

    fn send(&mut self, peer: PeerId, len: usize) {
        let sent = self.others.get_mut(&peer).unwrap().1.send(B, Buf::of(vec![7; len]));
        assert!(sent.is_ok(), "{peer} has room");
    }

    /// What B has to say goes to them, and what it has received is noted: all that it has now.
    fn listen(&mut self) {
        while let Some(event) = self.b.poll_event() {
            match event {
                Event::Connected(_) => {}
                Event::Message { from, buf } => self.received.entry(from).or_default().push(buf.len()),
                other => panic!("{other:?}"),
            }
        }
        while let Some(t) = self.b.poll_transmit(self.now) {
            let (addr, bytes) = (SocketAddr::from(([10, 0, 0, 2], 1)), [t.head, t.body].concat());
            self.others.get_mut(&t.to).unwrap().1.on_frame(self.now, B, addr, Buf::of(bytes));
        }
    }

    /// `peer` says up to so many frames. False if it had fewer.
    fn talk(&mut self, peer: PeerId, frames: usize) -> bool {
        for _ in 0..frames {
            self.now += Duration::from_micros(10);
            let (addr, node) = self.others.get_mut(&peer).unwrap();
            let Some(t) = node.poll_transmit(self.now) else { return false };
            let (addr, bytes) = (*addr, [t.head, t.body].concat());
            self.b.on_frame(self.now, peer, addr, Buf::of(bytes));
            self.listen();
        }
        true
    }

    fn received(&self, peer: PeerId) -> &[usize] {
        self.received.get(&peer).map_or(&[], |lens| lens)
    }
}

#[test]
fn unfinished_messages_of_one_address_stop_nobody_else() {
    let mut town = Town::new();
    let honest = town.add(1, 1);
    town.talk(honest, 10);
    let strangers: Vec<PeerId> = (0..NAMES).map(|n| town.add(100 + n, 7)).collect();
    for &stranger in &strangers {
        // The small one is behind the large one, and stays there.
        town.send(stranger, LARGE);
        town.send(stranger, 10);
        town.talk(stranger, BEGINNING);
    }
    assert!(town.b.is_starved() && !town.b.has_events());
    assert_eq!(town.taken.get(), FEW / 2, "one address has no more than the half");

    // Each small message is there with its frame, though many wait for a buffer.
    for n in 1..=100 {
        town.send(honest, 10);
        town.talk(honest, 10);
        assert_eq!(town.received(honest).len(), n);
    }
    // And the large ones of others have buffers, also those of who comes now.
    let newcomer = town.add(3, 3);
    for peer in [honest, newcomer] {
        town.send(peer, LARGE);
        while town.talk(peer, 10) {}
        assert_eq!(town.received(peer).last(), Some(&LARGE));
    }
    assert!(strangers.iter().all(|&s| town.received(s).is_empty()));

    // If they go on after all, each gets its turn and nothing is lost or out of order.
    for _ in 0..NAMES {
        for &stranger in &strangers {
            while town.talk(stranger, 10) {}
        }
    }
    for &stranger in &strangers {
        assert_eq!(town.received(stranger), [LARGE, 10]);
    }
    assert!(!town.b.is_starved());
    assert_eq!(town.taken.get(), 0);
}

#[test]
fn who_is_gone_leaves_the_buffer_to_who_waits_longest() {
    let mut town = Town::new();
    let strangers: Vec<PeerId> = (0..3).map(|n| town.add(100 + n, 7)).collect();
    for &stranger in &strangers {
        town.send(stranger, LARGE);
        town.talk(stranger, BEGINNING);
    }
    assert!(town.b.is_starved());
    for &gone in &strangers[..2] {
        assert!(town.b.is_connected(gone));
        town.b.abort(gone);
    }
    let mut closed = 0;
    while let Some(event) = town.b.poll_event() {
        assert!(matches!(event, Event::Closed(..)), "{event:?}");
        closed += 1;
    }
    assert_eq!((closed, town.b.is_starved(), town.taken.get()), (2, false, 1));
}
