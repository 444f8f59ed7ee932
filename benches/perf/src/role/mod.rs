//! The two ends of every workload, as state machines over a [`Party`]: no sockets, no threads.
//!
//! Ping-pong has a [`Pinger`], which measures, and an [`Echo`]. One way there is a [`Source`], which
//! measures, and a [`Sink`], which gives credit. Whoever drives them ([`crate::drive`]) brings them what has
//! arrived, and a tick now and then.

mod flood;
mod ping;

pub use flood::{Sink, Source};
pub use ping::{Echo, Pinger};

use crate::case::{Case, Contents, Effort, Transport};
use crate::party::Party;
use crate::stats::Figures;
use cl::Buf;
use cl_base::PeerId;
use std::time::{Duration, Instant};

/// How often [`Role::on_tick`] is called, about.
pub const TICK: Duration = Duration::from_millis(5);

/// What came of a step: an error ends the run.
pub type Step = Result<(), String>;

/// One end of a workload.
pub trait Role {
    /// Called once, before anything else.
    fn start<P: Party>(&mut self, party: &mut P) -> Step;
    /// A message has arrived.
    #[inline]
    fn on_message<P: Party>(&mut self, party: &mut P, from: PeerId, buf: Buf) -> Step {
        self.on_contents(from, &buf)?;
        drop(buf);
        self.after_contents(party)
    }
    /// Whether it takes messages where they lie, by [`Role::on_contents`], instead of in buffers.
    fn takes_contents(&self) -> bool {
        false
    }
    /// A message has arrived, if [`Role::takes_contents`].
    fn on_contents(&mut self, from: PeerId, contents: &[u8]) -> Step {
        let _ = contents;
        Err(format!("a message of {from} that nobody takes"))
    }
    /// After some calls of [`Role::on_contents`].
    fn after_contents<P: Party>(&mut self, party: &mut P) -> Step {
        let _ = party;
        Ok(())
    }
    /// Nothing more has arrived: the time to send.
    fn on_idle<P: Party>(&mut self, party: &mut P) -> Step;
    /// [`TICK`] has passed.
    fn on_tick<P: Party>(&mut self, party: &mut P) -> Step;
    /// Whether it has done what it was to do.
    fn finished(&self) -> bool;
    /// What it has measured.
    fn figures(&self) -> Figures;
}

/// Where contents come from and go to.
#[derive(Debug)]
struct Messages {
    size: usize,
    contents: Contents,
    /// The application's own memory, if contents are copied.
    from: Vec<u8>,
    into: Vec<u8>,
    /// Whether the peer shares memory, so that what is copied into a buffer is next read by another processor.
    shared: bool,
    /// Small ones are handed over so many at a time, one behind the other.
    many: Vec<u8>,
}

/// Messages in there: few enough that they stay in the first-level cache.
const MANY: u64 = 32;

/// Up to this size copied contents are sent and received by slices, without buffers.
pub const SMALL_COPY_MAX: usize = 1024;
/// Bytes at the front of a message that hold its number, if it has so many.
const NUMBER_LEN: usize = 8;

impl Messages {
    fn new(case: &Case) -> Messages {
        let Case { size, contents, .. } = *case;
        let own = if contents == Contents::Copied { size } else { 0 };
        // Not zero: pages never written are all the same one.
        let many = if own <= SMALL_COPY_MAX { own * MANY as usize } else { 0 };
        let shared = case.transport == Transport::Shm;
        Messages { size, contents, shared, from: vec![1; own], into: vec![1; own], many: vec![1; many] }
    }

    /// A message that says it is number `n`, or `None` if there is no buffer now.
    #[inline]
    fn make(&mut self, party: &mut impl Party, n: u64) -> Option<Buf> {
        let mut buf = party.alloc(self.size)?;
        let number = &n.to_le_bytes()[..NUMBER_LEN.min(self.size)];
        match self.contents {
            Contents::Loaned => {
                buf.grow(self.size);
                buf[..number.len()].copy_from_slice(number);
            }
            Contents::Copied => {
                self.from[..number.len()].copy_from_slice(number);
                match self.shared {
                    true => buf.extend_streaming(&self.from),
                    false => buf.extend_from_slice(&self.from),
                }
            }
        }
        Some(buf)
    }

    /// Whether contents are of a size at which copying is the way to send and to receive.
    fn are_small_copies(&self) -> bool {
        self.contents == Contents::Copied && self.size <= SMALL_COPY_MAX
    }

    /// The contents of message `n`, in the application's own memory.
    #[inline]
    fn copy_of(&mut self, n: u64) -> &[u8] {
        let len = NUMBER_LEN.min(self.size);
        self.from[..len].copy_from_slice(&n.to_le_bytes()[..len]);
        &self.from
    }

    /// The contents of the messages from number `first` on, at most `count` and at most [`MANY`], in the application's own memory.
    #[inline]
    fn copies_of(&mut self, first: u64, count: u64) -> impl Iterator<Item = &[u8]> {
        let (size, count) = (self.size, count.min(MANY) as usize);
        for (number, at) in (first..).zip(0..count) {
            let message = &mut self.many[at * size..(at + 1) * size];
            match message.first_chunk_mut::<NUMBER_LEN>() {
                Some(front) => *front = number.to_le_bytes(),
                None => message.copy_from_slice(&number.to_le_bytes()[..size]),
            }
        }
        let many = &self.many;
        (0..count).map(move |at| &many[at * size..(at + 1) * size])
    }

    /// The number that a message carries, after its contents have been taken.
    ///
    /// # Errors
    /// If it has not the size it should have.
    #[inline]
    fn take(&mut self, buf: &[u8]) -> Result<u64, WrongSize> {
        if buf.len() != self.size {
            return Err(WrongSize { is: buf.len(), expected: self.size });
        }
        if self.contents == Contents::Copied {
            self.into.copy_from_slice(buf);
        }
        let Some(number) = buf.first_chunk::<NUMBER_LEN>() else {
            let mut number = [0; NUMBER_LEN];
            number[..buf.len()].copy_from_slice(buf);
            return Ok(u64::from_le_bytes(number));
        };
        Ok(u64::from_le_bytes(*number))
    }

    /// `n` as far as a message can carry it.
    #[inline]
    fn number(&self, n: u64) -> u64 {
        match self.size {
            0 => 0,
            len @ 1..NUMBER_LEN => n & ((1 << (8 * len)) - 1),
            _ => n,
        }
    }
}

/// A message has not the size that was agreed. Small, for a result that holds it is made for every message.
#[derive(Clone, Copy, Debug)]
struct WrongSize {
    is: usize,
    expected: usize,
}

impl From<WrongSize> for String {
    fn from(wrong: WrongSize) -> String {
        format!("a message of {} bytes arrived, {} were expected", wrong.is, wrong.expected)
    }
}

/// When a part of a measurement is over.
#[derive(Clone, Copy, Debug)]
struct Goal {
    effort: Effort,
    since: Instant,
    done: u64,
}

impl Goal {
    fn new(effort: Effort, now: Instant) -> Goal {
        Goal { effort, since: now, done: 0 }
    }

    fn reached(&self, now: Instant) -> bool {
        match self.effort {
            Effort::Time(time) => now.saturating_duration_since(self.since) >= time,
            Effort::Iterations(n) => self.done >= n,
        }
    }
}
