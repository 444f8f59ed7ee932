//! Leaving a view and installing a new one (PROTOCOL.md 2.8).

use super::decision::decide;
use super::{Mode, Mutation, Refusal, Replica};
use crate::certificate::{CheckpointProof, VoteClaim, proposal_proven, sign_vote};
use crate::config::{Config, MemberId, Rsn, View};
use crate::effect::{Event, LeaveReason};
use crate::keys::{Authority, Digest, Domain};
use crate::log::{Accepted, Slot};
use crate::machine::StateMachine;
use crate::message::{Message, NewView, Signed, ViewChange, Vote, body_digest, tag_of};
use crate::storage::{InstalledView, Record};

/// A NEW-VIEW of which some VIEW-CHANGEs are not here yet.
#[derive(Debug)]
pub(crate) struct Unjustified {
    pub(super) new_view: Signed<NewView>,
    pub(super) have: Vec<Signed<ViewChange>>,
}

impl Unjustified {
    /// What V names and is not here. A digest counts for the member that signed it and for nobody else: or one
    /// VIEW-CHANGE could stand for q.
    pub(super) fn missing(&self, config: &Config) -> Vec<(MemberId, Digest)> {
        let have: Vec<(MemberId, Digest)> =
            self.have.iter().map(|vc| (vc.sender, vc.digest(config))).collect();
        self.new_view.body.justification.iter().filter(|named| !have.contains(named)).copied().collect()
    }
}

/// Rule 3, signature included.
fn valid(vc: &Signed<ViewChange>, authority: &mut Authority, config: &Config) -> bool {
    let ViewChange { view, stable, prepared, voted } = &vc.body;
    let window = stable.rsn.saturating_add(1)..=stable.rsn.saturating_add(config.log_window);
    *view > 0
        && stable.ends.is_none()
        && prepared.windows(2).all(|pair| pair[0].vote.rsn < pair[1].vote.rsn)
        && prepared.iter().all(|c| window.contains(&c.vote.rsn) && c.vote.view < *view)
        && (voted.is_empty() || config.counts_claims())
        && voted.windows(2).all(|pair| (pair[0].rsn, pair[0].digest) < (pair[1].rsn, pair[1].digest))
        && voted.iter().all(|claim| window.contains(&claim.rsn) && claim.view < *view)
        && voted.chunk_by(|a, b| a.rsn == b.rsn).all(|claims| claims.len() <= config.votes_claimed_max())
        && vc.verify(authority, config)
        && stable.verify(authority, config)
        && prepared.iter().all(|c| c.verify(authority, config))
}

impl<S: StateMachine> Replica<S> {
    /// Rule 1: leaves for `next`. There is no way back: from here on nothing of a lower view is accepted,
    /// prepared, committed or answered.
    pub(super) fn leave(&mut self, next: View, reason: LeaveReason) {
        assert!(next > self.view, "views only grow");
        self.event(Event::LeftView { view: self.view, next, reason });
        self.undo();
        self.count_fruitless();
        self.blame_clients();
        self.executed_in_view = 0;
        let prepared = self.log.iter().filter_map(|(_, slot)| slot.certificate.clone()).collect();
        let voted = self.votes_to_claim();
        let body = ViewChange { view: next, stable: self.stable.clone(), prepared, voted };
        let signed = Signed::new(body, self.me, &mut self.authority, &self.config);
        if !self.mutated(Mutation::NoFreeze) {
            self.enter_changing(next);
        }
        self.persist(Record::ViewChange(signed.clone()));
        self.view_change = Some(signed.clone());
        self.view_changes.insert(self.me, signed.clone());
        self.broadcast(&Message::ViewChange(signed));
        self.left_view();
        self.try_new_view();
    }

    /// Q, for those who must believe what is prepared without signatures.
    fn votes_to_claim(&self) -> Vec<VoteClaim> {
        if !self.config.counts_claims() {
            return Vec::new();
        }
        let claims = |(rsn, slot): (Rsn, &Slot)| {
            let of_slot =
                slot.votable.iter().map(move |(d, view)| VoteClaim { rsn, digest: *d, view: *view });
            of_slot.collect::<Vec<_>>()
        };
        self.log.iter().flat_map(claims).collect()
    }

    /// Counts the view that ends as fruitless (k of 2.9) if it was never installed, or if this member would have
    /// executed something of it. A spare, or a member without its state, executes nothing in the best of views:
    /// if those counted, each view change would make it wait twice as long as the others for the next one.
    fn count_fruitless(&mut self) {
        let could_execute = self.is_active() && self.has_state();
        if self.executed_in_view == 0 && (!self.normal() || could_execute) {
            self.fruitless = self.fruitless.saturating_add(1);
        }
    }

    pub(super) fn enter_changing(&mut self, next: View) {
        self.view = next;
        self.mode = Mode::Changing;
        self.active = self.config.active(next);
        self.wide = None;
        self.unjustified = None;
        self.log.leave_view();
    }

    /// The view for which the own VIEW-CHANGE is out; 0 if there is none.
    pub(super) fn asked_view(&self) -> View {
        self.view_change.as_ref().map_or(0, |vc| vc.body.view)
    }

    pub(super) fn on_view_change(&mut self, vc: Signed<ViewChange>) {
        let wanted = self.unjustified.as_ref().is_some_and(|u| {
            let digest = vc.digest(&self.config);
            u.missing(&self.config).contains(&(vc.sender, digest))
        });
        let news = vc.body.view >= self.view
            && self.view_changes.get(&vc.sender).is_none_or(|known| known.body.view < vc.body.view);
        if !wanted && !news {
            return; // known, or over
        }
        if !valid(&vc, &mut self.authority, &self.config) {
            return self.refuse(Refusal::Invalid);
        }
        if news {
            self.view_changes.insert(vc.sender, vc.clone());
            self.join();
            self.try_new_view();
        }
        if wanted && let Some(unjustified) = &mut self.unjustified {
            unjustified.have.push(vc);
            self.try_install();
        }
    }

    /// Join (2.9): when w members are in views above this one, leave for the w-th largest of them.
    fn join(&mut self) {
        let view = self.view.max(self.asked_view());
        let mut later: Vec<View> =
            self.view_changes.values().map(|vc| vc.body.view).filter(|v| *v > view).collect();
        later.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(next) = later.get(self.config.weak() - 1) {
            self.leave(*next, LeaveReason::Join);
        }
    }

    /// How many members, this one included, ask for this view or a later one. Who has gone on to a later one
    /// counts, or T_nv might never start here: it may have gone on because of a VIEW-CHANGE that a faulty
    /// member sent to it alone.
    pub(super) fn asking(&self, view: View) -> usize {
        self.view_changes.values().filter(|vc| vc.body.view >= view).count()
    }

    fn new_view_quorum(&self) -> usize {
        self.config.quorum() - usize::from(self.mutated(Mutation::NewViewQuorum2f) && self.config.f > 0)
    }

    /// Rule 4: the primary of the view asked for opens it when q members ask.
    fn try_new_view(&mut self) {
        let view = self.asked_view();
        let installed = self.new_view_message().map_or(0, |nv| nv.body.view);
        if self.config.primary(view) != self.me || view <= installed || view < self.view {
            return;
        }
        let v: Vec<Signed<ViewChange>> =
            self.view_changes.values().filter(|vc| vc.body.view == view).cloned().collect();
        if v.len() < self.new_view_quorum() {
            return;
        }
        let bodies: Vec<_> = v.iter().map(|vc| &vc.body).collect();
        // In mode M q of them may leave a position open; the next one decides.
        let Some(decision) = decide(&self.config, &bodies) else { return };
        let active = self.config.active(view);
        let stable = decision.stable.rsn;
        let tag = tag_of(&self.config, view, &active, stable, decision.order.iter().copied());
        let order = (stable + 1..)
            .zip(&decision.order)
            .map(|(rsn, digest)| {
                let vote = Vote { view, tag, rsn, digest: *digest };
                let authority = &mut self.authority;
                (*digest, sign_vote(Domain::PrePrepare, &vote, self.me, authority, &self.config))
            })
            .collect();
        let justification = v.iter().map(|vc| (vc.sender, vc.digest(&self.config))).collect();
        let body = NewView { view, justification, active, stable, order };
        let new_view = Signed::new(body, self.me, &mut self.authority, &self.config);
        self.install(InstalledView { new_view: new_view.clone(), justification: v }, decision.stable);
        if self.halted.is_none() {
            self.broadcast(&Message::NewView(new_view));
        }
    }

    /// Rule 5.
    pub(super) fn on_new_view(&mut self, new_view: Signed<NewView>) {
        let view = new_view.body.view;
        let over = view < self.view || (view == self.view && self.normal());
        let waiting = self.unjustified.as_ref().is_some_and(|u| u.new_view.body.view >= view);
        if over || waiting {
            return;
        }
        if new_view.sender != self.config.primary(view) || view == 0 {
            return self.refuse(Refusal::Sender);
        }
        if !new_view.verify(&mut self.authority, &self.config) {
            return self.refuse(Refusal::Signature);
        }
        let NewView { justification, order, .. } = &new_view.body;
        if justification.len() < self.new_view_quorum()
            || !justification.windows(2).all(|pair| pair[0].0 < pair[1].0)
            || order.len() as u64 > self.config.log_window
        {
            return self.refuse(Refusal::Invalid);
        }
        let have = self
            .view_changes
            .values()
            .filter(|vc| justification.contains(&(vc.sender, vc.digest(&self.config))))
            .cloned()
            .collect();
        self.unjustified = Some(Unjustified { new_view, have });
        self.fetch_justification();
        self.try_install();
    }

    /// Asks the author of a NEW-VIEW for the VIEW-CHANGEs that are missing.
    pub(super) fn fetch_justification(&mut self) {
        let Some(unjustified) = &self.unjustified else { return };
        let (author, view) = (unjustified.new_view.sender, unjustified.new_view.body.view);
        for (member, digest) in unjustified.missing(&self.config) {
            self.send_member(author, &Message::FetchViewChange { view, member, digest });
        }
    }

    pub(super) fn on_fetch_view_change(&mut self, from: MemberId, view: View, of: MemberId, digest: Digest) {
        let installed = self.installed.iter().flat_map(|i| &i.justification);
        let found = self
            .view_changes
            .values()
            .chain(installed)
            .find(|vc| vc.sender == of && vc.body.view == view && vc.digest(&self.config) == digest);
        if let Some(vc) = found.cloned() {
            self.send_member(from, &Message::ViewChange(vc));
        }
    }

    /// Recomputes A and O from V and compares.
    fn try_install(&mut self) {
        let Some(unjustified) = &self.unjustified else { return };
        if !unjustified.missing(&self.config).is_empty() {
            return;
        }
        let Some(Unjustified { new_view, have: v }) = self.unjustified.take() else { return };
        let NewView { view, justification, active, stable, order } = &new_view.body;
        assert_eq!(v.len(), justification.len(), "each named VIEW-CHANGE is here once");
        let bodies: Vec<_> = v.iter().map(|vc| &vc.body).collect();
        let Some(decision) = decide(&self.config, &bodies) else { return self.refuse(Refusal::Invalid) };
        let follows = v.iter().all(|vc| vc.body.view == *view)
            && *active == self.config.active(*view)
            && *stable == decision.stable.rsn
            && order.iter().map(|(d, _)| d).eq(decision.order.iter());
        if !follows {
            return self.refuse(Refusal::Invalid);
        }
        let tag = tag_of(&self.config, *view, active, *stable, order.iter().map(|(d, _)| *d));
        let signed = (stable + 1..).zip(order).all(|(rsn, (digest, signature))| {
            let vote = Vote { view: *view, tag, rsn, digest: *digest };
            proposal_proven(&vote, signature.as_ref(), &mut self.authority, &self.config)
        });
        if !signed {
            return self.refuse(Refusal::Signature);
        }
        self.install(InstalledView { new_view, justification: v }, decision.stable);
    }

    fn install(&mut self, installed: InstalledView, stable: CheckpointProof) {
        let view = installed.new_view.body.view;
        if view > self.view && self.normal() {
            self.count_fruitless();
            self.blame_clients();
            self.undo();
        }
        self.become_stable(stable);
        self.persist(Record::NewView(installed.clone()));
        self.enter(installed);
        if self.halted.is_some() {
            return;
        }
        self.view_changes.retain(|_, vc| vc.body.view > view);
        self.event(Event::ViewInstalled {
            view,
            primary: self.config.primary(view),
            active: self.active.clone(),
        });
        if self.may_vote() {
            self.vote_on_order();
        }
        self.fetch_bodies();
        self.pending.requeue();
        self.mark_proposed();
        self.relay_all();
        self.notify_all();
        self.installed_view();
        self.replay_early();
    }

    /// Becomes a member of the view: O counts as accepted PRE-PREPAREs.
    pub(super) fn enter(&mut self, installed: InstalledView) {
        let NewView { view, active, stable, order, .. } = installed.new_view.body.clone();
        self.view = view;
        self.mode = Mode::Normal;
        self.active = active;
        self.wide = None;
        self.unjustified = None;
        self.executed_in_view = 0;
        self.tag = tag_of(&self.config, view, &self.active, stable, order.iter().map(|(d, _)| *d));
        self.installed = Some(installed);
        self.log.leave_view();
        if self.mutated(Mutation::SpareForgets) && !self.is_active() {
            self.log.iter_mut().for_each(|(_, slot)| slot.certificate = None);
        }
        self.max_o = stable + order.len() as Rsn;
        self.prepared_before = 0;
        self.last_assigned = self.max_o.max(self.stable.rsn);
        self.last_proposed_time = self.time;
        if self.executed > self.last_assigned {
            return self.halt("a NEW-VIEW lost a batch that was executed here");
        }
        let votable_max = self.config.votes_claimed_max();
        for (rsn, (digest, proposal)) in (stable + 1..).zip(order) {
            if self.executed_digest(rsn).is_some_and(|executed| executed != digest) {
                return self.halt("a NEW-VIEW contradicts a batch that was executed here");
            }
            let null = body_digest(&self.config, rsn, &None);
            let Some(slot) = self.log.slot(rsn) else { continue };
            slot.accepted = Some(Accepted { digest, proposal });
            if digest == null {
                slot.bodies.insert(digest, None);
            }
            slot.note_votable(view, votable_max);
            if let Some(Some(batch)) = slot.bodies.get(&digest) {
                self.last_proposed_time = self.last_proposed_time.max(batch.time);
            }
        }
    }

    /// Votes for everything accepted of which the body is here.
    pub(super) fn vote_on_order(&mut self) {
        for rsn in self.log.iter().map(|(rsn, _)| rsn).collect::<Vec<_>>() {
            self.cast_vote(rsn);
            self.try_prepare(rsn);
        }
    }

    /// Requests that O carries over are not proposed again.
    fn mark_proposed(&mut self) {
        for (_, slot) in self.log.iter() {
            for request in slot.body().into_iter().flatten().flat_map(|batch| &batch.requests) {
                self.pending.proposed((request.client, request.t));
            }
        }
    }

    /// Asks for bodies of positions that a NEW-VIEW carried over. Whoever prepared one had its body, and at
    /// least f+1 of those are correct; a different f+1 are asked each time.
    pub(super) fn fetch_bodies(&mut self) {
        let missing: Vec<(Rsn, Digest)> = self
            .log
            .iter()
            .filter(|(_, slot)| slot.body().is_none())
            .filter_map(|(rsn, slot)| slot.accepted.map(|a| (rsn, a.digest)))
            .collect();
        let attempt = self.timers.next_attempt();
        let n = self.config.n() as u64;
        for (rsn, digest) in missing {
            for i in 0..self.config.weak() as u64 {
                let member = MemberId(((attempt + i) % n) as u8);
                if member != self.me {
                    self.send_member(member, &Message::FetchBatch { rsn, digest });
                }
            }
        }
    }
}
