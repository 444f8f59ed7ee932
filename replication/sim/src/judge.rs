//! Judges: what must hold whatever happens, seen from outside.

use crate::ledger::{Ledger, results};
use crate::plan::ROGUE;
use cl_base::{PeerId, Time};
use replication_proto::{Digest, Event, Holding, MemberId};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What the judges object to; empty for a good run.
    pub violations: Vec<String>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Operations completed.
    pub completed: u64,
    /// Reads completed.
    pub reads: u64,
    /// Notifications delivered.
    pub notified: u64,
    /// View changes, checkpoints, transfers and the like, by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// The longest that an operation submitted after the heal took.
    pub slowest_after: Duration,
    /// Things that happened in the run.
    pub steps: u64,
}

/// A read of how many commands were executed.
struct Read {
    client: PeerId,
    began: Time,
    ended: Time,
    size: usize,
}

struct Operation {
    submitted: Time,
    completed: Option<(Time, Vec<u8>)>,
}

/// Watches a run.
#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) report: Report,
    faulty: Vec<MemberId>,
    executed: BTreeMap<u64, Digest>,
    stable: BTreeMap<u64, Digest>,
    /// The highest state that each correct member ever had.
    reached: BTreeMap<MemberId, u64>,
    quorum: usize,
    operations: BTreeMap<(PeerId, u64), Operation>,
    reads: Vec<Read>,
    delivered: BTreeMap<PeerId, BTreeMap<u64, Vec<u8>>>,
    /// The next notification in the present life of each client.
    next_notification: BTreeMap<PeerId, u64>,
    /// Commands of the faulty client and the numbers of the requests that held them.
    rogue: BTreeMap<u64, u64>,
}

impl Judge {
    pub(crate) fn new(seed: u64, quorum: usize, faulty: Vec<MemberId>) -> Judge {
        Judge { report: Report { seed, ..Report::default() }, quorum, faulty, ..Judge::default() }
    }

    pub(crate) fn object(&mut self, what: String) {
        if self.report.violations.len() < 10 {
            self.report.violations.push(what);
        }
    }

    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.report.faults.entry(kind).or_default() += 1;
    }

    /// A member reports an event.
    pub(crate) fn event(&mut self, member: MemberId, event: &Event) {
        if self.faulty.contains(&member) {
            return;
        }
        let kind = match event {
            Event::ViewInstalled { .. } => "views installed",
            Event::LeftView { .. } => "views left",
            Event::Widened { .. } => "widened",
            Event::Narrowed { .. } => "narrowed",
            Event::Executed { rsn, digest, .. } => {
                let (rsn, digest) = (*rsn, *digest);
                let agreed = *self.executed.entry(rsn).or_insert(digest);
                if agreed != digest {
                    self.object(format!("agreement: member {member} executed another batch as RSN {rsn}"));
                }
                self.reaches(member, rsn);
                "batches executed"
            }
            Event::Undone { .. } => "executions undone",
            Event::EpochBegan { .. } => "epochs begun",
            Event::Retired { .. } => "members retired",
            Event::StableCheckpoint { rsn, digest } => {
                let (rsn, digest) = (*rsn, *digest);
                if *self.stable.entry(rsn).or_insert(digest) != digest {
                    self.object(format!("states: stable checkpoints at RSN {rsn} differ"));
                }
                // q members have it, so it survives f of them (PROTOCOL.md 2.6).
                let having = self.reached.values().filter(|top| **top >= rsn).count();
                if having + self.faulty.len() < self.quorum {
                    self.object(format!(
                        "durability: RSN {rsn} is stable at {member}, {having} have its state"
                    ));
                }
                "checkpoints stable"
            }
            Event::StateTransferred { rsn, .. } => {
                self.reaches(member, *rsn);
                "states transferred"
            }
            Event::Halted { reason } => {
                let reason = *reason;
                self.object(format!("correct member {member} stopped: {reason}"));
                "halts"
            }
        };
        *self.report.events.entry(kind).or_default() += 1;
    }

    fn reaches(&mut self, member: MemberId, rsn: u64) {
        let top = self.reached.entry(member).or_default();
        *top = (*top).max(rsn);
    }

    /// Memory is bounded, table by table.
    pub(crate) fn holds(&mut self, member: MemberId, holding: &Holding) {
        let Holding { name, held, bound } = holding;
        if held > bound {
            self.object(format!("memory: member {member} holds {held} {name}, its bound is {bound}"));
        }
    }

    pub(crate) fn rogue_asked(&mut self, nonce: u64, t: u64) {
        self.rogue.insert(nonce, t);
    }

    pub(crate) fn submitted(&mut self, client: PeerId, nonce: u64, now: Time) {
        self.operations.insert((client, nonce), Operation { submitted: now, completed: None });
    }

    pub(crate) fn completed(&mut self, client: PeerId, nonce: u64, now: Time, result: Vec<u8>, healed: Time) {
        self.report.completed += 1;
        match self.operations.get_mut(&(client, nonce)) {
            Some(Operation { completed: Some(_), .. }) => {
                self.object(format!("operation {nonce} of {client} completed twice"));
            }
            Some(operation) => {
                operation.completed = Some((now, result));
                if operation.submitted >= healed {
                    let took = now.saturating_since(operation.submitted);
                    self.report.slowest_after = self.report.slowest_after.max(took);
                }
            }
            None => self.object(format!("operation {nonce} of {client} was never submitted")),
        }
    }

    pub(crate) fn read(&mut self, client: PeerId, began: Time, ended: Time, result: Option<Vec<u8>>) {
        self.report.reads += 1;
        match result.map(<[u8; 8]>::try_from) {
            Some(Ok(size)) => {
                let size = u64::from_le_bytes(size) as usize;
                self.reads.push(Read { client, began, ended, size });
            }
            Some(Err(_)) => self.object(format!("reads: {client} got what is no size")),
            None => self.object(format!("reads: a read of {client} was refused as stale")),
        }
    }

    pub(crate) fn stale(&mut self, client: PeerId, nonce: u64) {
        self.object(format!("operation {nonce} of {client} was refused as stale"));
    }

    pub(crate) fn outvoted(&mut self, client: PeerId, member: MemberId) {
        *self.report.events.entry("members outvoted").or_default() += 1;
        if !self.faulty.contains(&member) {
            self.object(format!("client {client} takes correct member {member} for a liar"));
        }
    }

    pub(crate) fn client_began(&mut self, client: PeerId) {
        self.next_notification.remove(&client);
    }

    pub(crate) fn notifications_begin(&mut self, client: PeerId, seq: u64) {
        // An earlier life may have received some: its last acknowledgement can still be on its way.
        self.next_notification.insert(client, seq);
        let delivered = self.delivered.get(&client).and_then(|d| d.last_key_value()).map_or(0, |(s, _)| *s);
        if seq > delivered + 1 {
            self.object(format!("client {client} skips notifications {} to {}", delivered + 1, seq - 1));
        }
    }

    pub(crate) fn notification(&mut self, client: PeerId, seq: u64, body: Vec<u8>) {
        self.report.notified += 1;
        let expected = self.next_notification.insert(client, seq + 1);
        if expected != Some(seq) {
            self.object(format!("client {client} got notification {seq}, expected {expected:?}"));
        }
        let known = self.delivered.entry(client).or_default().entry(seq).or_insert_with(|| body.clone());
        if *known != body {
            self.object(format!("client {client} got two notifications {seq}"));
        }
    }

    /// Whether notifications of this ledger have not reached their clients.
    pub(crate) fn undelivered(&self, ledger: &Ledger) -> bool {
        ledger.pushed.iter().any(|(client, pushed)| {
            let delivered = self.delivered.get(client).map_or(0, BTreeMap::len);
            *client != ROGUE && delivered < pushed.len()
        })
    }

    /// The end: what the correct members hold must explain everything that clients saw.
    pub(crate) fn conclude(&mut self, members: &[(MemberId, u64, Digest, &Ledger)]) {
        for (i, (a, executed, digest, _)) in members.iter().enumerate() {
            for (b, other, other_digest, _) in &members[i + 1..] {
                if executed == other && digest != other_digest {
                    self.object(format!("states: members {a} and {b} differ after RSN {executed}"));
                }
            }
        }
        let Some((_, _, _, ledger)) = members.iter().max_by_key(|m| m.1) else { return };
        let mut position = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for (i, (client, command)) in ledger.history.iter().enumerate() {
            if position.insert((*client, command.nonce), i).is_some() {
                self.object(format!("operation {} of {client} was executed twice", command.nonce));
            }
            if *client == ROGUE {
                match self.rogue.get(&command.nonce) {
                    None => self.object("a command was executed that the faulty client never signed".into()),
                    Some(t) if numbers.insert(*t, command.nonce).is_some() => {
                        self.object(format!("two requests under the number {t} of the faulty client"));
                    }
                    Some(_) => {}
                }
            }
            if *client != ROGUE && !self.operations.contains_key(&(*client, command.nonce)) {
                self.object(format!("operation {} of {client} was executed, never submitted", command.nonce));
            }
        }
        let expected = results(&ledger.history);
        let mut objections = Vec::new();
        let mut ends = Vec::new();
        for ((client, nonce), operation) in &self.operations {
            let Some((at, result)) = &operation.completed else { continue };
            let Some(i) = position.get(&(*client, *nonce)) else {
                objections.push(format!("acknowledged operation {nonce} of {client} is lost"));
                continue;
            };
            if expected[*i] != *result {
                objections.push(format!("operation {nonce} of {client} gave a wrong result"));
            }
            ends.push((*at, *i));
        }
        // Real-time order: what completed before another was submitted comes before it.
        ends.sort_unstable();
        let mut highest = Vec::new();
        for (at, i) in ends {
            let so_far = highest.last().map_or(0, |(_, h): &(Time, usize)| *h);
            highest.push((at, i.max(so_far)));
        }
        for ((client, nonce), operation) in &self.operations {
            let Some(i) = position.get(&(*client, *nonce)) else { continue };
            let before = highest.partition_point(|(at, _)| *at < operation.submitted);
            if before > 0 && highest[before - 1].1 >= *i {
                objections.push(format!("operation {nonce} of {client} was ordered before an older one"));
            }
        }
        // A read sees what was completed before it began, and nothing that was submitted after it ended; and one
        // that began after another had ended sees no less.
        let mut seen: Vec<(Time, usize)> = self.reads.iter().map(|r| (r.ended, r.size)).collect();
        seen.sort_unstable();
        for at in 1..seen.len() {
            seen[at].1 = seen[at].1.max(seen[at - 1].1);
        }
        for Read { client, began, ended, size } in &self.reads {
            let below = |ends: &[(Time, usize)]| {
                let before = ends.partition_point(|(at, _)| at < began);
                before.checked_sub(1).map(|last| ends[last].1)
            };
            if below(&highest).is_some_and(|i| i >= *size) || below(&seen).is_some_and(|s| s > *size) {
                objections.push(format!("reads: {client} read an old state, of {size} commands"));
            }
            let later = |((client, nonce), operation): (&(PeerId, u64), &Operation)| {
                operation.submitted > *ended && position.get(&(*client, *nonce)).is_some_and(|i| i < size)
            };
            if *size > ledger.history.len() || self.operations.iter().any(later) {
                objections.push(format!("reads: {client} read a state of {size} commands too early"));
            }
        }
        for (client, delivered) in &self.delivered {
            let pushed = ledger.pushed.get(client).map_or(&[][..], |p| &p[..]);
            for (seq, body) in delivered {
                if pushed.get(*seq as usize - 1) != Some(body) {
                    objections.push(format!("client {client} got a notification {seq} never pushed"));
                }
            }
            if delivered.len() != pushed.len() {
                objections.push(format!(
                    "client {client} got {} of {} notifications",
                    delivered.len(),
                    pushed.len()
                ));
            }
        }
        for objection in objections {
            self.object(objection);
        }
    }
}
