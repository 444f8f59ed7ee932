//! The client's side of reads in one round trip (PROTOCOL.md 2.12).

use crate::config::{Config, MemberId, View};
use crate::keys::Digest;
use crate::message::{ReadAnswer, ReadReply, result_digest};
use crate::mutation::Mutation;
use cl_base::Time;
use std::collections::{BTreeMap, VecDeque};

/// Names a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadTicket(pub u64);

/// What every member of A(v) must say alike: v, its tag, A(v) and the digest of the result.
type Answer = (View, Digest, u64, Digest);

struct Reading {
    op: Vec<u8>,
    until: Time,
    answers: BTreeMap<MemberId, Answer>,
    /// What each member sent as the result, one candidate each.
    results: BTreeMap<MemberId, Vec<u8>>,
}

/// Reads under way, and those that have to be ordered instead.
#[derive(Default)]
pub(crate) struct Reads {
    next: u64,
    asked: BTreeMap<u64, Reading>,
    /// Given up: waiting to be submitted.
    to_order: VecDeque<(ReadTicket, Vec<u8>)>,
    /// Submitted, by sequence number.
    ordered: BTreeMap<u64, ReadTicket>,
}

impl Reads {
    /// Numbers begin above `first`: late answers to an earlier life of the client must not be taken for new ones.
    pub(crate) fn new(first: u64) -> Reads {
        Reads { next: first, ..Reads::default() }
    }

    /// Reads not completed.
    pub(crate) fn len(&self) -> usize {
        self.asked.len() + self.to_order.len() + self.ordered.len()
    }

    /// Begins a read; the nonce to ask the active members with.
    pub(crate) fn begin(&mut self, op: Vec<u8>, until: Time) -> ReadTicket {
        self.next += 1;
        let reading = Reading { op, until, answers: BTreeMap::new(), results: BTreeMap::new() };
        self.asked.insert(self.next, reading);
        ReadTicket(self.next)
    }

    /// Takes an answer in and gives the result if that completes the read.
    ///
    /// All of A(v) must say the same. That this is A(v) is believed because f+1 of them are correct and say so.
    pub(crate) fn take(
        &mut self,
        config: &Config,
        member: MemberId,
        reply: ReadReply,
    ) -> Option<(ReadTicket, Vec<u8>)> {
        let nonce = reply.nonce;
        let reading = self.asked.get_mut(&nonce)?;
        let Some(ReadAnswer { tag, active, digest, result }) = reply.answer else {
            self.give_up(nonce);
            return None;
        };
        let answer = (reply.view, tag, active, digest);
        reading.answers.insert(member, answer);
        if let Some(result) = result.filter(|result| result_digest(result) == digest) {
            reading.results.insert(member, result);
        }
        if reading.answers.values().any(|other| *other != answer) {
            self.give_up(nonce);
            return None;
        }
        let (needed, complete) = if config.mutated(Mutation::WeakReadQuorum) {
            (config.weak(), true)
        } else {
            let answered = |m: &MemberId| active & (1 << m.0) == 0 || reading.answers.contains_key(m);
            (config.quorum(), config.all().all(|m| answered(&m)))
        };
        let in_active = reading.answers.keys().filter(|m| active & (1 << m.0) != 0).count();
        if !complete || in_active < needed {
            return None;
        }
        let (_, result) = reading.results.pop_first()?;
        self.asked.remove(&nonce);
        Some((ReadTicket(nonce), result))
    }

    /// Gives up what has waited until `now`.
    pub(crate) fn expire(&mut self, now: Time) {
        let late: Vec<u64> = self.asked.iter().filter(|(_, r)| r.until <= now).map(|(n, _)| *n).collect();
        for nonce in late {
            self.give_up(nonce);
        }
    }

    /// When the next read is given up.
    pub(crate) fn expires_at(&self) -> Option<Time> {
        self.asked.values().map(|r| r.until).min()
    }

    /// The epoch ends, and with it the members that were asked.
    pub(crate) fn give_up_all(&mut self) {
        for nonce in self.asked.keys().copied().collect::<Vec<_>>() {
            self.give_up(nonce);
        }
    }

    fn give_up(&mut self, nonce: u64) {
        if let Some(reading) = self.asked.remove(&nonce) {
            self.to_order.push_back((ReadTicket(nonce), reading.op));
        }
    }

    /// The next read that has to be ordered.
    pub(crate) fn next_to_order(&mut self) -> Option<(ReadTicket, Vec<u8>)> {
        self.to_order.pop_front()
    }

    /// It was submitted under this sequence number.
    pub(crate) fn submitted(&mut self, ticket: ReadTicket, t: u64) {
        self.ordered.insert(t, ticket);
    }

    /// The read that was submitted under this sequence number, if it was one; it is over.
    pub(crate) fn finished(&mut self, t: u64) -> Option<ReadTicket> {
        self.ordered.remove(&t)
    }
}
