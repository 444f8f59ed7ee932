//! All peers of a party.

use crate::peer::Peer;
use cl_base::PeerId;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Found by hashing, in the same short time however many there are, and walked through in order: what comes of
/// a walk does not depend on hashes.
#[derive(Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<u32>,
    by_id: FxHashMap<PeerId, u32>,
    in_order: BTreeMap<PeerId, u32>,
}

impl Peers {
    #[inline]
    pub(crate) fn get(&self, id: &PeerId) -> Option<&Peer> {
        self.slots[*self.by_id.get(id)? as usize].as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.slots[*self.by_id.get(id)? as usize].as_deref_mut()
    }

    #[inline]
    pub(crate) fn contains_key(&self, id: &PeerId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Adds a peer that is not there.
    pub(crate) fn insert(&mut self, id: PeerId, peer: Peer) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("peers are bounded far below u32::MAX")
        });
        self.slots[slot as usize] = Some(Box::new(peer));
        let old = self.by_id.insert(id, slot);
        assert!(old.is_none(), "a peer twice");
        self.in_order.insert(id, slot);
    }

    pub(crate) fn remove(&mut self, id: &PeerId) -> Option<Box<Peer>> {
        let slot = self.by_id.remove(id)?;
        self.in_order.remove(id);
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    /// All of them, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.in_order.values().map(|slot| self.at(*slot))
    }

    /// Those of a range, in order.
    pub(crate) fn range(&self, range: RangeInclusive<PeerId>) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.in_order.range(range).map(|(id, slot)| (id, self.at(*slot)))
    }

    fn at(&self, slot: u32) -> &Peer {
        self.slots[slot as usize].as_deref().expect("what is in the index is in its slot")
    }
}

impl std::ops::Index<&PeerId> for Peers {
    type Output = Peer;
    fn index(&self, id: &PeerId) -> &Peer {
        self.get(id).expect("a peer that is remembered")
    }
}
