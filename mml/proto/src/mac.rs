//! Authentication codes: keyed BLAKE3, cut to 16 bytes.

use cl_base::PeerId;
use zeroize::ZeroizeOnDrop;

pub(crate) const MAC_BYTES: usize = 16;
pub(crate) type Mac = [u8; MAC_BYTES];

/// One key, for one purpose; between two parties, one direction is told from the other by the identities.
/// Overwritten when it is dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct MacKey(pub(crate) [u8; 32]);

impl MacKey {
    /// A key for `context` from a pair key; contexts are unique constants of this crate.
    pub(crate) fn derive(context: &'static str, pair_key: &[u8; 32]) -> MacKey {
        MacKey(blake3::derive_key(context, pair_key))
    }

    pub(crate) fn mac(&self, from: PeerId, to: PeerId, parts: &[&[u8]]) -> Mac {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&from.to_u64().to_le_bytes());
        hasher.update(&to.to_u64().to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        let mut mac = [0; MAC_BYTES];
        hasher.finalize_xof().fill(&mut mac);
        mac
    }

    #[must_use]
    pub(crate) fn verify(&self, from: PeerId, to: PeerId, parts: &[&[u8]], mac: &[u8]) -> bool {
        match Mac::try_from(mac) {
            Ok(mac) => equal(&self.mac(from, to, parts), &mac),
            Err(_) => false,
        }
    }
}

/// Compares in constant time, which `blake3::Hash` promises.
#[inline]
pub(crate) fn equal(a: &Mac, b: &Mac) -> bool {
    let widen = |mac: &Mac| {
        let mut wide = [0; 32];
        wide[..MAC_BYTES].copy_from_slice(mac);
        blake3::Hash::from_bytes(wide)
    };
    widen(a) == widen(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_holds_for_one_key_direction_and_text_only() {
        let (a, b) = (PeerId::new(1, 0), PeerId::new(2, 0));
        let key = MacKey::derive("test", &[1; 32]);
        let mac = key.mac(a, b, &[b"he", b"llo"]);
        assert!(key.verify(a, b, &[b"hello"], &mac));
        assert!(!key.verify(b, a, &[b"hello"], &mac));
        assert!(!key.verify(a, b, &[b"hellp"], &mac));
        assert!(!key.verify(a, b, &[b"hello"], &mac[..15]));
        assert!(!MacKey::derive("other", &[1; 32]).verify(a, b, &[b"hello"], &mac));
        for bit in 0..128 {
            let mut wrong = mac;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(a, b, &[b"hello"], &wrong));
        }
    }
}
