//! What the parts inside cost, one thread, nothing else: buffers, the ring between two processes, the header, timers,
//! mail.
//!
//! `cargo bench -p cl --bench insides`; behind `--` a name, or a part of one, for only those.
//!
//! What is private to the crate is compiled here from the same files, as for the model checker (`cl-loom`).

mod buffers;
mod header;
#[path = "../../src/prefetch.rs"]
mod prefetch;
mod ring;
mod runtime;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

/// Stands in for `cl`'s module of this name, for the ring and the mailbox.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

/// As well.
mod pool {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Loan {
        pub(crate) slot: u32,
        pub(crate) start: u32,
        pub(crate) len: u32,
    }
}

/// Short: medians of what costs nanoseconds are steady after a fraction of a second.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
}

criterion_group! {
    name = insides;
    config = short();
    targets = buffers::pool, ring::ring, header::header, runtime::timers, runtime::mail
}
criterion_main!(insides);
