//! Parties on a network that loses, delays, repeats, reorders, alters, records and replays frames, in
//! virtual time from one seed; and the judge of what they are told.
#![allow(dead_code, reason = "each test file uses its part")]

use cl_base::{Incarnation, PeerId, Principal, Rng, Time};
use mml_proto::{Config, Counters, Delivery, Event, Mml, Pair, SendStatus, Sequence, peek_number};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

/// Chances in 1000 per frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lose: u64,
    pub(crate) duplicate: u64,
    pub(crate) corrupt: u64,
    /// A recorded frame is sent again, to anybody, as if from anybody.
    pub(crate) replay: u64,
    pub(crate) delay_max: Duration,
}

/// What the judge remembers of a message that was sent.
#[derive(Clone, Debug)]
struct Sent {
    from: PeerId,
    incarnation: Incarnation,
    to: PeerId,
    class: u8,
    seq: Sequence,
    delivered: BTreeSet<Incarnation>,
    outcome: SendStatus,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) parties: Vec<Mml>,
    configs: Vec<Config>,
    /// Frames with this second byte (their kind) are lost.
    pub(crate) lose_kind: Option<u8>,
    /// A party that crashes, and after how many more steps: frames handed in and frames taken out.
    pub(crate) crash: Option<(usize, u64)>,
    network: BTreeMap<(Time, u64), (PeerId, PeerId, Vec<u8>)>,
    pub(crate) recorded: Vec<(PeerId, PeerId, Vec<u8>)>,
    /// When each of them was sent.
    pub(crate) recorded_at: Vec<Time>,
    /// Every (sender, receiver, session, frame number) that was ever sealed: none may come twice.
    numbers: BTreeSet<(PeerId, PeerId, u64, u64)>,
    /// Frames of equal delay arrive in the order of sending.
    put_number: u64,
    lives: u64,
    sent: BTreeMap<u64, Sent>,
    by_name: BTreeMap<(PeerId, Incarnation, PeerId, Sequence), u64>,
    /// Last ACK number per (sender, its life, receiver, its life).
    order: BTreeMap<(PeerId, Incarnation, PeerId, Incarnation), u64>,
    /// Counters of former lives.
    buried: Vec<Counters>,
    pub(crate) events: Vec<(PeerId, Event)>,
}

pub(crate) fn id(party: usize) -> PeerId {
    PeerId::new(100 + party as u32, party as u32 % 2)
}

fn index(party: PeerId) -> usize {
    party.principal.0 as usize - 100
}

/// Each principal's static key is made from its number. Pairs are kept, as real keyrings keep them.
pub(crate) fn pair(me: PeerId, peer: PeerId) -> Option<Arc<Pair>> {
    static PAIRS: Mutex<BTreeMap<(Principal, Principal), Arc<Pair>>> = Mutex::new(BTreeMap::new());
    let known = |id: PeerId| (100..110).contains(&id.principal.0);
    let secret = |id: PeerId| StaticSecret::from([id.principal.0 as u8; 32]);
    let agree = || {
        let public = PublicKey::from(&secret(peer)).to_bytes();
        Pair::agree(me.principal, &secret(me), peer.principal, public).expect("honest keys").into()
    };
    let mut pairs = PAIRS.lock().expect("nothing panics in here");
    let key = (me.principal, peer.principal);
    (known(me) && known(peer)).then(|| pairs.entry(key).or_insert_with(agree).clone())
}

/// Where a party writes from.
pub(crate) fn address(party: PeerId) -> SocketAddr {
    ([10, 0, 0, party.principal.0 as u8], 7400).into()
}

impl World {
    pub(crate) fn new(seed: u64, parties: usize, config: Config, faults: Faults) -> World {
        World::with_configs(seed, vec![config; parties], faults)
    }

    /// A party for each of the configurations.
    pub(crate) fn with_configs(seed: u64, configs: Vec<Config>, faults: Faults) -> World {
        let mut world = World {
            now: Time::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            faults,
            parties: Vec::new(),
            configs,
            lose_kind: None,
            crash: None,
            network: BTreeMap::new(),
            recorded: Vec::new(),
            recorded_at: Vec::new(),
            numbers: BTreeSet::new(),
            put_number: 0,
            lives: 0,
            sent: BTreeMap::new(),
            by_name: BTreeMap::new(),
            order: BTreeMap::new(),
            buried: Vec::new(),
            events: Vec::new(),
        };
        for party in 0..world.configs.len() {
            let mml = world.life(party);
            world.parties.push(mml);
        }
        world
    }

    fn life(&mut self, party: usize) -> Mml {
        self.lives += 1;
        self.life_as(party, Incarnation(self.lives))
    }

    fn life_as(&mut self, party: usize, incarnation: Incarnation) -> Mml {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        Mml::new(self.configs[party].clone(), id(party), incarnation, Box::new(pair), seed)
    }

    pub(crate) fn restart(&mut self, party: usize) {
        let mml = self.life(party);
        self.bury(party, mml);
    }

    /// Restarts a party whose clock gives it the number of an earlier life.
    pub(crate) fn restart_as(&mut self, party: usize, incarnation: Incarnation) {
        let mml = self.life_as(party, incarnation);
        self.bury(party, mml);
    }

    fn bury(&mut self, party: usize, mml: Mml) {
        self.buried.push(self.parties[party].counters());
        self.parties[party] = mml;
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, delivery: Delivery, len: usize) -> Option<u64> {
        let name = self.sent.len() as u64;
        let class = self.rng.below(3) as u8;
        let mut body = name.to_le_bytes().to_vec();
        body.resize(len.max(8), name as u8);
        let seq = self.parties[from].send(self.now, id(to), delivery, class, body).ok()?;
        let incarnation = self.parties[from].incarnation();
        let sent = Sent {
            from: id(from),
            incarnation,
            to: id(to),
            class,
            seq,
            delivered: BTreeSet::new(),
            outcome: SendStatus::Pending,
        };
        self.sent.insert(name, sent);
        assert_eq!(
            self.by_name.insert((id(from), incarnation, id(to), seq), name),
            None,
            "a sequence number twice"
        );
        self.pump();
        Some(name)
    }

    /// Everything that is to happen until `until`, in order.
    pub(crate) fn run_until(&mut self, until: Time) {
        self.pump();
        loop {
            let arrival = self.network.first_key_value().map(|((at, _), _)| *at);
            let timer = self.parties.iter().filter_map(Mml::next_timeout).min();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (from, to, mut frame)) = self.network.pop_first().expect("just seen");
                self.party(to).handle(next, from, address(from), &mut frame);
                self.step(index(to));
            } else {
                for party in &mut self.parties {
                    party.handle_timeout(next);
                }
            }
            self.pump();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.network.is_empty() && self.parties.iter().all(|p| p.next_timeout().is_none())
    }

    pub(crate) fn party(&mut self, peer: PeerId) -> &mut Mml {
        &mut self.parties[index(peer)]
    }

    /// A party has done something: it may be the last before it crashes.
    fn step(&mut self, party: usize) {
        match &mut self.crash {
            Some((who, 0)) if *who == party => {
                self.crash = None;
                self.restart(party);
            }
            Some((who, steps)) if *who == party => *steps -= 1,
            _ => {}
        }
    }

    pub(crate) fn pump(&mut self) {
        let mut frame = Vec::new();
        for party in 0..self.parties.len() {
            while let Some(event) = self.parties[party].poll_event() {
                self.judge(party, &event);
                self.events.push((id(party), event));
            }
            while let Some(transmit) = self.parties[party].poll_transmit(self.now, &mut frame) {
                self.transmit(id(party), transmit.to, frame.clone());
                self.step(party);
            }
        }
    }

    fn transmit(&mut self, from: PeerId, to: PeerId, frame: Vec<u8>) {
        if let Some((session, number)) = peek_number(&frame) {
            let new = self.numbers.insert((from, to, session, number));
            assert!(new, "two frames sealed under one key and number: {from} to {to}, {session:x} {number}");
        }
        self.recorded.push((from, to, frame.clone()));
        self.recorded_at.push(self.now);
        if self.lose_kind == Some(frame[1]) {
            return;
        }
        let faults = self.faults;
        if self.rng.chance(faults.replay, 1000) {
            let (mut from, mut to, frame) =
                self.rng.pick(&self.recorded).expect("one was just recorded").clone();
            if self.rng.chance(1, 4) {
                from = id(self.rng.below(self.parties.len() as u64) as usize);
                to = id(self.rng.below(self.parties.len() as u64) as usize);
            }
            self.put(from, to, frame);
        }
        if self.rng.chance(faults.duplicate, 1000) {
            self.put(from, to, frame.clone());
        }
        if !self.rng.chance(faults.lose, 1000) {
            let mut frame = frame;
            if self.rng.chance(faults.corrupt, 1000) {
                let bit = self.rng.below(frame.len() as u64 * 8);
                frame[bit as usize / 8] ^= 1 << (bit % 8);
            }
            self.put(from, to, frame);
        }
    }

    /// On the way, with a delay.
    pub(crate) fn put(&mut self, from: PeerId, to: PeerId, frame: Vec<u8>) {
        let most = self.faults.delay_max.as_nanos() as u64;
        let delay = Duration::from_nanos(50_000 + self.rng.below(most + 1));
        self.put_number += 1;
        self.network.insert((self.now + delay, self.put_number), (from, to, frame));
    }

    pub(crate) fn replay_everything(&mut self) {
        for (from, to, frame) in self.recorded.clone() {
            self.put(from, to, frame);
        }
    }

    /// The counters of all lives of all parties.
    pub(crate) fn counters(&self) -> impl Iterator<Item = Counters> {
        self.parties.iter().map(Mml::counters).chain(self.buried.iter().cloned())
    }

    /// Takes the next frame off the network.
    pub(crate) fn take_next(&mut self) -> Option<(PeerId, PeerId, Vec<u8>)> {
        let ((at, _), frame) = self.network.pop_first()?;
        self.now = self.now.max(at);
        Some(frame)
    }

    fn judge(&mut self, party: usize, event: &Event) {
        let me = id(party);
        let my_life = self.parties[party].incarnation();
        match event {
            Event::Message { from, incarnation, class, seq, body } => {
                let name = u64::from_le_bytes(body[..8].try_into().expect("every message has a name"));
                let sent = self.sent.get_mut(&name).expect("a message that nobody has sent");
                assert!(body[8..].iter().all(|b| *b == name as u8), "an altered body");
                assert_eq!((sent.from, sent.incarnation, sent.to), (*from, *incarnation, me), "an impostor");
                assert_eq!((sent.class, sent.seq), (*class, *seq), "another message's header");
                assert!(sent.delivered.insert(my_life), "delivered twice: {seq} from {from}");
                if seq.delivery == Delivery::Ack {
                    let last = self.order.insert((*from, *incarnation, me, my_life), seq.number);
                    assert!(last.is_none_or(|last| last < seq.number), "out of order: {seq} after {last:?}");
                    assert_eq!(
                        sent.delivered.len(),
                        1,
                        "an ACK message delivered to two lives of the receiver"
                    );
                }
            }
            Event::Delivered { peer, seq } => {
                let name = self.by_name[&(me, my_life, *peer, *seq)];
                let sent = self.sent.get_mut(&name).expect("it has a name");
                assert_eq!(sent.outcome, SendStatus::Pending);
                assert!(!sent.delivered.is_empty(), "acknowledged but not delivered: {seq}");
                sent.outcome = SendStatus::Delivered;
            }
            Event::Failed { peer, seq, reason } => {
                let name = self.by_name[&(me, my_life, *peer, *seq)];
                let sent = self.sent.get_mut(&name).expect("it has a name");
                assert_eq!(sent.outcome, SendStatus::Pending);
                sent.outcome = SendStatus::Failed(*reason);
            }
            Event::Up { .. }
            | Event::Restarted { .. }
            | Event::Down { .. }
            | Event::Gap { .. }
            | Event::Incompatible { .. }
            | Event::Superseded { .. } => {}
        }
    }

    /// Whether message `name` was handed up to some life of its receiver.
    pub(crate) fn was_delivered(&self, name: u64) -> bool {
        !self.sent[&name].delivered.is_empty()
    }

    /// No ACK message of a party still living is left without an outcome, and `status` agrees with the events.
    pub(crate) fn check_settled(&self) {
        for sent in self.sent.values() {
            let sender = self.parties.iter().find(|p| p.me() == sent.from).expect("parties stay");
            if sender.incarnation() == sent.incarnation && sent.seq.delivery == Delivery::Ack {
                assert_ne!(sent.outcome, SendStatus::Pending, "no outcome: {sent:?}");
                assert_eq!(sender.status(sent.to, sent.seq), sent.outcome);
            }
        }
    }

    pub(crate) fn settled_as_delivered(&self) -> usize {
        self.sent.values().filter(|s| s.outcome == SendStatus::Delivered).count()
    }
}
