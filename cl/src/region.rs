//! Memory that processes share, seen as atomic words only.
//!
//! Nothing in it is ever referred to as ordinary data, so whatever the process on the other side does to
//! it, at any time, reading it is defined and yields numbers that are checked like those of a datagram.
#![allow(unsafe_code)]

use crate::sys;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A mapped file of a size that cannot change.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
}

impl Region {
    /// A fresh region of `len` zero bytes, and the file to hand to others.
    pub(crate) fn new(name: &std::ffi::CStr, len: usize) -> io::Result<(Region, File)> {
        let file = sys::memfd(name, len as u64, false)?;
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok((Region { map }, file))
    }

    /// The region in a file that somebody else made.
    ///
    /// # Errors
    /// If it is not exactly `len` bytes long, or its size is not sealed: touching a page beyond the end of a
    /// file that was cut short would kill this process.
    pub(crate) fn of(file: &File, len: usize) -> io::Result<Region> {
        Ok(Region { map: map_sealed(file, len)? })
    }

    /// The region in a file with a name, made by this process, which writes it alone. Others that may write
    /// it may do anything to this process.
    pub(crate) fn over(file: &File, len: usize) -> io::Result<Region> {
        Ok(Region { map: MmapOptions::new().len(len).map_raw(file)? })
    }

    /// The words in a range of bytes.
    ///
    /// # Panics
    /// If the range is not within the region, or not aligned.
    pub(crate) fn words(self: &Arc<Region>, bytes: Range<usize>) -> Words<AtomicU64> {
        self.view(bytes)
    }

    /// The half words in a range of bytes. The same memory must not be used as words of both sizes: the
    /// numbers in it would make no sense.
    ///
    /// # Panics
    /// As [`Region::words`].
    pub(crate) fn halves(self: &Arc<Region>, bytes: Range<usize>) -> Words<AtomicU32> {
        self.view(bytes)
    }

    fn view<T: Atomic>(self: &Arc<Region>, bytes: Range<usize>) -> Words<T> {
        let (at, count) = self.checked(bytes, size_of::<T>());
        // SAFETY: the range lies within the mapping, as was checked, and a mapping does not begin at null.
        let first = unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(at)) };
        Words { first: first.cast(), count, _region: Arc::clone(self) }
    }

    fn checked(&self, bytes: Range<usize>, size: usize) -> (usize, usize) {
        assert!(bytes.start <= bytes.end && bytes.end <= self.map.len(), "{bytes:?} beyond a region");
        // Pages are aligned to more than any word.
        assert!(bytes.start.is_multiple_of(size) && bytes.end.is_multiple_of(size), "{bytes:?} not aligned");
        (bytes.start, bytes.len() / size)
    }
}

/// Words of a region, which lives as long as they do.
#[derive(Debug)]
pub(crate) struct Words<T> {
    first: NonNull<T>,
    count: usize,
    _region: Arc<Region>,
}

/// Only atomics may be seen in a region.
pub(crate) trait Atomic {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}

// SAFETY: it gives shared access to atomics in a mapping that the region keeps.
unsafe impl<T: Atomic> Send for Words<T> {}
// SAFETY: as above.
unsafe impl<T: Atomic> Sync for Words<T> {}

impl<T: Atomic> Deref for Words<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the words lie within the mapping and are aligned (`Region::checked`), every bit pattern is a
        // valid atomic, and the mapping lives while `_region` does and is never seen as anything but atomics.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

/// Maps a file of another process, once it is certain that it stays `len` bytes long at the least.
pub(crate) fn map_sealed(file: &File, len: usize) -> io::Result<MmapRaw> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if len == 0 || file.metadata()?.len() < len as u64 {
        return refused("a shared file is shorter than its owner says");
    }
    if !rustix::fs::fcntl_get_seals(file)?.contains(rustix::fs::SealFlags::SHRINK) {
        return refused("the size of a shared file is not sealed");
    }
    MmapOptions::new().len(len).map_raw(file)
}
