use super::lanes::Lanes;
use super::{Recv, Transport, TransportKind, UdpSocket};
use crate::header::HEADER_LEN;
use crate::pool::{Buf, Exhausted, HEADROOM, Pool};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// UDP with one non-blocking call for each datagram: works everywhere, and is the fastest way for a
/// caller that spins.
pub(super) struct Mio {
    socket: Lanes,
    mtu: usize,
    /// The buffer for the next datagram, kept while there is none.
    next: Option<Buf>,
    /// Datagrams may come joined.
    joins: bool,
    joined: Option<Joined>,
}

/// Datagrams of one sender that have come in one piece, less those handed up.
struct Joined {
    from: SocketAddr,
    buf: Buf,
    /// The length of each but the last.
    segment: usize,
}

/// The kernel joins at most so many bytes, and a pool that has no such buffers gets them one by one.
const JOINED_LEN_MAX: usize = 65_507;

impl Mio {
    /// `join`: datagrams of one sender may come from the kernel joined, at the price of larger buffers.
    pub(super) fn new(socket: UdpSocket, mtu: usize, join: bool, pool: &Pool) -> Mio {
        let joins = join
            && mtu < JOINED_LEN_MAX / 2
            && pool.capacity_max() >= JOINED_LEN_MAX
            && socket.join_datagrams();
        let socket = if joins { Lanes::new(socket).without_lanes() } else { Lanes::new(socket) };
        Mio { socket, mtu, next: None, joins, joined: None }
    }

    /// The next datagram of those that came joined. It gets a buffer of its own, for which it is copied: small
    /// buffers that are held on to must not keep large ones.
    fn split(&mut self, pool: &Pool) -> Recv {
        let Some(Joined { from, buf, segment }) = &mut self.joined else { return Recv::Empty };
        let (from, len) = (*from, buf.len().min(*segment));
        let Ok(mut own) = alloc(pool, len) else { return Recv::Starved };
        own.extend_from_slice(&buf[..len]);
        buf.advance(len);
        if buf.is_empty() {
            self.joined = None;
        }
        Recv::Datagram(from, own)
    }

    fn recv_joined(&mut self, pool: &Pool) -> Recv {
        if self.joined.is_some() {
            return self.split(pool);
        }
        let mut buf = match self.next.take().map_or_else(|| alloc(pool, JOINED_LEN_MAX), Ok) {
            Ok(buf) => buf,
            Err(_) => return Recv::Starved,
        };
        match self.socket.main().recv_joined(buf.spare_mut(JOINED_LEN_MAX)) {
            Ok((len, from, None)) if len > self.mtu => {
                // Longer than any of ours: as much of it as would have been received without joining.
                buf.grow(self.mtu);
                Recv::Datagram(from, buf)
            }
            Ok((len, from, None)) => {
                buf.grow(len);
                Recv::Datagram(from, buf)
            }
            Ok((len, from, Some(segment))) => {
                buf.grow(len);
                self.joined = Some(Joined { from, buf, segment });
                self.split(pool)
            }
            Err(error) => {
                self.next = Some(buf);
                if error.kind() == io::ErrorKind::WouldBlock { Recv::Empty } else { Recv::Failed }
            }
        }
    }
}

/// A buffer whose contents begin, behind our header, where those of a fresh buffer do.
fn alloc(pool: &Pool, len: usize) -> Result<Buf, Exhausted> {
    let mut buf = pool.alloc(len)?;
    buf.set_range(HEADROOM - HEADER_LEN, HEADROOM - HEADER_LEN);
    Ok(buf)
}

impl Transport for Mio {
    fn kind(&self) -> TransportKind {
        TransportKind::Mio
    }

    fn local_addr(&self) -> SocketAddr {
        self.socket.main().local_addr()
    }

    fn receive_buffer(&self) -> usize {
        self.socket.main().receive_buffer()
    }

    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.socket.send(to, parts)
    }

    fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.socket.send_run(to, run)
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        if self.joins {
            return self.recv_joined(pool);
        }
        recv_directly(|into| self.socket.recv(into), self.mtu, &mut self.next, pool)
    }

    fn readable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn writable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        // epoll itself tells of what arrives after the last call of `recv`.
        self.socket.park() && self.joined.is_none()
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.socket.main().refuse_sends(count);
    }
}

/// Receives a datagram of at most `mtu` bytes by `recv`, a non-blocking call, into `next` or a fresh buffer.
pub(super) fn recv_directly(
    recv: impl FnOnce(&mut [u8]) -> io::Result<(usize, SocketAddr)>,
    mtu: usize,
    next: &mut Option<Buf>,
    pool: &Pool,
) -> Recv {
    let mut buf = match next.take() {
        Some(buf) => buf,
        None => match alloc(pool, mtu) {
            Ok(buf) => buf,
            Err(_) => return Recv::Starved,
        },
    };
    match recv(buf.spare_mut(mtu)) {
        Ok((len, from)) => {
            buf.grow(len);
            Recv::Datagram(from, buf)
        }
        Err(error) => {
            *next = Some(buf);
            match error.kind() {
                io::ErrorKind::WouldBlock => Recv::Empty,
                _ => Recv::Failed,
            }
        }
    }
}
