//! A hierarchical timer wheel without ticks.
//!
//! Level `l` has 64 slots of 64^l nanoseconds, eleven levels cover all 64 bits of a [`Time`]. A timer is
//! in the level of the highest six-bit digit in which its deadline differs from the wheel's present, in
//! the slot of that digit. So setting and cancelling are O(1), every timer on a lower level is due before
//! every one on a higher level, and the next deadline is the least in the first occupied slot of the
//! lowest occupied level: exact, so that a thread need not wake early to look. A timer moves to a lower
//! level only when time enters its slot, at most ten times in its life and usually once or twice.

use super::{Priority, TimerId};
use cl_base::Time;
use std::collections::HashMap;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// "No entry" in the lists.
const NIL: u32 = u32::MAX;

/// Timers by deadline. Times handed in must not go backwards; a deadline in the past is due at once.
#[derive(Debug)]
pub(super) struct Wheel {
    /// All slots before this time are empty.
    now: u64,
    /// For each level the slots that are occupied.
    occupied: [u64; LEVELS],
    /// The first entry of each slot's list.
    slots: Box<[[u32; SLOTS]; LEVELS]>,
    entries: Vec<Entry>,
    /// Free places in `entries`.
    free: Vec<u32>,
    /// Never iterated, so its order does not matter.
    by_id: HashMap<TimerId, u32>,
    /// Numbers the settings, to keep equal deadlines in order.
    settings: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: TimerId,
    priority: Priority,
    deadline: Time,
    setting: u64,
    level: u8,
    slot: u8,
    previous: u32,
    next: u32,
}

/// A timer that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) id: TimerId,
    pub(super) priority: Priority,
    pub(super) deadline: Time,
    setting: u64,
}

impl Wheel {
    /// No timers, at the time `now`.
    pub(super) fn new(now: Time) -> Wheel {
        Wheel {
            now: now.as_nanos(),
            occupied: [0; LEVELS],
            slots: Box::new([[NIL; SLOTS]; LEVELS]),
            entries: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            settings: 0,
        }
    }

    /// Sets a timer; one of the same name is replaced.
    pub(super) fn set(&mut self, id: TimerId, deadline: Time, priority: Priority) {
        self.cancel(id);
        let setting = self.settings;
        self.settings += 1;
        let entry = Entry { id, priority, deadline, setting, level: 0, slot: 0, previous: NIL, next: NIL };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 timers")
            }
        };
        self.by_id.insert(id, at);
        self.link(at);
    }

    /// Cancels a timer. False if there is none of this name.
    pub(super) fn cancel(&mut self, id: TimerId) -> bool {
        let Some(at) = self.by_id.remove(&id) else { return false };
        self.unlink(at);
        self.free.push(at);
        true
    }

    /// The number of timers set.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The earliest deadline, or [`Time::MAX`].
    pub(super) fn next_deadline(&self) -> Time {
        let Some((level, slot)) = self.first_slot() else { return Time::MAX };
        let mut at = self.slots[level][slot];
        let mut earliest = Time::MAX;
        while at != NIL {
            let entry = &self.entries[at as usize];
            earliest = earliest.min(entry.deadline);
            at = entry.next;
        }
        earliest
    }

    /// Moves time on to `now` and appends the timers due to `expired`, by deadline, equal ones in the order
    /// in which they were set.
    pub(super) fn advance(&mut self, now: Time, expired: &mut Vec<Expired>) {
        let before = expired.len();
        while let Some((level, slot)) = self.first_slot() {
            let start = self.slot_start(level, slot);
            if start > now.as_nanos() {
                break;
            }
            self.now = self.now.max(start);
            let mut at = std::mem::replace(&mut self.slots[level][slot], NIL);
            self.occupied[level] &= !(1 << slot);
            while at != NIL {
                let Entry { id, priority, deadline, setting, next, .. } = self.entries[at as usize];
                if deadline <= now {
                    expired.push(Expired { id, priority, deadline, setting });
                    self.by_id.remove(&id);
                    self.free.push(at);
                } else {
                    self.link(at);
                }
                at = next;
            }
        }
        self.now = self.now.max(now.as_nanos());
        expired[before..].sort_unstable_by_key(|e| (e.deadline, e.setting));
    }

    /// The first occupied slot of the lowest occupied level: it holds the earliest timer.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The earliest time that belongs to an occupied slot.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = DIGIT_BITS * level as u32;
        let above = self.now.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        let above = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        above | (slot as u64) << shift
    }

    /// Puts an entry into the list of the slot it belongs to.
    fn link(&mut self, at: u32) {
        // A deadline that has passed belongs to the present.
        let deadline = self.entries[at as usize].deadline.as_nanos().max(self.now);
        // The highest bit in which it differs from now; the lowest digit if it does not.
        let bit = (deadline ^ self.now | 1).ilog2();
        let level = (bit / DIGIT_BITS) as usize;
        let slot = (deadline >> (DIGIT_BITS * level as u32)) as usize % SLOTS;
        let first = std::mem::replace(&mut self.slots[level][slot], at);
        self.occupied[level] |= 1 << slot;
        let entry = &mut self.entries[at as usize];
        (entry.level, entry.slot, entry.previous, entry.next) = (level as u8, slot as u8, NIL, first);
        if first != NIL {
            self.entries[first as usize].previous = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { level, slot, previous, next, .. } = self.entries[at as usize];
        let (level, slot) = (level as usize, slot as usize);
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous != NIL {
            self.entries[previous as usize].next = next;
        } else {
            self.slots[level][slot] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The obvious implementation.
    #[derive(Default)]
    struct Oracle {
        timers: BTreeMap<(Time, u64), TimerId>,
        settings: u64,
    }

    impl Oracle {
        fn set(&mut self, id: TimerId, deadline: Time) {
            self.cancel(id);
            self.timers.insert((deadline, self.settings), id);
            self.settings += 1;
        }

        fn cancel(&mut self, id: TimerId) -> bool {
            let before = self.timers.len();
            self.timers.retain(|_, &mut other| other != id);
            self.timers.len() < before
        }

        fn advance(&mut self, now: Time) -> Vec<TimerId> {
            let later = self.timers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut self.timers, later).into_values().collect()
        }

        fn next_deadline(&self) -> Time {
            self.timers.first_key_value().map_or(Time::MAX, |(&(t, _), _)| t)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64, i64),
        Cancel(u64),
        Advance(u64),
        AdvanceToNext,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Delays of all magnitudes, some of them in the past.
        let delay = (0u32..62, any::<u64>()).prop_map(|(bits, n)| (n % (1 << bits)) as i64 - 5);
        prop_oneof![
            4 => (0u64..20, delay).prop_map(|(id, d)| Step::Set(id, d)),
            1 => (0u64..20).prop_map(Step::Cancel),
            2 => (0u32..50, any::<u64>()).prop_map(|(bits, n)| Step::Advance(n % (1 << bits))),
            2 => Just(Step::AdvanceToNext),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_an_ordered_map(
            start in any::<u32>(),
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut now = Time::from_nanos(u64::from(start) << 20);
            let (mut wheel, mut oracle) = (Wheel::new(now), Oracle::default());
            for step in steps {
                let advance_to = match step {
                    Step::Set(id, delay) => {
                        let deadline = Time::from_nanos(now.as_nanos().saturating_add_signed(delay));
                        wheel.set(TimerId(id), deadline, Priority::Normal);
                        oracle.set(TimerId(id), deadline);
                        None
                    }
                    Step::Cancel(id) => {
                        prop_assert_eq!(wheel.cancel(TimerId(id)), oracle.cancel(TimerId(id)));
                        None
                    }
                    Step::Advance(by) => Some(Time::from_nanos(now.as_nanos().saturating_add(by))),
                    Step::AdvanceToNext => Some(oracle.next_deadline()).filter(|&t| t != Time::MAX),
                };
                if let Some(to) = advance_to {
                    now = now.max(to);
                    let mut expired = Vec::new();
                    wheel.advance(now, &mut expired);
                    let ids: Vec<TimerId> = expired.iter().map(|e| e.id).collect();
                    prop_assert_eq!(ids, oracle.advance(now));
                }
                prop_assert_eq!(wheel.next_deadline(), oracle.next_deadline());
                prop_assert_eq!(wheel.len(), oracle.timers.len());
            }
        }
    }

    #[test]
    fn the_end_of_time_is_a_deadline_like_any_other() {
        let mut wheel = Wheel::new(Time::from_nanos(1));
        wheel.set(TimerId(1), Time::MAX, Priority::Normal);
        let mut expired = Vec::new();
        wheel.advance(Time::from_nanos(u64::MAX - 1), &mut expired);
        assert!(expired.is_empty());
        wheel.advance(Time::MAX, &mut expired);
        assert_eq!(expired.len(), 1);
    }
}
