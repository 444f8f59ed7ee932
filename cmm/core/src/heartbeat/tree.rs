//! Which agents bundle the heartbeats of which others, in clusters so large that a bundle of everybody's would keep the backups
//! busy: agents in groups of about √N, each of whose members send to three of them turn by turn.

use crate::identity::NodeId;

/// Agents of a group that bundle the heartbeats of all of it. Three: with one dead and one that suppresses, a heartbeat
/// in three arrives.
pub const BUNDLERS: usize = 3;
/// Groups are not smaller: three of them bundle, and a fourth has something to say of them.
const GROUP_MIN: usize = 4;
const NOBODY: u32 = u32::MAX;

/// The groups of a cluster's agents. They follow from the list of nodes, which is the same for all.
///
/// Two levels below the managers are enough: with √N agents in each of √N groups, at 100,000 agents everybody
/// hears of some 300 others, bundlers as well as backups.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<NodeId>,
    /// By node number: its place among `nodes`.
    places: Vec<u32>,
    groups: usize,
}

impl Tree {
    /// The groups of `nodes`, of which each is below [`NODES_MAX`](super::NODES_MAX).
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Tree {
        let mut nodes: Vec<NodeId> = nodes.into_iter().filter(|n| n.0 < super::NODES_MAX).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut places = vec![NOBODY; nodes.last().map_or(0, |n| n.0 as usize + 1)];
        for (place, node) in nodes.iter().enumerate() {
            places[node.0 as usize] = u32::try_from(place).expect("below NODES_MAX");
        }
        let size = nodes.len().isqrt().max(GROUP_MIN);
        let groups = (nodes.len() / size).max(1);
        Tree { nodes, places, groups }
    }

    /// Who bundles `node`'s heartbeats: the last ones of its group, for the first nodes of a cluster are those that run
    /// managers. `None` for a node that is not in the tree, or a tree of too few.
    #[inline]
    pub fn bundlers(&self, node: NodeId) -> Option<[NodeId; BUNDLERS]> {
        let (_, end) = self.group(node)?;
        self.nodes[..end].last_chunk().copied()
    }

    /// Whether `bundler` is one of those that bundle `node`'s heartbeats.
    pub fn serves(&self, bundler: NodeId, node: NodeId) -> bool {
        self.bundlers(node).is_some_and(|bundlers| bundlers.contains(&bundler))
    }

    /// The agents of the group of `node`.
    pub fn group_of(&self, node: NodeId) -> &[NodeId] {
        self.group(node).map_or(&[], |(start, end)| &self.nodes[start..end])
    }

    /// The places of `node`'s group.
    #[inline]
    fn group(&self, node: NodeId) -> Option<(usize, usize)> {
        let place = *self.places.get(node.0 as usize).filter(|place| **place != NOBODY)? as usize;
        if self.nodes.len() < GROUP_MIN {
            return None;
        }
        let (n, groups) = (self.nodes.len(), self.groups);
        // The largest group that begins, at `group * n / groups`, no later than this place.
        let group = ((place + 1) * groups).div_ceil(n) - 1;
        Some((group * n / groups, (group + 1) * n / groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_node_is_in_one_group_of_about_the_square_root_and_its_last_three_bundle() {
        for n in [4, 5, 7, 8, 9, 12, 63, 100, 1000, 2000, 100_003] {
            // Numbers with holes.
            let tree = Tree::new((0..n).map(|i| NodeId(i * 3 + 1)));
            let mut groups: BTreeMap<[NodeId; 3], Vec<NodeId>> = BTreeMap::new();
            for i in 0..n {
                let node = NodeId(i * 3 + 1);
                groups.entry(tree.bundlers(node).unwrap()).or_default().push(node);
            }
            let root = f64::from(n).sqrt();
            for (bundlers, members) in &groups {
                assert_eq!(members[members.len() - 3..], bundlers[..], "{n}");
                assert!(members.len() >= GROUP_MIN.min(n as usize), "{n}: {}", members.len());
                assert!(members.len() as f64 <= (2.0 * root).max(7.0), "{n}: {}", members.len());
                assert!(members.iter().all(|m| tree.group_of(*m) == members));
                assert!(tree.serves(bundlers[0], members[0]));
            }
            assert!(groups.len() as f64 <= 1.2 * root + 1.0, "{n}: {} groups", groups.len());
            assert_eq!(tree.bundlers(NodeId(2)), None, "no such node");
        }
        assert_eq!(Tree::new((1..4).map(NodeId)).bundlers(NodeId(1)), None, "too few");
        assert_eq!(Tree::new([]).bundlers(NodeId(0)), None);
    }
}
