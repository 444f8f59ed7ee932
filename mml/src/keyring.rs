use crate::keys::{PublicKey, SecretKey};
use crate::roster::Roster;
use cl_base::{PeerId, Principal};
use mml_proto::{Pair, PairKeys};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The static keys between one principal and every other of a roster, each computed when first needed.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

struct Ring {
    me: Principal,
    secret: SecretKey,
    others: BTreeMap<Principal, Other>,
}

struct Other {
    public: PublicKey,
    /// `None` inside for a public key with which no secret can be shared.
    pair: OnceLock<Option<Arc<Pair>>>,
}

/// Why secret and roster do not fit.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The roster does not know the principal.
    #[error("principal {:#x} is not in the roster; add it, or choose another principal", .0.0)]
    Absent(Principal),
    /// The roster has another key for the principal.
    #[error(
        "the roster has another key for {name}; distribute a roster with key {key}, or use the key file that fits"
    )]
    OtherKey {
        /// Its name in the roster.
        name: String,
        /// The public key that the secret belongs to.
        key: PublicKey,
    },
    /// The key is no longer believed.
    #[error(
        "the key of {name} is revoked; make a new one with `ghidrah keys rotate {name}`, or use the key file that replaced it"
    )]
    Revoked {
        /// Its name in the roster.
        name: String,
    },
}

impl Keyring {
    /// The keys of `me`, whose secret is `secret`.
    ///
    /// # Errors
    /// [`KeyringError`] if the roster has no such principal, or another key for it, or the key is revoked.
    pub fn new(me: Principal, secret: SecretKey, roster: &Roster) -> Result<Keyring, KeyringError> {
        let member = roster.get(me).ok_or(KeyringError::Absent(me))?;
        let key = secret.public();
        if roster.is_revoked(&key) {
            return Err(KeyringError::Revoked { name: member.name.clone() });
        }
        if member.key != key {
            return Err(KeyringError::OtherKey { name: member.name.clone(), key });
        }
        let others = roster.iter().filter(|m| !roster.is_revoked(&m.key));
        let others = others.map(|m| (m.principal, Other { public: m.key, pair: OnceLock::new() })).collect();
        Ok(Keyring(Arc::new(Ring { me, secret, others })))
    }

    /// Whose keys these are.
    pub fn principal(&self) -> Principal {
        self.0.me
    }

    /// The secret of this principal.
    pub fn secret(&self) -> &SecretKey {
        &self.0.secret
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring of {:?}", self.0.me)
    }
}

impl PairKeys for Keyring {
    fn pair(&self, me: PeerId, peer: PeerId) -> Option<Arc<Pair>> {
        let ring = &*self.0;
        assert!(me.principal == ring.me, "a keyring serves one principal");
        let other = ring.others.get(&peer.principal)?;
        let agree = || {
            let secret = ring.secret.agreement();
            Pair::agree(ring.me, secret, peer.principal, other.public.x25519).map(Arc::new)
        };
        other.pair.get_or_init(agree).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Member;

    fn member(number: u32, key: PublicKey) -> Member {
        Member {
            principal: Principal(number),
            name: format!("p{number}"),
            role: "test".into(),
            key,
            address: None,
        }
    }

    #[test]
    fn pairs_agree_and_strangers_have_no_key() {
        let secrets: Vec<SecretKey> = (0..3).map(|i| SecretKey::from_seed([i; 32])).collect();
        let members = secrets.iter().zip(0..).map(|(s, i)| member(i, s.public())).collect();
        let roster = Roster::from_members(members, "test").unwrap();
        let rings: Vec<Keyring> = (0..3)
            .map(|i| Keyring::new(Principal(i), secrets[i as usize].clone(), &roster).unwrap())
            .collect();
        let key = |a: u32, b: u32| {
            rings[a as usize].pair(PeerId::new(a, 0), PeerId::new(b, 7)).map(|pair| *pair.key())
        };
        assert_eq!(key(0, 1), key(1, 0));
        assert_ne!(key(0, 1), key(0, 2));
        assert_ne!(key(0, 1), key(1, 2));
        assert_eq!(key(0, 9), None);
    }

    #[test]
    fn a_secret_that_does_not_fit_the_roster_is_refused() {
        let roster =
            Roster::from_members(vec![member(1, SecretKey::from_seed([1; 32]).public())], "test").unwrap();
        let ring = |number, seed| Keyring::new(Principal(number), SecretKey::from_seed([seed; 32]), &roster);
        assert!(ring(1, 1).is_ok());
        assert!(matches!(ring(1, 2), Err(KeyringError::OtherKey { .. })));
        assert!(matches!(ring(2, 2), Err(KeyringError::Absent(_))));
    }

    #[test]
    fn revoked_keys_are_nobodys() {
        let secrets: Vec<SecretKey> = (0..3).map(|i| SecretKey::from_seed([i; 32])).collect();
        let members = secrets.iter().zip(0..).map(|(s, i)| member(i, s.public())).collect();
        let mut roster = Roster::from_members(members, "test").unwrap();
        roster.revoke("p1").unwrap();
        let ring = |i: u32| Keyring::new(Principal(i), secrets[i as usize].clone(), &roster);
        let pair = |peer| ring(0).unwrap().pair(PeerId::new(0, 0), peer);
        assert!(pair(PeerId::new(2, 0)).is_some() && pair(PeerId::new(1, 0)).is_none());
        let refusal = ring(1).unwrap_err().to_string();
        assert!(refusal.contains("revoked") && refusal.contains("ghidrah keys rotate p1"), "{refusal}");
    }
}
