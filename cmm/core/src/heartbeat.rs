//! Agents' heartbeats and how the managers keep count of them (dissertation 7.1.5).
//!
//! In small clusters an agent sends each heartbeat to one of the two backups, turn by turn. A backup bundles what arrived
//! during a period and forwards it to the other managers, so the primary is not interrupted by every agent.
//! A heartbeat carries one authentication tag for every manager: whoever forwards it cannot forge it. A bundle
//! for a manager holds that manager's tags only.
//!
//! In large clusters there is a level of bundlers below the backups: agents, of which each bundles for its group of about √N
//! ([`tree`]). An agent's heartbeats take turns among three of them ([`route`]), and each of them sends its bundle to both
//! backups. A bundler can keep heartbeats back; the managers see by their numbers whose they miss (`trails`), f+1 of them
//! have it withdrawn, and its group goes round it.
//!
//! ```text
//! heartbeat   beat 21 | tags x (manager 8 | tag 16)     from the agent
//! bundle      beats x (beat 21 | tag 16)                from a backup to one manager
//! beat        node 4 | incarnation 8 | number 8 | routing 1, little-endian
//! ```
//! What a bundler sends to the backups is in [`bundler`]. All of it travels in [`datagram`]s that the managers look for once in a
//! period, or in sessions if there are none.

pub mod bundler;
pub mod datagram;
mod monitor;
pub mod route;
mod slots;
mod trails;
pub mod tree;

pub use bundler::Bundler;
pub use monitor::{Monitor, Suppressor};
pub use route::{Routing, Sender, Way};
pub use slots::{agent_slot, looking_period, manager_slot};
pub use trails::ACCUSERS;
pub use tree::Tree;

use crate::identity::NodeId;
use cl_base::{Incarnation, PeerId};

/// Separates heartbeat tags from every other use of the keys.
pub const TAG_DOMAIN: &str = "ghidrah heartbeat v3";
/// Bytes of a beat.
pub const BEAT_BYTES: usize = 21;
const TAG_BYTES: usize = 16;
const ENTRY_BYTES: usize = BEAT_BYTES + TAG_BYTES;
/// Bytes of a bundle that is sent; of more heartbeats there are several. One that is lost takes few heartbeats with it, and the
/// cost of a message is shared by many.
pub const BUNDLE_BYTES: usize = datagram::DATAGRAM_MAX - datagram::OVERHEAD;
/// Heartbeats that are looked at in a bundle: those of a former version were as long.
pub const BUNDLE_MAX: usize = 256;
/// Managers that a heartbeat has tags for; groups have 3f+1 members with f of one or two.
const TAGS_MAX: usize = 16;
/// Nodes are numbered below this: the table of them has a place for each number up to the largest seen.
pub const NODES_MAX: u32 = 1 << 20;

/// Heartbeats are numbered from 1 in each life of an agent, and none lives so long that it gets here: so sums of numbers
/// do not overflow, whatever an agent says.
pub const NUMBERS_END: u64 = 1 << 62;

/// "I am alive."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose it is.
    pub node: NodeId,
    /// Which life of its agent.
    pub incarnation: Incarnation,
    /// Counted up by the agent, so that an old one proves nothing.
    pub number: u64,
    /// How the agent chooses the ways of its heartbeats.
    pub routing: Routing,
}

impl Beat {
    /// The bytes that tags are taken over.
    #[inline]
    pub fn to_bytes(self) -> [u8; BEAT_BYTES] {
        let mut bytes = [0; BEAT_BYTES];
        bytes[..4].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20] = self.routing.to_byte();
        bytes
    }

    #[inline]
    fn read(bytes: &[u8; BEAT_BYTES]) -> Beat {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Beat {
            node: NodeId(u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))),
            incarnation: Incarnation(word(4)),
            number: word(12),
            routing: Routing::from_byte(bytes[20]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_as_it_was_written_and_nothing_else_is() {
        let routing = Routing::from_byte(0x42);
        let beat = Beat { node: NodeId(7), incarnation: Incarnation(1 << 60), number: 3, routing };
        let tags = (0..4).map(|m| (PeerId::new(100 + m, 0), [m as u8; TAG_BYTES])).collect();
        let good = Heartbeat { beat, tags };
        let bytes = good.to_bytes();
        assert_eq!(Heartbeat::read(&bytes), Some(good));
        for len in 0..bytes.len() {
            let whole = len >= BEAT_BYTES && (len - BEAT_BYTES).is_multiple_of(8 + TAG_BYTES);
            assert_eq!(Heartbeat::read(&bytes[..len]).is_some(), whole, "{len} bytes");
        }
        assert_eq!(Heartbeat::read(&[0; BEAT_BYTES + (TAGS_MAX + 1) * (8 + TAG_BYTES)]), None);
    }
}
