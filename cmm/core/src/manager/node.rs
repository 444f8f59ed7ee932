//! NodeDB: what the manager knows about each node (dissertation 7.1.2.1).

use crate::api::{JobId, NodeState, NodeView};
use crate::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, Time};
use std::collections::{BTreeMap, BTreeSet};

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Node {
    pub(super) state: NodeState,
    /// The agent's life that joined last.
    pub(super) incarnation: Incarnation,
    pub(super) cores: u32,
    /// Cores taken, by job. A job keeps its cores until no process of it is left there.
    pub(super) used: BTreeMap<JobId, u32>,
    /// Nodes of the managers that suspect this one in its present incarnation.
    pub(super) suspected_by: BTreeSet<NodeId>,
    /// The ping that is out: its nonce and when the node is dead without an answer.
    pub(super) ping: Option<(u64, Time)>,
    /// When the hardcore is asked again for a reset that it has not confirmed.
    pub(super) reset_again: Option<Time>,
    /// Nodes of the managers that miss heartbeats which this one was to bundle.
    pub(super) missed_by: BTreeSet<NodeId>,
    /// It bundles no heartbeats in this life.
    pub(super) withdrawn: bool,
    pub(super) since: Time,
    pub(super) resets: u32,
}

impl Node {
    pub(super) fn absent(now: Time) -> Node {
        Node {
            state: NodeState::Absent,
            incarnation: Incarnation(0),
            cores: 0,
            used: BTreeMap::new(),
            suspected_by: BTreeSet::new(),
            ping: None,
            reset_again: None,
            missed_by: BTreeSet::new(),
            withdrawn: false,
            since: now,
            resets: 0,
        }
    }

    pub(super) fn set_state(&mut self, state: NodeState, now: Time) {
        self.state = state;
        self.since = now;
    }

    /// Cores that new ranks may take; none unless the node is up.
    pub(super) fn free(&self) -> u32 {
        if self.state == NodeState::Up { self.cores.saturating_sub(self.used.values().sum()) } else { 0 }
    }

    /// When this node needs [`super::Manager::advance`].
    pub(super) fn deadline(&self) -> Option<Time> {
        self.ping.map(|(_, at)| at).into_iter().chain(self.reset_again).min()
    }

    pub(super) fn view(&self, node: NodeId) -> NodeView {
        NodeView {
            node,
            state: self.state,
            cores: self.cores,
            used: self.used.values().sum(),
            jobs: self.used.keys().copied().collect(),
            since_ns: self.since.as_nanos(),
            resets: self.resets,
        }
    }
}
