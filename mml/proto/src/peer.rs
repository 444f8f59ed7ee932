//! Everything about one peer: the link to it, what is sent to it, what was received from it.

use crate::ack::{AckReceiver, AckSender};
use crate::body::Spare;
use crate::company::Pace;
use crate::entropy::Entropy;
use crate::gate::Gate;
use crate::handshake::{Answer, Attempt};
use crate::mac::Mac;
use crate::nack::{NackReceiver, NackSender};
use crate::rtt::Rtt;
use crate::session::{Session, SessionInfo};
use crate::unr::UnrQueue;
use crate::{
    Config, Counters, Delivery, DownReason, Event, FailReason, Message, Outgoing, Pair, SendError,
    SendStatus, Sequence,
};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

pub(crate) mod handshake;

#[cfg(test)]
mod hostile_test;
mod receive;
mod transmit;

/// What all peers share.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) me: PeerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) entropy: Entropy,
    pub(crate) gate: Gate,
    /// Numbers the attempts at sessions of this life.
    pub(crate) attempts: u64,
    /// Of frames that are of no peer that is remembered, and of peers that are forgotten.
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<Event>,
    pub(crate) spare: Spare,
}

/// Where messages go that have arrived.
pub(crate) enum Deliver<'a> {
    /// Among the other events.
    AsEvents,
    /// At once, to somebody who looks at them where they lie.
    To(&'a mut dyn FnMut(Message<'_>)),
}

impl Deliver<'_> {
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        events: &mut VecDeque<Event>,
        counters: &mut Counters,
        message: Message<'_>,
    ) {
        counters.messages_delivered += 1;
        match self {
            Deliver::AsEvents => events.push_back(message.into()),
            Deliver::To(each) => each(message),
        }
    }
}

/// The state of the session.
enum Link {
    /// None.
    Idle,
    /// There is an attempt at one.
    Connecting,
    /// Keys are agreed. (An initiator may still repeat CONFIRM, and there may be an attempt at the next keys.)
    Up(Box<Session>),
    /// Ended on purpose by either side. Frames of the old session that are still under way are answered
    /// by CLOSE and provoke no new one.
    Closed(Box<Session>),
}

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) pair: Arc<Pair>,
    /// The latest incarnation that has proved to be alive.
    pub(crate) known: Option<Incarnation>,
    /// The incarnation and attempt of the last `init` that was taken from it.
    heard: Option<(Incarnation, u64)>,
    /// Our attempt at a session, or at new keys for the one there is.
    attempt: Option<Attempt>,
    /// Our answer to its last attempt, and until when it is likely to be used soon.
    answer: Option<(Answer, Time)>,
    answer_due: bool,
    /// Another frame outside of a session to send.
    notice: Option<Vec<u8>>,
    /// Without it the peer does not compute handshakes at the moment, and until when it holds.
    cookie: Option<(Mac, Time)>,
    link: Link,
    /// A CLOSE frame to send.
    parting: Option<Vec<u8>>,
    /// When a frame of an unknown session was last answered.
    probed: Option<Time>,
    rtt: Rtt,
    pub(crate) pace: Pace,
    unr: UnrQueue,
    ack: AckSender,
    nack: NackSender,
    ack_in: AckReceiver,
    nack_in: NackReceiver,
    /// Of what is done for it, and of frames that claim to be its.
    pub(crate) counters: Counters,
    pub(crate) last_used: Time,
    /// When this peer's timer is set.
    pub(crate) armed: Option<Time>,
    /// In the queue of peers that have something to send.
    pub(crate) queued: bool,
}

impl Peer {
    /// A peer to which messages are numbered from `first`.
    pub(crate) fn new(now: Time, id: PeerId, pair: Arc<Pair>, first: u64) -> Peer {
        Peer {
            id,
            pair,
            known: None,
            heard: None,
            attempt: None,
            answer: None,
            answer_due: false,
            notice: None,
            cookie: None,
            link: Link::Idle,
            parting: None,
            probed: None,
            rtt: Rtt::default(),
            pace: Pace::default(),
            unr: UnrQueue::new(first),
            ack: AckSender::new(first),
            nack: NackSender::new(first),
            ack_in: AckReceiver::default(),
            nack_in: NackReceiver::default(),
            counters: Counters::default(),
            last_used: now,
            armed: None,
            queued: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Nothing is known of it that would be missed.
    pub(crate) fn is_half_open(&self) -> bool {
        self.known.is_none() && matches!(self.link, Link::Idle) && self.is_drained()
    }

    /// Nothing is on its way to it.
    pub(crate) fn is_drained(&self) -> bool {
        self.ack.queue.len() == 0 && self.nack.is_settled() && self.unr.is_empty()
    }

    /// Whether the last session was ended in good order, by either side.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed(_))
    }

    /// Messages that wait to be sent, and their body bytes.
    #[inline]
    pub(crate) fn unsent(&self) -> (usize, usize) {
        let bytes = self.ack.queue.unsent_bytes() + self.nack.queue.unsent_bytes() + self.unr.body_bytes();
        (self.ack.queue.unsent() + self.nack.queue.unsent() + self.unr.len(), bytes)
    }

    /// Larger than every number used so far.
    pub(crate) fn numbers_end(&self) -> u64 {
        self.unr.next_number().max(self.ack.queue.next_number()).max(self.nack.queue.next_number())
    }

    pub(crate) fn send(
        &mut self,
        now: Time,
        cx: &mut Context,
        delivery: Delivery,
        class: u8,
        body: Outgoing<'_>,
    ) -> Result<Sequence, SendError> {
        self.last_used = now;
        self.connect(now, cx);
        let up = self.is_up();
        if delivery == Delivery::Unr && !up && self.unr.len() >= cx.config.unr_while_connecting {
            self.counters.unr_dropped += 1;
            return Ok(Sequence { delivery, number: self.unr.skip() });
        }
        let (unsent, unsent_bytes) = self.unsent();
        let messages = self.ack.queue.sent() + unsent;
        let bytes = self.ack.queue.sent_bytes() + unsent_bytes;
        if messages >= cx.config.queue_messages || bytes + body.len() > cx.config.queue_bytes {
            self.counters.backpressure += 1;
            return Err(SendError::Backpressure(body.into()));
        }
        let number = match delivery {
            Delivery::Unr => self.unr.push(class, body),
            Delivery::Ack => self.ack.queue.push(class, cx.spare.keep(body)),
            Delivery::Nack => self.nack.queue.push(class, cx.spare.keep(body)),
        };
        Ok(Sequence { delivery, number })
    }

    pub(crate) fn status(&self, seq: Sequence) -> SendStatus {
        match seq.delivery {
            Delivery::Unr if self.unr.has(seq.number) => SendStatus::Pending,
            Delivery::Unr => SendStatus::Unknown,
            Delivery::Ack => self.ack.status(seq.number),
            Delivery::Nack => self.nack.status(seq.number),
        }
    }

    pub(crate) fn resend(&mut self, seq: Sequence) -> bool {
        match seq.delivery {
            _ if !self.is_up() => false,
            Delivery::Unr => false,
            Delivery::Ack => self.ack.resend(seq.number),
            Delivery::Nack => self.nack.resend(seq.number),
        }
    }

    pub(crate) fn group_ack(&mut self) {
        if self.is_up() {
            self.ack_in.report_now();
            self.nack_in.report_now();
        }
    }

    pub(crate) fn disconnect(&mut self, now: Time, cx: &mut Context) {
        match std::mem::replace(&mut self.link, Link::Idle) {
            Link::Up(session) => self.close(cx, session),
            Link::Closed(session) => self.link = Link::Closed(session),
            Link::Idle | Link::Connecting => {}
        }
        self.last_used = now;
        self.on_session_end(cx, FailReason::Disconnected);
    }

    fn close(&mut self, cx: &mut Context, mut session: Box<Session>) {
        self.parting = Some(transmit::close_frame(cx, &mut session, self.ack_in.take_report()));
        self.link = Link::Closed(session);
    }

    /// The peer is gone, or wants to be, or is no longer believed.
    pub(crate) fn go_down(&mut self, cx: &mut Context, reason: DownReason) {
        let (down, fail) = (
            std::mem::replace(&mut self.link, Link::Idle),
            match reason {
                DownReason::Unreachable => FailReason::Unreachable,
                DownReason::Silent => FailReason::Silent,
                DownReason::Closed => FailReason::Closed,
                DownReason::Incompatible => FailReason::Incompatible,
                DownReason::Superseded => FailReason::Superseded,
                DownReason::KeyWithdrawn => FailReason::KeyWithdrawn,
            },
        );
        if let (Link::Up(session), DownReason::Closed) = (down, reason) {
            self.link = Link::Closed(session);
        }
        cx.events.push_back(Event::Down { peer: self.id, reason });
        self.on_session_end(cx, fail);
    }

    fn on_session_end(&mut self, cx: &mut Context, reason: FailReason) {
        self.attempt = None;
        self.answer = None;
        self.answer_due = false;
        self.counters.unr_dropped += self.unr.clear() as u64;
        let (ack, nack) = (self.ack.fail(reason, false), self.nack.fail(reason, false));
        self.report_failed(cx, Delivery::Ack, ack, reason);
        self.report_failed(cx, Delivery::Nack, nack, reason);
        self.ack.on_session_end();
        self.nack.on_session_end();
        self.nack_in.on_session_end();
    }

    fn report_failed(&self, cx: &mut Context, delivery: Delivery, numbers: Range<u64>, reason: FailReason) {
        let failed = |number| Event::Failed { peer: self.id, seq: Sequence { delivery, number }, reason };
        cx.events.extend(numbers.map(failed));
    }

    pub(crate) fn session_info(&self) -> Option<SessionInfo> {
        match &self.link {
            Link::Up(session) => Some(session.info()),
            _ => None,
        }
    }

    /// The earliest time at which [`Peer::on_timeout`] has something to do.
    pub(crate) fn next_timeout(&self, config: &Config) -> Option<Time> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.repeat.at.min(attempt.until));
        let link = match &self.link {
            Link::Idle | Link::Closed(_) => return None,
            Link::Connecting => return attempt,
            Link::Up(session) => [
                session.confirm.map(|repeat| repeat.at),
                session.waiting_since.map(|since| since + config.dead_after),
                session.forget_at(),
                attempt,
            ],
        };
        let streams = [self.ack.expiry(), self.nack.advert_at(), self.nack_in.ask_at()];
        link.into_iter().chain(streams).chain([self.ack_in.report_at()]).flatten().min()
    }
}
