//! The inner door, for the reliable layer.
//!
//! `rcl` keeps what it sends until it is acknowledged, so it cannot give its buffers away. The dissertation
//! (7.1.7) integrates it with this layer for such reasons; this is all it needs to reach inside for.

use crate::endpoint::Endpoint;
use crate::message::{Received, Refusal, SendError};
use crate::pool::{Buf, Pool};
pub use crate::shm::id::ChannelId;
use cl_base::PeerId;
use std::io::IoSlice;
use std::net::SocketAddr;

/// The most parts that [`transmit`] takes.
pub const PARTS_MAX: usize = crate::endpoint::network::PARTS_MAX;

/// The most bytes that [`send_copy`] takes.
pub const CHANNEL_COPY_LEN_MAX: usize = crate::shm::INLINE_MAX;

/// Sends the concatenation of `parts` as one datagram, without copying and without keeping them: they are
/// the caller's again on return.
///
/// `lasting`: the last part, if it is in a buffer of the endpoint's, stays as it is until the receiver is known to
/// have it, or else its buffer is given back by [`renounce`]. So the kernel may send it from there, uncopied.
///
/// # Errors
/// [`Refusal::TooLong`] if it exceeds [`Endpoint::unfragmented_len_max`], and the others as they are. Nothing
/// is queued: with [`Refusal::Backpressure`] nothing was sent.
///
/// # Panics
/// If there are more than [`PARTS_MAX`] parts.
pub fn transmit(
    endpoint: &mut Endpoint,
    to: PeerId,
    addr: SocketAddr,
    parts: &[IoSlice<'_>],
    lasting: bool,
) -> Result<(), Refusal> {
    endpoint.transmit_parts(to, addr, parts, lasting)
}

/// Gives back a buffer of which `lasting` parts were transmitted that the receiver may not have received: what it
/// receives of them is what they were.
pub fn renounce(buf: Buf) {
    buf.renounce();
}

/// How many buffers a pool has, free and taken, of the class that [`Pool::alloc`] tries first for `capacity`.
pub fn buffers(pool: &Pool, capacity: usize) -> usize {
    pool.region(capacity).map_or(0, |region| region.count)
}

/// The channel of shared memory to `peer`, if messages to it go that way. On a channel they arrive in order
/// and none is lost, until [`next_closed`] names it.
pub fn channel(endpoint: &Endpoint, peer: PeerId) -> Option<ChannelId> {
    endpoint.channel_to(peer)
}

/// The channel that a message came through, if it came through shared memory.
#[inline]
pub fn channel_of(received: &Received) -> Option<ChannelId> {
    received.channel
}

/// Hands a message over through a channel. A sleeping receiver is woken by [`Endpoint::flush`] or
/// [`Endpoint::poll`], not by this.
///
/// # Errors
/// [`Refusal::Backpressure`] if the channel is full, and [`Refusal::Unresolved`] if it is closed.
#[inline]
pub fn send(endpoint: &mut Endpoint, channel: ChannelId, buf: Buf) -> Result<(), SendError> {
    endpoint.send_on(channel, buf)
}

/// As [`send`], for a copy of a message of at most [`CHANNEL_COPY_LEN_MAX`] bytes: a word (little-endian in the
/// receiver's buffer), if given, and `contents`.
///
/// # Errors
/// As for [`send`].
#[inline]
pub fn send_copy(
    endpoint: &mut Endpoint,
    channel: ChannelId,
    word: Option<u64>,
    contents: &[u8],
) -> Result<(), Refusal> {
    endpoint.send_copy_on(channel, word, contents)
}

/// As [`Endpoint::poll`], from the network only: what lies in shared memory stays there.
pub fn poll_network(endpoint: &mut Endpoint) -> Option<Received> {
    endpoint.flush();
    endpoint.poll_network()
}

/// True if the last look at the network found no buffer to receive into.
pub fn is_starved(endpoint: &Endpoint) -> bool {
    endpoint.is_starved()
}

/// The next channel that has closed, and whose it was. All messages that came through it have been received.
pub fn next_closed(endpoint: &mut Endpoint) -> Option<(ChannelId, PeerId)> {
    endpoint.next_closed()
}
