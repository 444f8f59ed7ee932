use cl_base::{PeerId, Time};
use std::collections::VecDeque;
use std::fmt;

/// Entries kept to be looked at when something has gone wrong.
pub const TRACE_LEN: usize = 1000;

/// What happened, in the world or in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Happening {
    /// A party sent a datagram.
    Sent = 1,
    /// A datagram reached its party.
    Delivered,
    /// A fault took a datagram.
    Dropped,
    /// A queue was full.
    Overflow,
    /// The network was cut between the two parties.
    Cut,
    /// There was no such party.
    NoParty,
    /// A deadline of the party came.
    Deadline,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// When.
    pub at: Time,
    /// What.
    pub happening: Happening,
    /// The sender, or the party whose deadline it was.
    pub from: PeerId,
    /// The receiver, or the party whose deadline it was.
    pub to: PeerId,
    /// Bytes of the datagram.
    pub len: usize,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceEntry { at, happening, from, to, len } = self;
        match happening {
            Happening::Deadline => write!(f, "{at} {from} deadline"),
            _ => write!(f, "{at} {from} > {to} {len} bytes {happening:?}"),
        }
    }
}

/// The latest entries, and a digest of all.
pub(crate) struct Trace {
    entries: VecDeque<TraceEntry>,
    digest: u64,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace { entries: VecDeque::new(), digest: 0 }
    }

    /// Adds an entry. `contents` count for the digest only.
    pub(crate) fn record(&mut self, entry: TraceEntry, contents: &[u8]) {
        let TraceEntry { at, happening, from, to, len } = entry;
        for word in [at.as_nanos(), happening as u64, from.to_u64(), to.to_u64(), len as u64] {
            self.digest = mix(self.digest, word);
        }
        for bytes in contents.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.digest = mix(self.digest, u64::from_le_bytes(word));
        }
        if self.entries.len() == TRACE_LEN {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &TraceEntry> {
        self.entries.iter()
    }
}

/// Adds a word to a digest. Runs are compared with each other, not with an adversary's, so speed is all that
/// is wanted: both halves of the product of two odd-looking numbers, folded.
fn mix(digest: u64, word: u64) -> u64 {
    // The fraction of the golden ratio: no pattern, and odd.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(digest ^ word ^ FACTOR) * u128::from(FACTOR);
    (product as u64) ^ (product >> 64) as u64
}
