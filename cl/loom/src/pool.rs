//! The free list of a pool, and the stack on which slots come back from another process.

#[path = "../../src/pool/free_list.rs"]
mod free_list;
#[path = "../../src/pool/returns.rs"]
mod returns;

use crate::check;
use crate::region::Region;
use crate::sync::{AtomicU32, Ordering};
use free_list::FreeList;
use loom::thread;
use returns::Returns;
use std::sync::Arc;

/// A buffer lent, as in `cl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loan {
    pub(crate) slot: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// What the owner of a slot has in it.
struct Slot {
    /// Set while it is owned: two owners would see each other.
    owned: AtomicU32,
    /// Written without synchronisation of its own, so an owner that may not see its predecessor's writes
    /// loses count.
    owners: AtomicU32,
}

struct Slots(Vec<Slot>);

impl Slots {
    fn new(count: u32) -> Slots {
        let slot = |_| Slot { owned: AtomicU32::new(0), owners: AtomicU32::new(0) };
        Slots((0..count).map(slot).collect())
    }

    fn begin(&self, slot: u32) {
        let Slot { owned, owners } = &self.0[slot as usize];
        assert_eq!(owned.swap(1, Ordering::Relaxed), 0, "two owners of slot {slot}");
        owners.store(owners.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn end(&self, slot: u32) {
        self.0[slot as usize].owned.store(0, Ordering::Relaxed);
    }

    fn owners(&self) -> u32 {
        self.0.iter().map(|slot| slot.owners.load(Ordering::Relaxed)).sum()
    }
}

/// Everything free again, each slot once.
fn assert_all_free(list: &FreeList, count: u32) {
    let mut slots = (0..count).map(|_| list.pop().expect("a slot is lost")).collect::<Vec<_>>();
    slots.sort_unstable();
    assert_eq!(slots, (0..count).collect::<Vec<_>>());
    assert_eq!(list.pop(), None);
}

#[test]
fn a_free_slot_is_taken_by_one_thread_only_and_with_what_its_last_owner_wrote() {
    check(|| {
        let shared = Arc::new((FreeList::full(2), Slots::new(2)));
        // One takes both and gives them back the other way round, so that the slot on top returns while the
        // one below is away: what the tag is there for.
        let both = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (list, slots) = &*shared;
                let taken = [list.pop(), list.pop()];
                taken.into_iter().flatten().for_each(|slot| slots.begin(slot));
                let mut count = 0;
                for slot in taken.into_iter().flatten() {
                    slots.end(slot);
                    list.push(slot);
                    count += 1;
                }
                count
            })
        };
        let (list, slots) = &*shared;
        let mut count = 0;
        let taken = [list.pop(), list.pop()];
        for slot in taken.into_iter().flatten() {
            slots.begin(slot);
            count += 1;
        }
        for slot in taken.into_iter().flatten() {
            slots.end(slot);
            list.push(slot);
        }
        count += both.join().unwrap();
        assert_eq!(slots.owners(), count);
        assert_all_free(list, 2);
    });
}

#[test]
fn a_slot_that_returns_while_the_next_one_is_away_is_told_apart() {
    check(|| {
        let shared = Arc::new((FreeList::full(4), Slots::new(4)));
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (list, slots) = &*shared;
                let [a, b] = [list.pop().unwrap(), list.pop().unwrap()];
                slots.begin(b);
                // The list's head is what it was, and what was behind it is not.
                list.push(a);
                b
            })
        };
        let (list, slots) = &*shared;
        let first = list.pop().unwrap();
        slots.begin(first);
        let second = list.pop();
        if let Some(slot) = second {
            slots.begin(slot);
        }
        let b = other.join().unwrap();
        [Some(first), second, Some(b)].into_iter().flatten().for_each(|slot| list.push(slot));
        assert_all_free(list, 4);
    });
}

#[test]
fn slots_given_back_by_two_threads_all_come_back_with_what_was_written() {
    check(|| {
        const HALF: usize = size_of::<AtomicU32>();
        let region = Arc::new(Region::of(3));
        let shared = Arc::new((Returns::new(&region, 0, HALF, 2), Slots::new(2)));
        let borrowers = [0, 1].map(|slot| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (returns, slots) = &*shared;
                slots.begin(slot);
                returns.push(slot);
            })
        });
        let (returns, slots) = &*shared;
        let mut back = Vec::new();
        let mut take = || {
            returns.take(|slot| {
                assert_eq!(slots.0[slot as usize].owners.load(Ordering::Relaxed), 1, "not seen");
                back.push(slot);
                true
            });
        };
        take();
        borrowers.into_iter().for_each(|borrower| borrower.join().unwrap());
        take();
        back.sort_unstable();
        assert_eq!(back, [0, 1]);
        assert!(!returns.is_pending());
    });
}
