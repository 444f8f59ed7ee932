//! A cluster of agents in one thread: virtual time, a network that loses, delays, repeats and reorders,
//! disks, crashes between any two effects, Byzantine agents, and a judge that watches every decision.

use crate::byzantine::Byzantine;
use crate::keys::{TestKeys, agent};
use cl_base::{Incarnation, PeerId, Rng, Time};
use cmm_core::bootstrap::{Bootstrap, Config, Configuration, Decision, Effect, Event, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Messages of a hundred that are lost, and that are repeated.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// The longest delay, in microseconds.
    pub(crate) delay_max: u64,
}

impl Weather {
    pub(crate) const FAIR: Weather = Weather { lost: 0, repeated: 0, delay_max: 5_000 };
}

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) machine: Option<Bootstrap>,
    pub(crate) disk: Option<Record>,
    /// Its records were destroyed at some time.
    pub(crate) forgot: bool,
    pub(crate) capable: bool,
    pub(crate) lives: u64,
    pub(crate) decided: Option<Decision>,
    pub(crate) events: Vec<Event>,
    /// When it gives up waiting for the answer of a group that is dead.
    pub(crate) impatient_at: Option<Time>,
}

enum Happening {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Start { node: usize },
    Crash { node: usize, forget: bool },
}

pub(crate) type Cut = Box<dyn Fn(usize, usize, &[u8]) -> bool>;

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) nodes: Vec<Node>,
    pub(crate) byzantine: BTreeMap<usize, Byzantine>,
    /// Instances whose group answers nobody.
    pub(crate) dead_groups: BTreeSet<u64>,
    /// Crashes of ten thousand effects.
    pub(crate) crashes_amid_effects: u64,
    /// What was decided, by instance.
    pub(crate) decided: BTreeMap<u64, Configuration>,
    pub(crate) sent: u64,
    /// Whether this message, from and to these agents, is lost.
    pub(crate) cut: Cut,
    agenda: BTreeMap<(Time, u64), Happening>,
    count: u64,
}

impl World {
    pub(crate) fn new(n: usize, f: usize, seed: u64) -> World {
        let config = Config::new([3; 32], (0..n).map(agent).collect(), f).unwrap();
        World {
            config,
            now: Time::from_nanos(1_000_000_000_000),
            rng: Rng::new(seed),
            weather: Weather::FAIR,
            nodes: (0..n).map(|_| Node { capable: true, ..Node::default() }).collect(),
            byzantine: BTreeMap::new(),
            dead_groups: BTreeSet::new(),
            crashes_amid_effects: 0,
            decided: BTreeMap::new(),
            sent: 0,
            cut: Box::new(|_, _, _| false),
            agenda: BTreeMap::new(),
            count: 0,
        }
    }

    /// As [`World::new`], with these agents started.
    pub(crate) fn with(n: usize, f: usize, seed: u64, up: &[usize]) -> World {
        let mut world = World::new(n, f, seed);
        for &i in up {
            world.start(i);
        }
        world
    }

    pub(crate) fn start_in(&mut self, after: Duration, node: usize) {
        self.schedule(self.now + after, Happening::Start { node });
    }

    pub(crate) fn crash_in(&mut self, after: Duration, node: usize, forget: bool) {
        self.schedule(self.now + after, Happening::Crash { node, forget });
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.count += 1;
        self.agenda.insert((at, self.count), happening);
    }

    /// Starts a node, with its disk if it has one; without, it has forgotten if it ever ran before.
    pub(crate) fn start(&mut self, i: usize) {
        if self.nodes[i].machine.is_some() || self.byzantine.contains_key(&i) {
            return;
        }
        self.nodes[i].lives += 1;
        let seed = self.rng.next_u64();
        let node = &mut self.nodes[i];
        let (boot, lost) = (Incarnation(1000 + node.lives), node.disk.is_none() && node.lives > 1);
        let (config, keys) = (self.config.clone(), Box::new(TestKeys(agent(i))));
        let machine = if node.lives == 1 {
            Bootstrap::new(config, agent(i), keys, boot, node.capable, self.now, seed)
        } else {
            let records = node.disk.clone();
            Bootstrap::recover(config, agent(i), keys, boot, node.capable, self.now, seed, records, lost)
        };
        node.machine = Some(machine.unwrap());
        self.drain(i);
    }

    pub(crate) fn crash(&mut self, i: usize, forget: bool) {
        let node = &mut self.nodes[i];
        node.machine = None;
        node.impatient_at = None;
        if forget && node.lives > 0 {
            node.disk = None;
            node.forgot = true;
        }
    }

    pub(crate) fn with_machine(&mut self, i: usize, act: impl FnOnce(&mut Bootstrap, Time)) {
        if let Some(machine) = &mut self.nodes[i].machine {
            act(machine, self.now);
            self.drain(i);
        }
    }

    fn drain(&mut self, i: usize) {
        while let Some(effect) = self.nodes[i].machine.as_mut().and_then(Bootstrap::poll_effect) {
            match effect {
                Effect::Persist(record) => self.nodes[i].disk = Some(record),
                Effect::Send { to, bytes } => self.send(i, to, bytes),
                Effect::Event(event) => {
                    assert!(
                        !matches!(event, Event::Contradiction(_)),
                        "agent {i} saw two decisions: {event:?}"
                    );
                    self.nodes[i].events.push(event);
                }
                Effect::Decided(decision) => self.judge(i, decision),
            }
            if self.crashes_amid_effects > 0 && self.rng.chance(self.crashes_amid_effects, 10_000) {
                self.crash(i, false);
                let after = Duration::from_micros(self.rng.below(2_000_000));
                self.start_in(after, i);
            }
        }
    }

    /// Agreement and validity.
    fn judge(&mut self, i: usize, decision: Decision) {
        decision.verify(&TestKeys(PeerId::new(0, 0)), &self.config).expect("a decision convinces anybody");
        let instance = decision.instance();
        let first = self.decided.entry(instance).or_insert_with(|| decision.configuration.clone());
        assert_eq!(*first, decision.configuration, "agent {i} decided differently");
        if self.config.agents().len() > 4 * self.config.f() {
            for member in &decision.configuration.members {
                let m = (0..self.nodes.len()).find(|&m| agent(m) == *member).unwrap();
                let spoke =
                    self.byzantine.contains_key(&m) || self.nodes[m].lives > 0 && self.nodes[m].capable;
                assert!(spoke, "agent {i} decided on {m}, which never said that it is capable");
            }
        }
        self.nodes[i].decided = Some(decision);
        if self.dead_groups.contains(&instance) {
            let patience = Duration::from_micros(500_000 + self.rng.below(1_500_000));
            self.nodes[i].impatient_at = Some(self.now + patience);
        } else if let Some(machine) = &mut self.nodes[i].machine {
            machine.admitted(self.now);
            self.nodes[i].impatient_at = None;
        }
    }

    fn send(&mut self, from: usize, to: PeerId, bytes: Vec<u8>) {
        let to = self.config.agents().iter().position(|&a| a == to).unwrap();
        self.sent += 1;
        if (self.cut)(from, to, &bytes) {
            return;
        }
        let copies = if self.rng.chance(self.weather.repeated, 100) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.chance(self.weather.lost, 100) {
                let delay = Duration::from_micros(50 + self.rng.below(self.weather.delay_max));
                self.schedule(self.now + delay, Happening::Deliver { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// Goes to the next thing that happens before `end`; false if nothing does.
    pub(crate) fn step(&mut self, end: Time) -> bool {
        let timer = |node: &Node| {
            let own = node.machine.as_ref().and_then(Bootstrap::next_timeout);
            [own, node.impatient_at].into_iter().flatten().min()
        };
        let mut next = self.agenda.keys().next().map(|&(at, _)| (at, None));
        let timers = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((timer(n)?, Some(i))));
        let others = self.byzantine.iter().filter_map(|(&i, b)| Some((b.next_timeout()?, Some(i))));
        for (at, who) in timers.chain(others) {
            if next.is_none_or(|(first, _)| at < first) {
                next = Some((at, who));
            }
        }
        let Some((at, who)) = next.filter(|(at, _)| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        match who {
            Some(i) if self.byzantine.contains_key(&i) => self.with_byzantine(i, |b, now| b.on_timeout(now)),
            Some(i) if self.nodes[i].impatient_at.is_some_and(|at| at <= self.now) => {
                self.nodes[i].impatient_at = None;
                self.with_machine(i, Bootstrap::no_service);
            }
            Some(i) => self.with_machine(i, Bootstrap::on_timeout),
            None => match self.agenda.pop_first().expect("something was to happen").1 {
                Happening::Deliver { from, to, bytes } => {
                    if (self.cut)(from, to, &bytes) {
                        return true;
                    }
                    if self.byzantine.contains_key(&to) {
                        self.with_byzantine(to, |b, now| b.on_message(now, from, &bytes));
                    } else {
                        self.with_machine(to, |m, now| m.on_message(now, agent(from), &bytes));
                    }
                }
                Happening::Start { node } => self.start(node),
                Happening::Crash { node, forget } => self.crash(node, forget),
            },
        }
        true
    }

    fn with_byzantine(&mut self, i: usize, act: impl FnOnce(&mut Byzantine, Time)) {
        let byzantine = self.byzantine.get_mut(&i).unwrap();
        act(byzantine, self.now);
        for (to, bytes) in byzantine.take_sent() {
            self.send(i, agent(to), bytes);
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Whether all correct agents that are up know a decision of at least `instance`.
    pub(crate) fn all_decided(&self, instance: u64) -> bool {
        self.nodes.iter().filter(|n| n.machine.is_some()).all(|n| {
            n.machine.as_ref().and_then(Bootstrap::decision).is_some_and(|d| d.instance() >= instance)
        })
    }

    /// Runs until all have decided `instance`, and panics if they have not within `limit`.
    pub(crate) fn run_until_decided(&mut self, instance: u64, limit: Duration) {
        let end = self.now + limit;
        while !self.all_decided(instance) {
            assert!(
                self.step(end),
                "hang: no decision of instance {instance} within {limit:?}\n{}",
                self.report()
            );
        }
    }

    pub(crate) fn members(&self, instance: u64) -> Vec<usize> {
        let members = &self.decided[&instance].members;
        members.iter().map(|&m| (0..self.nodes.len()).find(|&i| agent(i) == m).unwrap()).collect()
    }

    fn report(&self) -> String {
        let mut report = String::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let tail = &node.events[node.events.len().saturating_sub(4)..];
            report += &format!(
                "{i}: byzantine {} up {} lives {} forgot {} capable {} refused {:?} last {tail:?}\n",
                self.byzantine.contains_key(&i),
                node.machine.is_some(),
                node.lives,
                node.forgot,
                node.capable,
                node.machine.as_ref().map(Bootstrap::refused),
            );
        }
        report
    }
}
