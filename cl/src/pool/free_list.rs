use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A lock-free stack of slot numbers. The head carries a tag that changes with every operation, so that
/// a slot taken and given back meanwhile is noticed (the ABA problem).
pub(super) struct FreeList {
    /// Tag in the upper half; in the lower half the number of the first free slot plus one, or 0.
    head: AtomicU64,
    /// For each slot the number of the next free one plus one, or 0.
    next: Box<[AtomicU32]>,
    /// The length, kept beside for statistics.
    free: AtomicU32,
}

impl FreeList {
    /// All of `count` slots free, 0 on top.
    pub(super) fn full(count: u32) -> FreeList {
        let next = (0..count).map(|i| AtomicU32::new(if i + 1 < count { i + 2 } else { 0 })).collect();
        FreeList { head: AtomicU64::new(u64::from(count > 0)), next, free: AtomicU32::new(count) }
    }

    /// Takes the slot that was given back last.
    pub(super) fn pop(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let slot = (head as u32).checked_sub(1)?;
            let next = self.next[slot as usize].load(Ordering::Relaxed);
            match self.head.compare_exchange_weak(
                head,
                retagged(head, next),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    self.free.fetch_sub(1, Ordering::Relaxed);
                    return Some(slot);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Gives `slot` back. The caller must own it, and does no longer.
    pub(super) fn push(&self, slot: u32) {
        self.free.fetch_add(1, Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[slot as usize].store(head as u32, Ordering::Relaxed);
            // Release: whoever takes the slot sees what its last owner wrote, and the link just stored.
            match self.head.compare_exchange_weak(
                head,
                retagged(head, slot + 1),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The number of free slots, approximate while other threads take and give.
    pub(super) fn len(&self) -> usize {
        self.free.load(Ordering::Relaxed) as usize
    }

    /// The number of slots, free or not.
    pub(super) fn capacity(&self) -> usize {
        self.next.len()
    }
}

fn retagged(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}
