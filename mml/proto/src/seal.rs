//! Sealing session frames: AES-256-GCM.
//!
//! Chosen by measurement (docs/PERFORMANCE.md, "Primitives"): per KiB it costs a fifth of keyed BLAKE3 and a third
//! of AES-GCM used for authentication alone, for `ring` encrypts and authenticates 16 blocks at a time and
//! hashes what is only authenticated one by one. That frames cannot be read by others comes for nothing, and
//! nothing relies on it.
//!
//! It must never see one nonce twice under one key. The nonce is the frame's number; a session's key is fresh for
//! every session and direction, and its numbers only grow. Where that cannot be guaranteed (tags under the
//! static keys) keyed BLAKE3 is used instead ([`crate::mac`]).

use crate::mac::MAC_BYTES;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The key of one direction of one session.
pub(crate) struct SealKey(LessSafeKey);

impl SealKey {
    /// From a secret that serves nothing else.
    pub(crate) fn new(secret: &[u8; 32]) -> SealKey {
        let secret = Zeroizing::new(blake3::derive_key("ghidrah mml 1 session", secret));
        SealKey(sealing(&secret))
    }

    /// Encrypts `text` where it lies, and returns the tag over it and `head`. `number` is used once.
    #[must_use]
    pub(crate) fn seal(&self, number: u64, head: &[u8], text: &mut [u8]) -> [u8; MAC_BYTES] {
        let sealed = self.0.seal_in_place_separate_tag(nonce(number), Aad::from(head), text);
        let tag = sealed.expect("a frame is far shorter than 64 GiB");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts text and tag where they lie, if both and `head` are what [`SealKey::seal`] has made of them; else
    /// their bytes are lost. Compares in constant time.
    pub(crate) fn open<'a>(&self, number: u64, head: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let text = self.0.open_in_place(nonce(number), Aad::from(head), sealed).ok()?;
        Some(text)
    }
}

impl Drop for SealKey {
    /// `ring` does not erase what it made of the key: it is overwritten by what is made of a key of zeroes.
    fn drop(&mut self) {
        self.0 = sealing(&[0; 32]);
        std::hint::black_box(&self.0);
    }
}

fn sealing(secret: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).expect("the key has the right length"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &SealKey, number: u64, head: &[u8], text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        let tag = key.seal(number, head, &mut bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn what_was_sealed_opens_under_the_same_key_number_and_head_only() {
        let key = SealKey::new(&[1; 32]);
        for len in [0, 1, 15, 16, 17, 64, 255, 256, 1400, 70_000] {
            let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let good = sealed(&key, 7, b"head", &text);
            assert_eq!(key.open(7, b"head", &mut good.clone()), Some(&text[..]));
            assert_eq!(key.open(8, b"head", &mut good.clone()), None);
            assert_eq!(key.open(7, b"Head", &mut good.clone()), None);
            assert_eq!(SealKey::new(&[2; 32]).open(7, b"head", &mut good.clone()), None);
            assert_eq!(key.open(7, b"head", &mut good[1..].to_vec()), None);
        }
        assert_eq!(key.open(7, b"head", &mut [0; 15]), None);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let key = SealKey::new(&[1; 32]);
        let good = sealed(&key, 1, b"head", b"a message");
        for bit in 0..good.len() * 8 {
            let mut wrong = good.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(1, b"head", &mut wrong), None);
        }
    }
}
