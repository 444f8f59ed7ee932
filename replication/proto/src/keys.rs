//! Digests, signatures and what is signed.

use crate::config::{Config, MemberId};
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::PeerId;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::OnceLock;

/// A signature over a 32-byte digest; Ed25519 in production.
pub type Signature = [u8; 64];

/// A message authentication code over a 32-byte digest.
pub type Mac = [u8; 16];

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..4] {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// The keys of one party: its own to sign with, everybody's to verify.
///
/// All members must judge every signature alike, edge cases included (PROTOCOL.md 2.2).
pub trait Keys: Send {
    /// Signs `bytes` with the own key.
    fn sign(&self, bytes: &[u8]) -> Signature;
    /// Whether `signature` over `bytes` is by `member`, a party of the roster.
    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &Signature) -> bool;
    /// Whether `signature` over `bytes` is by the client `client`; false for a party that may not be one.
    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &Signature) -> bool;
    /// MACs over `bytes`, one for each of `members` in their order, under the key that this client shares with it.
    /// `None`: it shares none, and signs instead. Only used with
    /// [`ClientAuthentication::Macs`](crate::ClientAuthentication::Macs).
    fn macs(&self, _members: &[PeerId], _bytes: &[u8]) -> Option<Vec<Mac>> {
        None
    }
    /// Whether `mac` over `bytes` is by `client` for this member.
    fn verify_mac(&self, _client: PeerId, _bytes: &[u8], _mac: &Mac) -> bool {
        false
    }
}

/// What a digest or signature is for; equal bytes under different domains never stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Request,
    Batch,
    PrePrepare,
    Prepare,
    Checkpoint,
    ViewChange,
    NewView,
    Tag,
    History,
    Result,
    Page,
    Node,
    State,
}

impl Domain {
    const COUNT: usize = Domain::State as usize + 1;

    fn context(self) -> &'static str {
        match self {
            Domain::Request => "ghidrah replication 1 request",
            Domain::Batch => "ghidrah replication 1 batch",
            Domain::PrePrepare => "ghidrah replication 1 pre-prepare",
            Domain::Prepare => "ghidrah replication 1 prepare",
            Domain::Checkpoint => "ghidrah replication 1 checkpoint",
            Domain::ViewChange => "ghidrah replication 1 view-change",
            Domain::NewView => "ghidrah replication 1 new-view",
            Domain::Tag => "ghidrah replication 1 new-view tag",
            Domain::History => "ghidrah replication 1 history",
            Domain::Result => "ghidrah replication 1 result",
            Domain::Page => "ghidrah replication 1 state page",
            Domain::Node => "ghidrah replication 1 state node",
            Domain::State => "ghidrah replication 1 state",
        }
    }
}

/// The key that BLAKE3 derives from each context, computed once: as much work as hashing a short message.
static CONTEXT_KEYS: [OnceLock<ContextKey>; Domain::COUNT] = [const { OnceLock::new() }; Domain::COUNT];

/// Digest of raw bytes in a domain.
pub(crate) fn hash(domain: Domain, bytes: &[u8]) -> Digest {
    let mut hasher = hasher(domain);
    hasher.update(bytes);
    Digest(*hasher.finalize().as_bytes())
}

fn hasher(domain: Domain) -> blake3::Hasher {
    let key = CONTEXT_KEYS[domain as usize].get_or_init(|| hash_derive_key_context(domain.context()));
    blake3::Hasher::new_from_context_key(key)
}

/// Digest of a value's canonical encoding in a domain.
pub(crate) fn digest_of<T: BorshSerialize + ?Sized>(domain: Domain, value: &T) -> Digest {
    let mut hasher = hasher(domain);
    borsh::to_writer(&mut hasher, value).expect("a hash takes everything");
    Digest(*hasher.finalize().as_bytes())
}

/// What a member signs: the domain, the group, the epoch, the signer and the statement.
pub(crate) fn statement<T: BorshSerialize>(
    domain: Domain,
    config: &Config,
    signer: MemberId,
    value: &T,
) -> Digest {
    digest_of(domain, &(config.group, config.epoch, signer, value))
}

/// Signs and verifies, each signature once: a signature costs tens of microseconds, and the same one comes
/// again by relays, retransmissions, certificates and view changes.
pub(crate) struct Authority {
    keys: Box<dyn Keys>,
    verified: BTreeSet<Digest>,
    order: VecDeque<Digest>,
    /// Signatures really computed, for metrics.
    pub(crate) verifications: u64,
}

/// Signatures remembered as good. A window of 256 batches with three signatures each, and a batch of
/// requests for each slot of the pipeline, fit several times.
pub(crate) const VERIFIED_MAX: usize = 16 * 1024;

impl Authority {
    pub(crate) fn new(keys: Box<dyn Keys>) -> Authority {
        Authority { keys, verified: BTreeSet::new(), order: VecDeque::new(), verifications: 0 }
    }

    pub(crate) fn sign(&mut self, digest: Digest) -> Signature {
        let signature = self.keys.sign(&digest.0);
        self.remember(Self::key(digest, &signature));
        signature
    }

    pub(crate) fn member_signed(&mut self, m: PeerId, digest: Digest, signature: &Signature) -> bool {
        let key = Self::key(digest, signature);
        if self.verified.contains(&key) {
            return true;
        }
        self.verifications += 1;
        let good = self.keys.verify_member(m, &digest.0, signature);
        if good {
            self.remember(key);
        }
        good
    }

    pub(crate) fn client_signed(&mut self, client: PeerId, digest: Digest, signature: &Signature) -> bool {
        let key = Self::key(digest, signature);
        if self.verified.contains(&key) {
            return true;
        }
        self.verifications += 1;
        let good = self.keys.verify_client(client, &digest.0, signature);
        if good {
            self.remember(key);
        }
        good
    }

    /// Signatures remembered as good.
    pub(crate) fn remembered(&self) -> usize {
        self.verified.len()
    }

    pub(crate) fn mac_good(&self, client: PeerId, digest: Digest, mac: &Mac) -> bool {
        self.keys.verify_mac(client, &digest.0, mac)
    }

    /// The signer is part of every signed digest, with the epoch, so digest and signature name the fact completely.
    fn key(digest: Digest, signature: &Signature) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest.0).update(signature);
        Digest(*hasher.finalize().as_bytes())
    }

    fn remember(&mut self, key: Digest) {
        if self.verified.insert(key) {
            self.order.push_back(key);
            if self.order.len() > VERIFIED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.verified.remove(&oldest);
            }
        }
    }
}
