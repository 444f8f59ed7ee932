//! The messages of PROTOCOL.md 2.4 and their canonical bytes.
//!
//! Every message travels in a frame that names the group and the epoch. The transport authenticates the
//! sender, which is all that COMMIT, REPLY, STATUS and fetches have (PROTOCOL.md 2.2), and in mode M PRE-PREPARE
//! and PREPARE too; what is shown to third parties carries a signature over
//! `(domain, group, epoch, signer, statement)`.

#[doc(hidden)]
pub mod forge;

use crate::certificate::{Certificate, CheckpointProof, VoteClaim};
use crate::config::{ClientAuthentication, Config, MemberId, Rsn, View};
use crate::epoch::Replacement;
use crate::keys::{Authority, Digest, Domain, Mac, Signature, digest_of, hash, statement};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::codec::{self, DecodeError};
use cl_base::{PeerId, Time};
use std::sync::Arc;

/// No message is longer. A VIEW-CHANGE with a full window is the longest: about 300 bytes per batch for f=1;
/// everything else stays below 64 KiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What an encoded request has beside its operation and its proof.
pub(crate) const REQUEST_FIELDS_BYTES: usize = 8 + 8 + 8 + 1 + 4;

/// How a request proves whose it is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Proof {
    /// The client's signature.
    Signed(Signature),
    /// A MAC for each member in the order of the roster ([`ClientAuthentication`]).
    Macs(Vec<Mac>),
}

impl Proof {
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Proof::Signed(signature) => 1 + signature.len(),
            Proof::Macs(macs) => 1 + 4 + macs.len() * size_of::<Mac>(),
        }
    }
}

/// What a member thinks of a request's proof, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Judgement {
    /// The client made it.
    Good,
    /// The MAC for this member is wrong; others may find theirs good.
    Doubtful,
    /// Nobody can find it good.
    Bad,
}

/// To whom a request speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RequestKind {
    /// To the state machine.
    #[default]
    Operation,
    /// To the group: a [`Reconfiguration`](crate::Reconfiguration) (RECONFIG, PROTOCOL.md 2.15).
    Replace,
}

/// REQUEST: an operation of a client, authenticated by it.
///
/// The proof covers the group but not the epoch: a request of a closed epoch is proposed again in the
/// next one (PROTOCOL.md 2.15).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// Who asks.
    pub client: PeerId,
    /// The client's own sequence number; grows by one per request.
    pub t: u64,
    /// The last notification up to which the client has received all.
    pub notified: u64,
    /// What `op` is.
    pub kind: RequestKind,
    /// The operation, opaque to the ordering.
    pub op: Vec<u8>,
    /// Over all of the above.
    pub proof: Proof,
}

impl Request {
    pub(crate) fn statement(
        group: u64,
        client: PeerId,
        t: u64,
        notified: u64,
        kind: RequestKind,
        op: &[u8],
    ) -> Digest {
        digest_of(Domain::Request, &(group, client, t, notified, kind, op))
    }

    /// What `me` thinks of it.
    pub(crate) fn judge(&self, me: MemberId, authority: &mut Authority, config: &Config) -> Judgement {
        let digest = Self::statement(config.group, self.client, self.t, self.notified, self.kind, &self.op);
        match &self.proof {
            Proof::Signed(signature) if authority.client_signed(self.client, digest, signature) => {
                Judgement::Good
            }
            Proof::Macs(macs) if config.clients == ClientAuthentication::Macs && macs.len() == config.n() => {
                match authority.mac_good(self.client, digest, &macs[usize::from(me.0)]) {
                    true => Judgement::Good,
                    false => Judgement::Doubtful,
                }
            }
            _ => Judgement::Bad,
        }
    }

    pub(crate) fn is_signed(&self) -> bool {
        matches!(self.proof, Proof::Signed(_))
    }

    pub(crate) fn encoded_len(&self) -> usize {
        REQUEST_FIELDS_BYTES + self.op.len() + self.proof.encoded_len()
    }
}

/// The body of a batch: agreed time and requests. A null batch has no body ([`Body`] is `None`).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// The time the primary proposes for the batch.
    pub time: Time,
    /// The requests in the order of their execution; may be empty when only time passes.
    pub requests: Vec<Request>,
}

/// What is ordered at one RSN: a batch, or null, which executes nothing.
pub type Body = Option<Arc<Batch>>;

/// d = H(e, s, time, batch), null included (PROTOCOL.md 2.1).
pub(crate) fn body_digest(config: &Config, rsn: Rsn, body: &Body) -> Digest {
    digest_of(Domain::Batch, &(config.group, config.epoch, rsn, body))
}

/// What a client compares: the digest of a result.
pub(crate) fn result_digest(result: &[u8]) -> Digest {
    hash(Domain::Result, result)
}

/// (v, tag, s, d): what PRE-PREPARE, PREPARE and COMMIT say, each in its own domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The view.
    pub view: View,
    /// H(A, O) of the NEW-VIEW that the voter installed; zero in view 0 (PROTOCOL.md 2.1).
    pub tag: Digest,
    /// The position.
    pub rsn: Rsn,
    /// The digest of the batch.
    pub digest: Digest,
}

/// A statement signed by a member.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signed<T> {
    /// Who signs.
    pub sender: MemberId,
    /// What is said.
    pub body: T,
    /// Over domain, group, epoch, sender and body.
    pub signature: Signature,
}

/// Types that members sign whole.
pub(crate) trait Statement: BorshSerialize {
    const DOMAIN: Domain;
}

#[allow(private_bounds)] // what can be signed is this crate's business
impl<T: Statement> Signed<T> {
    pub(crate) fn new(body: T, me: MemberId, authority: &mut Authority, config: &Config) -> Signed<T> {
        let signature = authority.sign(statement(T::DOMAIN, config, me, &body));
        Signed { sender: me, body, signature }
    }

    pub(crate) fn verify(&self, authority: &mut Authority, config: &Config) -> bool {
        config.has(self.sender)
            && authority.member_signed(config.peer(self.sender), self.digest(config), &self.signature)
    }

    /// Names the statement and its signer.
    pub(crate) fn digest(&self, config: &Config) -> Digest {
        statement(T::DOMAIN, config, self.sender, &self.body)
    }
}

/// CHECKPOINT: the signer's replicated state after `rsn` has the digest `digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// A multiple of K, or the end of an epoch.
    pub rsn: Rsn,
    /// D, the root over the replicated state.
    pub digest: Digest,
    /// The epoch ends here, by this replacement.
    pub ends: Option<Replacement>,
}

impl Checkpoint {
    /// Whether there can be a checkpoint at this position.
    pub(crate) fn is_due(&self, config: &Config) -> bool {
        self.ends.is_some() || self.rsn.is_multiple_of(config.checkpoint_interval)
    }
}

impl Statement for Checkpoint {
    const DOMAIN: Domain = Domain::Checkpoint;
}

/// VIEW-CHANGE: the signer has left every view below `view` and takes this along (PROTOCOL.md 2.8).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// v', the view asked for.
    pub view: View,
    /// h and its proof.
    pub stable: CheckpointProof,
    /// P: one certificate for each position prepared above h, ascending.
    pub prepared: Vec<Certificate>,
    /// Q: what the signer may have voted for above h, ascending by position and digest; empty in mode S.
    pub voted: Vec<VoteClaim>,
}

impl Statement for ViewChange {
    const DOMAIN: Domain = Domain::ViewChange;
}

/// NEW-VIEW: the primary opens `view` with what V justifies.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewView {
    /// v'.
    pub view: View,
    /// V: senders and digests of the q or more VIEW-CHANGEs; who misses one fetches it.
    pub justification: Vec<(MemberId, Digest)>,
    /// A, ascending.
    pub active: Vec<MemberId>,
    /// min-s: O begins above it.
    pub stable: Rsn,
    /// O: for each following position the digest and the primary's PRE-PREPARE signature (none in mode M).
    pub order: Vec<(Digest, Option<Signature>)>,
}

impl Statement for NewView {
    const DOMAIN: Domain = Domain::NewView;
}

/// H(A, O), the tag of a new view.
pub(crate) fn tag_of(
    config: &Config,
    view: View,
    active: &[MemberId],
    stable: Rsn,
    order: impl Iterator<Item = Digest>,
) -> Digest {
    let order: Vec<Digest> = order.collect();
    digest_of(Domain::Tag, &(config.group, config.epoch, view, active, stable, order))
}

/// What a member has of one position, in STATUS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotStatus {
    /// PRE-PREPARE accepted and body at hand.
    pub proposed: bool,
    /// Whose PREPAREs it has, one bit per member.
    pub prepares: u64,
    /// Whose COMMITs it has, one bit per member.
    pub commits: u64,
}

/// STATUS: where the sender stands; whoever can help sends its own messages again (PROTOCOL.md 2.4).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// v.
    pub view: View,
    /// The tag of v.
    pub tag: Digest,
    /// Mode CHANGING: has asked for `view` and not installed it.
    pub changing: bool,
    /// Whether it treats the view as widened.
    pub wide: bool,
    /// h.
    pub stable: Rsn,
    /// s_exec.
    pub executed: Rsn,
    /// Whose VIEW-CHANGE for `view` it has, one bit per member.
    pub view_changes: u64,
    /// The first position above h that is not committed in the current view.
    pub base: Rsn,
    /// The positions from `base` on of which it has something.
    pub slots: Vec<SlotStatus>,
}

/// What REPLY says about a request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// It was executed.
    Executed {
        /// In which batch.
        rsn: Rsn,
        /// H(result).
        digest: Digest,
        /// The result itself, unless it is long and another member was designated to send it.
        result: Option<Vec<u8>>,
    },
    /// Its sequence number is below what the session remembers, so whether it was executed is not known.
    Stale {
        /// The highest sequence number forgotten.
        floor: u64,
    },
}

/// What makes answers before the commit comparable: with these and the view equal at 2f+1 members, the request is
/// committed in the client's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Tentative {
    /// The tag of the view.
    pub tag: Digest,
    /// The digest of all batches executed up to now, in order.
    pub history: Digest,
}

/// REPLY: a member of A(v) answers a client.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The view of the sender.
    pub view: View,
    /// The request's sequence number.
    pub t: u64,
    /// The sequence number of the last notification for the client, 0 if there never was one.
    pub last_notification: u64,
    /// Present if the request was executed and is not committed ([`Guarantee`](crate::Guarantee)).
    pub tentative: Option<Tentative>,
    /// What became of it.
    pub outcome: Outcome,
}

/// READ-REPLY: the answer of one member to a read (PROTOCOL.md 2.12).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadReply {
    /// The view of the sender.
    pub view: View,
    /// Names the client's question.
    pub nonce: u64,
    /// `None`: the sender cannot answer now, or the operation is not read-only. It has to be ordered.
    pub answer: Option<ReadAnswer>,
}

/// What an active member reads.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadAnswer {
    /// The tag of the view.
    pub tag: Digest,
    /// A(v), one bit per member.
    pub active: u64,
    /// H(result).
    pub digest: Digest,
    /// The result itself, unless it is long and another member was designated to send it.
    pub result: Option<Vec<u8>>,
}

/// NOTIFY: unacknowledged notifications of a client, in order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Notify {
    /// The view of the sender.
    pub view: View,
    /// The client's outbox begins here; what came before is acknowledged or forgotten.
    pub first: u64,
    /// (sequence number, body).
    pub entries: Vec<(u64, Vec<u8>)>,
}

/// Which part of a checkpoint's state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum StatePart {
    /// Length and root.
    Root,
    /// The children of one inner node of the tree.
    Children {
        /// Height of the node; its children are on `level - 1`, pages on level 0.
        level: u8,
        /// Position of the node on its level.
        index: u32,
    },
    /// Pages.
    Pages {
        /// Number of the first.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// The answer to a [`StatePart`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum StateData {
    /// Length and root.
    Root {
        /// Bytes of the state.
        len: u64,
        /// Root of the tree over its pages.
        root: Digest,
    },
    /// Digests of the children.
    Children(Vec<Digest>),
    /// Pages, the last one possibly short.
    Pages(Vec<Vec<u8>>),
}

/// Everything that travels between members and clients.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[allow(missing_docs)] // the variants are the messages of PROTOCOL.md 2.4
pub enum Message {
    Request(Request),
    PrePrepare { vote: Vote, signature: Option<Signature>, body: Body },
    Prepare { vote: Vote, signature: Option<Signature> },
    Commit(Vote),
    Checkpoint(Signed<Checkpoint>),
    Stable(CheckpointProof),
    ViewChange(Signed<ViewChange>),
    NewView(Signed<NewView>),
    Widen { view: View, tag: Digest },
    Status(Status),
    FetchBatch { rsn: Rsn, digest: Digest },
    BatchBody { rsn: Rsn, body: Body },
    FetchViewChange { view: View, member: MemberId, digest: Digest },
    FetchState { rsn: Rsn, digest: Digest, part: StatePart },
    State { rsn: Rsn, digest: Digest, part: StatePart, data: StateData },
    Reply(Reply),
    NotifyPull { from: u64 },
    Read { nonce: u64, op: Vec<u8> },
    ReadReply(ReadReply),
    Notify(Notify),
}

/// A frame: group and epoch around a message.
#[derive(BorshSerialize, BorshDeserialize)]
struct Frame<M> {
    group: u64,
    epoch: u64,
    message: M,
}

/// The bytes of a message.
pub fn encode(config: &Config, message: &Message) -> Vec<u8> {
    encode_of(config.group, config.epoch, message)
}

/// The bytes of a message of any epoch.
pub(crate) fn encode_of(group: u64, epoch: u64, message: &Message) -> Vec<u8> {
    codec::encode(&Frame { group, epoch, message })
}

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not an encoding of a message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Of another group or epoch.
    #[error("of group {0}, epoch {1}")]
    Foreign(u64, u64),
}

/// The message in these bytes.
///
/// # Errors
/// [`FrameError`] if it is none, too long, or of another group or epoch.
pub fn decode(config: &Config, bytes: &[u8]) -> Result<Message, FrameError> {
    decode_of(config.group, config.epoch, bytes)
}

/// As [`decode`], for any epoch.
pub(crate) fn decode_of(group: u64, epoch: u64, bytes: &[u8]) -> Result<Message, FrameError> {
    let frame: Frame<Message> = codec::decode_bounded(bytes, MESSAGE_BYTES_MAX)?;
    if (frame.group, frame.epoch) != (group, epoch) {
        return Err(FrameError::Foreign(frame.group, frame.epoch));
    }
    Ok(frame.message)
}
