//! What the objects of one domain have in common: one lock, and what is behind it.

use crate::engine::{Engine, Shared};
use crate::settings::Settings;
use slab::Slab;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// The watch looks so many times within the bound after which peers would call this process dead.
const LOOKS_IN_TIME: u32 = 16;

/// Everything behind the lock of a domain.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) endpoints: Slab<Engine>,
    pub(crate) shared: Shared,
}

/// A domain, without its C face.
pub(crate) struct Domain {
    pub(crate) settings: Settings,
    state: Mutex<State>,
    watch: Watch,
}

/// Tells the watch to end.
#[derive(Default)]
struct Watch {
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Domain {
    pub(crate) fn new(settings: Settings) -> Domain {
        Domain { settings, state: Mutex::default(), watch: Watch::default() }
    }

    /// # Panics
    /// If a call has panicked while it had the lock: what is behind it may make no sense any more.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("an earlier call has failed")
    }

    /// Starts a thread that answers peers who ask whether this process lives while the program computes for long.
    pub(crate) fn watch(self: &Arc<Domain>) -> std::io::Result<JoinHandle<()>> {
        let domain = self.clone();
        let pause = self.settings.dead_after / LOOKS_IN_TIME;
        let watch = move || {
            let mut is_over = domain.watch.is_over.lock().expect("nobody panics with it");
            while !*is_over {
                is_over = domain.watch.changed.wait_timeout(is_over, pause).expect("as above").0;
                let Ok(mut state) = domain.state.lock() else { return };
                state.endpoints.iter_mut().for_each(|(_, endpoint)| endpoint.watch());
            }
        };
        std::thread::Builder::new().name("rcl-watch".into()).spawn(watch)
    }

    /// Ends the thread, which is to be joined.
    pub(crate) fn end_watch(&self) {
        *self.watch.is_over.lock().expect("nobody panics with it") = true;
        self.watch.changed.notify_all();
    }
}

impl State {
    /// Drives the endpoints that complete in a queue.
    pub(crate) fn progress_queue(&mut self, queue: usize) {
        for i in 0..self.shared.queues.queues[queue].endpoints.len() {
            let endpoint = self.shared.queues.queues[queue].endpoints[i];
            self.endpoints[endpoint].progress(&mut self.shared);
        }
    }

    /// Drives the endpoints that count in a counter.
    pub(crate) fn progress_counter(&mut self, counter: usize) {
        for i in 0..self.shared.queues.counters[counter].endpoints.len() {
            let endpoint = self.shared.queues.counters[counter].endpoints[i];
            self.endpoints[endpoint].progress(&mut self.shared);
        }
    }
}
