//! Epochs: rosters that follow each other (PROTOCOL.md 2.15).
//!
//! A [`Replacement`] is ordered like any operation ([`Client::replace`](crate::Client::replace)) and allowed by the
//! replicated state machine ([`StateMachine::may_replace`](crate::StateMachine::may_replace)). Its position is the
//! last one of the epoch. The CHECKPOINT after it, signed by q members, is the certificate of the next epoch: it
//! convinces whoever knows the roster before, so who has slept follows from one epoch to the next.

use crate::certificate::CheckpointProof;
use crate::config::{Config, MemberId, Rsn};
use crate::keys::{Digest, Keys, statement};
use crate::message::{Checkpoint, Statement};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::PeerId;

/// One party takes the place of another in the roster.
///
/// A node that comes back without its memory is another party ([`PeerId::instance`]): what it had promised before is
/// forgotten, so it must not vote under its old name (PROTOCOL.md 2.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Replacement {
    /// Who leaves; a member.
    pub out: PeerId,
    /// Who comes; not a member.
    pub new: PeerId,
}

/// RECONFIG: what a request for a replacement holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reconfiguration {
    /// The epoch that is to end.
    pub epoch: u64,
    /// How.
    pub replacement: Replacement,
}

/// Why a replacement was not done. It is the result of the request, as `Result<u64, ReplaceError>` with the number of
/// the new epoch, in [`cl_base::codec`]'s encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, thiserror::Error)]
pub enum ReplaceError {
    /// The request is no [`Reconfiguration`].
    #[error("malformed")]
    Malformed,
    /// It speaks of an epoch that is over, or not there yet.
    #[error("the group is in epoch {0}")]
    Epoch(u64),
    /// Who is to leave is no member, who is to come is one; or the group has one member, and nobody would have its
    /// state.
    #[error("it does not fit the roster")]
    Roster,
    /// The state machine does not allow it.
    #[error("not allowed")]
    NotAllowed,
}

/// Where an epoch begins. All zero for the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Beginning {
    /// The last position of the epoch before.
    pub rsn: Rsn,
    /// D, the digest of the state there.
    pub digest: Digest,
    /// Who leads view 0. The newcomer is before it on the ring, so a spare: it has no state yet.
    pub primary: MemberId,
}

impl Config {
    /// The place in the roster that changes hands, if the replacement fits the roster.
    pub(crate) fn place_of(&self, replacement: &Replacement) -> Option<MemberId> {
        if self.f == 0 || self.member(replacement.new).is_some() {
            return None;
        }
        self.member(replacement.out)
    }

    /// The configuration of the epoch that follows this one by `certificate`, whose signatures were verified. `None`
    /// if it certifies no epoch, or cannot follow this one.
    pub fn after(&self, certificate: &CheckpointProof) -> Option<Config> {
        let replacement = certificate.ends?;
        let place = self.place_of(&replacement)?;
        let mut next = self.clone();
        next.epoch += 1;
        next.members[usize::from(place.0)] = replacement.new;
        next.begins = Beginning {
            rsn: certificate.rsn,
            digest: certificate.digest,
            primary: MemberId(((usize::from(place.0) + 1) % self.n()) as u8),
        };
        Some(next)
    }

    /// As [`Config::after`], if w members of this epoch have signed the certificate: enough to believe it, for clients
    /// and for the newcomer. Members wait for q.
    pub fn believe(&self, certificate: &CheckpointProof, keys: &dyn Keys) -> Option<Config> {
        let CheckpointProof { rsn, digest, ends, ref signatures } = *certificate;
        let claim = Checkpoint { rsn, digest, ends };
        let plausible = rsn > self.begins.rsn
            && signatures.len() <= self.n()
            && signatures.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let signed = |(m, signature): &&(MemberId, _)| {
            let said = || statement(Checkpoint::DOMAIN, self, *m, &claim);
            self.has(*m) && keys.verify_member(self.peer(*m), &said().0, signature)
        };
        let enough = plausible && signatures.iter().filter(signed).take(self.weak()).count() >= self.weak();
        if enough { self.after(certificate) } else { None }
    }

    /// The replacement by which `members` is the next roster after this one.
    pub(crate) fn replacement_to(&self, members: &[PeerId]) -> Option<Replacement> {
        let mut changed = self.members.iter().zip(members).filter(|(old, new)| old != new);
        let (out, new) = changed.next()?;
        let replacement = Replacement { out: *out, new: *new };
        (changed.next().is_none() && members.len() == self.n() && self.place_of(&replacement).is_some())
            .then_some(replacement)
    }
}
