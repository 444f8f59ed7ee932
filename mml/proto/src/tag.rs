//! Tags: codes that travel through third parties.

use crate::mac::{Mac, MacKey};
use cl_base::PeerId;

/// Bytes before the text: who says it to whom.
const PARTIES_BYTES: usize = 16;
/// One block of BLAKE3; parties and text up to this length cost one compression.
const BLOCK_BYTES: usize = 64;

/// The key of one direction between two parties for one purpose. Who checks many tags of the same party keeps it:
/// a tag over up to 48 bytes then costs one compression of BLAKE3. Overwritten when it is dropped.
#[derive(Clone)]
pub struct TagKey {
    key: MacKey,
    from: PeerId,
    to: PeerId,
}

impl TagKey {
    /// What `from` says to `to` in `domain`, from the key of the pair.
    pub(crate) fn new(pair_key: &[u8; 32], domain: &str, from: PeerId, to: PeerId) -> TagKey {
        let tags = MacKey::derive("ghidrah mml 1 tag", pair_key);
        TagKey { key: MacKey(*blake3::keyed_hash(&tags.0, domain.as_bytes()).as_bytes()), from, to }
    }

    /// The tag over `bytes`.
    #[inline]
    pub fn tag(&self, bytes: &[u8]) -> Mac {
        let len = PARTIES_BYTES + bytes.len();
        if len > BLOCK_BYTES {
            return self.key.mac(self.from, self.to, &[bytes]);
        }
        let mut text = [0; BLOCK_BYTES];
        text[..8].copy_from_slice(&self.from.to_u64().to_le_bytes());
        text[8..PARTIES_BYTES].copy_from_slice(&self.to.to_u64().to_le_bytes());
        text[PARTIES_BYTES..len].copy_from_slice(bytes);
        *blake3::keyed_hash(&self.key.0, &text[..len]).as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// Whether `tag` is that of `bytes`; compares in constant time.
    #[must_use]
    #[inline]
    pub fn verify(&self, bytes: &[u8], tag: &Mac) -> bool {
        crate::mac::equal(&self.tag(bytes), tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_are_tagged_alike() {
        let (a, b) = (PeerId::new(1, 0), PeerId::new(2, 7));
        let key = TagKey::new(&[1; 32], "test", a, b);
        for len in 0..100 {
            let text = vec![3; len];
            let tag = key.tag(&text);
            assert_eq!(tag, key.key.mac(a, b, &[&text]), "{len} bytes");
            assert!(key.verify(&text, &tag));
            assert!(!TagKey::new(&[1; 32], "other", a, b).verify(&text, &tag));
            assert!(!TagKey::new(&[1; 32], "test", b, a).verify(&text, &tag));
        }
    }
}
