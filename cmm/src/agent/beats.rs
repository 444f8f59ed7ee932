//! An agent's heartbeats, and those of others that it bundles (dissertation 7.1.5).

use crate::class::Class;
use crate::config::Config;
use crate::daemon;
use crate::heartbeats::Ways;
use crate::link::Link;
use cl::runtime::Core;
use cl_base::{Incarnation, PeerId, Time};
use cmm_core::heartbeat::{Bundler, Heartbeat, Sender, Way};
use cmm_core::identity::{NodeId, Role};
use std::net::IpAddr;

/// A test-only fault: with this variable set to `nodeN`, the agent of node N keeps back every heartbeat of others that it is
/// to bundle. It is part of the shipped binary, so that what is tested is what is shipped.
const SUPPRESS_VARIABLE: &str = "GHIDRAH_TEST_SUPPRESS_HEARTBEATS";

/// See the module.
pub(super) struct Beats {
    node: NodeId,
    sender: Sender,
    /// Where agents bundle.
    bundler: Option<Bundler>,
    suppresses: bool,
    ways: Ways,
}

impl Beats {
    /// Those of this life of `node`, which leave from `ip`.
    ///
    /// # Errors
    /// If the environment asks for an unknown fault.
    pub(super) fn new(
        config: &Config,
        node: NodeId,
        incarnation: Incarnation,
        ip: IpAddr,
    ) -> Result<Beats, String> {
        let tree = config.heartbeat_tree();
        let sender = Sender::new(node, incarnation, tree.as_ref());
        let bundler = tree.map(|tree| Bundler::new(node, tree));
        let fault = std::env::var(SUPPRESS_VARIABLE).unwrap_or_default();
        let suppresses = match fault.strip_prefix("node").map(str::parse) {
            None if fault.is_empty() => false,
            Some(Ok(suppressor)) => NodeId(suppressor) == node,
            _ => return Err(format!("{SUPPRESS_VARIABLE}={fault}: the only fault known is nodeN")),
        };
        if suppresses {
            tracing::warn!("TEST: this agent keeps back the heartbeats that it is to bundle");
        }
        Ok(Beats { node, sender, bundler, suppresses, ways: Ways::open(ip) })
    }

    /// A heartbeat has come to be bundled.
    pub(super) fn on_message(&mut self, from: PeerId, body: &[u8]) {
        let Some(bundler) = self.bundler.as_mut().filter(|_| !self.suppresses) else { return };
        if let Some(heartbeat) = Heartbeat::read(body)
            && daemon::agent_node(from) == Some(heartbeat.beat.node)
        {
            bundler.collect(heartbeat);
        }
    }

    /// A manager says which way it wants heartbeats.
    pub(super) fn on_way(&mut self, now: Time, link: &Link, from: PeerId, body: &[u8]) {
        self.ways.on_told(now, link, from, body);
    }

    /// The session with `peer` has ended.
    pub(super) fn on_down(&mut self, peer: PeerId) {
        self.ways.forget(peer);
    }

    /// The managers ask whether we live.
    pub(super) fn on_ping(&mut self) {
        self.sender.on_ping();
    }

    /// The managers say which bundlers do not work.
    pub(super) fn on_avoid(&mut self, bundlers: &[NodeId]) {
        tracing::info!(?bundlers, "heartbeats go round these");
        self.sender.set_withdrawn(bundlers.iter().copied());
    }

    /// The end of a period: one more heartbeat leaves, and what was bundled.
    pub(super) fn on_period<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link) {
        let active = link.active_managers();
        let backups = active.get(1..).unwrap_or_default();
        if backups.is_empty() {
            return;
        }
        let (beat, way) = self.sender.next_beat();
        let heartbeat = Heartbeat { beat, tags: link.heartbeat_tags(&beat.to_bytes()) };
        match (way, &mut self.bundler) {
            (Way::Bundler(node), Some(bundler)) if node == self.node => {
                bundler.collect(heartbeat);
            }
            (Way::Bundler(node), _) => {
                link.send(cx, Role::Agent(node).peer(), Class::Heartbeat, &heartbeat.to_bytes());
            }
            (Way::Backup, _) => {
                let to = backups[(beat.number % backups.len() as u64) as usize];
                self.ways.send(cx, link, to, Class::Heartbeat, &heartbeat.to_bytes());
            }
        }
        let Some(bundler) = &mut self.bundler else { return };
        // To all of them: a backup that forwards nothing then keeps nothing from the others.
        for bundle in bundler.take_bundles(link.managers()) {
            backups.iter().for_each(|backup| self.ways.send(cx, link, *backup, Class::GroupBundle, &bundle));
        }
    }
}
