//! The thread of a member: a replica on its storage, and the carrier of its frames.

use crate::carrier::{Arrived, CARRIER_TIMER, Carrier};
use crate::durable::{Drained, Durable};
use cl::Received;
use cl::runtime::{Core, Mailbox, MailboxFull, Running, TimerId};
use cl_base::PeerId;
use replication_proto::{Event, StateMachine};
use std::time::Duration;

const REPLICA: TimerId = TimerId(1);

/// Events taken in before what follows from them is done although others wait: a window of a client's requests, which
/// then share a batch. With more, the first of them would wait for long.
const BURST_MAX: usize = 32;

/// Something to do with a replica, on its thread.
type Look<S> = Box<dyn FnOnce(&Durable<S>) + Send>;

pub(crate) enum Mail<S> {
    Frame { from: PeerId, bytes: Vec<u8> },
    Look(Look<S>),
    Leave,
}

/// See the module.
pub(crate) struct Member<S> {
    replica: Durable<S>,
    peers: Vec<PeerId>,
    carrier: Carrier,
    /// Events taken in since what follows from them was last made durable and sent.
    burst: usize,
    /// Why it stopped, if not on request.
    failure: Option<Stopped>,
}

/// Why a member stopped without being asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// Its storage failed: what is on it is unknown, so nothing more may be promised.
    #[error("the journal failed, so this member stops: {0}")]
    Storage(String),
    /// It found itself or the group in an impossible state: more members are faulty than the group tolerates, or there
    /// is an error in this program.
    #[error("this member found itself in an impossible state and stops: {0}")]
    Halted(&'static str),
    /// Waiting for events failed.
    #[error("the event loop failed: {0}")]
    EventLoop(String),
}

type Cx<S> = Core<Mail<S>>;

impl<S: StateMachine> Member<S> {
    pub(crate) fn new(replica: Durable<S>, peers: Vec<PeerId>, carrier: Carrier) -> Member<S> {
        Member { replica, peers, carrier, burst: 0, failure: None }
    }
}

impl<S: StateMachine + Send + 'static> Member<S> {
    /// Hands what has arrived to the replica. What follows from it is done when nothing else is pending, or with the last
    /// of a burst: so many messages share one wait for the device, and frames to one peer travel together.
    fn take_in(&mut self, cx: &mut Cx<S>) {
        self.feed(cx);
        self.burst += 1;
        if self.burst >= BURST_MAX {
            self.settle(cx);
        }
    }

    fn feed(&mut self, cx: &mut Cx<S>) {
        while let Some(arrived) = self.carrier.poll() {
            match arrived {
                Arrived::Frame { from, bytes } => self.replica.on_message(cx.now(), from, &bytes),
                Arrived::Refusal { from, why } => tracing::error!(peer = %from, "refuses this member: {why}"),
            }
        }
    }

    /// Hands frames between carrier and replica until neither has more to do.
    fn settle(&mut self, cx: &mut Cx<S>) {
        self.burst = 0;
        let now = cx.now();
        loop {
            self.feed(cx);
            let Drained { sends, events } = match self.replica.drain() {
                Ok(drained) => drained,
                // Crash is the cheapest fault to tolerate.
                Err(error) => return self.fail(cx, Stopped::Storage(error.to_string())),
            };
            if sends.is_empty() && events.is_empty() {
                break;
            }
            for event in events {
                match event {
                    Event::Executed { rsn, ops, .. } => tracing::debug!(rsn, ops, "executed"),
                    Event::Halted { reason } => self.fail(cx, Stopped::Halted(reason)),
                    other => tracing::info!(event = ?other, "replica"),
                }
            }
            for (to, bytes) in sends {
                self.carrier.send(now, to, bytes);
            }
            self.carrier.flush(cx);
        }
        match self.replica.next_timeout() {
            Some(at) => cx.set_timer(at, REPLICA),
            None => {
                cx.cancel_timer(REPLICA);
            }
        }
    }

    fn fail(&mut self, cx: &mut Cx<S>, why: Stopped) {
        tracing::error!("{why}");
        self.failure = Some(why);
        cx.stop();
    }
}

impl<S: StateMachine + Send + 'static> cl::runtime::Service for Member<S> {
    type Mail = Mail<S>;

    fn start(&mut self, cx: &mut Cx<S>) {
        let peers = std::mem::take(&mut self.peers);
        self.carrier.connect(cx, &peers);
        self.settle(cx);
    }

    fn on_message(&mut self, cx: &mut Cx<S>, received: Received) {
        self.carrier.on_message(cx, received);
        self.take_in(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx<S>, id: TimerId) {
        match id {
            CARRIER_TIMER => self.carrier.on_timer(cx),
            _ => self.replica.on_timeout(cx.now()),
        }
        self.take_in(cx);
    }

    fn on_mail(&mut self, cx: &mut Cx<S>, mail: Mail<S>) {
        match mail {
            Mail::Frame { from, bytes } => self.replica.on_message(cx.now(), from, &bytes),
            Mail::Look(look) => look(&self.replica),
            Mail::Leave => {
                self.carrier.close(cx);
                cx.stop();
                return;
            }
        }
        self.take_in(cx);
    }

    fn on_idle(&mut self, cx: &mut Cx<S>) {
        self.settle(cx);
    }
}

/// A member that runs on its own thread.
pub(crate) struct Thread<S: StateMachine + Send + 'static>(pub(crate) Running<Member<S>>);

impl<S: StateMachine + Send + 'static> Thread<S> {
    pub(crate) fn mailbox(&self) -> &Mailbox<Mail<S>> {
        self.0.mailbox()
    }

    /// What `look` gives of the replica; `None` if the member has stopped.
    pub(crate) fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Durable<S>) -> R + Send + 'static,
    ) -> Option<R> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.mail(Mail::Look(Box::new(move |replica| drop(tell.send(look(replica))))));
        loop {
            match told.recv_timeout(MAIL_RETRY) {
                Ok(seen) => return Some(seen),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) if !self.0.is_finished() => {}
                Err(_) => return None,
            }
        }
    }

    /// Has it stop, and waits until it has.
    pub(crate) fn stop(self) -> Result<(), Stopped> {
        self.mail(Mail::Leave);
        self.wait()
    }

    /// Waits until it stops by itself.
    pub(crate) fn wait(self) -> Result<(), Stopped> {
        let member = self.0.join().map_err(|e| Stopped::EventLoop(e.to_string()))?;
        member.failure.map_or(Ok(()), Err)
    }

    fn mail(&self, mut mail: Mail<S>) {
        while let Err(MailboxFull(back)) = self.mailbox().send(mail) {
            if self.0.is_finished() {
                return;
            }
            mail = back;
            std::thread::sleep(MAIL_RETRY);
        }
    }
}

/// How soon a full mailbox is tried again, and a silent thread looked after. It is full for a moment only: its thread
/// does nothing but empty it.
const MAIL_RETRY: Duration = Duration::from_millis(5);
