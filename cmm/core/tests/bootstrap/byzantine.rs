//! Byzantine agents. They cannot sign for others; apart from that they do their worst: several honest
//! looking faces with one key, proposals and votes that differ by receiver, stale and made-up statements.

use crate::keys::{TestKeys, agent, garbage};
use cl_base::{Incarnation, PeerId, Rng, Time, codec};
use cmm_core::bootstrap::wire::{Alive, Certificate, Grounds, Message, Proposal, Statement, ViewChange};
use cmm_core::bootstrap::{Bootstrap, Config, Configuration, Effect, Keys, Signature};
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages remembered for replays.
const SEEN_MAX: usize = 64;

/// What it does, apart from what its faces do. Chances are of a hundred per tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// Machines that follow the rules, each with its own memory and its own part of the others.
    pub(crate) faces: usize,
    pub(crate) garbage: u64,
    pub(crate) replays: u64,
    /// Proposals that differ by receiver, legal and illegal, whenever it leads.
    pub(crate) equivocates: u64,
    /// Names agents that nobody heard.
    pub(crate) names_the_dead: bool,
    /// Votes for everything it has seen.
    pub(crate) double_votes: u64,
    /// ALIVEs that differ in boot and capability.
    pub(crate) lies: u64,
    /// VIEW-CHANGEs for any view, without the certificate it holds.
    pub(crate) view_changes: u64,
    pub(crate) no_service: u64,
}

pub(crate) struct Byzantine {
    me: usize,
    config: Config,
    rng: Rng,
    habits: Habits,
    faces: Vec<Option<Bootstrap>>,
    /// Which face each other agent sees.
    audience: Vec<usize>,
    next_tick: Time,
    seen: Vec<Vec<u8>>,
    alive: BTreeMap<usize, (Alive, Signature)>,
    asked: BTreeMap<(u64, usize), (ViewChange, Signature)>,
    configurations: Vec<(u64, Configuration)>,
    opened_by: Certificate,
    instance: u64,
    boot: u64,
    sent: Vec<(usize, Vec<u8>)>,
}

impl Byzantine {
    pub(crate) fn new(me: usize, config: &Config, habits: Habits, now: Time, seed: u64) -> Byzantine {
        let mut rng = Rng::new(seed);
        let n = config.agents().len();
        let mut byzantine = Byzantine {
            me,
            config: config.clone(),
            habits,
            faces: (0..habits.faces).map(|_| None).collect(),
            audience: (0..n).map(|_| rng.below(habits.faces.max(1) as u64) as usize).collect(),
            rng,
            next_tick: now,
            seen: vec![],
            alive: BTreeMap::new(),
            asked: BTreeMap::new(),
            configurations: vec![],
            opened_by: Certificate::default(),
            instance: 1,
            boot: 5000,
            sent: vec![],
        };
        for face in 0..habits.faces {
            byzantine.new_face(face, now);
        }
        byzantine
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let faces = self.faces.iter().flatten().filter_map(Bootstrap::next_timeout);
        faces.chain([self.next_tick]).min()
    }

    pub(crate) fn take_sent(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    fn new_face(&mut self, face: usize, now: Time) {
        self.boot += 1;
        let (boot, capable) = (Incarnation(self.boot), self.rng.chance(1, 2));
        let (keys, seed) = (Box::new(TestKeys(agent(self.me))), self.rng.next_u64());
        let machine = Bootstrap::new(self.config.clone(), agent(self.me), keys, boot, capable, now, seed);
        self.faces[face] = Some(machine.unwrap());
        self.drain();
    }

    fn drain(&mut self) {
        for face in 0..self.faces.len() {
            while let Some(effect) = self.faces[face].as_mut().and_then(Bootstrap::poll_effect) {
                if let Effect::Send { to, bytes } = effect {
                    let to = self.config.agents().iter().position(|&a| a == to).unwrap();
                    if self.audience[to] == face {
                        self.sent.push((to, bytes));
                    }
                }
            }
        }
    }

    pub(crate) fn on_message(&mut self, now: Time, from: usize, bytes: &[u8]) {
        self.learn(from, bytes);
        for face in 0..self.faces.len() {
            if self.rng.chance(4, 5) {
                self.faces[face].as_mut().unwrap().on_message(now, agent(from), bytes);
            }
        }
        self.drain();
        if self.rng.chance(self.habits.equivocates, 100) {
            self.equivocate();
        }
    }

    pub(crate) fn on_timeout(&mut self, now: Time) {
        for face in self.faces.iter_mut().flatten() {
            face.on_timeout(now);
        }
        self.drain();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + Duration::from_micros(self.rng.within(20_000, 400_000));
        if !self.faces.is_empty() && self.rng.chance(3, 100) {
            let face = self.rng.below(self.faces.len() as u64) as usize;
            self.new_face(face, now);
        }
        for to in self.others() {
            self.pester(to);
        }
        if self.rng.chance(self.habits.equivocates, 100) {
            self.equivocate();
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.config.agents().len()).filter(move |&to| to != me)
    }

    fn learn(&mut self, from: usize, bytes: &[u8]) {
        if self.seen.len() < SEEN_MAX {
            self.seen.push(bytes.to_vec());
        } else {
            let at = self.rng.below(SEEN_MAX as u64) as usize;
            self.seen[at] = bytes.to_vec();
        }
        let Ok(message) = codec::decode::<Message>(bytes) else { return };
        match message {
            Message::Says(Statement::Alive(alive), signature) => {
                self.enter(alive.instance);
                self.alive.insert(from, (alive, signature));
            }
            Message::Says(
                Statement::Prepare { view, configuration } | Statement::Commit { view, configuration },
                _,
            ) => {
                self.enter(configuration.instance);
                if self.configurations.len() < 32 {
                    self.configurations.push((view, configuration));
                }
            }
            Message::ViewChange(change, signature, _) => {
                self.enter(change.instance);
                self.asked.insert((change.view, from), (change, signature));
            }
            Message::NoService { signatures, .. } => self.opened_by = signatures,
            _ => {}
        }
    }

    fn enter(&mut self, instance: u64) {
        if instance > self.instance {
            self.instance = instance;
            self.alive.clear();
            self.asked.clear();
            self.configurations.clear();
        }
    }

    fn sign(&self, statement: &Statement) -> Signature {
        TestKeys(agent(self.me)).sign(&statement.to_sign(&self.config))
    }

    fn say(&mut self, to: usize, statement: Statement) {
        let signature = self.sign(&statement);
        self.sent.push((to, codec::encode(&Message::Says(statement, signature))));
    }

    fn pester(&mut self, to: usize) {
        let h = self.habits;
        if self.rng.chance(h.garbage, 100) {
            let bytes = garbage(&mut self.rng, &self.seen);
            self.sent.push((to, bytes));
        }
        if self.rng.chance(h.replays, 100)
            && let Some(bytes) = self.rng.pick(&self.seen)
        {
            self.sent.push((to, bytes.clone()));
        }
        if self.rng.chance(h.lies, 100) {
            self.boot += self.rng.below(2);
            let alive = self.own_alive();
            self.say(to, Statement::Alive(alive));
        }
        if self.rng.chance(h.double_votes, 100) {
            for (view, configuration) in self.configurations.clone() {
                let view = view + self.rng.below(2);
                self.say(to, Statement::Prepare { view, configuration: configuration.clone() });
                self.say(to, Statement::Commit { view, configuration });
            }
        }
        if self.rng.chance(h.view_changes, 100) {
            let view = self.asked.keys().map(|&(view, _)| view).max().unwrap_or(0) + self.rng.below(3);
            let change = self.own_view_change(view);
            let signature = self.sign(&Statement::ViewChange(change.clone()));
            self.sent.push((to, codec::encode(&Message::ViewChange(change, signature, None))));
        }
        if self.rng.chance(h.no_service, 100) {
            let instance = (self.instance + self.rng.below(2)).saturating_sub(self.rng.below(2));
            self.say(to, Statement::NoService { instance });
        }
    }

    fn own_alive(&mut self) -> Alive {
        let (capable, votes) = (self.rng.chance(1, 2), self.rng.chance(3, 4));
        Alive { instance: self.instance, boot: Incarnation(self.boot), capable, votes }
    }

    fn own_view_change(&self, view: u64) -> ViewChange {
        ViewChange { instance: self.instance, view, prepared: None }
    }

    /// To each its own proposal, for any view that this agent leads.
    fn equivocate(&mut self) {
        let n = self.config.agents().len() as u64;
        let views: Vec<u64> =
            self.asked.keys().map(|&(v, _)| v).chain([0]).filter(|v| v % n == self.me as u64).collect();
        let Some(&view) = self.rng.pick(&views) else { return };
        for to in self.others() {
            let proposal = self.forge(view);
            self.sent.push((to, codec::encode(&Message::Propose(Box::new(proposal)))));
        }
    }

    /// A proposal from random ALIVEs and VIEW-CHANGEs; often a legal one.
    fn forge(&mut self, view: u64) -> Proposal {
        let mut heard = self.alive.clone();
        let own = self.own_alive();
        heard.insert(self.me, (own, self.sign(&Statement::Alive(own))));
        if self.rng.chance(1, 10) {
            let dead = self.rng.below(self.config.agents().len() as u64) as usize;
            heard.insert(dead, (Alive { capable: true, ..own }, [9; 64]));
        }
        let mut alive: Vec<_> = heard.into_iter().map(|(i, (a, s))| (i as u16, a, s)).collect();
        self.thin(&mut alive);
        let mut capable: Vec<PeerId> =
            alive.iter().filter(|(_, a, _)| a.capable).map(|&(i, ..)| agent(i.into())).collect();
        if self.habits.names_the_dead {
            capable = self.config.agents().to_vec();
            if self.rng.chance(1, 2) {
                capable.reverse();
            }
        }
        capable.truncate(self.config.members());
        let configuration = match self.configurations.last() {
            Some((_, seen)) if self.rng.chance(1, 5) => seen.clone(),
            _ => Configuration { instance: self.instance, members: capable },
        };
        let mut view_changes = vec![];
        if view > 0 {
            let change = self.own_view_change(view);
            let own = (self.me as u16, None, self.sign(&Statement::ViewChange(change)));
            let asked = self.asked.iter().filter(|((v, _), _)| *v == view);
            view_changes =
                asked.map(|((_, i), (c, s))| (*i as u16, c.prepared.clone(), *s)).chain([own]).collect();
            view_changes.sort_by_key(|(i, ..)| *i);
            self.thin(&mut view_changes);
        }
        let signature = self.sign(&Statement::Prepare { view, configuration: configuration.clone() });
        let grounds = Grounds::Chosen { alive, no_service: self.opened_by.clone() };
        Proposal { view, configuration, signature, view_changes, grounds }
    }

    /// Removes some, down to a quorum.
    fn thin<T>(&mut self, of: &mut Vec<T>) {
        while of.len() > self.config.quorum() && self.rng.chance(1, 2) {
            let at = self.rng.below(of.len() as u64) as usize;
            of.remove(at);
        }
    }
}
