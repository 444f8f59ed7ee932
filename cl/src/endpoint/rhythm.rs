use crate::clock::Clock;
use cl_base::Time;
use std::time::Duration;

/// While messages come through shared memory, the network is looked at so often only: a look costs more
/// than a message.
const NETWORK_INTERVAL: Duration = Duration::from_micros(200);
/// Looks into shared memory in vain between two at the clock.
const LOOKS_PER_CLOCK: u32 = 32;
/// Looks at the network in vain, after a message came from there, before it is looked at less often.
const NETWORK_CREDIT: u32 = 64;
/// Messages from shared memory in a row before the network has its turn.
pub(super) const SHARED_IN_A_ROW: u32 = 256;
/// What happens rarely with shared memory is looked after so often.
const TEND_INTERVAL: Duration = Duration::from_millis(1);
/// Looks at the network between two at the clock for that.
const LOOKS_PER_TEND: u32 = 64;

/// When to look where: between shared memory, the network and what happens rarely.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    /// A message went through shared memory since the last look at the network.
    pub(super) shared_is_used: bool,
    /// Messages from shared memory since the network had its turn.
    pub(super) in_a_row: u32,
    /// Looks at the network in vain to go, since a message came from there, until it is looked at less often.
    network_credit: u32,
    /// Looks since the clock was read, for the network and for what happens rarely.
    looks: u32,
    tend_looks: u32,
    /// When it is time for them.
    network_at: Time,
    tend_at: Time,
}

impl Rhythm {
    #[inline]
    pub(super) fn looked_at_network(&mut self, found: bool) {
        self.network_credit = if found { NETWORK_CREDIT } else { self.network_credit.saturating_sub(1) };
    }

    /// True while messages come through shared memory and none from the network.
    #[inline]
    pub(super) fn is_shared_hot(&self) -> bool {
        self.shared_is_used && self.network_credit == 0
    }

    /// True if the network has waited long enough while shared memory is busy.
    #[inline]
    pub(super) fn network_is_due(&mut self, clock: &Clock) -> bool {
        self.looks += 1;
        if self.looks < LOOKS_PER_CLOCK {
            return false;
        }
        self.looks = 0;
        let now = clock.now();
        let due = now >= self.network_at;
        if due {
            // Without a message until the next time, both are looked at by turns again.
            self.shared_is_used = false;
            self.network_at = now + NETWORK_INTERVAL;
            // And what happens rarely has its turn with it.
            self.tend_looks = LOOKS_PER_TEND;
        }
        due
    }

    /// The time, if what happens rarely is to be looked after.
    pub(super) fn tend_is_due(&mut self, clock: &Clock) -> Option<Time> {
        self.tend_looks += 1;
        if self.tend_looks < LOOKS_PER_TEND {
            return None;
        }
        self.tend_looks = 0;
        let now = clock.now();
        if now < self.tend_at {
            return None;
        }
        self.tend_at = now + TEND_INTERVAL;
        Some(now)
    }
}
