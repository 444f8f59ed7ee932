//! What the Byzantine member does to the messages of an otherwise correct one.

use crate::SimKeys;
use crate::{Command, Op};
use cl_base::codec;
use cl_base::{PeerId, Rng};
use replication::message::forge;
use replication::message::{self, Checkpoint, Message, Outcome, Request, Signed, Vote};
use replication::{Config, Digest, Keys, MemberId};

/// Changes a field of a message; what a signature covers is signed again with the member's own key, so that
/// the lie is well-formed.
pub(crate) fn lie(rng: &mut Rng, config: &Config, me: MemberId, keys: &SimKeys, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut message) = message::decode(config, bytes) else { return bytes.to_vec() };
    match &mut message {
        Message::PrePrepare { vote, signature, body } => {
            if rng.chance(1, 2) {
                *body = None;
            } else if let Some(batch) = body {
                batch.time += std::time::Duration::from_secs(rng.below(100));
                batch.requests.clear();
            }
            vote.digest = forge::digest_of_body(config, vote.rsn, body);
            *signature = signature.map(|_| keys.sign(&forge::pre_prepare_statement(config, me, vote).0));
        }
        Message::Prepare { vote, signature } => {
            twist(rng, vote);
            *signature = signature.map(|_| keys.sign(&forge::prepare_statement(config, me, vote).0));
        }
        Message::Commit(vote) => twist(rng, vote),
        Message::Checkpoint(signed) => {
            let body = Checkpoint { digest: noise(rng), ..signed.body };
            *signed = resign(config, me, keys, body);
        }
        Message::ViewChange(signed) => {
            let mut body = signed.body.clone();
            match rng.below(3) {
                0 => body.prepared.clear(),
                1 => body.view += rng.below(5),
                _ => body.stable.rsn += rng.below(20),
            }
            *signed = resign(config, me, keys, body);
        }
        Message::NewView(signed) => {
            let mut body = signed.body.clone();
            match rng.below(4) {
                0 => drop(body.order.pop()),
                1 => body.active.reverse(),
                2 => body.stable += 1,
                _ => drop(body.justification.pop()),
            }
            *signed = resign(config, me, keys, body);
        }
        Message::Status(status) => {
            status.view = status.view.saturating_add(rng.below(3));
            status.stable = rng.below(status.stable + 5);
            status.base = rng.next_u64() >> rng.below(64);
            status.executed = rng.next_u64() >> rng.below(64);
        }
        Message::Reply(reply) => {
            reply.view += rng.below(3);
            match &mut reply.outcome {
                Outcome::Executed { rsn, digest, result } => match rng.below(3) {
                    0 => *rsn += 1,
                    1 => *digest = noise(rng),
                    _ => *result = Some(b"wrong".to_vec()),
                },
                Outcome::Stale { floor } => *floor = rng.next_u64(),
            }
            if rng.chance(1, 4) {
                reply.outcome = Outcome::Stale { floor: u64::MAX };
            }
        }
        Message::Notify(notify) => match rng.below(3) {
            0 => notify.first = rng.next_u64() >> rng.below(64),
            1 => notify.entries.iter_mut().for_each(|(_, body)| body.push(7)),
            _ => notify.entries.iter_mut().for_each(|(seq, _)| *seq += 1),
        },
        Message::State { data, .. } => {
            if let message::StateData::Pages(pages) = data {
                pages.iter_mut().for_each(|page| page.push(1));
            } else if let message::StateData::Root { len, .. } = data {
                *len = rng.next_u64();
            }
        }
        Message::BatchBody { body, .. } => *body = None,
        _ => {}
    }
    message::encode(config, &message)
}

/// What a courting member sends: votes to its favourite alone, VIEW-CHANGEs without what it prepared.
pub(crate) fn court(
    config: &Config,
    me: MemberId,
    keys: &SimKeys,
    favourite: bool,
    bytes: Vec<u8>,
) -> Option<Vec<u8>> {
    match message::decode(config, &bytes) {
        Ok(Message::Prepare { .. } | Message::Commit(_)) if !favourite => None,
        Ok(Message::ViewChange(signed)) if signed.sender == me => {
            let mut body = signed.body;
            body.prepared.clear();
            Some(message::encode(config, &Message::ViewChange(resign(config, me, keys, body))))
        }
        _ => Some(bytes),
    }
}

fn resign<T: forge::Signable>(config: &Config, me: MemberId, keys: &SimKeys, body: T) -> Signed<T> {
    let signature = keys.sign(&forge::signed_statement(config, me, &body).0);
    Signed { sender: me, body, signature }
}

fn noise(rng: &mut Rng) -> Digest {
    let mut digest = Digest::default();
    digest.0[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    digest
}

fn twist(rng: &mut Rng, vote: &mut Vote) {
    match rng.below(4) {
        0 => vote.view += 1,
        1 => vote.rsn += rng.below(3),
        2 => vote.tag = noise(rng),
        _ => vote.digest = noise(rng),
    }
}

/// A request of a faulty client: sequence numbers used twice or absurd, signatures wrong, acknowledgements of
/// what never was.
pub(crate) fn rogue_request(rng: &mut Rng, config: &Config, me: PeerId, keys: &SimKeys) -> Message {
    let t = match rng.below(8) {
        0 => u64::MAX,
        1 => 0,
        _ => rng.below(20),
    };
    let notified = if rng.chance(1, 4) { rng.next_u64() } else { 0 };
    let op = match rng.below(4) {
        0 => vec![0xff; rng.below(300) as usize],
        n => codec::encode(&Command { nonce: rng.next_u64(), op: Op::Tell(me, n as u32) }),
    };
    let mut request = Request { client: me, t, notified, op, signature: [0; 64] };
    request.signature = keys.sign(&forge::request_statement(config, &request).0);
    if rng.chance(1, 8) {
        request.signature[3] ^= 1;
    }
    Message::Request(request)
}

/// Flips a few bits.
pub(crate) fn garble(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.within(1, 4) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes
}

/// With whom a twin talks: clients with both, members with one of them.
pub(crate) fn twin_of(split: u64, peer: PeerId, config: &Config, twin: usize) -> bool {
    config.member(peer).is_none_or(|m| (split >> m.0 & 1) as usize == twin)
}
