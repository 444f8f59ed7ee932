use super::{Foreign, HEADROOM, Shared, cache};
use crate::streaming::{self, STREAMING_MIN};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// An owned message buffer; it goes back to its pool when it is dropped.
///
/// It reads and writes like a byte slice of the contents. In front of the contents is headroom for the
/// headers of lower layers ([`Buf::prepend`]), behind them is room to grow.
pub struct Buf {
    /// The first byte of the slot.
    base: NonNull<u8>,
    owner: Owner,
    class: u32,
    slot: u32,
    /// The contents are `start..end` of the slot. Invariant: `start <= end <= limit`.
    start: u32,
    end: u32,
    /// The size of the slot.
    limit: u32,
}

/// Where the slot goes back to.
enum Owner {
    /// Our own pool. Counts as a strong count of it.
    Pool(NonNull<Shared>),
    /// The pool of the process that lent it.
    Foreign(Arc<Foreign>),
}

// SAFETY: a `Buf` is the only owner of its slot's bytes until it is dropped, and the arena it points into
// is kept alive by `owner`; so it may move to another thread, and be read from several, like a `Vec<u8>`.
unsafe impl Send for Buf {}
// SAFETY: as above; a shared `Buf` gives only shared access to its bytes.
unsafe impl Sync for Buf {}

impl Buf {
    /// The buffer in the slot just taken from the class's free list, empty.
    ///
    /// # Safety
    /// The caller owns the slot and one strong count of `shared`; both become the buffer's.
    #[inline]
    pub(super) unsafe fn new(shared: NonNull<Shared>, class: usize, slot: u32) -> Buf {
        // SAFETY: the strong count keeps it alive.
        let pool = unsafe { shared.as_ref() };
        let place = pool.layout.classes()[class].slot(slot);
        // SAFETY: the slot lies within the mapping, which is as long as its layout, and does not begin at null.
        let base = unsafe { NonNull::new_unchecked(pool.arena.as_mut_ptr().add(place.start)) };
        let limit = place.len() as u32;
        let start = HEADROOM as u32;
        Buf { base, owner: Owner::Pool(shared), class: class as u32, slot, start, end: start, limit }
    }

    /// Bytes `start..end` of a slot that another process has lent us.
    ///
    /// # Safety
    /// `base` is valid for `limit` bytes while `foreign` lives, and nobody but the buffer uses these until
    /// `foreign` gives `slot` back.
    ///
    /// # Panics
    /// If `start..end` is not within `0..limit`.
    #[inline]
    pub(super) unsafe fn lent(
        foreign: Arc<Foreign>,
        base: NonNull<u8>,
        limit: u32,
        slot: u32,
        contents: std::ops::Range<u32>,
    ) -> Buf {
        assert!(contents.start <= contents.end && contents.end <= limit, "contents beyond a lent slot");
        let (start, end) = (contents.start, contents.end);
        Buf { base, owner: Owner::Foreign(foreign), class: 0, slot, start, end, limit }
    }

    /// True if the buffer is of `pool`, and not lent by another process.
    #[inline]
    pub(super) fn is_of(&self, pool: &Arc<Shared>) -> bool {
        matches!(&self.owner, Owner::Pool(mine) if std::ptr::eq(mine.as_ptr(), Arc::as_ptr(pool)))
    }

    /// Takes a buffer of `pool` apart without giving it back: class, slot and place of the contents. The slot
    /// and the strong count that comes with it are the caller's.
    ///
    /// # Panics
    /// If it is not of `pool`.
    #[inline]
    pub(super) fn into_slot(self, pool: &Arc<Shared>) -> (usize, u32, std::ops::Range<u32>) {
        assert!(self.is_of(pool), "a buffer of another pool");
        let this = std::mem::ManuallyDrop::new(self);
        (this.class as usize, this.slot, this.start..this.end)
    }

    /// The whole slot, headroom and all.
    #[inline]
    fn slot(&self) -> &[u8] {
        // SAFETY: the slot lies within the mapping, which `owner` keeps alive; its bytes are initialised
        // (zero pages at first), and nobody else has access to them while this `Buf` exists.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.limit as usize) }
    }

    #[inline]
    fn slot_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `slot`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.limit as usize) }
    }

    /// Bytes that can still be put in front of the contents.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Bytes that can still be put behind the contents.
    #[inline]
    pub fn tailroom(&self) -> usize {
        (self.limit - self.end) as usize
    }

    /// Grows the contents by `n` bytes at the front and returns these, holding what was there before.
    ///
    /// # Panics
    /// If the headroom is less than `n`.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> &mut [u8] {
        assert!(n <= self.headroom(), "{n} bytes prepended with {} of headroom", self.headroom());
        self.start -= n as u32;
        &mut self[..n]
    }

    /// Takes `n` bytes off the front; they become headroom.
    ///
    /// # Panics
    /// If there are fewer than `n`.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advanced by {n} of {} bytes", self.len());
        self.start += n as u32;
    }

    /// Keeps the first `n` bytes, or all if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len() {
            self.end = self.start + n as u32;
        }
    }

    /// Removes all contents and restores the full headroom.
    pub fn clear(&mut self) {
        self.start = HEADROOM as u32;
        self.end = self.start;
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If the tailroom is less.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare_mut(bytes.len()).copy_from_slice(bytes);
        self.grow(bytes.len());
    }

    /// As [`Buf::extend_from_slice`], for contents that another processor reads next: a message to a peer that shares memory.
    /// Long ones go past this processor's caches then, which is faster for both sides. Not for what the kernel sends over a
    /// network, or this processor looks at soon.
    ///
    /// # Panics
    /// If the tailroom is less.
    #[inline]
    pub fn extend_streaming(&mut self, bytes: &[u8]) {
        if bytes.len() < STREAMING_MIN {
            return self.extend_from_slice(bytes);
        }
        streaming::copy(self.spare_mut(bytes.len()), bytes);
        self.grow(bytes.len());
    }

    /// Changes the length to `len`; bytes added are zero.
    ///
    /// # Panics
    /// If `len` exceeds the length and the tailroom together.
    pub fn resize(&mut self, len: usize) {
        if let Some(more) = len.checked_sub(self.len()) {
            self.spare_mut(more).fill(0);
            self.grow(more);
        } else {
            self.truncate(len);
        }
    }

    /// The first `n` bytes of the tailroom, to be written before [`Buf::grow`]. They hold whatever was
    /// there before.
    ///
    /// # Panics
    /// If the tailroom is less.
    #[inline]
    pub fn spare_mut(&mut self, n: usize) -> &mut [u8] {
        assert!(n <= self.tailroom(), "{n} bytes of {} of tailroom", self.tailroom());
        let end = self.end as usize;
        &mut self.slot_mut()[end..end + n]
    }

    /// Appends the first `n` bytes of the tailroom as they are.
    ///
    /// # Panics
    /// If the tailroom is less.
    #[inline]
    pub fn grow(&mut self, n: usize) {
        assert!(n <= self.tailroom(), "grown by {n} bytes with {} of tailroom", self.tailroom());
        self.end += n as u32;
    }

    /// Gives the buffer back though the kernel may still send from it ([`Pool::lend_pages`](super::Pool::lend_pages)).
    pub(crate) fn renounce(self) {
        let Owner::Pool(shared) = &self.owner else { return };
        // SAFETY: the buffer has a strong count of it.
        if !unsafe { shared.as_ref() }.replace_pages(self.class as usize, self.slot) {
            std::mem::forget(self);
        }
    }

    /// The address and size of the whole slot, for an operation of the kernel on a buffer it owns.
    pub(crate) fn raw_slot(&mut self) -> (*mut u8, usize) {
        (self.base.as_ptr(), self.limit as usize)
    }

    /// Makes bytes `start..end` of the slot the contents.
    pub(crate) fn set_range(&mut self, start: usize, end: usize) {
        assert!(start <= end && end <= self.limit as usize, "contents {start}..{end} beyond the slot");
        self.start = start as u32;
        self.end = end as u32;
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        match &self.owner {
            // SAFETY: the buffer owned the slot and a strong count, and is used no more.
            Owner::Pool(pool) => unsafe { cache::give(*pool, self.class as usize, self.slot) },
            Owner::Foreign(foreign) => foreign.give_back(self.slot),
        }
    }
}

impl Deref for Buf {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.slot()[self.start as usize..self.end as usize]
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start as usize, self.end as usize);
        &mut self.slot_mut()[start..end]
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Pool, PoolConfig};
    use super::*;

    #[test]
    fn headers_go_into_the_headroom_and_come_off_again() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        let mut buf = pool.alloc(10).unwrap();
        buf.extend_from_slice(b"contents");
        let at = buf.as_ptr();
        buf.prepend(4).copy_from_slice(b"inner"[..4].as_ref());
        buf.prepend(2).copy_from_slice(b"ou");
        assert_eq!(&buf[..], b"ouinnecontents");
        assert_eq!(buf.headroom(), HEADROOM - 6);
        buf.advance(6);
        assert_eq!((&buf[..], buf.as_ptr()), (&b"contents"[..], at));
        buf.truncate(3);
        assert_eq!(&buf[..], b"con");
        buf.resize(5);
        assert_eq!(&buf[..], b"con\0\0");
        buf.clear();
        assert_eq!((buf.len(), buf.headroom()), (0, HEADROOM));
    }

    #[test]
    #[should_panic(expected = "of headroom")]
    fn prepending_beyond_the_headroom_is_a_bug() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        pool.alloc(10).unwrap().prepend(HEADROOM + 1);
    }

    #[test]
    #[should_panic(expected = "of tailroom")]
    fn growing_beyond_the_capacity_is_a_bug() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        pool.alloc(10).unwrap().extend_from_slice(&[0; 1 << 15]);
    }
}
