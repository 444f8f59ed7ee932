//! One member of a group.
//!
//! The parts, each an `impl` block in its own file: `ordering` (PROTOCOL.md 2.5), `execution` (replies and
//! notifications), `reads` (2.12), `unheard` (clients that get too few), `checkpoint` (2.6), `transfer` (2.7), `view_change` and `decision` (2.8), `timer` (2.9 and widening),
//! `status` (retransmission, 2.4), `recover` (2.14), `tentative` (execution before the commit, 2.13),
//! `epoch` (2.15).

mod checkpoint;
mod decision;
mod epoch;
mod execution;
mod holdings;
mod ordering;
mod pending;
mod reads;
mod recover;
mod status;
mod tentative;
mod timer;
mod transfer;
mod unheard;
mod view_change;

#[cfg(test)]
mod tests;
/// The same tests with votes that the channel authenticates: the name of the module chooses the mode.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
#[path = "tests/mod.rs"]
mod tests_mode_m;

use crate::certificate::CheckpointProof;
use crate::config::{Config, MemberId, Rsn, View};
use crate::effect::{Effect, Event};
use crate::epoch::Replacement;
use crate::keys::{Authority, Digest, Keys};
use crate::log::Log;
use crate::machine::StateMachine;
use crate::merkle::Snapshot;
use crate::message::{self, Checkpoint, Message, NewView, Signed, ViewChange};
use crate::mutation::Mutation;
use crate::session::Sessions;
use crate::storage::{InstalledView, Record};
use cl_base::{PeerId, Time};
pub use holdings::Holding;
use pending::{Pending, SignatureOnly};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timer::Timers;
use transfer::Transfer;

/// Whether a member works in its view or waits for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes part in the view.
    Normal,
    /// Has sent VIEW-CHANGE for the view and waits for NEW-VIEW.
    Changing,
}

/// What a member is in its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Assigns positions.
    Primary,
    /// Active, not the primary.
    Backup,
    /// Not active: votes only when asked.
    Spare,
}

/// Why an input was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Not an encoding of a message.
    Malformed,
    /// Of another group or epoch.
    Foreign,
    /// From somebody who may not send this.
    Sender,
    /// A signature is wrong.
    Signature,
    /// Of a view that is over, or with the tag of another NEW-VIEW.
    View,
    /// Outside the window h < s <= h+L.
    Window,
    /// Differs from what the same member said before.
    Conflict,
    /// Breaks a rule of its kind.
    Invalid,
    /// The proposed time is too far ahead of the own clock.
    Early,
    /// A bounded queue is full.
    Full,
    /// Nobody asked for it, or no longer.
    Unasked,
}

/// How often inputs were ignored, by reason.
pub type RefusalCounters = BTreeMap<Refusal, u64>;

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Who this is.
    pub me: MemberId,
    /// v.
    pub view: View,
    /// Whether `view` is installed.
    pub mode: Mode,
    /// What the member is in `view`.
    pub role: Role,
    /// Leads `view`.
    pub primary: MemberId,
    /// A(v), ascending.
    pub active: Vec<MemberId>,
    /// Whether the spares are asked to vote.
    pub wide: bool,
    /// h, the stable checkpoint.
    pub stable: Rsn,
    /// s_exec, the last batch executed.
    pub executed: Rsn,
    /// The last one that is committed, too; less than `executed` where answers do not wait for that.
    pub committed: Rsn,
    /// The agreed time after it.
    pub time: Time,
    /// Whether a state is being fetched.
    pub transferring: bool,
    /// Requests known and not executed.
    pub pending: usize,
    /// Clients from which only signed requests are taken.
    pub signature_only: usize,
    /// Signatures verified so far.
    pub verifications: u64,
    /// Inputs ignored, by reason.
    pub refused: RefusalCounters,
    /// The epoch.
    pub epoch: u64,
    /// Whether the member is no longer in the roster.
    pub retired: bool,
    /// Why the member stopped for good, if it did.
    pub halted: Option<&'static str>,
}

/// One member of a group: a state machine that is fed messages and time and gives effects.
pub struct Replica<S> {
    config: Config,
    me: MemberId,
    authority: Authority,
    machine: S,
    now: Time,

    // The view (2.3).
    view: View,
    mode: Mode,
    tag: Digest,
    active: Vec<MemberId>,
    /// Where execution stood when the view was widened.
    wide: Option<Rsn>,
    /// maxO(v): up to here the NEW-VIEW decided what is proposed.
    max_o: Rsn,
    /// The highest position that was prepared before a restart in this view: it may have been executed and
    /// acknowledged then, and is executed again only as COMMITs are collected again.
    prepared_before: Rsn,
    /// How the current view, or the last one installed, was justified.
    installed: Option<InstalledView>,
    /// The own VIEW-CHANGE for `view`, resent verbatim.
    view_change: Option<Signed<ViewChange>>,
    /// The VIEW-CHANGE for the highest view of each member, valid ones only.
    view_changes: BTreeMap<MemberId, Signed<ViewChange>>,
    /// A NEW-VIEW that waits for VIEW-CHANGEs named in it.
    unjustified: Option<view_change::Unjustified>,
    /// Views in a row left without an executed batch (k of 2.9).
    fruitless: u32,
    /// Batches executed since the view was installed, and since `fruitless` fell last.
    executed_in_view: u64,
    executed_since_fall: u64,

    // The order.
    log: Log,
    stable: CheckpointProof,
    executed: Rsn,
    /// The epoch ends with what was executed last: nothing follows in it.
    ended: Option<Replacement>,
    /// How the epochs before this one ended, the last one last.
    certificates: Vec<CheckpointProof>,
    /// Not in the roster any more.
    retired: bool,
    /// Last position assigned or carried over; meaningful at the primary.
    last_assigned: Rsn,
    last_proposed_time: Time,
    pending: Pending,
    signature_only: SignatureOnly,
    unheard: unheard::Unheard,
    /// Votes that arrived before the NEW-VIEW of their view.
    early: VecDeque<(MemberId, Message)>,

    // Replicated state beside the machine.
    sessions: Sessions,
    time: Time,
    /// The digest of all batches executed, in order.
    history: Digest,
    /// What of it is not committed.
    tentative: tentative::Tentatives,

    // Checkpoints.
    claims: BTreeMap<MemberId, BTreeMap<Rsn, Signed<Checkpoint>>>,
    snapshots: BTreeMap<Rsn, Arc<Snapshot>>,
    transfer: Option<Transfer>,

    timers: Timers,
    effects: VecDeque<Effect>,
    refused: RefusalCounters,
    halted: Option<&'static str>,
}

impl<S: StateMachine> Replica<S> {
    /// A member at the beginning of a new group, with nothing to remember; or a newcomer in the epoch that begins with
    /// it, which fetches the state ([`Client::config`](crate::Client::config) has the configuration).
    ///
    /// # Panics
    /// If the configuration is invalid or `me` is not in it.
    pub fn new(config: Config, me: MemberId, keys: Box<dyn Keys>, machine: S, now: Time) -> Replica<S> {
        if let Err(e) = config.validate() {
            panic!("the configuration is invalid: {e}");
        }
        assert!(config.has(me), "member {me} is not in the roster");
        let active = config.active(0);
        let log = Log::new(config.begins.rsn, config.log_window);
        let sessions = Sessions::with_limits(&config);
        let mut replica = Replica {
            me,
            authority: Authority::new(keys),
            machine,
            now,
            view: 0,
            mode: Mode::Normal,
            tag: Digest::default(),
            active,
            wide: None,
            max_o: config.begins.rsn,
            prepared_before: 0,
            installed: None,
            view_change: None,
            view_changes: BTreeMap::new(),
            unjustified: None,
            fruitless: 0,
            executed_in_view: 0,
            executed_since_fall: 0,
            log,
            stable: CheckpointProof::beginning(&config),
            executed: 0,
            ended: None,
            certificates: Vec::new(),
            retired: false,
            last_assigned: config.begins.rsn,
            last_proposed_time: Time::ZERO,
            pending: Pending::default(),
            signature_only: SignatureOnly::default(),
            unheard: unheard::Unheard::default(),
            early: VecDeque::new(),
            sessions,
            time: Time::ZERO,
            history: Digest::default(),
            tentative: tentative::Tentatives::default(),
            claims: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            transfer: None,
            timers: Timers::new(now, me),
            effects: VecDeque::new(),
            refused: RefusalCounters::new(),
            halted: None,
            config,
        };
        replica.keep_beginning();
        replica.consider_transfer();
        replica
    }

    /// Takes in a frame from `from`, whom the transport has authenticated.
    pub fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        if self.halted.is_some() {
            return;
        }
        self.now = self.now.max(now);
        match message::decode(&self.config, bytes) {
            Ok(_) if self.retired => self.refuse(Refusal::Foreign),
            Ok(message) => self.dispatch(from, message),
            Err(message::FrameError::Malformed(_)) => self.refuse(Refusal::Malformed),
            Err(message::FrameError::Foreign(group, epoch)) if group == self.config.group => {
                self.on_foreign(from, epoch, bytes);
            }
            Err(message::FrameError::Foreign(..)) => self.refuse(Refusal::Foreign),
        }
        self.settle();
    }

    /// Does what is due by `now`.
    pub fn on_timeout(&mut self, now: Time) {
        if self.halted.is_some() || self.retired {
            return;
        }
        self.now = self.now.max(now);
        self.expire();
        self.settle();
    }

    /// When [`Replica::on_timeout`] should be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.halted.is_some() || self.retired { None } else { Some(self.earliest_timer()) }
    }

    /// The next thing to do for the host, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Where the replica stands.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            me: self.me,
            view: self.view,
            mode: self.mode,
            role: self.role(),
            primary: self.primary(),
            active: self.active.clone(),
            wide: self.wide.is_some(),
            stable: self.stable.rsn,
            executed: self.executed,
            committed: self.committed(),
            time: self.time,
            transferring: self.transfer.is_some(),
            pending: self.pending.len(),
            signature_only: self.signature_only.len(),
            verifications: self.authority.verifications,
            refused: self.refused.clone(),
            epoch: self.config.epoch,
            retired: self.retired,
            halted: self.halted,
        }
    }

    /// The replicated state machine, as executed so far.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The digest of the whole replicated state, sessions included; for comparing members in tests.
    #[doc(hidden)]
    pub fn state_digest(&self) -> Digest {
        Snapshot::new(self.executed, self.encode_state()).digest
    }

    fn dispatch(&mut self, from: PeerId, message: Message) {
        // Clients send requests, reads and pulls; everything else is between members.
        match message {
            Message::Request(request) => return self.on_request(from, request),
            Message::NotifyPull { from: seq } => return self.on_notify_pull(from, seq),
            Message::Read { nonce, op } => return self.on_read(from, nonce, &op),
            _ => {}
        }
        let Some(member) = self.config.member(from).filter(|m| *m != self.me) else {
            return self.refuse(Refusal::Sender);
        };
        match message {
            Message::PrePrepare { .. } | Message::Prepare { .. } | Message::Commit(_) => {
                self.on_vote(member, message);
            }
            Message::Checkpoint(checkpoint) => self.on_checkpoint(checkpoint),
            Message::Stable(proof) => self.on_stable(proof),
            Message::ViewChange(view_change) => self.on_view_change(view_change),
            Message::NewView(new_view) => self.on_new_view(new_view),
            Message::Widen { view, tag } => self.on_widen(member, view, tag),
            Message::Status(status) => self.on_status(member, &status),
            Message::FetchBatch { rsn, digest } => self.on_fetch_batch(member, rsn, digest),
            Message::BatchBody { rsn, body } => self.on_batch_body(rsn, body),
            Message::FetchViewChange { view, member: of, digest } => {
                self.on_fetch_view_change(member, view, of, digest);
            }
            Message::FetchState { rsn, digest, part } => self.on_fetch_state(member, rsn, digest, part),
            Message::State { rsn, digest, part, data } => self.on_state(member, rsn, digest, part, data),
            Message::Request(_)
            | Message::NotifyPull { .. }
            | Message::Read { .. }
            | Message::Reply(_)
            | Message::ReadReply(_)
            | Message::Notify(_) => {
                self.refuse(Refusal::Sender);
            }
        }
    }

    /// What follows from any input: proposals, and timers that fit the new situation.
    fn settle(&mut self) {
        if self.halted.is_none() && !self.retired {
            self.propose();
            self.update_timers();
        }
    }

    fn primary(&self) -> MemberId {
        self.config.primary(self.view)
    }

    fn role(&self) -> Role {
        if self.me == self.primary() {
            Role::Primary
        } else if self.active.contains(&self.me) {
            Role::Backup
        } else {
            Role::Spare
        }
    }

    fn normal(&self) -> bool {
        self.mode == Mode::Normal
    }

    fn is_active(&self) -> bool {
        self.role() != Role::Spare
    }

    /// Whether the state of h, or a later one, is here; without it a member votes but does not execute, reply
    /// or sign checkpoints (2.7).
    fn has_state(&self) -> bool {
        self.executed >= self.stable.rsn
    }

    fn send(&mut self, to: PeerId, message: &Message) {
        let bytes = message::encode(&self.config, message);
        self.effects.push_back(Effect::Send { to, bytes });
    }

    fn send_member(&mut self, to: MemberId, message: &Message) {
        self.send(self.config.peer(to), message);
    }

    /// Sends to every other member.
    fn broadcast(&mut self, message: &Message) {
        self.multicast(self.config.all(), message);
    }

    /// Sends what belongs to the order: to the active members, in a widened view to all (2.10). A spare that
    /// was asked to vote answers everybody.
    fn send_vote(&mut self, message: &Message) {
        if self.wide.is_some() || !self.is_active() {
            self.broadcast(message);
        } else {
            let active = std::mem::take(&mut self.active);
            self.multicast(active.iter().copied(), message);
            self.active = active;
        }
    }

    fn multicast(&mut self, to: impl Iterator<Item = MemberId>, message: &Message) {
        let mut bytes = message::encode(&self.config, message);
        let me = self.me;
        let mut to = to.filter(|m| *m != me).peekable();
        while let Some(member) = to.next() {
            let bytes = if to.peek().is_some() { bytes.clone() } else { std::mem::take(&mut bytes) };
            self.effects.push_back(Effect::Send { to: self.config.peer(member), bytes });
        }
    }

    fn persist(&mut self, record: Record) {
        self.effects.push_back(Effect::Persist(record));
    }

    fn event(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    fn refuse(&mut self, reason: Refusal) {
        *self.refused.entry(reason).or_insert(0) += 1;
    }

    /// Stops for good: what was found means more than f faulty members, or a bug (2.5, rule 6).
    fn halt(&mut self, reason: &'static str) {
        if self.halted.is_none() {
            self.halted = Some(reason);
            self.event(Event::Halted { reason });
        }
    }

    fn mutated(&self, mutation: Mutation) -> bool {
        self.config.mutated(mutation)
    }

    fn new_view_message(&self) -> Option<&Signed<NewView>> {
        self.installed.as_ref().map(|i| &i.new_view)
    }
}
