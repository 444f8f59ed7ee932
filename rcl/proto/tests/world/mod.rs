//! Parties of the protocol on a simulated network: one seed, one run.

use cl_base::{PeerId, Time};
use cl_sim::{Link, Outbox, Party};
use rcl_proto::{CloseReason, Config, Event, Heap, Node};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Nothing goes wrong, and everything takes ten microseconds.
pub(crate) const CLEAN: Link = Link { delay: Duration::from_micros(10), ..Link::PERFECT };

/// A tenth is lost, a tenth doubled, a hundredth corrupted, and frames overtake each other by milliseconds.
pub(crate) fn bad() -> Link {
    Link { jitter: Duration::from_millis(3), ..CLEAN }.with_faults("drop=10%,duplicate=10%,corrupt=1%")
}

/// Another one for each life, and the same in each run.
fn secret(life: u64) -> [u8; 32] {
    std::array::from_fn(|i| life.to_le_bytes()[i % 8])
}

/// One party, and who reads what arrives there.
pub(crate) struct Host {
    node: Node<Heap>,
    events: VecDeque<Event<Vec<u8>>>,
    deaf: bool,
    /// The segments that have arrived, by number, and the copy of each; if anybody wants to know.
    segments: Option<BTreeSet<(u64, u8)>>,
}

impl Host {
    fn new(config: Config, life: u64) -> Host {
        Host {
            node: Node::new(config, &secret(life), Heap),
            events: VecDeque::new(),
            deaf: false,
            segments: None,
        }
    }

    fn listen(&mut self) {
        while !self.deaf
            && let Some(event) = self.node.poll_event()
        {
            self.events.push_back(event);
        }
    }
}

impl Party for Host {
    fn on_datagram(&mut self, now: Time, from: PeerId, bytes: Vec<u8>) {
        // Those from `Whole` to `Fin`.
        if let Some(segments) = self.segments.as_mut().filter(|_| (2..=10).contains(&bytes[1])) {
            let sequence = u64::from_le_bytes(bytes[24..32].try_into().expect("8 bytes"));
            segments.insert((sequence, bytes[3]));
        }
        self.node.on_frame(now, from, addr(from), bytes);
    }

    fn on_deadline(&mut self, now: Time) {
        self.node.on_deadline(now);
    }

    fn next_deadline(&self) -> Time {
        self.node.next_deadline()
    }

    fn drain(&mut self, now: Time, out: &mut Outbox) {
        self.listen();
        while let Some(t) = self.node.poll_transmit(now) {
            out.send(t.to, [t.head, t.body].concat());
        }
    }
}

/// A simulated world of [`Host`]s, and how they are called in the tests.
pub(crate) struct World {
    world: cl_sim::World<Host>,
    config: Config,
}

impl Deref for World {
    type Target = cl_sim::World<Host>;
    fn deref(&self) -> &cl_sim::World<Host> {
        &self.world
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut cl_sim::World<Host> {
        &mut self.world
    }
}

pub(crate) fn addr(peer: PeerId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], peer.principal.0 as u16))
}

impl World {
    pub(crate) fn new(seed: u64, paths: Link, config: Config, peers: &[PeerId]) -> World {
        let mut world = cl_sim::World::new(seed);
        world.set_paths(paths);
        for &peer in peers {
            world.insert(peer, Host::new(config.clone(), 1000));
        }
        World { world, config }
    }

    pub(crate) fn node(&mut self, peer: PeerId) -> &mut Node<Heap> {
        &mut self.world.party_mut(peer).node
    }

    pub(crate) fn connect(&mut self, from: PeerId, to: PeerId) {
        let now = self.now();
        self.node(from).connect(now, to, addr(to));
    }

    pub(crate) fn restart(&mut self, peer: PeerId) {
        let host = Host::new(self.config.clone(), self.now().as_nanos());
        self.world.insert(peer, host);
    }

    /// What arrives at `peer` is not read from now on, or is read again.
    pub(crate) fn set_deaf(&mut self, peer: PeerId, deaf: bool) {
        self.world.party_mut(peer).deaf = deaf;
    }

    /// From now on the segments that arrive at `peer` are noted: its peer is one only.
    pub(crate) fn note_segments(&mut self, peer: PeerId) {
        self.world.party_mut(peer).segments = Some(BTreeSet::new());
    }

    /// Those that were: the number of each, and which copy it was.
    pub(crate) fn segments(&self, peer: PeerId) -> &BTreeSet<(u64, u8)> {
        self.world.party(peer).segments.as_ref().expect("they are noted")
    }

    pub(crate) fn is_deaf(&self, peer: PeerId) -> bool {
        self.world.party(peer).deaf
    }

    /// Everything is lost from now on, or nothing is.
    pub(crate) fn lose_all(&mut self, lose: bool) {
        self.world.set_faults(if lose { "drop=100%" } else { "" }.parse().expect("a list of faults"));
    }

    /// Frames sent so far.
    pub(crate) fn frames(&self) -> u64 {
        self.world.counts().sent
    }

    /// Takes the next event of `peer` that is not [`Event::Connected`].
    pub(crate) fn event(&mut self, peer: PeerId) -> Option<Event<Vec<u8>>> {
        let host = self.world.party_mut(peer);
        host.listen();
        loop {
            match host.events.pop_front()? {
                Event::Connected(_) => {}
                event => return Some(event),
            }
        }
    }

    /// Takes all messages of `peer` up to the next other event.
    pub(crate) fn messages(&mut self, peer: PeerId) -> Vec<Vec<u8>> {
        let host = self.world.party_mut(peer);
        host.listen();
        let events = &mut host.events;
        events.retain(|e| !matches!(e, Event::Connected(_)));
        let mut messages = Vec::new();
        while let Some(Event::Message { .. }) = events.front() {
            let Some(Event::Message { buf, .. }) = events.pop_front() else { unreachable!() };
            messages.push(buf);
        }
        messages
    }

    /// Takes all events of `peer`: the reasons of the connections that have ended.
    pub(crate) fn closed(&mut self, peer: PeerId) -> Vec<CloseReason> {
        let host = self.world.party_mut(peer);
        host.listen();
        let reason = |e| if let Event::Closed(_, reason) = e { Some(reason) } else { None };
        std::mem::take(&mut host.events).into_iter().filter_map(reason).collect()
    }
}

/// The seeds to try: `default` of them, or as many as the variable SEEDS says.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").map_or(default, |s| s.parse().expect("SEEDS is a number"))
}
