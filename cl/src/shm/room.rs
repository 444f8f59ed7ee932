//! How long a sender sleeps that waits for room.
//!
//! That a ring has room again, and that a buffer lent has come back, is told without a word: a bell for it would cost the
//! reader a look at each message. So whoever was refused sleeps a short time and tries again, and a longer one each
//! time that it was for nothing.

use cl_base::Time;
use std::time::Duration;

/// The first sleep: a reader that is awake empties a ring in less, and a shorter sleep is not worth the system calls.
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// The longest, with a reader that does not read: a few hundred wake-ups per second take no processor worth speaking of.
const PAUSE_MAX: Duration = Duration::from_millis(4);

/// What a sender has wanted, and when it is to try again.
#[derive(Debug)]
pub(super) struct Room {
    pause: Duration,
    /// Messages sent when it slept last for want of room.
    sent: u64,
    until: Time,
}

impl Room {
    pub(super) fn new() -> Room {
        Room { pause: PAUSE_MIN, sent: 0, until: Time::MAX }
    }

    /// True if [`Room::look`] has something to do though nothing was refused.
    pub(super) fn is_wanted(&self) -> bool {
        self.until != Time::MAX
    }

    /// Before a sleep. `refused`: since the last sleep something was refused for want of room, after `sent` messages in all.
    pub(super) fn look(&mut self, now: Time, refused: bool, sent: u64) {
        if refused {
            let in_vain = std::mem::replace(&mut self.sent, sent) == sent;
            self.pause = if in_vain { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            self.until = now + self.pause;
        } else if self.until <= now {
            // Whoever has not tried again does not want it any more.
            self.until = Time::MAX;
        }
    }

    /// When the sleep is to end.
    pub(super) fn until(&self) -> Time {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_in_vain_grow_longer_and_end_with_the_wish() {
        let (mut room, mut now) = (Room::new(), Time::ZERO);
        room.look(now, true, 7);
        assert_eq!(room.until(), now + PAUSE_MIN);
        for _ in 0..10 {
            now = room.until();
            room.look(now, true, 7);
        }
        assert_eq!(room.until(), now + PAUSE_MAX);
        // Something went through.
        room.look(now, true, 8);
        assert_eq!(room.until(), now + PAUSE_MIN);
        // Woken early by something else, it still waits.
        room.look(now, false, 8);
        assert_eq!(room.until(), now + PAUSE_MIN);
        room.look(now + PAUSE_MIN, false, 8);
        assert!(!room.is_wanted());
    }
}
