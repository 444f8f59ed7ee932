//! Memory that processes share, seen as atomic words only.
//!
//! Nothing in it is ever referred to as ordinary data, so whatever the process on the other side does to
//! it, at any time, reading it is defined and yields numbers that are checked like those of a datagram.
#![allow(unsafe_code)]

use crate::sys;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::ops::Range;
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

    /// The words in a range of bytes.
    ///
    /// # Panics
    /// If the range is not within the region, or not aligned.
    pub(crate) fn words(&self, bytes: Range<usize>) -> &[AtomicU64] {
        let (at, count) = self.checked(bytes, size_of::<AtomicU64>());
        // SAFETY: the range lies within the mapping and is aligned, as was checked; every bit pattern is a
        // valid atomic, and the mapping is never referred to as anything but atomics.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at).cast(), count) }
    }

    /// The half words in a range of bytes.
    ///
    /// # Panics
    /// As [`Region::words`].
    pub(crate) fn halves(&self, bytes: Range<usize>) -> &[AtomicU32] {
        let (at, count) = self.checked(bytes, size_of::<AtomicU32>());
        // SAFETY: as in `words`. The same memory is not used as words of both sizes.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at).cast(), count) }
    }

    fn checked(&self, bytes: Range<usize>, size: usize) -> (usize, usize) {
        assert!(bytes.start <= bytes.end && bytes.end <= self.map.len(), "{bytes:?} beyond a region");
        // Pages are aligned to more than any word.
        assert!(bytes.start.is_multiple_of(size) && bytes.end.is_multiple_of(size), "{bytes:?} not aligned");
        (bytes.start, bytes.len() / size)
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
