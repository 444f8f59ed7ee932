//! What a manager has heard of the agents, and what it forwards as a backup.

use super::bundler;
use super::trails::Trails;
use super::tree::Tree;
use super::{
    BEAT_BYTES, BUNDLE_BYTES, BUNDLE_MAX, Beat, ENTRY_BYTES, Heartbeat, NODES_MAX, NUMBERS_END, TAG_BYTES,
};
use crate::identity::NodeId;
use cl_base::{Incarnation, PeerId, Time};
use std::time::Duration;

/// Heartbeats kept for the next bundle, for each node that was ever heard; of ten the managers look at together. An agent that
/// sends more gains nothing.
const COLLECTED_PER_NODE: usize = 16;

/// What a manager has heard of a node.
#[derive(Clone, Copy, Debug)]
struct Heard {
    incarnation: Incarnation,
    number: u64,
    at: Time,
    suspected_at: Option<Time>,
}

/// Nothing heard yet: older than every heartbeat.
const UNHEARD: Heard = Heard { incarnation: Incarnation(0), number: 0, at: Time::ZERO, suspected_at: None };

/// A manager's record of heartbeats. Local to each replica, not part of the replicated state: a suspicion
/// becomes the group's only when f+1 managers have it ordered.
#[derive(Debug)]
pub struct Monitor {
    suspect_after: Duration,
    /// By the nodes' numbers, for a heartbeat to be recorded without a search.
    heard: Vec<Heard>,
    collected: Vec<Heartbeat>,
    /// Who brings which heartbeats, where agents bundle them.
    trails: Option<Trails>,
    forged: u64,
}

/// An agent that keeps back the heartbeats which it was to bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressor {
    /// Its node.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Of how many agents.
    pub agents: usize,
}

impl Monitor {
    /// A monitor that suspects a node after `suspect_after` without a heartbeat.
    pub fn new(suspect_after: Duration) -> Monitor {
        Monitor { suspect_after, heard: Vec::new(), collected: Vec::new(), trails: None, forged: 0 }
    }

    /// As [`Monitor::new`], where the agents of `tree` bundle.
    pub fn with_tree(suspect_after: Duration, tree: Tree) -> Monitor {
        Monitor { trails: Some(Trails::new(tree)), ..Monitor::new(suspect_after) }
    }

    /// Records an authenticated heartbeat; false if it was known. An older one than the youngest known says nothing of its
    /// node any more, but who brought it has not kept it back.
    #[inline]
    pub fn heard(&mut self, now: Time, beat: &Beat) -> bool {
        let wanted = self.is_wanted(beat);
        if let Some(trails) = self.trails.as_mut().filter(|_| wanted) {
            trails.record(beat);
        }
        if self.is_news(beat) {
            let Beat { node, incarnation, number, .. } = *beat;
            let heard = self.place(node).expect("news are of nodes that have a place");
            *heard = Heard { incarnation, number, at: now, suspected_at: None };
        }
        wanted
    }

    /// Records the heartbeats of a bundle that `genuine` finds to be their nodes', by node, tagged bytes and tag.
    /// It is asked about news only. Returns how many were genuine news; the others are not told apart from those of
    /// other ways and times. A bundle that is not one, or a longer one, is taken as far as it goes.
    pub fn heard_bundle(
        &mut self,
        now: Time,
        bundle: &[u8],
        mut genuine: impl FnMut(NodeId, &[u8; BEAT_BYTES], &[u8; TAG_BYTES]) -> bool,
    ) -> usize {
        let mut news = 0;
        for entry in bundle.as_chunks::<ENTRY_BYTES>().0.iter().take(BUNDLE_MAX) {
            let (bytes, tag) = entry.split_first_chunk::<BEAT_BYTES>().expect("36 bytes");
            let tag: &[u8; TAG_BYTES] = tag.first_chunk().expect("16 bytes");
            let beat = Beat::read(bytes);
            if !self.is_wanted(&beat) {
                continue;
            }
            if genuine(beat.node, bytes, tag) {
                news += usize::from(self.heard(now, &beat));
            } else {
                self.forged += 1;
            }
        }
        news
    }

    /// As [`Monitor::heard_bundle`], for what an agent has bundled; and keeps what was news for the next bundle. The
    /// tags for `me` are asked about.
    pub fn heard_group_bundle(
        &mut self,
        now: Time,
        me: PeerId,
        bundle: &[u8],
        mut genuine: impl FnMut(NodeId, &[u8; BEAT_BYTES], &[u8; TAG_BYTES]) -> bool,
    ) -> usize {
        let mut news = 0;
        for heartbeat in bundler::read(bundle).into_iter().flatten() {
            let beat = heartbeat.beat;
            let Some((_, tag)) = heartbeat.tags.iter().find(|(manager, _)| *manager == me) else {
                return news;
            };
            if !self.is_wanted(&beat) {
                continue;
            }
            if genuine(beat.node, &beat.to_bytes(), tag) {
                news += usize::from(self.heard(now, &beat));
                self.collect(heartbeat);
            } else {
                self.forged += 1;
            }
        }
        news
    }

    /// How many heartbeats in bundles were not their nodes'.
    pub fn forged(&self) -> u64 {
        self.forged
    }

    /// Whether [`Monitor::heard`] would record it.
    #[inline]
    fn is_wanted(&self, beat: &Beat) -> bool {
        let lacks = |trails: &Trails| beat.number < NUMBERS_END && trails.lacks(beat);
        self.is_news(beat) || self.trails.as_ref().is_some_and(lacks)
    }

    /// Whether it is younger than what was heard before.
    #[inline]
    fn is_news(&self, beat: &Beat) -> bool {
        let heard = self.heard.get(beat.node.0 as usize).unwrap_or(&UNHEARD);
        let possible = beat.node.0 < NODES_MAX && beat.number < NUMBERS_END;
        possible && (beat.incarnation, beat.number) > (heard.incarnation, heard.number)
    }

    #[inline]
    fn place(&mut self, node: NodeId) -> Option<&mut Heard> {
        let index = node.0 as usize;
        if index >= self.heard.len() {
            if node.0 >= NODES_MAX {
                return None;
            }
            self.heard.resize(index + 1, UNHEARD);
        }
        Some(&mut self.heard[index])
    }

    /// Keeps a heartbeat that came from its agent, and that was news, for the next bundle.
    pub fn collect(&mut self, heartbeat: Heartbeat) {
        if self.collected.len() < COLLECTED_PER_NODE * self.heard.len() {
            self.collected.push(heartbeat);
        }
    }

    /// Ends a period: what is to be forwarded to each of `managers`, in parts of up to [`BUNDLE_BYTES`]. Of a node that was
    /// heard several times, that is the last time; where agents bundle all are, so that others do not miss them.
    pub fn take_bundles(&mut self, managers: &[PeerId]) -> Vec<(PeerId, Vec<u8>)> {
        let collected = std::mem::take(&mut self.collected);
        let latest: Vec<&Heartbeat> = collected
            .iter()
            .filter(|h| {
                if self.trails.is_some() {
                    return true;
                }
                let heard = &self.heard[h.beat.node.0 as usize];
                (h.beat.incarnation, h.beat.number) == (heard.incarnation, heard.number)
            })
            .collect();
        let mut bundles = Vec::new();
        for manager in managers {
            for part in latest.chunks(BUNDLE_BYTES / ENTRY_BYTES) {
                let mut bundle = Vec::with_capacity(part.len() * ENTRY_BYTES);
                for heartbeat in part {
                    let Some((_, tag)) = heartbeat.tags.iter().find(|(m, _)| m == manager) else { continue };
                    bundle.extend_from_slice(&heartbeat.beat.to_bytes());
                    bundle.extend_from_slice(tag);
                }
                if !bundle.is_empty() {
                    bundles.push((*manager, bundle));
                }
            }
        }
        bundles
    }

    /// The nodes among `expected` that have been silent for too long; each is named again only after another
    /// such time. A node expected for the first time counts as heard of now.
    pub fn overdue(
        &mut self,
        now: Time,
        expected: impl Iterator<Item = (NodeId, Incarnation)>,
    ) -> Vec<(NodeId, Incarnation)> {
        let suspect_after = self.suspect_after;
        let mut overdue = Vec::new();
        for (node, incarnation) in expected {
            let Some(h) = self.place(node) else { continue };
            if h.incarnation < incarnation {
                *h = Heard { incarnation, number: 0, at: now, suspected_at: None };
            }
            let since = h.suspected_at.unwrap_or(h.at).max(h.at);
            if h.incarnation == incarnation && now.saturating_since(since) >= suspect_after {
                h.suspected_at = Some(now);
                overdue.push((node, incarnation));
            }
        }
        overdue
    }

    /// The agents that bundle and keep back what they were to bundle, as far as this manager can see; each is named again
    /// only after another `suspect_after`. An agent that is not heard itself is not among them: it may be dead.
    pub fn suppressors(&mut self, now: Time) -> Vec<Suppressor> {
        let Some(trails) = &mut self.trails else { return Vec::new() };
        let found = trails.suppressors(now, self.suspect_after).into_iter();
        let named = found.filter_map(|(node, agents)| {
            let heard = self.heard.get(node.0 as usize)?;
            let lives = now.saturating_since(heard.at) < self.suspect_after / 2;
            lives.then_some(Suppressor { node, incarnation: heard.incarnation, agents })
        });
        named.collect()
    }

    /// Gives every node another full period: for a manager that was itself held up and could not listen.
    pub fn forgive(&mut self, now: Time) {
        for h in &mut self.heard {
            h.at = now;
            h.suspected_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Routing;
    use super::*;

    fn beat(node: u32, incarnation: u64, number: u64) -> Beat {
        let routing = Routing::ALL_DIRECT;
        Beat { node: NodeId(node), incarnation: Incarnation(incarnation), number, routing }
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn overdue(m: &mut Monitor, ms: u64) -> Vec<u32> {
        let expected = [(NodeId(1), Incarnation(1)), (NodeId(2), Incarnation(1))];
        m.overdue(at(ms), expected.into_iter()).iter().map(|(n, _)| n.0).collect()
    }

    fn manager(number: u32) -> PeerId {
        PeerId::new(100 + number, 0)
    }

    /// A stand-in for a tag: nobody but node and manager could make it.
    fn tag(beat: &Beat, manager: PeerId) -> [u8; TAG_BYTES] {
        let text = [&beat.to_bytes()[..], &manager.to_u64().to_le_bytes()].concat();
        *blake3::hash(&text).as_bytes().first_chunk().unwrap()
    }

    fn heartbeat(beat: Beat) -> Heartbeat {
        Heartbeat { beat, tags: (0..4).map(|m| (manager(m), tag(&beat, manager(m)))).collect() }
    }

    fn genuine(me: PeerId) -> impl FnMut(NodeId, &[u8; BEAT_BYTES], &[u8; TAG_BYTES]) -> bool {
        move |node, bytes, t| Beat::read(bytes).node == node && tag(&Beat::read(bytes), me) == *t
    }

    #[test]
    fn a_silent_node_is_overdue_once_in_a_period() {
        let mut m = Monitor::new(Duration::from_millis(400));
        assert!(overdue(&mut m, 0).is_empty());
        m.heard(at(300), &beat(1, 1, 1));
        assert_eq!(overdue(&mut m, 400), [2]);
        assert!(overdue(&mut m, 500).is_empty());
        assert_eq!(overdue(&mut m, 800), [1, 2]);
        assert!(m.heard(at(900), &beat(2, 1, 1)));
        assert_eq!(overdue(&mut m, 1250), [1]);
    }

    #[test]
    fn an_old_heartbeat_proves_nothing() {
        let mut m = Monitor::new(Duration::from_millis(400));
        assert!(m.heard(at(0), &beat(1, 2, 5)));
        assert!(!m.heard(at(10), &beat(1, 2, 5)));
        assert!(!m.heard(at(10), &beat(1, 1, 9)));
        assert!(m.heard(at(10), &beat(1, 3, 1)));
    }

    #[test]
    fn a_number_that_no_agent_reaches_is_a_lie_and_does_no_harm() {
        let nodes = || (1..=8).map(NodeId);
        let mut m = Monitor::with_tree(Duration::from_millis(400), Tree::new(nodes()));
        let by_bundlers = Routing::from_byte(0);
        let mut number = NUMBERS_END;
        for far in [u64::MAX, u64::MAX - 1, NUMBERS_END] {
            assert!(!m.heard(at(1), &Beat { routing: by_bundlers, ..beat(1, 1, far) }), "{far}");
        }
        while number > 1 {
            number -= 1 + number / 3;
            for node in nodes() {
                m.heard(at(2), &Beat { routing: by_bundlers, ..beat(node.0, number, NUMBERS_END - number) });
            }
        }
        assert!(m.heard(at(3), &beat(1, u64::MAX, NUMBERS_END - 1)));
    }

    #[test]
    fn bundles_hold_the_latest_of_each_node_for_each_manager() {
        let mut backup = Monitor::new(Duration::from_millis(400));
        for number in 1..=3 {
            for node in 0..300 {
                let beat = beat(node, 1, number);
                assert!(backup.heard(at(number), &beat));
                backup.collect(heartbeat(beat));
            }
        }
        let bundles = backup.take_bundles(&[manager(0), manager(2)]);
        let lengths: Vec<_> = bundles.iter().map(|(m, b)| (*m, b.len() / ENTRY_BYTES)).collect();
        let parts = |to| [[(to, 37); 8].to_vec(), vec![(to, 4)]].concat();
        assert_eq!(lengths, [parts(manager(0)), parts(manager(2))].concat());
        assert!(backup.take_bundles(&[manager(0)]).is_empty());
        let mut primary = Monitor::new(Duration::from_millis(400));
        let news: usize = bundles
            .iter()
            .filter(|(to, _)| *to == manager(0))
            .map(|(to, bundle)| primary.heard_bundle(at(5), bundle, genuine(*to)))
            .sum();
        assert_eq!(news, 300);
        let (to, bundle) = &bundles[0];
        assert_eq!(primary.heard_bundle(at(6), bundle, genuine(*to)), 0, "a bundle proves something once");
    }

    #[test]
    fn a_bundler_cannot_forge() {
        let mut m = Monitor::new(Duration::from_millis(400));
        let (me, beat1) = (manager(0), beat(1, 1, 1));
        let entry = |beat: Beat, tag: [u8; TAG_BYTES]| [&beat.to_bytes()[..], &tag].concat();
        // Another number, another node, another manager's tag, a piece of an entry, a node without a place.
        for forged in [
            entry(beat(1, 1, 2), tag(&beat1, me)),
            entry(beat(2, 1, 1), tag(&beat1, me)),
            entry(beat1, tag(&beat1, manager(1))),
            entry(beat1, tag(&beat1, me))[..ENTRY_BYTES - 1].to_vec(),
            entry(beat(NODES_MAX, 1, 1), tag(&beat(NODES_MAX, 1, 1), me)),
        ] {
            assert_eq!(m.heard_bundle(at(1), &forged, genuine(me)), 0);
        }
        assert_eq!(m.heard_bundle(at(1), &entry(beat1, tag(&beat1, me)), genuine(me)), 1);
    }
}
