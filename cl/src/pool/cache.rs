//! Free slots that a thread keeps at hand, so that taking and giving back a buffer needs no atomic
//! operation in the common case.
//!
//! Every thread that takes buffers of a pool may have a cache of it: for each size class a short stack of
//! free slots. A slot in a cache holds one strong count of its pool, as a [`Buf`](super::Buf) does, so
//! moving between the two touches nothing shared. Caches are few and small beside the classes, because
//! what lies in them is not to be had by other threads.

use super::Shared;
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Slots of one class in one cache: more than a burst of a busy thread, and few enough to stay in L1.
const SLOTS_MAX: usize = 32;
/// And at most this part of the class, so that all caches together hold at most an eighth of it.
const SLOTS_PART: usize = 32;
/// Threads that may have a cache of one pool; the others do without.
pub(super) const CACHES_MAX: usize = 4;

thread_local! {
    static CACHES: RefCell<Vec<Cache>> = const { RefCell::new(Vec::new()) };
}

struct Cache {
    /// The pool; its arena lives on while a slot is here.
    pool: Weak<Shared>,
    /// One for each class, with `capacity()` the most it may hold.
    stacks: Box<[Vec<u32>]>,
}

/// A free slot of `class`, and with it one strong count of the pool.
#[inline]
pub(super) fn take(pool: &Arc<Shared>, class: usize) -> Option<u32> {
    let at_hand = CACHES.try_with(|caches| {
        let mut caches = caches.borrow_mut();
        let cache = caches.first_mut().filter(|cache| cache.is_of(Arc::as_ptr(pool)))?;
        cache.stacks.get_mut(class)?.pop()
    });
    match at_hand {
        Ok(Some(slot)) => Some(slot),
        _ => take_slowly(pool, class),
    }
}

/// As [`take`], when the thread has none at hand, or has its cache of this pool not in front.
#[cold]
#[inline(never)]
fn take_slowly(pool: &Arc<Shared>, class: usize) -> Option<u32> {
    let cached = CACHES.try_with(|caches| {
        let mut caches = caches.borrow_mut();
        let cache = find_or_make(&mut caches, pool)?;
        cache.stacks[class].pop().or_else(|| cache.refill(pool, class))
    });
    cached.ok().flatten().or_else(|| take_shared(pool, class))
}

/// Takes back a free slot of `class` and the strong count that comes with it.
///
/// # Safety
/// The caller owns the slot and one strong count of `pool`, and gives up both.
#[inline]
pub(super) unsafe fn give(pool: NonNull<Shared>, class: usize, slot: u32) {
    let kept = CACHES.try_with(|caches| {
        let mut caches = caches.borrow_mut();
        let stack = caches.first_mut().filter(|cache| cache.is_of(pool.as_ptr()))?.stacks.get_mut(class)?;
        // Within the capacity nothing is allocated.
        (stack.len() < stack.capacity()).then(|| stack.push(slot))
    });
    if kept != Ok(Some(())) {
        // SAFETY: passed on from our caller.
        unsafe { give_slowly(pool, class, slot) };
    }
}

/// # Safety
/// As for [`give`].
#[cold]
#[inline(never)]
unsafe fn give_slowly(pool: NonNull<Shared>, class: usize, slot: u32) {
    let kept = CACHES.try_with(|caches| {
        let mut caches = caches.borrow_mut();
        let Some(cache) = caches.iter_mut().find(|cache| cache.is_of(pool.as_ptr())) else { return false };
        if cache.stacks[class].capacity() == 0 {
            return false;
        }
        if cache.stacks[class].len() == cache.stacks[class].capacity() {
            cache.spill(class);
        }
        cache.stacks[class].push(slot);
        true
    });
    if kept != Ok(true) {
        // SAFETY: passed on from our caller.
        unsafe { give_shared(pool, class, slot) };
    }
}

/// Empties this thread's cache of `pool`, which nobody takes from any more.
pub(super) fn purge(pool: NonNull<Shared>) {
    // Without caches (the thread is ending) there is nothing to purge.
    let _ = CACHES.try_with(|caches| caches.borrow_mut().retain(|cache| !cache.is_of(pool.as_ptr())));
}

/// How many slots of `class` this thread has at hand.
pub(super) fn at_hand(pool: &Arc<Shared>, class: usize) -> usize {
    let of = |caches: &RefCell<Vec<Cache>>| {
        let caches = caches.borrow();
        let cache = caches.iter().find(|cache| cache.is_of(Arc::as_ptr(pool)));
        cache.map_or(0, |cache| cache.stacks[class].len())
    };
    CACHES.try_with(of).unwrap_or(0)
}

fn find_or_make<'a>(caches: &'a mut Vec<Cache>, pool: &Arc<Shared>) -> Option<&'a mut Cache> {
    if let Some(at) = caches.iter().position(|cache| cache.is_of(Arc::as_ptr(pool))) {
        // Whoever takes from several pools by turns finds the latest in front.
        caches.swap(0, at);
        return caches.first_mut();
    }
    let admitted =
        pool.caches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < CACHES_MAX).then_some(n + 1));
    admitted.ok()?;
    // Of pools that another thread has closed nobody takes any more.
    caches.retain(|cache| cache.pool.upgrade().is_some_and(|pool| !pool.is_closed()));
    let room = |count: usize| Vec::with_capacity((count / SLOTS_PART).min(SLOTS_MAX));
    let stacks = pool.free.iter().map(|free| room(free.capacity())).collect();
    caches.insert(0, Cache { pool: Arc::downgrade(pool), stacks });
    caches.first_mut()
}

fn take_shared(pool: &Arc<Shared>, class: usize) -> Option<u32> {
    let slot = pool.free[class].pop()?;
    std::mem::forget(Arc::clone(pool));
    Some(slot)
}

/// # Safety
/// As for [`give`].
unsafe fn give_shared(pool: NonNull<Shared>, class: usize, slot: u32) {
    // SAFETY: the caller's strong count keeps the pool alive until it is given up below.
    unsafe {
        pool.as_ref().free[class].push(slot);
        Arc::decrement_strong_count(pool.as_ptr());
    }
}

impl Cache {
    /// Fetches half of what the stack may hold, and returns one more.
    #[cold]
    fn refill(&mut self, pool: &Arc<Shared>, class: usize) -> Option<u32> {
        let stack = &mut self.stacks[class];
        for _ in 0..stack.capacity() / 2 {
            match take_shared(pool, class) {
                Some(slot) => stack.push(slot),
                None => break,
            }
        }
        stack.pop().or_else(|| take_shared(pool, class))
    }

    /// Gives the older half of the stack to all; the younger half is still in the processor's cache.
    #[cold]
    fn spill(&mut self, class: usize) {
        let older = self.stacks[class].len().div_ceil(2);
        self.give_back(class, older);
    }

    fn is_of(&self, pool: *const Shared) -> bool {
        std::ptr::eq(self.pool.as_ptr(), pool)
    }

    fn give_back(&mut self, class: usize, count: usize) {
        for slot in self.stacks[class].drain(..count) {
            let pool = NonNull::new(self.pool.as_ptr().cast_mut()).expect("a cache is of a pool");
            // SAFETY: a slot in a cache is free, and owns a strong count that keeps the pool alive.
            unsafe { give_shared(pool, class, slot) };
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.caches.fetch_sub(1, Ordering::Relaxed);
            (0..self.stacks.len()).for_each(|class| self.give_back(class, self.stacks[class].len()));
        }
    }
}
