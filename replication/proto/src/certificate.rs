//! Proofs made of signatures that convince a third party: prepared certificates and stable checkpoints.
//!
//! A certificate is q = 2f+1 distinct members of the epoch, any of them (PROTOCOL.md 2).

use crate::config::{Config, Guarantee, MemberId, Rsn, View, VoteAuthentication};
use crate::epoch::{Beginning, Replacement};
use crate::keys::{Authority, Digest, Domain, Signature, statement};
use crate::message::{Checkpoint, Statement, Vote};
use crate::mutation::Mutation;
use borsh::{BorshDeserialize, BorshSerialize};

/// A prepared certificate: the primary's PRE-PREPARE and PREPAREs of 2f other members, all with one tag.
///
/// In mode M there are no signatures: it is the claim of whoever carries it, and counts as far as others back
/// it up (PROTOCOL.md 2.8, rule 4). With one phase ([`Guarantee::CrashOnly`]) there are no PREPAREs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// What was prepared, and in which view.
    pub vote: Vote,
    /// The primary's PRE-PREPARE signature; none in mode M.
    pub proposal: Option<Signature>,
    /// 2f PREPARE signatures, ascending by member, none of the primary; empty in mode M.
    pub prepares: Vec<(MemberId, Signature)>,
}

impl Certificate {
    /// The length of an encoded certificate in a group that tolerates `f`.
    pub(crate) const fn encoded_max(f: u8) -> usize {
        let vote = 8 + 32 + 8 + 32;
        vote + 1 + 64 + 4 + 2 * f as usize * 65
    }

    /// Whether every signature is good and the signers are q distinct members; in mode M, whether there is
    /// none.
    pub(crate) fn verify(&self, authority: &mut Authority, config: &Config) -> bool {
        if config.guarantee == Guarantee::CrashOnly {
            return self.prepares.is_empty()
                && proposal_proven(&self.vote, self.proposal.as_ref(), authority, config);
        }
        if config.votes == VoteAuthentication::Channel {
            return self.proposal.is_none() && self.prepares.is_empty();
        }
        let primary = config.primary(self.vote.view);
        let distinct = self.prepares.windows(2).all(|pair| pair[0].0 < pair[1].0);
        self.prepares.len() + 1 == config.quorum()
            && distinct
            && self.prepares.iter().all(|(m, _)| *m != primary && config.has(*m))
            && proposal_proven(&self.vote, self.proposal.as_ref(), authority, config)
            && self.prepares.iter().all(|(m, s)| prepare_proven(&self.vote, *m, Some(s), authority, config))
    }
}

/// An entry of Q (mode M): the highest view in which the sender accepted this digest at this position, with
/// the batch at hand, so that it may have voted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct VoteClaim {
    /// Position.
    pub rsn: Rsn,
    /// What was accepted.
    pub digest: Digest,
    /// The highest view in which it was.
    pub view: View,
}

impl VoteClaim {
    /// Length of an encoded entry.
    pub(crate) const BYTES: usize = 8 + 32 + 8;
}

/// Whether the primary of the vote's view is proven to have proposed it: by its signature, or in mode M by the
/// channel on which it came, and then there is no signature.
pub(crate) fn proposal_proven(
    vote: &Vote,
    signature: Option<&Signature>,
    authority: &mut Authority,
    config: &Config,
) -> bool {
    vote_proven(Domain::PrePrepare, vote, config.primary(vote.view), signature, authority, config)
}

/// Whether `member` is proven to have voted PREPARE; as for [`proposal_proven`].
pub(crate) fn prepare_proven(
    vote: &Vote,
    member: MemberId,
    signature: Option<&Signature>,
    authority: &mut Authority,
    config: &Config,
) -> bool {
    vote_proven(Domain::Prepare, vote, member, signature, authority, config)
}

fn vote_proven(
    domain: Domain,
    vote: &Vote,
    member: MemberId,
    signature: Option<&Signature>,
    authority: &mut Authority,
    config: &Config,
) -> bool {
    match (config.votes, signature) {
        (VoteAuthentication::Signed, Some(s)) => {
            authority.member_signed(config.peer(member), statement(domain, config, member, vote), s)
        }
        (VoteAuthentication::Channel, None) => true,
        // One encoding for each vote: what a mode does not need it does not take.
        _ => false,
    }
}

/// The signature that `me` puts under its vote, if this mode has one.
pub(crate) fn sign_vote(
    domain: Domain,
    vote: &Vote,
    me: MemberId,
    authority: &mut Authority,
    config: &Config,
) -> Option<Signature> {
    (config.votes == VoteAuthentication::Signed).then(|| authority.sign(statement(domain, config, me, vote)))
}

/// The proof of a stable checkpoint: equal CHECKPOINTs of q members. The beginning of an epoch needs none, since who
/// knows of the epoch knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointProof {
    /// h.
    pub rsn: Rsn,
    /// D; zero at the beginning.
    pub digest: Digest,
    /// The epoch ends after h, by this replacement: then this is the certificate of the next epoch (2.15).
    pub ends: Option<Replacement>,
    /// CHECKPOINT signatures, ascending by member.
    pub signatures: Vec<(MemberId, Signature)>,
}

/// How many equal CHECKPOINTs make one stable: q, unless a test breaks that rule.
pub(crate) fn stable_quorum(config: &Config) -> usize {
    if config.mutated(Mutation::CheckpointQuorumWeak) { config.weak() } else { config.quorum() }
}

impl CheckpointProof {
    /// The beginning of this epoch.
    pub(crate) fn beginning(config: &Config) -> CheckpointProof {
        let Beginning { rsn, digest, .. } = config.begins;
        CheckpointProof { rsn, digest, ..CheckpointProof::default() }
    }

    /// Whether q distinct members signed it, or it is the beginning.
    pub(crate) fn verify(&self, authority: &mut Authority, config: &Config) -> bool {
        if self.rsn <= config.begins.rsn {
            return *self == CheckpointProof::beginning(config);
        }
        let claim = Checkpoint { rsn: self.rsn, digest: self.digest, ends: self.ends };
        claim.is_due(config)
            && self.signatures.len() >= stable_quorum(config)
            && self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.signatures.iter().all(|(m, s)| {
                config.has(*m)
                    && authority.member_signed(
                        config.peer(*m),
                        statement(Checkpoint::DOMAIN, config, *m, &claim),
                        s,
                    )
            })
    }
}
