//! How two parties that know each other's static keys agree on the keys of a session, or of its next epoch.
//!
//! ```text
//! A -> B   init       versions, features, A's incarnation, A's ephemeral key
//! B -> A   response   B's choice, incarnation and ephemeral key     A installs the keys
//! A -> B   any frame under the new keys (CONFIRM, if nothing else)  B installs the keys
//! B -> A   any frame under the new keys                             A stops asking for it
//! ```
//! The key exchange is Noise KK (`noise.rs`), with all that `init` says in the clear and both identities in its
//! prologue: a changed version or feature makes it fail. The keys hang on two ephemeral secrets, which are
//! forgotten at once, so who steals the static ones later cannot compute them (forward secrecy), and on
//! two static ones, so who steals one side's cannot pose as others to anybody else.
//!
//! *Nonces.* What is sealed in a session is numbered by a counter that lives and dies with the key (`session.rs`),
//! and no key outlives the process: after a crash there are new ephemeral keys, hence new session keys. Were
//! one side's entropy to repeat itself, the other side's ephemeral key would still make the session keys new.
//!
//! *Recordings.* A responder takes an `init` only if its (incarnation, attempt) is beyond the last it took, answers the last
//! one again with the same bytes, and changes nothing about a live session until it hears a frame under
//! the new keys, which a recording cannot make. An `init` of a later incarnation does end the session with the former life:
//! that this life is over is true even if a recording says it.
//!
//! *Crossing.* If both begin at once, the smaller party's `init` counts; see `peer/handshake.rs`.

use crate::mac::Mac;
use crate::noise::{Initiator, Secrets};
use crate::seal::SealKey;
use crate::session::{Epoch, Repeat};
use crate::wire::handshake::Init;
use cl_base::{Incarnation, PeerId, Time};

/// The keys of one epoch of a session, one for each direction, and its name on the wire.
pub(crate) struct SessionKeys {
    pub(crate) id: u64,
    pub(crate) send: SealKey,
    pub(crate) receive: SealKey,
}

impl SessionKeys {
    /// From the session's secrets, which serve nothing else.
    pub(crate) fn new(id: u64, send: &[u8; 32], receive: &[u8; 32]) -> SessionKeys {
        SessionKeys { id, send: SealKey::new(send), receive: SealKey::new(receive) }
    }

    pub(crate) fn of_initiator(secrets: &Secrets) -> SessionKeys {
        SessionKeys::new(secrets.id, &secrets.forth, &secrets.back)
    }

    pub(crate) fn of_responder(secrets: &Secrets) -> SessionKeys {
        SessionKeys::new(secrets.id, &secrets.back, &secrets.forth)
    }
}

/// Our effort to agree on keys.
pub(crate) struct Attempt {
    pub(crate) until: Time,
    pub(crate) repeat: Repeat,
    /// To be sent now.
    pub(crate) due: bool,
    pub(crate) flight: Option<Flight>,
}

/// An `init` under way.
pub(crate) struct Flight {
    pub(crate) noise: Initiator,
    /// The frame, less the cookie's MAC.
    pub(crate) text: Vec<u8>,
    /// By which answers name it.
    pub(crate) mac: Mac,
    pub(crate) continues: u64,
    pub(crate) first_sent: Time,
    pub(crate) times_sent: u32,
}

/// What we have answered to an `init`.
pub(crate) struct Answer {
    /// The `init`'s.
    pub(crate) mac: Mac,
    pub(crate) incarnation: Incarnation,
    pub(crate) response: Vec<u8>,
    pub(crate) epoch: Box<Epoch>,
    pub(crate) continued: bool,
    /// How often the `init` has come, and was answered.
    pub(crate) times_asked: u32,
}

/// In the transcript of every handshake.
pub(crate) fn prologue(from: PeerId, to: PeerId, init: Init) -> Vec<u8> {
    let mut prologue = b"ghidrah mml 1".to_vec();
    prologue.extend_from_slice(&from.to_u64().to_le_bytes());
    prologue.extend_from_slice(&to.to_u64().to_le_bytes());
    prologue.extend_from_slice(&init.to_bytes());
    prologue
}

/// The highest version of both ranges.
pub(crate) fn common_version(ours: (u8, u8), theirs: (u8, u8)) -> Option<u8> {
    let (low, high) = (ours.0.max(theirs.0), ours.1.min(theirs.1));
    (low <= high).then_some(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise;
    use crate::pair::Pair;
    use crate::wire::handshake::ACCEPTED_BYTES;
    use cl_base::Principal;
    use std::sync::Arc;
    use x25519_dalek::{PublicKey, StaticSecret};
    use zeroize::Zeroizing;

    const PAYLOAD: [u8; ACCEPTED_BYTES] = [9; ACCEPTED_BYTES];

    fn pair(me: u8, peer: u8) -> Arc<Pair> {
        let secret = |i| StaticSecret::from([i; 32]);
        let public = PublicKey::from(&secret(peer)).to_bytes();
        let principal = |i| Principal(u32::from(i));
        Pair::agree(principal(me), &secret(me), principal(peer), public).unwrap().into()
    }

    fn entropy(i: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([i; 32])
    }

    #[test]
    fn both_sides_get_the_same_keys_and_others_with_every_ephemeral_key() {
        let run = |a, b| {
            let (initiator, message) = noise::initiate(&pair(1, 2), entropy(a), b"");
            let (at_b, answer) = noise::respond(&pair(2, 1), entropy(b), b"", &message, &PAYLOAD).unwrap();
            let (at_a, payload) = initiator.finish(&answer).unwrap();
            assert_eq!(payload, PAYLOAD);
            assert_eq!((at_a.id, &at_a.forth, &at_a.back), (at_b.id, &at_b.forth, &at_b.back));
            assert_ne!(at_a.forth, at_a.back);
            (at_a.id, at_a.forth.to_vec(), at_a.back.to_vec())
        };
        // One side's entropy repeats itself: the keys are new all the same.
        let (first, second, third) = (run(1, 2), run(1, 3), run(3, 2));
        for (a, b) in [(&first, &second), (&first, &third), (&second, &third)] {
            assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2);
        }
    }

    #[test]
    fn another_key_another_prologue_and_altered_messages_are_refused() {
        let (initiator, message) = noise::initiate(&pair(1, 2), entropy(7), b"prologue");
        let respond =
            |pair, prologue, message: &[u8]| noise::respond(&pair, entropy(8), prologue, message, &PAYLOAD);
        assert!(respond(pair(2, 3), b"prologue", &message).is_none(), "from another than expected");
        assert!(respond(pair(3, 1), b"prologue", &message).is_none(), "for another than expected");
        assert!(respond(pair(2, 1), b"Prologue", &message).is_none());
        for byte in 0..message.len() {
            let mut wrong = message;
            wrong[byte] ^= 1;
            assert!(respond(pair(2, 1), b"prologue", &wrong).is_none(), "byte {byte}");
        }
        assert!(respond(pair(2, 1), b"prologue", &[0; 48]).is_none(), "a key of small order");
        let (_, answer) = respond(pair(2, 1), b"prologue", &message).unwrap();
        let mut wrong = answer;
        wrong[40] ^= 1;
        assert!(initiator.finish(&wrong).is_none());
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(common_version((1, 2), (2, 3)), Some(2));
        assert_eq!(common_version((2, 3), (1, 2)), Some(2));
        assert_eq!(common_version((1, 5), (2, 4)), Some(4));
        assert_eq!(common_version((1, 2), (3, 4)), None);
        assert_eq!(common_version((3, 2), (1, 9)), None, "nonsense");
    }
}
