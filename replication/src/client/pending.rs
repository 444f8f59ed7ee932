//! A result that is to come: to be waited for, or awaited under any executor.

use super::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// What an operation gives.
pub type Outcome = Result<Vec<u8>, Error>;

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    done: Condvar,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

/// The result of an operation, which is under way whether anybody waits for it or not. It always comes, at the deadline
/// at the latest: [`Pending::wait`] blocks for it, `.await` does not.
#[must_use = "the operation is under way, but its result is lost"]
pub struct Pending(Arc<Slot>);

impl Pending {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error`], which says what is known of the operation.
    pub fn wait(self) -> Outcome {
        let state = self.0.lock();
        let mut state =
            self.0.done.wait_while(state, |state| state.outcome.is_none()).expect("nobody panics with it");
        state.outcome.take().expect("it was waited for")
    }

    /// The result, if it is there already.
    pub(crate) fn take(&self) -> Option<Outcome> {
        self.0.lock().outcome.take()
    }
}

impl Future for Pending {
    type Output = Outcome;

    /// # Panics
    /// If it is polled after it was ready.
    fn poll(self: Pin<&mut Pending>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.0.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The other end of a [`Pending`].
pub(crate) struct Promise(Option<Arc<Slot>>);

impl Promise {
    pub(crate) fn new() -> (Promise, Pending) {
        let slot = Arc::new(Slot::default());
        (Promise(Some(Arc::clone(&slot))), Pending(slot))
    }

    pub(crate) fn fulfil(mut self, outcome: Outcome) {
        self.give(outcome);
    }

    fn give(&mut self, outcome: Outcome) {
        let Some(slot) = self.0.take() else { return };
        let waker = {
            let mut state = slot.lock();
            state.outcome = Some(outcome);
            state.waker.take()
        };
        slot.done.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    /// Nobody waits in vain, whatever becomes of the thread that was to answer.
    fn drop(&mut self) {
        self.give(Err(Error::Closed));
    }
}
