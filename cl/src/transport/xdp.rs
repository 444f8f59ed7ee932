//! Datagrams past the kernel's network stack: an AF_XDP socket sends and receives whole Ethernet frames.
//!
//! The frames are ordinary ones, UDP over IPv4, so that a peer is named by the same address and may be on
//! an ordinary socket. A program attached to the device ([`program`]) picks the datagrams for our address and
//! port out of what arrives; everything else goes its usual way. An ordinary socket has that
//! address, too: it reserves the port, and it carries what the frames cannot: datagrams to peers without a
//! known hardware address (the kernel resolves it meanwhile) or on no network of our device, fragmented
//! ones, and those that arrive in another queue of the device than the first.
//!
//! The buffers of the pool are the memory shared with the kernel ([`xsk`]): what arrives is handed up where
//! the kernel has put it. What is sent is gathered into such a buffer, since the caller's parts are its
//! own again on return.

mod device;
mod frame;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod neighbours;
mod program;
mod ring;
mod xsk;

use super::receive::receive;
use super::socket::UdpSocket;
use super::{Datagram, Recv, Transport, TransportKind};
use crate::config::{EndpointConfig, OpenError, XdpMode};
use crate::pool::{Buf, Pool};
use crate::stats::Stats;
use device::Device;
use frame::{HEADERS_LEN, IP_UDP_LEN};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use neighbours::Neighbours;
use program::{Hook, Program};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use xsk::Xsk;

/// The ordinary socket is looked at in every so many calls of `recv`: looking costs a system call, about
/// as much as ten calls without.
const CALLS_PER_LOOK: u32 = 128;
/// Frames sent with one system call: as many as the kernel sends of them (its `TX_BATCH_SIZE`).
const FRAMES_PER_CALL: usize = 32;
/// Bytes that the default MTU leaves for the headers of IP and UDP. Those of IPv6, as for the other
/// transports, so that the MTU of all endpoints on an Ethernet is the same.
const DEFAULT_HEADERS: usize = 48;
/// A closed socket gives up its queue of the device a little later; so often, with this pause, it is awaited.
const BUSY_TRIES: usize = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A device's frames to and from one address.
pub(super) struct Xdp {
    // Dropped first: no frames are redirected to a socket that is being closed.
    _program: Program,
    xsk: Xsk,
    socket: UdpSocket,
    /// Readable when one of the two sockets is.
    either: Poll,
    local: SocketAddrV4,
    mtu: usize,
    neighbours: Neighbours,
    /// The buffer for the next datagram from the ordinary socket.
    next: Option<Buf>,
    /// Calls of `recv` until the ordinary socket is looked at.
    until_look: u32,
    /// The last call of `recv` did, and found nothing.
    looked: bool,
    /// Frames that were refused.
    malformed: u64,
}

/// The MTU of an endpoint at `bind` that does not choose one.
pub(super) fn default_mtu(bind: SocketAddr) -> Result<usize, OpenError> {
    let (_, device) = device_of(bind)?;
    Ok(device.mtu.saturating_sub(DEFAULT_HEADERS).min(xsk::FRAME_LEN_MAX - HEADERS_LEN))
}

/// Opens the transport, and says how.
pub(super) fn open(config: &EndpointConfig, mtu: usize, pool: &Pool) -> Result<(Xdp, String), OpenError> {
    let mode = config.xdp_mode.or_from_environment()?;
    let (ip, device) = device_of(config.bind)?;
    let room = (device.mtu.saturating_sub(IP_UDP_LEN)).min(xsk::FRAME_LEN_MAX - HEADERS_LEN);
    if mtu > room {
        return Err(refused(format!("a frame of {} carries {room} bytes, the MTU is {mtu}", device.name)));
    }
    let socket = UdpSocket::bind(config.bind, config.socket_buffer)
        .map_err(|error| OpenError::Socket { addr: config.bind, error })?;
    let local = SocketAddrV4::new(ip, socket.local_addr().port());
    let frame_len = HEADERS_LEN + mtu;
    let zero_copy = mode == XdpMode::ZeroCopy;
    let xsk = open_socket(&device, frame_len, zero_copy, pool)
        .map_err(|error| refused(format!("{}: {}", device.name, why(&error))))?;
    let hooks: &[Hook] = match mode {
        XdpMode::Native | XdpMode::ZeroCopy => &[Hook::Native],
        XdpMode::Generic => &[Hook::Generic],
        // Its native mode, which moves each frame into a page of its own, takes longer than the generic.
        XdpMode::Auto if device.driver == "veth" => &[Hook::Generic, Hook::Native],
        XdpMode::Auto => &[Hook::Native, Hook::Generic],
    };
    let (program, hook, failed) = attach(hooks, &device, &xsk, local, frame_len)
        .map_err(|failed| refused(format!("{}: {failed}", device.name)))?;
    let name = match hook {
        Hook::Native if zero_copy => "native mode without copying",
        Hook::Native => "native mode",
        Hook::Generic => "generic mode",
    };
    let reason = format!("asked for; {name} on {}{failed}", device.name);
    let xdp =
        Xdp::new(program, xsk, socket, device, local, mtu).map_err(|error| refused(error.to_string()))?;
    Ok((xdp, reason))
}

fn refused(why: String) -> OpenError {
    OpenError::Xdp(why)
}

fn device_of(bind: SocketAddr) -> Result<(Ipv4Addr, Device), OpenError> {
    let SocketAddr::V4(addr) = bind else {
        return Err(refused(format!("{bind} is no IPv4 address, and no other is supported")));
    };
    if addr.ip().is_unspecified() {
        return Err(refused("the address to bind must be that of a device".to_owned()));
    }
    let device = Device::with_address(*addr.ip()).map_err(|error| refused(error.to_string()))?;
    Ok((*addr.ip(), device))
}

fn open_socket(device: &Device, frame_len: usize, zero_copy: bool, pool: &Pool) -> io::Result<Xsk> {
    let mut tries = 1;
    loop {
        match Xsk::open(device.index, frame_len, zero_copy, pool) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Attaches the program by the first hook that can be had; and why the others could not.
fn attach(
    hooks: &[Hook],
    device: &Device,
    xsk: &Xsk,
    local: SocketAddrV4,
    frame_len: usize,
) -> Result<(Program, Hook, String), String> {
    let mut failed = String::new();
    for &hook in hooks {
        match Program::attach(device.index, hook, xsk.as_raw_fd(), local, frame_len) {
            Ok(program) => return Ok((program, hook, failed)),
            Err(error) => failed = format!("{failed}; not in {hook} mode: {}", why(&error)),
        }
    }
    Err(failed.trim_start_matches("; ").to_owned())
}

/// Why there is no AF_XDP, for people.
fn why(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => "another endpoint or program uses XDP there",
        Some(libc::EPERM | libc::EACCES) => "needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
        Some(libc::EAFNOSUPPORT) => "the kernel has no AF_XDP",
        Some(libc::ENOBUFS) => "no more memory may be locked (RLIMIT_MEMLOCK)",
        Some(libc::EOPNOTSUPP) => "the driver cannot",
        _ => return error.to_string(),
    };
    format!("{why}: {error}")
}

impl Xdp {
    fn new(
        program: Program,
        xsk: Xsk,
        socket: UdpSocket,
        device: Device,
        local: SocketAddrV4,
        mtu: usize,
    ) -> io::Result<Xdp> {
        let either = Poll::new()?;
        for (token, fd) in [socket.as_raw_fd(), xsk.as_raw_fd()].into_iter().enumerate() {
            either.registry().register(&mut SourceFd(&fd), Token(token), Interest::READABLE)?;
        }
        let neighbours = Neighbours::new(device, local)?;
        Ok(Xdp {
            _program: program,
            xsk,
            socket,
            either,
            local,
            mtu,
            neighbours,
            next: None,
            until_look: 0,
            looked: false,
            malformed: 0,
        })
    }

    /// Sends some of the datagrams to `to`, each given in parts, and tells how many: all that the device takes
    /// now, or one if it goes through the ordinary socket.
    fn send_all<'a, 'b: 'a>(
        &mut self,
        to: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [IoSlice<'b>]>,
    ) -> io::Result<usize> {
        let template = match to {
            SocketAddr::V4(to) => self.neighbours.template(to, self.socket.as_raw_fd()),
            SocketAddr::V6(_) => None,
        };
        let Some(template) = template else {
            let parts = datagrams.next().expect("at least one datagram");
            return self.socket.send(to, parts).map(|()| 1);
        };
        let (mut sent, mut refused) = (0, None);
        for parts in datagrams {
            let len = parts.iter().map(|part| part.len()).sum();
            if let Err(error) = self.xsk.put(template, parts, len) {
                refused = Some(error);
                break;
            }
            sent += 1;
        }
        // Also when nothing was added: the device may have forgotten the earlier ones.
        self.xsk.kick()?;
        match refused {
            Some(error) if sent == 0 => Err(error),
            _ => Ok(sent),
        }
    }

    /// The next datagram from the ordinary socket, if it is its turn.
    fn look(&mut self, pool: &Pool) -> Option<Recv> {
        if self.until_look > 0 {
            self.until_look -= 1;
            return None;
        }
        let Xdp { socket, next, mtu, .. } = self;
        match receive(*mtu, next, pool, |into| socket.recv(into)) {
            Err(Recv::Empty) => {
                self.until_look = CALLS_PER_LOOK;
                self.looked = true;
                None
            }
            // There may be more.
            Ok((buf, from)) => Some(Recv::Datagram(from, buf)),
            Err(why) => Some(why),
        }
    }
}

impl Transport for Xdp {
    fn kind(&self) -> TransportKind {
        TransportKind::Xdp
    }

    fn local_addr(&self) -> SocketAddr {
        self.local.into()
    }

    fn receive_buffer(&self) -> usize {
        self.xsk.receive_buffer()
    }

    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.send_all(to, std::iter::once(parts)).map(drop)
    }

    fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.send_all(to, run.iter().take(FRAMES_PER_CALL).map(|parts| &parts[..]))
    }

    fn send_each(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        let mut sent = 0;
        for Datagram { to, parts } in datagrams.iter().take(FRAMES_PER_CALL) {
            let template = match to {
                SocketAddr::V4(to) => self.neighbours.template(*to, self.socket.as_raw_fd()),
                SocketAddr::V6(_) => None,
            };
            // What the device does not take goes by itself, and tells why.
            let len = parts.iter().map(|part| part.len()).sum();
            if template.is_none_or(|template| self.xsk.put(template, parts, len).is_err()) {
                break;
            }
            sent += 1;
        }
        if sent == 0 {
            return self.send(datagrams[0].to, &datagrams[0].parts).map(|()| 1);
        }
        self.xsk.kick()?;
        Ok(sent)
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        self.looked = false;
        if let Some(received) = self.look(pool) {
            return received;
        }
        if let Some(mut buf) = self.xsk.recv() {
            if self.xsk.is_low() {
                self.xsk.refill(pool);
            }
            return match frame::parse(&buf, self.local) {
                Some((from, datagram)) => {
                    buf.truncate(datagram.end);
                    buf.advance(datagram.start);
                    Recv::Datagram(from.into(), buf)
                }
                None => {
                    self.malformed += 1;
                    // One at a time, so that a flood of them does not keep us here.
                    Recv::Empty
                }
            };
        }
        // While there is nothing to do.
        if self.xsk.has_unsent() {
            // What is wrong will be said to the next who sends.
            let _ = self.xsk.kick();
        }
        if self.xsk.refill(pool) { Recv::Empty } else { Recv::Starved }
    }

    fn readable_fd(&self) -> RawFd {
        self.either.as_raw_fd()
    }

    fn writable_fd(&self) -> RawFd {
        self.xsk.as_raw_fd()
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        if !self.looked {
            self.until_look = 0;
        }
        self.looked && !self.xsk.has_frames() && !self.xsk.has_unsent()
    }

    fn count(&self, stats: &mut Stats) {
        stats.drops.frame += self.malformed;
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.socket.refuse_sends(count);
    }
}
