//! How a sleeping reader is certain to be woken: an agreement between the two ends of a ring.
//!
//! The reader sets a word that says it sleeps, and then looks whether the ring is empty; the writer writes to
//! the ring, and then looks at the word. The fences between see to it that not both can miss the other.

use crate::sync::{AtomicU64, Ordering, fence};

/// The reader says whether it sleeps. Before it does, it calls [`settle`] and looks once more.
pub(super) fn set_asleep(word: &AtomicU64, asleep: bool) {
    word.store(asleep.into(), Ordering::Relaxed);
}

/// Between all calls of [`set_asleep`] and the last look at the rings.
pub(super) fn settle() {
    // Pairs with the fence in `is_wanted`.
    fence(Ordering::SeqCst);
}

/// True if the writer, having written, has to wake the reader.
#[inline]
pub(super) fn is_wanted(word: &AtomicU64) -> bool {
    // Pairs with the fence in `settle`: either the reader sees the message, or we see it asleep.
    fence(Ordering::SeqCst);
    word.load(Ordering::Relaxed) != 0
}
