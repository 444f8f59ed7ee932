//! Which agents bundle no heartbeats at the moment: the dead ones, and those of which f+1 managers say that they keep heartbeats
//! back. Their groups are told, and go round them. A new life of an agent bundles again.

use super::{Manager, Notices};
use crate::api::{NodeState, Notice};
use crate::heartbeat::Tree;
use crate::identity::{NodeId, Role};
use cl_base::Incarnation;

impl Manager {
    /// Whether `node` bundles heartbeats, if it is its turn.
    pub fn may_bundle(&self, node: NodeId) -> bool {
        let out_of_service = |state| matches!(state, NodeState::Dead | NodeState::Reset);
        self.nodes.get(&node).is_some_and(|n| !n.withdrawn && !out_of_service(n.state))
    }

    /// A manager misses what `id` was to bundle.
    pub(super) fn suppresses(
        &mut self,
        manager: NodeId,
        id: NodeId,
        incarnation: Incarnation,
        out: &mut Notices,
    ) {
        let quorum = self.config.f as usize + 1;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.withdrawn || node.incarnation != incarnation {
            return;
        }
        node.missed_by.insert(manager);
        if node.missed_by.len() >= quorum {
            node.withdrawn = true;
            self.log(
                "bundler-withdrawn",
                format!("{id} keeps back heartbeats of others, which now go round it"),
            );
            self.tell_group(id, out);
        }
    }

    /// Tells the agents whose heartbeats `bundler` may bundle whom to avoid, now that this has changed.
    pub(super) fn tell_group(&self, bundler: NodeId, out: &mut Notices) {
        let Some(tree) = self.tree().filter(|tree| tree.serves(bundler, bundler)) else { return };
        let group = tree.group_of(bundler).iter();
        let up = group.filter(|member| self.nodes.get(member).is_some_and(|n| n.state == NodeState::Up));
        let bundlers = self.avoided(&tree, bundler);
        let tell =
            |member: &NodeId| (Role::Agent(*member).peer(), Notice::Avoid { bundlers: bundlers.clone() });
        out.extend(up.map(tell));
    }

    /// Tells an agent that has just joined whom to avoid, if there is anybody.
    pub(super) fn tell_member(&self, member: NodeId, out: &mut Notices) {
        let Some(tree) = self.tree() else { return };
        let bundlers = self.avoided(&tree, member);
        if !bundlers.is_empty() {
            out.push((Role::Agent(member).peer(), Notice::Avoid { bundlers }));
        }
    }

    fn avoided(&self, tree: &Tree, member: NodeId) -> Vec<NodeId> {
        let bundlers = tree.bundlers(member).into_iter().flatten();
        bundlers.filter(|bundler| !self.may_bundle(*bundler)).collect()
    }

    fn tree(&self) -> Option<Tree> {
        self.config.heartbeat_tree.then(|| Tree::new(self.config.nodes.iter().copied()))
    }
}
