use crate::Config;
use crate::entropy::Entropy;
use crate::handshake::SessionKeys;
use crate::window::ReplayWindow;
use crate::wire::items::Items;
use crate::wire::{BOUND_BYTES, DIGEST_BYTES, SessionFrame};
use cl_base::Time;
use std::time::Duration;

/// Something repeated at growing intervals until it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    pub(crate) at: Time,
    interval: Duration,
}

impl Repeat {
    /// First due one interval from `now`; the first time itself is the caller's.
    pub(crate) fn new(now: Time, config: &Config, entropy: &mut Entropy) -> Repeat {
        Repeat { at: now + entropy.jitter(config.rto_initial), interval: config.rto_initial }
    }

    /// True if it is due, and then sets the next time.
    pub(crate) fn fire(&mut self, now: Time, config: &Config, entropy: &mut Entropy) -> bool {
        let due = self.at <= now;
        if due {
            self.interval = (self.interval * 2).min(config.rto_max);
            self.at = now + entropy.jitter(self.interval);
        }
        due
    }
}

/// What is known of a session with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The version of the protocol that was agreed on.
    pub version: u8,
    /// The features that both sides have.
    pub features: u32,
    /// How often the keys were renewed.
    pub epoch: u64,
}

/// The keys of one epoch, and what was sent and seen under them. It is never copied and never stored: a frame
/// number is used once under a key, because this counter is the only one for it.
pub(crate) struct Epoch {
    pub(crate) keys: SessionKeys,
    pub(crate) version: u8,
    pub(crate) features: u32,
    frames_sent: u64,
    /// When new keys are to be asked for.
    renew_at: Time,
    window: ReplayWindow,
}

impl Epoch {
    pub(crate) fn new(
        keys: SessionKeys,
        version: u8,
        features: u32,
        now: Time,
        config: &Config,
        entropy: &mut Entropy,
    ) -> Epoch {
        // Three to five quarters of four fifths: from six tenths of the time to all of it.
        let renew_at = now + entropy.jitter(config.rekey_after / 5 * 4);
        Epoch { keys, version, features, frames_sent: 0, renew_at, window: ReplayWindow::new() }
    }

    /// The number of the next frame under these keys.
    pub(crate) fn next_frame_number(&mut self) -> u64 {
        self.frames_sent += 1;
        self.frames_sent
    }

    pub(crate) fn is_old(&self, now: Time, config: &Config) -> bool {
        self.renew_at <= now || self.frames_sent >= config.rekey_frames
    }

    /// No more frames may be sent.
    pub(crate) fn is_used_up(&self, config: &Config) -> bool {
        self.frames_sent >= config.key_frames_max
    }

    /// Opens an authentic frame, once.
    pub(crate) fn accept<'a>(&mut self, frame: SessionFrame<'a>) -> Result<Items<'a>, Refusal> {
        let SessionFrame { header, head, sealed, bulk } = frame;
        // Cheap, and spares the rest of it for what somebody records and repeats.
        if !self.window.is_new(header.number) {
            return Err(Refusal::Replayed);
        }
        let mut text =
            self.keys.receive.open(header.number, &head[..BOUND_BYTES], sealed).ok_or(Refusal::BadMac)?;
        if !bulk.is_empty() {
            let (items, digest) = text.split_at(text.len() - DIGEST_BYTES);
            if blake3::hash(bulk) != *digest.first_chunk().expect("cut to length") {
                return Err(Refusal::BadMac);
            }
            text = items;
        }
        // Not before all of it is known to be genuine: else an altered one would keep that out.
        assert!(self.window.accept(header.number), "asked above");
        Ok(Items::new(text, bulk))
    }
}

/// Keys agreed with a peer that has proved to be alive.
pub(crate) struct Session {
    /// All that is sent is sent under these keys.
    pub(crate) current: Epoch,
    /// The keys before, and until when frames under them are accepted.
    previous: Option<(Epoch, Time)>,
    /// How often the keys were renewed.
    renewed: u64,
    /// CONFIRM is repeated until the peer is heard under the present keys.
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
    Unknown,
    BadMac,
    Replayed,
}

impl Session {
    /// A new session; its initiator has something to `confirm`.
    pub(crate) fn new(first: Epoch, confirm: Option<Repeat>) -> Session {
        Session {
            current: first,
            previous: None,
            renewed: 0,
            confirm,
            confirm_due: confirm.is_some(),
            answer_due: confirm.is_none(),
            waiting_since: None,
        }
    }

    /// New keys for the same session. What is under way under the old ones still counts.
    pub(crate) fn renew(&mut self, next: Epoch, confirm: Option<Repeat>, overlap_until: Time) {
        let old = std::mem::replace(&mut self.current, next);
        self.previous = Some((old, overlap_until));
        self.renewed += 1;
        self.confirm = confirm;
        self.confirm_due = confirm.is_some();
        self.answer_due = confirm.is_none();
    }

    /// The keys of a frame of session `id`: the present ones, or the former ones while they hold. True for
    /// the present ones.
    pub(crate) fn epoch(&mut self, now: Time, id: u64) -> Option<(&mut Epoch, bool)> {
        self.forget_previous(now);
        if self.current.keys.id == id {
            return Some((&mut self.current, true));
        }
        let (previous, _) = self.previous.as_mut().filter(|(epoch, _)| epoch.keys.id == id)?;
        Some((previous, false))
    }

    /// Drops the former keys when their time is over.
    pub(crate) fn forget_previous(&mut self, now: Time) {
        self.previous.take_if(|(_, until)| *until <= now);
    }

    /// When [`Session::forget_previous`] has something to do.
    pub(crate) fn forget_at(&self) -> Option<Time> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo { version: self.current.version, features: self.current.features, epoch: self.renewed }
    }
}
