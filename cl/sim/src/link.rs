use cl_base::faults::{FaultCounts, Faults, Injector, Shelf};
use cl_base::{PeerId, Rng, Time};
use std::time::Duration;

/// What a piece of the network is like, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long a datagram is on the way once its last bit has left.
    pub delay: Duration,
    /// Up to so much longer, every value equally likely; datagrams overtake each other by it.
    pub jitter: Duration,
    /// Bytes a second; `None` for as many as one likes.
    pub bandwidth: Option<u64>,
    /// Bytes that wait for the bandwidth, the datagram being sent included; one that does not fit is lost,
    /// unless it finds the link idle.
    pub queue: usize,
    /// What goes wrong.
    pub faults: Faults,
}

impl Link {
    /// Takes no time, loses nothing.
    pub const PERFECT: Link = Link {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bandwidth: None,
        queue: usize::MAX,
        faults: Faults::NONE,
    };

    /// The same link with the faults that `list` describes, as [`Faults`] reads it.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn with_faults(self, list: &str) -> Link {
        let faults = list.parse().unwrap_or_else(|error| panic!("{error}"));
        Link { faults, ..self }
    }

    /// The same link with `bits` a second, and a queue of `queue` bytes.
    pub fn with_bandwidth(self, bits: u64, queue: usize) -> Link {
        assert!(bits >= 8, "a link without bandwidth");
        Link { bandwidth: Some(bits / 8), queue, ..self }
    }

    /// How long `len` bytes take to be sent.
    fn sending(&self, len: usize) -> Duration {
        let Some(bandwidth) = self.bandwidth else { return Duration::ZERO };
        let nanos = len as u128 * 1_000_000_000 / u128::from(bandwidth.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Default for Link {
    fn default() -> Link {
        Link::PERFECT
    }
}

/// What has gone over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Datagrams that left it.
    pub datagrams: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Datagrams that did not fit the queue.
    pub overflows: u64,
    /// The longest that a datagram had to wait and be sent for.
    pub backlog_max: Duration,
    /// What went wrong on purpose.
    pub faults: FaultCounts,
}

/// A datagram and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: PeerId,
    pub(crate) to: PeerId,
    pub(crate) bytes: Vec<u8>,
}

/// What came of a datagram on a link.
pub(crate) enum Outcome {
    /// It is at the other end then.
    Arrives(Time, Datagram),
    /// A fault took it.
    Dropped(Datagram),
    /// The queue was full.
    Overflow(Datagram),
}

/// A link and what is on it.
pub(crate) struct LinkState {
    link: Link,
    rng: Rng,
    injector: Injector,
    /// What is kept back before the queue.
    shelf: Shelf<Way, Datagram>,
    /// The earliest call of [`LinkState::release`] that was asked for and has not come.
    release_at: Time,
    /// When the last bit of what is in the queue will have left.
    busy_until: Time,
    counts: LinkCounts,
}

/// A datagram is overtaken by others between the same two parties.
type Way = (PeerId, PeerId);

impl LinkState {
    pub(crate) fn new(link: Link, seed: u64) -> LinkState {
        let mut rng = Rng::new(seed);
        let injector = Injector::new(link.faults, rng.next_u64());
        LinkState {
            link,
            rng,
            injector,
            shelf: Shelf::new(),
            release_at: Time::MAX,
            busy_until: Time::ZERO,
            counts: LinkCounts::default(),
        }
    }

    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Other properties from now on, for what comes; what is on the way is not affected.
    pub(crate) fn set(&mut self, link: Link) {
        self.link = link;
        self.injector.set_faults(link.faults);
    }

    pub(crate) fn counts(&self) -> LinkCounts {
        LinkCounts { faults: self.injector.counts(), ..self.counts }
    }

    /// Puts a datagram on the link. One that is kept back has no outcome yet, see [`LinkState::wants_release`].
    pub(crate) fn enter(&mut self, now: Time, mut datagram: Datagram, outcomes: &mut Vec<Outcome>) {
        let verdict = self.injector.judge(datagram.bytes.len());
        if verdict.drop {
            outcomes.push(Outcome::Dropped(datagram));
            return;
        }
        if let Some(damage) = verdict.damage {
            damage.apply(&mut datagram.bytes);
        }
        if verdict.duplicate {
            outcomes.push(self.queue(now, datagram.clone()));
        }
        let way = (datagram.from, datagram.to);
        let passing = match verdict.hold {
            Some(hold) => self.shelf.hold(now, way, datagram, hold).err(),
            None => Some(datagram),
        };
        if let Some(datagram) = passing {
            outcomes.push(self.queue(now, datagram));
            self.shelf.passed(now, way);
        }
    }

    /// When [`LinkState::release`] is to be called, if no such call is due before that already.
    pub(crate) fn wants_release(&mut self, now: Time) -> Option<Time> {
        let due = self.shelf.next_due().max(now);
        if due >= self.release_at || due == Time::MAX {
            return None;
        }
        self.release_at = due;
        Some(due)
    }

    /// Lets the datagrams that were kept back, and whose time has come, go on.
    pub(crate) fn release(&mut self, now: Time, outcomes: &mut Vec<Outcome>) {
        if now >= self.release_at {
            self.release_at = Time::MAX;
        }
        while let Some((_, datagram)) = self.shelf.pop_due(now) {
            outcomes.push(self.queue(now, datagram));
        }
    }

    /// Sends a datagram behind those in the queue.
    fn queue(&mut self, now: Time, datagram: Datagram) -> Outcome {
        let len = datagram.bytes.len();
        let backlog = self.busy_until.saturating_since(now);
        let with_it = backlog + self.link.sending(len);
        if !backlog.is_zero() && with_it > self.link.sending(self.link.queue) {
            self.counts.overflows += 1;
            return Outcome::Overflow(datagram);
        }
        self.busy_until = now + with_it;
        self.counts.backlog_max = self.counts.backlog_max.max(with_it);
        self.counts.datagrams += 1;
        self.counts.bytes += len as u64;
        let jitter = self.rng.within(0, u64::try_from(self.link.jitter.as_nanos()).unwrap_or(u64::MAX));
        Outcome::Arrives(self.busy_until + self.link.delay + Duration::from_nanos(jitter), datagram)
    }
}
