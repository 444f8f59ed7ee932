//! Many callers at one protocol client: who asked what, until when, and what to say if there is no answer.

use super::notices::{Bell, Notice};
use super::pending::{Outcome, Promise};
use super::{Error, Fate, ShutOut};
use cl_base::{PeerId, Time};
use replication_proto::{Client, ClientEffect, Config, MemberId, ReadTicket, SubmitError, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Operations that wait for room in the client's window, beyond which callers are told to come later: many times what
/// the group takes from a client at once.
const WAITING_MAX: usize = 1024;

/// Signs of life are not asked for more often, however many operations are overdue.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// What to do with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Submit,
    Read,
}

/// An operation, and who wants its result by when.
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) op: Vec<u8>,
    pub(crate) within: Duration,
    pub(crate) promise: Promise,
}

/// One that has not been answered.
struct Asked {
    since: Time,
    within: Duration,
    sent: bool,
    /// When to look after it: to ask for signs of life, or to give up.
    alarm: Time,
    promise: Promise,
}

impl Asked {
    fn deadline(&self) -> Time {
        self.since + self.within
    }
}

/// See the module.
pub(crate) struct Desk {
    client: Client,
    next: u64,
    asked: BTreeMap<u64, Asked>,
    alarms: BTreeSet<(Time, u64)>,
    waiting: VecDeque<(u64, Kind, Vec<u8>)>,
    submitted: BTreeMap<Ticket, u64>,
    reads: BTreeMap<ReadTicket, u64>,
    heard: BTreeMap<PeerId, Time>,
    refused_by: BTreeMap<PeerId, ShutOut>,
    probed: Time,
    bell: Option<Bell>,
}

impl Desk {
    pub(crate) fn new(client: Client) -> Desk {
        Desk {
            client,
            next: 0,
            asked: BTreeMap::new(),
            alarms: BTreeSet::new(),
            waiting: VecDeque::new(),
            submitted: BTreeMap::new(),
            reads: BTreeMap::new(),
            heard: BTreeMap::new(),
            refused_by: BTreeMap::new(),
            probed: Time::ZERO,
            bell: None,
        }
    }

    /// The group's parameters in the present epoch, as far as this client knows.
    pub(crate) fn config(&self) -> &Config {
        self.client.config()
    }

    pub(crate) fn ask(&mut self, now: Time, question: Question) {
        let Question { kind, op, within, promise } = question;
        let max = self.config().op_bytes_max();
        if op.len() > max {
            return promise.fulfil(Err(Error::TooLong { len: op.len(), max }));
        }
        if self.waiting.len() >= WAITING_MAX {
            return promise.fulfil(Err(Error::Busy));
        }
        let number = self.next;
        self.next += 1;
        let alarm = now + self.config().client_timeout.min(within / 2);
        self.alarms.insert((alarm, number));
        self.asked.insert(number, Asked { since: now, within, sent: false, alarm, promise });
        self.waiting.push_back((number, kind, op));
        self.submit_waiting(now);
    }

    pub(crate) fn listen(&mut self, now: Time, bell: Bell) {
        self.bell = Some(bell);
        self.client.listen(now);
    }

    /// Takes in a frame from `from`, whom the carrier has authenticated.
    pub(crate) fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        if self.config().member(from).is_some() {
            self.heard.insert(from, now);
            self.refused_by.remove(&from);
        }
        self.client.on_message(now, from, bytes);
        self.submit_waiting(now);
    }

    /// A member will not speak to this client.
    pub(crate) fn on_refusal(&mut self, from: PeerId, why: ShutOut) {
        if self.config().member(from).is_some() {
            self.refused_by.insert(from, why);
            if let Some(why) = self.shut_out() {
                for number in self.asked.keys().copied().collect::<Vec<_>>() {
                    self.answer(number, Err(Error::ShutOut(why)));
                }
            }
        }
    }

    pub(crate) fn on_timeout(&mut self, now: Time) {
        let pause = self.config().client_timeout;
        while let Some((at, number)) = self.alarms.first().copied()
            && at <= now
        {
            self.alarms.remove(&(at, number));
            let Some(asked) = self.asked.get_mut(&number) else { continue };
            if asked.deadline() <= now {
                let error = self.overdue(now, number);
                self.answer(number, Err(error));
            } else {
                asked.alarm = asked.deadline().min(now + pause);
                self.alarms.insert((asked.alarm, number));
                self.probe(now);
            }
        }
        if self.client.next_timeout().is_some_and(|at| at <= now) {
            self.client.on_timeout(now);
        }
        self.submit_waiting(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.alarms.first().map(|(at, _)| *at).into_iter().chain(self.client.next_timeout()).min()
    }

    /// The next frame to send.
    pub(crate) fn poll_send(&mut self) -> Option<(PeerId, Vec<u8>)> {
        while let Some(effect) = self.client.poll_effect() {
            match effect {
                ClientEffect::Send { to, bytes } => return Some((to, bytes)),
                ClientEffect::Completed { ticket, result, .. } => self.completed(ticket, Ok(result)),
                ClientEffect::Stale { ticket, .. } => self.completed(ticket, Err(Error::Stale)),
                ClientEffect::Read { ticket, result } => {
                    if let Some(number) = self.reads.remove(&ticket) {
                        self.answer(number, result.ok_or(Error::Stale));
                    }
                }
                ClientEffect::Notification { seq, body } => {
                    if let Some(bell) = &self.bell {
                        bell.ring(Notice { seq, body });
                    }
                }
                ClientEffect::NotificationsBegin { .. } => {}
                ClientEffect::EpochBegan { epoch, members } => {
                    tracing::info!(epoch, "the group has another roster");
                    self.heard.retain(|peer, _| members.contains(peer));
                    self.refused_by.retain(|peer, _| members.contains(peer));
                }
                ClientEffect::Outvoted { member } => {
                    tracing::warn!(%member, "this member contradicts what f+1 others say: it is faulty");
                }
            }
        }
        None
    }

    fn completed(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(number) = self.submitted.remove(&ticket) {
            self.answer(number, outcome);
        }
    }

    /// Answers, unless it was given up before.
    fn answer(&mut self, number: u64, outcome: Outcome) {
        if let Some(asked) = self.asked.remove(&number) {
            self.alarms.remove(&(asked.alarm, number));
            asked.promise.fulfil(outcome);
        }
    }

    /// Submits what waits, in order, while there is room.
    fn submit_waiting(&mut self, now: Time) {
        while let Some((number, kind, _)) = self.waiting.front() {
            // What was given up need not be sent at all.
            let wanted = self.asked.contains_key(number);
            // Of both kinds the client keeps those that were given up here, until the group has answered.
            let room = match kind {
                Kind::Submit => self.client.has_room(),
                Kind::Read => (self.reads.len() as u64) < self.config().client_window,
            };
            if wanted && !room {
                return;
            }
            let (number, kind, op) = self.waiting.pop_front().expect("it was looked at");
            let Some(asked) = self.asked.get_mut(&number) else { continue };
            asked.sent = true;
            let taken = match kind {
                Kind::Submit => self.client.submit(now, op).map(|ticket| {
                    self.submitted.insert(ticket, number);
                }),
                Kind::Read => self.client.read(now, op).map(|ticket| {
                    self.reads.insert(ticket, number);
                }),
            };
            match taken {
                Ok(()) => {}
                Err(SubmitError::TooLong { len, max }) => {
                    self.answer(number, Err(Error::TooLong { len, max }))
                }
                Err(SubmitError::Window) => self.answer(number, Err(Error::Busy)),
            }
        }
    }

    fn probe(&mut self, now: Time) {
        if now.saturating_since(self.probed) >= PROBE_INTERVAL {
            self.probed = now;
            self.client.probe();
        }
    }

    /// What is known of an operation whose time is over.
    fn overdue(&self, now: Time, number: u64) -> Error {
        let Asked { since, within, sent, .. } = self.asked[&number];
        if let Some(why) = self.shut_out() {
            return Error::ShutOut(why);
        }
        // Signs of life are asked for every T_c; who lives has had time for two.
        let lately = since.max(now - 2 * self.config().client_timeout);
        let config = self.config();
        let is_silent = |m: &MemberId| self.heard.get(&config.peer(*m)).is_none_or(|heard| *heard < lately);
        let silent: Vec<MemberId> = config.all().filter(is_silent).collect();
        let fate = if sent { Fate::Unknown } else { Fate::NotExecuted };
        let needed = config.quorum();
        if config.n() - silent.len() < needed {
            Error::NoQuorum { within, fate, needed, silent }
        } else {
            Error::Deadline { within, fate, silent }
        }
    }

    /// Whether f+1 members refuse this client for one reason, so that a correct one does.
    fn shut_out(&self) -> Option<ShutOut> {
        [ShutOut::Superseded, ShutOut::Incompatible]
            .into_iter()
            .find(|why| self.refused_by.values().filter(|w| *w == why).count() >= self.config().weak())
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
