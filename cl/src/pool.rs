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
mod cache;
mod foreign;
mod free_list;
mod lasting;
mod layout;
mod loan;
mod returns;

pub use buf::Buf;
pub(crate) use foreign::Foreign;
pub(crate) use layout::Layout;
pub(crate) use loan::{Loan, Loans};
pub(crate) use returns::Returns;

use crate::sys;
use free_list::FreeList;
use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes in front of a fresh buffer's contents, reserved for the headers of lower layers: 32 for `cl`,
/// and room for a reliable or an authenticated layer above it.
pub const HEADROOM: usize = 128;

/// The largest buffer a pool may be asked to hold, a guard against a mistyped configuration.
const CAPACITY_MAX: usize = 1 << 30;

/// The usual size of a huge page, and a multiple of the smaller ones there are.
const HUGE_PAGE: usize = 2 << 20;

/// Where the system says whether shared memory may be in transparent huge pages.
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

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

impl PoolConfig {
    /// For who exchanges small messages at a low rate: 44 MiB of address space, of which only what is used takes memory.
    pub fn small() -> PoolConfig {
        let class = |capacity, count| SizeClass { capacity, count };
        PoolConfig {
            classes: vec![
                class(2 << 10, 256),
                class(16 << 10, 32),
                class(64 << 10, 64),
                class(1 << 20, 8),
                class(16 << 20, 2),
            ],
        }
    }
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

/// No buffer of the wanted capacity is free: give some back, or retry later. In vain if it is more than
/// [`Pool::capacity_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no buffer of {wanted} bytes: all are in use, or none is as large")]
pub struct Exhausted {
    /// The capacity asked for, in bytes.
    pub wanted: usize,
}

/// A set of message buffers. Clones share the same buffers.
pub struct Pool {
    shared: Arc<Shared>,
}

/// What the handles of a pool, its buffers and the caches of free slots have in common. Every buffer and
/// every cached slot has a strong count of it.
struct Shared {
    arena: MmapRaw,
    /// The arena, for other processes to map.
    file: File,
    /// The kernel may have been given pages of the file to send from.
    lends_pages: AtomicBool,
    pages: Pages,
    layout: Layout,
    /// The free slots of each class of the layout.
    free: Box<[FreeList]>,
    /// Clones of [`Pool`]. At 0 no buffer is taken any more.
    handles: AtomicUsize,
    /// Threads that have a cache.
    caches: AtomicUsize,
    /// Somebody was told that there is no buffer.
    exhausted: AtomicBool,
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.handles.load(Ordering::Relaxed) == 0
    }
}

/// What kind of memory a pool got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages set aside by the administrator (vm.nr_hugepages).
    Huge,
    /// Ordinary pages, which the system may join to huge ones (transparent_hugepage/shmem_enabled).
    Transparent,
    /// Ordinary pages.
    Plain,
}

/// Where the slots of a size class lie in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// The address of the first slot.
    pub(crate) start: usize,
    /// Bytes of a slot.
    pub(crate) slot_len: usize,
    /// Bytes from one slot to the next.
    pub(crate) stride: usize,
    /// Number of slots.
    pub(crate) count: usize,
}

impl Pool {
    /// Makes the arena for `config`.
    ///
    /// # Errors
    /// If the configuration names no class, or an empty, enormous or repeated one, or if the system
    /// refuses the memory.
    pub fn new(config: &PoolConfig) -> io::Result<Pool> {
        let layout = Layout::new(config)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "unusable size classes of a pool"))?;
        let (file, arena, pages) = arena(layout.len())?;
        let free = layout.classes().iter().map(|place| FreeList::full(place.count)).collect();
        let (handles, caches) = (AtomicUsize::new(1), AtomicUsize::new(0));
        Ok(Pool {
            shared: Arc::new(Shared {
                arena,
                file,
                lends_pages: AtomicBool::new(false),
                pages,
                layout,
                free,
                handles,
                caches,
                exhausted: AtomicBool::new(false),
            }),
        })
    }

    /// What kind of memory the buffers are in.
    pub fn pages(&self) -> Pages {
        self.shared.pages
    }

    /// An empty buffer with room for `capacity` bytes after [`HEADROOM`].
    ///
    /// The smallest class that fits is tried first, then the next larger one; no further, so that small
    /// messages cannot use up the buffers of the largest ones.
    ///
    /// # Errors
    /// [`Exhausted`] if both are used up, or `capacity` exceeds the largest class.
    #[inline]
    pub fn alloc(&self, capacity: usize) -> Result<Buf, Exhausted> {
        let fitting = self.fitting(capacity);
        if fitting < self.shared.free.len()
            && let Some(slot) = cache::take(&self.shared, fitting)
        {
            // SAFETY: the slot was free, and a strong count came with it.
            return Ok(unsafe { Buf::new(NonNull::from(&*self.shared), fitting, slot) });
        }
        self.alloc_larger(capacity, fitting + 1)
    }

    #[cold]
    #[inline(never)]
    fn alloc_larger(&self, capacity: usize, class: usize) -> Result<Buf, Exhausted> {
        if class < self.shared.free.len()
            && let Some(slot) = cache::take(&self.shared, class)
        {
            // SAFETY: the slot was free, and a strong count came with it.
            return Ok(unsafe { Buf::new(NonNull::from(&*self.shared), class, slot) });
        }
        if class <= self.shared.free.len() {
            self.shared.exhausted.store(true, Ordering::Relaxed);
        }
        Err(Exhausted { wanted: capacity })
    }

    /// True if [`Pool::alloc`] has failed since the last call.
    pub(crate) fn take_exhausted(&self) -> bool {
        self.shared.exhausted.load(Ordering::Relaxed) && self.shared.exhausted.swap(false, Ordering::Relaxed)
    }

    /// The memory of all buffers, for who must register it with a device.
    #[cfg(feature = "ofi")]
    pub(crate) fn arena(&self) -> (*mut u8, usize) {
        (self.shared.arena.as_mut_ptr(), self.shared.arena.len())
    }

    /// The capacity of the largest buffers, in bytes.
    pub fn capacity_max(&self) -> usize {
        self.shared.layout.classes().last().map_or(0, |c| c.capacity)
    }

    /// The number of buffers of the class that fits `capacity` bytes which this thread can take; a hint
    /// when threads share the pool.
    pub fn available(&self, capacity: usize) -> usize {
        let fitting = self.fitting(capacity);
        self.shared.free.get(fitting).map_or(0, |free| free.len() + cache::at_hand(&self.shared, fitting))
    }

    /// The smallest class that holds `capacity` bytes, if there is one of that index.
    #[inline]
    fn fitting(&self, capacity: usize) -> usize {
        // A handful of classes, and most buffers are of the first: looking through them is the fastest.
        let classes = self.shared.layout.classes();
        classes.iter().position(|c| c.capacity >= capacity).unwrap_or(classes.len())
    }

    /// Where the buffers lie that [`Pool::alloc`] gives first for `capacity`, if there are such. The memory
    /// exists as long as any of them is held.
    pub(crate) fn region(&self, capacity: usize) -> Option<Region> {
        let place = self.shared.layout.classes().get(self.fitting(capacity))?;
        Some(Region {
            start: self.shared.arena.as_ptr() as usize + place.offset,
            slot_len: HEADROOM + place.capacity,
            stride: place.stride,
            count: place.count as usize,
        })
    }

    /// The number of buffers, of all classes together.
    pub(crate) fn slots(&self) -> u32 {
        self.shared.layout.slots()
    }

    /// The arena, for another process to map, and the classes that tell it what lies where.
    pub(crate) fn to_share(&self) -> (&File, PoolConfig) {
        let class =
            |place: &layout::Place| SizeClass { capacity: place.capacity, count: place.count as usize };
        (&self.shared.file, PoolConfig { classes: self.shared.layout.classes().iter().map(class).collect() })
    }
}

impl Clone for Pool {
    fn clone(&self) -> Pool {
        self.shared.handles.fetch_add(1, Ordering::Relaxed);
        Pool { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.handles.fetch_sub(1, Ordering::Relaxed) == 1 {
            cache::purge(NonNull::from(&*self.shared));
        }
    }
}

/// A sealed file of `len` bytes and its mapping, in the largest pages to be had.
fn arena(len: usize) -> io::Result<(File, MmapRaw, Pages)> {
    let huge = sys::memfd(c"cl-pool", len.next_multiple_of(HUGE_PAGE) as u64, true)
        .and_then(|file| Ok((MmapOptions::new().len(len).map_raw(&file)?, file)));
    if let Ok((arena, file)) = huge {
        return Ok((file, arena, Pages::Huge));
    }
    let file = sys::memfd(c"cl-pool", len as u64, false)?;
    let arena = MmapOptions::new().len(len).map_raw(&file)?;
    let transparent = std::fs::read_to_string(TRANSPARENT)
        .is_ok_and(|s| !s.contains("[never]") && !s.contains("[deny]"))
        && sys::advise_huge(&arena).is_ok();
    Ok((file, arena, if transparent { Pages::Transparent } else { Pages::Plain }))
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.shared
                    .layout
                    .classes()
                    .iter()
                    .zip(&self.shared.free)
                    .map(|(c, free)| (c.capacity, (free.len(), c.count))),
            )
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
