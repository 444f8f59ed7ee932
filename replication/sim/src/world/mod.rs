//! The world of one run: virtual time, network, members, clients.

mod network;

use crate::SimKeys;
use crate::byzantine::{rogue_request, twin_of};
use crate::host::{Host, Output};
use crate::judge::{Judge, Report};
use crate::ledger::{Command, Ledger, Op};
use crate::plan::{Byzantine, Fault, Plan, ROGUE, Sabotage};
use cl_base::codec;
use cl_base::{PeerId, Rng, Time};
use replication::{Client, ClientEffect, Config, Event, MemberId, Mode, Ticket, message};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Print what happens.
    pub trace: bool,
    /// A rule to break on purpose.
    pub sabotage: Option<Sabotage>,
}

/// The beginning of time in every run.
const EPOCH: Time = Time::from_nanos(1_700_000_000_000_000_000);

/// After the heal everything must be complete within this time. The worst wait is a new-view time-out that
/// was doubled a few times while the faults lasted.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of more steps than this goes round in circles.
const STEPS_MAX: u64 = 3_000_000;

#[derive(Debug)]
enum Happening {
    Deliver { from: PeerId, to: PeerId, bytes: Vec<u8> },
    MemberTimer(usize),
    ClientTimer(usize),
    Submit(usize),
    FaultBegins(usize),
    FaultEnds(usize),
    ClientRestarts(usize),
    Forgets(usize),
    RogueAsks,
}

struct ClientHost {
    peer: PeerId,
    client: Client,
    timer_at: Option<Time>,
    next_nonce: u64,
    left: u64,
    tickets: BTreeMap<Ticket, u64>,
}

struct World {
    options: Options,
    plan: Plan,
    config: Config,
    rng: Rng,
    now: Time,
    /// Time, then order of scheduling.
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    scheduled: u64,
    hosts: Vec<Host>,
    clients: Vec<ClientHost>,
    judge: Judge,
    /// Fault in force at each member, and for one-way cuts whether it is deaf.
    faults: Vec<Option<(Fault, bool)>>,
    split: u64,
    settling: bool,
    sent_before: Vec<Vec<u8>>,
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(options);
        world.play();
        world.judge.report
    });
    outcome.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Report { seed: options.seed, violations: vec![format!("panic: {what}")], ..Report::default() }
    })
}

impl World {
    fn new(options: Options) -> World {
        let mut rng = Rng::new(options.seed);
        let plan = Plan::draw(&mut rng);
        let n = 3 * plan.f + 1;
        let members: Vec<PeerId> = (0..n as u32).map(|i| PeerId::new(10 + i, 0)).collect();
        let mut config = Config::new(options.seed, members).expect("3f+1 members are a group");
        config.checkpoint_interval = plan.checkpoint_interval;
        config.log_window = 2 * plan.checkpoint_interval;
        config.pipeline = plan.pipeline;
        config.batch_requests_max = plan.batch;
        config.client_window = 4;
        if options.seed.is_multiple_of(2) {
            config.votes = replication::VoteAuthentication::Channel;
        }
        config.request_timeout = plan.patience;
        config.new_view_timeout = plan.patience;
        config.client_timeout = 2 * plan.patience;
        if let Some(Sabotage::Mutation(mutation)) = options.sabotage {
            config.mutation = Some(mutation);
        }
        let byzantine = plan.byzantine.iter().map(|(i, _)| MemberId(*i as u8)).collect();
        let hosts = (0..n)
            .map(|i| {
                let copies = if plan.kind_of(i) == Some(Byzantine::Twins) { 2 } else { 1 };
                Host::new(options.seed, &config, MemberId(i as u8), plan.clock[i], copies)
            })
            .collect();
        World {
            judge: Judge::new(options.seed, byzantine),
            split: rng.next_u64(),
            settling: false,
            options,
            plan,
            config,
            rng,
            now: EPOCH,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            scheduled: 0,
            hosts,
            clients: Vec::new(),
            faults: vec![None; n],
            sent_before: Vec::new(),
        }
    }

    fn play(&mut self) {
        self.trace(|w| format!("{:?}", w.plan));
        for i in 0..self.hosts.len() {
            let now = self.now;
            self.hosts[i].begin(now);
            self.after_member(i);
        }
        for i in 0..self.plan.clients {
            let peer = PeerId::new(50 + i as u32, 0);
            let client = self.new_client(peer);
            let left = self.plan.ops_per_client;
            self.clients.push(ClientHost {
                peer,
                client,
                timer_at: None,
                next_nonce: 1,
                left,
                tickets: BTreeMap::new(),
            });
            self.after_client(i);
            self.think(i);
            if self.plan.client_restarts {
                let at = Duration::from_millis(self.rng.within(1, self.plan.heal.as_millis() as u64));
                self.schedule(EPOCH + at, Happening::ClientRestarts(i));
            }
        }
        for (i, window) in self.plan.windows.clone().into_iter().enumerate() {
            self.schedule(EPOCH + window.from, Happening::FaultBegins(i));
            self.schedule(EPOCH + window.to, Happening::FaultEnds(i));
        }
        for (i, kind) in self.plan.byzantine.clone() {
            if kind == Byzantine::Forgetful {
                self.schedule(EPOCH + Duration::from_millis(300), Happening::Forgets(i));
            }
        }
        if self.plan.rogue {
            self.schedule(EPOCH, Happening::RogueAsks);
        }
        let healed = self.healed();
        self.run_until(healed, |_| false);
        self.trace(|_| "HEALED".to_string());
        for i in 0..self.clients.len() {
            self.clients[i].left += self.plan.ops_after;
            self.think(i);
        }
        let end = healed + PATIENCE;
        self.run_until(end, World::is_complete);
        if !self.is_complete() {
            let waiting: Vec<String> = self.incomplete();
            self.judge.object(format!("progress: incomplete after {PATIENCE:?}: {}", waiting.join("; ")));
        }
        // Laggards catch up with the next idle STATUS, now that nothing new is asked for.
        self.settling = true;
        let settled = self.now + Duration::from_secs(4);
        self.run_until(settled, |_| false);
        self.conclude();
    }

    fn healed(&self) -> Time {
        EPOCH + self.plan.heal
    }

    fn is_correct(&self, member: usize) -> bool {
        self.plan.kind_of(member).is_none()
    }

    /// The ledger of the correct member that is furthest.
    fn furthest(&self) -> Option<&Ledger> {
        (0..self.hosts.len())
            .filter(|i| self.is_correct(*i))
            .flat_map(|i| self.hosts[i].copies.first())
            .max_by_key(|r| r.status().executed)
            .map(|r| r.machine())
    }

    fn is_complete(&self) -> bool {
        self.clients.iter().all(|c| c.left == 0 && c.client.outstanding() == 0)
            && self.furthest().is_some_and(|l| l.alarms.is_empty() && !self.judge.undelivered(l))
    }

    fn incomplete(&self) -> Vec<String> {
        let mut waiting: Vec<String> = self
            .clients
            .iter()
            .map(|c| format!("{}: {} to submit, {} outstanding", c.peer, c.left, c.client.outstanding()))
            .collect();
        for host in &self.hosts {
            for replica in &host.copies {
                let s = replica.status();
                waiting.push(format!(
                    "{}: view {} {:?} {:?} h {} executed {} pending {}",
                    s.me, s.view, s.mode, s.role, s.stable, s.executed, s.pending
                ));
            }
        }
        waiting
    }

    fn conclude(&mut self) {
        let correct: Vec<_> = (0..self.hosts.len())
            .filter(|i| self.is_correct(*i))
            .flat_map(|i| self.hosts[i].copies.first().map(|r| (self.hosts[i].id, r)))
            .map(|(id, r)| (id, r.status(), r.state_digest(), r.machine()))
            .collect();
        let top = correct.iter().map(|c| c.1.executed).max().unwrap_or(0);
        let top_view = correct.iter().map(|c| c.1.view).max().unwrap_or(0);
        let late: Vec<String> = correct
            .iter()
            .filter(|c| c.1.view == top_view && c.1.active.contains(&c.0) && c.1.executed < top)
            // A Byzantine primary can leave one member out until the next checkpoint.
            .filter(|c| self.is_correct(usize::from(c.1.primary.0)))
            // Who left the view alone waits until the others follow: there is no way back (2.8).
            .filter(|c| c.1.mode == Mode::Normal)
            .map(|c| format!("progress: active member {} stays at RSN {} of {top}", c.0, c.1.executed))
            .collect();
        let members: Vec<_> = correct.iter().map(|c| (c.0, c.1.executed, c.2, c.3)).collect();
        self.judge.conclude(&members);
        for objection in late {
            self.judge.object(objection);
        }
    }

    fn trace(&self, line: impl FnOnce(&World) -> String) {
        if self.options.trace {
            println!("{:>12} {}", self.now.saturating_since(EPOCH).as_micros(), line(self));
        }
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse((at.max(self.now), self.scheduled)));
        self.happenings.insert(self.scheduled, happening);
    }

    fn run_until(&mut self, end: Time, done: impl Fn(&World) -> bool) {
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if at > end || !self.judge.report.violations.is_empty() {
                break;
            }
            self.queue.pop();
            self.now = at;
            let happening = self.happenings.remove(&id).expect("what is scheduled is kept");
            let check = matches!(happening, Happening::Deliver { to, .. } if to.principal.0 >= 50);
            self.happen(happening);
            self.judge.report.steps += 1;
            if self.judge.report.steps > STEPS_MAX {
                self.judge.object("progress: the run does not end".to_string());
            }
            if check && done(self) {
                return;
            }
        }
        self.now = self.now.max(end.min(self.now + PATIENCE));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Happening::MemberTimer(i) => {
                if self.hosts[i].timer_at.is_some_and(|at| at <= self.now) {
                    self.hosts[i].timer_at = None;
                    let local = self.hosts[i].local(self.now);
                    for replica in &mut self.hosts[i].copies {
                        if replica.next_timeout().is_some_and(|at| at <= local) {
                            replica.on_timeout(local);
                        }
                    }
                    self.after_member(i);
                }
            }
            Happening::ClientTimer(i) => {
                if self.clients[i].timer_at.is_some_and(|at| at <= self.now) {
                    self.clients[i].timer_at = None;
                    let now = self.now;
                    self.clients[i].client.on_timeout(now);
                    self.after_client(i);
                }
            }
            Happening::Submit(i) => self.submit(i),
            Happening::FaultBegins(w) => {
                let window = self.plan.windows[w];
                self.trace(|_| format!("{:?} of {} begins", window.fault, window.member));
                match window.fault {
                    Fault::Crash => {
                        self.judge.fault("crashes");
                        // Some fall in the middle of what they are doing.
                        if self.rng.chance(1, 2) {
                            self.hosts[window.member].falls_after = Some(self.rng.within(1, 30));
                        } else {
                            self.hosts[window.member].fall();
                        }
                    }
                    Fault::CutOff => self.judge.fault("cut off"),
                    Fault::OneWay => self.judge.fault("one-way cuts"),
                }
                self.faults[window.member] = Some((window.fault, self.rng.chance(1, 2)));
            }
            Happening::FaultEnds(w) => {
                let window = self.plan.windows[w];
                self.trace(|_| format!("{:?} of {} ends", window.fault, window.member));
                self.faults[window.member] = None;
                if window.fault == Fault::Crash {
                    let now = self.now;
                    let host = &mut self.hosts[window.member];
                    if self.options.sabotage == Some(Sabotage::Amnesia) {
                        host.fall();
                        host.begin(now);
                    } else if let Err(e) = host.restart(now) {
                        self.judge.object(e);
                    }
                    self.after_member(window.member);
                }
            }
            Happening::ClientRestarts(i) => {
                self.trace(|w| format!("client {} restarts", w.clients[i].peer));
                self.judge.fault("client restarts");
                let peer = self.clients[i].peer;
                self.clients[i].client = self.new_client(peer);
                self.clients[i].tickets.clear();
                self.after_client(i);
            }
            Happening::RogueAsks if self.settling => {}
            Happening::RogueAsks => {
                self.judge.fault("rogue requests");
                let keys = SimKeys::new(self.options.seed, &self.config.members, ROGUE);
                let request = rogue_request(&mut self.rng, &self.config, ROGUE, &keys);
                let to = self.hosts[self.rng.below(self.hosts.len() as u64) as usize].peer;
                self.transmit(ROGUE, to, message::encode(&self.config, &request));
                let pause = Duration::from_millis(self.rng.within(1, 200));
                self.schedule(self.now + pause, Happening::RogueAsks);
            }
            Happening::Forgets(i) => {
                self.judge.fault("forgotten");
                let now = self.now;
                self.hosts[i].begin(now);
                self.after_member(i);
                let pause = Duration::from_millis(self.rng.within(100, 3_000));
                self.schedule(now + pause, Happening::Forgets(i));
            }
        }
    }

    fn deliver(&mut self, from: PeerId, to: PeerId, bytes: &[u8]) {
        if let Some(member) = self.config.member(to) {
            let i = usize::from(member.0);
            let deaf = match self.faults[i] {
                Some((Fault::CutOff, _)) => true,
                Some((Fault::OneWay, deaf)) => deaf,
                _ => false,
            };
            if deaf || !self.hosts[i].is_up() {
                return;
            }
            let twins = self.hosts[i].copies.len() > 1;
            let local = self.hosts[i].local(self.now);
            for (twin, replica) in self.hosts[i].copies.iter_mut().enumerate() {
                if !twins || twin_of(self.split, from, &self.config, twin) {
                    replica.on_message(local, from, bytes);
                }
            }
            self.after_member(i);
        } else if let Some(i) = self.clients.iter().position(|c| c.peer == to) {
            let now = self.now;
            self.clients[i].client.on_message(now, from, bytes);
            self.after_client(i);
        }
    }

    /// Carries out what a member did and sets its timer.
    fn after_member(&mut self, i: usize) {
        for (copy, output) in self.hosts[i].drain() {
            match output {
                Output::Event(event) => {
                    self.trace(|w| match &event {
                        Event::Executed { rsn, digest, ops, .. } => {
                            format!("{} executes {rsn} {digest:?} with {ops}", w.hosts[i].id)
                        }
                        event => format!("{} {event:?}", w.hosts[i].id),
                    });
                    self.judge.event(MemberId(i as u8), &event);
                }
                Output::Send { to, bytes } => self.member_sends(i, copy, to, bytes),
            }
        }
        if let Some(at) = self.hosts[i].wants() {
            let at = at.max(self.now);
            if self.hosts[i].timer_at.is_none_or(|before| at < before) {
                self.hosts[i].timer_at = Some(at);
                self.schedule(at, Happening::MemberTimer(i));
            }
        }
    }

    fn new_client(&mut self, peer: PeerId) -> Client {
        let keys = Box::new(SimKeys::new(self.options.seed, &self.config.members, peer));
        let mut client = Client::new(&self.config, peer, keys, self.now.as_nanos());
        client.listen(self.now);
        self.judge.client_began(peer);
        client
    }

    fn think(&mut self, i: usize) {
        let think = self.rng.below(2 * self.plan.think.as_nanos() as u64);
        let at = self.now + Duration::from_nanos(think);
        self.schedule(at, Happening::Submit(i));
    }

    fn submit(&mut self, i: usize) {
        if self.clients[i].left == 0 {
            return;
        }
        self.think(i);
        let peer = self.clients[i].peer;
        let other = PeerId::new(50 + self.rng.below(self.plan.clients as u64) as u32, 0);
        let op = match self.rng.below(8) {
            0 | 1 => Op::Add(self.rng.below(1000) as u32),
            2 => Op::Append(vec![b'x'; self.rng.below(200) as usize]),
            3 => Op::Put(self.rng.below(4) as u8, self.rng.below(1000) as u32),
            4 => Op::Get(self.rng.below(4) as u8),
            5 | 6 => Op::Tell(other, self.rng.below(1000) as u32),
            _ => Op::Alarm(self.rng.below(1500) as u16),
        };
        let host = &mut self.clients[i];
        if !host.client.has_room() {
            return;
        }
        let nonce = host.next_nonce;
        host.next_nonce += 1;
        host.left -= 1;
        let ticket = host
            .client
            .submit(self.now, codec::encode(&Command { nonce, op }))
            .expect("there is room and the operation is short");
        host.tickets.insert(ticket, nonce);
        self.judge.submitted(peer, nonce, self.now);
        self.after_client(i);
    }

    fn after_client(&mut self, i: usize) {
        let peer = self.clients[i].peer;
        while let Some(effect) = self.clients[i].client.poll_effect() {
            match effect {
                ClientEffect::Send { to, bytes } => self.transmit(peer, to, bytes),
                ClientEffect::Completed { ticket, result, .. } => {
                    if let Some(nonce) = self.clients[i].tickets.remove(&ticket) {
                        self.trace(|_| format!("{peer} completes {nonce}"));
                        let healed = self.healed();
                        self.judge.completed(peer, nonce, self.now, result, healed);
                    }
                }
                ClientEffect::Notification { seq, body } => {
                    self.trace(|_| format!("{peer} is notified {seq}"));
                    self.judge.notification(peer, seq, body);
                }
                ClientEffect::NotificationsBegin { seq } => self.judge.notifications_begin(peer, seq),
                ClientEffect::Outvoted { member } => self.judge.outvoted(peer, member),
                ClientEffect::Stale { ticket, .. } => {
                    let nonce = self.clients[i].tickets.get(&ticket).copied().unwrap_or(0);
                    self.judge.stale(peer, nonce);
                }
            }
        }
        if let Some(at) = self.clients[i].client.next_timeout() {
            let at = at.max(self.now);
            if self.clients[i].timer_at.is_none_or(|before| at < before) {
                self.clients[i].timer_at = Some(at);
                self.schedule(at, Happening::ClientTimer(i));
            }
        }
    }
}
