//! Which transport carries an endpoint's datagrams.

use super::provider::OfiProvider;
use super::socket::UdpSocket;
use super::udp::Udp;
use super::{Transport, xdp};
use crate::config::{EndpointConfig, OpenError, TransportChoice};
use crate::pool::Pool;
use std::io;
use std::net::SocketAddr;

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
    let (ofi, reason) = super::ofi::Ofi::open(socket, provider, mtu, pool)?;
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
