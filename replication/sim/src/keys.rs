//! Signatures for simulations: fast, and unforgeable as long as nobody asks for another party's.

use cl_base::PeerId;
use replication_proto::{Keys, Mac, Signature};

/// The keys of `me`. A signature is a keyed hash under a secret that only follows from seed and party.
pub struct SimKeys {
    seed: u64,
    me: PeerId,
}

impl SimKeys {
    /// The keys of `me` in the world `seed`.
    pub fn new(seed: u64, me: PeerId) -> SimKeys {
        SimKeys { seed, me }
    }

    fn signature(&self, party: PeerId, bytes: &[u8]) -> Signature {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&party.to_u64().to_le_bytes());
        let mut signature = [0; 64];
        blake3::Hasher::new_keyed(&key).update(bytes).finalize_xof().fill(&mut signature);
        signature
    }

    fn mac(&self, client: PeerId, member: PeerId, bytes: &[u8]) -> Mac {
        let pair = [&member.to_u64().to_le_bytes()[..], bytes].concat();
        *self.signature(client, &pair).first_chunk().expect("a signature is longer")
    }
}

impl Keys for SimKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        self.signature(self.me, bytes)
    }

    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        self.signature(member, bytes) == *signature
    }

    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        self.signature(client, bytes) == *signature
    }

    fn macs(&self, members: &[PeerId], bytes: &[u8]) -> Option<Vec<Mac>> {
        Some(members.iter().map(|member| self.mac(self.me, *member, bytes)).collect())
    }

    fn verify_mac(&self, client: PeerId, bytes: &[u8], mac: &Mac) -> bool {
        self.mac(client, self.me, bytes) == *mac
    }
}
