use crate::pool::Buf;
use crate::shm::id::ChannelId;
use cl_base::PeerId;
use std::io;
use std::net::SocketAddr;

/// A message that has arrived.
#[derive(Debug)]
pub struct Received {
    /// The sender as the header says: a hint, until the contents are authenticated.
    pub from: PeerId,
    /// The address it came from (of the last fragment to arrive, if there were several). Over shared memory,
    /// the network address of the sender's endpoint.
    pub addr: SocketAddr,
    /// The contents, without `cl`'s header.
    pub buf: Buf,
    /// The channel it came through, if through shared memory.
    pub(crate) channel: Option<ChannelId>,
}

/// A message that has arrived, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// As [`Received::from`].
    pub from: PeerId,
    /// As [`Received::addr`].
    pub addr: SocketAddr,
    /// The contents.
    pub contents: &'a [u8],
}

/// A message that was not accepted for sending, and why.
#[derive(Debug, thiserror::Error)]
#[error("message not sent: {reason}")]
pub struct SendError {
    /// The message, unchanged.
    pub buf: Buf,
    /// What was in the way.
    pub reason: Refusal,
}

impl SendError {
    /// True if the same send may succeed a little later.
    pub fn is_backpressure(&self) -> bool {
        matches!(self.reason, Refusal::Backpressure)
    }
}

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The network, or the reader of shared memory, does not take messages as fast as they come. To be tried again after
    /// [`Endpoint::poll`](crate::Endpoint::poll), or after an [`Endpoint::park`](crate::Endpoint::park), which is a short one then; a
    /// service of the [`runtime`](crate::runtime) sets a timer.
    #[error("the network or the peer is slower than the sender")]
    Backpressure,
    /// No address is known for the peer.
    #[error("no address is known for the peer")]
    Unresolved,
    /// Longer than [`MESSAGE_LEN_MAX`](crate::MESSAGE_LEN_MAX), or than can be counted in fragments of the MTU.
    #[error("the message is too long")]
    TooLong,
    /// The system refused the datagram for good (say, no route), with its error kind.
    #[error("the system refused it: {0}")]
    System(io::ErrorKind),
}
