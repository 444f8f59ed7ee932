use crate::region::{Region, Words};
use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;

/// Slots on their way back from a borrower to their lender: a stack in memory that both share. The
/// borrower pushes, from any thread; the lender takes all at once, so nothing can come back in between
/// (no ABA problem). It has room for every slot there is and cannot overflow.
///
/// Neither side trusts what it reads: a link that leads nowhere ends the walk.
#[derive(Debug)]
pub(crate) struct Returns {
    /// One: the number of the slot on top plus one, or 0.
    head: Words<AtomicU32>,
    /// For each slot the number of the one below plus one, or 0.
    next: Words<AtomicU32>,
}

impl Returns {
    /// Bytes for the links of `slots` slots.
    pub(crate) fn next_len(slots: u32) -> usize {
        slots as usize * size_of::<AtomicU32>()
    }

    /// A stack whose head is at byte `head` of the region, and whose links for `slots` slots are at `next`.
    ///
    /// # Panics
    /// If these are not within the region.
    pub(crate) fn new(region: &Arc<Region>, head: usize, next: usize, slots: u32) -> Returns {
        Returns {
            head: region.halves(head..head + size_of::<AtomicU32>()),
            next: region.halves(next..next + Returns::next_len(slots)),
        }
    }

    /// Gives back slot `number`. The borrower uses it no more.
    pub(crate) fn push(&self, number: u32) {
        let (head, link) = (&self.head[0], &self.next[number as usize]);
        let mut top = head.load(Ordering::Relaxed);
        loop {
            link.store(top, Ordering::Relaxed);
            // Release: the lender sees what the borrower has written, and the link.
            match head.compare_exchange_weak(top, number + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// True if something may have come back.
    pub(crate) fn is_pending(&self) -> bool {
        self.head[0].load(Ordering::Relaxed) != 0
    }

    /// Calls `each` with the number of every slot that came back, the latest first, until it returns false
    /// because the number is not one of a slot that was lent.
    pub(crate) fn take(&self, mut each: impl FnMut(u32) -> bool) {
        let mut top = self.head[0].swap(0, Ordering::Acquire);
        while let Some(number) = top.checked_sub(1) {
            let Some(link) = self.next.get(number as usize) else { return };
            top = link.load(Ordering::Relaxed);
            if !each(number) {
                return;
            }
        }
    }
}
