//! What a node tells its owner, and what it hands back.

use crate::connection::CloseReason;
use crate::memory::Sink;
use cl_base::PeerId;
use std::net::SocketAddr;

/// The number of an announced message, among those of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What has happened, and what has arrived.
pub enum Event<B> {
    /// The peer has answered our call, or we its.
    Connected(PeerId),
    /// A message.
    Message {
        /// Whose it is.
        from: PeerId,
        /// The contents.
        buf: B,
    },
    /// A peer wants to send a large message: [accept](crate::Node::accept) or [reject](crate::Node::reject) it.
    Announced {
        /// Whose it is.
        from: PeerId,
        /// Its name.
        id: TransferId,
        /// Its length in bytes.
        len: u64,
    },
    /// An announced message has arrived.
    Received {
        /// Whose it is.
        from: PeerId,
        /// Its name.
        id: TransferId,
        /// Where it is.
        sink: Box<dyn Sink>,
    },
    /// An announced message of ours has arrived.
    Sent {
        /// Whom it was for.
        to: PeerId,
        /// Its name.
        id: TransferId,
    },
    /// The peer does not want an announced message of ours.
    Rejected {
        /// Whom it was for.
        by: PeerId,
        /// Its name.
        id: TransferId,
    },
    /// The connection has ended, after everything that had arrived before was handed out.
    Closed(PeerId, CloseReason),
}

impl<B> std::fmt::Debug for Event<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Connected(peer) => write!(f, "Connected({peer})"),
            Event::Message { from, .. } => write!(f, "Message from {from}"),
            Event::Announced { from, id, len } => write!(f, "Announced {id:?} of {len} bytes from {from}"),
            Event::Received { from, id, .. } => write!(f, "Received {id:?} from {from}"),
            Event::Sent { to, id } => write!(f, "Sent {id:?} to {to}"),
            Event::Rejected { by, id } => write!(f, "Rejected {id:?} by {by}"),
            Event::Closed(peer, reason) => write!(f, "Closed({peer}, {reason})"),
        }
    }
}

/// A frame to be sent: the concatenation of the two parts.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// To whom.
    pub to: PeerId,
    /// Where it is.
    pub addr: SocketAddr,
    /// The first part.
    pub head: &'a [u8],
    /// The second part, a piece of a message; often empty.
    pub body: &'a [u8],
    /// The second part is better sent from where it is, if that can be: it stays there until it is acknowledged, or else
    /// its buffer is given back by [`Memory::renounce`](crate::Memory::renounce).
    pub lasting: bool,
    /// For [`Node::not_sent`](crate::Node::not_sent).
    pub sequence: Option<u64>,
}

/// What was not accepted for sending, and why.
#[derive(Debug, thiserror::Error)]
#[error("message not sent: {reason}")]
pub struct SendError<T> {
    /// The message, unchanged.
    pub buf: T,
    /// What was in the way.
    pub reason: Refusal,
}

impl<T> SendError<T> {
    /// True if the same call may succeed a little later.
    pub fn is_backpressure(&self) -> bool {
        self.reason == Refusal::Backpressure
    }
}

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no connection to the peer, or it is being closed.
    #[error("not connected")]
    NotConnected,
    /// As much as may wait is waiting: try again after acknowledgements have come.
    #[error("the peer or the network is slower than the sender")]
    Backpressure,
    /// Longer than [`Config::message_len_max`](crate::Config::message_len_max): announce it.
    #[error("the message is too long")]
    TooLong,
}
