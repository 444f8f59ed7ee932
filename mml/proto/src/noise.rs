//! The key exchange: `Noise_KK_25519_ChaChaPoly_BLAKE2s` (The Noise Protocol Framework, revision 34, 7.5) by the
//! crate `snow`. Both static keys are known beforehand, from the roster; each side adds an ephemeral one.
//!
//! What is our own here is where randomness comes from (the caller, so that a simulation can be repeated) and the
//! Diffie-Hellman objects: these overwrite their secrets, and the agreement of the two static keys, which is the
//! same every time, is not computed again.

use crate::pair::Pair;
use crate::wire::handshake::{ACCEPTED_BYTES, NOISE_INIT_BYTES, NOISE_RESPONSE_BYTES};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use std::sync::Arc;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_BLAKE2s";

/// What both sides have at the end, and nobody else.
pub(crate) struct Secrets {
    /// Begins the hash of all that was said: a name for the session.
    pub(crate) id: u64,
    /// For what the initiator sends.
    pub(crate) forth: Zeroizing<[u8; 32]>,
    /// For what the responder sends.
    pub(crate) back: Zeroizing<[u8; 32]>,
}

impl Secrets {
    fn of(mut state: HandshakeState) -> Secrets {
        assert!(state.is_handshake_finished(), "two messages make a handshake");
        let id = u64::from_le_bytes(*state.get_handshake_hash().first_chunk().expect("a hash has 32 bytes"));
        let (forth, back) = state.dangerously_get_raw_split();
        Secrets { id, forth: Zeroizing::new(forth), back: Zeroizing::new(back) }
    }
}

/// Waits for the second message.
pub(crate) struct Initiator(Box<HandshakeState>);

/// Begins; `entropy` is used for nothing else.
pub(crate) fn initiate(
    pair: &Arc<Pair>,
    entropy: Zeroizing<[u8; 32]>,
    prologue: &[u8],
) -> (Initiator, [u8; NOISE_INIT_BYTES]) {
    let mut state = build(pair, entropy, prologue, true);
    let mut message = [0; NOISE_INIT_BYTES];
    let len = state.write_message(&[], &mut message).expect("the peer's static key was agreed with before");
    assert_eq!(len, message.len());
    (Initiator(Box::new(state)), message)
}

impl Initiator {
    /// Ends it with the responder's message; `None` if that is not from the responder.
    pub(crate) fn finish(mut self, message: &[u8]) -> Option<(Secrets, [u8; ACCEPTED_BYTES])> {
        let mut payload = [0; ACCEPTED_BYTES];
        let len = self.0.read_message(message, &mut payload).ok()?;
        (len == payload.len()).then(|| (Secrets::of(*self.0), payload))
    }
}

/// Answers the initiator's message; `None` if it is not from the initiator.
pub(crate) fn respond(
    pair: &Arc<Pair>,
    entropy: Zeroizing<[u8; 32]>,
    prologue: &[u8],
    message: &[u8],
    payload: &[u8; ACCEPTED_BYTES],
) -> Option<(Secrets, [u8; NOISE_RESPONSE_BYTES])> {
    let mut state = build(pair, entropy, prologue, false);
    state.read_message(message, &mut []).ok()?;
    let mut answer = [0; NOISE_RESPONSE_BYTES];
    let len = state.write_message(payload, &mut answer).ok()?;
    assert_eq!(len, answer.len());
    Some((Secrets::of(state), answer))
}

fn build(pair: &Arc<Pair>, entropy: Zeroizing<[u8; 32]>, prologue: &[u8], initiator: bool) -> HandshakeState {
    let params: NoiseParams = PATTERN.parse().expect("a name that snow knows");
    let resolver = Resolver { pair: pair.clone(), entropy };
    // The secret is with the resolver already; snow wants to be given one.
    let builder = Builder::with_resolver(params, Box::new(resolver))
        .local_private_key(&[])
        .and_then(|builder| builder.remote_public_key(pair.theirs().as_bytes()))
        .and_then(|builder| builder.prologue(prologue))
        .expect("each is given once");
    let state = if initiator { builder.build_initiator() } else { builder.build_responder() };
    state.expect("the pattern has all it needs")
}

struct Resolver {
    pair: Arc<Pair>,
    entropy: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.entropy.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(Agreement::None(self.pair.clone())) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives out its bytes a single time: a handshake draws one ephemeral key.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().filter(|bytes| bytes.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

/// One side's static or ephemeral key. snow makes two of them, sets the static one and generates the other.
enum Agreement {
    None(Arc<Pair>),
    Static(Arc<Pair>),
    Ephemeral(StaticSecret, PublicKey),
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _privkey: &[u8]) {
        if let Agreement::None(pair) = self {
            *self = Agreement::Static(pair.clone());
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret);
        *self = Agreement::Ephemeral(secret, public);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        match self {
            Agreement::None(_) => &[],
            Agreement::Static(pair) => pair.public().as_bytes(),
            Agreement::Ephemeral(_, public) => public.as_bytes(),
        }
    }

    fn privkey(&self) -> &[u8] {
        unreachable!("snow asks only those it has generated for others")
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let other = PublicKey::from(*pubkey.first_chunk::<32>().ok_or(Error::Dh)?);
        let secret = match self {
            Agreement::None(_) => return Err(Error::Dh),
            Agreement::Static(pair) if *pair.theirs() == other => {
                out[..32].copy_from_slice(pair.shared());
                return Ok(());
            }
            Agreement::Static(pair) => pair.secret(),
            Agreement::Ephemeral(secret, _) => secret,
        };
        let shared = secret.diffie_hellman(&other);
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}
