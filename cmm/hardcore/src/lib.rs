//! The trusted hardcore's decisions: when a node, or the whole cluster, is power-reset (dissertation 3.4 and
//! 7.1.6). Kept as small as it can be, since nothing watches over it.
//!
//! It resets a node when the manager group commands it (f+1 managers said the same; the voting is done by
//! `replication_proto::Client`, as for every receiver of the group's notices). It resets everything when the group
//! that once worked has fallen silent. It decides here and acts in `main`.

use cl_base::{Incarnation, Time};
use cmm_core::identity::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What the hardcore is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Power-reset this node, then confirm with [`Hardcore::was_reset`].
    Reset {
        /// The node.
        node: NodeId,
        /// The agent's life that the managers want ended.
        incarnation: Incarnation,
    },
    /// Nothing needs to be reset (any more): confirm to the managers that this life has ended.
    Confirm {
        /// The node.
        node: NodeId,
        /// The life that has ended.
        incarnation: Incarnation,
    },
    /// Power-reset every node: the manager group is lost.
    ResetAll,
}

/// The hardcore's state.
#[derive(Debug)]
pub struct Hardcore {
    f: usize,
    silence_limit: Duration,
    nodes: BTreeSet<NodeId>,
    /// When each node was last powered on.
    powered_on: BTreeMap<NodeId, Time>,
    /// When each manager was last heard, for the group in force.
    managers: BTreeMap<NodeId, Option<Time>>,
    instance: Option<u64>,
    /// Since when the group works, so that its silence means something.
    working: bool,
    effects: VecDeque<Effect>,
}

impl Hardcore {
    /// A hardcore for these nodes that tolerates `f` faulty managers and resets everything after
    /// `silence_limit` without f+1 of them.
    pub fn new(f: usize, silence_limit: Duration, nodes: impl IntoIterator<Item = NodeId>) -> Hardcore {
        Hardcore {
            f,
            silence_limit,
            nodes: nodes.into_iter().collect(),
            powered_on: BTreeMap::new(),
            managers: BTreeMap::new(),
            instance: None,
            working: false,
            effects: VecDeque::new(),
        }
    }

    /// A node was powered on.
    pub fn was_powered_on(&mut self, now: Time, node: NodeId) {
        self.powered_on.insert(node, now);
    }

    /// The manager group in force: the highest decided instance (PROTOCOL.md section 5). Older ones change
    /// nothing.
    pub fn on_group(&mut self, instance: u64, members: impl IntoIterator<Item = NodeId>) {
        if self.instance.is_none_or(|known| instance > known) {
            self.instance = Some(instance);
            self.managers = members.into_iter().map(|m| (m, None)).collect();
            self.working = false;
        }
    }

    /// An authenticated heartbeat of the manager on `node`.
    pub fn on_manager_heartbeat(&mut self, now: Time, node: NodeId) {
        if let Some(heard) = self.managers.get_mut(&node) {
            *heard = Some(now);
            self.working = self.working || self.heard_since(now - self.silence_limit) > self.f;
        }
    }

    /// The group commands a reset.
    pub fn on_reset(&mut self, node: NodeId, incarnation: Incarnation) {
        if !self.nodes.contains(&node) {
            return;
        }
        // An agent's incarnation is when it started. If the node was powered on later, that life is over.
        let over = self.powered_on.get(&node).is_some_and(|on| on.as_nanos() > incarnation.0);
        let effect =
            if over { Effect::Confirm { node, incarnation } } else { Effect::Reset { node, incarnation } };
        if !self.effects.contains(&effect) {
            self.effects.push_back(effect);
        }
    }

    /// A reset has been carried out: nothing of the node's earlier life runs, and it is powered on again.
    pub fn was_reset(&mut self, now: Time, node: NodeId, incarnation: Incarnation) {
        self.was_powered_on(now, node);
        self.effects.push_back(Effect::Confirm { node, incarnation });
    }

    /// Checks the managers' silence; call at [`Hardcore::next_timeout`].
    pub fn on_timeout(&mut self, now: Time) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.working = false;
            for heard in self.managers.values_mut() {
                *heard = None;
            }
            self.effects.push_back(Effect::ResetAll);
        }
    }

    /// When the group's silence will have lasted too long, if it goes on.
    pub fn next_timeout(&self) -> Option<Time> {
        if !self.working {
            return None;
        }
        let mut heard: Vec<Time> = self.managers.values().flatten().copied().collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        // The (f+1)-th youngest: from then on fewer than f+1 have been heard within the limit.
        heard.get(self.f).map(|at| *at + self.silence_limit)
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn heard_since(&self, since: Time) -> usize {
        self.managers.values().flatten().filter(|at| **at >= since).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::from_nanos(s * 1_000_000_000)
    }

    fn hardcore() -> Hardcore {
        let mut h = Hardcore::new(1, Duration::from_secs(10), (1..=6).map(NodeId));
        for n in 1..=6 {
            h.was_powered_on(at(1), NodeId(n));
        }
        h.on_group(0, (1..=4).map(NodeId));
        h
    }

    #[test]
    fn a_reset_is_carried_out_once_and_confirmed() {
        let mut h = hardcore();
        let life = Incarnation(at(2).as_nanos());
        h.on_reset(NodeId(3), life);
        h.on_reset(NodeId(3), life);
        assert_eq!(h.poll_effect(), Some(Effect::Reset { node: NodeId(3), incarnation: life }));
        assert_eq!(h.poll_effect(), None);
        h.was_reset(at(5), NodeId(3), life);
        assert_eq!(h.poll_effect(), Some(Effect::Confirm { node: NodeId(3), incarnation: life }));
    }

    #[test]
    fn a_life_that_is_over_is_confirmed_without_harming_the_next_one() {
        let mut h = hardcore();
        let old = Incarnation(at(2).as_nanos());
        h.was_powered_on(at(4), NodeId(3));
        h.on_reset(NodeId(3), old);
        assert_eq!(h.poll_effect(), Some(Effect::Confirm { node: NodeId(3), incarnation: old }));
        h.on_reset(NodeId(9), old);
        assert_eq!(h.poll_effect(), None, "no such node");
    }

    #[test]
    fn a_group_that_never_worked_is_not_missed() {
        let mut h = hardcore();
        h.on_manager_heartbeat(at(2), NodeId(1));
        assert_eq!(h.next_timeout(), None, "one of them is no group");
    }

    #[test]
    fn the_cluster_is_reset_when_all_but_f_managers_fall_silent() {
        let mut h = hardcore();
        for n in 1..=3 {
            h.on_manager_heartbeat(at(10), NodeId(n));
        }
        h.on_manager_heartbeat(at(15), NodeId(1));
        h.on_timeout(at(19));
        assert_eq!(h.poll_effect(), None);
        assert_eq!(h.next_timeout(), Some(at(20)), "manager 1 alone is no group");
        h.on_timeout(at(20));
        assert_eq!(h.poll_effect(), Some(Effect::ResetAll));
        assert_eq!(h.next_timeout(), None, "not again until a group works");
    }

    #[test]
    fn two_managers_suffice() {
        let mut h = hardcore();
        for s in 2..100 {
            h.on_manager_heartbeat(at(s), NodeId(2));
            h.on_manager_heartbeat(at(s), NodeId(4));
            h.on_timeout(at(s));
        }
        assert_eq!(h.poll_effect(), None);
    }

    #[test]
    fn an_older_group_is_ignored() {
        let mut h = hardcore();
        h.on_group(2, (2..=5).map(NodeId));
        h.on_group(1, (1..=4).map(NodeId));
        h.on_manager_heartbeat(at(2), NodeId(5));
        h.on_manager_heartbeat(at(2), NodeId(2));
        assert!(h.next_timeout().is_some());
    }
}
