//! What carries datagrams: one small trait, [`Transport`], and those who keep it.

mod joined;
mod lanes;
#[cfg(feature = "ofi")]
mod ofi;
mod provider;
mod ring;
mod socket;
mod udp;
mod uring;
mod xdp;

#[cfg(all(fuzzing, feature = "ofi"))]
pub(crate) use ofi::fuzzing as ofi_fuzzing;
#[cfg(fuzzing)]
pub(crate) use xdp::fuzzing as xdp_fuzzing;

use crate::endpoint::Stats;
use crate::endpoint::config::{EndpointConfig, OpenError, TransportChoice};
use crate::pool::{Buf, Pool};
use cl_base::Time;
use cl_base::faults::FaultCounts;
pub use provider::{NotAProvider, OfiProvider};
use socket::UdpSocket;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use udp::Udp;

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

    /// Sends some of the datagrams of `run`, each in two parts, and tells how many, at least one. All but the
    /// last are equally long. Errors as those of [`Transport::send`].
    fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.send(to, &run[0]).map(|()| 1)
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

/// The MTU that `choice` has for an endpoint at `bind` that does not ask for another, if it depends on the
/// device.
pub(crate) fn default_mtu(choice: TransportChoice, bind: SocketAddr) -> Result<Option<usize>, OpenError> {
    if choice == TransportChoice::Xdp { xdp::default_mtu(bind).map(Some) } else { Ok(None) }
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
    if choice == TransportChoice::Xdp {
        let (xdp, reason) = xdp::open(config, mtu, pool)?;
        return Ok((Box::new(xdp), reason));
    }
    let socket = UdpSocket::bind(config.bind, config.socket_buffer)
        .map_err(|error| OpenError::Socket { addr: config.bind, error })?;
    if let TransportChoice::Ofi(provider) = choice {
        return open_ofi(socket, provider, mtu, pool);
    }
    let mut udp = Udp::new(socket, mtu, config.join_datagrams, pool);
    let reason = match choice {
        TransportChoice::Mio => "asked for".to_owned(),
        _ => match config.refuse_uring.map_or_else(|| udp.use_ring(), |kind| Err(kind.into())) {
            Ok(()) if choice == TransportChoice::Uring => "asked for".to_owned(),
            Ok(()) => "io_uring is available".to_owned(),
            Err(error) if choice == TransportChoice::Uring => return Err(OpenError::Uring(error)),
            Err(error) => {
                let reason = refusal(&error);
                tracing::warn!(%reason, "falling back to mio");
                reason
            }
        },
    };
    Ok((Box::new(udp), reason))
}

#[cfg(feature = "ofi")]
fn open_ofi(
    socket: UdpSocket,
    provider: OfiProvider,
    mtu: usize,
    pool: &Pool,
) -> Result<(Box<dyn Transport>, String), OpenError> {
    let (ofi, reason) = ofi::Ofi::open(socket, provider, mtu, pool)?;
    Ok((Box::new(ofi), reason))
}

#[cfg(not(feature = "ofi"))]
fn open_ofi(
    _socket: UdpSocket,
    _provider: OfiProvider,
    _mtu: usize,
    _pool: &Pool,
) -> Result<(Box<dyn Transport>, String), OpenError> {
    Err(OpenError::Ofi("built without the cargo feature `ofi` of the crate `cl`".to_owned()))
}

/// Why there is no io_uring, for people.
fn refusal(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring",
        Some(libc::EPERM | libc::EACCES) => "io_uring is forbidden here (by a sysctl or a container)",
        Some(libc::EINVAL) => "the kernel is older than Linux 6.1",
        Some(libc::ENOMEM) => "io_uring may lock no more memory (RLIMIT_MEMLOCK)",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor is left for io_uring",
        _ => "io_uring is refused",
    };
    format!("{why}: {error}")
}
