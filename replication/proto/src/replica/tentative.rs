//! Execution before the commit (PROTOCOL.md 2.13): answers that can still be undone.
//!
//! What is prepared, or with one phase accepted, is executed at once and answered as tentative. When it is committed
//! it is settled: clients are notified, and the batch counts as executed. When the view ends first, the state goes
//! back to what is committed: from the last checkpoint, by executing again what follows it.

use super::pending::RequestId;
use super::{Mutation, Replica};
use crate::config::Rsn;
use crate::effect::Event;
use crate::keys::Digest;
use crate::machine::StateMachine;
use crate::merkle::Snapshot;
use crate::message::{Body, RequestKind};
use cl_base::{PeerId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whom the execution of a batch notifies, and from which number on.
pub(super) type Notified = BTreeMap<PeerId, u64>;

/// What a batch did when it was executed.
#[derive(Debug)]
pub(super) struct Done {
    /// The requests that were new.
    pub(super) requests: Vec<RequestId>,
    pub(super) notified: Notified,
    /// The agreed time and the digest of all batches after it.
    pub(super) time: Time,
    pub(super) history: Digest,
}

/// Batches executed and not committed, or above one that is not.
#[derive(Debug, Default)]
pub(super) struct Tentatives(BTreeMap<Rsn, Done>);

impl Tentatives {
    /// The first; everything from there on can be undone.
    pub(super) fn first(&self) -> Option<Rsn> {
        self.0.first_key_value().map(|(rsn, _)| *rsn)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn push(&mut self, rsn: Rsn, done: Done) {
        self.0.insert(rsn, done);
    }

    /// The digest of all batches up to `rsn`, if that can be undone.
    pub(super) fn history(&self, rsn: Rsn) -> Option<Digest> {
        self.0.get(&rsn).map(|done| done.history)
    }

    /// The first notification of `client` that can be undone.
    pub(super) fn withheld(&self, client: PeerId) -> u64 {
        self.0.values().find_map(|done| done.notified.get(&client).copied()).unwrap_or(u64::MAX)
    }
}

impl<S: StateMachine> Replica<S> {
    /// The last batch executed for good.
    pub(super) fn committed(&self) -> Rsn {
        self.tentative.first().map_or(self.executed, |first| first - 1)
    }

    /// Whether the batch after the last one executed may be executed although it, or one before it, is not committed.
    /// What a checkpoint holds is never undone. In a widened view somebody is silent, so that 2f+1 answers will not
    /// come: f+1 that are good by themselves do.
    pub(super) fn may_run_ahead(&self, rsn: Rsn, body: &Body) -> bool {
        let mut requests = body.iter().flat_map(|batch| &batch.requests);
        self.config.guarantee.answers_early()
            && self.normal()
            && self.wide.is_none()
            && !rsn.is_multiple_of(self.config.checkpoint_interval)
            && requests.all(|request| request.kind == RequestKind::Operation)
    }

    /// Where execution goes back to if there is no checkpoint yet.
    pub(super) fn keep_beginning(&mut self) {
        if self.config.guarantee.answers_early() && self.executed == self.stable.rsn {
            let beginning = Snapshot::new(self.executed, self.encode_state());
            self.snapshots.insert(self.executed, Arc::new(beginning));
        }
    }

    /// Settles what has been committed by now.
    pub(super) fn settle_tentative(&mut self) {
        while let Some(first) = self.tentative.first()
            && self.log.get(first).is_some_and(|slot| slot.committed)
        {
            let (_, done) = self.tentative.0.pop_first().expect("there is a first one");
            if self.wide.is_some() {
                // Too few have answered for what can be undone.
                self.answer_all(&done.requests);
            }
            self.executed_for_good(first, done);
        }
    }

    /// The view ends: goes back to what is committed.
    pub(super) fn undo(&mut self) {
        if self.mutated(Mutation::NoUndo) {
            return self.tentative.clear();
        }
        let Some(first) = self.tentative.first() else { return };
        let from = self.executed;
        self.tentative.clear();
        let base = self.snapshots.range(..first).next_back().map(|(_, base)| base.clone());
        let Some(base) = base else { return self.halt("no checkpoint to go back to") };
        if self.decode_state(base.rsn, &base.state).is_err() {
            return self.halt("the own checkpoint cannot be restored");
        }
        for rsn in base.rsn + 1..first {
            let slot = self.log.get(rsn);
            let done =
                slot.and_then(|slot| Some((slot.executed?, slot.bodies.get(&slot.executed?)?.clone())));
            // Below a checkpoint that others made stable: a transfer follows.
            let Some((digest, body)) = done else { break };
            self.execute(rsn, digest, body);
        }
        for (_, slot) in self.log.iter_mut().filter(|(rsn, _)| *rsn >= first) {
            slot.executed = None;
        }
        self.event(Event::Undone { from, to: self.executed });
    }
}
