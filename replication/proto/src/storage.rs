//! What a replica remembers across a restart (PROTOCOL.md 2.14).
//!
//! A member without its memory must not vote: that is the hole through which the printed protocol loses
//! commits. So every vote, certificate and view change is a [`Record`] that the host makes durable before the
//! message that relies on it leaves.

use crate::certificate::{Certificate, CheckpointProof};
use crate::config::{Rsn, View};
use crate::epoch::Beginning;
use crate::keys::{Digest, Signature};
use crate::message::{Body, NewView, Signed, ViewChange, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::PeerId;

/// One durable entry. Encode it with [`cl_base::codec`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A PRE-PREPARE was accepted (or, at the primary, made).
    Accepted {
        /// What.
        vote: Vote,
        /// The primary's signature; none in mode M.
        proposal: Option<Signature>,
        /// The batch.
        body: Body,
    },
    /// The body of a position carried over by a NEW-VIEW was fetched.
    Body {
        /// Position.
        rsn: Rsn,
        /// The batch.
        body: Body,
    },
    /// P: the position is prepared.
    Prepared(Certificate),
    /// The view was left.
    ViewChange(Signed<ViewChange>),
    /// A view was installed.
    NewView(InstalledView),
    /// The replicated state after `rsn`, whose digest goes into a CHECKPOINT. Others drop their log for it, so it
    /// has to outlive a stop of all of them.
    State(StateRecord),
    /// An epoch has ended, and the next one begun with nothing voted for.
    Epoch(CheckpointProof),
    /// h has moved.
    Stable(CheckpointProof),
    /// Replaces every record before it; the host may then delete those.
    Checkpoint(Box<CheckpointRecord>),
}

/// A NEW-VIEW together with the VIEW-CHANGEs that justify it, so that it can be shown to latecomers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InstalledView {
    /// The message.
    pub new_view: Signed<NewView>,
    /// V.
    pub justification: Vec<Signed<ViewChange>>,
}

/// The replicated state at one position.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateRecord {
    /// Position.
    pub rsn: Rsn,
    /// The state after it.
    pub state: Vec<u8>,
}

/// Everything a replica needs to go on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointRecord {
    /// The epoch, where it began, and its roster.
    pub epoch: u64,
    /// See there.
    pub begins: Beginning,
    /// The roster of the epoch.
    pub members: Vec<PeerId>,
    /// How the epochs before it ended, as far as this member knows.
    pub certificates: Vec<CheckpointProof>,
    /// h and its proof.
    pub stable: CheckpointProof,
    /// The replicated state after h.
    pub state: Vec<u8>,
    /// The states above h of which CHECKPOINTs were sent, ascending.
    pub later: Vec<StateRecord>,
    /// v.
    pub view: View,
    /// Mode CHANGING.
    pub changing: bool,
    /// Fruitless views in a row.
    pub fruitless: u32,
    /// The own VIEW-CHANGE of v, if it was sent.
    pub view_change: Option<Signed<ViewChange>>,
    /// How v, or the last view before it, was installed.
    pub installed: Option<InstalledView>,
    /// The log above h.
    pub slots: Vec<SlotRecord>,
}

/// What is kept of one position.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotRecord {
    /// Position.
    pub rsn: Rsn,
    /// Accepted in the current view.
    pub accepted: Option<(Digest, Option<Signature>)>,
    /// Q: digests accepted with their bodies, and the highest view of each.
    pub votable: Vec<(Digest, View)>,
    /// Every body voted for.
    pub bodies: Vec<Body>,
    /// P.
    pub prepared: Option<Certificate>,
}

/// Why records cannot be continued from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The records are not those of one replica's life.
    #[error("records contradict each other: {0}")]
    Contradiction(&'static str),
    /// The state of the checkpoint cannot be restored.
    #[error(transparent)]
    State(#[from] crate::machine::RestoreError),
}
