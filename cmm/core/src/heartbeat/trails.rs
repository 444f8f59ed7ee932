//! What a manager misses of the agents' heartbeats, by who was to bring it: so it notices a bundler that keeps heartbeats back.
//!
//! A bundler cannot forge a heartbeat, for each has a tag for each manager; all it can do is not to pass it on. An agent's
//! heartbeats are numbered and take turns among three bundlers, in an order that the agent states in each of them (`route`). So a
//! manager that hears numbers 6, 8 and 9 knows who was to bring 7. That counts against this bundler, since the agent was
//! alive and reached the managers by others just before and after. Losses of the network count as well, but soon
//! outweighed by what arrives; only who loses more than a quarter over many periods stands out.
//!
//! The agent could be lying, and not have sent it. Therefore a bundler is named when several agents of its group miss
//! heartbeats by it; what one agent misses by one bundler is left at that, since two of three of its heartbeats arrive.

use super::Beat;
use super::route::Routing;
use super::tree::{BUNDLERS, Tree};
use crate::identity::NodeId;
use cl_base::{Incarnation, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A heartbeat is missing when one that is so much younger has arrived. Two bundlings on the way take up to two periods,
/// and processes that are held up for a moment some more.
const LATE: u64 = 6;
/// An agent of which so many heartbeats in a row did not arrive was not heard at all: that says nothing about its bundlers.
const UNHEARD: u64 = 32;
/// What a missing heartbeat counts against its bundler; one that has arrived counts 1 for it. With less than one in four missing
/// the sum does not grow.
const MISSING: u8 = 3;
/// At this sum an agent's heartbeats are kept back: eight missing ones in a row, or 24 turns with every other one missing. At a
/// loss of 5 % on the way it is reached by chance once in 10⁸ heartbeats.
const KEPT_BACK: u8 = 24;
/// A bundler is named when so many agents of its group miss heartbeats by it; fewer might be lying.
pub const ACCUSERS: usize = 3;

/// What has arrived of one agent's heartbeats.
#[derive(Clone, Copy, Debug)]
struct Trail {
    incarnation: Incarnation,
    newest: u64,
    /// Bit i: number `newest - i` has arrived.
    arrived: u64,
    routing: Routing,
    /// From this number on the heartbeats had this routing.
    since: u64,
    /// By bundler.
    missing: [u8; BUNDLERS],
}

const NOTHING: Trail = Trail {
    incarnation: Incarnation(0),
    newest: 0,
    arrived: 0,
    routing: Routing::ALL_DIRECT,
    since: 0,
    missing: [0; BUNDLERS],
};

impl Trail {
    fn begin(beat: &Beat) -> Trail {
        let Beat { incarnation, number, routing, .. } = *beat;
        Trail { incarnation, newest: number, arrived: 1, routing, since: number, missing: [0; BUNDLERS] }
    }

    fn has(&self, number: u64) -> bool {
        self.newest.checked_sub(number).is_some_and(|age| age < 64 && self.arrived >> age & 1 == 1)
    }

    /// Whether `number` is of an age at which its arrival is still of interest, and has not arrived.
    fn lacks(&self, beat: &Beat) -> bool {
        let age = self.newest.checked_sub(beat.number);
        beat.incarnation == self.incarnation && age.is_some_and(|age| age < 64) && !self.has(beat.number)
    }

    /// Who was to bring `number`, if that is known and it would count against him that it is missing: the agent reached us
    /// before and after.
    fn answerable(&self, number: u64) -> Option<usize> {
        let way = if number >= self.since + 2 { self.routing.way(number) } else { None };
        let around = |a, b| self.has(a) || self.has(b);
        way.filter(|_| around(number - 1, number - 2) && around(number + 1, number + 2))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trails {
    tree: Tree,
    /// By the nodes' numbers.
    trails: Vec<Trail>,
    /// By bundler: the agents whose heartbeats it keeps back.
    accusers: BTreeMap<NodeId, BTreeSet<NodeId>>,
    named: BTreeMap<NodeId, Time>,
}

impl Trails {
    pub(super) fn new(tree: Tree) -> Trails {
        Trails { tree, trails: Vec::new(), accusers: BTreeMap::new(), named: BTreeMap::new() }
    }

    /// Whether this heartbeat, which is not the youngest, has not arrived before.
    pub(super) fn lacks(&self, beat: &Beat) -> bool {
        self.trails.get(beat.node.0 as usize).is_some_and(|trail| trail.lacks(beat))
    }

    /// Takes note of an authentic heartbeat of a node of the tree.
    pub(super) fn record(&mut self, beat: &Beat) {
        let Some(bundlers) = self.tree.bundlers(beat.node) else { return };
        let index = beat.node.0 as usize;
        if index >= self.trails.len() {
            self.trails.resize(index + 1, NOTHING);
        }
        let trail = &mut self.trails[index];
        if beat.incarnation > trail.incarnation {
            *trail = Trail::begin(beat);
            self.begin_life(beat.node, bundlers);
            return;
        }
        if trail.lacks(beat) {
            trail.arrived |= 1 << (trail.newest - beat.number);
            if trail.newest - beat.number >= LATE
                && let Some(way) = trail.answerable(beat.number)
            {
                // It was late, and held against its bundler.
                trail.missing[way] = trail.missing[way].saturating_sub(MISSING + 1);
                self.weigh(beat.node, bundlers[way], way);
            }
            return;
        }
        let Some(step) = beat.number.checked_sub(trail.newest).filter(|step| *step > 0) else { return };
        if beat.incarnation < trail.incarnation {
            return;
        }
        if step >= UNHEARD {
            *trail = Trail { missing: trail.missing, ..Trail::begin(beat) };
            return;
        }
        let judged = trail.newest.saturating_sub(LATE);
        trail.newest = beat.number;
        trail.arrived = trail.arrived << step | 1;
        if trail.routing != beat.routing {
            (trail.routing, trail.since) = (beat.routing, beat.number);
        }
        for number in judged + 1..=beat.number.saturating_sub(LATE) {
            self.judge(beat.node, bundlers, number);
        }
    }

    fn judge(&mut self, node: NodeId, bundlers: [NodeId; BUNDLERS], number: u64) {
        let trail = &mut self.trails[node.0 as usize];
        let Some(way) = trail.answerable(number).filter(|way| bundlers[*way] != node) else { return };
        trail.missing[way] = match trail.has(number) {
            true => trail.missing[way].saturating_sub(1),
            false => trail.missing[way].saturating_add(MISSING),
        };
        self.weigh(node, bundlers[way], way);
    }

    /// Adds `node` to those who miss heartbeats by `bundler`, or takes it away.
    fn weigh(&mut self, node: NodeId, bundler: NodeId, way: usize) {
        let sum = self.trails[node.0 as usize].missing[way];
        if sum >= KEPT_BACK {
            self.accusers.entry(bundler).or_default().insert(node);
        } else if sum < KEPT_BACK / 2
            && let Some(accusers) = self.accusers.get_mut(&bundler)
        {
            accusers.remove(&node);
            if accusers.is_empty() {
                self.accusers.remove(&bundler);
            }
        }
    }

    /// What was held against an earlier life of `node`, and what that life missed, is over.
    fn begin_life(&mut self, node: NodeId, bundlers: [NodeId; BUNDLERS]) {
        for bundler in bundlers {
            if let Some(accusers) = self.accusers.get_mut(&bundler) {
                accusers.remove(&node);
            }
        }
        self.named.remove(&node);
        self.accusers.remove(&node);
        if let Some(way) = bundlers.iter().position(|bundler| *bundler == node) {
            for member in self.tree.group_of(node) {
                if let Some(trail) = self.trails.get_mut(member.0 as usize) {
                    trail.missing[way] = 0;
                }
            }
        }
    }

    /// The bundlers that keep back the heartbeats of several agents, and of how many; each again only after `pause`.
    pub(super) fn suppressors(&mut self, now: Time, pause: Duration) -> Vec<(NodeId, usize)> {
        let mut found = Vec::new();
        for (bundler, accusers) in self.accusers.iter().filter(|(_, accusers)| accusers.len() >= ACCUSERS) {
            let named = self.named.entry(*bundler).or_insert(Time::ZERO);
            if *named == Time::ZERO || now.saturating_since(*named) >= pause {
                *named = now;
                found.push((*bundler, accusers.len()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::{Sender, Way};
    use super::*;

    /// Heartbeats of the first group of eight nodes; `lose` says which do not arrive.
    struct Group {
        trails: Trails,
        senders: Vec<Sender>,
    }

    impl Group {
        fn new() -> Group {
            let tree = Tree::new((1..=8).map(NodeId));
            let senders = (1..=4).map(|n| Sender::new(NodeId(n), Incarnation(1), Some(&tree))).collect();
            Group { trails: Trails::new(tree), senders }
        }

        fn run(&mut self, beats: u64, mut lose: impl FnMut(&Beat, Way) -> bool) {
            for _ in 0..beats {
                for sender in &mut self.senders {
                    let (beat, way) = sender.next_beat();
                    if !lose(&beat, way) {
                        self.trails.record(&beat);
                    }
                }
            }
        }

        fn named(&mut self) -> Vec<NodeId> {
            let found = self.trails.suppressors(Time::from_nanos(1), Duration::ZERO);
            found.into_iter().map(|(node, _)| node).collect()
        }
    }

    fn by(bundler: u32, way: Way) -> bool {
        way == Way::Bundler(NodeId(bundler))
    }

    #[test]
    fn who_keeps_back_all_or_half_of_the_heartbeats_of_three_agents_is_named() {
        for every in [1, 2] {
            let mut group = Group::new();
            group.run(30 * every + 60, |beat, way| {
                by(3, way) && beat.node != NodeId(3) && beat.number / 3 % every == 0
            });
            assert_eq!(group.named(), [NodeId(3)], "one in {every}");
        }
        // Also beside another one.
        let mut group = Group::new();
        group.run(60, |beat, way| (by(3, way) || by(2, way)) && way != Way::Bundler(beat.node));
        assert_eq!(group.named(), [NodeId(2), NodeId(3)]);
    }

    #[test]
    fn who_keeps_back_less_than_a_quarter_or_of_two_agents_only_is_not() {
        let mut group = Group::new();
        group.run(3000, |beat, way| by(3, way) && beat.number / 3 % 5 == 0);
        assert_eq!(group.named(), []);
        let mut group = Group::new();
        group.run(3000, |beat, way| by(3, way) && beat.node.0 <= 2);
        assert_eq!(group.named(), [], "two agents might be lying");
    }

    #[test]
    fn all_three_are_named_by_what_agents_send_past_them() {
        let mut group = Group::new();
        let suppress = |beat: &Beat, way| matches!(way, Way::Bundler(b) if b != beat.node);
        group.run(100, suppress);
        assert_eq!(group.named(), [], "nobody is heard at all");
        group.senders.iter_mut().for_each(Sender::on_ping);
        group.run(100, suppress);
        assert_eq!(group.named(), [NodeId(2), NodeId(3), NodeId(4)]);
    }

    #[test]
    fn a_network_that_is_cut_or_slow_counts_against_nobody() {
        let mut group = Group::new();
        group.run(20, |_, _| false);
        group.run(40, |_, _| true);
        group.run(100, |_, _| false);
        assert_eq!(group.named(), []);
        // What one bundler brings is ten periods late.
        let mut group = Group::new();
        let mut late: std::collections::VecDeque<Vec<Beat>> = Default::default();
        for _ in 0..300 {
            let mut held = Vec::new();
            group.run(1, |beat, way| {
                let slow = by(3, way);
                held.extend(slow.then_some(*beat));
                slow
            });
            late.push_back(held);
            if late.len() > 10 {
                late.pop_front().unwrap().iter().for_each(|beat| group.trails.record(beat));
            }
        }
        assert_eq!(group.named(), []);
    }

    #[test]
    fn a_new_life_of_a_bundler_begins_without_blame() {
        let mut group = Group::new();
        group.run(100, |beat, way| by(3, way) && beat.node != NodeId(3));
        assert_eq!(group.named(), [NodeId(3)]);
        let tree = group.trails.tree.clone();
        group.senders[2] = Sender::new(NodeId(3), Incarnation(2), Some(&tree));
        group.run(1, |_, _| false);
        assert_eq!(group.named(), []);
        group.run(200, |beat, way| by(3, way) && beat.node != NodeId(3));
        assert_eq!(group.named(), [NodeId(3)], "but not for ever");
    }
}
