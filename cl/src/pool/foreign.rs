use super::layout::Layout;
use super::returns::Returns;
use super::{Buf, PoolConfig};
use crate::region::map_sealed;
use memmap2::MmapRaw;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pool of another process, from which messages are lent to us.
///
/// It lives as long as a buffer of it does, and keeps the connection to that process open (`_link`), so
/// that the lender sees the connection's end only when nothing of it is in use any more.
pub(crate) struct Foreign {
    arena: MmapRaw,
    layout: Layout,
    returns: Returns,
    /// One bit for each slot that we have: a lender that lends one twice would make two owners of it.
    held: Box<[AtomicU64]>,
    _link: Arc<OwnedFd>,
}

impl Foreign {
    /// Maps the arena of a pool made for `config`.
    ///
    /// # Errors
    /// If the file is not the arena of such a pool.
    pub(crate) fn new(
        file: &File,
        config: &PoolConfig,
        returns: Returns,
        link: Arc<OwnedFd>,
    ) -> io::Result<Foreign> {
        let layout = Layout::new(config)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "impossible size classes"))?;
        let arena = map_sealed(file, layout.len())?;
        let held = (0..layout.slots().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Foreign { arena, returns, layout, held, _link: link })
    }

    /// The buffer with `contents` (a range of the slot) in slot `number`, or `None` if the lender cannot
    /// have lent us that.
    pub(crate) fn borrow(self: &Arc<Foreign>, number: u32, contents: std::ops::Range<u32>) -> Option<Buf> {
        let (class, index) = self.layout.find(number)?;
        let slot = self.layout.classes()[class].slot(index);
        if contents.start > contents.end || contents.end as usize > slot.len() {
            return None;
        }
        let (word, bit) = (&self.held[number as usize / 64], 1 << (number % 64));
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return None;
        }
        // SAFETY: the slot lies within the mapping, whose file was sealed and is long enough.
        let base = unsafe { NonNull::new_unchecked(self.arena.as_mut_ptr().add(slot.start)) };
        // SAFETY: `base` is valid for the slot's length while the mapping lives. The lender has given the
        // slot up, and nobody in this process has it: its bit was clear. (A process of the same user that
        // breaks this protocol on purpose could write to it; such a process could as well attach to us with
        // a debugger. Lending is refused between users.)
        Some(unsafe { Buf::lent(Arc::clone(self), base, slot.len() as u32, number, contents) })
    }

    /// Gives slot `number` back to the lender.
    pub(super) fn give_back(&self, number: u32) {
        self.held[number as usize / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
        self.returns.push(number);
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("slots", &self.layout.slots()).finish_non_exhaustive()
    }
}
