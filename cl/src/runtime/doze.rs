//! How a thread that goes to sleep is certain to be woken by a mail: an agreement between it and those that send it
//! some.
//!
//! The owner says that it sleeps, and then looks whether there is mail; a sender puts its mail there, and then looks
//! whether the owner sleeps. The fences between see to it that not both can miss the other.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether the owner sleeps, or is about to.
pub(super) struct Doze(AtomicBool);

impl Doze {
    pub(super) fn new() -> Doze {
        Doze(AtomicBool::new(false))
    }

    /// The owner is going to sleep; false if it must not, for `is_empty` says that there is mail.
    pub(super) fn fall_asleep(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_be_woken`.
        fence(Ordering::SeqCst);
        let may_sleep = is_empty();
        if !may_sleep {
            self.wake_up();
        }
        may_sleep
    }

    /// The owner no longer sleeps.
    pub(super) fn wake_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// True if the sender, having put its mail there, has to wake the owner: of several one has.
    pub(super) fn must_be_woken(&self) -> bool {
        // Pairs with the fence in `fall_asleep`: either we see that the owner sleeps, or it sees the mail.
        fence(Ordering::SeqCst);
        self.0.swap(false, Ordering::Relaxed)
    }
}
