//! A socket of its own for the peer that nearly everything goes to.
//!
//! Sending from an unconnected socket looks up the route for every datagram, and receiving on one copies the
//! sender's address: measured, 15 % of the time of a datagram over the loopback device. So when a caller who
//! spins has sent many datagrams to one address in a row, a second socket is bound to the same address and
//! connected to that peer. The kernel gives it what comes from there, as the better match, and the first
//! socket the rest. A caller who sleeps waits for one descriptor and for microseconds: there is no
//! lane once it has slept.

use super::Datagram;
use super::socket::UdpSocket;
use crate::sys;
use socket2::{Domain, SockRef, Socket, Type};
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// Datagrams to one address in a row before it gets a lane.
const STREAK: u32 = 256;
/// While there is a lane and nothing on the first socket, that is looked at before it every so many times: others
/// must not wait for ever behind a peer that floods, nor cost a system call each time.
const MAIN_TURN: u32 = 16;
/// When the kernel has not sent a datagram from its file, so many are copied before it is asked again: 32 MiB at least,
/// beside which a datagram sent twice is nothing, and a second or less of a stream.
const COPIED_AFTER_REFUSAL: u32 = 1024;

/// A UDP socket, and perhaps a lane beside it.
pub(super) struct Lanes {
    main: UdpSocket,
    lane: Option<Lane>,
    /// Where the latest datagrams went, and how many in a row.
    latest: Option<SocketAddr>,
    streak: u32,
    turn: u32,
    /// The latest look at the first socket found something: it and the lane take turns.
    main_busy: bool,
    /// No lane is opened (any more), and one that there is closes once it is empty.
    closing: bool,
    /// Datagrams to go that are copied, for the kernel did not send one from its file.
    copies_left: u32,
    /// How often it did not.
    refusals: u64,
}

struct Lane {
    socket: std::net::UdpSocket,
    peer: SocketAddr,
}

impl Lanes {
    pub(super) fn new(main: UdpSocket) -> Lanes {
        Lanes {
            main,
            lane: None,
            latest: None,
            streak: 0,
            turn: 0,
            main_busy: false,
            closing: false,
            copies_left: 0,
            refusals: 0,
        }
    }

    /// The first socket.
    pub(super) fn main(&self) -> &UdpSocket {
        &self.main
    }

    /// Opens no lanes.
    pub(super) fn without_lanes(mut self) -> Lanes {
        self.closing = true;
        self
    }

    /// The caller wants to sleep. False while there is a lane: it is to be received from until it has closed.
    pub(super) fn park(&mut self) -> bool {
        self.closing = true;
        self.lane.is_none()
    }

    /// As [`UdpSocket::send`].
    #[inline]
    pub(super) fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let by_lane = self.send_by_lane(to, |lane| match parts {
            [whole] => lane.send(whole).map(drop),
            _ => SockRef::from(lane).send_vectored(parts).map(drop),
        });
        by_lane.unwrap_or_else(|| self.main.send(to, parts))
    }

    /// As [`Transport::send_from`](super::Transport::send_from).
    pub(super) fn send_from(
        &mut self,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        file: &File,
        at: u64,
    ) -> io::Result<bool> {
        if self.copies_left > 0 {
            self.copies_left -= 1;
            return self.send(to, parts).map(|()| false);
        }
        let (body, heads) = parts.split_last().expect("a last part");
        let by_lane = self.send_by_lane(to, |lane| sys::send_from(lane, None, heads, file, at, body.len()));
        let sent = by_lane.unwrap_or_else(|| self.main.send_from(to, heads, file, at, body.len()));
        match sent {
            Err(error) if !super::is_transient(&error) => {
                // If it does not send this in any way, it is not for the file.
                self.send(to, parts)?;
                if self.refusals == 0 {
                    tracing::info!(%error, "the kernel does not send from files here");
                }
                self.refusals += 1;
                self.copies_left = COPIED_AFTER_REFUSAL;
                Ok(false)
            }
            sent => sent.map(|()| true),
        }
    }

    /// How often the kernel did not send from a file what it then sent as a copy.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// What came of sending by the peer's own socket, or `None` if it is to be sent from the first one.
    #[inline]
    fn send_by_lane(
        &mut self,
        to: SocketAddr,
        send: impl FnOnce(&std::net::UdpSocket) -> io::Result<()>,
    ) -> Option<io::Result<()>> {
        let Some(lane) = self.lane.as_ref().filter(|lane| lane.peer == to) else {
            if !self.closing {
                self.note(to);
            }
            return None;
        };
        self.streak = 0;
        match send(&lane.socket) {
            // An earlier datagram found nobody there. This one has not been sent yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
            sent => Some(sent),
        }
    }

    /// As [`UdpSocket::send_run`].
    pub(super) fn send_run(&mut self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        self.main.send_run(to, run)
    }

    /// As [`UdpSocket::send_each`], from the first socket; but if the first of them goes to the peer with the lane, that
    /// one alone.
    pub(super) fn send_each(&mut self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        match self.lane.as_ref().map(|lane| lane.peer) {
            Some(peer) if datagrams[0].to == peer => {
                self.send(peer, &datagrams[0].parts)?;
                Ok(1)
            }
            Some(peer) => {
                let others = datagrams.iter().take_while(|datagram| datagram.to != peer).count();
                self.main.send_each(&datagrams[..others])
            }
            None => self.main.send_each(datagrams),
        }
    }

    /// As [`UdpSocket::recv`].
    #[inline]
    pub(super) fn recv(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if self.lane.is_none() {
            return self.main.recv(into);
        }
        self.turn = self.turn.wrapping_add(1);
        let main_first = self.turn.is_multiple_of(if self.main_busy { 2 } else { MAIN_TURN });
        if main_first {
            match self.recv_main(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
        let lane = self.lane.as_ref().expect("looked for above");
        match lane.socket.recv(into) {
            Ok(len) => Ok((len, lane.peer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.closing => {
                self.lane = None;
                self.main.recv(into)
            }
            // The peer of the lane may have gone, and others speak.
            Err(_) if self.main_busy => self.recv_main(into),
            // Refused: an earlier datagram found nobody there, which is no news to those who may lose some.
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    #[inline]
    fn recv_main(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.main.recv(into);
        self.main_busy = received.is_ok();
        received
    }

    /// A datagram goes to `to` from the first socket.
    #[inline]
    fn note(&mut self, to: SocketAddr) {
        if self.latest != Some(to) {
            self.latest = Some(to);
            self.streak = 0;
        }
        self.streak += 1;
        if self.streak == STREAK {
            self.open(to);
        }
    }

    #[cold]
    fn open(&mut self, peer: SocketAddr) {
        self.streak = 0;
        match connected_beside(&self.main, peer) {
            Ok(socket) => {
                tracing::debug!(%peer, "a socket of its own for the peer");
                self.lane = Some(Lane { socket, peer });
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no socket of its own for the peer");
                self.closing = true;
            }
        }
    }
}

/// A socket with the address of `main`, connected to `peer`.
fn connected_beside(main: &UdpSocket, peer: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let first = main.options();
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    sys::set_socket_buffers(&socket, main.receive_buffer() / 2)?;
    socket.set_reuse_port(true)?;
    // Only for the moment: nobody else shall share the address.
    first.set_reuse_port(true)?;
    let bound = socket.bind(&main.local_addr().into()).and_then(|()| socket.connect(&peer.into()));
    first.set_reuse_port(false)?;
    socket.set_reuse_port(false)?;
    bound.map(|()| socket.into())
}

impl AsRawFd for Lanes {
    /// The first socket's.
    fn as_raw_fd(&self) -> RawFd {
        self.main.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;
    use std::io::Write;

    const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    fn with_a_lane_to(peer: &std::net::UdpSocket) -> Lanes {
        let mut lanes = Lanes::new(UdpSocket::bind(ANY.into(), 1 << 18).unwrap());
        for _ in 0..=STREAK {
            lanes.send(peer.local_addr().unwrap(), &[IoSlice::new(b"x")]).unwrap();
            assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 1);
        }
        assert!(lanes.lane.is_some());
        lanes
    }

    #[test]
    fn what_cannot_be_sent_from_its_file_is_copied_for_a_while() {
        let peer = std::net::UdpSocket::bind(SocketAddr::from(ANY)).unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        for mut lanes in [Lanes::new(UdpSocket::bind(ANY.into(), 1 << 18).unwrap()), with_a_lane_to(&peer)] {
            let directory = File::open("/").unwrap();
            for first in [true, false] {
                let parts = [IoSlice::new(b"head"), IoSlice::new(&[7; 50_000])];
                let uncopied = lanes.send_from(peer.local_addr().unwrap(), &parts, &directory, 0);
                assert!(!uncopied.unwrap());
                let mut received = vec![0; 65_536];
                if first {
                    assert_eq!(peer.recv(&mut received).unwrap(), 4, "a beginning without an end");
                }
                assert_eq!(peer.recv(&mut received).unwrap(), 50_004);
                assert_eq!((&received[..4], received[50_003]), (&b"head"[..], 7));
            }
            assert_eq!((lanes.refusals(), lanes.copies_left), (1, COPIED_AFTER_REFUSAL - 1));
            // The kernel is asked again, with a file that it takes.
            let mut file = File::from(rustix::fs::memfd_create("lent", MemfdFlags::CLOEXEC).unwrap());
            file.write_all(&[8; 50_000]).unwrap();
            let parts = [IoSlice::new(b"head"), IoSlice::new(&[8; 50_000])];
            for uncopied in [false, true] {
                lanes.copies_left = lanes.copies_left.min(1);
                let sent = lanes.send_from(peer.local_addr().unwrap(), &parts, &file, 0);
                assert_eq!(sent.unwrap(), uncopied);
                let mut received = vec![0; 65_536];
                assert_eq!(peer.recv(&mut received).unwrap(), 50_004);
                assert_eq!((&received[..4], received[50_003]), (&b"head"[..], 8));
            }
            // Nobody is there in that network: whatever is wrong with that, the file is not.
            let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
            assert!(lanes.send_from(nowhere, &parts, &file, 0).is_err());
            assert_eq!((lanes.refusals(), lanes.copies_left), (1, 0));
        }
    }

    #[test]
    fn others_are_heard_beside_a_lane_that_is_silent() {
        let [peer, other] = [(); 2].map(|()| std::net::UdpSocket::bind(SocketAddr::from(ANY)).unwrap());
        let mut lanes = with_a_lane_to(&peer);
        const DATAGRAMS: u32 = 64;
        for _ in 0..DATAGRAMS {
            other.send_to(b"y", lanes.main().local_addr()).unwrap();
        }
        let heard = (0..MAIN_TURN + DATAGRAMS).filter(|_| lanes.recv(&mut [0; 8]).is_ok()).count();
        assert_eq!(heard, DATAGRAMS as usize);
        // And by turns with one that is not.
        for _ in 0..DATAGRAMS {
            peer.send_to(b"z", lanes.main().local_addr()).unwrap();
            other.send_to(b"y", lanes.main().local_addr()).unwrap();
        }
        let (mut buf, mut from_lane) = ([0; 8], 0);
        for _ in 0..DATAGRAMS {
            from_lane += u32::from(lanes.recv(&mut buf).unwrap().1 == peer.local_addr().unwrap());
        }
        assert!((DATAGRAMS / 2..DATAGRAMS / 2 + MAIN_TURN).contains(&from_lane), "{from_lane}");
    }
}
