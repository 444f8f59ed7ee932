//! Stands in for `cl`'s module of this name: half words that live in ordinary memory.

use crate::sync::AtomicU32;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Region(Box<[AtomicU32]>);

#[derive(Debug)]
pub(crate) struct Words<T> {
    region: Arc<Region>,
    range: Range<usize>,
    of: PhantomData<T>,
}

impl Region {
    /// So many zeroes.
    pub(crate) fn of(count: usize) -> Region {
        Region((0..count).map(|_| AtomicU32::new(0)).collect())
    }

    /// `bytes` counts those of loom's atomics, which are larger than what they stand for.
    pub(crate) fn halves(self: &Arc<Region>, bytes: Range<usize>) -> Words<AtomicU32> {
        let size = size_of::<AtomicU32>();
        Words { region: Arc::clone(self), range: bytes.start / size..bytes.end / size, of: PhantomData }
    }
}

impl Deref for Words<AtomicU32> {
    type Target = [AtomicU32];
    fn deref(&self) -> &[AtomicU32] {
        &self.region.0[self.range.clone()]
    }
}
