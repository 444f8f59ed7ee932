use super::returns::Returns;
use super::{Buf, Pool, Shared, cache};
use std::ptr::NonNull;
use std::sync::Arc;

/// The buffers of our pool that one other process has at present.
#[derive(Debug)]
pub(crate) struct Loans {
    pool: Pool,
    returns: Returns,
    /// One bit for each slot of the pool.
    lent: Box<[u64]>,
    count: usize,
}

/// A buffer lent, as the borrower is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loan {
    /// The slot's number among those of all classes.
    pub(crate) slot: u32,
    /// Where its contents begin.
    pub(crate) start: u32,
    /// And how long they are.
    pub(crate) len: u32,
}

impl Loans {
    /// None yet.
    pub(crate) fn new(pool: &Pool, returns: Returns) -> Loans {
        let words = pool.shared.layout.slots().div_ceil(64) as usize;
        Loans { pool: pool.clone(), returns, lent: vec![0; words].into(), count: 0 }
    }

    /// The number of buffers that have not come back.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A buffer of our pool with the contents of `buf`: itself, or a copy if it was lent to us. True says that
    /// it was copied.
    pub(crate) fn own(&self, buf: Buf) -> Result<(Buf, bool), Buf> {
        if buf.is_of(&self.pool.shared) {
            return Ok((buf, false));
        }
        match self.pool.alloc(buf.len()) {
            Ok(mut own) => {
                own.extend_streaming(&buf);
                Ok((own, true))
            }
            Err(_) => Err(buf),
        }
    }

    /// Lends `buf`.
    ///
    /// # Panics
    /// If it is not of our pool.
    pub(crate) fn lend(&mut self, buf: Buf) -> Loan {
        let (class, index, contents) = buf.into_slot(&self.pool.shared);
        let slot = self.pool.shared.layout.classes()[class].number(index);
        self.lent[slot as usize / 64] |= 1 << (slot % 64);
        self.count += 1;
        Loan { slot, start: contents.start, len: contents.end - contents.start }
    }

    /// Takes back what the borrower has given back. False if it has given back what it did not have.
    pub(crate) fn reclaim(&mut self) -> bool {
        if !self.returns.is_pending() {
            return true;
        }
        let Loans { pool, returns, lent, count } = self;
        let mut sound = true;
        returns.take(|slot| {
            sound = take_back(&pool.shared, lent, slot);
            *count -= usize::from(sound);
            sound
        });
        sound
    }

    /// Takes back everything, because the borrower is gone: its process has ended or has given up every
    /// buffer and closed the connection.
    pub(crate) fn reclaim_from_the_gone(&mut self) {
        for slot in 0..self.pool.shared.layout.slots() {
            self.count -= usize::from(take_back(&self.pool.shared, &mut self.lent, slot));
        }
    }
}

impl Drop for Loans {
    /// What is lent stays lent: its slots are lost to the pool, for the borrower may write to them.
    fn drop(&mut self) {
        self.reclaim();
        if self.count > 0 {
            tracing::debug!(count = self.count, "buffers abandoned to a peer");
        }
    }
}

/// Puts a slot that was lent back into the pool. False if it was not.
fn take_back(pool: &Arc<Shared>, lent: &mut [u64], slot: u32) -> bool {
    let Some((class, index)) = pool.layout.find(slot) else { return false };
    let (word, bit) = (&mut lent[slot as usize / 64], 1 << (slot % 64));
    if *word & bit == 0 {
        return false;
    }
    *word &= !bit;
    // SAFETY: the bit says that the slot and a strong count were handed over when it was lent.
    unsafe { cache::give(NonNull::from(&**pool), class, index) };
    true
}
