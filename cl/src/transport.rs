//! What carries datagrams: one small trait, [`Transport`], and those who keep it.

pub(crate) mod choose;
mod joined;
mod lanes;
#[cfg(feature = "ofi")]
pub(crate) mod ofi;
pub(crate) mod provider;
mod receive;
mod ring;
pub(crate) mod socket;
mod udp;
mod uring;
pub(crate) mod xdp;

use crate::pool::{Buf, Pool};
use crate::stats::Stats;
use cl_base::Time;
use cl_base::faults::FaultCounts;
use std::fmt;
use std::fs::File;
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
    /// UDP in Ethernet frames of our own, by AF_XDP.
    Xdp,
    /// Memory shared with another process of this host.
    SharedMemory,
    /// libfabric, by one of its providers.
    Ofi,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportKind::Uring => "uring",
            TransportKind::Mio => "mio",
            TransportKind::Xdp => "xdp",
            TransportKind::SharedMemory => "shared memory",
            TransportKind::Ofi => "ofi",
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

/// Datagrams handed to the system at once. By measurement 3 gain 12 %, 16 as much as 100, 21 %
/// (docs/PERFORMANCE.md, "Found on the way").
pub(crate) const DATAGRAMS_AT_ONCE: usize = 16;

/// A datagram and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) parts: [IoSlice<'a>; 3],
}

/// Unreliable datagrams of at most the MTU, without waiting. Addresses are those of UDP whatever carries the
/// datagrams, so that a peer is named alike over all of them.
pub(crate) trait Transport: Send {
    fn kind(&self) -> TransportKind;

    /// The address datagrams are received at.
    fn local_addr(&self) -> SocketAddr;

    /// Bytes of arrivals held until they are received; what exceeds it is lost.
    fn receive_buffer(&self) -> usize;

    /// Sends one datagram made of `parts`, which are the caller's again on return. A transient error
    /// ([`is_transient`]) means that nothing was sent and that the same call may succeed later.
    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// As [`Transport::send`]. The last of `parts` lies in `file`, too, from `at` on, and stays as it is until the
    /// receiver has it; so it need not be copied. Tells whether it was not.
    fn send_from(
        &mut self,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        _file: &File,
        _at: u64,
    ) -> io::Result<bool> {
        self.send(to, parts).map(|()| false)
    }

    /// Sends some of the datagrams of `run`, each in two parts, and tells how many, at least one. All but the
    /// last are equally long. Errors as those of [`Transport::send`].
    fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.send(to, &run[0]).map(|()| 1)
    }

    /// Sends some of `datagrams`, at most [`DATAGRAMS_AT_ONCE`], and tells how many, at least one. Errors as those of
    /// [`Transport::send`].
    fn send_each(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        self.send(datagrams[0].to, &datagrams[0].parts).map(|()| 1)
    }

    /// The next datagram.
    fn recv(&mut self, pool: &Pool) -> Recv;

    /// Becomes readable when [`Transport::recv`] may have something.
    fn readable_fd(&self) -> RawFd;

    /// Becomes writable when [`Transport::send`] may take datagrams again.
    fn writable_fd(&self) -> RawFd;

    /// Sees to it that arrivals make [`Transport::readable_fd`] readable. False if something has arrived
    /// already. Called when `recv` has had nothing.
    fn prepare_park(&mut self, pool: &Pool) -> bool;

    /// A descriptor for a caller that has nothing else to wait for, who looks whether it is readable and not
    /// whether it has become so: the quickest way to sleep, if there is one.
    fn park_directly(&self) -> Option<RawFd> {
        None
    }

    /// The caller will sleep on that descriptor. False if there may be something to receive that it does not
    /// tell of.
    fn prepare_direct_park(&mut self, _pool: &Pool) -> bool {
        true
    }

    /// When [`Transport::recv`] wants to be called though nothing has arrived.
    fn deadline(&self) -> Time {
        Time::MAX
    }

    /// Faults injected on purpose, if there is an injector.
    fn faults(&self) -> Option<FaultCounts> {
        None
    }

    /// Adds what only the transport knows to the endpoint's counters.
    fn count(&self, _stats: &mut Stats) {}

    /// Test hook: so many sends are refused as if the network were busy.
    #[cfg(test)]
    fn refuse_sends(&self, count: u32);
}

/// True for an error that means "later".
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}
