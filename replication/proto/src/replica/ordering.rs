//! The normal case: PRE-PREPARE, PREPARE, COMMIT (PROTOCOL.md 2.5).

use super::pending::RequestId;
use super::{Mutation, Refusal, Replica, Role};
use crate::certificate::{Certificate, prepare_proven, proposal_proven, sign_vote};
use crate::config::{Guarantee, MemberId, Rsn};
use crate::keys::{Digest, Domain, Signature};
use crate::log::{Accepted, Held};
use crate::machine::StateMachine;
use crate::message::{Batch, Body, Judgement, Message, Request, Vote, body_digest};
use crate::session::Known;
use crate::storage::Record;
use cl_base::{PeerId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Votes kept for views not installed yet, per member: the members that installed a NEW-VIEW first vote on
/// what it carries while it still travels to others. More is resent (STATUS).
pub(super) const EARLY_VOTES_MAX: usize = 128;

impl<S: StateMachine> Replica<S> {
    /// Rule 1: a request from a client or relayed by a member.
    pub(super) fn on_request(&mut self, from: PeerId, request: Request) {
        if request.encoded_len() > self.config.batch_bytes_max {
            return self.refuse(Refusal::Invalid);
        }
        if self.judge(&request) != Judgement::Good {
            return self.refuse(Refusal::Signature);
        }
        let id = (request.client, request.t);
        if self.has_state() && !matches!(self.sessions.known(id.0, id.1), Known::New) {
            return self.reply_cached(id);
        }
        let leads = self.normal() && self.role() == Role::Primary;
        if !request.is_signed() && !leads {
            return self.pass_on(from, request);
        }
        if !self.pending.insert(request, self.config.client_window) {
            return self.refuse(Refusal::Full);
        }
        if self.config.member(from) != Some(self.primary()) {
            self.relay(id);
        }
    }

    /// What a proof is worth here.
    fn judge(&mut self, request: &Request) -> Judgement {
        match request.judge(self.me, &mut self.authority, &self.config) {
            Judgement::Good if self.signature_only.bars(request) => Judgement::Doubtful,
            judgement => judgement,
        }
    }

    /// Hands a request with MACs to the primary without waiting for it: it may be good for this member alone. A
    /// client that gets no answer signs.
    fn pass_on(&mut self, from: PeerId, request: Request) {
        if self.normal() && self.config.member(from).is_none() {
            self.send_member(self.primary(), &Message::Request(request));
        }
    }

    /// Hands a request to the primary, once per view.
    fn relay(&mut self, id: RequestId) {
        if !self.normal() || self.role() == Role::Primary {
            return;
        }
        if let Some(request) = self.pending.relay(id, self.view) {
            let message = Message::Request(request.clone());
            self.send_member(self.primary(), &message);
        }
    }

    /// Hands everything that waits to the primary of a new view.
    pub(super) fn relay_all(&mut self) {
        for id in self.pending.ids() {
            self.relay(id);
        }
    }

    /// Rule 2: the primary assigns positions while requests wait or a deadline has come.
    pub(super) fn propose(&mut self) {
        while self.normal() && self.role() == Role::Primary && !self.at_end() {
            let rsn = self.last_assigned + 1;
            if !self.log.in_window(rsn) || self.in_flight() >= self.config.pipeline || !self.knows_order() {
                return;
            }
            let deadline = self.deadline_due(self.now);
            let requests = self.pending.take(self.config.batch_requests_max, self.config.batch_bytes_max);
            if requests.is_empty() && !deadline {
                return;
            }
            let time = self.now.max(self.last_proposed_time).max(self.time);
            self.last_proposed_time = time;
            self.assign(rsn, Some(Arc::new(Batch { time, requests })));
        }
    }

    /// Whether a group timer event must be proposed: its deadline has come and no proposal reaches it yet.
    fn deadline_due(&self, now: Time) -> bool {
        self.has_state()
            && self
                .machine
                .next_deadline()
                .is_some_and(|d| d <= now && d > self.last_proposed_time.max(self.time))
    }

    /// Batches assigned and not committed.
    fn in_flight(&self) -> u64 {
        let above = self.log.iter().rev().take_while(|(rsn, _)| *rsn > self.executed);
        above.filter(|(_, slot)| slot.accepted.is_some() && !slot.committed).count() as u64
    }

    /// Whether every body that the NEW-VIEW carries over is here, so that proposed times go on from theirs.
    fn knows_order(&self) -> bool {
        self.log.iter().take_while(|(rsn, _)| *rsn <= self.max_o).all(|(_, s)| s.body().is_some())
    }

    fn assign(&mut self, rsn: Rsn, body: Body) {
        let digest = body_digest(&self.config, rsn, &body);
        let vote = self.vote_for(rsn, digest);
        let proposal = sign_vote(Domain::PrePrepare, &vote, self.me, &mut self.authority, &self.config);
        self.last_assigned = rsn;
        self.accept(vote, proposal, body.clone());
        self.send_vote(&Message::PrePrepare { vote, signature: proposal, body });
        self.try_prepare(rsn);
    }

    fn vote_for(&self, rsn: Rsn, digest: Digest) -> Vote {
        Vote { view: self.view, tag: self.tag, rsn, digest }
    }

    /// PRE-PREPARE, PREPARE or COMMIT of a member.
    pub(super) fn on_vote(&mut self, from: MemberId, message: Message) {
        let vote = match &message {
            Message::PrePrepare { vote, .. } | Message::Prepare { vote, .. } | Message::Commit(vote) => *vote,
            _ => return self.refuse(Refusal::Invalid),
        };
        if let Message::PrePrepare { body, .. } = &message
            && !self.fits(body)
        {
            return self.refuse(Refusal::Invalid);
        }
        if vote.view > self.view || (vote.view == self.view && !self.normal()) {
            return self.keep_early(from, message);
        }
        if vote.view != self.view || vote.tag != self.tag {
            return self.refuse(Refusal::View);
        }
        if !self.log.in_window(vote.rsn) {
            return self.refuse(Refusal::Window);
        }
        match message {
            Message::PrePrepare { signature, body, .. } => self.on_pre_prepare(from, vote, signature, body),
            Message::Prepare { signature, .. } => self.on_prepare(from, vote, signature),
            _ => self.on_commit(from, vote),
        }
    }

    /// Whether a body keeps to the limits of a batch.
    fn fits(&self, body: &Body) -> bool {
        let Some(batch) = body else { return true };
        batch.requests.len() <= self.config.batch_requests_max
            && batch.requests.iter().map(Request::encoded_len).sum::<usize>() <= self.config.batch_bytes_max
    }

    fn keep_early(&mut self, from: MemberId, message: Message) {
        if self.early.iter().filter(|(m, _)| *m == from).count() >= EARLY_VOTES_MAX {
            return self.refuse(Refusal::Full);
        }
        self.early.push_back((from, message));
    }

    /// A view was installed: what arrived early is looked at again.
    pub(super) fn replay_early(&mut self) {
        for (from, message) in std::mem::take(&mut self.early) {
            self.on_vote(from, message);
        }
    }

    /// Rule 3.
    fn on_pre_prepare(&mut self, from: MemberId, vote: Vote, proposal: Option<Signature>, body: Body) {
        if from != self.primary() {
            return self.refuse(Refusal::Sender);
        }
        let slot = self.log.slot(vote.rsn).expect("the window was checked");
        if let Some(accepted) = slot.accepted {
            if accepted.digest != vote.digest {
                self.refuse(Refusal::Conflict);
            } else if slot.body().is_none() {
                self.on_batch_body(vote.rsn, body);
            } else {
                self.cast_vote(vote.rsn);
                self.try_prepare(vote.rsn);
            }
            return;
        }
        // Null fills holes of a NEW-VIEW; nobody proposes it.
        let Some(batch) = &body else { return self.refuse(Refusal::Invalid) };
        if batch.time > self.now + self.config.early_threshold {
            return self.refuse(Refusal::Early);
        }
        if body_digest(&self.config, vote.rsn, &body) != vote.digest {
            return self.refuse(Refusal::Invalid);
        }
        if !proposal_proven(&vote, proposal.as_ref(), &mut self.authority, &self.config) {
            return self.refuse(Refusal::Signature);
        }
        match batch.requests.iter().map(|r| self.judge(r)).max().unwrap_or(Judgement::Good) {
            Judgement::Good => {}
            Judgement::Doubtful => return self.hold(Held { vote, proposal, body }),
            Judgement::Bad => return self.refuse(Refusal::Signature),
        }
        self.accept(vote, proposal, body);
        self.cast_vote(vote.rsn);
        self.try_prepare(vote.rsn);
    }

    /// Keeps a proposal with a doubtful request until w members vouch for it (2.2).
    fn hold(&mut self, held: Held) {
        let rsn = held.vote.rsn;
        let slot = self.log.slot(rsn).expect("the window was checked");
        match &slot.held {
            Some(known) if known.vote != held.vote => return self.refuse(Refusal::Conflict),
            Some(_) => {}
            None => slot.held = Some(Box::new(held)),
        }
        self.try_release(rsn);
    }

    /// Accepts a held proposal for which w members, the primary among them, have voted: one of them is correct.
    fn try_release(&mut self, rsn: Rsn) {
        let primary = self.primary();
        let Some(slot) = self.log.get_mut(rsn) else { return };
        let Some(held) = &slot.held else { return };
        let prepares = slot.prepares.iter().map(|(m, (digest, _))| (m, digest));
        // With one phase nobody sends PREPARE.
        let votes = prepares.chain(&slot.commits).filter(|(_, digest)| **digest == held.vote.digest);
        let backups: BTreeSet<_> = votes.map(|(m, _)| *m).filter(|m| *m != primary).collect();
        if backups.len() + 1 < self.config.weak() {
            return;
        }
        if let Some(Held { vote, proposal, body }) = slot.held.take().map(|held| *held) {
            self.accept(vote, proposal, body);
            self.cast_vote(rsn);
            self.try_prepare(rsn);
        }
    }

    /// The view ends: whose request may have held up a batch must sign from now on. A backup knows which MAC
    /// was wrong, the primary only which batches were held up.
    pub(super) fn blame_clients(&mut self) {
        let primary = self.role() == Role::Primary;
        let mut blamed = Vec::new();
        for (_, slot) in self.log.iter() {
            let body = match &slot.held {
                Some(held) => &held.body,
                None if primary && !slot.prepared => slot.body().unwrap_or(&None),
                None => continue,
            };
            for request in body.iter().flat_map(|batch| &batch.requests).filter(|r| !r.is_signed()) {
                if primary || request.judge(self.me, &mut self.authority, &self.config) != Judgement::Good {
                    blamed.push(request.client);
                }
            }
        }
        self.signature_only.extend(blamed);
        self.pending.drop_unsigned();
    }

    pub(super) fn accept(&mut self, vote: Vote, proposal: Option<Signature>, body: Body) {
        for request in body.iter().flat_map(|batch| &batch.requests) {
            self.pending.proposed((request.client, request.t));
        }
        self.persist(Record::Accepted { vote, proposal, body: body.clone() });
        let votable_max = self.config.votes_claimed_max();
        let slot = self.log.slot(vote.rsn).expect("only positions of the window are accepted");
        slot.accepted = Some(Accepted { digest: vote.digest, proposal });
        slot.bodies.insert(vote.digest, body);
        slot.note_votable(vote.view, votable_max);
    }

    /// PREPARE for what is accepted at `rsn`, once the body is here: by an active member, by a spare only in a
    /// widened view or when the primary sent it the proposal.
    pub(super) fn cast_vote(&mut self, rsn: Rsn) {
        let primary = self.role() == Role::Primary;
        let Some(slot) = self.log.get_mut(rsn) else { return };
        let Some(accepted) = slot.accepted else { return };
        if slot.voted || slot.body().is_none() {
            return;
        }
        slot.voted = true;
        if primary || self.config.guarantee == Guarantee::CrashOnly {
            return; // its PRE-PREPARE is its vote; and with one phase there are no others
        }
        let vote = self.vote_for(rsn, accepted.digest);
        let signature = sign_vote(Domain::Prepare, &vote, self.me, &mut self.authority, &self.config);
        let slot = self.log.get_mut(rsn).expect("present above");
        slot.prepares.insert(self.me, (vote.digest, signature));
        self.send_vote(&Message::Prepare { vote, signature });
    }

    fn on_prepare(&mut self, from: MemberId, vote: Vote, signature: Option<Signature>) {
        if from == self.primary() {
            return self.refuse(Refusal::Sender);
        }
        let slot = self.log.slot(vote.rsn).expect("the window was checked");
        if let Some((digest, _)) = slot.prepares.get(&from) {
            if *digest != vote.digest {
                self.refuse(Refusal::Conflict);
            }
            return;
        }
        // Verified before COMMIT: a certificate with an unverified signature is none (2.2, mode S).
        if !prepare_proven(&vote, from, signature.as_ref(), &mut self.authority, &self.config) {
            return self.refuse(Refusal::Signature);
        }
        let slot = self.log.slot(vote.rsn).expect("the window was checked");
        slot.prepares.insert(from, (vote.digest, signature));
        self.try_release(vote.rsn);
        self.try_prepare(vote.rsn);
    }

    /// Rule 4.
    pub(super) fn try_prepare(&mut self, rsn: Rsn) {
        let others = match self.config.guarantee {
            Guarantee::CrashOnly => 0,
            _ => self.config.quorum() - 1,
        };
        let primary = self.role() == Role::Primary;
        let Some(slot) = self.log.get_mut(rsn) else { return };
        let Some(accepted) = slot.accepted else { return };
        if primary {
            slot.voted = slot.body().is_some();
        }
        if slot.prepared || !slot.voted {
            return;
        }
        let equal: Vec<(MemberId, Option<Signature>)> = slot
            .prepares
            .iter()
            .filter(|(_, (digest, _))| *digest == accepted.digest)
            .map(|(m, (_, signature))| (*m, *signature))
            .take(others)
            .collect();
        if equal.len() < others {
            return;
        }
        slot.prepared = true;
        slot.commits.insert(self.me, accepted.digest);
        let vote = self.vote_for(rsn, accepted.digest);
        let prepares = equal.into_iter().filter_map(|(m, signature)| Some((m, signature?))).collect();
        let certificate = Certificate { vote, proposal: accepted.proposal, prepares };
        if !self.mutated(Mutation::UnpersistedP) {
            self.persist(Record::Prepared(certificate.clone()));
        }
        self.log.get_mut(rsn).expect("present above").certificate = Some(certificate);
        self.send_vote(&Message::Commit(vote));
        self.try_commit(rsn);
        if self.config.guarantee.answers_early() {
            self.execute_ready();
        }
    }

    fn on_commit(&mut self, from: MemberId, vote: Vote) {
        let slot = self.log.slot(vote.rsn).expect("the window was checked");
        if *slot.commits.entry(from).or_insert(vote.digest) != vote.digest {
            return self.refuse(Refusal::Conflict);
        }
        if self.config.guarantee == Guarantee::CrashOnly {
            self.try_release(vote.rsn);
        }
        self.try_commit(vote.rsn);
    }

    /// Rule 5.
    fn try_commit(&mut self, rsn: Rsn) {
        let needed =
            self.config.quorum() - usize::from(self.mutated(Mutation::CommitQuorum2f) && self.config.f > 0);
        let Some(slot) = self.log.get_mut(rsn) else { return };
        let Some(accepted) = slot.accepted else { return };
        if slot.committed || !slot.prepared {
            return;
        }
        if slot.commits.values().filter(|digest| **digest == accepted.digest).count() >= needed {
            self.log.commit(rsn);
            self.execute_ready();
        }
    }

    /// A member asks for a body that it votes on.
    pub(super) fn on_fetch_batch(&mut self, from: MemberId, rsn: Rsn, digest: Digest) {
        let body = self.log.get(rsn).and_then(|slot| slot.bodies.get(&digest));
        if let Some(body) = body.cloned() {
            self.send_member(from, &Message::BatchBody { rsn, body });
        }
    }

    /// The body of a position that a NEW-VIEW carried over.
    pub(super) fn on_batch_body(&mut self, rsn: Rsn, body: Body) {
        let digest = body_digest(&self.config, rsn, &body);
        let wanted = self.normal()
            && self.log.get(rsn).is_some_and(|slot| {
                slot.body().is_none() && slot.accepted.is_some_and(|a| a.digest == digest)
            });
        if !wanted {
            return self.refuse(Refusal::Unasked);
        }
        if let Some(batch) = &body {
            self.last_proposed_time = self.last_proposed_time.max(batch.time);
        }
        self.persist(Record::Body { rsn, body: body.clone() });
        let (view, votable_max) = (self.view, self.config.votes_claimed_max());
        let slot = self.log.get_mut(rsn).expect("wanted above");
        slot.bodies.insert(digest, body);
        slot.note_votable(view, votable_max);
        if self.may_vote() {
            self.cast_vote(rsn);
        }
        self.try_prepare(rsn);
    }

    /// Whether this member votes on what a NEW-VIEW carries over.
    pub(super) fn may_vote(&self) -> bool {
        self.is_active() || self.wide.is_some()
    }
}
