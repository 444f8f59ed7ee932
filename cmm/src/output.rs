//! A job's output on its way from the ranks to the user's terminal or file.

use borsh::{BorshDeserialize, BorshSerialize};
use cmm_core::api::Attempt;

/// Output that may be under way and not yet consumed, for one attempt on one node, bytes. When it is reached
/// the ranks' pipes are not read, so a slow reader slows the program down and nothing is lost.
pub const IN_FLIGHT_MAX: usize = 256 << 10;
/// Bytes in one message: half of what fits a datagram, so that a chunk is not fragmented.
pub const CHUNK_MAX: usize = 32 << 10;
/// An incomplete line longer than this is sent on without its end.
const LINE_MAX: usize = 4 << 10;

/// Which of a rank's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The body of a message of `Class::Output`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// From the agent of a rank: a piece of its output, or an empty one to see whether somebody listens.
    Chunk(Chunk),
    /// From whoever prints or writes it: so many bytes of this attempt, from this agent, are done with.
    Consumed {
        /// Whose output.
        attempt: Attempt,
        /// Bytes since the beginning.
        total: u64,
    },
}

/// A piece of one rank's output. Pieces of one stream arrive in order and once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chunk {
    /// Whose.
    pub attempt: Attempt,
    /// Which rank's.
    pub rank: u32,
    /// Which stream's.
    pub stream: Stream,
    /// What was written.
    pub bytes: Vec<u8>,
}

/// Cuts a stream at line ends, so that lines of different ranks are not mixed.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes more of the stream and gives what can be passed on: whole lines.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let whole = match self.pending.iter().rposition(|b| *b == b'\n') {
            Some(at) => at + 1,
            None if self.pending.len() >= LINE_MAX => self.pending.len(),
            None => 0,
        };
        let rest = self.pending.split_off(whole);
        std::mem::replace(&mut self.pending, rest)
    }

    /// The incomplete line, when its end has been waited for long enough or will not come.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Whether an incomplete line waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_whole() {
        let mut l = Lines::default();
        assert_eq!(l.push(b"one\ntw"), b"one\n");
        assert_eq!(l.push(b"o"), b"");
        assert_eq!(l.push(b"\n\nthree"), b"two\n\n");
        assert_eq!(l.take(), b"three");
        assert!(l.is_empty());
    }

    #[test]
    fn an_endless_line_is_not_kept_for_ever() {
        let mut l = Lines::default();
        let mut out = Vec::new();
        for _ in 0..100 {
            out.extend(l.push(&[b'x'; 1000]));
        }
        assert!(out.len() > 90_000 && out.len() + l.take().len() == 100_000);
    }
}
