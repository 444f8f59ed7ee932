//! Members as lists of inputs, and what they said and did.

use super::NOW;
use cl_base::PeerId;
use replication_proto::message::{self, Message, Outcome, Reply, Vote};
use replication_proto::{
    Apply, Config, Digest, Effect, Event, MemberId, Mode, Record, Replica, RestoreError, Rsn, StateMachine,
    View, VoteClaim,
};
use replication_sim::SimKeys;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Something that happens to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Frame {
        from: PeerId,
        bytes: Arc<[u8]>,
    },
    /// Nothing by itself: the frames before made it follow this VIEW-CHANGE.
    Joined(FactId),
    TimeOut,
    Restart,
}

/// Something that a member said or did, as far as it matters. Who signed a certificate does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    PrePrepare(Vote),
    Prepare(Vote),
    Commit(Vote),
    ViewChange {
        view: View,
        prepared: Vec<(Rsn, View, Digest)>,
        voted: Vec<VoteClaim>,
    },
    NewView {
        view: View,
        tag: Digest,
        order: Vec<Digest>,
    },
    Installed {
        view: View,
        tag: Digest,
    },
    Widened(View),
    Executed(Rsn, Digest),
    /// Answered a client for this position.
    Replied(Rsn),
    Restarted,
    Halted(&'static str),
    /// Left its view because of this VIEW-CHANGE, which it still has.
    Joined(FactId),
}

/// The operation that is read-only.
const READ: &[u8] = b"read";

/// Messages as they travel.
pub(super) type Frames = Vec<Arc<[u8]>>;

/// Number of a fact of a member.
pub(super) type FactId = u32;

/// A member after certain inputs.
pub(super) struct Node {
    pub(super) member: usize,
    inputs: Vec<Input>,
    /// Ascending.
    pub(super) facts: Vec<FactId>,
    pub(super) view: View,
    pub(super) normal: bool,
    pub(super) tag: Digest,
    /// What the NEW-VIEW of `view` carries over.
    pub(super) order: Vec<Digest>,
    /// Is in A(view).
    pub(super) active: bool,
    pub(super) executed: Vec<(Rsn, Digest)>,
    /// Answers reads.
    pub(super) reads: bool,
    pub(super) halted: bool,
}

/// All members met so far, each once, and all facts.
pub(super) struct Arena {
    config: Config,
    nodes: Vec<Node>,
    known: BTreeMap<(usize, Vec<FactId>), u32>,
    facts: Vec<(usize, Fact, Frames)>,
    numbers: BTreeMap<(usize, Fact), FactId>,
    /// Steps taken before; `None` for those without effect.
    pub(super) taken: HashMap<(u32, super::Step), Option<u32>>,
    /// NEW-VIEWs of the Byzantine primary by the VIEW-CHANGEs in them.
    pub(super) forged: HashMap<Vec<FactId>, Option<FactId>>,
    pub(super) replays: u64,
}

/// The service: it does nothing, and whoever is asked can read it.
#[derive(Default)]
pub(super) struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: &mut Apply<'_>, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn query(&self, _: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        (op == READ).then(Vec::new)
    }
    fn advance(&mut self, _: &mut Apply<'_>) {}
    fn next_deadline(&self) -> Option<cl_base::Time> {
        None
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

impl Arena {
    pub(super) fn new(config: &Config) -> Arena {
        let nobody = Node {
            member: usize::MAX,
            inputs: Vec::new(),
            facts: Vec::new(),
            view: 0,
            normal: false,
            tag: Digest::default(),
            order: Vec::new(),
            active: false,
            executed: Vec::new(),
            reads: false,
            halted: false,
        };
        Arena {
            config: config.clone(),
            nodes: vec![nobody],
            known: BTreeMap::new(),
            facts: Vec::new(),
            numbers: BTreeMap::new(),
            taken: HashMap::new(),
            forged: HashMap::new(),
            replays: 0,
        }
    }

    pub(super) fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    /// How many different members were met.
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - 1
    }

    pub(super) fn fact(&self, id: FactId) -> &Fact {
        &self.facts[id as usize].1
    }

    /// Who said it.
    pub(super) fn speaker(&self, id: FactId) -> PeerId {
        self.config.members[self.facts[id as usize].0]
    }

    /// The frames that show a fact to others.
    pub(super) fn frames(&self, id: FactId) -> &[Arc<[u8]>] {
        &self.facts[id as usize].2
    }

    /// The number of a fact; the frames that showed it first stand for all.
    pub(super) fn note(&mut self, member: usize, fact: Fact, frames: Frames) -> FactId {
        let next = self.facts.len() as FactId;
        let id = *self.numbers.entry((member, fact.clone())).or_insert(next);
        if id == next {
            self.facts.push((member, fact, frames));
        }
        id
    }

    /// The number of a fact that was noted before.
    pub(super) fn number(&self, member: usize, fact: &Fact) -> Option<FactId> {
        self.numbers.get(&(member, fact.clone())).copied()
    }

    pub(super) fn facts_of(&self, node: u32) -> impl Iterator<Item = (FactId, &Fact)> {
        self.node(node).facts.iter().map(|id| (*id, self.fact(*id)))
    }

    pub(super) fn beginning(&mut self, member: usize) -> u32 {
        self.replay(member, Vec::new())
    }

    /// The member after these further inputs.
    pub(super) fn after(&mut self, node: u32, inputs: Vec<Input>) -> u32 {
        let mut all = self.node(node).inputs.clone();
        all.extend(inputs);
        self.replay(self.node(node).member, all)
    }

    fn keys(&self, member: usize) -> Box<SimKeys> {
        Box::new(SimKeys::new(self.config.group, self.config.members[member]))
    }

    fn replay(&mut self, member: usize, inputs: Vec<Input>) -> u32 {
        self.replays += 1;
        let id = MemberId(member as u8);
        let mut replica = Replica::new(self.config.clone(), id, self.keys(member), Nothing, NOW);
        let mut watched = Watched::default();
        for input in &inputs {
            match input {
                Input::Frame { from, bytes } => replica.on_message(NOW, *from, bytes),
                Input::Joined(change) => watched.fact(Fact::Joined(*change), Vec::new()),
                Input::TimeOut => replica.time_out(),
                Input::Restart => {
                    let (config, keys) = (self.config.clone(), self.keys(member));
                    let records = watched.records.clone().into_iter();
                    replica = Replica::recover(config, id, keys, Nothing, NOW, records)
                        .unwrap_or_else(|e| panic!("a member cannot read its own records: {e}"));
                    watched.fact(Fact::Restarted, Vec::new());
                }
            }
            while let Some(effect) = replica.poll_effect() {
                watched.effect(&self.config, id, effect);
            }
        }
        let mut facts: Vec<FactId> =
            watched.facts.into_iter().map(|(fact, frames)| self.note(member, fact, frames)).collect();
        facts.sort_unstable();
        if let Some(known) = self.known.get(&(member, facts.clone())) {
            return *known;
        }
        let status = replica.status();
        let (mut tag, mut order) = (Digest::default(), Vec::new());
        if let Some((view, t, o)) = watched.installed
            && view == status.view
        {
            (tag, order) = (t, o);
        }
        let mut executed = watched.executed;
        executed.sort_unstable();
        executed.dedup();
        let number = self.nodes.len() as u32;
        self.known.insert((member, facts.clone()), number);
        self.nodes.push(Node {
            member,
            inputs,
            facts,
            view: status.view,
            normal: status.mode == Mode::Normal,
            tag,
            order,
            active: status.active.contains(&id),
            executed,
            reads: would_read(&mut replica, &self.config),
            halted: status.halted.is_some(),
        });
        number
    }
}

/// Whether the member, whose life ends here, answers a read.
fn would_read(replica: &mut Replica<Nothing>, config: &Config) -> bool {
    let question = message::encode(config, &Message::Read { nonce: 1, op: READ.to_vec() });
    replica.on_message(NOW, PeerId::new(60, 0), &question);
    let answered = |effect| match effect {
        Effect::Send { bytes, .. } => {
            matches!(message::decode(config, &bytes), Ok(Message::ReadReply(r)) if r.answer.is_some())
        }
        _ => false,
    };
    std::iter::from_fn(|| replica.poll_effect()).any(answered)
}

/// What comes out of a replica during a replay.
#[derive(Default)]
struct Watched {
    facts: BTreeMap<Fact, Frames>,
    records: Vec<Record>,
    executed: Vec<(Rsn, Digest)>,
    /// View, tag and order of the last NEW-VIEW installed.
    installed: Option<(View, Digest, Vec<Digest>)>,
    /// The VIEW-CHANGEs that justify it.
    justification: Frames,
}

impl Watched {
    fn fact(&mut self, fact: Fact, frames: Frames) {
        self.facts.entry(fact).or_insert(frames);
    }

    fn effect(&mut self, config: &Config, me: MemberId, effect: Effect) {
        match effect {
            Effect::Persist(record) => {
                if let Record::NewView(installed) = &record {
                    let body = &installed.new_view.body;
                    let order: Vec<Digest> = body.order.iter().map(|(digest, _)| *digest).collect();
                    let tag = message::forge::tag(config, body);
                    self.installed = Some((body.view, tag, order));
                    let frame = |vc| message::encode(config, &Message::ViewChange(vc)).into();
                    self.justification = installed.justification.iter().cloned().map(frame).collect();
                    self.fact(Fact::Installed { view: body.view, tag }, Vec::new());
                }
                if matches!(record, Record::Checkpoint(_)) {
                    self.records.clear();
                }
                self.records.push(record);
            }
            Effect::Send { bytes, .. } => self.said(config, me, bytes.into()),
            Effect::Event(Event::Executed { rsn, digest, .. }) => {
                self.executed.push((rsn, digest));
                self.fact(Fact::Executed(rsn, digest), Vec::new());
            }
            Effect::Event(Event::Widened { view }) => self.fact(Fact::Widened(view), Vec::new()),
            Effect::Event(Event::Halted { reason }) => self.fact(Fact::Halted(reason), Vec::new()),
            Effect::Event(_) => {}
        }
    }

    fn said(&mut self, config: &Config, me: MemberId, bytes: Arc<[u8]>) {
        let Ok(message) = message::decode(config, &bytes) else {
            panic!("a replica sent what is no message")
        };
        match message {
            Message::PrePrepare { vote, .. } => self.fact(Fact::PrePrepare(vote), vec![bytes]),
            Message::Prepare { vote, .. } => self.fact(Fact::Prepare(vote), vec![bytes]),
            Message::Commit(vote) => self.fact(Fact::Commit(vote), vec![bytes]),
            Message::ViewChange(vc) if vc.sender == me => self.fact(view_change(&vc.body), vec![bytes]),
            Message::Reply(Reply { outcome: Outcome::Executed { rsn, .. }, .. }) => {
                self.fact(Fact::Replied(rsn), Vec::new());
            }
            Message::NewView(nv) if nv.sender == me => {
                let (view, tag) = (nv.body.view, message::forge::tag(config, &nv.body));
                let order = nv.body.order.iter().map(|(digest, _)| *digest).collect();
                let mut frames = vec![bytes];
                frames.extend(self.justification.iter().cloned());
                self.fact(Fact::NewView { view, tag, order }, frames);
            }
            _ => {}
        }
    }
}

/// The fact that a VIEW-CHANGE is.
pub(super) fn view_change(body: &message::ViewChange) -> Fact {
    Fact::ViewChange {
        view: body.view,
        prepared: body.prepared.iter().map(|c| (c.vote.rsn, c.vote.view, c.vote.digest)).collect(),
        voted: body.voted.clone(),
    }
}
