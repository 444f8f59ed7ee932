use super::lanes::Lanes;
use super::mio::recv_directly;
use super::ring::{Completion, Ring};
use super::{Recv, Transport, TransportKind, UdpSocket};
use crate::pool::{Buf, Pool};
use crate::sys;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// UDP received through io_uring once the caller sleeps: one multishot receive fills pool buffers, and
/// the ring's descriptor tells of them. Until then, and for sending, non-blocking calls are faster: a
/// spinning ring was measured at 1.25 times the latency of a spinning `recv`, and batching system calls
/// without segmentation offload gains nothing.
pub(super) struct Uring {
    // Declared before the socket on which it has a receive pending, so that it is dropped first.
    ring: Ring,
    /// Rung by the kernel when there is work for a sleeper. The ring's own descriptor is not good enough for an
    /// edge-triggered epoll: deferred work does not wake those who poll it.
    bell: OwnedFd,
    socket: Lanes,
    mtu: usize,
    /// The buffer for the next datagram received directly.
    next: Option<Buf>,
    mode: Mode,
    /// The caller sleeps, or was about to.
    bell_on: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The caller has never slept: the socket is read directly.
    Direct,
    /// The ring receives.
    Ring,
}

impl Uring {
    /// Makes the ring; nothing is given to it yet.
    pub(super) fn new(socket: UdpSocket, mtu: usize) -> Result<Uring, (UdpSocket, io::Error)> {
        match sys::eventfd().and_then(|bell| Ok((Ring::new(mtu, &bell)?, bell))) {
            Ok((ring, bell)) => Ok(Uring {
                ring,
                bell,
                socket: Lanes::new(socket),
                mtu,
                next: None,
                mode: Mode::Direct,
                bell_on: true,
            }),
            Err(error) => Err((socket, error)),
        }
    }

    /// Makes this thread the one that has the ring.
    fn enable(&mut self) {
        if let Err(error) = self.ring.enable() {
            tracing::error!(%error, "io_uring cannot be enabled");
        }
    }

    /// A ring can be used by one thread only: in another one it takes another one. False if there is none.
    #[cold]
    fn renew(&mut self) -> bool {
        match Ring::new(self.mtu, &self.bell) {
            Ok(ring) => self.ring = ring,
            Err(error) => {
                tracing::error!(%error, "no io_uring for another thread");
                return false;
            }
        }
        self.enable();
        true
    }
}

impl Transport for Uring {
    fn kind(&self) -> TransportKind {
        TransportKind::Uring
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
        if self.mode == Mode::Direct {
            return recv_directly(|into| self.socket.recv(into), self.mtu, &mut self.next, pool);
        }
        if std::mem::take(&mut self.bell_on) {
            self.ring.set_bell(false);
        }
        loop {
            let error = match self.ring.next() {
                Ok(Some(Completion::Datagram(from, buf))) => {
                    self.ring.refill(pool);
                    return Recv::Datagram(from, buf);
                }
                Ok(Some(Completion::Ended)) => continue,
                Ok(Some(Completion::Failed)) => return Recv::Failed,
                Ok(None) if self.ring.is_armed() => return Recv::Empty,
                Ok(None) if !self.ring.refill(pool) => return Recv::Starved,
                // What is there already has completed by the time it is armed.
                Ok(None) => match self.ring.arm(self.socket.as_raw_fd()) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.kind() != io::ErrorKind::AlreadyExists {
                tracing::error!(%error, "io_uring does not receive");
                return if self.ring.is_armed() { Recv::Empty } else { Recv::Starved };
            }
            if !self.renew() {
                return Recv::Starved;
            }
        }
    }

    fn readable_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    fn writable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn park_directly(&self) -> Option<RawFd> {
        Some(match self.mode {
            Mode::Direct => self.socket.as_raw_fd(),
            Mode::Ring => self.bell.as_raw_fd(),
        })
    }

    fn prepare_direct_park(&mut self, pool: &Pool) -> bool {
        if self.mode == Mode::Direct {
            return self.socket.park();
        }
        // Rings of earlier sleeps; nobody rings between two of them. Nothing to read is fine.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.prepare_park(pool)
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        if !self.socket.park() {
            return false;
        }
        if self.mode == Mode::Direct {
            self.enable();
            self.mode = Mode::Ring;
            self.next = None;
            // The next `recv` arms it.
            return false;
        }
        self.ring.set_bell(true);
        self.bell_on = true;
        // Without a receive pending there is no buffer for one; waiting for one is the caller's affair.
        !self.ring.is_armed() || !self.ring.has_work()
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.socket.main().refuse_sends(count);
    }
}
