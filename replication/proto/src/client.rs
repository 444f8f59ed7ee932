//! The client's side: operations, replies that f+1 members agree on, notifications (PROTOCOL.md 2.11).

mod answers;
mod epoch;

use crate::config::{ClientAuthentication, Config, MemberId, Rsn, View};
use crate::keys::{Digest, Keys};
use crate::message::{self, Message, Notify, Outcome, Proof, Reply, Request, RequestKind, result_digest};
use crate::notifications::{Inbox, Progress, nth_largest};
use crate::reads::{ReadTicket, Reads};
use answers::{Answer, Standing, agreed};
use cl_base::{PeerId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often T_c is doubled for a request that stays unanswered.
const BACKOFF_MAX: u32 = 3;

/// Decided requests remembered to catch members that answer otherwise later, as a multiple of W.
const DECIDED_WINDOWS: u64 = 2;

/// Requests signed after one with MACs was not answered in time: some member may want signatures from this client,
/// and each request would wait for T_c otherwise.
const SIGNED_AFTER_TIMEOUT: u64 = 64;

/// The nonce of reads whose answers nobody waits for; others begin above `first_t`.
const PROBE_NONCE: u64 = 0;

/// Sequence numbers used up by others are not followed beyond this, so that the own ones never overflow: nobody who
/// counts from a clock gets there.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Names a submitted operation: the client's own sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why an operation was not submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// W requests are outstanding (or the oldest of them is W back): wait for a completion.
    #[error("too many requests are outstanding")]
    Window,
    /// The operation does not fit into a batch.
    #[error("an operation of {len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes of the operation.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// What a client wants done and what it has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEffect {
    /// Send; may be lost.
    Send {
        /// To whom.
        to: PeerId,
        /// A frame.
        bytes: Vec<u8>,
    },
    /// f+1 members agree on the result of an operation, or 2f+1 where they answer before they have committed it
    /// ([`Guarantee`](crate::Guarantee)).
    Completed {
        /// Which operation.
        ticket: Ticket,
        /// Its result.
        result: Vec<u8>,
        /// In which batch it was executed.
        rsn: Rsn,
    },
    /// The next notification; they come in order, each once.
    Notification {
        /// Its sequence number.
        seq: u64,
        /// What the state machine sent.
        body: Vec<u8>,
    },
    /// Notifications up to here will not come: the state machine forgot them, or they were received by an
    /// earlier life of this client.
    NotificationsBegin {
        /// The next one to come.
        seq: u64,
    },
    /// This member contradicted what f+1 members say: it is faulty.
    Outvoted {
        /// The liar.
        member: MemberId,
    },
    /// The group no longer knows whether the operation was executed: the session was idle for too long, or
    /// `first_t` was not above what an earlier life of this client used. What is submitted later is new to the group.
    Stale {
        /// Which operation.
        ticket: Ticket,
        /// Sequence numbers up to here are used up.
        floor: u64,
    },
    /// The roster has changed: talk to these members from now on (PROTOCOL.md 2.15).
    EpochBegan {
        /// Which epoch.
        epoch: u64,
        /// Its roster.
        members: Vec<PeerId>,
    },
    /// A read is complete. `None`: it had to be ordered, and the group no longer knows this session, as for
    /// [`ClientEffect::Stale`].
    Read {
        /// Which read.
        ticket: ReadTicket,
        /// Its result.
        result: Option<Vec<u8>>,
    },
}

/// Where f+1 members say that the group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewHint {
    /// The view, or a lower one.
    pub view: View,
    /// Its primary.
    pub primary: MemberId,
    /// Its active members.
    pub active: Vec<MemberId>,
}

struct Outstanding {
    /// One with MACs only is signed before it is sent again.
    request: Request,
    resend_at: Time,
    attempts: u32,
    answers: BTreeMap<MemberId, (Answer, Standing)>,
    stale: BTreeMap<MemberId, u64>,
    /// What each member sent as the result: one candidate each, so that a faulty one displaces none but its own.
    results: BTreeMap<MemberId, (Digest, Vec<u8>)>,
}

/// A client of a group.
pub struct Client {
    config: Config,
    me: PeerId,
    keys: Box<dyn Keys>,
    next_t: u64,
    /// So many requests more are signed although MACs would do.
    signed_left: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    decided: BTreeMap<u64, Answer>,
    views: BTreeMap<MemberId, View>,
    outvoted: BTreeSet<MemberId>,
    inbox: Option<Inbox>,
    reads: Reads,
    effects: VecDeque<ClientEffect>,
    refused: u64,
}

impl Client {
    /// A client `me` of the group. `first_t` must be above every sequence number that an earlier life of `me`
    /// used; the wall clock in nanoseconds serves well.
    pub fn new(config: &Config, me: PeerId, keys: Box<dyn Keys>, first_t: u64) -> Client {
        Client {
            config: config.clone(),
            me,
            keys,
            next_t: first_t,
            signed_left: 0,
            outstanding: BTreeMap::new(),
            decided: BTreeMap::new(),
            views: BTreeMap::new(),
            outvoted: BTreeSet::new(),
            inbox: None,
            reads: Reads::new(first_t),
            effects: VecDeque::new(),
            refused: 0,
        }
    }

    /// Begins to receive notifications. A client that does not listen is never troubled with them.
    pub fn listen(&mut self, now: Time) {
        if self.inbox.is_none() {
            self.inbox = Some(Inbox::new(now));
            self.pull(now);
        }
    }

    /// Whether another operation can be submitted now.
    pub fn has_room(&self) -> bool {
        // Counted from the oldest: the group remembers the W highest, so nothing may overtake by more.
        self.outstanding
            .first_key_value()
            .is_none_or(|(oldest, _)| self.next_t - oldest < self.config.client_window)
    }

    /// Operations submitted and not completed.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Submits an operation.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was sent then.
    pub fn submit(&mut self, now: Time, op: Vec<u8>) -> Result<Ticket, SubmitError> {
        self.ask(now, RequestKind::Operation, op)
    }

    fn ask(&mut self, now: Time, kind: RequestKind, op: Vec<u8>) -> Result<Ticket, SubmitError> {
        let max = self.config.op_bytes_max();
        if op.len() > max {
            return Err(SubmitError::TooLong { len: op.len(), max });
        }
        if !self.has_room() {
            return Err(SubmitError::Window);
        }
        let t = self.next_t;
        self.next_t += 1;
        let notified = self.inbox.as_ref().map_or(0, Inbox::received);
        let statement = Request::statement(self.config.group, self.me, t, notified, kind, &op);
        let proof = self.prove(&statement);
        let request = Request { client: self.me, t, notified, kind, op, proof };
        let frame = message::encode(&self.config, &Message::Request(request.clone()));
        let primary = self.config.peer(self.config.primary(self.view()));
        self.effects.push_back(ClientEffect::Send { to: primary, bytes: frame });
        let outstanding = Outstanding {
            request,
            resend_at: now + self.config.client_timeout,
            attempts: 0,
            answers: BTreeMap::new(),
            stale: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        self.outstanding.insert(t, outstanding);
        Ok(Ticket(t))
    }

    /// MACs if the group takes them from this client and the last time-out is long past, otherwise a signature.
    fn prove(&mut self, statement: &Digest) -> Proof {
        if self.config.clients == ClientAuthentication::Macs
            && self.signed_left == 0
            && let Some(macs) = self.keys.macs(&self.config.members, &statement.0)
        {
            return Proof::Macs(macs);
        }
        self.signed_left = self.signed_left.saturating_sub(1);
        Proof::Signed(self.keys.sign(&statement.0))
    }

    /// Reads without ordering, in one round trip: all members of A(v) must give the same answer. If they do not
    /// within T_c, the operation is ordered like any other, so it must be one that changes nothing
    /// ([`StateMachine::query`](crate::StateMachine::query)). Reads are linearizable with all operations.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was sent then. At most W reads are outstanding.
    pub fn read(&mut self, now: Time, op: Vec<u8>) -> Result<ReadTicket, SubmitError> {
        let max = self.config.op_bytes_max();
        if op.len() > max {
            return Err(SubmitError::TooLong { len: op.len(), max });
        }
        if self.reads.len() as u64 >= self.config.client_window {
            return Err(SubmitError::Window);
        }
        let ticket = self.reads.begin(op.clone(), now + self.config.client_timeout);
        let frame = message::encode(&self.config, &Message::Read { nonce: ticket.0, op });
        for member in self.view_hint().active {
            let to = self.config.peer(member);
            self.effects.push_back(ClientEffect::Send { to, bytes: frame.clone() });
        }
        Ok(ticket)
    }

    /// Asks all members for a sign of life: each of them answers a read, if only by saying that it cannot. The answers
    /// come to [`Client::on_message`] and change nothing.
    pub fn probe(&mut self) {
        let frame = message::encode(&self.config, &Message::Read { nonce: PROBE_NONCE, op: Vec::new() });
        self.send_all(&frame);
    }

    /// Submits reads that were not answered alike, as far as there is room.
    fn order_reads(&mut self, now: Time) {
        while self.has_room()
            && let Some((ticket, op)) = self.reads.next_to_order()
        {
            let Ticket(t) = self.submit(now, op).expect("there is room, and the length was checked");
            self.reads.submitted(ticket, t);
        }
    }

    /// Takes in a frame from `from`, whom the transport has authenticated.
    pub fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        let Some(member) = self.config.member(from) else {
            self.refused += 1;
            return;
        };
        match message::decode(&self.config, bytes) {
            Ok(Message::Reply(reply)) => self.on_reply(now, member, reply),
            Ok(Message::Notify(notify)) => self.on_notify(now, member, notify),
            Ok(Message::Stable(certificate)) => self.on_epoch(now, &certificate),
            Ok(Message::ReadReply(reply)) => {
                self.saw_view(member, reply.view);
                if let Some((ticket, result)) = self.reads.take(&self.config, member, reply) {
                    self.effects.push_back(ClientEffect::Read { ticket, result: Some(result) });
                }
            }
            _ => self.refused += 1,
        }
        self.order_reads(now);
    }

    /// Does what is due by `now`.
    pub fn on_timeout(&mut self, now: Time) {
        self.ask_again(now);
        if self.inbox.as_ref().is_some_and(|inbox| inbox.pull_at() <= now) {
            self.pull(now);
        }
        self.reads.expire(now);
        self.order_reads(now);
    }

    /// Sends what is due once more, to all members.
    fn ask_again(&mut self, now: Time) {
        let mut frames = Vec::new();
        for outstanding in self.outstanding.values_mut().filter(|o| o.resend_at <= now) {
            let request = &mut outstanding.request;
            if !request.is_signed() {
                let Request { client, t, notified, kind, op, .. } = &*request;
                let statement = Request::statement(self.config.group, *client, *t, *notified, *kind, op);
                request.proof = Proof::Signed(self.keys.sign(&statement.0));
                self.signed_left = SIGNED_AFTER_TIMEOUT;
            }
            let pause = self.config.client_timeout * (1 << outstanding.attempts);
            outstanding.attempts = (outstanding.attempts + 1).min(BACKOFF_MAX);
            outstanding.resend_at = now + pause;
            frames.push(message::encode(&self.config, &Message::Request(request.clone())));
        }
        for frame in frames {
            self.send_all(&frame);
        }
    }

    /// When [`Client::on_timeout`] should be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        let resend = self.outstanding.values().map(|o| o.resend_at).min();
        let pull = self.inbox.as_ref().map(Inbox::pull_at);
        resend.into_iter().chain(pull).chain(self.reads.expires_at()).min()
    }

    /// The next thing to do for the host, in order.
    pub fn poll_effect(&mut self) -> Option<ClientEffect> {
        self.effects.pop_front()
    }

    /// Where the group stands, as far as f+1 members say so: one of them is correct, and views only grow, so
    /// this view was reached.
    pub fn view_hint(&self) -> ViewHint {
        let view = self.view();
        ViewHint { view, primary: self.config.primary(view), active: self.config.active(view) }
    }

    fn view(&self) -> View {
        nth_largest(self.views.values().copied(), self.config.weak()).unwrap_or(0)
    }

    /// Frames ignored because they were malformed or not for a client.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn send_all(&mut self, frame: &[u8]) {
        for to in &self.config.members {
            self.effects.push_back(ClientEffect::Send { to: *to, bytes: frame.to_vec() });
        }
    }

    fn pull(&mut self, now: Time) {
        let Some(inbox) = &mut self.inbox else { return };
        let from = inbox.pulled(now, self.config.client_timeout);
        let frame = message::encode(&self.config, &Message::NotifyPull { from });
        self.send_all(&frame);
    }

    fn saw_view(&mut self, member: MemberId, view: View) {
        let known = self.views.entry(member).or_insert(view);
        *known = (*known).max(view);
    }

    fn on_reply(&mut self, now: Time, member: MemberId, reply: Reply) {
        self.saw_view(member, reply.view);
        if let Some(inbox) = &mut self.inbox {
            inbox.claim_last(member, reply.last_notification);
            if inbox.is_behind(self.config.weak()) {
                inbox.hurry(now, self.config.client_timeout);
            }
        }
        let t = reply.t;
        match reply.outcome {
            Outcome::Executed { rsn, digest, result } => {
                let answer = (rsn, digest);
                let standing = reply.tentative.map(|tentative| (reply.view, tentative));
                if self.decided.get(&t).is_some_and(|decided| *decided != answer) {
                    // What can be undone may have been honest.
                    return if standing.is_none() {
                        self.outvote(member)
                    };
                }
                let Some(outstanding) = self.outstanding.get_mut(&t) else { return };
                if let Some(result) = result {
                    if result_digest(&result) != digest {
                        return self.outvote(member);
                    }
                    outstanding.results.insert(member, (digest, result));
                }
                let known = outstanding.answers.get(&member).copied();
                if standing.is_some() && matches!(known, Some((_, None))) {
                    return; // overtaken by an answer that is good for ever
                }
                outstanding.answers.insert(member, (answer, standing));
            }
            Outcome::Stale { floor } => {
                let Some(outstanding) = self.outstanding.get_mut(&t) else { return };
                if floor >= t {
                    outstanding.stale.insert(member, floor);
                }
            }
        }
        self.decide(t);
    }

    fn decide(&mut self, t: u64) {
        let weak = self.config.weak();
        let Some(outstanding) = self.outstanding.get_mut(&t) else { return };
        if let Some((rsn, digest)) = agreed(&outstanding.answers, &self.config)
            && let Some(result) =
                outstanding.results.values().find(|(d, _)| *d == digest).map(|(_, result)| result.clone())
        {
            let answers = std::mem::take(&mut outstanding.answers);
            self.outstanding.remove(&t);
            self.decided.insert(t, (rsn, digest));
            while self.decided.len() as u64 > DECIDED_WINDOWS * self.config.client_window {
                self.decided.pop_first();
            }
            self.effects.push_back(match self.reads.finished(t) {
                Some(ticket) => ClientEffect::Read { ticket, result: Some(result) },
                None => ClientEffect::Completed { ticket: Ticket(t), result, rsn },
            });
            for (member, (answer, standing)) in answers {
                if answer != (rsn, digest) && standing.is_none() {
                    self.outvote(member);
                }
            }
        } else if let Some(floor) = nth_largest(outstanding.stale.values().copied(), weak) {
            self.outstanding.remove(&t);
            // What is submitted from here on is new to the group again.
            if floor < SEQUENCE_MAX {
                self.next_t = self.next_t.max(floor + 1);
            }
            self.effects.push_back(match self.reads.finished(t) {
                Some(ticket) => ClientEffect::Read { ticket, result: None },
                None => ClientEffect::Stale { ticket: Ticket(t), floor },
            });
        }
    }

    fn on_notify(&mut self, now: Time, member: MemberId, notify: Notify) {
        self.saw_view(member, notify.view);
        let weak = self.config.weak();
        let timeout = self.config.client_timeout;
        let Some(inbox) = &mut self.inbox else { return };
        for progress in inbox.take(member, notify, weak) {
            match progress {
                Progress::Begin(seq) => {
                    self.effects.push_back(ClientEffect::NotificationsBegin { seq });
                }
                Progress::Next(seq, body) => {
                    self.effects.push_back(ClientEffect::Notification { seq, body });
                }
                Progress::Liar(liar) => self.outvote(liar),
            }
        }
        if let Some(inbox) = &mut self.inbox
            && inbox.is_behind(weak)
        {
            inbox.hurry(now, timeout);
        }
    }

    /// Reports a member once.
    fn outvote(&mut self, member: MemberId) {
        if self.outvoted.insert(member) {
            self.effects.push_back(ClientEffect::Outvoted { member });
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
