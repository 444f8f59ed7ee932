use super::doze::Doze;
use super::queue::Priority;
use crossbeam::queue::ArrayQueue;
use mio::Waker;
use std::fmt;
use std::sync::Arc;

/// The way to a service on another thread: a bounded lock-free queue, and a bell that is rung only when
/// the thread sleeps. Clones lead to the same service.
pub struct Mailbox<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    mails: ArrayQueue<(Priority, M)>,
    doze: Doze,
    waker: Waker,
}

/// The mailbox is full (or its service has stopped and will not empty it): the mail comes back.
#[derive(thiserror::Error)]
#[error("the mailbox is full")]
pub struct MailboxFull<M>(pub M);

impl<M> fmt::Debug for MailboxFull<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxFull")
    }
}

impl<M: Send> Mailbox<M> {
    pub(super) fn new(capacity: usize, waker: Waker) -> Mailbox<M> {
        let mails = ArrayQueue::new(capacity.max(1));
        Mailbox { shared: Arc::new(Shared { mails, doze: Doze::new(), waker }) }
    }

    /// Sends a mail of normal priority.
    ///
    /// # Errors
    /// [`MailboxFull`] hands the mail back.
    pub fn send(&self, mail: M) -> Result<(), MailboxFull<M>> {
        self.send_with_priority(Priority::Normal, mail)
    }

    /// Sends a mail of the given priority.
    ///
    /// # Errors
    /// As [`Mailbox::send`].
    pub fn send_with_priority(&self, priority: Priority, mail: M) -> Result<(), MailboxFull<M>> {
        self.shared.mails.push((priority, mail)).map_err(|(_, mail)| MailboxFull(mail))?;
        if self.shared.doze.must_be_woken()
            && let Err(error) = self.shared.waker.wake()
        {
            tracing::error!(%error, "a sleeping thread could not be woken");
        }
        Ok(())
    }

    /// The mail that has waited longest.
    pub(super) fn receive(&self) -> Option<(Priority, M)> {
        self.shared.mails.pop()
    }

    /// Mails that wait.
    pub(super) fn len(&self) -> usize {
        self.shared.mails.len()
    }

    /// Announces that the owner is going to sleep; false if there is mail, so that it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.shared.doze.fall_asleep(|| self.shared.mails.is_empty())
    }

    /// The owner no longer sleeps.
    pub(super) fn wake_up(&self) {
        self.shared.doze.wake_up();
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Mailbox<M> {
        Mailbox { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.shared.mails.len()).finish()
    }
}
