use super::Recv;
use super::ring::{Completion, Ring};
use crate::pool::{Buf, Pool};
use crate::sys;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// UDP received through io_uring once the caller sleeps: one multishot receive fills pool buffers, and
/// a bell tells of them. Until then, and for sending, non-blocking calls are faster: a spinning ring was measured
/// at 1.25 times the latency of a spinning `recv`, and a batch of datagrams sent through a ring gains less than
/// `sendmmsg` (docs/PERFORMANCE.md, "Found on the way").
pub(super) struct RingReceiver {
    ring: Ring,
    /// Rung by the kernel when there is work for a sleeper. The ring's own descriptor is not good enough for an
    /// edge-triggered epoll: deferred work does not wake those who poll it.
    bell: OwnedFd,
    len_max: usize,
    joins: bool,
    has_taken_over: bool,
    /// The caller sleeps, or was about to.
    bell_on: bool,
}

impl RingReceiver {
    /// Makes the ring; nothing is given to it yet. `len_max`: the most bytes that come at once. `joins`: these
    /// may be several datagrams.
    pub(super) fn new(len_max: usize, joins: bool) -> io::Result<RingReceiver> {
        let bell = sys::eventfd()?;
        let ring = Ring::new(len_max, joins, &bell)?;
        Ok(RingReceiver { ring, bell, len_max, joins, has_taken_over: false, bell_on: true })
    }

    /// True once the caller has slept: the ring receives from then on.
    #[inline]
    pub(super) fn has_taken_over(&self) -> bool {
        self.has_taken_over
    }

    /// The next datagram, or several joined ones with the length of each but the last; or why there is none.
    pub(super) fn recv(
        &mut self,
        socket: RawFd,
        pool: &Pool,
    ) -> Result<(SocketAddr, Buf, Option<usize>), Recv> {
        if std::mem::take(&mut self.bell_on) {
            self.ring.set_bell(false);
        }
        loop {
            let error = match self.ring.next() {
                Ok(Some(Completion::Arrival(from, buf, segment))) => {
                    self.ring.refill(pool);
                    return Ok((from, buf, segment));
                }
                Ok(Some(Completion::Ended)) => continue,
                Ok(Some(Completion::Failed)) => return Err(Recv::Failed),
                Ok(None) if self.ring.is_armed() => return Err(Recv::Empty),
                Ok(None) if !self.ring.refill(pool) => return Err(Recv::Starved),
                // What is there already has completed by the time it is armed.
                Ok(None) => match self.ring.arm(socket) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.kind() != io::ErrorKind::AlreadyExists {
                tracing::error!(%error, "io_uring does not receive");
                return Err(if self.ring.is_armed() { Recv::Empty } else { Recv::Starved });
            }
            if !self.renew() {
                return Err(Recv::Starved);
            }
        }
    }

    /// Sees to it that arrivals ring the bell. False if something has arrived already, or if this thread is to
    /// receive from the ring first.
    pub(super) fn prepare_park(&mut self) -> bool {
        if !self.has_taken_over {
            self.enable();
            self.has_taken_over = true;
            // The next `recv` arms it.
            return false;
        }
        self.ring.set_bell(true);
        self.bell_on = true;
        // Without a receive pending there is no buffer for one; waiting for one is the caller's affair.
        !self.ring.is_armed() || !self.ring.has_work()
    }

    /// Forgets that the bell has been rung, for one who looks whether it has: to be called before
    /// [`RingReceiver::prepare_park`].
    pub(super) fn hush(&self) {
        // Nothing to read is fine.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
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
        match Ring::new(self.len_max, self.joins, &self.bell) {
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

impl AsRawFd for RingReceiver {
    /// The bell's.
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}
