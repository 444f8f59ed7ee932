//! The barrier among the nodes of one attempt, and the keys that travel with it.
//!
//! When all ranks of a node have entered the barrier, its agent sends the pairs they put since the last one
//! to the root, the agent of node 0 of the attempt (*contribution*). When the root has heard all nodes, it
//! sends all pairs to every node (*release*). Both are cut into chunks that fit a management message.
//!
//! Nothing depends on the order, and everything can be lost or come twice: a node that waits repeats its
//! contribution when [`Exchange::resend`] is called, and the root answers a repeated contribution to the
//! barrier it released last with the release. No node can be further back than that one, because the root
//! passes a barrier only with everybody's contribution.

use super::wire::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::api::Attempt;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::codec::{self, DecodeError};
use std::collections::{BTreeMap, VecDeque};

/// Largest encoded [`NodeMessage`]: with the headers below it still fits one datagram.
pub const NODE_MESSAGE_BYTES_MAX: usize = 48 * 1024;
/// Bytes of pairs in one message: what is left of it is for the fields around them.
const CHUNK_BYTES_MAX: usize = NODE_MESSAGE_BYTES_MAX - 64;
/// Bytes of keys and values that one rank may put in its life, on the average of its node.
///
/// UCX publishes about 5 KiB for each interface of a node, libfabric 30 bytes; an exchange among 1,000 ranks
/// that use it up takes 128 MiB at the root.
pub const PUT_BYTES_PER_RANK_MAX: u64 = 128 * 1024;

/// A key and its value.
pub type Pair = (String, String);

/// What a pair takes of the allowance and of a message.
pub(super) fn pair_bytes((key, value): &Pair) -> u64 {
    (key.len() + value.len() + 8) as u64
}

/// Whether a string can stand in a line of the protocol: it goes out to ranks as it came in.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_valid((key, value): &Pair) -> bool {
    is_word(key) && key.len() <= KEY_BYTES_MAX && is_value(value)
}

/// Whether a string can be a value: empty ones are allowed.
pub(super) fn is_value(text: &str) -> bool {
    (text.is_empty() || is_word(text)) && text.len() <= VALUE_BYTES_MAX
}

/// Which way the pairs of a message go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Direction {
    /// From a node whose ranks have all entered the barrier to the root.
    Contribution,
    /// From the root to every node.
    Release,
}

/// A message between two agents that run ranks of the same attempt.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NodeMessage {
    /// Whose ranks.
    pub attempt: Attempt,
    /// Which of the attempt's barriers, from 1.
    pub barrier: u64,
    /// Contribution or release.
    pub direction: Direction,
    /// The place of this chunk, from 0.
    pub chunk: u32,
    /// How many chunks there are, at least 1.
    pub chunks: u32,
    /// Pairs put since the last barrier.
    pub puts: Vec<Pair>,
}

impl NodeMessage {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a message that another agent sent.
    ///
    /// # Errors
    /// If the bytes are too many or not exactly one message.
    pub fn decode(bytes: &[u8]) -> Result<NodeMessage, DecodeError> {
        codec::decode_bounded(bytes, NODE_MESSAGE_BYTES_MAX)
    }
}

/// Messages from other agents that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Of another attempt.
    pub attempt: u64,
    /// A release that is not from the root, a contribution that is not for us, or a node of another job.
    pub sender: u64,
    /// Of a barrier that is long over or cannot have begun. Repeated messages are among these.
    pub barrier: u64,
    /// Chunks that contradict each other, pairs that cannot be handed to a rank.
    pub malformed: u64,
    /// More pairs than the sender's ranks may put.
    pub allowance: u64,
}

/// Why a chunk was not taken.
enum ChunkError {
    Malformed,
    Allowance,
}

/// Chunks on the way to being a whole.
#[derive(Debug, Default)]
struct Assembly {
    chunks: u32,
    have: BTreeMap<u32, Vec<Pair>>,
}

impl Assembly {
    fn is_complete(&self) -> bool {
        self.chunks > 0 && self.have.len() == self.chunks as usize
    }

    /// Takes a chunk that may have been here before; its bytes are taken off the sender's `allowance`.
    ///
    /// Only a lone chunk may be empty, so that the allowance bounds the number of chunks too.
    fn insert(&mut self, message: NodeMessage, allowance: &mut u64) -> Result<(), ChunkError> {
        let NodeMessage { chunk, chunks, puts, .. } = message;
        let contradicts = self.chunks > 0 && chunks != self.chunks;
        if chunk >= chunks || contradicts || (puts.is_empty() && chunks > 1) || !puts.iter().all(is_valid) {
            return Err(ChunkError::Malformed);
        }
        if self.have.contains_key(&chunk) {
            return Ok(());
        }
        let bytes = puts.iter().map(pair_bytes).sum();
        *allowance = allowance.checked_sub(bytes).ok_or(ChunkError::Allowance)?;
        self.chunks = chunks;
        self.have.insert(chunk, puts);
        Ok(())
    }

    fn into_pairs(self) -> impl Iterator<Item = Pair> {
        self.have.into_values().flatten()
    }
}

/// What the exchange wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to the agent of the node with this index.
    Send {
        /// Index of the node in the attempt's placement.
        to: usize,
        /// What.
        message: NodeMessage,
    },
    /// All ranks of the attempt have entered the barrier; these pairs were put since the last one.
    Released {
        /// From all nodes, in the order of nodes.
        puts: Vec<Pair>,
    },
}

/// One node's side of the barriers of one attempt.
#[derive(Debug)]
pub struct Exchange {
    attempt: Attempt,
    me: usize,
    /// Barriers that were released here.
    passed: u64,
    /// What this node contributed to the barrier it waits in.
    waiting: Option<Vec<NodeMessage>>,
    /// The root: what each node contributed to the next barrier, and may still put. Elsewhere: the release
    /// that is coming in, alone.
    inbox: Vec<Assembly>,
    allowance: Vec<u64>,
    /// The root's last release, for nodes that missed it.
    released: Vec<NodeMessage>,
    refusals: Refusals,
    outputs: VecDeque<Output>,
}

const ROOT: usize = 0;

impl Exchange {
    /// The exchange of `attempt` as node `me` takes part in it; `ranks[i]` is the number of ranks on node i.
    ///
    /// # Panics
    /// If `me` is not one of the nodes.
    pub fn new(attempt: Attempt, me: usize, ranks: &[u32]) -> Exchange {
        assert!(me < ranks.len(), "node {me} is not one of the {} of the attempt", ranks.len());
        let allowance_of = |ranks: u64| ranks * PUT_BYTES_PER_RANK_MAX;
        let allowance: Vec<u64> = match me {
            ROOT => ranks.iter().map(|r| allowance_of(u64::from(*r))).collect(),
            _ => vec![allowance_of(ranks.iter().map(|r| u64::from(*r)).sum())],
        };
        Exchange {
            attempt,
            me,
            passed: 0,
            waiting: None,
            inbox: allowance.iter().map(|_| Assembly::default()).collect(),
            allowance,
            released: Vec::new(),
            refusals: Refusals::default(),
            outputs: VecDeque::new(),
        }
    }

    /// All local ranks have entered the next barrier, having put `puts` since the last one.
    ///
    /// # Panics
    /// If this node waits in a barrier already, or if the pairs are over its ranks' allowance or not valid:
    /// the caller has checked them.
    pub fn enter(&mut self, puts: Vec<Pair>) {
        assert!(self.waiting.is_none(), "barrier {} is entered while it is waited in", self.passed + 1);
        let messages = self.messages(self.passed + 1, Direction::Contribution, puts);
        self.waiting = Some(messages.clone());
        if self.me != ROOT {
            return self.send_all(ROOT, &messages);
        }
        for message in messages {
            let taken = self.inbox[ROOT].insert(message, &mut self.allowance[ROOT]);
            assert!(taken.is_ok(), "pairs of local ranks were not checked");
        }
        self.release_if_all_are_in();
    }

    /// Whether this node waits for others.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Repeats what others may have missed. To be called from time to time while [`Exchange::is_waiting`].
    pub fn resend(&mut self) {
        if let (Some(messages), true) = (self.waiting.clone(), self.me != ROOT) {
            self.send_all(ROOT, &messages);
        }
    }

    /// A message of the agent of node `from`, whose identity has been verified.
    pub fn on_message(&mut self, from: usize, message: NodeMessage) {
        if message.attempt != self.attempt {
            self.refusals.attempt += 1;
            return;
        }
        let (slot, expected) = match message.direction {
            Direction::Contribution => (from, self.me == ROOT && from != ROOT && from < self.inbox.len()),
            Direction::Release => (0, self.me != ROOT && from == ROOT),
        };
        if !expected {
            self.refusals.sender += 1;
            return;
        }
        // A release cannot come before our contribution went out; a contribution may be before our own.
        let is_early = message.direction == Direction::Release && self.waiting.is_none();
        if message.barrier != self.passed + 1 || is_early {
            self.refusals.barrier += 1;
            let asks_again = message.direction == Direction::Contribution
                && message.barrier == self.passed
                && message.chunk == 0;
            if asks_again {
                let released = self.released.clone();
                self.send_all(from, &released);
            }
            return;
        }
        match self.inbox[slot].insert(message, &mut self.allowance[slot]) {
            Ok(()) => self.release_if_all_are_in(),
            Err(ChunkError::Malformed) => self.refusals.malformed += 1,
            Err(ChunkError::Allowance) => self.refusals.allowance += 1,
        }
    }

    /// The next thing to do; to be called until it returns `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Messages refused so far.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    fn release_if_all_are_in(&mut self) {
        if self.waiting.is_none() || !self.inbox.iter().all(Assembly::is_complete) {
            return;
        }
        let puts: Vec<Pair> = self.inbox.iter_mut().flat_map(|a| std::mem::take(a).into_pairs()).collect();
        self.waiting = None;
        self.passed += 1;
        if self.me == ROOT {
            self.released = self.messages(self.passed, Direction::Release, puts.clone());
            let released = self.released.clone();
            for node in 1..self.inbox.len() {
                self.send_all(node, &released);
            }
        }
        self.outputs.push_back(Output::Released { puts });
    }

    fn send_all(&mut self, to: usize, messages: &[NodeMessage]) {
        self.outputs.extend(messages.iter().map(|m| Output::Send { to, message: m.clone() }));
    }

    /// Cuts `puts` into messages of bounded size; no pairs make one empty message.
    fn messages(&self, barrier: u64, direction: Direction, puts: Vec<Pair>) -> Vec<NodeMessage> {
        let mut chunks: Vec<Vec<Pair>> = vec![Vec::new()];
        let mut bytes = 0;
        for pair in puts {
            let more = pair_bytes(&pair);
            if bytes + more > CHUNK_BYTES_MAX as u64 {
                chunks.push(Vec::new());
                bytes = 0;
            }
            bytes += more;
            chunks.last_mut().expect("there is always a last chunk").push(pair);
        }
        let total = u32::try_from(chunks.len()).expect("the allowance bounds the number of chunks");
        let message = |(chunk, puts)| NodeMessage {
            attempt: self.attempt,
            barrier,
            direction,
            chunk,
            chunks: total,
            puts,
        };
        (0..total).zip(chunks).map(message).collect()
    }
}
