//! `ghidrah-hardcore`: the trusted hardcore of a local cluster (dissertation 3.4, 7.1.6). It holds the power
//! switches; everything runs below it.

mod power;

use cl::Received;
use cl::runtime::{Core, Interest, Service, Signal, Signals, TimerId, Token};
use cl_base::{Incarnation, PeerId, codec};
use clap::Parser;
use cmm::class::{self, Class};
use cmm::config::Config;
use cmm::daemon;
use cmm::keys::Keyring;
use cmm::layout::Layout;
use cmm::link::{Incoming, LINK_TIMER, Link};
use cmm_core::api::{Notice, Op};
use cmm_core::bootstrap::{self, Decision};
use cmm_core::identity::{NodeId, Role, manager_node};
use cmm_hardcore::{Effect, Hardcore};
use power::Power;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const LOCATE: TimerId = TimerId(1);
const SILENCE: TimerId = TimerId(2);
const RETRY: TimerId = TimerId(3);
/// How often agents are asked who the managers are: often until that is known, then now and then, since a
/// later election may have replaced them.
const LOCATE_FAST: Duration = Duration::from_millis(500);
const LOCATE_SLOW: Duration = Duration::from_secs(10);
/// A power-reset that failed, or a confirmation that could not be handed in, is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The trusted hardcore of a local cluster: powers nodes on, and resets them when the managers say so.
///
/// Started by `ghidrah up`; runs until SIGTERM, then stops the whole cluster.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    daemon::log_to_stderr("hardcore");
    daemon::keep_keys_out_of_dumps();
    daemon::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), String> {
    let layout = Layout::new(&args.dir);
    let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
    let mut lock = daemon::lock(&layout)?;
    // Before the roster is read, so that no change of it is missed.
    let signals = Signals::new(&[Signal::Terminate, Signal::Interrupt, Signal::Hangup, Signal::Child])
        .map_err(|e| format!("cannot receive signals: {e}"))?;
    write!(lock, "{}", std::process::id()).map_err(|e| format!("{}: {e}", layout.lock().display()))?;
    let keyring = Keyring::load(&layout, Role::Hardcore)?;
    let election = daemon::election(&config, &keyring)?;
    let me = Role::Hardcore.peer();
    let mut runtime = daemon::open(&keyring, Role::Hardcore)?;
    let now = runtime.core().now();
    let link = Link::new(keyring.clone(), me, Incarnation(now.as_nanos()), config.request_timeout())?;
    let token = runtime
        .core()
        .register(&signals, Interest::READABLE)
        .map_err(|e| format!("cannot watch for signals: {e}"))?;
    let nodes = config.node_ids();
    let service = Daemon {
        hardcore: Hardcore::new(config.f as usize, config.manager_silence(), nodes.iter().copied()),
        power: Power::new(layout.clone(), config.process_group()),
        layout,
        nodes,
        signals,
        signals_token: token,
        link,
        keyring,
        election,
        undone: Vec::new(),
    };
    runtime.run(service).map_err(|e| format!("the event loop failed: {e}"))?;
    drop(lock);
    Ok(())
}

struct Daemon {
    hardcore: Hardcore,
    power: Power,
    layout: Layout,
    nodes: Vec<NodeId>,
    signals: Signals,
    signals_token: Token,
    link: Link,
    keyring: Keyring,
    election: bootstrap::Config,
    /// What could not be done yet.
    undone: Vec<Effect>,
}

type Cx = Core<()>;

impl Service for Daemon {
    type Mail = ();

    fn start(&mut self, cx: &mut Cx) {
        tracing::info!(nodes = self.nodes.len(), transport = cx.endpoint().transport_reason(), "powering on");
        for node in self.nodes.clone() {
            self.power_on(cx, node);
        }
        cx.set_timer(cx.now() + LOCATE_FAST, LOCATE);
    }

    fn classify(received: &Received) -> cl::runtime::Priority {
        class::priority_of(&received.buf)
    }

    fn on_message(&mut self, cx: &mut Cx, received: Received) {
        self.link.on_message(cx, received);
        self.drain(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx, id: TimerId) {
        match id {
            LINK_TIMER => self.link.on_timer(cx),
            LOCATE => self.locate(cx),
            SILENCE => self.hardcore.on_timeout(cx.now()),
            RETRY => {
                for effect in std::mem::take(&mut self.undone) {
                    self.act(cx, effect);
                }
            }
            other => unreachable!("no timer {other:?} is ever set"),
        }
        self.drain(cx);
    }

    fn on_ready(&mut self, cx: &mut Cx, token: Token, _: cl::runtime::Readiness) {
        assert_eq!(token, self.signals_token);
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                Signal::Child => {
                    for (node, status) in self.power.reap() {
                        tracing::warn!(%node, %status, "the node's agent has ended");
                    }
                }
                Signal::Hangup => {
                    self.link.reload(cx, &self.layout, Role::Hardcore);
                    self.power.reload();
                }
                _ => {
                    tracing::info!("powering off");
                    self.power.all_off(&self.nodes);
                    cx.stop();
                    return;
                }
            }
        }
        self.drain(cx);
    }
}

impl Daemon {
    fn drain(&mut self, cx: &mut Cx) {
        while let Some(incoming) = self.link.poll() {
            self.on_incoming(cx, incoming);
        }
        while let Some(effect) = self.hardcore.poll_effect() {
            self.act(cx, effect);
        }
        if let Some(at) = self.hardcore.next_timeout() {
            cx.set_timer(at, SILENCE);
        }
    }

    fn on_incoming(&mut self, cx: &mut Cx, incoming: Incoming) {
        match incoming {
            Incoming::Message { from, class: Class::ManagerAlive, .. } => {
                if let Some(node) = manager_node(from) {
                    self.hardcore.on_manager_heartbeat(cx.now(), node);
                }
            }
            Incoming::Message { class: Class::Locate, body, .. } => self.on_decision(cx, &body),
            Incoming::Noticed(Notice::Reset { node, incarnation }) => {
                self.hardcore.on_reset(node, incarnation)
            }
            Incoming::Outvoted(node) => tracing::warn!(%node, "a manager was outvoted"),
            Incoming::Answered(_, Err(refusal)) => tracing::error!(%refusal, "the managers refuse"),
            _ => {}
        }
    }

    fn on_decision(&mut self, cx: &mut Cx, body: &[u8]) {
        let Ok(decision) = codec::decode::<Decision>(body) else { return };
        if self.link.decision().is_some_and(|d| d.instance() >= decision.instance()) {
            return;
        }
        match decision.verify(&self.keyring, &self.election) {
            Ok(()) => {
                let members: Vec<PeerId> = decision.configuration.members.clone();
                self.hardcore
                    .on_group(decision.instance(), members.iter().filter_map(|m| daemon::agent_node(*m)));
                self.link.adopt(cx, &decision);
                tracing::info!(instance = decision.instance(), members = ?members, "the manager group is known");
            }
            Err(error) => tracing::warn!(%error, "a false decision"),
        }
    }

    fn locate(&mut self, cx: &mut Cx) {
        for node in &self.nodes {
            self.link.send(cx, Role::Agent(*node).peer(), Class::Locate, &[]);
        }
        let known = self.link.decision().is_some();
        cx.set_timer(cx.now() + if known { LOCATE_SLOW } else { LOCATE_FAST }, LOCATE);
    }

    fn act(&mut self, cx: &mut Cx, effect: Effect) {
        let done = match &effect {
            Effect::Reset { node, incarnation } => {
                tracing::warn!(%node, "power reset");
                let off = self.power.off(*node);
                if let Err(error) = &off {
                    tracing::error!(%node, %error, "not everything on the node could be ended");
                }
                off.is_ok() && {
                    let on = self.power_on(cx, *node);
                    if on {
                        self.hardcore.was_reset(cx.now(), *node, *incarnation);
                    }
                    on
                }
            }
            Effect::Confirm { node, incarnation } => {
                let op = Op::ResetDone { node: *node, incarnation: *incarnation };
                self.link.submit(cx, &op).is_ok()
            }
            Effect::ResetAll => {
                tracing::error!("the managers have fallen silent: the whole cluster is reset");
                for node in self.nodes.clone() {
                    if let Err(error) = self.power.off(node) {
                        tracing::error!(%node, %error, "not everything on the node could be ended");
                    }
                }
                for node in self.nodes.clone() {
                    self.power_on(cx, node);
                }
                true
            }
        };
        if !done {
            self.undone.push(effect);
            cx.set_timer(cx.now() + RETRY_AFTER, RETRY);
        }
    }

    fn power_on(&mut self, cx: &Cx, node: NodeId) -> bool {
        match self.power.on(node) {
            Ok(()) => {
                self.hardcore.was_powered_on(cx.now(), node);
                true
            }
            Err(error) => {
                tracing::error!(%node, %error, "the node cannot be powered on");
                false
            }
        }
    }
}
