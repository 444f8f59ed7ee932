//! The inner door, for the reliable layer.
//!
//! `rcl` keeps what it sends until it is acknowledged, so it cannot give its buffers away. The dissertation
//! (7.1.7) integrates it with this layer for such reasons; this is all it needs to reach inside for.

use crate::endpoint::{Endpoint, Refusal};
use cl_base::PeerId;
use std::io::IoSlice;
use std::net::SocketAddr;

/// The most parts that [`transmit`] takes.
pub const PARTS_MAX: usize = crate::endpoint::PARTS_MAX;

/// Sends the concatenation of `parts` as one datagram, without copying and without keeping them: they are
/// the caller's again on return.
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
) -> Result<(), Refusal> {
    endpoint.transmit_parts(to, addr, parts)
}
