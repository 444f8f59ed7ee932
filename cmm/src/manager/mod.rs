//! The manager daemon: one replica of the cluster manager, with its storage, its heartbeats and its view of
//! the nodes' heartbeats (dissertation 7.1.2.1, 7.1.5, 7.1.6).

mod corrupt;
mod replica;

use crate::class::{self, Class};
use crate::config::Config;
use crate::daemon;
use crate::heartbeats::{Inbox, Ways};
use crate::keys::Keyring;
use crate::layout::Layout;
use crate::link::{Incoming, LINK_TIMER, Link};
use borsh::{BorshDeserialize, BorshSerialize};
use cl::Received;
use cl::runtime::{Core, Interest, Readiness, Service, Signal, Signals, TimerId, Token};
use cl_base::{Incarnation, PeerId, Time, codec};
use cmm_core::api::Op;
use cmm_core::bootstrap::Decision;
use cmm_core::heartbeat::{Heartbeat, Monitor, Suppressor, manager_slot};
use cmm_core::identity::{NodeId, Role, manager_node};
use replica::Replicated;
use replication_proto::{Event, Mode};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

pub use corrupt::CORRUPT_VARIABLE;

const REPLICA: TimerId = TimerId(1);
const PERIOD: TimerId = TimerId(2);
/// How often the hardcore hears that this manager lives.
const ALIVE_PERIOD: Duration = Duration::from_secs(1);

/// How to start a manager.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// The cluster's directory.
    pub dir: PathBuf,
    /// The node it is on.
    pub node: NodeId,
}

/// How one manager sees the group: the answer to a message of [`Class::Status`]. It is that manager's word
/// alone.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct ManagerStatus {
    /// The manager's node.
    pub node: NodeId,
    /// The instance of the election that made the group.
    pub instance: u64,
    /// Its view.
    pub view: u64,
    /// The primary of that view.
    pub primary: NodeId,
    /// "primary", "backup" or "spare".
    pub role: String,
    /// False while it waits for a new view.
    pub normal: bool,
    /// Whether the view is widened to the spare.
    pub wide: bool,
    /// The last batch executed.
    pub executed: u64,
    /// The last stable checkpoint.
    pub stable: u64,
    /// Its process.
    pub pid: u32,
    /// Since when it runs, nanoseconds since the UNIX epoch.
    pub since_ns: u64,
}

/// Runs a manager until SIGTERM.
///
/// # Errors
/// A sentence about what it needs and does not have.
pub fn run(options: &ManagerOptions) -> Result<(), String> {
    let layout = Layout::new(&options.dir);
    let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
    let role = Role::Manager(options.node);
    // Before the roster is read, so that no change of it is missed.
    let signals = Signals::new(&[Signal::Terminate, Signal::Interrupt, Signal::Hangup])
        .map_err(|e| format!("cannot receive signals: {e}"))?;
    let keyring = Keyring::load(&layout, role)?;
    let path = layout.decision(options.node);
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let decision: Decision = codec::decode(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    decision
        .verify(&keyring, &daemon::election(&config, &keyring)?)
        .map_err(|e| format!("{}: {e}", path.display()))?;

    let mut runtime = daemon::open(&keyring, role)?;
    let now = runtime.core().now();
    runtime
        .core()
        .register(&signals, Interest::READABLE)
        .map_err(|e| format!("cannot watch for signals: {e}"))?;
    let replica = Replicated::open(&layout, &config, &keyring, &decision, options, now)?;
    let ip = daemon::address(&keyring, role)?.ip();
    // Injected faults are for heartbeats, too, and do not reach their datagrams.
    let unharmed = runtime.core().endpoint().faults().is_none();
    let link = Link::new(keyring, role.peer(), Incarnation(now.as_nanos()), config.request_timeout())?;
    let service = Daemon {
        node: options.node,
        started: now,
        heartbeat: config.heartbeat(),
        period: config.looking(),
        suspect_after: config.suspect_after(),
        monitor: match config.heartbeat_tree() {
            Some(tree) => Monitor::with_tree(config.suspect_after(), tree),
            None => Monitor::new(config.suspect_after()),
        },
        forged: 0,
        inbox: Inbox::open(unharmed.then_some(ip), config.heartbeats_in_a_look()),
        ways: Ways::open(ip),
        last_period: now,
        last_alive: Time::ZERO,
        layout,
        decision,
        replica,
        link,
        signals,
        failure: None,
    };
    let service = runtime.run(service).map_err(|e| format!("the event loop failed: {e}"))?;
    service.failure.map_or(Ok(()), Err)
}

struct Daemon {
    node: NodeId,
    started: Time,
    /// The agents' period, and ours, in which we look for their heartbeats.
    heartbeat: Duration,
    period: Duration,
    suspect_after: Duration,
    monitor: Monitor,
    /// Heartbeats in bundles that were not their nodes', as far as it was said.
    forged: u64,
    /// Heartbeats that wait for the end of the period, and how those that are forwarded reach the others.
    inbox: Inbox,
    ways: Ways,
    last_period: Time,
    last_alive: Time,
    layout: Layout,
    decision: Decision,
    replica: Replicated,
    link: Link,
    signals: Signals,
    /// Why it stopped, if not on request.
    failure: Option<String>,
}

type Cx = Core<()>;

impl Service for Daemon {
    type Mail = ();

    fn start(&mut self, cx: &mut Cx) {
        tracing::info!(
            node = %self.node,
            instance = self.decision.instance(),
            transport = cx.endpoint().transport_reason(),
            "manager replica"
        );
        let decision = self.decision.clone();
        self.link.adopt(cx, &decision);
        self.link.connect(cx, Role::Hardcore.peer());
        cx.set_timer(self.next_period(cx.now()), PERIOD);
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
            REPLICA => self.replica.on_timeout(cx.now()),
            PERIOD => self.on_period(cx),
            other => unreachable!("no timer {other:?} is ever set"),
        }
        self.settle(cx);
    }

    fn on_ready(&mut self, cx: &mut Cx, _: Token, _: Readiness) {
        while let Ok(Some(signal)) = self.signals.next() {
            if signal == Signal::Hangup {
                self.link.reload(cx, &self.layout, Role::Manager(self.node));
                continue;
            }
            tracing::info!(?signal, "stopping");
            cx.stop();
        }
        self.settle(cx);
    }
}

impl Daemon {
    /// Hands messages between the link and the replica until neither has more to do.
    fn settle(&mut self, cx: &mut Cx) {
        loop {
            while let Some(incoming) = self.link.poll() {
                self.on_incoming(cx, incoming);
            }
            match self.replica.drain(cx, &mut self.link) {
                Ok(events) if events.is_empty() && self.link.is_quiet() => break,
                Ok(events) => events.into_iter().for_each(|e| self.on_event(cx, e)),
                Err(error) => {
                    // Crash is the cheapest fault to tolerate.
                    self.failure = Some(error);
                    cx.stop();
                    return;
                }
            }
        }
        match self.replica.next_timeout() {
            Some(at) => cx.set_timer(at, REPLICA),
            None => {
                cx.cancel_timer(REPLICA);
            }
        }
    }

    fn on_incoming(&mut self, cx: &mut Cx, incoming: Incoming) {
        match incoming {
            Incoming::Replication { from, body } => self.replica.on_message(cx.now(), from, &body),
            Incoming::Message { from, class: Class::HeartbeatWay, body } => {
                self.ways.on_told(cx.now(), &self.link, from, &body);
            }
            Incoming::Down(peer) => self.ways.forget(peer),
            Incoming::Message { from, class: Class::Status, .. } => {
                let status = codec::encode(&self.status());
                self.link.send(cx, from, Class::Status, &status);
            }
            Incoming::Message { from, class, body } if self.on_heartbeats(cx, from, class, &body) => {
                self.inbox.offer(cx, &mut self.link, from);
            }
            Incoming::Answered(_, Err(refusal)) => tracing::error!(%refusal, "the group refuses"),
            Incoming::Outvoted(node) => tracing::warn!(%node, "a manager was outvoted"),
            _ => {}
        }
    }

    /// Takes a heartbeat or a bundle of some; false if it is neither, or not from whom such may come.
    fn on_heartbeats(&mut self, cx: &mut Cx, from: PeerId, class: Class, body: &[u8]) -> bool {
        match class {
            Class::Heartbeat => {
                let heartbeat = Heartbeat::read(body);
                let own = |h: &Heartbeat| daemon::agent_node(from) == Some(h.beat.node);
                let Some(heartbeat) = heartbeat.filter(own) else { return false };
                if self.monitor.heard(cx.now(), &heartbeat.beat) {
                    self.monitor.collect(heartbeat);
                }
            }
            Class::HeartbeatBundle if manager_node(from).is_some() => self.on_bundle(cx, body),
            Class::GroupBundle if daemon::agent_node(from).is_some() => self.on_group_bundle(cx, from, body),
            _ => return false,
        }
        true
    }

    fn on_bundle(&mut self, cx: &mut Cx, body: &[u8]) {
        let link = &mut self.link;
        self.monitor.heard_bundle(cx.now(), body, |node, bytes, tag| {
            link.heartbeat_key_from(Role::Agent(node).peer()).is_some_and(|key| key.verify(bytes, tag))
        });
    }

    fn on_group_bundle(&mut self, cx: &mut Cx, from: PeerId, body: &[u8]) {
        let (me, link) = (self.link.me(), &mut self.link);
        self.monitor.heard_group_bundle(cx.now(), me, body, |node, bytes, tag| {
            link.heartbeat_key_from(Role::Agent(node).peer()).is_some_and(|key| key.verify(bytes, tag))
        });
        let forged = self.monitor.forged() - self.forged;
        // Once for each power of two: who forges does not fill the log.
        if forged > 0 && (self.forged + forged).checked_ilog2() != self.forged.checked_ilog2() {
            tracing::warn!(%from, total = self.forged + forged, "heartbeats in bundles were not their nodes'");
        }
        self.forged += forged;
    }

    /// When the period after `now` ends.
    fn next_period(&self, now: Time) -> Time {
        let forwards = self.replica.status().role == replication_proto::Role::Backup;
        manager_slot(now, self.heartbeat, self.period, forwards)
    }

    /// The end of a period: what has arrived is looked at, bundles go out, silent nodes are suspected (7.1.5).
    fn on_period(&mut self, cx: &mut Cx) {
        let now = cx.now();
        cx.set_timer(self.next_period(now), PERIOD);
        // A manager that was itself held up for long heard nobody; that says nothing of them.
        if now.saturating_since(self.last_period) > self.suspect_after {
            self.monitor.forgive(now);
        }
        self.last_period = now;
        for (from, class, body) in self.inbox.look(cx, &mut self.link) {
            self.on_heartbeats(cx, from, class, &body);
        }
        let me = self.link.me();
        let others: Vec<_> = self.link.managers().iter().copied().filter(|m| *m != me).collect();
        for (manager, bundle) in self.monitor.take_bundles(&others) {
            self.ways.send(cx, &mut self.link, manager, Class::HeartbeatBundle, &bundle);
        }
        if now.saturating_since(self.last_alive) >= ALIVE_PERIOD {
            self.last_alive = now;
            self.link.send(cx, Role::Hardcore.peer(), Class::ManagerAlive, &[]);
        }
        if self.replica.is_active() {
            let expected: Vec<_> = self.replica.nodes_up().collect();
            for (node, incarnation) in self.monitor.overdue(now, expected.into_iter()) {
                tracing::warn!(%node, "no heartbeats");
                self.submit(cx, &Op::Suspect { node, incarnation });
            }
            for Suppressor { node, incarnation, agents } in self.monitor.suppressors(now) {
                if self.replica.may_bundle(node) {
                    tracing::warn!(%node, agents, "heartbeats that this agent was to bundle are missing");
                    self.submit(cx, &Op::Suppresses { node, incarnation });
                }
            }
        }
    }

    fn submit(&mut self, cx: &mut Cx, op: &Op) {
        if let Err(error) = self.link.submit(cx, op) {
            tracing::warn!(%error, ?op, "not submitted");
        }
    }

    fn on_event(&mut self, cx: &mut Cx, event: Event) {
        match event {
            Event::Executed { rsn, ops, .. } => tracing::debug!(rsn, ops, "executed"),
            Event::ViewInstalled { view, primary, active } => {
                let primary = self.replica.node_of(primary);
                let active: Vec<NodeId> = active.into_iter().map(|m| self.replica.node_of(m)).collect();
                tracing::info!(view, %primary, ?active, "view installed");
                self.submit(cx, &Op::ViewInstalled { view, primary });
            }
            Event::Halted { reason } => {
                self.failure = Some(format!("this replica found itself in an impossible state: {reason}"));
                cx.stop();
            }
            other => tracing::info!(event = ?other, "replica"),
        }
    }

    fn status(&self) -> ManagerStatus {
        let s = self.replica.status();
        ManagerStatus {
            node: self.node,
            instance: self.decision.instance(),
            view: s.view,
            primary: self.replica.node_of(s.primary),
            role: format!("{:?}", s.role).to_lowercase(),
            normal: s.mode == Mode::Normal,
            wide: s.wide,
            executed: s.executed,
            stable: s.stable,
            pid: std::process::id(),
            since_ns: self.started.as_nanos(),
        }
    }
}
