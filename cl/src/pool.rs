//! Message buffers: a [`Pool`] of fixed-size slots in one anonymous file, handed out as owned [`Buf`]s.
//!
//! The arena is a memfd, so that it can be shared with other processes of the node, and its pages are
//! not touched before they are used. Slots come in a few size classes and are reused last-in-first-out,
//! because the slot given back last is the one still in the cache. Every buffer starts with [`HEADROOM`]
//! bytes into which lower layers write their headers, so that a message is never moved to make room.
//!
//! [`Pool`] and [`Buf`] may cross threads; taking and giving back a slot is lock-free.
#![allow(unsafe_code)]

mod buf;
mod free_list;

pub use buf::Buf;

use crate::sys;
use free_list::FreeList;
use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes in front of a fresh buffer's contents, reserved for the headers of lower layers: 32 for `cl`,
/// and room for a reliable or an authenticated layer above it.
pub const HEADROOM: usize = 128;

/// Slots begin at multiples of this, so that no two of them share a cache line.
const ALIGNMENT: usize = 64;

/// The largest buffer a pool may be asked to hold, a guard against a mistyped configuration.
const CAPACITY_MAX: usize = 1 << 30;

/// How many buffers of which capacity a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Bytes of contents, beside [`HEADROOM`].
    pub capacity: usize,
    /// Number of buffers.
    pub count: usize,
}

/// The size classes of a [`Pool`], in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// At least one class; capacities must differ.
    pub classes: Vec<SizeClass>,
}

impl Default for PoolConfig {
    /// 2 KiB to 16 MiB, 144 MiB of address space altogether, of which only what is used takes memory.
    fn default() -> PoolConfig {
        let class = |capacity, count| SizeClass { capacity, count };
        PoolConfig {
            classes: vec![
                class(2 << 10, 4096),
                class(16 << 10, 512),
                class(64 << 10, 512),
                class(1 << 20, 32),
                class(16 << 20, 4),
            ],
        }
    }
}

/// No buffer of the wanted capacity is free: give some back, or retry later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free buffer of {wanted} bytes")]
pub struct Exhausted {
    /// The capacity asked for, in bytes.
    pub wanted: usize,
}

/// A set of message buffers. Clones share the same buffers.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    arena: MmapRaw,
    /// Ascending by capacity.
    classes: Box<[Class]>,
}

struct Class {
    capacity: usize,
    /// Of the first slot in the arena.
    offset: usize,
    /// From one slot to the next.
    stride: usize,
    free: FreeList,
}

impl Pool {
    /// Makes the arena for `config`.
    ///
    /// # Errors
    /// If the configuration names no class, or an empty, enormous or repeated one, or if the system
    /// refuses the memory.
    pub fn new(config: &PoolConfig) -> io::Result<Pool> {
        let mut wanted = config.classes.clone();
        wanted.sort_by_key(|c| c.capacity);
        let bad = wanted.is_empty()
            || wanted.iter().any(|c| c.capacity == 0 || c.capacity > CAPACITY_MAX || c.count == 0)
            || wanted.iter().any(|c| u32::try_from(c.count).is_err())
            || wanted.windows(2).any(|w| w[0].capacity == w[1].capacity);
        if bad {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "unusable size classes of a pool"));
        }
        let mut offset = 0usize;
        let mut classes = Vec::with_capacity(wanted.len());
        for SizeClass { capacity, count } in wanted {
            let stride = (HEADROOM + capacity).next_multiple_of(ALIGNMENT);
            classes.push(Class { capacity, offset, stride, free: FreeList::full(count as u32) });
            offset = stride
                .checked_mul(count)
                .and_then(|bytes| bytes.checked_add(offset))
                .filter(|&end| isize::try_from(end).is_ok())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "pool larger than memory"))?;
        }
        let file = sys::memfd(c"cl-pool", offset as u64)?;
        let arena = MmapOptions::new().len(offset).map_raw(&file)?;
        Ok(Pool { shared: Arc::new(Shared { arena, classes: classes.into() }) })
    }

    /// An empty buffer with room for `capacity` bytes after [`HEADROOM`].
    ///
    /// The smallest class that fits is tried first, then the next larger one; no further, so that small
    /// messages cannot use up the buffers of the largest ones.
    ///
    /// # Errors
    /// [`Exhausted`] if both are used up, or `capacity` exceeds the largest class.
    pub fn alloc(&self, capacity: usize) -> Result<Buf, Exhausted> {
        let classes = &self.shared.classes;
        let fitting = classes.partition_point(|c| c.capacity < capacity);
        for (index, class) in classes.iter().enumerate().skip(fitting).take(2) {
            if let Some(slot) = class.free.pop() {
                return Ok(Buf::new(Arc::clone(&self.shared), index, slot));
            }
        }
        Err(Exhausted { wanted: capacity })
    }

    /// The capacity of the largest buffers, in bytes.
    pub fn capacity_max(&self) -> usize {
        self.shared.classes.last().map_or(0, |c| c.capacity)
    }

    /// The number of free buffers of the class that fits `capacity` bytes; a hint when threads share the pool.
    pub fn available(&self, capacity: usize) -> usize {
        self.shared.classes.iter().find(|c| c.capacity >= capacity).map_or(0, |c| c.free.len())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.shared.classes.iter().map(|c| (c.capacity, (c.free.len(), c.free.capacity()))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(classes: &[(usize, usize)]) -> Pool {
        let classes = classes.iter().map(|&(capacity, count)| SizeClass { capacity, count }).collect();
        Pool::new(&PoolConfig { classes }).unwrap()
    }

    #[test]
    fn exhaustion_is_reported_and_ends_when_a_buffer_is_dropped() {
        let pool = pool(&[(100, 2)]);
        let a = pool.alloc(100).unwrap();
        let _b = pool.alloc(1).unwrap();
        assert_eq!(pool.alloc(7).unwrap_err(), Exhausted { wanted: 7 });
        drop(a);
        assert!(pool.alloc(7).is_ok());
        assert_eq!(pool.alloc(101).unwrap_err(), Exhausted { wanted: 101 });
    }

    #[test]
    fn the_buffer_given_back_last_is_reused_first() {
        let pool = pool(&[(64, 8)]);
        let mut bufs: Vec<Buf> = (0..8).map(|_| pool.alloc(1).unwrap()).collect();
        let (a, b) = (bufs.remove(3), bufs.remove(5));
        let (at_a, at_b) = (a.as_ptr(), b.as_ptr());
        drop(a);
        drop(b);
        let (first, second) = (pool.alloc(1).unwrap(), pool.alloc(1).unwrap());
        assert_eq!((first.as_ptr(), second.as_ptr()), (at_b, at_a));
    }

    #[test]
    fn small_messages_leave_the_largest_class_alone() {
        let pool = pool(&[(64, 1), (256, 1), (1024, 1)]);
        let _small = [pool.alloc(10).unwrap(), pool.alloc(10).unwrap()];
        assert!(pool.alloc(10).is_err());
        assert_eq!((pool.available(10), pool.available(1024)), (0, 1));
    }

    #[test]
    fn unusable_configurations_are_refused() {
        for classes in [&[][..], &[(0, 1)], &[(1, 0)], &[(5, 1), (5, 2)], &[(CAPACITY_MAX + 1, 1)]] {
            let classes = classes.iter().map(|&(capacity, count)| SizeClass { capacity, count }).collect();
            assert!(Pool::new(&PoolConfig { classes }).is_err());
        }
    }

    #[test]
    fn buffers_may_be_taken_and_dropped_by_many_threads() {
        let pool = pool(&[(64, 16)]);
        std::thread::scope(|s| {
            for t in 0..4u8 {
                let pool = &pool;
                s.spawn(move || {
                    for _ in 0..20_000 {
                        let mut held: Vec<Buf> = (0..3).map(|_| pool.alloc(4).unwrap()).collect();
                        held.iter_mut().for_each(|b| b.extend_from_slice(&[t; 4]));
                        assert!(held.iter().all(|b| b[..] == [t; 4]), "two owners of one buffer");
                    }
                });
            }
        });
        assert_eq!(pool.available(1), 16);
    }
}
