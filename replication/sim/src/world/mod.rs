//! The world of one run: virtual time, network, members, clients.

mod clients;
mod network;
mod trouble;

use crate::byzantine::{Adversary, Plot, Rogue};
use crate::host::{Host, Output};
use crate::judge::{Judge, Report};
use crate::ledger::Ledger;
use crate::plan::{Clock, Plan, Sabotage, Strategy, Trim, Trouble};
use cl_base::{PeerId, Rng, Time};
use clients::ClientHost;
use replication_proto::{
    ActiveSet, ClientAuthentication, Config, Event, Guarantee, MemberId, Mode, Replacement,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Print what happens.
    pub trace: bool,
    /// A rule to break on purpose.
    pub sabotage: Option<Sabotage>,
    /// f, instead of what the seed draws.
    pub f: Option<usize>,
    /// Faulty members, instead of what the seed draws; more than f is beyond what the protocol promises.
    pub faulty: Option<usize>,
    /// What answers are worth, instead of what the seed draws.
    pub guarantee: Option<Guarantee>,
    /// Members are Byzantine even where nobody is promised to survive that ([`Guarantee::CrashOnly`]); otherwise such
    /// runs leave them out.
    pub beyond: bool,
    /// What is left out of the plan that the seed draws.
    pub trim: Trim,
}

/// The beginning of time in every run.
pub(crate) const EPOCH: Time = Time::from_nanos(1_700_000_000_000_000_000);

/// After the heal everything must be complete within this time. The worst wait is a new-view time-out that
/// was doubled a few times while the faults lasted.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of more steps than this goes round in circles.
const STEPS_MAX: u64 = 3_000_000;

#[derive(Debug)]
enum Happening {
    Deliver { from: PeerId, to: PeerId, bytes: Vec<u8> },
    Release { from: PeerId, to: PeerId, bytes: Vec<u8> },
    MemberTimer(usize),
    ClientTimer(usize),
    Submit(usize),
    FaultBegins(usize),
    FaultEnds(usize),
    Forgets(usize),
    RogueAsks,
    AsksToReplace,
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
    adversaries: Vec<Option<Adversary>>,
    plot: Plot,
    clients: Vec<ClientHost>,
    rogue: Rogue,
    judge: Judge,
    /// What each member suffers from, and until when.
    troubles: Vec<Option<(Trouble, Time)>>,
    /// Partitions in force, by the number of the fault.
    partitions: BTreeMap<usize, network::Partition>,
    /// Replacements asked for, in order: with each begins an epoch.
    replacements: Vec<Replacement>,
    settling: bool,
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    let seed = options.seed;
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
        Report { seed, violations: vec![format!("panic: {what}")], ..Report::default() }
    })
}

impl World {
    fn new(options: Options) -> World {
        let plan = Plan::of(&options);
        let n = 3 * plan.f + 1;
        let members: Vec<PeerId> = (0..n as u32).map(|i| PeerId::new(10 + i, 0)).collect();
        let mut config = Config::new(options.seed, members).expect("3f+1 members are a group");
        config.checkpoint_interval = plan.checkpoint_interval;
        config.log_window = 2 * plan.checkpoint_interval;
        config.pipeline = plan.pipeline;
        config.batch_requests_max = plan.batch;
        config.client_window = 4;
        config.votes = plan.votes;
        config.guarantee = plan.guarantee;
        // Drawn apart, so that the rest of the run stays as it was.
        config.clients = match Rng::new(options.seed ^ 0xc1).chance(1, 2) {
            true => ClientAuthentication::Signed,
            false => ClientAuthentication::Macs,
        };
        let mut variant = Rng::new(options.seed ^ 0xac);
        if variant.chance(1, 4) {
            config.active_members = variant.within(config.quorum() as u64, config.n() as u64) as usize;
        }
        // With f = 2 it may take 21 views whose time-outs grow: longer than a run lasts.
        if plan.f <= 1 && variant.chance(1, 8) {
            config.active_set = ActiveSet::Strict;
        }
        config.request_timeout = plan.patience;
        config.new_view_timeout = plan.patience;
        config.client_timeout = 2 * plan.patience;
        if let Some(Sabotage::Mutation(mutation)) = options.sabotage {
            config.mutation = Some(mutation);
        }
        let faulty = (0..n).filter(|i| plan.is_faulty(*i)).map(|i| MemberId(i as u8)).collect();
        let seed = options.seed;
        let strategies: Vec<Vec<Strategy>> = (0..n).map(|i| plan.strategies(i)).collect();
        let id = |i: usize| MemberId(i as u8);
        let newcomers = plan.newcomers();
        let hosts = (0..n)
            .map(|i| {
                let copies = if strategies[i].contains(&Strategy::Twins) { 2 } else { 1 };
                Host::new(seed, &config, id(i), config.peer(id(i)), plan.clocks[i], copies)
            })
            .chain((n..n + newcomers).map(|i| {
                let clock = Clock { offset: Duration::from_secs(1), drift: 0 };
                Host::new(seed, &config, id(i), PeerId::new(10 + i as u32, 0), clock, 1)
            }))
            .collect();
        let adversaries = strategies
            .into_iter()
            .enumerate()
            .map(|(i, s)| (!s.is_empty()).then(|| Adversary::new(seed, &config, id(i), s)))
            .chain((0..newcomers).map(|_| None))
            .collect();
        let mut rng = Rng::new(seed ^ 0x3e7);
        World {
            judge: Judge::new(seed, config.quorum(), faulty),
            plot: Plot::new(rng.next_u64()),
            rogue: Rogue::new(seed, &config),
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
            adversaries,
            clients: Vec::new(),
            troubles: vec![None; n + newcomers],
            replacements: Vec::new(),
            partitions: BTreeMap::new(),
        }
    }

    fn play(&mut self) {
        self.trace(|w| format!("{:?}", Plan { faults: Vec::new(), ..w.plan.clone() }));
        for i in 0..self.config.n() {
            let now = self.now;
            self.hosts[i].begin(now);
            self.after_member(i);
        }
        for i in 0..self.plan.clients {
            self.add_client(i);
        }
        for (number, fault) in self.plan.faults().collect::<Vec<_>>() {
            self.trace(|_| format!("fault {number}: {fault}"));
            self.schedule_fault(number, fault);
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
        !self.plan.is_faulty(member)
    }

    /// The host of this party.
    fn host_of(&self, peer: PeerId) -> Option<usize> {
        self.hosts.iter().position(|host| host.peer == peer)
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
        self.clients.iter().all(|c| c.left == 0 && c.client.outstanding() == 0 && c.reads.is_empty())
            && self.clients[0].client.config().epoch == self.replacements.len() as u64
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
                    "{}: epoch {} view {} {:?} {:?} h {} executed {} pending {}",
                    host.id, s.epoch, s.view, s.mode, s.role, s.stable, s.executed, s.pending
                ));
            }
        }
        waiting
    }

    fn conclude(&mut self) {
        let correct: Vec<_> = (0..self.hosts.len())
            .filter(|i| self.is_correct(*i))
            .flat_map(|i| self.hosts[i].copies.first().map(|r| (self.hosts[i].id, r)))
            .map(|(id, r)| {
                (id, r.status(), r.state_digest(), r.machine(), r.config().peer(r.status().primary))
            })
            .filter(|c| !c.1.retired)
            .collect();
        let top = correct.iter().map(|c| c.1.executed).max().unwrap_or(0);
        let top_view = correct.iter().map(|c| (c.1.epoch, c.1.view)).max().unwrap_or((0, 0));
        let behind = correct.iter().filter(|c| c.1.epoch < top_view.0);
        let behind: Vec<String> =
            behind.map(|c| format!("progress: member {} stays in epoch {}", c.0, c.1.epoch)).collect();
        let late: Vec<String> = correct
            .iter()
            .filter(|c| {
                (c.1.epoch, c.1.view) == top_view && c.1.active.contains(&c.1.me) && c.1.executed < top
            })
            // A Byzantine primary can leave one member out until the next checkpoint.
            .filter(|c| self.host_of(c.4).is_some_and(|host| self.is_correct(host)))
            // Who left the view alone waits until the others follow: there is no way back (2.8).
            .filter(|c| c.1.mode == Mode::Normal)
            .map(|c| format!("progress: active member {} stays at RSN {} of {top}", c.0, c.1.executed))
            .collect();
        let members: Vec<_> = correct.iter().map(|c| (c.0, c.1.executed, c.2, c.3)).collect();
        self.judge.conclude(&members);
        for objection in late.into_iter().chain(behind) {
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
            Happening::Deliver { from, to, bytes } => self.deliver(from, to, bytes),
            Happening::Release { from, to, bytes } => self.transmit(from, to, bytes),
            Happening::MemberTimer(i) => self.member_timer(i),
            Happening::ClientTimer(i) => {
                if self.clients[i].timer_at.is_some_and(|at| at <= self.now) {
                    self.clients[i].timer_at = None;
                    let now = self.now;
                    self.clients[i].client.on_timeout(now);
                    self.after_client(i);
                }
            }
            Happening::Submit(i) => self.submit(i),
            Happening::FaultBegins(number) => self.fault_begins(number),
            Happening::FaultEnds(number) => self.fault_ends(number),
            Happening::RogueAsks => self.rogue_asks(),
            Happening::AsksToReplace => self.ask_to_replace(),
            Happening::Forgets(i) => self.forgets(i),
        }
    }

    fn member_timer(&mut self, i: usize) {
        if let Some((Trouble::Paused, until)) = self.troubles[i] {
            return self.schedule(until, Happening::MemberTimer(i));
        }
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

    /// Carries out what a member did and sets its timer.
    fn after_member(&mut self, i: usize) {
        for (copy, output) in self.hosts[i].drain() {
            match output {
                Output::Event(event) => {
                    if let Event::EpochBegan { .. } = &event
                        && let Some(adversary) = &mut self.adversaries[i]
                        && let Some(replica) = self.hosts[i].copies.get(copy)
                    {
                        adversary.follow(replica.config());
                    }
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
        if self.is_correct(i) {
            for holding in self.hosts[i].copies.first().into_iter().flat_map(|r| r.holdings()) {
                self.judge.holds(MemberId(i as u8), &holding);
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
}
