//! What is remembered of connections that have ended.

use cl_base::PeerId;
use rustc_hash::FxHashMap;

/// Peers of which the latest connection is remembered at the least, if so many have had one; at most twice as many are.
const REMEMBERED_MIN: usize = 4096;

/// The latest connection with a peer, which has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// The numbers of both ends; the peer's is 0 if it has never answered.
    pub(crate) local: u64,
    pub(crate) remote: u64,
    /// What is said to a peer that has not heard of the graceful end (`Connection::epitaph`).
    pub(crate) epitaph: u64,
}

/// The latest connections of those peers whose ended last. Never iterated.
#[derive(Default)]
pub(crate) struct Remembered {
    recent: FxHashMap<PeerId, Past>,
    former: FxHashMap<PeerId, Past>,
    forgotten: u64,
}

impl Remembered {
    pub(crate) fn get(&self, peer: PeerId) -> Option<&Past> {
        self.recent.get(&peer).or_else(|| self.former.get(&peer))
    }

    pub(crate) fn insert(&mut self, peer: PeerId, past: Past) {
        self.recent.insert(peer, past);
        if self.recent.len() >= REMEMBERED_MIN {
            self.former = std::mem::take(&mut self.recent);
            self.forgotten += 1;
        }
    }

    /// How often peers were forgotten. Whoever is not remembered was remembered last when this was less.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_memory_is_bounded() {
        let mut remembered = Remembered::default();
        let past = |n: u64| Past { local: n, remote: n, epitaph: 0 };
        let peer = |n: u64| PeerId::new(n as u32, 0);
        for n in 1..=5 * REMEMBERED_MIN as u64 {
            remembered.insert(peer(n), past(n));
            remembered.insert(peer(n), past(n + 1));
            let oldest = (n + 1).saturating_sub(REMEMBERED_MIN as u64).max(1);
            assert_eq!(remembered.get(peer(oldest)), Some(&past(oldest + 1)));
            assert!(remembered.recent.len() + remembered.former.len() <= 2 * REMEMBERED_MIN);
        }
        assert_eq!((remembered.get(peer(1)), remembered.forgotten()), (None, 5));
    }
}
