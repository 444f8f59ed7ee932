use crate::sys;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// A bound, non-blocking UDP socket.
pub(crate) struct UdpSocket {
    socket: std::net::UdpSocket,
    local: SocketAddr,
    receive_buffer: usize,
    /// So many sends are refused as if the network were busy.
    #[cfg(test)]
    refuse: std::sync::atomic::AtomicU32,
}

impl UdpSocket {
    /// Binds to `addr`, with buffers of `buffer` bytes each way or as many as the system allows.
    pub(crate) fn bind(addr: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        sys::set_socket_buffers(&socket, buffer)?;
        let receive_buffer = socket.recv_buffer_size()?;
        if receive_buffer < buffer {
            tracing::info!(
                granted = receive_buffer,
                wanted = buffer,
                "small socket buffer: bursts may be lost (net.core.rmem_max)"
            );
        }
        socket.bind(&addr.into())?;
        let socket = std::net::UdpSocket::from(socket);
        Ok(UdpSocket {
            local: socket.local_addr()?,
            receive_buffer,
            socket,
            #[cfg(test)]
            refuse: 0.into(),
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Sends one datagram made of `parts`.
    pub(crate) fn send(&self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(test)]
        self.refuse_for_test()?;
        if let [whole] = parts {
            return self.socket.send_to(whole, to).map(drop);
        }
        socket2::SockRef::from(&self.socket).send_to_vectored(parts, &SockAddr::from(to)).map(drop)
    }

    #[cfg(test)]
    pub(crate) fn refuse_sends(&self, count: u32) {
        self.refuse.store(count, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(test)]
    fn refuse_for_test(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        match self.refuse.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)) {
            Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
            Err(_) => Ok(()),
        }
    }

    /// Receives one datagram into `into`; the rest of a longer one is lost.
    pub(crate) fn recv(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(into)
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
