//! What an endpoint counts, in all and by peer.

use super::{Label, Live};
use crate::stats::{Drops, Stats};
use cl_base::PeerId;

/// Declares reasons for drops of which the peer is known, each with the field of [`Drops`] that counts it in all.
macro_rules! reasons {
    ($($reason:ident => $field:ident,)+) => {
        /// Why something of a peer, or for it, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($reason),+
        }

        impl Reason {
            const NAMES: [&str; [$(stringify!($field)),+].len()] = [$(stringify!($field)),+];

            /// Where it is counted in all.
            fn of(self, drops: &mut Drops) -> &mut u64 {
                match self {
                    $(Reason::$reason => &mut drops.$field),+
                }
            }
        }
    };
}

reasons! {
    Geometry => geometry,
    Misaddressed => misaddressed,
    DuplicateFragment => duplicate_fragment,
    InconsistentFragment => inconsistent_fragment,
    Exhausted => exhausted,
    Evicted => reassembly_evicted,
    Expired => reassembly_expired,
    SendFailed => send_failed,
}

impl Reason {
    pub(super) const COUNT: usize = Reason::NAMES.len();

    /// Names and meanings, in the order of declaration: those of [`Drops`].
    pub(super) fn labels() -> [Label; Reason::COUNT] {
        let label = |name| Drops::LABELS.iter().find(|label| label.name == name);
        Reason::NAMES.map(|name| *label(name).expect("every reason has a field of that name"))
    }
}

/// An endpoint's counters, and where others read them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) stats: Stats,
    pub(crate) live: Option<Box<Live>>,
}

impl Tally {
    /// A message to `to` was accepted.
    #[inline]
    pub(crate) fn sent(&mut self, to: PeerId, len: usize) {
        self.stats.messages_sent += 1;
        if let Some(live) = &mut self.live {
            live.sent(to, len);
        }
    }

    /// A message that says it is from `from` was handed up.
    #[inline]
    pub(crate) fn received(&mut self, from: PeerId, len: usize) {
        self.stats.messages_received += 1;
        self.stats.bytes_received += len as u64;
        if let Some(live) = &mut self.live {
            live.received(from, len);
        }
    }

    /// Messages to `to` were copied by us.
    #[inline]
    pub(crate) fn copied_to(&mut self, to: PeerId, messages: usize) {
        self.stats.copies += messages as u64;
        if let Some(live) = &mut self.live {
            live.copied_to(to, messages);
        }
    }

    /// A message that says it is from `from` was copied by us.
    #[inline]
    pub(crate) fn copied_from(&mut self, from: PeerId) {
        self.stats.copies += 1;
        if let Some(live) = &mut self.live {
            live.copied_from(from);
        }
    }

    /// Something that says it is from `peer`, or was for it, was dropped.
    #[cold]
    pub(crate) fn dropped(&mut self, peer: PeerId, why: Reason) {
        *why.of(&mut self.stats.drops) += 1;
        if let Some(live) = &mut self.live {
            live.dropped(peer, why);
        }
    }
}
