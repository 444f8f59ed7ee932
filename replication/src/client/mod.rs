//! The client's side for programs: any number of threads and tasks share a [`Handle`].

mod desk;
mod error;
mod notices;
mod pending;
mod service;

pub use error::{Error, Fate, ShutOut};
pub use notices::{Notice, Notices};
pub use pending::{Outcome, Pending};

pub(crate) use desk::{Desk, Kind, Question};
pub(crate) use notices::Bell;
pub(crate) use pending::Promise;
pub(crate) use service::{Mail, Service};

use cl::runtime::{Mailbox, Running};
use std::sync::Arc;
use std::time::Duration;

/// The time an operation is given unless [`Handle::with_deadline`] says otherwise: enough for the group to replace several
/// primaries in a row with the usual time-outs.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A client of a group, for any number of threads and tasks: clones are the same client.
///
/// Each operation is executed once, however often the client has to send it, and a result is what f+1 members say alike.
/// Operations that are under way together may be executed in any order; one that is submitted after another's result has
/// come is executed after it. With the last clone the client leaves.
#[derive(Clone)]
pub struct Handle {
    link: Arc<Link>,
    within: Duration,
}

struct Link {
    mailbox: Mailbox<Mail>,
    /// `None` only while it is being dropped.
    running: Option<Running<Service>>,
    /// What else has to be done when the client leaves.
    left: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Handle {
    pub(crate) fn new(running: Running<Service>, left: Option<Box<dyn Fn() + Send + Sync>>) -> Handle {
        let mailbox = running.mailbox().clone();
        Handle { link: Arc::new(Link { mailbox, running: Some(running), left }), within: DEADLINE }
    }

    /// The same client, with another time for what is asked through this handle.
    pub fn with_deadline(&self, within: Duration) -> Handle {
        Handle { link: Arc::clone(&self.link), within }
    }

    /// Has the group execute an operation, once.
    pub fn submit(&self, op: impl Into<Vec<u8>>) -> Pending {
        self.ask(Kind::Submit, op.into())
    }

    /// Asks for the result of an operation that changes nothing ([`StateMachine::query`](crate::StateMachine::query)): in
    /// one round trip if all active members answer alike, ordered like any other otherwise. It sees everything that was
    /// completed before.
    pub fn read(&self, op: impl Into<Vec<u8>>) -> Pending {
        self.ask(Kind::Read, op.into())
    }

    /// What the service sends to this client by itself, from now on. There is one listener: a second call ends the first
    /// one's notices.
    pub fn notices(&self) -> Notices {
        let (bell, notices) = Bell::new();
        self.link.mail(Mail::Listen(bell));
        notices
    }

    fn ask(&self, kind: Kind, op: Vec<u8>) -> Pending {
        let (promise, pending) = Promise::new();
        if self.link.running.as_ref().is_none_or(Running::is_finished) {
            return pending; // nobody reads the mail any more, and the promise is broken here
        }
        let mail = Mail::Ask(Question { kind, op, within: self.within, promise });
        if let Err(full) = self.link.mailbox.send(mail)
            && let Mail::Ask(question) = full.0
        {
            question.promise.fulfil(Err(Error::Busy));
        }
        pending
    }
}

impl Link {
    fn mail(&self, mut mail: Mail) {
        // Full only for a moment: its thread does nothing but empty it.
        while let Err(full) = self.mailbox.send(mail) {
            if self.running.as_ref().is_some_and(Running::is_finished) {
                return;
            }
            mail = full.0;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.mail(Mail::Leave);
        if let Some(running) = self.running.take()
            && let Err(error) = running.join()
        {
            tracing::error!(%error, "the client's event loop failed");
        }
        if let Some(left) = &self.left {
            left();
        }
    }
}
