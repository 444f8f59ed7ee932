//! An agent that bundles the heartbeats of its group for the backups.
//!
//! ```text
//! group bundle   managers 1 | manager 8 x managers | beats x (beat 21 | tag 16 x managers)
//! ```

use super::tree::Tree;
use super::{BEAT_BYTES, BUNDLE_BYTES, BUNDLE_MAX, Heartbeat, TAG_BYTES, TAGS_MAX};
use crate::identity::NodeId;
use cl_base::PeerId;
use std::collections::BTreeMap;

/// Heartbeats of one agent in a bundle at most: its own period may be a little shorter than ours, and some arrive late. Who
/// sends more gets the last ones through.
const PER_AGENT: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Bundler {
    node: NodeId,
    tree: Tree,
    collected: BTreeMap<NodeId, Vec<Heartbeat>>,
}

impl Bundler {
    /// The bundler on `node`.
    pub fn new(node: NodeId, tree: Tree) -> Bundler {
        Bundler { node, tree, collected: BTreeMap::new() }
    }

    /// Keeps a heartbeat, which has come from the agent that it speaks of, for the next bundle; false if that agent is none of
    /// this bundler's group.
    pub fn collect(&mut self, heartbeat: Heartbeat) -> bool {
        if !self.tree.serves(self.node, heartbeat.beat.node) {
            return false;
        }
        let kept = self.collected.entry(heartbeat.beat.node).or_default();
        if kept.len() == PER_AGENT {
            kept.remove(0);
        }
        kept.push(heartbeat);
        true
    }

    /// Ends a period: what is to be sent to each backup, in parts of up to [`BUNDLE_BYTES`]. Heartbeats for another
    /// group of managers than `managers` are of no use.
    pub fn take_bundles(&mut self, managers: &[PeerId]) -> Vec<Vec<u8>> {
        let collected = std::mem::take(&mut self.collected).into_values().flatten();
        let of_these = |h: &Heartbeat| h.tags.iter().map(|(manager, _)| manager).eq(managers);
        let heartbeats: Vec<Heartbeat> = collected.filter(of_these).collect();
        let (head, entry) = lengths(managers.len());
        heartbeats.chunks((BUNDLE_BYTES - head) / entry).map(|part| write(managers, part)).collect()
    }
}

/// Bytes before the heartbeats of a bundle for so many managers, and of each heartbeat.
fn lengths(managers: usize) -> (usize, usize) {
    assert!(managers <= TAGS_MAX, "a group has few managers");
    (1 + managers * 8, BEAT_BYTES + managers * TAG_BYTES)
}

fn write(managers: &[PeerId], heartbeats: &[Heartbeat]) -> Vec<u8> {
    let (head, entry) = lengths(managers.len());
    let mut bytes = Vec::with_capacity(head + heartbeats.len() * entry);
    bytes.push(u8::try_from(managers.len()).expect("a group has few managers"));
    for manager in managers {
        bytes.extend_from_slice(&manager.to_u64().to_le_bytes());
    }
    for heartbeat in heartbeats {
        bytes.extend_from_slice(&heartbeat.beat.to_bytes());
        heartbeat.tags.iter().for_each(|(_, tag)| bytes.extend_from_slice(tag));
    }
    bytes
}

/// The heartbeats of a group bundle, up to [`BUNDLE_MAX`] of them; `None` for what is no group bundle.
pub(super) fn read(bytes: &[u8]) -> Option<impl Iterator<Item = Heartbeat>> {
    let (count, rest) = bytes.split_first()?;
    let count = usize::from(*count);
    if count == 0 || count > TAGS_MAX {
        return None;
    }
    let (managers, entries) = rest.split_at_checked(count * 8)?;
    let managers: Vec<PeerId> =
        managers.as_chunks().0.iter().map(|m| PeerId::from_u64(u64::from_le_bytes(*m))).collect();
    let entries = entries.chunks_exact(BEAT_BYTES + count * TAG_BYTES);
    if !entries.remainder().is_empty() {
        return None;
    }
    Some(entries.take(BUNDLE_MAX).map(move |entry| {
        let (beat, tags) = entry.split_first_chunk().expect("the length of an entry");
        let tags = managers.iter().copied().zip(tags.as_chunks().0.iter().copied()).collect();
        Heartbeat { beat: super::Beat::read(beat), tags }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::Beat;
    use super::super::route::Routing;
    use super::*;
    use cl_base::Incarnation;

    fn managers(count: u32) -> Vec<PeerId> {
        (0..count).map(|i| PeerId::new(100 + i, 0)).collect()
    }

    fn heartbeat(node: u32, number: u64, managers: &[PeerId]) -> Heartbeat {
        let routing = Routing::ALL_DIRECT;
        let beat = Beat { node: NodeId(node), incarnation: Incarnation(7), number, routing };
        Heartbeat { beat, tags: managers.iter().map(|m| (*m, [m.principal.0 as u8; 16])).collect() }
    }

    #[test]
    fn a_bundle_holds_what_its_group_sent_for_these_managers_and_reads_back() {
        let tree = Tree::new((1..=1000).map(NodeId));
        let [bundler, ..] = tree.bundlers(NodeId(1)).unwrap();
        let size = tree.group_of(NodeId(1)).len();
        let mut ours = Bundler::new(bundler, tree);
        let (now, before) = (managers(4), managers(3));
        for number in 1..=6 {
            (1..=1000).for_each(|node| {
                assert_eq!(ours.collect(heartbeat(node, number, &now)), node <= size as u32)
            });
        }
        assert!(ours.collect(heartbeat(2, 9, &before)));
        let bundles = ours.take_bundles(&now);
        let read: Vec<Heartbeat> = bundles.iter().flat_map(|b| read(b).unwrap()).collect();
        assert_eq!(read.len(), size * PER_AGENT - 1, "the one for other managers has taken a place");
        assert_eq!(read[0], heartbeat(1, 3, &now), "the last ones of each");
        assert!(bundles.len() > 1 && bundles.iter().all(|bundle| bundle.len() <= BUNDLE_BYTES));
        assert!(ours.take_bundles(&now).is_empty());
    }

    #[test]
    fn nothing_else_is_read() {
        let managers = managers(2);
        let bytes = write(&managers, &[heartbeat(1, 1, &managers), heartbeat(2, 1, &managers)]);
        let entry = BEAT_BYTES + 2 * TAG_BYTES;
        for len in 0..=bytes.len() {
            let whole = len >= 17 && (len - 17).is_multiple_of(entry);
            let count = read(&bytes[..len]).map(Iterator::count);
            assert_eq!(count, whole.then(|| (len - 17) / entry), "{len} bytes");
        }
        assert!(read(&[0; 100]).is_none() && read(&[17; 1000]).is_none());
        let many = vec![heartbeat(1, 1, &managers); BUNDLE_MAX + 1];
        assert_eq!(read(&write(&managers, &many)).unwrap().count(), BUNDLE_MAX);
    }
}
