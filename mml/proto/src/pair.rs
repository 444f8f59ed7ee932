//! What two parties have in common before they speak to each other: their pinned keys.

use crate::mac::MacKey;
use cl_base::{PeerId, Principal};
use std::fmt;
use std::sync::Arc;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The static keys between this party and each other, from wherever they come.
pub trait PairKeys: Send {
    /// Those between `me` and `peer`, or `None` if `peer` is not known. Called often; implementations keep them.
    fn pair(&self, me: PeerId, peer: PeerId) -> Option<Arc<Pair>>;
}

impl<F: Fn(PeerId, PeerId) -> Option<Arc<Pair>> + Send> PairKeys for F {
    fn pair(&self, me: PeerId, peer: PeerId) -> Option<Arc<Pair>> {
        self(me, peer)
    }
}

/// The static keys of a pair of principals, seen from one of them. Forgotten keys are overwritten.
pub struct Pair {
    secret: StaticSecret,
    public: PublicKey,
    theirs: PublicKey,
    shared: Zeroizing<[u8; 32]>,
    /// From the shared secret, both principals and both public keys.
    key: Zeroizing<[u8; 32]>,
    /// Authenticates what is said outside of sessions.
    pub(crate) notices: MacKey,
}

impl Pair {
    /// The keys between `me`, who holds `secret`, and `peer`, whose pinned key is `public`: one X25519
    /// agreement. `None` for the few public keys with which everybody would share the secret.
    pub fn agree(me: Principal, secret: &StaticSecret, peer: Principal, public: [u8; 32]) -> Option<Pair> {
        let theirs = PublicKey::from(public);
        let shared = secret.diffie_hellman(&theirs);
        if !shared.was_contributory() {
            return None;
        }
        let public = PublicKey::from(secret);
        let mut sides = [(me, public.to_bytes()), (peer, theirs.to_bytes())];
        sides.sort();
        let mut hasher = blake3::Hasher::new_derive_key("ghidrah mml 1 pair");
        hasher.update(shared.as_bytes());
        for (principal, key) in sides {
            hasher.update(&principal.0.to_le_bytes());
            hasher.update(&key);
        }
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        Some(Pair {
            secret: secret.clone(),
            public,
            theirs,
            shared: Zeroizing::new(shared.to_bytes()),
            notices: MacKey::derive("ghidrah mml 1 handshake", &key),
            key,
        })
    }

    /// A secret that only these two have, for keys to be derived from.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn theirs(&self) -> &PublicKey {
        &self.theirs
    }

    pub(crate) fn shared(&self) -> &[u8; 32] {
        &self.shared
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_mutual_and_refuses_keys_that_give_it_away() {
        let secret = |i| StaticSecret::from([i; 32]);
        let public = |i| PublicKey::from(&secret(i)).to_bytes();
        let key = |me: u8, peer: u8| {
            let (a, b) = (Principal(u32::from(me)), Principal(u32::from(peer)));
            *Pair::agree(a, &secret(me), b, public(peer)).unwrap().key()
        };
        assert_eq!(key(1, 2), key(2, 1));
        assert_ne!(key(1, 2), key(1, 3));
        assert!(Pair::agree(Principal(1), &secret(1), Principal(2), [0; 32]).is_none());
        let pair = Pair::agree(Principal(1), &secret(1), Principal(2), public(2)).unwrap();
        assert_eq!(format!("{pair:?}"), "Pair(secret)");
    }
}
