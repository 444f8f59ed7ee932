//! A ring shared with the kernel: one side adds entries, the other takes them.
#![allow(unsafe_code)]

use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a ring may hold: plain numbers, any bits of which are a value.
///
/// # Safety
/// The type has no invalid values and is laid out as the kernel's.
pub(super) unsafe trait Entry: Copy {}

// SAFETY: a number.
unsafe impl Entry for u64 {}
// SAFETY: three numbers, laid out by libc as the kernel's `struct xdp_desc`.
unsafe impl Entry for libc::xdp_desc {}

/// Our side of a ring with `size` entries. We are either its producer ([`Ring::push`]) or its consumer
/// ([`Ring::pop`]), and always the same.
#[derive(Debug)]
pub(super) struct Ring<T> {
    map: MmapRaw,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    size: u32,
    /// How far we are.
    ours: u32,
    /// How far the kernel was when last looked at.
    theirs: u32,
    entry: PhantomData<T>,
}

impl<T: Entry> Ring<T> {
    /// Maps the ring of `size` entries, a power of two, that the socket has at `page_offset`.
    pub(super) fn map(
        socket: RawFd,
        page_offset: u64,
        at: libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Ring<T>> {
        assert!(size.is_power_of_two());
        let place = |offset: u64| usize::try_from(offset).expect("a ring is smaller than memory");
        let entries = place(at.desc);
        let len = entries + size as usize * size_of::<T>();
        let map = MmapOptions::new().offset(page_offset).len(len).populate().map_raw(socket)?;
        let [producer, consumer, flags] = [at.producer, at.consumer, at.flags].map(place);
        for index in [producer, consumer, flags] {
            assert!(index + size_of::<u32>() <= len && index.is_multiple_of(align_of::<u32>()));
        }
        assert!(entries.is_multiple_of(align_of::<T>()));
        Ok(Ring { map, producer, consumer, flags, entries, size, ours: 0, theirs: 0, entry: PhantomData })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `map` checked that an aligned word lies there; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }

    fn entry(&self, index: u32) -> *mut T {
        let at = self.entries + (index & (self.size - 1)) as usize * size_of::<T>();
        debug_assert!(at + size_of::<T>() <= self.map.len());
        // SAFETY: within the mapping: the index is below `size`, for which `map` made room.
        unsafe { self.map.as_mut_ptr().add(at).cast() }
    }

    /// Adds an entry for [`Ring::publish`]; false if the ring is full.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.ours.wrapping_sub(self.theirs) == self.size {
            self.theirs = self.word(self.consumer).load(Ordering::Acquire);
            if self.ours.wrapping_sub(self.theirs) == self.size {
                return false;
            }
        }
        // SAFETY: an entry within the ring, and ours: the kernel has consumed it, and does not look at it
        // again before it is published.
        unsafe { self.entry(self.ours).write(entry) };
        self.ours = self.ours.wrapping_add(1);
        true
    }

    /// Shows the kernel what was added.
    pub(super) fn publish(&self) {
        self.word(self.producer).store(self.ours, Ordering::Release);
    }

    /// Takes the oldest entry.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.ours == self.theirs {
            self.theirs = self.word(self.producer).load(Ordering::Acquire);
            if self.ours == self.theirs {
                return None;
            }
        }
        // SAFETY: an entry within the ring that the kernel has published and does not touch before we
        // have moved on; any bits are a value of `T`.
        let entry = unsafe { self.entry(self.ours).read() };
        self.ours = self.ours.wrapping_add(1);
        self.word(self.consumer).store(self.ours, Ordering::Release);
        Some(entry)
    }

    /// True if there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.ours == self.word(self.producer).load(Ordering::Acquire)
    }

    /// True if the kernel wants to be called when entries have been added.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}
