//! Models of what `cl`'s threads and processes do at once, for the checker loom.
//!
//! The files under test are those of `cl` themselves, compiled here with loom's atomics in place of the
//! processor's. loom runs each model once for every order in which its threads' steps can take place, and
//! for every value that the memory model lets a load return. Each model is as small as it can be, and
//! bounded to [`PREEMPTIONS`] where it is not small enough.
//!
//! What loom does not do: it never returns a value that is stored later (no load is delayed past a store),
//! and it does not know that two processes may map a page at different addresses.
#![cfg(test)]
// Of the files under test not everything has a model.
#![allow(dead_code)]

mod mailbox;
mod pool;
mod region;
mod shm;

/// Stands in for `cl`'s module of this name.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}

/// As well: asking for a line changes nothing.
mod prefetch {
    use crate::sync::AtomicU64;

    pub(crate) fn to_read(_: &AtomicU64) {}
    pub(crate) fn to_write(_: &AtomicU64) {}
}

/// How often a thread is interrupted at most where it could go on. Nearly all faults of concurrent programs
/// show with two (Musuvathi and Qadeer, 2007); three keep the models within seconds.
const PREEMPTIONS: usize = 3;

/// Checks a model within that bound.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}
