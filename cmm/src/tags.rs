//! Keys of tags that are asked for again and again, and so are kept.

use cl_base::PeerId;
use mml::TagKey;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;

/// The keys of one purpose, by the other party: as many at most as the roster has principals.
pub(crate) struct TagKeys {
    domain: &'static str,
    to: FxHashMap<PeerId, TagKey>,
    from: FxHashMap<PeerId, TagKey>,
}

impl TagKeys {
    /// No keys yet of the purpose `domain`.
    pub(crate) fn new(domain: &'static str) -> TagKeys {
        TagKeys { domain, to: FxHashMap::default(), from: FxHashMap::default() }
    }

    /// The key of what we say to `peer`; `None` if the roster does not know it.
    pub(crate) fn to(&mut self, mml: &mml::Endpoint, peer: PeerId) -> Option<&TagKey> {
        kept(&mut self.to, peer, || mml.tag_key_to(peer, self.domain))
    }

    /// The key of what `peer` says to us; `None` if the roster does not know it.
    pub(crate) fn from(&mut self, mml: &mml::Endpoint, peer: PeerId) -> Option<&TagKey> {
        kept(&mut self.from, peer, || mml.tag_key_from(peer, self.domain))
    }

    /// The roster has changed.
    pub(crate) fn clear(&mut self) {
        self.to.clear();
        self.from.clear();
    }
}

fn kept(
    keys: &mut FxHashMap<PeerId, TagKey>,
    peer: PeerId,
    make: impl FnOnce() -> Option<TagKey>,
) -> Option<&TagKey> {
    match keys.entry(peer) {
        Entry::Occupied(key) => Some(key.into_mut()),
        Entry::Vacant(place) => Some(place.insert(make()?)),
    }
}
