//! Agents' heartbeats and how the managers keep count of them (dissertation 7.1.5).
//!
//! An agent sends each heartbeat to one of the two backups, turn by turn. A backup bundles what arrived
//! during a period and forwards it to the other managers, so the primary is not interrupted by every agent.
//! A heartbeat carries one authentication tag for every manager: whoever forwards it cannot forge it.

use crate::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Separates heartbeat tags from every other use of the keys.
pub const TAG_DOMAIN: &str = "ghidrah heartbeat v1";
/// Heartbeats in one bundle; more agents than this send bundles in parts. Bounds what a liar can send.
pub const BUNDLE_MAX: usize = 256;

/// "I am alive."
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Heartbeat {
    /// Whose it is.
    pub node: NodeId,
    /// Which life of its agent.
    pub incarnation: Incarnation,
    /// Counted up by the agent, so that an old one proves nothing.
    pub number: u64,
    /// One tag for each manager, over [`Heartbeat::tagged_bytes`].
    pub tags: Vec<(PeerId, [u8; 16])>,
}

impl Heartbeat {
    /// The bytes that a tag is taken over.
    pub fn tagged_bytes(node: NodeId, incarnation: Incarnation, number: u64) -> Vec<u8> {
        cl_base::codec::encode(&(node, incarnation, number))
    }

    /// The tag meant for `manager`.
    pub fn tag_for(&self, manager: PeerId) -> Option<&[u8; 16]> {
        self.tags.iter().find(|(m, _)| *m == manager).map(|(_, tag)| tag)
    }
}

/// What a manager has heard of a node.
#[derive(Clone, Copy, Debug)]
struct Heard {
    incarnation: Incarnation,
    number: u64,
    at: Time,
    suspected_at: Option<Time>,
}

/// A manager's record of heartbeats. Local to each replica, not part of the replicated state: a suspicion
/// becomes the group's only when f+1 managers have it ordered.
#[derive(Debug)]
pub struct Monitor {
    suspect_after: Duration,
    heard: BTreeMap<NodeId, Heard>,
    bundle: Vec<Heartbeat>,
}

impl Monitor {
    /// A monitor that suspects a node after `suspect_after` without a heartbeat.
    pub fn new(suspect_after: Duration) -> Monitor {
        Monitor { suspect_after, heard: BTreeMap::new(), bundle: Vec::new() }
    }

    /// Records an authenticated heartbeat; false if it is no news.
    pub fn heard(&mut self, now: Time, heartbeat: &Heartbeat) -> bool {
        let (incarnation, number) = (heartbeat.incarnation, heartbeat.number);
        let fresh = Heard { incarnation, number, at: now, suspected_at: None };
        match self.heard.get_mut(&heartbeat.node) {
            Some(h) if (incarnation, number) <= (h.incarnation, h.number) => false,
            Some(h) => {
                *h = fresh;
                true
            }
            None => {
                self.heard.insert(heartbeat.node, fresh);
                true
            }
        }
    }

    /// Keeps a heartbeat that came from its agent for the next bundle; the oldest of too many is dropped.
    pub fn bundle(&mut self, heartbeat: Heartbeat) {
        self.bundle.retain(|h| h.node != heartbeat.node);
        if self.bundle.len() == BUNDLE_MAX {
            self.bundle.remove(0);
        }
        self.bundle.push(heartbeat);
    }

    /// What is to be forwarded at the end of a period.
    pub fn take_bundle(&mut self) -> Vec<Heartbeat> {
        std::mem::take(&mut self.bundle)
    }

    /// The nodes among `expected` that have been silent for too long; each is named again only after another
    /// such time. A node expected for the first time counts as heard of now.
    pub fn overdue(
        &mut self,
        now: Time,
        expected: impl Iterator<Item = (NodeId, Incarnation)>,
    ) -> Vec<(NodeId, Incarnation)> {
        let mut overdue = Vec::new();
        for (node, incarnation) in expected {
            let h = self.heard.entry(node).or_insert(Heard {
                incarnation,
                number: 0,
                at: now,
                suspected_at: None,
            });
            if h.incarnation < incarnation {
                *h = Heard { incarnation, number: 0, at: now, suspected_at: None };
            }
            let since = h.suspected_at.unwrap_or(h.at).max(h.at);
            if h.incarnation == incarnation && now.saturating_since(since) >= self.suspect_after {
                h.suspected_at = Some(now);
                overdue.push((node, incarnation));
            }
        }
        overdue
    }

    /// Gives every node another full period: for a manager that was itself held up and could not listen.
    pub fn forgive(&mut self, now: Time) {
        for h in self.heard.values_mut() {
            h.at = now;
            h.suspected_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(node: u32, incarnation: u64, number: u64) -> Heartbeat {
        Heartbeat { node: NodeId(node), incarnation: Incarnation(incarnation), number, tags: vec![] }
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn overdue(m: &mut Monitor, ms: u64) -> Vec<u32> {
        let expected = [(NodeId(1), Incarnation(1)), (NodeId(2), Incarnation(1))];
        m.overdue(at(ms), expected.into_iter()).iter().map(|(n, _)| n.0).collect()
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
    fn a_bundle_holds_the_latest_of_each_node() {
        let mut m = Monitor::new(Duration::from_millis(400));
        m.bundle(beat(1, 1, 1));
        m.bundle(beat(2, 1, 1));
        m.bundle(beat(1, 1, 2));
        assert_eq!(m.take_bundle(), [beat(2, 1, 1), beat(1, 1, 2)]);
        assert!(m.take_bundle().is_empty());
    }
}
