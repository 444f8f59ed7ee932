//! Waiting for company: under load the messages to one peer leave together, and a message alone waits for nothing.
//!
//! Load is a run of messages to a peer that follow each other within [`Config::company_wait`](crate::Config::company_wait),
//! without a word from it between them: so neither whoever sends now and then waits, nor whoever asks, is answered and asks
//! again, however fast. The run is halved by a word from the peer, because a stream of ACK messages is answered
//! by acknowledgements. Then the next message waits until as much is ready as fills a frame, until that time has passed
//! since the first one that waited, or until the caller sends for another reason, whichever comes first.

use crate::Mml;
use cl_base::{PeerId, Time};
use std::time::Duration;

/// Messages in a row that are load. As many as that leave at once, so that short bursts are not held up.
const RUN_MIN: u32 = 8;
/// The run counts up to so many, so that a stream that has become a conversation is taken for one after three answers.
const RUN_MAX: u32 = 64;

/// What a frame and a message in it need beside bodies, about: who is told that there is room may find none and leaves the
/// last message to the next frame.
const FRAME_OVERHEAD: usize = 96;
const MESSAGE_OVERHEAD: usize = 4;

/// How the messages to one peer follow each other.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Time>,
    run: u32,
    heard: bool,
}

impl Pace {
    /// Something authentic came from the peer.
    #[inline]
    pub(crate) fn on_heard(&mut self) {
        self.heard = true;
    }

    /// A message is sent; true if the next one is likely to follow soon.
    fn on_send(&mut self, now: Time, wait: Duration) -> bool {
        let follows = self.last.is_some_and(|last| now.saturating_since(last) < wait);
        self.run = match (follows, std::mem::take(&mut self.heard)) {
            (false, _) => 0,
            (true, true) => self.run / 2,
            (true, false) => (self.run + 1).min(RUN_MAX),
        };
        self.last = Some(now);
        self.run >= RUN_MIN
    }
}

impl Mml {
    /// To be asked before a message of `len` bytes is sent to `peer` by a caller who otherwise would send its frame at once:
    /// true if it may wait for others, in the queue. Then [`Mml::next_timeout`] says when at the latest all that is
    /// ready is to be taken with [`Mml::poll_transmit`].
    #[inline]
    pub fn may_wait(&mut self, now: Time, peer: PeerId, len: usize) -> bool {
        let (wait, room) = (self.cx.config.company_wait, self.cx.config.frame_bytes - FRAME_OVERHEAD);
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        if !known.pace.on_send(now, wait) {
            return false;
        }
        let (messages, bytes) = known.unsent();
        if bytes + messages * MESSAGE_OVERHEAD + 2 * (len + MESSAGE_OVERHEAD) > room {
            // Another one like it would not fit.
            return false;
        }
        now < *self.company_until.get_or_insert(now + wait)
    }

    /// Whether messages wait for company.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.company_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_micros(20);

    /// Whether each of `count` messages, `gap_us` after the one before it, finds load; before each something is heard as
    /// `heard` says.
    fn load(pace: &mut Pace, count: u64, gap_us: u64, heard: impl Fn(u64) -> bool) -> Vec<bool> {
        let start = pace.last.unwrap_or(Time::ZERO);
        let send = |n: u64| {
            if heard(n) {
                pace.on_heard();
            }
            pace.on_send(start + Duration::from_micros(gap_us * (n + 1)), WAIT)
        };
        (0..count).map(send).collect()
    }

    #[test]
    fn messages_now_and_then_and_conversations_are_no_load() {
        assert!(!load(&mut Pace::default(), 100, 20, |_| false).contains(&true));
        assert!(!load(&mut Pace::default(), 100, 1, |_| true).contains(&true));
        assert!(!load(&mut Pace::default(), 100, 0, |n| n.is_multiple_of(4)).contains(&true));
    }

    #[test]
    fn a_stream_is_load_after_a_few_messages_until_it_pauses_or_is_answered() {
        let mut pace = Pace::default();
        let loads = load(&mut pace, 100, 1, |_| false);
        assert_eq!(loads.iter().position(|load| *load), Some(RUN_MIN as usize));
        assert!(loads[RUN_MIN as usize..].iter().all(|load| *load));
        // As acknowledgements do.
        assert!(load(&mut pace, 100, 1, |n| n % 16 == 0).iter().all(|load| *load));
        assert!(!load(&mut pace, 5, 1, |_| true)[4], "it has become a conversation");
        assert!(load(&mut pace, 50, 1, |_| false)[49]);
        assert_eq!(load(&mut pace, 1, 21, |_| false), [false]);
    }
}
