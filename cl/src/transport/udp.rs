use super::joined::{JOINED_LEN_MAX, Joined};
use super::lanes::Lanes;
use super::receive::receive;
use super::socket::UdpSocket;
use super::uring::RingReceiver;
use super::{Datagram, Recv, Transport, TransportKind};
use crate::pool::{Buf, Pool};
use crate::stats::Stats;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// UDP with one non-blocking call for each datagram: works everywhere, and is the fastest way for a caller that
/// spins. For one that sleeps io_uring receives, where it is to be had.
pub(super) struct Udp {
    // Declared before the socket on which it has a receive pending, so that it is dropped first.
    ring: Option<RingReceiver>,
    socket: Lanes,
    mtu: usize,
    /// Datagrams may come joined.
    joins: bool,
    joined: Option<Joined>,
    /// The buffer for the next datagram, kept while there is none.
    next: Option<Buf>,
}

impl Udp {
    /// `join`: datagrams of one sender may come from the kernel joined, at the price of larger buffers.
    pub(super) fn new(socket: UdpSocket, mtu: usize, join: bool, pool: &Pool) -> Udp {
        let joins = join
            && mtu < JOINED_LEN_MAX / 2
            && pool.capacity_max() >= JOINED_LEN_MAX
            && socket.join_datagrams();
        let socket = if joins { Lanes::new(socket).without_lanes() } else { Lanes::new(socket) };
        Udp { ring: None, socket, mtu, joins, joined: None, next: None }
    }

    /// Has io_uring receive once the caller sleeps.
    pub(super) fn use_ring(&mut self) -> io::Result<()> {
        self.ring = Some(RingReceiver::new(self.len_max(), self.joins)?);
        Ok(())
    }

    /// The most bytes that come at once.
    fn len_max(&self) -> usize {
        if self.joins { JOINED_LEN_MAX } else { self.mtu }
    }

    fn recv_directly(&mut self, pool: &Pool) -> Recv {
        let (len_max, Udp { socket, joins, next, .. }) = (self.len_max(), &mut *self);
        let received = receive(len_max, next, pool, |into| match joins {
            true => socket.main().recv_joined(into).map(|(len, from, segment)| (len, (from, segment))),
            false => socket.recv(into).map(|(len, from)| (len, (from, None))),
        });
        match received {
            Ok((buf, (from, segment))) => self.hand_up(from, buf, segment, pool),
            Err(why) => why,
        }
    }

    /// What has come at once: a datagram, or several, if there is a length of each but the last.
    fn hand_up(&mut self, from: SocketAddr, mut buf: Buf, segment: Option<usize>, pool: &Pool) -> Recv {
        match segment {
            None => {
                // Of one that is longer than any of ours, as much as would have been received without joining.
                buf.truncate(self.mtu);
                Recv::Datagram(from, buf)
            }
            Some(segment) => {
                self.joined = Some(Joined::new(from, buf, segment));
                Joined::split(&mut self.joined, pool)
            }
        }
    }
}

impl Transport for Udp {
    fn kind(&self) -> TransportKind {
        if self.ring.is_some() { TransportKind::Uring } else { TransportKind::Mio }
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

    fn send_from(&mut self, to: SocketAddr, parts: &[IoSlice<'_>], file: &File, at: u64) -> io::Result<bool> {
        self.socket.send_from(to, parts, file, at)
    }

    fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.socket.send_run(to, run)
    }

    fn send_each(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        self.socket.send_each(datagrams)
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        if self.joined.is_some() {
            return Joined::split(&mut self.joined, pool);
        }
        match &mut self.ring {
            Some(ring) if ring.has_taken_over() => match ring.recv(self.socket.as_raw_fd(), pool) {
                Ok((from, buf, segment)) => self.hand_up(from, buf, segment, pool),
                Err(why) => why,
            },
            _ => self.recv_directly(pool),
        }
    }

    fn readable_fd(&self) -> RawFd {
        self.ring.as_ref().map_or(self.socket.as_raw_fd(), RingReceiver::as_raw_fd)
    }

    fn writable_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        if !self.socket.park() {
            return false;
        }
        let Some(ring) = &mut self.ring else {
            // epoll itself tells of what arrives after the last call of `recv`.
            return true;
        };
        self.next = None;
        ring.prepare_park()
    }

    fn park_directly(&self) -> Option<RawFd> {
        let ring = self.ring.as_ref().filter(|ring| ring.has_taken_over());
        Some(ring.map_or(self.socket.as_raw_fd(), RingReceiver::as_raw_fd))
    }

    fn prepare_direct_park(&mut self, _pool: &Pool) -> bool {
        self.socket.park()
            && match &mut self.ring {
                Some(ring) if ring.has_taken_over() => {
                    ring.hush();
                    ring.prepare_park()
                }
                _ => true,
            }
    }

    fn count(&self, stats: &mut Stats) {
        stats.lends_refused += self.socket.refusals();
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.socket.main().refuse_sends(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PoolConfig;
    use std::time::{Duration, Instant};

    #[test]
    fn a_run_that_the_kernel_cuts_comes_joined_whether_the_receiver_spins_or_sleeps() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        let open = || {
            let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1 << 20).unwrap();
            Udp::new(socket, 1000, true, &pool)
        };
        for sleeps in [false, true] {
            let (mut a, mut b) = (open(), open());
            if sleeps {
                if let Err(error) = b.use_ring() {
                    return eprintln!("without io_uring: {error}");
                }
                assert!(!b.prepare_park(&pool), "the ring is only being enabled");
                assert!(matches!(b.recv(&pool), Recv::Empty));
            }
            let contents: Vec<[u8; 2]> = (0..20).map(|n| [n; 2]).collect();
            let datagram = |c| [IoSlice::new(&[9; 300]), IoSlice::new(c)];
            let run: Vec<_> = contents.iter().map(|c| datagram(&c[..])).collect();
            assert_eq!(a.send_run(b.local_addr(), &run).unwrap(), run.len());
            let start = Instant::now();
            for n in 0..20 {
                let (from, buf) = loop {
                    match b.recv(&pool) {
                        Recv::Datagram(from, buf) => break (from, buf),
                        _ => assert!(start.elapsed() < Duration::from_secs(10), "datagram {n} is not there"),
                    }
                };
                assert_eq!((from, &buf[..300], &buf[300..]), (a.local_addr(), &[9; 300][..], &[n; 2][..]));
                assert_eq!(b.joined.is_some(), n < 19, "all come at once");
            }
        }
    }
}
