//! Agents, bundlers and managers on a network that loses and delays, from one seed.

use cl_base::{Incarnation, PeerId, Rng, Time};
use cmm_core::heartbeat::{BEAT_BYTES, Beat, Bundler, Heartbeat, Monitor, Sender, Tree, Way};
use cmm_core::identity::{NodeId, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Of heartbeats, bundles and looks at what is missing, microseconds.
const PERIOD: u64 = 100_000;
const SUSPECT_AFTER: Duration = Duration::from_millis(1000);
const MANAGERS: usize = 4;
/// The primary is number 0, the spare number 3.
const BACKUPS: [usize; 2] = [1, 2];
/// f+1.
const QUORUM: usize = 2;
/// From the managers' agreement until an agent knows, microseconds.
const TELL_MAX: u64 = 300_000;
const DELAY_MAX: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Honest,
    Dead,
    /// Keeps back this share of what others gave it to bundle.
    Suppresses {
        permille: u64,
    },
    /// Bundles invented and old heartbeats of its group in place of those it was given.
    Forges,
    /// Does not send what is to go by this bundler.
    OmitsWhatGoesBy(NodeId),
}

enum Event {
    Period(NodeId),
    ManagerPeriod(usize),
    ToBundler(NodeId, Heartbeat),
    ToBackup(usize, Heartbeat),
    GroupBundle(usize, Vec<u8>),
    Bundle(usize, Vec<u8>),
    Ping(NodeId),
    Withdraw(NodeId, Vec<NodeId>),
}

struct Agent {
    behaviour: Behaviour,
    sender: Sender,
    bundler: Bundler,
    /// What a forger has seen.
    seen: Vec<Heartbeat>,
}

pub(crate) struct World {
    now: u64,
    rng: Rng,
    events: BTreeMap<(u64, u64), Event>,
    put: u64,
    pub(crate) tree: Tree,
    agents: Vec<Agent>,
    monitors: Vec<Monitor>,
    /// What waits at each manager until it looks.
    inboxes: Vec<Vec<Event>>,
    pub(crate) lose_permille: u64,
    pub(crate) faulty_manager: Option<usize>,
    accusers: BTreeMap<NodeId, BTreeSet<usize>>,
    suspecters: BTreeMap<NodeId, BTreeSet<usize>>,
    /// By f+1 managers: who was pinged, how often; who did not answer; who bundles no longer.
    pub(crate) suspected: BTreeMap<NodeId, u32>,
    pub(crate) dead: BTreeSet<NodeId>,
    pub(crate) withdrawn: BTreeSet<NodeId>,
    pub(crate) beats_sent: u64,
    pub(crate) manager_messages: u64,
}

fn manager(number: usize) -> PeerId {
    Role::Manager(NodeId(number as u32 + 1)).peer()
}

/// Nobody but `node` and `manager` can make it: the code here makes it for `node` and checks it for `manager` only.
fn tag(node: NodeId, manager: PeerId, bytes: &[u8; BEAT_BYTES]) -> [u8; 16] {
    let mut hasher = DefaultHasher::new();
    (node, manager, bytes).hash(&mut hasher);
    (u128::from(hasher.finish()) * 0x1_0000_0001).to_le_bytes()
}

fn sealed(beat: Beat) -> Heartbeat {
    let tag = |number| (manager(number), tag(beat.node, manager(number), &beat.to_bytes()));
    Heartbeat { beat, tags: (0..MANAGERS).map(tag).collect() }
}

impl World {
    pub(crate) fn new(seed: u64, agents: u32) -> World {
        let nodes = || (1..=agents).map(NodeId);
        let tree = Tree::new(nodes());
        let agent = |node| Agent {
            behaviour: Behaviour::Honest,
            sender: Sender::new(node, Incarnation(1), Some(&tree)),
            bundler: Bundler::new(node, tree.clone()),
            seen: Vec::new(),
        };
        let mut world = World {
            now: 0,
            rng: Rng::new(seed),
            events: BTreeMap::new(),
            put: 0,
            agents: nodes().map(agent).collect(),
            monitors: (0..MANAGERS).map(|_| Monitor::with_tree(SUSPECT_AFTER, tree.clone())).collect(),
            inboxes: (0..MANAGERS).map(|_| Vec::new()).collect(),
            tree,
            lose_permille: 0,
            faulty_manager: None,
            accusers: BTreeMap::new(),
            suspecters: BTreeMap::new(),
            suspected: BTreeMap::new(),
            dead: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            beats_sent: 0,
            manager_messages: 0,
        };
        for node in nodes() {
            world.after(PERIOD, Event::Period(node));
        }
        for number in 0..MANAGERS {
            world.after(PERIOD, Event::ManagerPeriod(number));
        }
        world
    }

    pub(crate) fn set(&mut self, node: NodeId, behaviour: Behaviour) {
        self.agent(node).behaviour = behaviour;
    }

    pub(crate) fn is_faulty(&mut self, node: NodeId) -> bool {
        self.agent(node).behaviour != Behaviour::Honest
    }

    /// Forged heartbeats that the managers have seen.
    pub(crate) fn forged(&self) -> u64 {
        self.monitors.iter().map(Monitor::forged).sum()
    }

    /// So many microseconds more.
    pub(crate) fn run(&mut self, time: u64) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn agent(&mut self, node: NodeId) -> &mut Agent {
        &mut self.agents[node.0 as usize - 1]
    }

    fn time(&self) -> Time {
        Time::from_nanos((1 << 40) + self.now * 1000)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.put += 1;
        self.events.insert((at, self.put), event);
    }

    /// At a random time up to `max` from now.
    fn after(&mut self, max: u64, event: Event) {
        let at = self.now + 1 + self.rng.below(max);
        self.at(at, event);
    }

    fn send(&mut self, event: Event) {
        if self.rng.below(1000) >= self.lose_permille {
            self.after(DELAY_MAX, event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Period(node) => self.on_period(node),
            Event::ManagerPeriod(number) => self.on_manager_period(number),
            Event::ToBundler(node, heartbeat) => self.collect(node, heartbeat),
            Event::ToBackup(number, _) | Event::GroupBundle(number, _) | Event::Bundle(number, _) => {
                self.manager_messages += 1;
                self.inboxes[number].push(event);
            }
            Event::Ping(node) if self.agent(node).behaviour == Behaviour::Dead => {
                self.dead.insert(node);
                self.tell_group(node);
            }
            Event::Ping(node) => {
                self.agent(node).sender.on_ping();
                self.suspecters.remove(&node);
            }
            Event::Withdraw(node, withdrawn) => self.agent(node).sender.set_withdrawn(withdrawn),
        }
    }

    /// A manager looks at what has arrived.
    fn look(&mut self, number: usize) {
        let (now, me, monitor) = (self.time(), manager(number), &mut self.monitors[number]);
        for event in self.inboxes[number].drain(..) {
            match event {
                Event::ToBackup(_, heartbeat) => {
                    if monitor.heard(now, &heartbeat.beat) {
                        monitor.collect(heartbeat);
                    }
                }
                Event::GroupBundle(_, bytes) => {
                    monitor.heard_group_bundle(now, me, &bytes, |node, beat, t| tag(node, me, beat) == *t);
                }
                Event::Bundle(_, bytes) => {
                    monitor.heard_bundle(now, &bytes, |node, beat, t| tag(node, me, beat) == *t);
                }
                _ => unreachable!("nothing else waits"),
            }
        }
    }

    fn on_period(&mut self, node: NodeId) {
        let behaviour = self.agent(node).behaviour;
        if behaviour == Behaviour::Dead {
            return;
        }
        self.at(self.now + PERIOD, Event::Period(node));
        let (beat, way) = self.agent(node).sender.next_beat();
        self.beats_sent += 1;
        match way {
            Way::Bundler(bundler) if behaviour == Behaviour::OmitsWhatGoesBy(bundler) => {}
            Way::Bundler(bundler) if bundler == node => self.collect(node, sealed(beat)),
            Way::Bundler(bundler) => self.send(Event::ToBundler(bundler, sealed(beat))),
            Way::Backup => self.send(Event::ToBackup(BACKUPS[beat.number as usize % 2], sealed(beat))),
        }
        if behaviour == Behaviour::Forges {
            self.forge(node);
        }
        let managers: Vec<PeerId> = (0..MANAGERS).map(manager).collect();
        for bundle in self.agent(node).bundler.take_bundles(&managers) {
            BACKUPS.into_iter().for_each(|backup| self.send(Event::GroupBundle(backup, bundle.clone())));
        }
    }

    fn collect(&mut self, node: NodeId, heartbeat: Heartbeat) {
        let others = heartbeat.beat.node != node;
        let chance = self.rng.below(1000);
        match self.agent(node).behaviour {
            Behaviour::Dead => {}
            Behaviour::Suppresses { permille } if others && chance < permille => {}
            Behaviour::Forges if others => self.agent(node).seen.push(heartbeat),
            _ => assert!(self.agent(node).bundler.collect(heartbeat), "agents know their bundlers"),
        }
    }

    /// One heartbeat for each of the group: a later one than any with the tags of the last, or with invented tags; the tags of
    /// another; an old one again.
    fn forge(&mut self, node: NodeId) {
        let seen = self.agent(node).seen.clone();
        for (i, old) in seen.iter().rev().take(self.tree.group_of(node).len()).enumerate() {
            let mut forged = old.clone();
            match i % 4 {
                0 => forged.beat.number += 1 + self.rng.below(50),
                1 => forged.tags.iter_mut().for_each(|(_, tag)| tag[3] ^= 1),
                2 => forged.beat.node = self.tree.group_of(node)[0],
                _ => {}
            }
            self.agent(node).bundler.collect(forged);
        }
    }

    fn on_manager_period(&mut self, number: usize) {
        self.at(self.now + PERIOD, Event::ManagerPeriod(number));
        self.look(number);
        let (now, faulty) = (self.time(), self.faulty_manager == Some(number));
        let others: Vec<PeerId> = (0..MANAGERS).filter(|n| *n != number).map(manager).collect();
        for (to, bundle) in self.monitors[number].take_bundles(&others) {
            let to = (0..MANAGERS).find(|n| manager(*n) == to).expect("one of them");
            if !faulty {
                self.send(Event::Bundle(to, bundle));
            }
        }
        let expected: Vec<_> =
            (1..=self.agents.len() as u32).map(NodeId).filter(|n| !self.dead.contains(n)).collect();
        let overdue = self.monitors[number].overdue(now, expected.iter().map(|n| (*n, Incarnation(1))));
        for (node, _) in overdue {
            let by = self.suspecters.entry(node).or_default();
            if by.insert(number) && by.len() == QUORUM {
                *self.suspected.entry(node).or_default() += 1;
                self.after(TELL_MAX, Event::Ping(node));
            }
        }
        let mut accused: Vec<NodeId> =
            self.monitors[number].suppressors(now).iter().map(|s| s.node).collect();
        if faulty {
            accused = expected;
        }
        for node in accused {
            let by = self.accusers.entry(node).or_default();
            if by.insert(number) && by.len() == QUORUM && self.withdrawn.insert(node) {
                self.tell_group(node);
            }
        }
    }

    fn tell_group(&mut self, node: NodeId) {
        let avoided: Vec<NodeId> = self.withdrawn.union(&self.dead).copied().collect();
        for member in self.tree.group_of(node).to_vec() {
            self.after(TELL_MAX, Event::Withdraw(member, avoided.clone()));
        }
    }
}
