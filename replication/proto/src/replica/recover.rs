//! Coming back after a restart with one's memory (PROTOCOL.md 2.14).

use super::{Mode, Replica};
use crate::config::{Config, MemberId};
use crate::keys::Keys;
use crate::log::{Accepted, Log};
use crate::machine::StateMachine;
use crate::merkle::Snapshot;
use crate::message::body_digest;
use crate::storage::{CheckpointRecord, Record, RecoverError, StateRecord};
use cl_base::Time;
use std::sync::Arc;

impl<S: StateMachine> Replica<S> {
    /// A member that was restarted: `records` are all it persisted, in order, or those from its last
    /// [`Record::Checkpoint`] on. `config` and `machine` are as for [`Replica::new`], at its beginning.
    ///
    /// Batches above the checkpoint are executed again as their COMMITs are collected again; or, once a later state
    /// that it had signed is known to be stable, the member goes on from that.
    ///
    /// # Errors
    /// If the configuration is invalid or the records are not those of one life of this member. Then it must
    /// not come back as this member.
    pub fn recover(
        config: Config,
        me: MemberId,
        keys: Box<dyn Keys>,
        machine: S,
        now: Time,
        records: impl Iterator<Item = Record>,
    ) -> Result<Replica<S>, RecoverError> {
        config.validate()?;
        let mut replica = Replica::new(config, me, keys, machine, now);
        for record in records {
            replica.remember(record)?;
        }
        if let Some(reason) = replica.halted {
            return Err(RecoverError::Contradiction(reason));
        }
        replica.effects.clear();
        // What its view had executed before is not known; to call it fruitless would be a guess.
        replica.executed_in_view = 1;
        if !replica.retired {
            replica.resume();
        }
        Ok(replica)
    }

    fn remember(&mut self, record: Record) -> Result<(), RecoverError> {
        match record {
            Record::Accepted { vote, proposal, body } => {
                if vote.view > self.view {
                    return Err(RecoverError::Contradiction("a proposal of a view never installed"));
                }
                let current = vote.view == self.view && self.normal() && vote.tag == self.tag;
                let votable_max = self.config.votes_claimed_max();
                if let Some(slot) = self.log.slot(vote.rsn) {
                    slot.bodies.insert(vote.digest, body);
                    slot.enter_votable(vote.digest, vote.view, votable_max);
                    if current {
                        slot.accepted = Some(Accepted { digest: vote.digest, proposal });
                        self.last_assigned = self.last_assigned.max(vote.rsn);
                    }
                }
            }
            Record::Body { rsn, body } => {
                let digest = body_digest(&self.config, rsn, &body);
                let (view, votable_max) = (self.view, self.config.votes_claimed_max());
                if let Some(slot) = self.log.slot(rsn) {
                    slot.bodies.insert(digest, body);
                    slot.note_votable(view, votable_max);
                }
            }
            Record::Prepared(certificate) => {
                if let Some(slot) = self.log.slot(certificate.vote.rsn) {
                    slot.certificate = Some(certificate);
                }
            }
            Record::ViewChange(vc) => {
                if vc.sender != self.me || vc.body.view < self.view {
                    return Err(RecoverError::Contradiction("views went backwards"));
                }
                self.enter_changing(vc.body.view);
                self.view_changes.insert(self.me, vc.clone());
                self.view_change = Some(vc);
            }
            Record::NewView(installed) => {
                if installed.new_view.body.view < self.view {
                    return Err(RecoverError::Contradiction("views went backwards"));
                }
                self.enter(installed);
            }
            Record::State(StateRecord { rsn, state }) => {
                self.snapshots.insert(rsn, Arc::new(Snapshot::new(rsn, state)));
            }
            Record::Epoch(certificate) => {
                let Some(next) = self.config.after(&certificate) else {
                    return Err(RecoverError::Contradiction("an epoch that does not follow"));
                };
                self.enter_epoch(next, certificate);
            }
            Record::Stable(proof) => {
                if proof.rsn < self.stable.rsn {
                    return Err(RecoverError::Contradiction("the stable checkpoint went backwards"));
                }
                self.log.truncate(proof.rsn);
                self.last_assigned = self.last_assigned.max(proof.rsn);
                self.stable = proof;
                self.forget_snapshots();
            }
            Record::Checkpoint(record) => self.remember_checkpoint(*record)?,
        }
        Ok(())
    }

    fn remember_checkpoint(&mut self, record: CheckpointRecord) -> Result<(), RecoverError> {
        let me = self.config.peer(self.me);
        self.config.epoch = record.epoch;
        self.config.begins = record.begins;
        self.config.members = record.members;
        self.config.validate()?;
        self.certificates = record.certificates;
        match self.config.member(me) {
            Some(member) => self.me = member,
            None => return Err(RecoverError::Contradiction("a checkpoint of another member")),
        }
        let snapshot = Snapshot::new(record.stable.rsn, record.state);
        if snapshot.digest != record.stable.digest {
            return Err(RecoverError::Contradiction("the state does not match its proof"));
        }
        self.decode_state(snapshot.rsn, &snapshot.state)?;
        self.snapshots.clear();
        self.snapshots.insert(snapshot.rsn, Arc::new(snapshot));
        for StateRecord { rsn, state } in record.later {
            self.snapshots.insert(rsn, Arc::new(Snapshot::new(rsn, state)));
        }
        self.log = Log::new(record.stable.rsn, self.config.log_window);
        self.stable = record.stable;
        self.fruitless = record.fruitless;
        self.installed = None;
        let (mut tag, mut max_o) = (self.tag, self.max_o);
        if let Some(installed) = record.installed {
            self.enter(installed);
            (tag, max_o) = (self.tag, self.max_o);
        }
        self.view = record.view;
        self.mode = if record.changing { Mode::Changing } else { Mode::Normal };
        self.active = self.config.active(record.view);
        (self.tag, self.max_o) = (tag, max_o);
        self.view_changes.clear();
        self.view_change = record.view_change;
        if let Some(vc) = self.view_change.clone().filter(|_| record.changing) {
            self.view_changes.insert(self.me, vc);
        }
        self.last_assigned = self.max_o.max(self.stable.rsn);
        for kept in record.slots {
            let digests: Vec<_> =
                kept.bodies.iter().map(|body| body_digest(&self.config, kept.rsn, body)).collect();
            let Some(slot) = self.log.slot(kept.rsn) else { continue };
            slot.accepted = kept.accepted.map(|(digest, proposal)| Accepted { digest, proposal });
            slot.bodies = digests.into_iter().zip(kept.bodies).collect();
            slot.votable = kept.votable.into_iter().collect();
            slot.certificate = kept.prepared;
            if slot.accepted.is_some() {
                self.last_assigned = self.last_assigned.max(kept.rsn);
            }
        }
        Ok(())
    }

    /// Takes up what the records say: the same votes again, which others may have lost.
    fn resume(&mut self) {
        if self.normal() {
            self.max_o = self.max_o.max(self.stable.rsn);
            let (view, tag, me) = (self.view, self.tag, self.me);
            let prepared = self.log.iter().rev().find(|(_, slot)| slot.certificate.is_some());
            self.prepared_before = prepared.map_or(0, |(rsn, _)| rsn);
            for (_, slot) in self.log.iter_mut() {
                let Some(accepted) = slot.accepted else { continue };
                if let Some(Some(batch)) = slot.bodies.get(&accepted.digest) {
                    self.last_proposed_time = self.last_proposed_time.max(batch.time);
                }
                let Some(certificate) = &slot.certificate else { continue };
                let vote = certificate.vote;
                if (vote.view, vote.tag, vote.digest) == (view, tag, accepted.digest) {
                    slot.prepares =
                        certificate.prepares.iter().map(|(m, s)| (*m, (vote.digest, Some(*s)))).collect();
                    slot.prepared = true;
                    slot.commits.insert(me, vote.digest);
                }
            }
            let max_o = self.max_o;
            let positions: Vec<_> = self.log.iter().map(|(rsn, _)| rsn).collect();
            let first = if self.may_vote() { 0 } else { max_o + 1 };
            for rsn in positions.into_iter().filter(|rsn| *rsn >= first) {
                self.cast_vote(rsn);
                self.try_prepare(rsn);
            }
        }
        self.consider_transfer();
        self.execute_ready();
        self.settle();
    }
}
