//! An endpoint that waits: `msg_sync_send` and `msg_receive` of Table 7.2, for tools that have nothing else
//! to do. Daemons drive an [`Endpoint`] from the runtime instead.

use crate::endpoint::Endpoint;
use crate::keyring::Keyring;
use crate::keys::{NoEntropy, entropy};
use crate::roster::Roster;
use cl_base::{Incarnation, PeerId, Time};
use mml_proto::{Config, Delivery, Event, FailReason, Outgoing, SendStatus, Sequence};
use std::collections::VecDeque;
use std::time::Duration;

/// How long it sleeps when nothing arrives. Tools answer people; this is well below what they notice, and a
/// waiting tool uses no measurable time of the processor.
const NAP: Duration = Duration::from_micros(200);
/// Messages and other events that wait for `recv`; more are dropped, oldest first.
const INBOX_MAX: usize = 4096;

/// A party that waits for what it asks.
pub struct Blocking {
    cl: cl::Endpoint,
    mml: Endpoint,
    clock: cl::Clock,
    inbox: VecDeque<Event>,
}

/// Why a message was not delivered in time.
#[derive(Debug, thiserror::Error)]
pub enum SyncSendError {
    /// It was not taken.
    #[error(transparent)]
    Refused(#[from] mml_proto::SendError),
    /// It was given up.
    #[error("not delivered: {0:?}")]
    Failed(FailReason),
    /// The deadline has passed; it may still be delivered.
    #[error("not acknowledged in time")]
    TimedOut(Sequence),
}

/// Why no endpoint could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The communication layer's reason.
    #[error(transparent)]
    Cl(#[from] cl::OpenError),
    /// No nonces can be made.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

impl Blocking {
    /// A party named, bound and buffered as `cl` says. Its incarnation is the present time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        cl: cl::EndpointConfig,
        config: Config,
        keyring: Keyring,
        roster: &Roster,
    ) -> Result<Blocking, OpenError> {
        let clock = cl::Clock::new();
        let incarnation = Incarnation(clock.now().as_nanos());
        let mml = Endpoint::new(config, cl.me, incarnation, keyring, roster, entropy()?);
        Ok(Blocking { cl: cl::Endpoint::open(cl)?, mml, clock, inbox: VecDeque::new() })
    }

    /// Sends a message and waits until the peer has it (ACK, NACK) or it has left (UNR).
    ///
    /// # Errors
    /// [`SyncSendError`].
    pub fn send<'b>(
        &mut self,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
        timeout: Duration,
    ) -> Result<Sequence, SyncSendError> {
        let now = self.clock.now();
        // Whoever waits for each has no other to send.
        let sequence = self.mml.queue(now, peer, delivery, class, body)?;
        self.mml.flush(&mut self.cl, now);
        let deadline = now + timeout;
        loop {
            match self.mml.status(peer, sequence) {
                SendStatus::Delivered => return Ok(sequence),
                SendStatus::Unknown if delivery == Delivery::Unr => return Ok(sequence),
                SendStatus::Failed(reason) => return Err(SyncSendError::Failed(reason)),
                SendStatus::Pending | SendStatus::Unknown => {}
            }
            if !self.step(deadline) {
                return Err(SyncSendError::TimedOut(sequence));
            }
        }
    }

    /// Waits for the next event: a message, or news of a peer.
    pub fn recv(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = self.clock.now() + timeout;
        loop {
            if let Some(event) = self.inbox.pop_front() {
                return Some(event);
            }
            if !self.step(deadline) {
                return None;
            }
        }
    }

    /// The endpoint, for what needs no waiting.
    pub fn endpoint(&mut self) -> (&mut Endpoint, &mut cl::Endpoint) {
        (&mut self.mml, &mut self.cl)
    }

    /// Does what is to be done now, or sleeps a little; false when the deadline has passed.
    fn step(&mut self, deadline: Time) -> bool {
        let now = self.clock.now();
        let mut idle = true;
        while let Some(received) = self.cl.poll() {
            self.mml.handle(&mut self.cl, now, received);
            idle = false;
        }
        if self.mml.next_timeout().is_some_and(|at| at <= now) {
            self.mml.handle_timeout(&mut self.cl, now);
            idle = false;
        }
        while let Some(event) = self.mml.poll_event() {
            if self.inbox.len() == INBOX_MAX {
                self.inbox.pop_front();
            }
            self.inbox.push_back(event);
            idle = false;
        }
        if idle && now < deadline {
            std::thread::sleep(NAP);
        }
        !idle || now < deadline
    }
}

impl Drop for Blocking {
    /// Ends all sessions, so that nobody waits for us.
    fn drop(&mut self) {
        let now = self.clock.now();
        for peer in self.mml.peers_up().collect::<Vec<_>>() {
            self.mml.disconnect(&mut self.cl, now, peer);
        }
    }
}
