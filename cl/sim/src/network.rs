use crate::link::{Datagram, Link, LinkCounts, LinkState, Outcome};
use crate::trace::{Happening, Trace, TraceEntry};
use cl_base::faults::{FaultCounts, Faults};
use cl_base::{PeerId, Rng, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Datagrams lost, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// By a fault, on purpose.
    pub dropped: u64,
    /// Because a queue was full.
    pub overflows: u64,
    /// Because the network was cut.
    pub cut: u64,
    /// Because the receiver was not there.
    pub no_party: u64,
}

/// Counters of the whole network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Datagrams that parties sent.
    pub sent: u64,
    /// Datagrams that parties received, copies included.
    pub delivered: u64,
    /// Bytes of these.
    pub delivered_bytes: u64,
    /// What was lost, and why.
    pub losses: Losses,
    /// What was done on purpose, on all links together.
    pub faults: FaultCounts,
}

/// The links a datagram crosses, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Uplink(PeerId),
    Path(PeerId, PeerId),
    Downlink(PeerId),
}

/// What is to happen in the network.
enum Event {
    /// A datagram has left a link.
    Left(Place, Datagram),
    /// Datagrams kept back on a link may go on.
    Release(Place),
}

/// Everything between the parties.
pub(crate) struct Network {
    seed: u64,
    /// What paths are like that were not given a link of their own.
    paths: Link,
    links: BTreeMap<Place, LinkState>,
    /// No datagrams from the first to the second.
    cuts: BTreeSet<(PeerId, PeerId)>,
    /// None between these and others.
    sides: Vec<BTreeSet<PeerId>>,
    events: BTreeMap<(Time, u64), Event>,
    event_number: u64,
    /// Empty between calls.
    outcomes: Vec<Outcome>,
    counts: NetworkCounts,
    pub(crate) trace: Trace,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Network {
        Network {
            seed,
            paths: Link::PERFECT,
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            sides: Vec::new(),
            events: BTreeMap::new(),
            event_number: 0,
            outcomes: Vec::new(),
            counts: NetworkCounts::default(),
            trace: Trace::new(),
        }
    }

    pub(crate) fn set_paths(&mut self, link: Link) {
        self.paths = link;
        for (place, state) in &mut self.links {
            if let Place::Path(..) = place {
                state.set(link);
            }
        }
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.paths.faults = faults;
        for (place, state) in &mut self.links {
            if let Place::Path(..) = place {
                state.set(Link { faults, ..state.link() });
            }
        }
    }

    pub(crate) fn set(&mut self, place: Place, link: Link) {
        self.link(place).set(link);
    }

    pub(crate) fn link_counts(&self, place: Place) -> LinkCounts {
        self.links.get(&place).map(LinkState::counts).unwrap_or_default()
    }

    pub(crate) fn cut(&mut self, from: PeerId, to: PeerId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn partition(&mut self, side: impl IntoIterator<Item = PeerId>) {
        self.sides.push(side.into_iter().collect());
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.sides.clear();
    }

    fn is_cut(&self, from: PeerId, to: PeerId) -> bool {
        self.cuts.contains(&(from, to))
            || self.sides.iter().any(|side| side.contains(&from) != side.contains(&to))
    }

    pub(crate) fn counts(&self) -> NetworkCounts {
        let mut counts = self.counts;
        self.links.values().for_each(|link| counts.faults += link.counts().faults);
        counts
    }

    /// A party sends.
    pub(crate) fn send(&mut self, now: Time, datagram: Datagram) {
        self.counts.sent += 1;
        self.record(now, Happening::Sent, &datagram);
        let uplink = Place::Uplink(datagram.from);
        if self.links.contains_key(&uplink) {
            self.enter(now, uplink, datagram);
        } else {
            self.left(now, uplink, datagram);
        }
    }

    /// When something happens next.
    pub(crate) fn next_event(&self) -> Time {
        self.events.first_key_value().map_or(Time::MAX, |((at, _), _)| *at)
    }

    /// Lets the next event happen, whose time `now` is. Hands over what has arrived, if something has.
    pub(crate) fn step(&mut self, now: Time) -> Option<Datagram> {
        match self.events.pop_first()?.1 {
            Event::Left(place, datagram) => self.left(now, place, datagram),
            Event::Release(place) => {
                let mut outcomes = std::mem::take(&mut self.outcomes);
                self.link(place).release(now, &mut outcomes);
                self.settle(now, place, outcomes);
                None
            }
        }
    }

    /// The receiver of a datagram was there, or not.
    pub(crate) fn delivered(&mut self, now: Time, datagram: &Datagram, there: bool) {
        if there {
            self.counts.delivered += 1;
            self.counts.delivered_bytes += datagram.bytes.len() as u64;
            self.record(now, Happening::Delivered, datagram);
        } else {
            self.counts.losses.no_party += 1;
            self.record(now, Happening::NoParty, datagram);
        }
    }

    fn link(&mut self, place: Place) -> &mut LinkState {
        self.links.entry(place).or_insert_with(|| {
            let link = if let Place::Path(..) = place { self.paths } else { Link::PERFECT };
            let words = match place {
                Place::Uplink(peer) => [1, peer.to_u64(), 0],
                Place::Path(from, to) => [2, from.to_u64(), to.to_u64()],
                Place::Downlink(peer) => [3, peer.to_u64(), 0],
            };
            // Every link has numbers of its own, whatever the others do.
            LinkState::new(link, words.iter().fold(self.seed, |seed, word| Rng::new(seed ^ word).next_u64()))
        })
    }

    fn enter(&mut self, now: Time, place: Place, datagram: Datagram) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.link(place).enter(now, datagram, &mut outcomes);
        self.settle(now, place, outcomes);
    }

    /// A datagram has left `place` and goes to the next link. Hands it over if that was the last.
    fn left(&mut self, now: Time, place: Place, datagram: Datagram) -> Option<Datagram> {
        let (from, to) = (datagram.from, datagram.to);
        match place {
            Place::Uplink(_) | Place::Path(..) if self.is_cut(from, to) => {
                self.counts.losses.cut += 1;
                self.record(now, Happening::Cut, &datagram);
                None
            }
            Place::Uplink(_) => {
                self.enter(now, Place::Path(from, to), datagram);
                None
            }
            Place::Path(..) if self.links.contains_key(&Place::Downlink(to)) => {
                self.enter(now, Place::Downlink(to), datagram);
                None
            }
            Place::Path(..) | Place::Downlink(_) => Some(datagram),
        }
    }

    /// Takes note of what came of datagrams at `place`.
    fn settle(&mut self, now: Time, place: Place, mut outcomes: Vec<Outcome>) {
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Arrives(at, datagram) => self.schedule(at, Event::Left(place, datagram)),
                Outcome::Dropped(datagram) => {
                    self.counts.losses.dropped += 1;
                    self.record(now, Happening::Dropped, &datagram);
                }
                Outcome::Overflow(datagram) => {
                    self.counts.losses.overflows += 1;
                    self.record(now, Happening::Overflow, &datagram);
                }
            }
        }
        self.outcomes = outcomes;
        if let Some(at) = self.link(place).wants_release(now) {
            self.schedule(at, Event::Release(place));
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.event_number += 1;
        self.events.insert((at, self.event_number), event);
    }

    fn record(&mut self, at: Time, happening: Happening, datagram: &Datagram) {
        let Datagram { from, to, ref bytes } = *datagram;
        let entry = TraceEntry { at, happening, from, to, len: bytes.len() };
        // What no party sees changes nothing.
        let contents = if happening == Happening::Delivered { &bytes[..] } else { &[] };
        self.trace.record(entry, contents);
    }
}
