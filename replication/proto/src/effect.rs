//! What a replica wants done and what it tells about itself.

use crate::config::{MemberId, Rsn, View};
use crate::keys::Digest;
use crate::storage::Record;
use cl_base::{PeerId, Time};

/// What the host must do, in this order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make durable before any later [`Effect::Send`] is performed (PROTOCOL.md 2.14).
    Persist(Record),
    /// Send; may be lost, delayed, duplicated or reordered.
    Send {
        /// To whom.
        to: PeerId,
        /// A frame.
        bytes: Vec<u8>,
    },
    /// For logs and metrics; needs no action.
    Event(Event),
}

/// Why a member left its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// A request stayed unexecuted for T_req.
    RequestTimeout,
    /// A group timer event was withheld past the late threshold and T_req (dissertation 7.1.4).
    DeadlineWithheld,
    /// The view asked for was not announced in time.
    NewViewTimeout,
    /// f+1 members had left for later views.
    Join,
    /// An active member has left alone and clients do not get enough answers.
    ClientsUnheard,
}

/// A step of a replica that is worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The member works in a new view.
    ViewInstalled {
        /// Which.
        view: View,
        /// Its primary.
        primary: MemberId,
        /// Its active members.
        active: Vec<MemberId>,
    },
    /// The member has left its view and asks for `next`.
    LeftView {
        /// The view left.
        view: View,
        /// The view asked for.
        next: View,
        /// Why.
        reason: LeaveReason,
    },
    /// The spares were asked to vote, too.
    Widened {
        /// In which view.
        view: View,
    },
    /// The spares are no longer asked.
    Narrowed {
        /// In which view.
        view: View,
    },
    /// A batch was executed, for good: what is executed tentatively is told of when it is committed.
    Executed {
        /// Its position.
        rsn: Rsn,
        /// Its digest.
        digest: Digest,
        /// The agreed time after it.
        time: Time,
        /// Operations executed, duplicates not counted.
        ops: usize,
    },
    /// What was executed tentatively is undone, because the view ends ([`Guarantee`](crate::Guarantee)).
    Undone {
        /// What had been executed.
        from: Rsn,
        /// What is left.
        to: Rsn,
    },
    /// A checkpoint is stable; the log below it is gone.
    StableCheckpoint {
        /// h.
        rsn: Rsn,
        /// D.
        digest: Digest,
    },
    /// The state of another member was restored.
    StateTransferred {
        /// The state after this batch.
        rsn: Rsn,
        /// Pages of it.
        pages: usize,
        /// Pages that had to be fetched.
        fetched: usize,
    },
    /// The member works in a new epoch (PROTOCOL.md 2.15).
    EpochBegan {
        /// Which.
        epoch: u64,
        /// The last position of the one before.
        rsn: Rsn,
        /// Its roster.
        members: Vec<PeerId>,
    },
    /// The member is not in the roster of this epoch. It only shows the certificates of epochs to those who are
    /// behind; its host may stop it.
    Retired {
        /// Which.
        epoch: u64,
    },
    /// The member caught itself or the group in an impossible state and does nothing any more
    /// (PROTOCOL.md 2.5, rule 6).
    Halted {
        /// What was found.
        reason: &'static str,
    },
}
