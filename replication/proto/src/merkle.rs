//! The tree over the pages of a checkpointed state, by which a state is fetched piece by piece from members
//! that are not trusted (PROTOCOL.md 2.7).

use crate::keys::{Digest, Domain, digest_of, hash};

/// Bytes of a page: small, because most checkpoints change few bytes, and a dozen fit into one message.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Children of an inner node: 8 KiB of digests, one message.
pub(crate) const FANOUT: usize = 256;

/// A state of at most this many bytes can be fetched (1 GiB), so that a length claimed by a peer is bounded.
pub(crate) const STATE_BYTES_MAX: u64 = 1 << 30;

/// Pages of a state with `len` bytes.
pub(crate) fn pages(len: u64) -> usize {
    (len as usize).div_ceil(PAGE_BYTES).max(1)
}

/// Nodes on each level above the pages, pages first, root last.
pub(crate) fn level_sizes(len: u64) -> Vec<usize> {
    let mut sizes = vec![pages(len)];
    while sizes[sizes.len() - 1] > 1 {
        sizes.push(sizes[sizes.len() - 1].div_ceil(FANOUT));
    }
    sizes
}

pub(crate) fn page_digest(page: &[u8]) -> Digest {
    hash(Domain::Page, page)
}

pub(crate) fn node_digest(level: u8, children: &[Digest]) -> Digest {
    digest_of(Domain::Node, &(level, children))
}

/// D: the digest that CHECKPOINT carries.
pub(crate) fn state_digest(rsn: u64, len: u64, root: Digest) -> Digest {
    digest_of(Domain::State, &(rsn, len, root))
}

/// A state with its tree.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) rsn: u64,
    pub(crate) digest: Digest,
    pub(crate) state: Vec<u8>,
    /// Page digests first, the root last.
    pub(crate) levels: Vec<Vec<Digest>>,
}

impl Snapshot {
    pub(crate) fn new(rsn: u64, state: Vec<u8>) -> Snapshot {
        assert!(state.len() as u64 <= STATE_BYTES_MAX, "the replicated state has outgrown its bound");
        let mut levels: Vec<Vec<Digest>> =
            vec![(0..pages(state.len() as u64)).map(|i| page_digest(page_of(&state, i))).collect()];
        while levels[levels.len() - 1].len() > 1 {
            let level = levels.len() as u8;
            let below = &levels[levels.len() - 1];
            let nodes = below.chunks(FANOUT).map(|children| node_digest(level, children)).collect();
            levels.push(nodes);
        }
        let root = levels[levels.len() - 1][0];
        let digest = state_digest(rsn, state.len() as u64, root);
        Snapshot { rsn, digest, state, levels }
    }

    pub(crate) fn root(&self) -> Digest {
        self.levels[self.levels.len() - 1][0]
    }

    /// The digests below an inner node, if there is such a node.
    pub(crate) fn children(&self, level: u8, index: u32) -> Option<&[Digest]> {
        let below = self.levels.get(usize::from(level).checked_sub(1)?)?;
        if usize::from(level) >= self.levels.len() {
            return None;
        }
        below.chunks(FANOUT).nth(index as usize)
    }

    pub(crate) fn page(&self, index: usize) -> Option<&[u8]> {
        (index < self.levels[0].len()).then(|| page_of(&self.state, index))
    }
}

fn page_of(state: &[u8], index: usize) -> &[u8] {
    let from = (index * PAGE_BYTES).min(state.len());
    &state[from..(from + PAGE_BYTES).min(state.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_changes_one_page_and_the_root() {
        let a = Snapshot::new(1, vec![0; 3 * PAGE_BYTES + 5]);
        let mut state = a.state.clone();
        state[PAGE_BYTES + 1] = 1;
        let b = Snapshot::new(1, state);
        let changed: Vec<_> = (0..4).filter(|i| a.levels[0][*i] != b.levels[0][*i]).collect();
        assert_eq!(changed, [1]);
        assert_ne!(a.digest, b.digest);
        assert_eq!(a.page(3).unwrap().len(), 5);
        assert_eq!(a.page(4), None);
    }

    #[test]
    fn the_shape_follows_from_the_length_alone() {
        for len in [0, 1, PAGE_BYTES, PAGE_BYTES + 1, PAGE_BYTES * FANOUT, PAGE_BYTES * FANOUT + 1] {
            let snapshot = Snapshot::new(3, vec![7; len]);
            let sizes: Vec<_> = snapshot.levels.iter().map(Vec::len).collect();
            assert_eq!(sizes, level_sizes(len as u64), "length {len}");
        }
        assert_eq!(level_sizes((PAGE_BYTES * FANOUT + 1) as u64), [257, 2, 1]);
    }
}
