//! What carries datagrams: one small trait, [`Transport`], and those who keep it.

mod mio;
mod socket;

use crate::endpoint::{EndpointConfig, OpenError, TransportChoice};
use crate::pool::{Buf, Pool};
use socket::UdpSocket;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// The transports there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// UDP, received through io_uring.
    Uring,
    /// UDP with non-blocking calls.
    Mio,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportKind::Uring => "uring",
            TransportKind::Mio => "mio",
        })
    }
}

/// What a transport has for its endpoint.
pub(crate) enum Recv {
    /// A datagram and where it came from.
    Datagram(SocketAddr, Buf),
    /// Nothing now.
    Empty,
    /// Perhaps something, but no buffer to receive it into.
    Starved,
    /// The system reported an error; the next call may succeed.
    Failed,
}

/// Unreliable datagrams, without waiting.
pub(crate) trait Transport: Send {
    fn kind(&self) -> TransportKind;

    fn local_addr(&self) -> SocketAddr;

    /// Sends one datagram made of `parts`, which are free again on return.
    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// The next datagram.
    fn recv(&mut self, pool: &Pool) -> Recv;

    /// Becomes readable when [`Transport::recv`] may have something.
    fn readable_fd(&self) -> RawFd;

    /// Becomes writable when a send that would have blocked may succeed.
    fn writable_fd(&self) -> RawFd;

    /// Sees to it that arrivals make [`Transport::readable_fd`] readable. False if something has arrived
    /// already. Called when `recv` has had nothing.
    fn prepare_park(&mut self, pool: &Pool) -> bool;
}

/// True for an error that means "later".
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Opens the transport that `choice` asks for, and says why it is that one.
pub(crate) fn open(
    config: &EndpointConfig,
    choice: TransportChoice,
    mtu: usize,
    pool: &Pool,
) -> Result<(Box<dyn Transport>, String), OpenError> {
    if pool.capacity_max() < mtu {
        return Err(OpenError::PoolTooSmall(mtu));
    }
    let socket = UdpSocket::bind(config.bind, config.socket_buffer)
        .map_err(|error| OpenError::Socket { addr: config.bind, error })?;
    let reason = match choice {
        TransportChoice::Mio => "asked for",
        TransportChoice::Auto | TransportChoice::Uring => "io_uring is not built in yet",
    };
    Ok((Box::new(mio::Mio::new(socket, mtu)), reason.to_owned()))
}
