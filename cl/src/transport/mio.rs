use super::{Recv, Transport, TransportKind, UdpSocket};
use crate::header::HEADER_LEN;
use crate::pool::{Buf, HEADROOM, Pool};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// UDP with one non-blocking call for each datagram: works everywhere, and is the fastest way for a
/// caller that spins.
pub(super) struct Mio {
    socket: UdpSocket,
    mtu: usize,
    /// The buffer for the next datagram, kept while there is none.
    next: Option<Buf>,
}

impl Mio {
    pub(super) fn new(socket: UdpSocket, mtu: usize) -> Mio {
        Mio { socket, mtu, next: None }
    }
}

impl Transport for Mio {
    fn kind(&self) -> TransportKind {
        TransportKind::Mio
    }

    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn receive_buffer(&self) -> usize {
        self.socket.receive_buffer()
    }

    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.socket.send(to, parts)
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        recv_directly(&self.socket, self.mtu, &mut self.next, pool)
    }

    fn readable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn writable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        // epoll itself tells of what arrives after the last call of `recv`.
        true
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.socket.refuse_sends(count);
    }
}

/// Receives a datagram of at most `mtu` bytes by a non-blocking call, into `next` or a fresh buffer.
pub(super) fn recv_directly(socket: &UdpSocket, mtu: usize, next: &mut Option<Buf>, pool: &Pool) -> Recv {
    let mut buf = match next.take() {
        Some(buf) => buf,
        None => match pool.alloc(mtu) {
            Ok(mut buf) => {
                // So that the contents begin, behind our header, where those of a fresh buffer do.
                buf.set_range(HEADROOM - HEADER_LEN, HEADROOM - HEADER_LEN);
                buf
            }
            Err(_) => return Recv::Starved,
        },
    };
    match socket.recv(buf.spare_mut(mtu)) {
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
