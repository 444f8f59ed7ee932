//! Putting fragmented messages together, in bounded memory, whatever arrives.
//!
//! A message under reassembly holds one pool buffer of its full length. What one sender may hold is
//! bounded ([`PEER_BYTES_MAX`]), and what all may hold together ([`TOTAL_BYTES_MAX`]); beyond either an
//! unfinished message gives way: of the sender itself, or of the sender that holds most. It is the one of which the least part
//! has arrived: somebody who forges a sender's name and address has to send the same part of [`PEER_BYTES_MAX`] to end it, where
//! the oldest would go for one more fragment. A message that has not grown for [`TIMEOUT`] is given up.

use crate::counters::{Reason, Tally};
use crate::header::{Geometry, Repr};
use crate::pool::{Buf, Pool};
use cl_base::{PeerId, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes one sender may hold: two messages of the greatest length, so that loss in one does not stop the next.
pub(crate) const PEER_BYTES_MAX: usize = 2 * crate::header::MESSAGE_LEN_MAX;
/// Bytes all senders may hold together.
pub(crate) const TOTAL_BYTES_MAX: usize = 64 << 20;
/// Messages all senders may hold together; bounds the bookkeeping when they are short.
pub(crate) const MESSAGES_MAX: usize = 4096;
/// Bitmaps kept for messages to come: as many as a few senders have under way at once.
const BITMAPS_MAX: usize = 16;
/// After this long without a new fragment the rest of a message is not coming: far more than a
/// datacentre round trip, short enough that the buffers of dead senders come back.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// Who sends, as far as is known without authentication: the claimed identity and the socket address, so
/// that nobody can disturb the messages of another without also forging its address.
pub(crate) type Sender = (PeerId, SocketAddr);

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The message is complete.
    Complete(Buf),
    /// More is missing.
    Incomplete,
    /// Had it already.
    Duplicate,
    /// It contradicts the message's earlier fragments.
    Inconsistent,
    /// There is no buffer to put the message into.
    Exhausted,
}

/// Messages under reassembly.
#[derive(Default)]
pub(crate) struct Reassembly {
    partial: BTreeMap<(Sender, u32), Partial>,
    held: BTreeMap<Sender, Held>,
    bytes: usize,
    /// Numbers messages in order of their first fragment.
    births: u64,
    /// Bitmaps of former messages, so that none is allocated for the next.
    bitmaps: Vec<Vec<u64>>,
}

struct Partial {
    buf: Buf,
    geometry: Geometry,
    /// One bit for each fragment that has arrived.
    arrived: Vec<u64>,
    missing: u16,
    born: u64,
    last_growth: Time,
}

impl Partial {
    /// The part of the message that has arrived, in 65536ths.
    fn part_arrived(&self) -> u32 {
        let count = u32::from(self.geometry.count());
        ((count - u32::from(self.missing)) << 16) / count
    }
}

#[derive(Default)]
struct Held {
    bytes: usize,
    messages: usize,
}

impl Reassembly {
    /// Takes in a fragment: its header's meaning and its contents.
    pub(crate) fn insert(
        &mut self,
        now: Time,
        from: SocketAddr,
        repr: &Repr,
        contents: &[u8],
        pool: &Pool,
        tally: &mut Tally,
    ) -> Outcome {
        let key = ((repr.source, from), repr.message);
        if !self.partial.contains_key(&key) {
            self.make_room(now, key.0, repr.geometry.total(), tally);
            let Ok(mut buf) = pool.alloc(repr.geometry.total()) else { return Outcome::Exhausted };
            buf.grow(repr.geometry.total());
            self.begin(now, key, repr.geometry, buf);
        }
        let partial = self.partial.get_mut(&key).expect("begun just now or before");
        if partial.geometry != repr.geometry {
            return Outcome::Inconsistent;
        }
        let (word, bit) = (repr.index as usize / 64, 1 << (repr.index % 64));
        if partial.arrived[word] & bit != 0 {
            return Outcome::Duplicate;
        }
        partial.arrived[word] |= bit;
        partial.buf[repr.geometry.range(repr.index)].copy_from_slice(contents);
        partial.missing -= 1;
        partial.last_growth = now;
        if partial.missing > 0 {
            return Outcome::Incomplete;
        }
        Outcome::Complete(self.remove(&key))
    }

    /// Gives up every message that has not grown for [`TIMEOUT`].
    pub(crate) fn expire(&mut self, now: Time, tally: &mut Tally) {
        let stale: Vec<_> = self
            .partial
            .iter()
            .filter(|(_, p)| now.saturating_since(p.last_growth) >= TIMEOUT)
            .map(|(&key, _)| key)
            .collect();
        for key in stale {
            let ((peer, _), _) = key;
            tally.dropped(peer, Reason::Expired);
            self.remove(&key);
        }
    }

    /// True if nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    fn begin(&mut self, now: Time, key: (Sender, u32), geometry: Geometry, buf: Buf) {
        self.births += 1;
        let mut arrived = self.bitmaps.pop().unwrap_or_default();
        arrived.clear();
        arrived.resize((geometry.count() as usize).div_ceil(64), 0);
        let missing = geometry.count();
        let partial = Partial { buf, geometry, arrived, missing, born: self.births, last_growth: now };
        self.partial.insert(key, partial);
        let held = self.held.entry(key.0).or_default();
        held.bytes += geometry.total();
        held.messages += 1;
        self.bytes += geometry.total();
    }

    fn remove(&mut self, key: &(Sender, u32)) -> Buf {
        let partial = self.partial.remove(key).expect("only messages held are removed");
        let bytes = partial.geometry.total();
        let held = self.held.get_mut(&key.0).expect("a sender with a message holds something");
        held.bytes -= bytes;
        held.messages -= 1;
        if held.messages == 0 {
            self.held.remove(&key.0);
        }
        self.bytes -= bytes;
        if self.bitmaps.len() < BITMAPS_MAX {
            self.bitmaps.push(partial.arrived);
        }
        partial.buf
    }

    /// Makes room for `len` bytes of `sender`.
    fn make_room(&mut self, now: Time, sender: Sender, len: usize, tally: &mut Tally) {
        let over = |r: &Reassembly| r.bytes + len > TOTAL_BYTES_MAX || r.partial.len() >= MESSAGES_MAX;
        if over(self) {
            self.expire(now, tally);
        }
        while self.held.get(&sender).is_some_and(|h| h.bytes + len > PEER_BYTES_MAX) {
            self.evict_least(sender, tally);
        }
        while over(self) {
            let (&heaviest, _) = self
                .held
                .iter()
                .max_by_key(|(_, h)| (h.bytes, h.messages))
                .expect("the limit is passed, so somebody holds something");
            self.evict_least(heaviest, tally);
        }
    }

    /// Gives up the message of `sender` of which the least part has arrived, the oldest of several.
    fn evict_least(&mut self, sender: Sender, tally: &mut Tally) {
        let (&least, _) = self
            .partial
            .range((sender, 0)..=(sender, u32::MAX))
            .min_by_key(|(_, p)| (p.part_arrived(), p.born))
            .expect("a sender that holds bytes has a message");
        tally.dropped(sender.0, Reason::Evicted);
        self.remove(&least);
    }
}

#[cfg(test)]
#[path = "reassembly_test.rs"]
mod tests;
