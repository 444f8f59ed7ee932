//! The code of `replication` under the model checker, for f = 1.
//!
//! A step hands one correct member all that one effect needs (the votes that make a certificate, a NEW-VIEW with
//! its VIEW-CHANGEs), so that the states between are not multiplied; since anything may be delayed, that loses
//! nothing. A member is the list of its inputs, replayed through [`replication_proto::Replica`]. Two members that
//! said and did the same are the same, whatever else they remember.

mod arena;
mod forge;
mod steps;

pub use steps::Step;

use arena::{Arena, Fact};
use cl_base::{PeerId, Time};
use replication_proto::message::{self, forge as statements};
use replication_proto::message::{Batch, Body, Proof, Request, RequestKind};
use replication_proto::{Config, Digest, Keys, MemberId, Mutation, VoteAuthentication};
use replication_sim::SimKeys;
use stateright::{Model, Property};
use std::sync::{Arc, Mutex};

/// Members of a group with f = 1.
const N: usize = 4;

/// The clock of all members stands still; timers fire at will.
const NOW: Time = Time::from_nanos(1_000_000_000_000);

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The Byzantine member.
    pub byzantine: usize,
    /// Views 0 to this, exclusive.
    pub views: u64,
    /// Positions of the order.
    pub rsns: u64,
    /// The spares may be asked, too.
    pub wide: bool,
    /// Mode S or M.
    pub votes: VoteAuthentication,
    /// Correct members may restart with their records, once each.
    pub restarts: bool,
    /// A rule to break.
    pub mutation: Option<Mutation>,
}

/// The model.
pub struct Real {
    bounds: Bounds,
    config: Config,
    /// The bodies that are proposed at each position: of client A or of client B.
    letters: [Request; 2],
    arena: Mutex<Arena>,
}

/// Where each correct member stands: a number of the [`Arena`]; 0 for the Byzantine one.
pub type State = [u32; N];

impl Real {
    /// A group within these bounds.
    pub fn new(bounds: Bounds) -> Real {
        let members: Vec<PeerId> = (0..N as u32).map(|i| PeerId::new(10 + i, 0)).collect();
        let mut config = Config::new(1, members).expect("four members are a group");
        config.votes = bounds.votes;
        config.mutation = bounds.mutation;
        let letters = [50, 51].map(|client| request(&config, PeerId::new(client, 0)));
        let arena = Mutex::new(Arena::new(&config));
        Real { bounds, config, letters, arena }
    }

    fn body(&self, letter: usize) -> Body {
        Some(Arc::new(Batch { time: NOW, requests: vec![self.letters[letter].clone()] }))
    }

    fn digest(&self, rsn: u64, letter: usize) -> Digest {
        statements::digest_of_body(&self.config, rsn, &self.body(letter))
    }

    fn request_frame(&self, letter: usize) -> Vec<u8> {
        message::encode(&self.config, &message::Message::Request(self.letters[letter].clone()))
    }

    fn correct(&self) -> impl Iterator<Item = usize> + use<> {
        let byzantine = self.bounds.byzantine;
        (0..N).filter(move |i| *i != byzantine)
    }

    /// What a client takes as done with two phases (PROTOCOL.md 2.13): q members answered what they had prepared in one
    /// view, one of them the Byzantine one, which says anything.
    fn acknowledged(&self, arena: &Arena, state: &State) -> Vec<(u64, Digest)> {
        let weakened = self.bounds.mutation == Some(Mutation::WeakTentativeQuorum);
        let correct = if weakened { self.config.weak() } else { self.config.quorum() } - 1;
        let prepared = |(_, fact): (_, &Fact)| match fact {
            Fact::Commit(vote) => Some(*vote),
            _ => None,
        };
        let mut votes: Vec<_> =
            self.correct().flat_map(|i| arena.facts_of(state[i]).filter_map(prepared)).collect();
        votes.sort_unstable();
        votes
            .chunk_by(|a, b| a == b)
            .filter(|c| c.len() >= correct)
            .map(|c| (c[0].rsn, c[0].digest))
            .collect()
    }

    /// Whether no read that would be accepted now misses what one correct member has answered for: the Byzantine one
    /// says whatever the client needs, in both cases (PROTOCOL.md 2.12).
    fn reads_see_all(&self, arena: &Arena, state: &State) -> bool {
        let replied = |(_, fact): (_, &Fact)| match fact {
            Fact::Replied(rsn) => Some(*rsn),
            _ => None,
        };
        let answered: Vec<u64> =
            self.correct().flat_map(|i| arena.facts_of(state[i]).filter_map(replied)).collect();
        let sees = |i: usize| {
            let executed = &arena.node(state[i]).executed;
            answered.iter().all(|rsn| executed.iter().any(|(done, _)| done == rsn))
        };
        let weakened = self.bounds.mutation == Some(Mutation::WeakReadQuorum);
        self.correct().filter(|i| arena.node(state[*i]).reads && !sees(*i)).all(|blind| {
            let (node, active) =
                (arena.node(state[blind]), self.config.active(arena.node(state[blind]).view));
            let alike = |i: usize| {
                let other = arena.node(state[i]);
                other.reads
                    && (other.view, other.tag) == (node.view, node.tag)
                    && other.executed == node.executed
            };
            !weakened && !self.correct().filter(|i| active.contains(&MemberId(*i as u8))).all(alike)
        })
    }

    fn arena(&self) -> std::sync::MutexGuard<'_, Arena> {
        self.arena.lock().expect("nobody panics with the arena in its hands")
    }
}

fn request(config: &Config, client: PeerId) -> Request {
    let mut request = Request {
        client,
        t: 1,
        notified: 0,
        kind: RequestKind::Operation,
        op: b"x".to_vec(),
        proof: Proof::Signed([0; 64]),
    };
    let keys = SimKeys::new(config.group, client);
    request.proof = Proof::Signed(keys.sign(&statements::request_statement(config, &request).0));
    request
}

impl Model for Real {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut arena = self.arena();
        let mut state = [0; N];
        for i in self.correct() {
            state[i] = arena.beginning(i);
        }
        vec![state]
    }

    fn actions(&self, state: &State, out: &mut Vec<Step>) {
        steps::enumerate(self, state, out);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = *last;
        let member = step.member();
        next[member] = steps::take(self, last[member], &step)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |m: &Real, state: &State| {
                let arena = m.arena();
                let mut executed: Vec<(u64, Digest)> =
                    m.correct().flat_map(|i| arena.node(state[i]).executed.iter().copied()).collect();
                executed.sort_unstable();
                executed.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 == pair[1].1)
            }),
            Property::always("what is acknowledged in two phases stays", |m: &Real, state: &State| {
                let arena = m.arena();
                let mut settled: Vec<(u64, Digest)> =
                    m.correct().flat_map(|i| arena.node(state[i]).executed.iter().copied()).collect();
                settled.extend(m.acknowledged(&arena, state));
                settled.sort_unstable();
                settled.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 == pair[1].1)
            }),
            Property::always("reads see what is acknowledged", |m: &Real, state: &State| {
                m.reads_see_all(&m.arena(), state)
            }),
            Property::always("no correct member stops", |m: &Real, state: &State| {
                let arena = m.arena();
                m.correct().all(|i| !arena.node(state[i]).halted)
            }),
            // Not a rule: shows that the search gets that far.
            Property::sometimes("a batch is executed in the last view", |m: &Real, state: &State| {
                let arena = m.arena();
                m.correct().any(|i| {
                    let node = arena.node(state[i]);
                    node.normal && node.view + 1 == m.bounds.views && !node.executed.is_empty()
                })
            }),
        ]
    }
}
