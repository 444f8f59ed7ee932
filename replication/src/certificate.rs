//! Proofs made of signatures that convince a third party: prepared certificates and stable checkpoints.
//!
//! A certificate is q = 2f+1 distinct members of the epoch, any of them (PROTOCOL.md 2).

use crate::config::{Config, MemberId, Rsn};
use crate::keys::{Authority, Digest, Domain, Signature, statement};
use crate::message::{Checkpoint, Statement, Vote};
use borsh::{BorshDeserialize, BorshSerialize};

/// A prepared certificate: the primary's PRE-PREPARE and PREPAREs of 2f other members, all with one tag.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// What was prepared, and in which view.
    pub vote: Vote,
    /// The primary's PRE-PREPARE signature.
    pub proposal: Signature,
    /// 2f PREPARE signatures, ascending by member, none of the primary.
    pub prepares: Vec<(MemberId, Signature)>,
}

impl Certificate {
    /// Whether every signature is good and the signers are q distinct members.
    pub(crate) fn verify(&self, authority: &mut Authority, config: &Config) -> bool {
        let primary = config.primary(self.vote.view);
        let distinct = self.prepares.windows(2).all(|pair| pair[0].0 < pair[1].0);
        self.prepares.len() + 1 == config.quorum()
            && distinct
            && self.prepares.iter().all(|(m, _)| *m != primary && config.has(*m))
            && proposal_signed(&self.vote, &self.proposal, authority, config)
            && self.prepares.iter().all(|(m, s)| prepare_signed(&self.vote, *m, s, authority, config))
    }
}

/// Whether the primary of the vote's view signed it as a PRE-PREPARE.
pub(crate) fn proposal_signed(
    vote: &Vote,
    s: &Signature,
    authority: &mut Authority,
    config: &Config,
) -> bool {
    let primary = config.primary(vote.view);
    authority.member_signed(primary, statement(Domain::PrePrepare, config, primary, vote), s)
}

/// Whether `member` signed the vote as a PREPARE.
pub(crate) fn prepare_signed(
    vote: &Vote,
    member: MemberId,
    s: &Signature,
    authority: &mut Authority,
    config: &Config,
) -> bool {
    authority.member_signed(member, statement(Domain::Prepare, config, member, vote), s)
}

/// The proof of a stable checkpoint: equal CHECKPOINTs of q members. The beginning needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointProof {
    /// h.
    pub rsn: Rsn,
    /// D; zero at the beginning.
    pub digest: Digest,
    /// CHECKPOINT signatures, ascending by member.
    pub signatures: Vec<(MemberId, Signature)>,
}

impl CheckpointProof {
    /// Whether q distinct members signed it, or it is the beginning.
    pub(crate) fn verify(&self, authority: &mut Authority, config: &Config) -> bool {
        if self.rsn == 0 {
            return self.signatures.is_empty() && self.digest == Digest::default();
        }
        let claim = Checkpoint { rsn: self.rsn, digest: self.digest };
        self.rsn.is_multiple_of(config.checkpoint_interval)
            && self.signatures.len() >= config.quorum()
            && self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.signatures.iter().all(|(m, s)| {
                config.has(*m)
                    && authority.member_signed(*m, statement(Checkpoint::DOMAIN, config, *m, &claim), s)
            })
    }
}
