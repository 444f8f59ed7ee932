//! Signatures for tests: a keyed hash, so that nobody signs for another by chance.

use cl_base::{PeerId, Rng};
use cmm_core::bootstrap::{Keys, Signature};

/// The keys of one agent, or of an observer that never signs.
#[derive(Clone, Copy)]
pub(crate) struct TestKeys(pub(crate) PeerId);

fn tag(who: PeerId, bytes: &[u8]) -> Signature {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&who.to_u64().to_le_bytes());
    let mut signature = [0; 64];
    blake3::Hasher::new_keyed(&key).update(bytes).finalize_xof().fill(&mut signature);
    signature
}

impl Keys for TestKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        tag(self.0, bytes)
    }

    fn verify(&self, who: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        tag(who, bytes) == *signature
    }
}

/// The agent at `position`; higher positions have lower numbers, so that confusing the two shows.
pub(crate) fn agent(position: usize) -> PeerId {
    PeerId::new(900 - position as u32, 0)
}

/// Random bytes, or what resembles a message.
pub(crate) fn garbage(rng: &mut Rng, seen: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match rng.pick(seen) {
        Some(seen) if rng.chance(3, 4) => seen.clone(),
        _ => (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect(),
    };
    if !bytes.is_empty() {
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        if rng.chance(1, 4) {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
        }
    }
    bytes
}
