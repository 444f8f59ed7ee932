//! Notifications on their way to whoever listens.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Notifications kept for a listener that does not take them; with one more the oldest is dropped, which a gap in
/// [`Notice::seq`] shows. Several times what the group keeps for a client by default.
const KEPT_MAX: usize = 4096;

/// What the service has sent by [`Apply::notify`](crate::Apply::notify), and f+1 members say alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number: notices come in order, each once.
    pub seq: u64,
    /// What the service sent.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    notices: VecDeque<Notice>,
    waker: Option<Waker>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// Notifications of one client, in order.
pub struct Notices(Arc<Shared>);

impl Notices {
    /// The next notice; `None` if there is none within this time, or the client was closed.
    pub fn next(&self, within: Duration) -> Option<Notice> {
        let queue = self.0.queue.lock().expect("nobody panics with it");
        let empty = |queue: &mut Queue| queue.notices.is_empty() && !queue.closed;
        let (mut queue, _) =
            self.0.arrived.wait_timeout_while(queue, within, empty).expect("nobody panics with it");
        queue.notices.pop_front()
    }

    /// The next notice for a task that is woken when there is one; `None` when the client was closed.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        let mut queue = self.0.queue.lock().expect("nobody panics with it");
        match queue.notices.pop_front() {
            None if !queue.closed => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            notice => Poll::Ready(notice),
        }
    }
}

/// The other end of [`Notices`].
pub(crate) struct Bell(Arc<Shared>);

impl Bell {
    pub(crate) fn new() -> (Bell, Notices) {
        let shared = Arc::new(Shared::default());
        (Bell(Arc::clone(&shared)), Notices(shared))
    }

    pub(crate) fn ring(&self, notice: Notice) {
        self.change(|queue| {
            if queue.notices.len() == KEPT_MAX {
                queue.notices.pop_front();
            }
            queue.notices.push_back(notice);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let waker = {
            let mut queue = self.0.queue.lock().expect("nobody panics with it");
            change(&mut queue);
            queue.waker.take()
        };
        self.0.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.change(|queue| queue.closed = true);
    }
}
