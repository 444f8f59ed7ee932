//! The agent daemon of a node (dissertation 7.1.2.2): it takes part in the election of the managers, runs a
//! manager if its node is a member, joins the cluster, sends heartbeats, and starts and controls the ranks
//! of jobs as f+1 managers command.

mod beats;
mod election;
mod jobs;
mod manager_process;
mod sink;

use crate::class::{self, Class};
use crate::config::Config;
use crate::daemon;
use crate::keys::Keyring;
use crate::layout::Layout;
use crate::link::{Incoming, LINK_TIMER, Link};
use beats::Beats;
use cl::Received;
use cl::runtime::{Core, Interest, Readiness, Service, Signal, Signals, TimerId, Token};
use cl_base::{Incarnation, Time, codec};
use cmm_core::api::{Notice, Op, Reply};
use cmm_core::bootstrap::Decision;
use cmm_core::heartbeat::agent_slot;
use cmm_core::identity::{NodeId, Role};
use election::Election;
use jobs::Jobs;
use manager_process::ManagerProcess;
use replication_proto::Ticket;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

const ELECTION: TimerId = TimerId(1);
const HEARTBEAT: TimerId = TimerId(2);
const MANAGER: TimerId = TimerId(3);
const JOBS: TimerId = TimerId(4);
const REPORTS: TimerId = TimerId(5);
/// How long the self-test waits for the hardcore before the node declares itself unable to run a manager.
const HARDCORE_WAIT: Duration = Duration::from_secs(1);
/// A manager group that has left an operation unanswered for this long is reported as not serving
/// (PROTOCOL.md section 5). Longer than several view changes.
const NO_SERVICE_AFTER: Duration = Duration::from_secs(20);
/// Outvoted managers are reported together, this often at most.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The cluster's directory.
    pub dir: PathBuf,
    /// The node it is on.
    pub node: NodeId,
}

/// Runs an agent until SIGTERM.
///
/// # Errors
/// A sentence about what it needs and does not have.
pub fn run(options: &AgentOptions) -> Result<(), String> {
    let layout = Layout::new(&options.dir);
    let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
    let node = options.node;
    let cores =
        config.node(node).ok_or_else(|| format!("{node} is not in {}", layout.config().display()))?.cores;
    let role = Role::Agent(node);
    // Before the roster is read, so that no change of it is missed.
    let signals = Signals::new(&[Signal::Terminate, Signal::Interrupt, Signal::Hangup, Signal::Child])
        .map_err(|e| format!("cannot receive signals: {e}"))?;
    let keyring = Keyring::load(&layout, role)?;
    let mut runtime = daemon::open(&keyring, role)?;
    let now = runtime.core().now();
    let incarnation = Incarnation(now.as_nanos());
    let signals_token = runtime
        .core()
        .register(&signals, Interest::READABLE)
        .map_err(|e| format!("cannot watch for signals: {e}"))?;
    let link = Link::new(keyring.clone(), role.peer(), incarnation, config.request_timeout())?;
    let service = Agent {
        node,
        incarnation,
        cores,
        beats: Beats::new(&config, node, incarnation, daemon::address(&keyring, role)?.ip())?,
        election: Election::new(&layout, &config, &keyring, node, incarnation)?,
        jobs: Jobs::new(&config, &keyring, node),
        manager: ManagerProcess::new(layout.clone(), node),
        layout,
        config,
        link,
        signals,
        signals_token,
        pending: BTreeMap::new(),
        waiting: VecDeque::new(),
        admitted: false,
        outvoted: BTreeMap::new(),
    };
    runtime.run(service).map_err(|e| format!("the event loop failed: {e}"))?;
    Ok(())
}

struct Agent {
    node: NodeId,
    incarnation: Incarnation,
    cores: u32,
    layout: Layout,
    config: Config,
    link: Link,
    signals: Signals,
    signals_token: Token,
    election: Election,
    jobs: Jobs,
    manager: ManagerProcess,
    /// Operations under way, and since when; none is forgotten before it is answered.
    pending: BTreeMap<Ticket, (Op, Time)>,
    /// Operations that the client has no room for yet, in order.
    waiting: VecDeque<Op>,
    admitted: bool,
    beats: Beats,
    /// Managers that contradicted the group since the last report.
    outvoted: BTreeMap<NodeId, u64>,
}

type Cx = Core<()>;

impl Service for Agent {
    type Mail = ();

    fn start(&mut self, cx: &mut Cx) {
        tracing::info!(node = %self.node, cores = self.cores, transport = cx.endpoint().transport_reason(), "agent");
        self.link.connect(cx, Role::Hardcore.peer());
        cx.set_timer(cx.now() + HARDCORE_WAIT, ELECTION);
        self.settle(cx);
    }

    fn classify(received: &Received) -> cl::runtime::Priority {
        class::priority_of(&received.buf)
    }

    fn on_message(&mut self, cx: &mut Cx, received: Received) {
        self.link.on_message(cx, received);
        self.settle(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx, id: TimerId) {
        match id {
            LINK_TIMER => self.link.on_timer(cx),
            ELECTION => self.election.on_timer(cx.now()),
            HEARTBEAT => self.on_heartbeat(cx),
            MANAGER => self.manager.on_timer(cx.now()),
            JOBS => self.jobs.on_timer(cx, &mut self.link),
            REPORTS => self.report_outvoted(cx),
            other => unreachable!("no timer {other:?} is ever set"),
        }
        self.settle(cx);
    }

    fn on_ready(&mut self, cx: &mut Cx, token: Token, readiness: Readiness) {
        if token == self.signals_token {
            while let Ok(Some(signal)) = self.signals.next() {
                match signal {
                    Signal::Child => self.on_child(cx),
                    Signal::Hangup => {
                        self.link.reload(cx, &self.layout, Role::Agent(self.node));
                        self.manager.reload();
                    }
                    _ => return self.shut_down(cx),
                }
            }
        } else {
            self.jobs.on_ready(cx, &mut self.link, token, readiness);
        }
        self.settle(cx);
    }
}

impl Agent {
    /// Carries out what the parts want of each other until none wants anything.
    fn settle(&mut self, cx: &mut Cx) {
        loop {
            let mut quiet = true;
            while let Some(incoming) = self.link.poll() {
                quiet = false;
                self.on_incoming(cx, incoming);
            }
            while let Some(step) = self.election.poll() {
                quiet = false;
                self.on_election(cx, step);
            }
            while let Some(op) = self.jobs.poll() {
                quiet = false;
                self.submit(cx, op);
            }
            if quiet {
                break;
            }
        }
        let set = |cx: &mut Cx, at: Option<Time>, id| match at {
            Some(at) => cx.set_timer(at, id),
            None => {
                cx.cancel_timer(id);
            }
        };
        if self.election.is_running() {
            set(cx, self.election.next_timeout(), ELECTION);
        }
        set(cx, self.manager.next_timeout(), MANAGER);
        set(cx, self.jobs.next_timeout(), JOBS);
    }

    fn on_incoming(&mut self, cx: &mut Cx, incoming: Incoming) {
        match incoming {
            Incoming::Message { from, class: Class::Bootstrap, body } => {
                self.election.on_message(cx.now(), from, &body);
            }
            Incoming::Message { from, class: Class::Heartbeat, body } => self.beats.on_message(from, &body),
            Incoming::Message { from, class: Class::HeartbeatWay, body } => {
                self.beats.on_way(cx.now(), &self.link, from, &body);
            }
            Incoming::Message { from, class: Class::Locate, .. } => {
                if let Some(decision) = self.link.decision() {
                    let bytes = codec::encode(decision);
                    self.link.send(cx, from, Class::Locate, &bytes);
                }
            }
            Incoming::Message { from, class: Class::Pmi, body } => {
                self.jobs.on_pmi_message(cx, &mut self.link, from, &body);
            }
            Incoming::Message { from, class: Class::Output, body } => {
                self.jobs.on_output(cx, &mut self.link, from, &body);
            }
            Incoming::Answered(ticket, answer) => self.on_answer(cx, ticket, answer),
            Incoming::Noticed(notice) => self.on_notice(cx, notice),
            Incoming::Outvoted(manager) => {
                if self.outvoted.is_empty() {
                    cx.set_timer(cx.now() + REPORT_PERIOD, REPORTS);
                }
                tracing::warn!(%manager, "a manager was outvoted");
                *self.outvoted.entry(manager).or_default() += 1;
            }
            Incoming::Up(peer) if peer == Role::Hardcore.peer() => self.election.hardcore_reached(cx.now()),
            Incoming::Down(peer) => self.beats.on_down(peer),
            Incoming::Delivered(peer, sequence) => self.jobs.delivered(cx, &mut self.link, peer, sequence),
            Incoming::Failed(peer, sequence) => self.jobs.failed(cx, &mut self.link, peer, sequence),
            _ => {}
        }
    }

    fn on_election(&mut self, cx: &mut Cx, step: election::Step) {
        match step {
            election::Step::Send { to, bytes } => self.link.send(cx, to, Class::Bootstrap, &bytes),
            election::Step::Decided(decision) => self.on_decided(cx, &decision),
            election::Step::Failed(reason) => {
                // Without its record an agent could contradict itself; the keeper of its promises is gone.
                tracing::error!("{reason}");
                self.shut_down(cx);
            }
        }
    }

    /// Phase 4 of dissertation 6.2: start the manager if this node is a member, then JOIN.
    fn on_decided(&mut self, cx: &mut Cx, decision: &Decision) {
        if self.link.decision().is_some_and(|d| d.instance() < decision.instance()) {
            // The new group starts its books anew; nothing may run that they do not list.
            self.jobs.kill_everything();
        }
        if !self.link.adopt(cx, decision) {
            return;
        }
        let member = decision.configuration.members.contains(&self.link.me());
        self.manager.want(cx.now(), member);
        self.admitted = false;
        // A new group knows nothing of what was asked of an earlier one.
        self.pending.clear();
        self.waiting.clear();
        let join = Op::Join { incarnation: self.incarnation, cores: self.cores };
        self.submit(cx, join);
        cx.set_timer(self.next_heartbeat(cx.now()), HEARTBEAT);
    }

    fn on_notice(&mut self, cx: &mut Cx, notice: Notice) {
        match notice {
            Notice::Launch { attempt, incarnation, spec, parts } if incarnation == self.incarnation => {
                self.jobs.launch(cx, &mut self.link, attempt, spec, parts);
            }
            Notice::Launch { attempt, .. } => {
                tracing::info!(%attempt, "a launch for an earlier life is ignored")
            }
            Notice::Kill { attempt, reason } => self.jobs.kill(cx, attempt, &reason),
            Notice::Ping { nonce } => {
                self.beats.on_ping();
                self.submit(cx, Op::Pong { nonce });
            }
            Notice::Avoid { bundlers } => self.beats.on_avoid(&bundlers),
            Notice::Reset { .. } | Notice::JobChanged(_) => {
                tracing::error!(?notice, "the group sent an agent what is not for agents");
            }
        }
    }

    fn submit(&mut self, cx: &mut Cx, op: Op) {
        match self.link.submit(cx, &op) {
            Ok(ticket) => {
                self.pending.insert(ticket, (op, cx.now()));
            }
            // Tried again when an answer has made room.
            Err(_) => self.waiting.push_back(op),
        }
    }

    fn on_answer(&mut self, cx: &mut Cx, ticket: Ticket, answer: cmm_core::api::Answer) {
        let Some((op, _)) = self.pending.remove(&ticket) else { return };
        match answer {
            Ok(Reply::Admitted) if !self.admitted => {
                self.admitted = true;
                self.election.admitted(cx.now());
                tracing::info!("admitted to the cluster: normal operation");
            }
            Ok(_) => {}
            Err(refusal) => tracing::error!(?op, %refusal, "the managers refuse"),
        }
        for op in std::mem::take(&mut self.waiting) {
            self.submit(cx, op);
        }
    }

    fn next_heartbeat(&self, now: Time) -> Time {
        let place = self.config.nodes.iter().filter(|other| other.id < self.node).count();
        agent_slot(now, self.config.heartbeat(), place)
    }

    /// Sends a heartbeat and what was bundled (7.1.5), and watches over the group's answers.
    fn on_heartbeat(&mut self, cx: &mut Cx) {
        let now = cx.now();
        cx.set_timer(self.next_heartbeat(now), HEARTBEAT);
        if self.admitted {
            self.beats.on_period(cx, &mut self.link);
        }
        let oldest = self.pending.values().map(|(_, since)| *since).min();
        if oldest.is_some_and(|since| now.saturating_since(since) >= NO_SERVICE_AFTER) {
            tracing::warn!("the manager group does not answer");
            self.election.no_service(now);
            for (_, since) in self.pending.values_mut() {
                *since = now;
            }
        }
    }

    fn report_outvoted(&mut self, cx: &mut Cx) {
        for (manager, times) in std::mem::take(&mut self.outvoted) {
            self.submit(cx, Op::Outvoted { manager, times });
        }
    }

    fn on_child(&mut self, cx: &mut Cx) {
        if let Some(status) = self.manager.reap(cx.now()) {
            self.submit(cx, Op::ManagerExited { status });
        }
        self.jobs.reap(cx);
    }

    fn shut_down(&mut self, cx: &mut Cx) {
        tracing::info!("stopping");
        self.jobs.kill_everything();
        self.manager.stop();
        cx.stop();
    }
}
