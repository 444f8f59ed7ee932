//! A socket that wakes nobody.

use crate::sys;
use crate::transport::socket::UdpSocket;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

/// A UDP socket whose datagrams wait in the kernel until its owner looks for them: for small regular messages that may
/// wait for a time that the owner wakes at anyway. Waking a sleeping process costs many times what it costs to receive one.
///
/// These are bare datagrams: no header, nothing about who sent them, no injected faults.
pub struct PolledSocket {
    socket: UdpSocket,
    dropped: u32,
}

impl PolledSocket {
    /// Binds to a free port of `ip`, with room for `buffer` bytes of what has arrived or as much as the system allows. The
    /// kernel counts the memory that a datagram takes, several times the length of a small one.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn bind(ip: IpAddr, buffer: usize) -> io::Result<PolledSocket> {
        Ok(PolledSocket { socket: UdpSocket::bind(SocketAddr::new(ip, 0), buffer)?, dropped: 0 })
    }

    /// Where it is reached.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// How much memory the kernel keeps for what has arrived, bytes.
    pub fn room(&self) -> usize {
        self.socket.receive_buffer()
    }

    /// Sends a datagram. One that arrives where nobody listens is lost.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(to, &[IoSlice::new(bytes)])
    }

    /// The next datagram that has arrived, in `into`: its length. What is longer than that is cut off. `None` if there is none.
    pub fn receive(&self, into: &mut [u8]) -> Option<usize> {
        loop {
            match self.socket.recv(into) {
                Ok((len, _)) => return Some(len),
                // Of what was sent before: nobody listened there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }

    /// How many datagrams found no room since this was asked last.
    pub fn overflowed(&mut self) -> u32 {
        // If the kernel does not tell, nothing is known of any.
        let dropped = sys::datagrams_dropped(&self.socket).unwrap_or(self.dropped);
        let since = dropped.wrapping_sub(self.dropped);
        self.dropped = dropped;
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_wait_and_those_beyond_the_room_are_counted() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let mut polled = PolledSocket::bind(ip, 64 << 10).unwrap();
        let sender = PolledSocket::bind(ip, 64 << 10).unwrap();
        let mut into = [0; 64];
        assert_eq!(polled.receive(&mut into), None);
        for byte in 0..10 {
            sender.send_to(polled.local_addr(), &[byte; 5]).unwrap();
        }
        for byte in 0..10 {
            assert_eq!(polled.receive(&mut into), Some(5));
            assert_eq!(into[..5], [byte; 5]);
        }
        assert_eq!((polled.receive(&mut into), polled.overflowed()), (None, 0));
        sender.send_to(polled.local_addr(), &[7; 100]).unwrap();
        assert_eq!(polled.receive(&mut into), Some(64), "the rest is cut off");

        let sent = 2 * polled.room() / 512;
        (0..sent).for_each(|_| sender.send_to(polled.local_addr(), &[1; 32]).unwrap());
        let received = std::iter::from_fn(|| polled.receive(&mut into)).count();
        assert!(received > 0 && received < sent, "{received} of {sent}");
        assert_eq!(polled.overflowed() as usize, sent - received);
        assert_eq!(polled.overflowed(), 0, "since it was asked last");
        sender.send_to(polled.local_addr(), &[1; 32]).unwrap();
        assert_eq!(polled.receive(&mut into), Some(32));
    }
}
