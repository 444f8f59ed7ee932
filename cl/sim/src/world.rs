use crate::link::{Datagram, Link, LinkCounts};
use crate::network::{Network, NetworkCounts, Place};
use crate::party::{Outbox, Party};
use crate::trace::{Happening, TraceEntry};
use cl_base::faults::Faults;
use cl_base::{PeerId, Rng, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Things that may happen at one instant. A party whose deadline never moves on would let time stand still.
pub const STANDSTILL_MAX: u32 = 10_000_000;

/// When a world begins: not at the epoch, for protocols that take 0 for "never".
const BEGINNING: Time = Time::from_nanos(1_000_000_000);

/// Parties, the network between them, and a clock that stands still unless something happens.
pub struct World<P> {
    now: Time,
    rng: Rng,
    network: Network,
    slots: BTreeMap<PeerId, Slot<P>>,
    /// The deadlines of all slots that have one.
    deadlines: BTreeSet<(Time, PeerId)>,
    /// Parties that were called from outside and not drained since.
    touched: BTreeSet<PeerId>,
    outbox: Outbox,
    /// Things that happened at this instant.
    standstill: u32,
}

struct Slot<P> {
    party: P,
    deadline: Time,
}

impl<P: Party> World<P> {
    /// An empty world with perfect links.
    pub fn new(seed: u64) -> World<P> {
        let mut rng = Rng::new(seed);
        World {
            now: BEGINNING,
            network: Network::new(rng.next_u64()),
            rng,
            slots: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            touched: BTreeSet::new(),
            outbox: Outbox::default(),
            standstill: 0,
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A generator for what a test decides itself; the network has its own.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Adds a party, or puts it in the place of another, as a restart does: what is on the way to the former
    /// one reaches the new one. Returns the former one.
    pub fn insert(&mut self, peer: PeerId, party: P) -> Option<P> {
        let former = self.remove(peer);
        self.slots.insert(peer, Slot { party, deadline: Time::MAX });
        self.touched.insert(peer);
        former
    }

    /// Takes a party away, as a crash does. What it has sent goes on.
    pub fn remove(&mut self, peer: PeerId) -> Option<P> {
        self.settle();
        let slot = self.slots.remove(&peer)?;
        self.deadlines.remove(&(slot.deadline, peer));
        Some(slot.party)
    }

    /// A party, to look at.
    ///
    /// # Panics
    /// If there is none.
    pub fn party(&self, peer: PeerId) -> &P {
        &self.slots.get(&peer).unwrap_or_else(|| panic!("there is no party {peer}")).party
    }

    /// A party, to call. What it then wants to send is sent before anything else happens.
    ///
    /// # Panics
    /// If there is none.
    pub fn party_mut(&mut self, peer: PeerId) -> &mut P {
        self.touched.insert(peer);
        &mut self.slots.get_mut(&peer).unwrap_or_else(|| panic!("there is no party {peer}")).party
    }

    /// All parties in the order of their names.
    pub fn parties(&self) -> impl Iterator<Item = (PeerId, &P)> {
        self.slots.iter().map(|(peer, slot)| (*peer, &slot.party))
    }

    /// What the paths between all parties are like, now and later.
    pub fn set_paths(&mut self, link: Link) {
        self.network.set_paths(link);
    }

    /// What the path between two parties is like, in this direction.
    pub fn set_path(&mut self, from: PeerId, to: PeerId, link: Link) {
        self.network.set(Place::Path(from, to), link);
    }

    /// What goes wrong on the paths between all parties, which stay as they are otherwise.
    pub fn set_faults(&mut self, faults: Faults) {
        self.network.set_faults(faults);
    }

    /// What all that a party sends goes through first.
    pub fn set_uplink(&mut self, peer: PeerId, link: Link) {
        self.network.set(Place::Uplink(peer), link);
    }

    /// What all that a party receives goes through last.
    pub fn set_downlink(&mut self, peer: PeerId, link: Link) {
        self.network.set(Place::Downlink(peer), link);
    }

    /// Counters of the path between two parties, in this direction.
    pub fn path_counts(&self, from: PeerId, to: PeerId) -> LinkCounts {
        self.network.link_counts(Place::Path(from, to))
    }

    /// Counters of a party's uplink.
    pub fn uplink_counts(&self, peer: PeerId) -> LinkCounts {
        self.network.link_counts(Place::Uplink(peer))
    }

    /// Counters of a party's downlink.
    pub fn downlink_counts(&self, peer: PeerId) -> LinkCounts {
        self.network.link_counts(Place::Downlink(peer))
    }

    /// Counters of the whole network.
    pub fn counts(&self) -> NetworkCounts {
        self.network.counts()
    }

    /// Cuts the way between two parties, in this direction. What leaves a sender or reaches the end of a
    /// path while it is cut is lost.
    pub fn cut(&mut self, from: PeerId, to: PeerId) {
        self.network.cut(from, to);
    }

    /// Cuts the network between the parties of `side` and all others, in both directions, in addition to
    /// other cuts.
    pub fn partition(&mut self, side: impl IntoIterator<Item = PeerId>) {
        self.network.partition(side);
    }

    /// Mends all cuts.
    pub fn heal(&mut self) {
        self.network.heal();
    }

    /// Lets the next thing happen, if it does before `end`. If not, it is `end`, and false.
    ///
    /// # Panics
    /// If more than [`STANDSTILL_MAX`] things happen at one instant.
    pub fn step(&mut self, end: Time) -> bool {
        self.settle();
        let arrival = self.network.next_event();
        let deadline = self.deadlines.first().map_or(Time::MAX, |(at, _)| *at);
        let next = arrival.min(deadline);
        if next > end || next == Time::MAX {
            self.now = self.now.max(end);
            return false;
        }
        self.advance_to(next);
        let now = self.now;
        if arrival <= deadline {
            if let Some(datagram) = self.network.step(now) {
                self.deliver(datagram);
            }
        } else if let Some((_, peer)) = self.deadlines.pop_first()
            && let Some(slot) = self.slots.get_mut(&peer)
        {
            let entry = TraceEntry { at: now, happening: Happening::Deadline, from: peer, to: peer, len: 0 };
            self.network.trace.record(entry, &[]);
            slot.party.on_deadline(now);
            self.touched.insert(peer);
        }
        self.settle();
        true
    }

    /// Lets things happen for so long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Lets things happen until `done`, for at most `limit`. `done` is asked before the first thing and
    /// after each; it may call parties. False if time was up.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut World<P>) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                return false;
            }
        }
    }

    /// Time passes and no party gets to run, as when the machine sleeps. What was due happens afterwards.
    pub fn sleep(&mut self, time: Duration) {
        self.settle();
        self.advance_to(self.now + time);
    }

    /// A digest of all that has happened: when, to whom, and every byte that arrived. Equal seeds and equal
    /// calls give equal digests, on every machine.
    pub fn digest(&self) -> u64 {
        self.network.trace.digest()
    }

    /// The latest [`TRACE_LEN`](crate::TRACE_LEN) things that happened.
    pub fn trace(&self) -> impl Iterator<Item = &TraceEntry> {
        self.network.trace.entries()
    }

    /// What is late happens now.
    fn advance_to(&mut self, next: Time) {
        if next > self.now {
            self.now = next;
            self.standstill = 0;
        }
        self.standstill += 1;
        assert!(self.standstill <= STANDSTILL_MAX, "time stands still at {}", self.now);
    }

    fn deliver(&mut self, datagram: Datagram) {
        let slot = self.slots.get_mut(&datagram.to);
        self.network.delivered(self.now, &datagram, slot.is_some());
        if let Some(slot) = slot {
            slot.party.on_datagram(self.now, datagram.from, datagram.bytes);
            self.touched.insert(datagram.to);
        }
    }

    /// Sends what touched parties want to send, and notes their deadlines.
    fn settle(&mut self) {
        while let Some(peer) = self.touched.pop_first() {
            let Some(slot) = self.slots.get_mut(&peer) else { continue };
            slot.party.drain(self.now, &mut self.outbox);
            self.deadlines.remove(&(slot.deadline, peer));
            slot.deadline = slot.party.next_deadline();
            if slot.deadline != Time::MAX {
                self.deadlines.insert((slot.deadline, peer));
            }
            for (to, bytes) in self.outbox.datagrams.drain(..) {
                self.network.send(self.now, Datagram { from: peer, to, bytes });
            }
        }
    }
}
