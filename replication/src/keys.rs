//! Signatures and MACs of members and clients, under the keys of an [`mml`] roster.

use cl_base::PeerId;
use mml::{Keyring, PairKeys, Roster};
use replication_proto::{Keys, Mac, Signature};
use std::sync::Arc;

/// Separates what is signed here from what the same keys sign elsewhere.
const DOMAIN: &str = "ghidrah replication signature v1";
/// The same for MACs.
const MAC_CONTEXT: &str = "ghidrah replication request mac v1";

/// The keys of one party of a group.
pub(crate) struct GroupKeys {
    pub(crate) me: PeerId,
    pub(crate) keyring: Keyring,
    pub(crate) roster: Arc<Roster>,
}

impl GroupKeys {
    /// Under a present key or one it had before: what was signed once is in logs, and is shown again and again.
    fn verify(&self, who: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        self.roster.signing_keys(who.principal).any(|key| mml::keys::verify(key, DOMAIN, bytes, signature))
    }

    /// Of `client` for `member`; one of both is this party. `None` if they share no key.
    fn mac(&self, client: PeerId, member: PeerId, bytes: &[u8]) -> Option<Mac> {
        let other = if self.me == client { member } else { client };
        let pair = self.keyring.pair(self.me, other)?;
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(MAC_CONTEXT, pair.key()));
        hasher.update(&client.to_u64().to_le_bytes()).update(&member.to_u64().to_le_bytes()).update(bytes);
        hasher.finalize().as_bytes().first_chunk().copied()
    }
}

impl Keys for GroupKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        self.keyring.secret().sign(DOMAIN, bytes)
    }

    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        self.verify(member, bytes, signature)
    }

    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        self.verify(client, bytes, signature)
    }

    fn macs(&self, members: &[PeerId], bytes: &[u8]) -> Option<Vec<Mac>> {
        members.iter().map(|member| self.mac(self.me, *member, bytes)).collect()
    }

    fn verify_mac(&self, client: PeerId, bytes: &[u8], mac: &Mac) -> bool {
        // Told apart by all bits at once: who guesses learns nothing from how long it takes.
        self.mac(client, self.me, bytes).is_some_and(|good| blake3::hash(&good) == blake3::hash(mac))
    }
}
