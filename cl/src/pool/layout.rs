use super::{CAPACITY_MAX, HEADROOM, PoolConfig, SizeClass};
use std::ops::Range;

/// Slots begin at multiples of this, so that no two of them share a cache line.
const ALIGNMENT: usize = 64;
/// The contents of buffers of at least so many bytes begin at pages, and share them with no other buffer.
const PAGED_FROM: usize = 256 << 10;
/// The usual size of a page.
const PAGE: usize = 4096;

/// Where the slots of a pool lie in its arena. It follows from the size classes alone, so that it is the
/// same in every process that maps the arena.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Ascending by capacity.
    classes: Box<[Place]>,
    /// Bytes.
    len: usize,
}

/// Where the slots of one class lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) capacity: usize,
    pub(crate) count: u32,
    /// Of the first slot in the arena.
    pub(super) offset: usize,
    /// From one slot to the next.
    pub(super) stride: usize,
    /// The number of the first slot among those of all classes.
    first: u32,
}

impl Place {
    /// The bytes of slot `index` of the class.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Range<usize> {
        assert!(index < self.count, "slot {index} of {}", self.count);
        let at = self.offset + self.stride * index as usize;
        at..at + HEADROOM + self.capacity
    }

    /// The bytes from slot `index` of the class to the next one.
    pub(super) fn span(&self, index: u32) -> Range<usize> {
        let at = self.slot(index).start;
        at..at + self.stride
    }

    /// The number of slot `index` among those of all classes.
    #[inline]
    pub(crate) fn number(&self, index: u32) -> u32 {
        self.first + index
    }
}

impl Layout {
    /// The layout for `config`, or `None` if it names no class, or an empty, enormous or repeated one.
    pub(crate) fn new(config: &PoolConfig) -> Option<Layout> {
        let mut wanted = config.classes.clone();
        wanted.sort_by_key(|c| c.capacity);
        if wanted.is_empty() || wanted.windows(2).any(|w| w[0].capacity == w[1].capacity) {
            return None;
        }
        let (mut offset, mut first) = (0usize, 0u32);
        let mut classes = Vec::with_capacity(wanted.len());
        for SizeClass { capacity, count } in wanted {
            if capacity == 0 || capacity > CAPACITY_MAX || count == 0 {
                return None;
            }
            let count = u32::try_from(count).ok()?;
            let mut alignment = ALIGNMENT;
            if capacity >= PAGED_FROM {
                alignment = PAGE;
                offset = (offset + HEADROOM).next_multiple_of(PAGE) - HEADROOM;
            }
            let stride = (HEADROOM + capacity).next_multiple_of(alignment);
            classes.push(Place { capacity, count, offset, stride, first });
            offset = stride.checked_mul(count as usize)?.checked_add(offset)?;
            first = first.checked_add(count)?;
        }
        isize::try_from(offset).ok()?;
        Some(Layout { classes: classes.into(), len: offset })
    }

    /// The size of the arena in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The classes, ascending by capacity.
    #[inline]
    pub(crate) fn classes(&self) -> &[Place] {
        &self.classes
    }

    /// The number of slots of all classes.
    pub(crate) fn slots(&self) -> u32 {
        self.classes.last().map_or(0, |c| c.first + c.count)
    }

    /// The bytes up to the next slot of that in which the byte at `offset` of the arena lies, if there is one.
    pub(super) fn span_at(&self, offset: usize) -> Option<Range<usize>> {
        let class = self.classes.partition_point(|c| c.offset <= offset).checked_sub(1)?;
        let class = &self.classes[class];
        let index = u32::try_from((offset - class.offset) / class.stride).ok()?;
        (index < class.count).then(|| class.span(index))
    }

    /// The class and index of a slot by its number, if there is one.
    pub(crate) fn find(&self, number: u32) -> Option<(usize, u32)> {
        let class = self.classes.partition_point(|c| c.first <= number).checked_sub(1)?;
        let index = number - self.classes[class].first;
        (index < self.classes[class].count).then_some((class, index))
    }
}
