//! Checkpoints (PROTOCOL.md 2.6).

use super::{Mode, Refusal, Replica};
use crate::certificate::{CheckpointProof, stable_quorum};
use crate::config::{MemberId, Rsn};
use crate::effect::Event;
use crate::epoch::Replacement;
use crate::keys::Digest;
use crate::machine::{RestoreError, StateMachine};
use crate::merkle::{PAGE_BYTES, Snapshot};
use crate::message::{Checkpoint, Message, Signed};
use crate::session::Sessions;
use crate::storage::{CheckpointRecord, Record, SlotRecord, StateRecord};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::codec;
use cl_base::{PeerId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// CHECKPOINTs kept per member, the highest: a correct member has at most L/K that matter.
pub(super) const CLAIMS_MAX: usize = 8;

/// The replicated state beside the machine's.
#[derive(BorshSerialize, BorshDeserialize)]
struct GroupState {
    epoch: u64,
    members: Vec<PeerId>,
    time: Time,
    history: Digest,
    sessions: Sessions,
    machine_bytes: u64,
}

impl<S: StateMachine> Replica<S> {
    /// The whole replicated state: the group's part, filled up to a page so that it does not shift the
    /// machine's pages, then the machine's snapshot.
    pub(super) fn encode_state(&self) -> Vec<u8> {
        let machine = self.machine.snapshot();
        let mut members = self.config.members.clone();
        for member in members.iter_mut() {
            if let Some(replacement) = self.ended.filter(|replacement| replacement.out == *member) {
                *member = replacement.new;
            }
        }
        let group = codec::encode(&GroupState {
            epoch: self.config.epoch + u64::from(self.ended.is_some()),
            members,
            time: self.time,
            history: self.history,
            sessions: self.sessions.clone(),
            machine_bytes: machine.len() as u64,
        });
        let mut state = codec::encode(&(group.len() as u64));
        state.extend(group);
        state.resize(state.len().next_multiple_of(PAGE_BYTES), 0);
        state.extend(machine);
        state
    }

    /// Becomes the state after `rsn`.
    pub(super) fn decode_state(&mut self, rsn: Rsn, state: &[u8]) -> Result<(), RestoreError> {
        let short = || RestoreError("cut short".to_string());
        let (len, rest) = state.split_first_chunk::<8>().ok_or_else(short)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| short())?;
        let group: GroupState = codec::decode(rest.get(..len).ok_or_else(short)?)?;
        let machine = state.get((8 + len).next_multiple_of(PAGE_BYTES)..).ok_or_else(short)?;
        // The state at the end of an epoch is that of the next one's beginning.
        let ended = self.config.replacement_to(&group.members);
        let epoch = self.config.epoch + u64::from(ended.is_some());
        let known = ended.is_some() || group.members == self.config.members;
        if machine.len() as u64 != group.machine_bytes || group.epoch != epoch || !known {
            return Err(RestoreError("of another group".to_string()));
        }
        self.ended = ended;
        self.machine.restore(machine)?;
        self.sessions = group.sessions;
        self.time = group.time;
        self.history = group.history;
        self.executed = rsn;
        Ok(())
    }

    /// After s ≡ 0 mod K: remembers the state and signs its digest to all.
    pub(super) fn take_checkpoint(&mut self) {
        let snapshot = Snapshot::new(self.executed, self.encode_state());
        self.keep_snapshot(Arc::new(snapshot));
    }

    /// Signs the state that was executed or restored (2.6: members that restored a state sign it as well). It is
    /// durable before: with q CHECKPOINTs everybody drops the log, and if all members stop then, f+1 correct ones
    /// come back with the state.
    pub(super) fn keep_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        let claim = Checkpoint { rsn: snapshot.rsn, digest: snapshot.digest, ends: self.ended };
        let known = self.snapshots.insert(snapshot.rsn, snapshot.clone());
        if claim.rsn < self.stable.rsn {
            return; // a step on the way to the stable one
        }
        if claim.rsn == self.stable.rsn {
            self.persist_checkpoint();
        } else if known.is_none_or(|known| known.digest != claim.digest) {
            self.persist(Record::State(StateRecord { rsn: claim.rsn, state: snapshot.state.clone() }));
        }
        let signed = Signed::new(claim, self.me, &mut self.authority, &self.config);
        self.broadcast(&Message::Checkpoint(signed.clone()));
        self.file_claim(signed);
    }

    pub(super) fn on_checkpoint(&mut self, checkpoint: Signed<Checkpoint>) {
        let rsn = checkpoint.body.rsn;
        if rsn <= self.stable.rsn {
            return; // over
        }
        if !checkpoint.body.is_due(&self.config) {
            return self.refuse(Refusal::Invalid);
        }
        if let Some(known) = self.claims.get(&checkpoint.sender).and_then(|claims| claims.get(&rsn)) {
            if known.body != checkpoint.body {
                self.refuse(Refusal::Conflict);
            }
            return;
        }
        if !checkpoint.verify(&mut self.authority, &self.config) {
            return self.refuse(Refusal::Signature);
        }
        self.file_claim(checkpoint);
    }

    /// A whole proof, for a member that is behind.
    pub(super) fn on_stable(&mut self, proof: CheckpointProof) {
        if proof.rsn <= self.stable.rsn {
            return;
        }
        if !proof.verify(&mut self.authority, &self.config) {
            return self.refuse(Refusal::Signature);
        }
        self.become_stable(proof);
    }

    fn file_claim(&mut self, checkpoint: Signed<Checkpoint>) {
        let claim @ Checkpoint { rsn, digest, ends } = checkpoint.body;
        let claims = self.claims.entry(checkpoint.sender).or_default();
        claims.insert(rsn, checkpoint);
        if claims.len() > CLAIMS_MAX {
            claims.pop_first();
        }
        let equal = self.claimants(&claim);
        let quorum = stable_quorum(&self.config);
        if equal.len() >= quorum && rsn > self.stable.rsn {
            let signatures =
                equal.iter().map(|m| (*m, self.claims[m][&rsn].signature)).take(quorum).collect();
            self.become_stable(CheckpointProof { rsn, digest, ends, signatures });
        }
        self.consider_transfer();
    }

    /// Who signed this, ascending.
    pub(super) fn claimants(&self, claim: &Checkpoint) -> Vec<MemberId> {
        self.claims
            .iter()
            .filter(|(_, claims)| claims.get(&claim.rsn).is_some_and(|c| c.body == *claim))
            .map(|(m, _)| *m)
            .collect()
    }

    /// The highest position above `above` for which w members signed the same digest: it is right (2.6, weak).
    pub(super) fn highest_weak(&self, above: Rsn) -> Option<(Rsn, Digest)> {
        let mut votes: BTreeMap<(Rsn, Digest, Option<Replacement>), usize> = BTreeMap::new();
        for claim in self.claims.values().flat_map(|claims| claims.range(above + 1..).map(|(_, c)| c.body)) {
            *votes.entry((claim.rsn, claim.digest, claim.ends)).or_default() += 1;
        }
        votes
            .into_iter()
            .rev()
            .find(|(_, count)| *count >= self.config.weak())
            .map(|((rsn, digest, _), _)| (rsn, digest))
    }

    /// h moves to a proven checkpoint: what is at or below leaves the log.
    pub(super) fn become_stable(&mut self, proof: CheckpointProof) {
        let CheckpointProof { rsn, digest, .. } = proof;
        if rsn <= self.stable.rsn {
            return;
        }
        if proof.ends.is_some() {
            return self.begin_epoch(proof);
        }
        if self.snapshots.get(&rsn).is_some_and(|own| own.digest != digest) {
            return self.halt("a stable checkpoint contradicts the state executed here");
        }
        if self.tentative.first().is_some_and(|first| first <= rsn) {
            // It may not be what was committed there, and the log that would tell goes.
            self.undo();
        }
        // Never h without the state on disk where there is a state: were all members to stop between two such
        // records, nobody would have it any more.
        let complete = self.snapshots.contains_key(&rsn);
        if !complete {
            self.persist(Record::Stable(proof.clone()));
        }
        self.stable = proof;
        self.log.truncate(rsn);
        self.last_assigned = self.last_assigned.max(rsn);
        for claims in self.claims.values_mut() {
            *claims = claims.split_off(&rsn);
        }
        self.forget_snapshots();
        self.event(Event::StableCheckpoint { rsn, digest });
        if complete {
            self.persist_checkpoint();
        }
        self.consider_transfer();
        // The log reaches further now.
        self.execute_ready();
    }

    /// The state before the stable one is kept, too: for those who are fetching it. And the newest one in any case,
    /// as the base of a transfer to a newer one.
    pub(super) fn forget_snapshots(&mut self) {
        let mut kept = self.snapshots.range(..=self.stable.rsn).rev().map(|(rsn, _)| *rsn);
        if let Some(oldest) = kept.next().map(|newest| kept.next().unwrap_or(newest)) {
            self.snapshots = self.snapshots.split_off(&oldest);
        }
    }

    /// Everything that a restart needs, in one record, so that the host may delete what came before.
    pub(super) fn persist_checkpoint(&mut self) {
        let Some(snapshot) = self.snapshots.get(&self.stable.rsn) else { return };
        let record = CheckpointRecord {
            epoch: self.config.epoch,
            begins: self.config.begins,
            members: self.config.members.clone(),
            certificates: self.certificates.clone(),
            stable: self.stable.clone(),
            state: snapshot.state.clone(),
            later: self
                .snapshots
                .range(self.stable.rsn + 1..)
                .map(|(rsn, later)| StateRecord { rsn: *rsn, state: later.state.clone() })
                .collect(),
            view: self.view,
            changing: self.mode == Mode::Changing,
            fruitless: self.fruitless,
            view_change: self.view_change.clone(),
            installed: self.installed.clone(),
            slots: self
                .log
                .iter()
                .map(|(rsn, slot)| SlotRecord {
                    rsn,
                    accepted: slot.accepted.map(|a| (a.digest, a.proposal)),
                    votable: slot.votable.iter().map(|(d, v)| (*d, *v)).collect(),
                    bodies: slot.bodies.values().cloned().collect(),
                    prepared: slot.certificate.clone(),
                })
                .collect(),
        };
        self.persist(Record::Checkpoint(Box::new(record)));
    }
}
