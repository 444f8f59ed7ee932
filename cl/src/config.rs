use crate::counters::Counters;
use crate::header::HEADER_LEN;
use crate::inject::{FAULTS_VARIABLE, Injection, InjectionError};
use crate::pool::PoolConfig;
use crate::shm::INLINE_MAX;
use crate::transport::provider::OfiProvider;
use cl_base::PeerId;
use std::io;
use std::net::SocketAddr;

/// The environment variable that overrides [`EndpointConfig::transport`]: `uring`, `mio`, `xdp`, `ofi` (or
/// `ofi:` and the name of a libfabric provider) or `auto`.
pub const TRANSPORT_VARIABLE: &str = "GHIDRAH_CL_TRANSPORT";

/// The environment variable that overrides [`EndpointConfig::xdp_mode`]: `auto`, `native`, `generic` or
/// `zerocopy`.
pub const XDP_MODE_VARIABLE: &str = "GHIDRAH_CL_XDP";

/// The largest UDP payload over IPv4.
const MTU_MAX: usize = 65_507;
/// The smallest useful MTU: what every IPv6 link carries, less headers.
const MTU_MIN: usize = 512;
/// An Ethernet frame less IPv6 and UDP headers.
const MTU_ETHERNET: usize = 1452;
/// The loopback device takes the largest datagrams, and fewer of them cost less. Just within the 64 KiB
/// buffers of the default pool beside the kernel's own header.
const MTU_LOOPBACK: usize = 65_000;

/// Which transport carries the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// io_uring where the system has and permits it, mio elsewhere. Never AF_XDP, which attaches a program to
    /// a device and so must be asked for.
    #[default]
    Auto,
    /// UDP with io_uring, or an error.
    Uring,
    /// UDP with non-blocking calls and epoll.
    Mio,
    /// UDP in Ethernet frames of our own, past the kernel's network stack, by AF_XDP: for less latency than a
    /// socket's, for one endpoint on each device, bound to an IPv4 address of it. Needs `CAP_NET_ADMIN`,
    /// `CAP_NET_RAW` and `CAP_BPF`. Filters and accounting of the kernel (netfilter, rp_filter) do not
    /// see these datagrams, and no UDP checksum protects them: that the contents are right is for the layers
    /// above to check. All endpoints that talk to each other must have the same MTU.
    Xdp,
    /// libfabric, by the provider of that name or the best. Needs the cargo feature `ofi` and, where it runs,
    /// the library.
    Ofi(OfiProvider),
}

/// How AF_XDP is coupled to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Whichever is faster for the kind of device and can be had: the driver's own support first, save
    /// for veth pairs.
    #[default]
    Auto,
    /// By the driver.
    Native,
    /// Behind the driver, for any device.
    Generic,
    /// By the driver, which lets the device read and write the pool's buffers itself. Not every driver can.
    ZeroCopy,
}

impl XdpMode {
    /// This mode, unless [`XDP_MODE_VARIABLE`] says otherwise.
    pub(crate) fn or_from_environment(self) -> Result<XdpMode, OpenError> {
        match std::env::var_os(XDP_MODE_VARIABLE) {
            None => Ok(self),
            Some(value) => {
                let value = value.to_string_lossy();
                value.parse().map_err(|()| OpenError::UnknownXdpMode(value.into_owned()))
            }
        }
    }
}

impl std::str::FromStr for XdpMode {
    type Err = ();
    fn from_str(s: &str) -> Result<XdpMode, ()> {
        match s {
            "auto" => Ok(XdpMode::Auto),
            "native" => Ok(XdpMode::Native),
            "generic" => Ok(XdpMode::Generic),
            "zerocopy" => Ok(XdpMode::ZeroCopy),
            _ => Err(()),
        }
    }
}

impl TransportChoice {
    /// This choice, unless [`TRANSPORT_VARIABLE`] says otherwise.
    pub(crate) fn or_from_environment(self) -> Result<TransportChoice, OpenError> {
        match std::env::var_os(TRANSPORT_VARIABLE) {
            None => Ok(self),
            Some(value) => {
                let value = value.to_string_lossy();
                value.parse().map_err(|()| OpenError::UnknownTransport(value.into_owned()))
            }
        }
    }
}

impl std::str::FromStr for TransportChoice {
    type Err = ();
    fn from_str(s: &str) -> Result<TransportChoice, ()> {
        match s {
            "auto" => Ok(TransportChoice::Auto),
            "uring" => Ok(TransportChoice::Uring),
            "mio" => Ok(TransportChoice::Mio),
            "xdp" => Ok(TransportChoice::Xdp),
            "ofi" => Ok(TransportChoice::Ofi(OfiProvider::BEST)),
            _ => match s.strip_prefix("ofi:") {
                Some(provider) => provider.parse().map(TransportChoice::Ofi).map_err(drop),
                None => Err(()),
            },
        }
    }
}

/// Whether to share memory with peers on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedMemory {
    /// With those that run as the same user and share it, too; messages to others go by the network.
    Auto(SharedMemoryConfig),
    /// With nobody.
    Never,
}

/// How to share memory with peers on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemoryConfig {
    /// Bytes of the ring for each peer and direction, rounded up to a power of two of at least 8 KiB. The
    /// default of 16 KiB stays in a processor's first-level cache, with the ring of the other direction: a message of
    /// 64 bytes then takes two thirds of the time that it takes with 64 KiB. A longer ring takes longer bursts.
    pub ring_len: usize,
    /// Messages of up to so many bytes are copied into the ring, longer ones are lent where they lie. At most
    /// 1024 (the default); 0 lends everything but empty messages.
    pub copy_max: usize,
}

impl Default for SharedMemoryConfig {
    fn default() -> SharedMemoryConfig {
        SharedMemoryConfig { ring_len: 16 << 10, copy_max: INLINE_MAX }
    }
}

/// How to open an [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Whose endpoint it is: the source of what is sent, and the only destination accepted.
    pub me: PeerId,
    /// The address to bind; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// The transport; the environment variable [`TRANSPORT_VARIABLE`] overrides it.
    pub transport: TransportChoice,
    /// The largest datagram in bytes, `cl`'s header included. `None` stands for 65000 on a loopback
    /// address and with libfabric, for what the device carries with AF_XDP, and for what Ethernet carries
    /// elsewhere.
    pub mtu: Option<usize>,
    /// The buffers; the class that holds a datagram is also what received messages wait in.
    pub pool: PoolConfig,
    /// Whether to share memory with peers on the same host.
    pub shared_memory: SharedMemory,
    /// Over UDP: the kernel may hand over datagrams of one sender joined (generic receive offload), which saves
    /// most of the work where the MTU is Ethernet's. Every datagram is then received into a buffer of 64 KiB,
    /// and copied out of it if it came with others. For a receiver of streams, such as `rcl`, that gives
    /// buffers back at once.
    pub join_datagrams: bool,
    /// Bytes the socket buffers for sending and for receiving, as far as the system allows.
    pub socket_buffer: usize,
    /// Faults to inject on purpose, if any; the environment variable [`FAULTS_VARIABLE`] overrides it.
    pub faults: Option<Injection>,
    /// How AF_XDP is coupled to the device; the environment variable [`XDP_MODE_VARIABLE`] overrides it.
    pub xdp_mode: XdpMode,
    /// Whether to let other processes read the counters, without disturbing this one ([`crate::counters`]).
    pub counters: Counters,
    /// Test hook: as if the system had refused io_uring with this error.
    #[doc(hidden)]
    pub refuse_uring: Option<io::ErrorKind>,
}

impl EndpointConfig {
    /// The defaults for `me` at `bind`.
    pub fn new(me: PeerId, bind: SocketAddr) -> EndpointConfig {
        EndpointConfig {
            me,
            bind,
            transport: TransportChoice::Auto,
            mtu: None,
            pool: PoolConfig::default(),
            shared_memory: SharedMemory::Auto(SharedMemoryConfig::default()),
            join_datagrams: false,
            socket_buffer: 4 << 20,
            faults: None,
            xdp_mode: XdpMode::Auto,
            counters: Counters::Auto,
            refuse_uring: None,
        }
    }

    /// The faults to inject: these, unless [`FAULTS_VARIABLE`] says otherwise.
    pub(crate) fn faults_or_from_environment(&self) -> Result<Option<Injection>, OpenError> {
        match std::env::var_os(FAULTS_VARIABLE) {
            None => Ok(self.faults),
            Some(value) => {
                let value = value.to_string_lossy();
                let injection = value.parse().map_err(|e| OpenError::Faults(value.into_owned(), e))?;
                Ok(Some(injection))
            }
        }
    }

    /// The MTU. `device`: what the device carries, if the transport depends on it.
    pub(crate) fn mtu_checked(
        &self,
        choice: TransportChoice,
        device: Option<usize>,
    ) -> Result<usize, OpenError> {
        let mtu = match self.mtu.or(device) {
            Some(mtu) => mtu,
            None if self.bind.ip().is_loopback() || matches!(choice, TransportChoice::Ofi(_)) => MTU_LOOPBACK,
            None => MTU_ETHERNET,
        };
        const { assert!(MTU_MIN > HEADER_LEN) };
        if (MTU_MIN..=MTU_MAX).contains(&mtu) { Ok(mtu) } else { Err(OpenError::Mtu(mtu)) }
    }
}

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The environment variable names no transport.
    #[error("{TRANSPORT_VARIABLE}={0:?} names no transport: use uring, mio, xdp, ofi, ofi:PROVIDER or auto")]
    UnknownTransport(String),
    /// The environment variable does not describe faults.
    #[error(
        "{FAULTS_VARIABLE}={0:?}: {1} (an example: drop=1%,delay=2ms@5%,corrupt=1e-6/byte,seed=7,side=out)"
    )]
    Faults(String, #[source] InjectionError),
    /// The environment variable names no mode of AF_XDP.
    #[error("{XDP_MODE_VARIABLE}={0:?} names no mode: use auto, native, generic or zerocopy")]
    UnknownXdpMode(String),
    /// The MTU is out of range.
    #[error("an MTU of {0} bytes is not within {MTU_MIN}..={MTU_MAX}")]
    Mtu(usize),
    /// The buffer pool could not be made.
    #[error("buffer pool: {0}")]
    Pool(#[source] io::Error),
    /// No class of the pool holds a datagram.
    #[error("no buffer of the pool holds a datagram of {0} bytes")]
    PoolTooSmall(usize),
    /// The socket could not be opened.
    #[error("socket at {addr}: {error}")]
    Socket {
        /// The address to bind.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// io_uring was asked for and is not to be had.
    #[error("io_uring: {0}")]
    Uring(#[source] io::Error),
    /// AF_XDP was asked for and is not to be had, for the reason given.
    #[error("AF_XDP: {0}")]
    Xdp(String),
    /// libfabric was asked for and is not to be had.
    #[error("libfabric: {0}")]
    Ofi(String),
    /// The runtime's own descriptors could not be made.
    #[error("event loop: {0}")]
    EventLoop(#[source] io::Error),
}

impl OpenError {
    /// Whether another socket has the address, so that the same call may succeed when that one is closed.
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, OpenError::Socket { error, .. } if error.kind() == io::ErrorKind::AddrInUse)
    }
}
