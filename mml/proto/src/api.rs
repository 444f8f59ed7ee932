//! The words of the API: what is sent, what comes back, what went wrong.

use crate::Body;
use cl_base::{Incarnation, PeerId};
use std::fmt;

/// What a message is promised (dissertation 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// Nothing: sent once, in no order. For what is repeated anyway, such as heartbeats.
    Unr,
    /// Acknowledged, and repeated until it is: delivered exactly once per incarnation of the receiver, in
    /// the order of sending among the ACK messages to that peer, or reported as failed.
    Ack,
    /// Not acknowledged one by one: the receiver asks for what it misses. Delivered at most once, in the
    /// order of arrival, and exactly once while the sender's history reaches back far enough.
    Nack,
}

/// The name of one message to one peer, never used again by the same sending [`Mml`](crate::Mml).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// The kind of the message; each kind is numbered by itself.
    pub delivery: Delivery,
    /// Consecutive within the kind, from one message to the next.
    pub number: u64,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.delivery, self.number)
    }
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue to this peer is full. Here is the message back; try again after the next
    /// [`Event::Delivered`] or time-out.
    #[error("the queue to this peer is full")]
    Backpressure(Body),
    /// The body exceeds `Config::body_bytes_max`.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes of the body.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// No key is known for this peer, or it is the sender itself.
    #[error("no key for this peer")]
    UnknownPeer,
    /// `Config::peers_max` peers are remembered and none of them can be forgotten yet.
    #[error("too many peers")]
    TooManyPeers,
}

/// Why an accepted message will not be delivered, as far as is known: it may have been, if only the
/// acknowledgement was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// No session could be established within `Config::connect_timeout`.
    Unreachable,
    /// The peer owed an answer for `Config::dead_after`.
    Silent,
    /// The peer restarted; the message was meant for its former incarnation.
    Restarted,
    /// The peer ended the session.
    Closed,
    /// `disconnect` was called on this side.
    Disconnected,
    /// The peer speaks no version of the protocol that we do; see [`Event::Incompatible`].
    Incompatible,
    /// The peer knows a later life of this party; see [`Event::Superseded`].
    Superseded,
    /// The peer's key is no longer believed; see [`Mml::set_keys`](crate::Mml::set_keys).
    KeyWithdrawn,
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendStatus {
    /// Queued or on its way.
    Pending,
    /// The peer has it.
    Delivered,
    /// Given up.
    Failed(FailReason),
    /// Not known: never sent, sent as UNR, or too long ago to be remembered.
    Unknown,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// No session could be established within `Config::connect_timeout`.
    Unreachable,
    /// The peer owed an answer for `Config::dead_after`.
    Silent,
    /// The peer ended the session.
    Closed,
    /// The peer speaks no version of the protocol that we do; see [`Event::Incompatible`].
    Incompatible,
    /// The peer knows a later life of this party; see [`Event::Superseded`].
    Superseded,
    /// The peer's key is no longer believed; see [`Mml::set_keys`](crate::Mml::set_keys).
    KeyWithdrawn,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: PeerId,
    /// It answers a frame outside of a session, so it goes where that came from: the sender may have moved, and
    /// has proved nothing yet from which its address could be learnt.
    pub answers_hello: bool,
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refused; a counter tells why.
    Refused,
    /// Authentic. The first frame of a handshake may be an old one, repeated by anybody.
    Authentic,
    /// Authentic, and a fresh proof that the peer is alive where it came from: a session is established.
    Established,
}

/// A message that has arrived, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who sent it.
    pub from: PeerId,
    /// The life of the sender that sent it.
    pub incarnation: Incarnation,
    /// The application's byte.
    pub class: u8,
    /// Its kind and number.
    pub seq: Sequence,
    /// Its bytes.
    pub body: &'a [u8],
}

impl From<Message<'_>> for Event {
    fn from(message: Message<'_>) -> Event {
        let Message { from, incarnation, class, seq, body } = message;
        Event::Message { from, incarnation, class, seq, body: body.to_vec() }
    }
}

/// What the caller is told by `poll_event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An authentic message arrived.
    Message {
        /// Who sent it.
        from: PeerId,
        /// The life of the sender that sent it.
        incarnation: Incarnation,
        /// The application's byte.
        class: u8,
        /// Its kind and number.
        seq: Sequence,
        /// Its bytes.
        body: Vec<u8>,
    },
    /// A session is up: the peer has proved to be alive and to hold its key.
    Up {
        /// The peer.
        peer: PeerId,
        /// Its present life.
        incarnation: Incarnation,
    },
    /// The peer has proved to be a later incarnation than the one known; it has forgotten everything.
    Restarted {
        /// The peer.
        peer: PeerId,
        /// Its former life.
        old: Incarnation,
        /// Its present life.
        new: Incarnation,
    },
    /// The session has ended, and the messages on their way have failed. The next `send` connects again.
    Down {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: DownReason,
    },
    /// An ACK message was acknowledged.
    Delivered {
        /// The receiver.
        peer: PeerId,
        /// The message.
        seq: Sequence,
    },
    /// An ACK or NACK message was given up.
    Failed {
        /// The receiver.
        peer: PeerId,
        /// The message.
        seq: Sequence,
        /// Why.
        reason: FailReason,
    },
    /// NACK messages of this peer are lost for good: its history no longer reaches back to them.
    Gap {
        /// The sender.
        peer: PeerId,
        /// How many.
        count: u64,
    },
    /// The peer and we have no version of the protocol in common: one of them is to be upgraded. Told by both
    /// sides, again for each attempt.
    Incompatible {
        /// The peer.
        peer: PeerId,
        /// Our lowest and highest version.
        ours: (u8, u8),
        /// The peer's.
        theirs: (u8, u8),
    },
    /// The peer refuses this party because it knows a later life of it: the clock from which incarnations are made
    /// was set back, or another process uses the same key.
    Superseded {
        /// The peer.
        peer: PeerId,
        /// This life.
        ours: Incarnation,
        /// The later one.
        known: Incarnation,
    },
}
