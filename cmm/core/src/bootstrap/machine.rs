use super::peer::Peer;
use super::resend::Resend;
use super::wire::{Alive, Certificate, Message, Proposal, Statement};
use super::{Config, ConfigError, Decision, Keys, Record, Signature};
use cl_base::{Incarnation, PeerId, Rng, Time, codec};
use std::collections::{BTreeMap, VecDeque};

/// What to do, in this order: a [`Effect::Persist`] must be on the disk before what follows it is done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Store this in place of all earlier ones.
    Persist(Record),
    /// Send this to another agent, no need to make sure that it arrives.
    Send {
        /// The agent.
        to: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Tell this to whoever watches.
    Event(Event),
    /// Obey this: start a manager if this node is a member, then ask the group to JOIN, and report by
    /// [`Bootstrap::admitted`] or [`Bootstrap::no_service`]. Also said for what was decided before a restart.
    Decided(Decision),
}

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One of the four phases of dissertation 6.2 began.
    Phase {
        /// Which one: 1 to 4.
        n: u8,
        /// A sentence about it.
        text: String,
    },
    /// The agent left a view.
    ViewChange {
        /// The instance.
        instance: u64,
        /// The view it asks for.
        view: u64,
        /// The leader of that view.
        leader: PeerId,
        /// Why.
        reason: &'static str,
    },
    /// The agent, which had lost its memory, votes from this instance on.
    VotesFrom(u64),
    /// A valid decision contradicts the one known, which is kept. More than f agents are faulty.
    Contradiction(Decision),
}

/// Why a message, or part of it, was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The sender is not one of the other agents.
    Sender,
    /// Not a message, or it names something that does not exist.
    Malformed,
    /// A signature is wrong or there are too few.
    Signature,
    /// Older than what is known, or of a view that was left.
    Stale,
    /// A second, different statement where the sender may make one.
    Conflicting,
    /// A proposal that does not follow from what it shows, or not by the leader of the view.
    Unjustified,
}

/// One agent's part in the election.
///
/// The caller drains [`Bootstrap::poll_effect`] after every call, and calls [`Bootstrap::on_timeout`] when
/// [`Bootstrap::next_timeout`] has come.
pub struct Bootstrap {
    pub(super) config: Config,
    pub(super) me: usize,
    pub(super) keys: Box<dyn Keys>,
    pub(super) boot: Incarnation,
    pub(super) capable: bool,
    pub(super) rng: Rng,
    /// What survives a restart.
    pub(super) state: Record,
    /// What is known of each agent, this one included.
    pub(super) peers: Vec<Peer>,
    /// The highest instance known to be without service, with the NO-SERVICEs of a quorum.
    pub(super) without_service: Option<(u64, Certificate)>,
    /// Our proposal in this view.
    pub(super) proposal: Option<Proposal>,
    /// The decided group answers us: we do not seek another one.
    pub(super) served: bool,
    pub(super) settling: Settling,
    /// When the view is left.
    pub(super) deadline: Option<Time>,
    /// Views left in this instance.
    pub(super) views_left: u32,
    pub(super) resend: Resend,
    pub(super) effects: VecDeque<Effect>,
    refused: BTreeMap<Refusal, u64>,
}

/// How far the gathering of ALIVEs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    /// No members follow yet.
    Gathering,
    /// They do; the others have time until then to be heard.
    Until(Time),
    /// The time is over, or all were heard.
    Done,
}

impl Bootstrap {
    /// Starts an agent that has never taken part before, or is certain never to have voted.
    ///
    /// `boot_id` is larger than that of every earlier life of this agent; `capable`: this node can run a
    /// manager (its self-test passed and it reaches the hardcore); `seed` is for jitter.
    ///
    /// # Errors
    /// If `me` is not one of the agents.
    pub fn new(
        config: Config,
        me: PeerId,
        keys: Box<dyn Keys>,
        boot_id: Incarnation,
        capable: bool,
        now: Time,
        seed: u64,
    ) -> Result<Bootstrap, ConfigError> {
        Bootstrap::recover(config, me, keys, boot_id, capable, now, seed, [], false)
    }

    /// Starts an agent with what it stored in earlier lives, in the order stored; the last record counts.
    ///
    /// `lost_memory`: it may have taken part before and cannot find its records. It then says so, and
    /// abstains until it has seen a decision and Q agents have vouched that the next instance was not open
    /// before this life. If there are records it is not consulted.
    ///
    /// # Errors
    /// If `me` is not one of the agents.
    #[allow(clippy::too_many_arguments)]
    pub fn recover(
        config: Config,
        me: PeerId,
        keys: Box<dyn Keys>,
        boot_id: Incarnation,
        capable: bool,
        now: Time,
        seed: u64,
        records: impl IntoIterator<Item = Record>,
        lost_memory: bool,
    ) -> Result<Bootstrap, ConfigError> {
        let position = config.position(me).ok_or(ConfigError::NotAnAgent(me))?;
        let stored = records.into_iter().last();
        let fresh = stored.is_none();
        let mut bootstrap = Bootstrap {
            peers: vec![Peer::default(); config.agents().len()],
            resend: Resend::new(now, &config),
            config,
            me: position,
            keys,
            boot: boot_id,
            capable,
            rng: Rng::new(seed),
            state: stored.unwrap_or_else(|| Record::empty(lost_memory)),
            without_service: None,
            proposal: None,
            served: false,
            settling: Settling::Gathering,
            deadline: None,
            views_left: 0,
            effects: VecDeque::new(),
            refused: BTreeMap::new(),
        };
        if fresh {
            bootstrap.persist();
        }
        bootstrap.start(now);
        Ok(bootstrap)
    }

    /// Takes a message. `from` is whom the transport has authenticated as the sender.
    pub fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        if let Err(refusal) = self.receive(now, from, bytes) {
            *self.refused.entry(refusal).or_default() += 1;
        }
        self.advance(now);
    }

    /// Takes the time.
    pub fn on_timeout(&mut self, now: Time) {
        self.advance(now);
        self.resend_if_due(now);
    }

    /// When to call [`Bootstrap::on_timeout`] next; `None`: not before the next message.
    pub fn next_timeout(&self) -> Option<Time> {
        let settled = match self.settling {
            Settling::Until(time) if self.takes_part() => Some(time),
            _ => None,
        };
        [self.resend.at, self.deadline, settled].into_iter().flatten().min()
    }

    /// The highest decision known.
    pub fn decision(&self) -> Option<&Decision> {
        self.state.decision.as_ref()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// How many messages were refused, by reason.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    fn receive(&mut self, now: Time, from: PeerId, bytes: &[u8]) -> Result<(), Refusal> {
        let from = self.config.position(from).filter(|&i| i != self.me).ok_or(Refusal::Sender)?;
        let message =
            codec::decode_bounded(bytes, self.config.message_max()).map_err(|_| Refusal::Malformed)?;
        match message {
            Message::Says(statement, signature) => self.on_statement(now, from, statement, signature),
            Message::ViewChange(change, signature, prepared) => {
                self.on_view_change(now, from, change, signature, prepared)
            }
            Message::Propose(proposal) => self.on_proposal(now, from, *proposal),
            Message::NoService { instance, signatures } => self.on_no_services(from, instance, signatures),
            Message::Decision(decision) => self.on_decision(now, from, decision),
            Message::Knows { instance } => self.on_knows(now, from, instance),
        }
    }

    fn on_statement(
        &mut self,
        now: Time,
        from: usize,
        statement: Statement,
        signature: Signature,
    ) -> Result<(), Refusal> {
        match statement {
            Statement::Alive(alive) => self.on_alive(now, from, alive, signature),
            Statement::Prepare { .. } | Statement::Commit { .. } => {
                self.on_vote(now, from, statement, signature)
            }
            Statement::NoService { instance } => self.on_no_service(now, from, instance, signature),
            Statement::Vouch { .. } => self.on_vouch(now, from, statement, signature),
            Statement::ViewChange(_) => Err(Refusal::Malformed),
        }
    }

    /// Phase 1. An agent heard for the first time in this life of it is told at once where we are.
    fn on_alive(
        &mut self,
        now: Time,
        from: usize,
        alive: Alive,
        signature: Signature,
    ) -> Result<(), Refusal> {
        let known = self.peers[from].alive == Some((alive, signature));
        if !known {
            self.check_signature(from, &Statement::Alive(alive), &signature)?;
        }
        self.vouch_if_asked(now, from, alive);
        if !self.is_of_this_instance(now, from, alive.instance) || known {
            return Ok(());
        }
        // Within a life only the right to vote may come, once.
        let order = |alive: Alive| (alive.boot, alive.votes);
        if self.peers[from].alive.is_some_and(|(known, _)| order(known) >= order(alive)) {
            return Err(Refusal::Stale);
        }
        self.peers[from].alive = Some((alive, signature));
        if self.may_answer(now, from) {
            self.tell(from);
        }
        Ok(())
    }

    /// Applies the rules until none applies any more.
    pub(super) fn advance(&mut self, now: Time) {
        loop {
            if self.decide(now) || self.open_next_instance(now) {
                continue;
            }
            if !self.takes_part() {
                self.deadline = None;
                return;
            }
            self.settle(now);
            if !(self.join_view(now) || self.propose(now) || self.accept(now) || self.leave_late_view(now)) {
                return;
            }
        }
    }

    /// Whether this agent votes now: the instance is open to it, it forgot nothing of it, and no group
    /// serves it.
    pub(super) fn takes_part(&self) -> bool {
        !self.is_decided() && !self.served && self.state.remembers_from <= self.state.instance
    }

    /// Whether the current instance is decided.
    pub(super) fn is_decided(&self) -> bool {
        self.state.decided() >= self.state.instance
    }

    /// What this agent says of itself.
    pub(super) fn own_alive(&self) -> Statement {
        Statement::Alive(Alive {
            instance: self.state.instance,
            boot: self.boot,
            capable: self.capable,
            votes: self.state.remembers_from <= self.state.instance,
        })
    }

    pub(super) fn sign(&self, statement: &Statement) -> Signature {
        self.keys.sign(&statement.to_sign(&self.config))
    }

    pub(super) fn check_signature(
        &mut self,
        from: usize,
        statement: &Statement,
        signature: &Signature,
    ) -> Result<(), Refusal> {
        if !statement.is_signed(from, signature, &*self.keys, &self.config) {
            return Err(Refusal::Signature);
        }
        self.peers[from].heard = true;
        Ok(())
    }

    pub(super) fn persist(&mut self) {
        self.effects.push_back(Effect::Persist(self.state.clone()));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    pub(super) fn phase(&mut self, n: u8, text: String) {
        self.event(Event::Phase { n, text });
    }

    pub(super) fn send(&mut self, to: usize, message: &Message) {
        let bytes = codec::encode(message);
        debug_assert!(bytes.len() <= self.config.message_max());
        self.effects.push_back(Effect::Send { to: self.config.agents()[to], bytes });
    }

    pub(super) fn broadcast(&mut self, message: &Message) {
        for to in self.others() {
            self.send(to, message);
        }
    }

    /// The positions of all other agents.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.peers.len()).filter(move |&i| i != me)
    }
}
