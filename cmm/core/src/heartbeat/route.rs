//! Which way each heartbeat of an agent goes. The agent says in each of them how it chooses, so that a manager that misses one
//! knows who was to bring it.

use super::tree::{BUNDLERS, Tree};
use super::{Beat, NODES_MAX};
use crate::identity::NodeId;
use cl_base::Incarnation;
use std::collections::BTreeSet;

/// How an agent chooses the ways of its heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Routing(u8);

const AVOIDED: u8 = (1 << BUNDLERS) - 1;
const CAUTIOUS: u8 = 1 << 6;
const DIRECT: u8 = 1 << 7;

impl Routing {
    /// All to the backups themselves, as in small clusters.
    pub const ALL_DIRECT: Routing = Routing(DIRECT);

    /// By the bundlers that are not avoided, turn by turn. `cautious`: every other one to a backup itself.
    fn by_bundlers(avoided: [bool; BUNDLERS], cautious: bool) -> Routing {
        let bits = avoided.iter().enumerate().map(|(i, avoided)| u8::from(*avoided) << i).sum::<u8>();
        Routing(bits | if cautious { CAUTIOUS } else { 0 })
    }

    pub(super) fn to_byte(self) -> u8 {
        self.0
    }

    /// What another agent says; bits without a meaning stay and change nothing.
    pub(super) fn from_byte(byte: u8) -> Routing {
        Routing(byte)
    }

    /// Which of its bundlers is to bring heartbeat `number`; `None` if that goes to a backup itself.
    #[inline]
    pub fn way(self, number: u64) -> Option<usize> {
        if self.0 & DIRECT != 0 {
            return None;
        }
        let used = BUNDLERS as u64 - u64::from((self.0 & AVOIDED).count_ones());
        // With one bundler left, half of the heartbeats do not rely on it.
        let halved = self.0 & CAUTIOUS != 0 || used == 1;
        let turn = match (used, halved) {
            (0, _) => return None,
            (_, true) if number.is_multiple_of(2) => return None,
            (_, true) => number / 2 % used,
            (_, false) => number % used,
        };
        (0..BUNDLERS).filter(|i| self.0 & (1 << i) == 0).nth(turn as usize)
    }
}

/// Where a heartbeat goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a backup itself, turn by turn.
    Backup,
    /// To an agent that bundles, which may be this one.
    Bundler(NodeId),
}

/// Heartbeats that every other time go to a backup itself, after the managers have asked whether the node lives. By then all
/// its bundlers must have been silent; with so many the managers find out which of them suppress.
pub const CAUTIOUS_BEATS: u64 = 128;

/// An agent's heartbeats: their numbers, and where each goes.
#[derive(Debug)]
pub struct Sender {
    node: NodeId,
    incarnation: Incarnation,
    number: u64,
    bundlers: Option<[NodeId; BUNDLERS]>,
    withdrawn: BTreeSet<NodeId>,
    cautious_until: u64,
}

impl Sender {
    /// The heartbeats of this life of `node`, by the bundlers of `tree` if there is one.
    pub fn new(node: NodeId, incarnation: Incarnation, tree: Option<&Tree>) -> Sender {
        let bundlers = tree.and_then(|tree| tree.bundlers(node));
        Sender { node, incarnation, number: 0, bundlers, withdrawn: BTreeSet::new(), cautious_until: 0 }
    }

    /// The next heartbeat, and where it goes.
    pub fn next_beat(&mut self) -> (Beat, Way) {
        self.number += 1;
        let routing = match &self.bundlers {
            None => Routing::ALL_DIRECT,
            Some(bundlers) => {
                let avoided = bundlers.map(|bundler| self.withdrawn.contains(&bundler));
                Routing::by_bundlers(avoided, self.number <= self.cautious_until)
            }
        };
        let beat = Beat { node: self.node, incarnation: self.incarnation, number: self.number, routing };
        let way = match (routing.way(self.number), &self.bundlers) {
            (Some(way), Some(bundlers)) => Way::Bundler(bundlers[way]),
            _ => Way::Backup,
        };
        (beat, way)
    }

    /// The managers ask whether this node lives: they hear nothing of it.
    pub fn on_ping(&mut self) {
        self.cautious_until = self.number + CAUTIOUS_BEATS;
    }

    /// These nodes, and no others, bundle no longer.
    pub fn set_withdrawn(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.withdrawn = nodes.into_iter().filter(|node| node.0 < NODES_MAX).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(routing: Routing) -> Vec<Option<usize>> {
        (0..6).map(|number| routing.way(number)).collect()
    }

    #[test]
    fn heartbeats_take_turns_and_rely_on_no_single_bundler() {
        let by = |avoided, cautious| ways(Routing::by_bundlers(avoided, cautious));
        let (no, yes) = (false, true);
        assert_eq!(by([no, no, no], no), [Some(0), Some(1), Some(2), Some(0), Some(1), Some(2)]);
        assert_eq!(by([no, no, no], yes), [None, Some(0), None, Some(1), None, Some(2)]);
        assert_eq!(by([no, yes, no], no), [Some(0), Some(2), Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(by([yes, no, yes], no), [None, Some(1), None, Some(1), None, Some(1)]);
        assert_eq!(by([yes, yes, yes], no), [None; 6]);
        assert_eq!(ways(Routing::ALL_DIRECT), [None; 6]);
        for byte in 0..=255 {
            assert!(ways(Routing::from_byte(byte)).iter().flatten().all(|way| *way < BUNDLERS));
            assert_eq!(Routing::from_byte(byte).to_byte(), byte);
        }
    }

    #[test]
    fn an_agent_that_is_pinged_is_cautious_for_a_while_and_goes_round_who_is_withdrawn() {
        let tree = Tree::new((1..=8).map(NodeId));
        let mut sender = Sender::new(NodeId(1), Incarnation(9), Some(&tree));
        let mut next = |n: usize| -> Vec<Way> { (0..n).map(|_| sender.next_beat().1).collect() };
        let [b2, b3, b4] = [2, 3, 4].map(|n| Way::Bundler(NodeId(n)));
        assert_eq!(next(3), [b3, b4, b2]);
        sender.on_ping();
        let ways: Vec<Way> = (0..CAUTIOUS_BEATS).map(|_| sender.next_beat().1).collect();
        assert_eq!(ways.iter().filter(|way| **way == Way::Backup).count() as u64, CAUTIOUS_BEATS / 2);
        sender.set_withdrawn([NodeId(3)]);
        assert!((0..6).all(|_| [b2, b4].contains(&sender.next_beat().1)));
        let mut direct = Sender::new(NodeId(1), Incarnation(9), None);
        let (beat, way) = direct.next_beat();
        assert_eq!((beat.number, beat.routing, way), (1, Routing::ALL_DIRECT, Way::Backup));
    }
}
