//! Well-formed lies: messages of an otherwise correct member with other contents, signed with its own key.

use crate::SimKeys;
use cl_base::Rng;
use replication_proto::message::forge;
use replication_proto::message::{
    self, Checkpoint, Message, NewView, Outcome, Signed, Tentative, ViewChange, Vote,
};
use replication_proto::{Config, Digest, Keys, MemberId, VoteClaim};
use std::sync::Arc;

/// Changes a field of a message; what a signature covers is signed again with the member's own key, so that
/// the lie is well-formed.
pub(super) fn lie(rng: &mut Rng, config: &Config, me: MemberId, keys: &SimKeys, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut message) = message::decode(config, bytes) else { return bytes.to_vec() };
    match &mut message {
        Message::PrePrepare { vote, signature, body } => {
            if rng.chance(1, 2) {
                *body = None;
            } else if let Some(batch) = body.as_mut().map(Arc::make_mut) {
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
            twist_view_change(rng, &mut body);
            *signed = resign(config, me, keys, body);
        }
        Message::NewView(signed) => {
            let mut body = signed.body.clone();
            twist_new_view(rng, &mut body);
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
            if rng.chance(1, 2) {
                // That what can be undone is certain, or the other way round.
                let tentative = Tentative { tag: noise(rng), history: noise(rng) };
                reply.tentative = if reply.tentative.is_some() { None } else { Some(tentative) };
            }
            if rng.chance(1, 4) {
                reply.outcome = Outcome::Stale { floor: u64::MAX };
            }
        }
        Message::ReadReply(reply) => match (rng.below(4), &mut reply.answer) {
            (0, answer) => *answer = None,
            (1, Some(answer)) => {
                let result = rng.below(100).to_le_bytes().to_vec();
                answer.digest = forge::digest_of_result(&result);
                answer.result = Some(result);
            }
            (2, Some(answer)) => answer.active = rng.next_u64(),
            _ => reply.view += rng.below(3),
        },
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

pub(super) fn resign<T: forge::Signable>(
    config: &Config,
    me: MemberId,
    keys: &SimKeys,
    body: T,
) -> Signed<T> {
    let signature = keys.sign(&forge::signed_statement(config, me, &body).0);
    Signed { sender: me, body, signature }
}

pub(super) fn noise(rng: &mut Rng) -> Digest {
    let mut digest = Digest::default();
    digest.0[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    digest
}

fn twist_view_change(rng: &mut Rng, body: &mut ViewChange) {
    match rng.below(7) {
        0 => body.prepared.clear(),
        1 => drop(body.prepared.pop()),
        2 => body.view += rng.below(5),
        3 => body.stable.rsn += rng.below(20),
        4 => body.voted.clear(),
        5 => {
            // Claims of mode M: that something else was prepared, in the latest view, and that it was voted for.
            let view = body.view.saturating_sub(1);
            let digest = noise(rng);
            for certificate in &mut body.prepared {
                (certificate.vote.view, certificate.vote.digest) = (view, digest);
                body.voted.push(VoteClaim { rsn: certificate.vote.rsn, digest, view });
            }
            body.voted.sort_unstable();
        }
        _ => body.prepared.iter_mut().for_each(|c| c.vote.view = c.vote.view.saturating_sub(1)),
    }
}

pub(super) fn twist_new_view(rng: &mut Rng, body: &mut NewView) {
    match rng.below(6) {
        0 => drop(body.order.pop()),
        1 => body.active.reverse(),
        2 => body.stable += 1,
        3 => body.order.iter_mut().for_each(|(digest, _)| *digest = noise(rng)),
        4 => body.order.clear(),
        _ => drop(body.justification.pop()),
    }
}

fn twist(rng: &mut Rng, vote: &mut Vote) {
    match rng.below(4) {
        0 => vote.view += 1,
        1 => vote.rsn += rng.below(3),
        2 => vote.tag = noise(rng),
        _ => vote.digest = noise(rng),
    }
}
