//! What is told of operations: completion queues and counters.

use cl_base::PeerId;
use slab::Slab;
use std::collections::VecDeque;
use std::ffi::c_int;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The application's name of the operation: an address.
    pub(crate) context: usize,
    /// What kind of operation it was, and what came with it.
    pub(crate) flags: u64,
    pub(crate) len: usize,
    /// Where a received message is.
    pub(crate) buf: usize,
    pub(crate) data: u64,
    pub(crate) tag: u64,
    /// Who sent it.
    pub(crate) source: Option<PeerId>,
    /// Why it failed, or 0.
    pub(crate) error: c_int,
    /// Bytes that did not fit.
    pub(crate) lost: usize,
}

impl Completion {
    pub(crate) fn new(context: usize, flags: u64) -> Completion {
        let source = None;
        Completion { context, flags, len: 0, buf: 0, data: 0, tag: 0, source, error: 0, lost: 0 }
    }
}

/// Completions that were not read yet. There are no more of them than operations that the application has begun.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// `enum fi_cq_format`.
    pub(crate) format: c_int,
    pub(crate) entries: VecDeque<Completion>,
    /// The endpoints that complete there, which a reader drives.
    pub(crate) endpoints: Vec<usize>,
}

/// Operations that are complete, by number.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    pub(crate) value: u64,
    pub(crate) errors: u64,
    pub(crate) endpoints: Vec<usize>,
}

/// The queues and counters of a domain.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(crate) queues: Slab<Queue>,
    pub(crate) counters: Slab<Counter>,
}

/// Where the operations of one kind complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    pub(crate) queue: Option<usize>,
    /// Only operations that ask for it, and those that failed, are told.
    pub(crate) selective: bool,
    pub(crate) counter: Option<usize>,
}

impl Queues {
    /// Tells that an operation is complete. `asked`: it was asked to be told.
    pub(crate) fn complete(&mut self, bound: Bound, asked: bool, completion: Completion) {
        let failed = completion.error != 0;
        if let Some(counter) = bound.counter.and_then(|counter| self.counters.get_mut(counter)) {
            if failed {
                counter.errors += 1;
            } else {
                counter.value += 1;
            }
        }
        if (asked || failed || !bound.selective)
            && let Some(queue) = bound.queue.and_then(|queue| self.queues.get_mut(queue))
        {
            queue.entries.push_back(completion);
        }
    }
}
