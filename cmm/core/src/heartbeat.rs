//! Agents' heartbeats and how the managers keep count of them (dissertation 7.1.5).
//!
//! An agent sends each heartbeat to one of the two backups, turn by turn. A backup bundles what arrived
//! during a period and forwards it to the other managers, so the primary is not interrupted by every agent.
//! A heartbeat carries one authentication tag for every manager: whoever forwards it cannot forge it. A bundle
//! for a manager holds that manager's tags only.
//!
//! ```text
//! heartbeat   beat 20 | tags x (manager 8 | tag 16)     from the agent
//! bundle      beats x (beat 20 | tag 16)                from a backup to one manager
//! beat        node 4 | incarnation 8 | number 8         little-endian
//! ```

use crate::identity::NodeId;
use cl_base::{Incarnation, PeerId, Time};
use std::time::Duration;

/// Separates heartbeat tags from every other use of the keys.
pub const TAG_DOMAIN: &str = "ghidrah heartbeat v2";
/// Bytes of a beat.
pub const BEAT_BYTES: usize = 20;
const TAG_BYTES: usize = 16;
const ENTRY_BYTES: usize = BEAT_BYTES + TAG_BYTES;
/// Heartbeats in one bundle; more agents than this send bundles in parts. 9 KiB, so that one that is lost takes
/// few others with it, and the cost of a message is shared by many.
pub const BUNDLE_MAX: usize = 256;
/// Managers that a heartbeat has tags for; groups have 3f+1 members with f of one or two.
const TAGS_MAX: usize = 16;
/// Nodes are numbered below this: the table of them has a place for each number up to the largest seen.
pub const NODES_MAX: u32 = 1 << 20;

/// "I am alive."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose it is.
    pub node: NodeId,
    /// Which life of its agent.
    pub incarnation: Incarnation,
    /// Counted up by the agent, so that an old one proves nothing.
    pub number: u64,
}

impl Beat {
    /// The bytes that tags are taken over.
    #[inline]
    pub fn to_bytes(self) -> [u8; BEAT_BYTES] {
        let mut bytes = [0; BEAT_BYTES];
        bytes[..4].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[12..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    #[inline]
    fn read(bytes: &[u8; BEAT_BYTES]) -> Beat {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Beat {
            node: NodeId(u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))),
            incarnation: Incarnation(word(4)),
            number: word(12),
        }
    }
}

/// A heartbeat as it comes from its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it says.
    pub beat: Beat,
    /// One tag for each manager, over [`Beat::to_bytes`].
    pub tags: Vec<(PeerId, [u8; TAG_BYTES])>,
}

impl Heartbeat {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.beat.to_bytes().to_vec();
        for (manager, tag) in &self.tags {
            bytes.extend_from_slice(&manager.to_u64().to_le_bytes());
            bytes.extend_from_slice(tag);
        }
        bytes
    }

    /// Reads what [`Heartbeat::to_bytes`] has written; `None` for anything else.
    pub fn read(bytes: &[u8]) -> Option<Heartbeat> {
        let (beat, tags) = bytes.split_first_chunk::<BEAT_BYTES>()?;
        let (tags, rest) = tags.as_chunks::<{ 8 + TAG_BYTES }>();
        if !rest.is_empty() || tags.len() > TAGS_MAX {
            return None;
        }
        let tag = |tag: &[u8; 8 + TAG_BYTES]| {
            let (manager, tag) = tag.split_first_chunk::<8>().expect("24 bytes");
            (PeerId::from_u64(u64::from_le_bytes(*manager)), *tag.first_chunk().expect("16 bytes"))
        };
        Some(Heartbeat { beat: Beat::read(beat), tags: tags.iter().map(tag).collect() })
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
}

impl Monitor {
    /// A monitor that suspects a node after `suspect_after` without a heartbeat.
    pub fn new(suspect_after: Duration) -> Monitor {
        Monitor { suspect_after, heard: Vec::new(), collected: Vec::new() }
    }

    /// Records an authenticated heartbeat; false if it is no news.
    #[inline]
    pub fn heard(&mut self, now: Time, beat: &Beat) -> bool {
        let Beat { node, incarnation, number } = *beat;
        let Some(heard) = self.place(node) else { return false };
        if (incarnation, number) <= (heard.incarnation, heard.number) {
            return false;
        }
        *heard = Heard { incarnation, number, at: now, suspected_at: None };
        true
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
            if self.is_news(&beat) && genuine(beat.node, bytes, tag) {
                news += usize::from(self.heard(now, &beat));
            }
        }
        news
    }

    /// Whether [`Monitor::heard`] would record it.
    #[inline]
    fn is_news(&self, beat: &Beat) -> bool {
        let heard = self.heard.get(beat.node.0 as usize).unwrap_or(&UNHEARD);
        beat.node.0 < NODES_MAX && (beat.incarnation, beat.number) > (heard.incarnation, heard.number)
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
        self.collected.push(heartbeat);
    }

    /// Ends a period: what is to be forwarded to each of `managers`, in parts of up to [`BUNDLE_MAX`]. Of a node that was
    /// heard several times, that is the last time.
    pub fn take_bundles(&mut self, managers: &[PeerId]) -> Vec<(PeerId, Vec<u8>)> {
        let collected = std::mem::take(&mut self.collected);
        let latest: Vec<&Heartbeat> = collected
            .iter()
            .filter(|h| {
                let heard = &self.heard[h.beat.node.0 as usize];
                (h.beat.incarnation, h.beat.number) == (heard.incarnation, heard.number)
            })
            .collect();
        let mut bundles = Vec::new();
        for manager in managers {
            for part in latest.chunks(BUNDLE_MAX) {
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
    use super::*;

    fn beat(node: u32, incarnation: u64, number: u64) -> Beat {
        Beat { node: NodeId(node), incarnation: Incarnation(incarnation), number }
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
    fn a_heartbeat_is_read_as_it_was_written_and_nothing_else_is() {
        let good = heartbeat(beat(7, 1 << 60, 3));
        let bytes = good.to_bytes();
        assert_eq!(Heartbeat::read(&bytes), Some(good));
        for len in 0..bytes.len() {
            let whole = len >= BEAT_BYTES && (len - BEAT_BYTES).is_multiple_of(8 + TAG_BYTES);
            assert_eq!(Heartbeat::read(&bytes[..len]).is_some(), whole, "{len} bytes");
        }
        assert_eq!(Heartbeat::read(&[0; BEAT_BYTES + (TAGS_MAX + 1) * (8 + TAG_BYTES)]), None);
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
        assert_eq!(lengths, [(manager(0), 256), (manager(0), 44), (manager(2), 256), (manager(2), 44)]);
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
