use crate::Config;
use crate::handshake::{Hello, SessionKeys};
use crate::mac::Mac;
use crate::window::ReplayWindow;
use crate::wire::{self, SessionFrame};
use cl_base::{PeerId, Time};
use std::time::Duration;

/// Something repeated at growing intervals until it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    pub(crate) at: Time,
    interval: Duration,
}

impl Repeat {
    /// First due one interval from `now`; the first time itself is the caller's.
    pub(crate) fn new(now: Time, config: &Config) -> Repeat {
        Repeat { at: now + config.rto_initial, interval: config.rto_initial }
    }

    /// True if it is due, and then sets the next time.
    pub(crate) fn fire(&mut self, now: Time, config: &Config) -> bool {
        let due = self.at <= now;
        if due {
            self.interval = (self.interval * 2).min(config.rto_max);
            self.at = now + self.interval;
        }
        due
    }
}

/// Keys agreed with a peer that has proved to be alive, and what was sent and seen under them.
pub(crate) struct Session {
    pub(crate) keys: SessionKeys,
    pub(crate) mine: Hello,
    pub(crate) theirs: Hello,
    frames_sent: u64,
    window: ReplayWindow,
    /// CONFIRM is repeated until the peer is heard in the session.
    pub(crate) confirm: Option<Repeat>,
    pub(crate) confirm_due: bool,
    /// The peer waits for any frame of this session.
    pub(crate) answer_due: bool,
    /// Since when the peer has owed an answer without being heard.
    pub(crate) waiting_since: Option<Time>,
}

/// Why a session frame was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadMac,
    Replayed,
}

impl Session {
    pub(crate) fn new(keys: SessionKeys, mine: Hello, theirs: Hello, confirm: Option<Repeat>) -> Session {
        Session {
            keys,
            mine,
            theirs,
            frames_sent: 0,
            window: ReplayWindow::new(),
            confirm,
            confirm_due: confirm.is_some(),
            answer_due: confirm.is_none(),
            waiting_since: None,
        }
    }

    pub(crate) fn next_frame_number(&mut self) -> u64 {
        self.frames_sent += 1;
        self.frames_sent
    }

    /// Authenticates a frame and refuses it the second time.
    pub(crate) fn accept(
        &mut self,
        from: PeerId,
        to: PeerId,
        frame: &SessionFrame<'_>,
    ) -> Result<(), Refusal> {
        let digest = wire::bulk_digest(frame.bulk);
        let digest: &[u8] = digest.as_ref().map_or(&[], |d| d.as_bytes());
        let mac: &Mac = frame.mac.try_into().expect("cut to length");
        if !self.keys.receive.verify(from, to, &[frame.head, frame.items, digest], mac) {
            return Err(Refusal::BadMac);
        }
        if !self.window.accept(frame.header.number) { Err(Refusal::Replayed) } else { Ok(()) }
    }
}
