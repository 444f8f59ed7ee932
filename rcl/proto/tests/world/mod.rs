//! Parties and a bad network in virtual time: one seed, one run.

use cl_base::{Incarnation, PeerId, Rng, Time};
use rcl_proto::{CloseReason, Config, Event, Heap, Node};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What the network does to a frame, in thousandths.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) corruption: u64,
    /// So many are late by up to `late_max_us`, and overtaken.
    pub(crate) reordering: u64,
    pub(crate) late_max_us: u64,
}

pub(crate) const CLEAN: Faults =
    Faults { loss: 0, duplication: 0, corruption: 0, reordering: 0, late_max_us: 1 };
pub(crate) const BAD: Faults =
    Faults { loss: 100, duplication: 100, corruption: 10, reordering: 1000, late_max_us: 3000 };

/// The way into every party: one link, with a queue in front of it.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    /// Nanoseconds that a byte takes, in thousandths; 0 for none.
    pub(crate) picos_per_byte: u64,
    /// Bytes that wait for the link; what exceeds them is dropped.
    pub(crate) queue: u64,
    pub(crate) delay: Duration,
}

/// What there is no bound to but the delay.
pub(crate) const FAST: Link = Link { picos_per_byte: 0, queue: u64::MAX, delay: Duration::from_micros(10) };

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) link: Link,
    pub(crate) nodes: BTreeMap<PeerId, Node<Heap>>,
    config: Config,
    /// Frames under way by time of arrival: from, to, bytes.
    network: BTreeMap<(Time, u64), (PeerId, PeerId, Vec<u8>)>,
    pub(crate) frames: u64,
    pub(crate) dropped: u64,
    /// When the link into each party is free again.
    free_at: BTreeMap<PeerId, Time>,
    events: BTreeMap<PeerId, VecDeque<Event<Vec<u8>>>>,
    /// Who does not read what arrives.
    pub(crate) deaf: Vec<PeerId>,
}

pub(crate) fn addr(peer: PeerId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], peer.principal.0 as u16))
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, link: Link, config: Config, peers: &[PeerId]) -> World {
        let node = |&p: &PeerId| (p, Node::new(config.clone(), Incarnation(1000), Heap));
        World {
            now: Time::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            faults,
            link,
            nodes: peers.iter().map(node).collect(),
            config,
            network: BTreeMap::new(),
            frames: 0,
            dropped: 0,
            free_at: BTreeMap::new(),
            events: BTreeMap::new(),
            deaf: Vec::new(),
        }
    }

    pub(crate) fn node(&mut self, peer: PeerId) -> &mut Node<Heap> {
        self.nodes.get_mut(&peer).unwrap()
    }

    pub(crate) fn connect(&mut self, from: PeerId, to: PeerId) {
        let now = self.now;
        self.node(from).connect(now, to, addr(to));
    }

    pub(crate) fn restart(&mut self, peer: PeerId) {
        let incarnation = Incarnation(self.now.as_nanos());
        self.nodes.insert(peer, Node::new(self.config.clone(), incarnation, Heap));
        self.events.remove(&peer);
    }

    /// Puts what the nodes have to send on the way, and collects their events.
    pub(crate) fn drain(&mut self) {
        let peers: Vec<PeerId> = self.nodes.keys().copied().collect();
        for from in peers {
            if !self.deaf.contains(&from) {
                let node = self.nodes.get_mut(&from).unwrap();
                let events = self.events.entry(from).or_default();
                events.extend(std::iter::from_fn(|| node.poll_event()));
            }
            while let Some(t) = self.nodes.get_mut(&from).unwrap().poll_transmit(self.now) {
                let (to, bytes) = (t.to, [t.head, t.body].concat());
                self.carry(from, to, bytes);
            }
        }
    }

    fn carry(&mut self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        let copies = match () {
            () if self.rng.chance(self.faults.loss, 1000) => 0,
            () if self.rng.chance(self.faults.duplication, 1000) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let mut bytes = bytes.clone();
            if self.rng.chance(self.faults.corruption, 1000) {
                let bit = self.rng.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let free_at = self.free_at.entry(to).or_insert(self.now);
            let start = (*free_at).max(self.now);
            let waiting = start.saturating_since(self.now).as_nanos() as u64 * 1000;
            if self.link.picos_per_byte > 0 && waiting / self.link.picos_per_byte > self.link.queue {
                self.dropped += 1;
                continue;
            }
            *free_at = start + Duration::from_nanos(bytes.len() as u64 * self.link.picos_per_byte / 1000);
            let mut at = *free_at + self.link.delay;
            if self.rng.chance(self.faults.reordering, 1000) {
                at += Duration::from_micros(self.rng.below(self.faults.late_max_us));
            }
            self.frames += 1;
            self.network.insert((at, self.frames), (from, to, bytes));
        }
    }

    /// Lets the next thing happen, before `end`. False if there is none.
    pub(crate) fn step(&mut self, end: Time) -> bool {
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
            self.nodes.get_mut(&to).unwrap().on_frame(self.now, from, addr(from), bytes);
        } else {
            self.nodes.values_mut().for_each(|n| n.on_deadline(self.now));
        }
        self.drain();
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Takes the next event of `peer` that is not [`Event::Connected`].
    pub(crate) fn event(&mut self, peer: PeerId) -> Option<Event<Vec<u8>>> {
        let events = self.events.get_mut(&peer)?;
        loop {
            match events.pop_front()? {
                Event::Connected(_) => {}
                event => return Some(event),
            }
        }
    }

    /// Takes all messages of `peer` up to the next other event.
    pub(crate) fn messages(&mut self, peer: PeerId) -> Vec<Vec<u8>> {
        self.drain();
        let mut messages = Vec::new();
        let events = self.events.entry(peer).or_default();
        events.retain(|e| !matches!(e, Event::Connected(_)));
        while let Some(Event::Message { .. }) = events.front() {
            let Some(Event::Message { buf, .. }) = events.pop_front() else { unreachable!() };
            messages.push(buf);
        }
        messages
    }

    /// Takes all events of `peer`: the reasons of the connections that have ended.
    pub(crate) fn closed(&mut self, peer: PeerId) -> Vec<CloseReason> {
        let events = std::mem::take(self.events.entry(peer).or_default());
        let reason = |e| if let Event::Closed(_, reason) = e { Some(reason) } else { None };
        events.into_iter().filter_map(reason).collect()
    }
}

/// The seeds to try: `default` of them, or as many as the variable SEEDS says.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").map_or(default, |s| s.parse().expect("SEEDS is a number"))
}
