//! Byzantine members: real replicas of which an adversary changes, keeps back, doubles or invents what they send.

mod client;
mod lies;

pub(crate) use client::Rogue;

use crate::SimKeys;
use crate::plan::Strategy;
use cl_base::{PeerId, Rng};
use lies::{lie, noise, resign, twist_new_view};
use replication_proto::message::{self, Checkpoint, Message, StatePart, ViewChange, Vote, forge};
use replication_proto::{CheckpointProof, Config, Digest, Keys, MemberId, VoteAuthentication};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Frames that a replaying member remembers.
const MEMORY: usize = 500;

/// Positions with a double proposal that are remembered.
const PLOTS_MAX: usize = 1000;

/// A frame that a Byzantine member really sends.
pub(crate) struct Packet {
    pub(crate) to: PeerId,
    pub(crate) bytes: Vec<u8>,
    /// It is kept back for so long.
    pub(crate) later: Duration,
}

/// What Byzantine members agree on among each other.
pub(crate) struct Plot {
    /// To which members the second of two proposals goes, a bit for each; also how twins part the world.
    split: u64,
    /// For either of two proposals for a position both: the one for the first part and that for the second.
    doubles: BTreeMap<Vote, (Vote, Vote)>,
}

impl Plot {
    pub(crate) fn new(split: u64) -> Plot {
        Plot { split, doubles: BTreeMap::new() }
    }

    fn second(&self, config: &Config, to: PeerId) -> bool {
        config.member(to).is_some_and(|m| self.split >> m.0 & 1 == 1)
    }

    /// With whom a twin talks: clients with both, members with one of them.
    pub(crate) fn is_twins(&self, config: &Config, twin: usize, peer: PeerId) -> bool {
        config.member(peer).is_none() || usize::from(self.second(config, peer)) == twin
    }
}

/// Sits between a Byzantine member and the network.
pub(crate) struct Adversary {
    me: MemberId,
    config: Config,
    keys: SimKeys,
    rng: Rng,
    pub(crate) strategies: Vec<Strategy>,
    memory: Vec<Vec<u8>>,
    /// Whom a courting member favours and a shunning one ignores, a bit for each member.
    chosen: u64,
}

impl Adversary {
    pub(crate) fn new(seed: u64, config: &Config, me: MemberId, strategies: Vec<Strategy>) -> Adversary {
        let mut rng = Rng::new(seed ^ 0xbad ^ u64::from(me.0) << 32);
        Adversary {
            me,
            keys: SimKeys::new(seed, config.peer(me)),
            config: config.clone(),
            strategies,
            memory: Vec::new(),
            chosen: if rng.chance(1, 2) { 1 << rng.below(config.n() as u64) } else { rng.next_u64() },
            rng,
        }
    }

    /// It works in another epoch.
    pub(crate) fn follow(&mut self, config: &Config) {
        self.config = config.clone();
    }

    /// What it receives can be sent again by it.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        if self.strategies.contains(&Strategy::Replaying) {
            self.remember(bytes);
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        if self.memory.len() < MEMORY {
            self.memory.push(bytes.to_vec());
        } else {
            let at = self.rng.below(MEMORY as u64) as usize;
            self.memory[at] = bytes.to_vec();
        }
    }

    /// What becomes of a frame that the replica (or one of the twins) sends. `did` is told of each fault.
    pub(crate) fn sends(
        &mut self,
        plot: &mut Plot,
        twin: usize,
        to: PeerId,
        bytes: Vec<u8>,
        did: &mut impl FnMut(&'static str),
    ) -> Vec<Packet> {
        let mut packets = vec![Packet { to, bytes, later: Duration::ZERO }];
        for strategy in self.strategies.clone() {
            let before = std::mem::take(&mut packets);
            for packet in before {
                self.apply(strategy, plot, twin, packet, &mut packets, did);
            }
        }
        packets
    }

    fn apply(
        &mut self,
        strategy: Strategy,
        plot: &mut Plot,
        twin: usize,
        mut packet: Packet,
        out: &mut Vec<Packet>,
        did: &mut impl FnMut(&'static str),
    ) {
        let chosen = self.config.member(packet.to).is_some_and(|m| self.chosen >> m.0 & 1 == 1);
        match strategy {
            Strategy::Silent => return did("messages withheld"),
            Strategy::Shunning if chosen => return did("messages withheld"),
            Strategy::Lying if self.rng.chance(1, 5) => {
                did("lies");
                self.lie(&mut packet);
            }
            Strategy::Misinforming if self.is(&packet, is_information) && self.rng.chance(1, 2) => {
                did("wrong states and bodies");
                self.lie(&mut packet);
            }
            Strategy::Boasting if self.is(&packet, is_boast) => {
                did("boasts");
                self.lie(&mut packet);
            }
            Strategy::Garbling if self.rng.chance(1, 5) => {
                did("garbled messages");
                if self.rng.chance(1, 4) {
                    packet.bytes = (0..self.rng.below(600)).map(|_| self.rng.next_u64() as u8).collect();
                } else {
                    garble(&mut self.rng, &mut packet.bytes);
                }
            }
            Strategy::Twins => {
                if !plot.is_twins(&self.config, twin, packet.to) {
                    return;
                }
                did("messages of twins");
            }
            Strategy::Equivocating if self.equivocate(plot, &mut packet) => did("equivocations"),
            Strategy::Courting if !chosen && self.is(&packet, is_vote) => return did("messages withheld"),
            Strategy::Courting => self.forget_prepared(&mut packet),
            Strategy::Replaying => {
                if self.rng.chance(1, 4)
                    && let Some(old) = self.rng.pick(&self.memory).cloned()
                {
                    did("replays");
                    out.push(Packet { to: self.anybody(), bytes: old, later: Duration::ZERO });
                }
                self.remember(&packet.bytes);
            }
            Strategy::Hoarding if self.is(&packet, is_weighty) && self.rng.chance(1, 3) => {
                did("messages kept back");
                packet.later = Duration::from_millis(self.rng.within(30, 3_000));
            }
            Strategy::Usurping => {
                if self.is(&packet, |m| matches!(m, Message::NewView(_))) {
                    did("new views corrupted");
                    if plot.second(&self.config, packet.to) {
                        return;
                    }
                    self.twist_new_view(&mut packet);
                }
                self.forget_prepared(&mut packet);
            }
            Strategy::Flooding if self.rng.chance(1, 3) => {
                did("floods");
                let invented = self.invent();
                let to = self.anybody();
                out.push(Packet {
                    to,
                    bytes: message::encode(&self.config, &invented),
                    later: Duration::ZERO,
                });
            }
            _ => {}
        }
        out.push(packet);
    }

    fn anybody(&mut self) -> PeerId {
        *self.rng.pick(&self.config.members).expect("a group has members")
    }

    fn is(&self, packet: &Packet, kind: impl Fn(&Message) -> bool) -> bool {
        message::decode(&self.config, &packet.bytes).is_ok_and(|message| kind(&message))
    }

    fn lie(&mut self, packet: &mut Packet) {
        packet.bytes = lie(&mut self.rng, &self.config, self.me, &self.keys, &packet.bytes);
    }

    /// Shows the second part of the members another proposal than the first part, and each part votes for its own.
    fn equivocate(&mut self, plot: &mut Plot, packet: &mut Packet) -> bool {
        let Ok(mut message) = message::decode(&self.config, &packet.bytes) else { return false };
        let second = plot.second(&self.config, packet.to);
        match &mut message {
            Message::PrePrepare { vote, signature, body: Some(batch) } if second => {
                let first = *vote;
                Arc::make_mut(batch).time += Duration::from_nanos(1);
                let body = Some(batch.clone());
                vote.digest = forge::digest_of_body(&self.config, vote.rsn, &body);
                *signature = signature
                    .map(|_| self.keys.sign(&forge::pre_prepare_statement(&self.config, self.me, vote).0));
                plot.doubles.insert(first, (first, *vote));
                plot.doubles.insert(*vote, (first, *vote));
                while plot.doubles.len() > PLOTS_MAX {
                    plot.doubles.pop_first();
                }
            }
            Message::Prepare { vote, signature } => {
                let Some((a, b)) = plot.doubles.get(vote) else { return false };
                *vote = if second { *b } else { *a };
                *signature = signature
                    .map(|_| self.keys.sign(&forge::prepare_statement(&self.config, self.me, vote).0));
            }
            Message::Commit(vote) => {
                let Some((a, b)) = plot.doubles.get(vote) else { return false };
                *vote = if second { *b } else { *a };
            }
            _ => return false,
        }
        packet.bytes = message::encode(&self.config, &message);
        true
    }

    /// Takes nothing along into a new view.
    fn forget_prepared(&self, packet: &mut Packet) {
        if let Ok(Message::ViewChange(signed)) = message::decode(&self.config, &packet.bytes)
            && signed.sender == self.me
        {
            let body = ViewChange { prepared: Vec::new(), ..signed.body };
            let message = Message::ViewChange(resign(&self.config, self.me, &self.keys, body));
            packet.bytes = message::encode(&self.config, &message);
        }
    }

    fn twist_new_view(&mut self, packet: &mut Packet) {
        if let Ok(Message::NewView(signed)) = message::decode(&self.config, &packet.bytes)
            && signed.sender == self.me
            && self.rng.chance(1, 2)
        {
            let mut body = signed.body;
            twist_new_view(&mut self.rng, &mut body);
            let message = Message::NewView(resign(&self.config, self.me, &self.keys, body));
            packet.bytes = message::encode(&self.config, &message);
        }
    }

    /// A well-formed message of nothing that is there, to fill tables with.
    fn invent(&mut self) -> Message {
        let rng = &mut self.rng;
        let rsn = if rng.chance(1, 2) { rng.below(200) } else { rng.next_u64() };
        let view = if rng.chance(1, 2) { rng.below(40) } else { rng.next_u64() };
        let vote = Vote { view, tag: Digest::default(), rsn, digest: noise(rng) };
        let (config, me, keys) = (&self.config, self.me, &self.keys);
        let signed = config.votes == VoteAuthentication::Signed;
        match rng.below(8) {
            0 => Message::Commit(vote),
            1 => {
                let signature = signed.then(|| keys.sign(&forge::prepare_statement(config, me, &vote).0));
                Message::Prepare { vote, signature }
            }
            2 => {
                let signature = signed.then(|| keys.sign(&forge::pre_prepare_statement(config, me, &vote).0));
                Message::PrePrepare { vote, signature, body: None }
            }
            3 => {
                let rsn = rsn / config.checkpoint_interval * config.checkpoint_interval;
                let body = Checkpoint { rsn, digest: vote.digest, ends: None };
                Message::Checkpoint(resign(config, me, keys, body))
            }
            4 => {
                let stable = CheckpointProof::default();
                let body = ViewChange { view, stable, prepared: Vec::new(), voted: Vec::new() };
                Message::ViewChange(resign(config, me, keys, body))
            }
            5 => Message::FetchBatch { rsn, digest: vote.digest },
            6 => {
                Message::FetchViewChange { view, member: MemberId(rng.below(256) as u8), digest: vote.digest }
            }
            _ => {
                let part = StatePart::Pages { first: rng.next_u64() as u32, count: rng.next_u64() as u32 };
                Message::FetchState { rsn, digest: vote.digest, part }
            }
        }
    }
}

fn is_vote(message: &Message) -> bool {
    matches!(message, Message::Prepare { .. } | Message::Commit(_))
}

fn is_weighty(message: &Message) -> bool {
    is_vote(message)
        || matches!(
            message,
            Message::PrePrepare { .. }
                | Message::ViewChange(_)
                | Message::NewView(_)
                | Message::Checkpoint(_)
                | Message::Stable(_)
        )
}

fn is_information(message: &Message) -> bool {
    matches!(message, Message::State { .. } | Message::BatchBody { .. })
}

fn is_boast(message: &Message) -> bool {
    matches!(message, Message::Status(_) | Message::Checkpoint(_))
}

/// Flips a few bits.
fn garble(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..rng.within(1, 4) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
}
