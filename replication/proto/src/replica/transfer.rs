//! Fetching a checkpointed state, verified piece by piece (PROTOCOL.md 2.7).

use super::{Refusal, Replica};
use crate::config::{MemberId, Rsn};
use crate::effect::Event;
use crate::keys::Digest;
use crate::machine::StateMachine;
use crate::merkle::{
    FANOUT, PAGE_BYTES, STATE_BYTES_MAX, Snapshot, level_sizes, node_digest, page_digest, state_digest,
};
use crate::message::{Checkpoint, Message, Signed, StateData, StatePart};
use crate::session::Known;
use cl_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pages in one message: 48 KiB.
const PAGES_PER_MESSAGE: u32 = 12;

/// Parts asked for at once: enough to fill a round trip, few enough not to flood the sender.
const PARTS_IN_FLIGHT: usize = 8;

/// A state on its way.
#[derive(Debug)]
pub(crate) struct Transfer {
    rsn: Rsn,
    digest: Digest,
    /// Whom to ask; the next one if nothing comes.
    source: MemberId,
    /// Nodes per level, known with the root.
    sizes: Vec<usize>,
    state: Vec<u8>,
    /// Digests of nodes known to be right, by level and index.
    known: BTreeMap<(u8, u32), Digest>,
    /// Parts to ask for.
    wanted: BTreeSet<StatePart>,
    asked: BTreeSet<StatePart>,
    missing_pages: usize,
    fetched: usize,
    /// Ask again, another member, when nothing has come by then.
    pub(super) retry_at: Time,
}

impl<S: StateMachine> Replica<S> {
    /// Begins a transfer, or turns to a later one, if this member cannot get on by executing.
    pub(super) fn consider_transfer(&mut self) {
        if self.has_state() || self.halted.is_some() {
            // Being stuck short of a weak checkpoint is noticed by the timers.
            return;
        }
        let (rsn, digest) =
            self.highest_weak(self.stable.rsn).unwrap_or((self.stable.rsn, self.stable.digest));
        self.begin_transfer(rsn, digest);
    }

    /// Fetches the state after `rsn`, unless it or a later one is already on its way.
    pub(super) fn begin_transfer(&mut self, rsn: Rsn, digest: Digest) {
        // A running transfer goes on while its state can still be had: one checkpoint behind is no loss, and
        // what it brings need not be fetched again.
        let interval = self.config.checkpoint_interval;
        let running = self.transfer.as_ref().is_some_and(|t| t.rsn + interval >= self.stable.rsn);
        if running || rsn <= self.executed {
            return;
        }
        // Signed before a restart, and not executed again since.
        if let Some(own) = self.snapshots.get(&rsn).filter(|own| own.digest == digest) {
            return self.adopt(own.clone(), 0);
        }
        let source = self.next_source(rsn, digest, self.me);
        self.transfer = Some(Transfer {
            rsn,
            digest,
            source,
            sizes: Vec::new(),
            state: Vec::new(),
            known: BTreeMap::new(),
            wanted: BTreeSet::from([StatePart::Root]),
            asked: BTreeSet::new(),
            missing_pages: 0,
            fetched: 0,
            retry_at: self.now + self.config.status_active * 2,
        });
        self.ask_for_parts();
    }

    /// The member after `last` that signed the digest, or simply the next one if none is known to have.
    fn next_source(&self, rsn: Rsn, digest: Digest, last: MemberId) -> MemberId {
        let n = self.config.n() as u8;
        let signed = |claims: &BTreeMap<_, Signed<Checkpoint>>| {
            claims.get(&rsn).is_some_and(|claim| claim.body.digest == digest)
        };
        let mut signers: Vec<_> =
            self.claims.iter().filter(|(_, claims)| signed(claims)).map(|(m, _)| *m).collect();
        if rsn == self.stable.rsn {
            signers.extend(self.stable.signatures.iter().map(|(m, _)| *m));
        }
        let ring = (1..=n).map(|i| MemberId((last.0 + i) % n)).filter(|m| *m != self.me);
        ring.clone().find(|m| signers.contains(m)).or_else(|| ring.clone().next()).unwrap_or(self.me)
    }

    fn ask_for_parts(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let mut ask = Vec::new();
        while transfer.asked.len() < PARTS_IN_FLIGHT
            && let Some(part) = transfer.wanted.pop_first()
        {
            transfer.asked.insert(part);
            ask.push(part);
        }
        let (rsn, digest, source) = (transfer.rsn, transfer.digest, transfer.source);
        for part in ask {
            self.send_member(source, &Message::FetchState { rsn, digest, part });
        }
    }

    /// Nothing came in time: asks the next member for what is missing.
    pub(super) fn retry_transfer(&mut self) {
        let Some(transfer) = &self.transfer else { return };
        if transfer.retry_at > self.now {
            return;
        }
        // Nobody may have this state any more; begin again with what is proven now.
        if transfer.rsn < self.stable.rsn {
            self.transfer = None;
            return self.consider_transfer();
        }
        let source = self.next_source(transfer.rsn, transfer.digest, transfer.source);
        let retry_at = self.now + self.config.status_active * 2;
        if let Some(transfer) = &mut self.transfer {
            transfer.source = source;
            transfer.retry_at = retry_at;
            let asked = std::mem::take(&mut transfer.asked);
            transfer.wanted.extend(asked);
        }
        self.ask_for_parts();
    }

    /// Serves a part of a checkpoint that this member has.
    pub(super) fn on_fetch_state(&mut self, from: MemberId, rsn: Rsn, digest: Digest, part: StatePart) {
        let Some(snapshot) = self.snapshots.get(&rsn).filter(|s| s.digest == digest) else {
            return self.refuse(Refusal::Unasked);
        };
        let data = match part {
            StatePart::Root => {
                Some(StateData::Root { len: snapshot.state.len() as u64, root: snapshot.root() })
            }
            StatePart::Children { level, index } => {
                snapshot.children(level, index).map(|c| StateData::Children(c.to_vec()))
            }
            StatePart::Pages { first, count } if count <= PAGES_PER_MESSAGE => (0..count)
                .map(|i| snapshot.page(first as usize + i as usize).map(<[u8]>::to_vec))
                .collect::<Option<Vec<_>>>()
                .map(StateData::Pages),
            StatePart::Pages { .. } => None,
        };
        match data {
            Some(data) => self.send_member(from, &Message::State { rsn, digest, part, data }),
            None => self.refuse(Refusal::Invalid),
        }
    }

    pub(super) fn on_state(
        &mut self,
        from: MemberId,
        rsn: Rsn,
        digest: Digest,
        part: StatePart,
        data: StateData,
    ) {
        let expected = self.transfer.as_ref().is_some_and(|t| {
            t.source == from && t.rsn == rsn && t.digest == digest && t.asked.contains(&part)
        });
        if !expected {
            return self.refuse(Refusal::Unasked);
        }
        // The newest own state supplies the pages that have not changed.
        let base = self.snapshots.last_key_value().map(|(_, s)| s.clone());
        let retry_at = self.now + self.config.status_active * 2;
        let transfer = self.transfer.as_mut().expect("expected above");
        if !transfer.take(part, data, base.as_deref()) {
            // A lie: ask somebody else at once.
            transfer.retry_at = self.now;
            self.refuse(Refusal::Invalid);
            return self.retry_transfer();
        }
        transfer.asked.remove(&part);
        transfer.retry_at = retry_at;
        if transfer.complete() {
            self.finish_transfer();
        } else {
            self.ask_for_parts();
        }
    }

    fn finish_transfer(&mut self) {
        let Some(transfer) = self.transfer.take() else { return };
        if transfer.rsn <= self.executed {
            return; // executed in the meantime
        }
        let snapshot = Snapshot::new(transfer.rsn, transfer.state);
        assert_eq!(snapshot.digest, transfer.digest, "every part was verified");
        self.adopt(Arc::new(snapshot), transfer.fetched);
    }

    /// Goes on from a proven state, of which `fetched` pages came from others.
    fn adopt(&mut self, snapshot: Arc<Snapshot>, fetched: usize) {
        let rsn = snapshot.rsn;
        self.tentative.clear();
        if self.decode_state(rsn, &snapshot.state).is_err() {
            return self.halt("a state that f+1 members signed cannot be restored");
        }
        self.event(Event::StateTransferred { rsn, pages: snapshot.levels[0].len(), fetched });
        let sessions = &self.sessions;
        self.pending.retain(|(client, t)| sessions.known(client, t) == Known::New);
        self.snapshots.retain(|kept, _| *kept >= rsn);
        self.keep_snapshot(snapshot);
        self.note_progress();
        self.notify_all();
        self.execute_ready();
        self.consider_transfer();
    }
}

impl Transfer {
    /// Takes a part in; false if it is not what the digest promises.
    fn take(&mut self, part: StatePart, data: StateData, base: Option<&Snapshot>) -> bool {
        match (part, data) {
            (StatePart::Root, StateData::Root { len, root }) => {
                if len > STATE_BYTES_MAX || state_digest(self.rsn, len, root) != self.digest {
                    return false;
                }
                self.sizes = level_sizes(len);
                self.state = vec![0; len as usize];
                self.missing_pages = self.sizes[0];
                self.learn(self.sizes.len() as u8 - 1, 0, root, base);
            }
            (StatePart::Children { level, index }, StateData::Children(children)) => {
                let first = index as usize * FANOUT;
                let expected = FANOUT.min(self.sizes[usize::from(level) - 1] - first);
                if children.len() != expected
                    || self.known.get(&(level, index)) != Some(&node_digest(level, &children))
                {
                    return false;
                }
                for (i, digest) in children.into_iter().enumerate() {
                    self.learn(level - 1, (first + i) as u32, digest, base);
                }
                self.pack_pages();
            }
            (StatePart::Pages { first, count }, StateData::Pages(pages)) => {
                if pages.len() != count as usize
                    || (first..).zip(&pages).any(|(i, p)| self.known.get(&(0, i)) != Some(&page_digest(p)))
                {
                    return false;
                }
                for (i, page) in (first as usize..).zip(&pages) {
                    self.put(i, page);
                    self.fetched += 1;
                }
            }
            _ => return false,
        }
        true
    }

    /// A node's digest is known: what the base has alike is copied, the rest is wanted.
    fn learn(&mut self, level: u8, index: u32, digest: Digest, base: Option<&Snapshot>) {
        self.known.insert((level, index), digest);
        let alike = |b: &&Snapshot| {
            b.levels.get(usize::from(level)).and_then(|l| l.get(index as usize)) == Some(&digest)
        };
        if let Some(base) = base.filter(alike) {
            let span = FANOUT.pow(u32::from(level));
            let first = index as usize * span;
            for i in first..(first + span).min(self.sizes[0]) {
                if let Some(page) = base.page(i) {
                    self.put(i, page);
                }
            }
        } else if level == 0 {
            self.wanted.insert(StatePart::Pages { first: index, count: 1 });
        } else {
            self.wanted.insert(StatePart::Children { level, index });
        }
    }

    /// Joins neighbouring single pages into messages.
    fn pack_pages(&mut self) {
        let is_single = |p: &StatePart| matches!(p, StatePart::Pages { count: 1, .. });
        let (singles, mut rest): (BTreeSet<_>, BTreeSet<_>) = self.wanted.iter().partition(|p| is_single(p));
        let mut run: Option<(u32, u32)> = None;
        for part in singles {
            let StatePart::Pages { first, .. } = part else { continue };
            run = match run {
                Some((start, count)) if start + count == first && count < PAGES_PER_MESSAGE => {
                    Some((start, count + 1))
                }
                Some((start, count)) => {
                    rest.insert(StatePart::Pages { first: start, count });
                    Some((first, 1))
                }
                None => Some((first, 1)),
            };
        }
        rest.extend(run.map(|(first, count)| StatePart::Pages { first, count }));
        self.wanted = rest;
    }

    fn put(&mut self, index: usize, page: &[u8]) {
        let from = index * PAGE_BYTES;
        // The digest fixes the content, and with it the length; a base page of another length has another digest.
        self.state[from..from + page.len()].copy_from_slice(page);
        self.missing_pages -= 1;
    }

    fn complete(&self) -> bool {
        !self.sizes.is_empty() && self.missing_pages == 0
    }
}
