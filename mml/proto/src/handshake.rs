//! How two parties that share a static key agree on fresh session keys.
//!
//! ```text
//! A -> B   HELLO      A's incarnation and nonce
//! B -> A   HELLO_ACK  B's incarnation and nonce, and A's        A installs the session
//! A -> B   CONFIRM    A's incarnation and nonce, and B's        B installs the session
//! B -> A   any frame of the session                             A stops repeating CONFIRM
//! ```
//! Every frame is authenticated under the static key. A side installs a session only when the other has
//! echoed the side's own present nonce, which is drawn at random and used for one session: so a recorded
//! frame can neither replace a live session nor create one. B keeps nothing about A's nonce between
//! HELLO and CONFIRM, so a replayed HELLO cannot disturb a genuine handshake either. Both sides may begin at
//! once: the keys depend on the two (incarnation, nonce) pairs and not on who began, so both arrive at the
//! same session.
//!
//! Forward secrecy is not provided yet: who learns the static key can compute recorded sessions' keys
//! (which authenticate and do not encrypt). It belongs into this module: ephemeral public keys beside the
//! nonces, and their shared secret into [`SessionKeys::derive`].

use crate::mac::MacKey;
use cl_base::{Incarnation, PeerId};

pub(crate) type Nonce = [u8; 16];

/// What one side contributes to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hello {
    pub(crate) incarnation: Incarnation,
    pub(crate) nonce: Nonce,
}

/// What is derived from the static key of a pair, once.
pub(crate) struct StaticKeys {
    pair_key: [u8; 32],
    /// Authenticates handshake frames.
    pub(crate) handshake: MacKey,
}

impl StaticKeys {
    pub(crate) fn new(pair_key: [u8; 32]) -> StaticKeys {
        StaticKeys { pair_key, handshake: MacKey::derive("ghidrah mml 1 handshake", &pair_key) }
    }
}

/// The keys of one session, one for each direction, and its name on the wire.
pub(crate) struct SessionKeys {
    pub(crate) id: u64,
    pub(crate) send: MacKey,
    pub(crate) receive: MacKey,
}

impl SessionKeys {
    pub(crate) fn derive(
        keys: &StaticKeys,
        me: PeerId,
        mine: Hello,
        peer: PeerId,
        theirs: Hello,
    ) -> SessionKeys {
        assert!(me != peer, "a session with oneself");
        let mut sides = [(me, mine), (peer, theirs)];
        sides.sort();
        let mut hasher = blake3::Hasher::new_derive_key("ghidrah mml 1 session");
        hasher.update(&keys.pair_key);
        for (id, hello) in sides {
            hasher.update(&id.to_u64().to_le_bytes());
            hasher.update(&hello.incarnation.0.to_le_bytes());
            hasher.update(&hello.nonce);
        }
        let mut output = hasher.finalize_xof();
        let (mut up, mut down, mut id) = ([0; 32], [0; 32], [0; 8]);
        output.fill(&mut up);
        output.fill(&mut down);
        output.fill(&mut id);
        let (send, receive) = if me < peer { (up, down) } else { (down, up) };
        SessionKeys { id: u64::from_le_bytes(id), send: MacKey(send), receive: MacKey(receive) }
    }
}

/// Nonces from a secret seed: unpredictable if the seed is, repeatable in a simulation.
pub(crate) struct NonceSource {
    seed: [u8; 32],
    drawn: u64,
}

impl NonceSource {
    pub(crate) fn new(seed: [u8; 32]) -> NonceSource {
        NonceSource { seed: blake3::derive_key("ghidrah mml 1 nonces", &seed), drawn: 0 }
    }

    pub(crate) fn draw(&mut self) -> Nonce {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes());
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_the_same_session_and_any_difference_another() {
        let keys = StaticKeys::new([7; 32]);
        let (a, b) = (PeerId::new(1, 0), PeerId::new(2, 5));
        let hello = |i, n| Hello { incarnation: Incarnation(i), nonce: [n; 16] };
        let at_a = SessionKeys::derive(&keys, a, hello(10, 1), b, hello(20, 2));
        let at_b = SessionKeys::derive(&keys, b, hello(20, 2), a, hello(10, 1));
        assert_eq!(at_a.id, at_b.id);
        assert_eq!(at_a.send.0, at_b.receive.0);
        assert_eq!(at_a.receive.0, at_b.send.0);
        assert_ne!(at_a.send.0, at_a.receive.0);
        for other in [
            SessionKeys::derive(&keys, a, hello(11, 1), b, hello(20, 2)),
            SessionKeys::derive(&keys, a, hello(10, 1), b, hello(20, 3)),
            SessionKeys::derive(&keys, a, hello(20, 2), b, hello(10, 1)),
            SessionKeys::derive(&keys, a, hello(10, 1), PeerId::new(2, 6), hello(20, 2)),
            SessionKeys::derive(&StaticKeys::new([8; 32]), a, hello(10, 1), b, hello(20, 2)),
        ] {
            assert_ne!(at_a.send.0, other.send.0);
            assert_ne!(at_a.id, other.id);
        }
    }

    #[test]
    fn nonces_differ() {
        let mut source = NonceSource::new([0; 32]);
        assert_ne!(source.draw(), source.draw());
        assert_ne!(NonceSource::new([1; 32]).draw(), NonceSource::new([2; 32]).draw());
    }
}
