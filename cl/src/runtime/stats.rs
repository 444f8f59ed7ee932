//! What an event loop does, for its service and for those who look from outside.

use crate::counters::{Group, Label, Live};
use cl_base::Time;
use std::time::Duration;

/// Counters of an event loop, which is to say of the thread that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Times round the loop: everything is polled once in each.
    pub turns: u64,
    /// Messages handled.
    pub messages: u64,
    /// Timers handled.
    pub timers: u64,
    /// Readiness events handled.
    pub ready: u64,
    /// Mails handled, posts included.
    pub mails: u64,
    /// Times the thread went to sleep.
    pub parks: u64,
    /// How long it has slept in all.
    pub parked: Duration,
    /// How long handlers have run in all.
    pub handlers: Duration,
    /// The longest any handler has run.
    pub handler_max: Duration,
}

/// How much waits at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) mails: usize,
    pub(super) events: usize,
}

const LABELS: &[Label] = &[
    Label::count("turns", "Times round the loop: everything is polled once in each."),
    Label::count("messages", "Messages handled."),
    Label::count("timers", "Timers handled."),
    Label::count("ready", "Events of descriptors handled."),
    Label::count("mails", "Mails handled, those of the thread to itself included."),
    Label::count("parks", "Times the thread went to sleep."),
    Label::count("parked_us", "Microseconds it slept in all, without the sleep that it is in."),
    Label::count("handlers_us", "Microseconds that handlers have run in all."),
    Label::level("handler_max_us", "The longest any handler has run, microseconds."),
    Label::level("mailbox", "Mails from other threads that wait to be taken."),
    Label::level("run_queue", "Events that wait for their handlers."),
    Label::level("processor", "The processor on which the thread ran last."),
];

/// Where an event loop is shown: on the page of its endpoint.
#[derive(Debug)]
pub(super) struct Shown {
    group: Group,
    /// The page's writing behind which it was shown last.
    pub(super) after: Time,
}

impl Shown {
    pub(super) fn new(live: &mut Live) -> Shown {
        Shown { group: live.group("runtime", LABELS), after: Time::ZERO }
    }

    pub(super) fn show(&self, live: &mut Live, stats: &LoopStats, waiting: Waiting) {
        let LoopStats { turns, messages, timers, ready, mails, parks, parked, handlers, handler_max } =
            *stats;
        let [parked, handlers, handler_max] = [parked, handlers, handler_max].map(|d| d.as_micros() as u64);
        let [mailbox, run_queue] = [waiting.mails, waiting.events].map(|n| n as u64);
        let processor = rustix::thread::sched_getcpu() as u64;
        live.set(
            self.group,
            &[
                turns,
                messages,
                timers,
                ready,
                mails,
                parks,
                parked,
                handlers,
                handler_max,
                mailbox,
                run_queue,
                processor,
            ],
        );
    }
}
