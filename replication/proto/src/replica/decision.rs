//! What a set V of VIEW-CHANGEs decides about the order (PROTOCOL.md 2.8, rule 4).

use crate::certificate::{Certificate, CheckpointProof};
use crate::config::{Config, Rsn, View};
use crate::keys::Digest;
use crate::message::{ViewChange, body_digest};
use crate::mutation::Mutation;

/// Where the new view begins.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) stable: CheckpointProof,
    /// The digest for each position above it.
    pub(super) order: Vec<Digest>,
}

/// What V decides, the same for everybody who has V; `None` if a position is open until more VIEW-CHANGEs come,
/// which happens in mode M only.
pub(super) fn decide(config: &Config, v: &[&ViewChange]) -> Option<Decision> {
    let stable = v.iter().map(|vc| &vc.stable).max_by_key(|proof| proof.rsn).cloned().unwrap_or_default();
    let top = v.iter().flat_map(|vc| vc.prepared.last()).map(|c| c.vote.rsn).max().unwrap_or(0);
    let mut order = Vec::new();
    let mut len = 0;
    for rsn in stable.rsn + 1..=top {
        let choice = if config.counts_claims() {
            count(config, v, rsn)?
        } else if config.mutated(Mutation::LowestView) {
            v.iter().filter_map(|vc| prepared(vc, rsn)).min_by_key(|c| c.vote.view).map(|c| c.vote.digest)
        } else {
            highest_certificate(v, rsn)
        };
        order.push(choice.unwrap_or_else(|| body_digest(config, rsn, &None)));
        if choice.is_some() {
            len = order.len();
        }
    }
    // Nothing can have been committed at trailing positions for which nothing was chosen. A null that was
    // prepared is a choice like any other, and stays.
    order.truncate(len);
    Some(Decision { stable, order })
}

fn prepared(vc: &ViewChange, rsn: Rsn) -> Option<&Certificate> {
    let at = vc.prepared.binary_search_by_key(&rsn, |c| c.vote.rsn).ok()?;
    Some(&vc.prepared[at])
}

/// Mode S, and where nobody lies: the certificate of the highest view, whoever brings it.
fn highest_certificate(v: &[&ViewChange], rsn: Rsn) -> Option<Digest> {
    v.iter().filter_map(|vc| prepared(vc, rsn)).max_by_key(|c| c.vote.view).map(|c| c.vote.digest)
}

/// Mode M, the counting rule: `Some(None)` if nothing can have been committed, `None` if V does not tell.
///
/// More than one claim can satisfy it only if none was committed; then the one of the highest view wins, and
/// of these the highest digest, so that all choose alike.
fn count(config: &Config, v: &[&ViewChange], rsn: Rsn) -> Option<Option<Digest>> {
    let mut claims: Vec<(View, Digest)> =
        v.iter().filter_map(|vc| prepared(vc, rsn)).map(|c| (c.vote.view, c.vote.digest)).collect();
    let without = v.len() - claims.len();
    claims.sort_unstable();
    claims.dedup();
    let vouchers = if config.mutated(Mutation::OneVoucher) { 1 } else { config.weak() };
    let choice = claims.into_iter().rev().find(|(view, digest)| {
        // A1: q members know of nothing that speaks against it.
        let compatible = v.iter().filter(|vc| {
            prepared(vc, rsn)
                .is_none_or(|c| c.vote.view < *view || (c.vote.view, c.vote.digest) == (*view, *digest))
        });
        // A2: w members accepted it in that view or later, so a correct one did, and has the batch.
        let vouching = v.iter().filter(|vc| accepted_in(vc, rsn, digest).is_some_and(|u| u >= *view));
        compatible.count() >= config.quorum() && vouching.count() >= vouchers
    });
    match choice {
        Some((_, digest)) => Some(Some(digest)),
        None if without >= config.quorum() => Some(None),
        None => None,
    }
}

/// The entry of Q for this digest.
fn accepted_in(vc: &ViewChange, rsn: Rsn, digest: &Digest) -> Option<View> {
    let at = vc.voted.binary_search_by(|claim| (claim.rsn, claim.digest).cmp(&(rsn, *digest))).ok()?;
    Some(vc.voted[at].view)
}
