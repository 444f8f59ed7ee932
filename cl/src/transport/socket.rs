use super::Datagram;
use crate::sys;
use socket2::{Domain, SockAddr, Socket, Type};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// A bound, non-blocking UDP socket.
pub(crate) struct UdpSocket {
    socket: std::net::UdpSocket,
    local: SocketAddr,
    receive_buffer: usize,
    /// The kernel cuts datagrams for us, as far as is known.
    segments: Cell<bool>,
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
            segments: Cell::new(true),
            socket,
            #[cfg(test)]
            refuse: 0.into(),
        })
    }

    /// To look at and set its options.
    pub(crate) fn options(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&self.socket)
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

    /// Sends one datagram: `heads`, and `len` bytes of `file` from where they are ([`sys::send_from`]).
    pub(crate) fn send_from(
        &self,
        to: SocketAddr,
        heads: &[IoSlice<'_>],
        file: &File,
        at: u64,
        len: usize,
    ) -> io::Result<()> {
        #[cfg(test)]
        self.refuse_for_test()?;
        sys::send_from(&self.socket, Some(&SockAddr::from(to)), heads, file, at, len)
    }

    /// Sends some datagrams of a run (see [`Transport::send_run`](super::Transport::send_run)), in one call if
    /// the kernel cuts them.
    pub(crate) fn send_run(&self, to: SocketAddr, run: &[[IoSlice<'_>; 2]]) -> io::Result<usize> {
        let segment = run[0][0].len() + run[0][1].len();
        let count = run.len().min(sys::SEGMENTS_MAX).min(sys::SEGMENTED_LEN_MAX / segment.max(1));
        if count < 2 || !self.segments.get() {
            return self.send(to, &run[0]).map(|()| 1);
        }
        #[cfg(test)]
        self.refuse_for_test()?;
        let parts = run[..count].as_flattened();
        match sys::send_segments(self.socket.as_raw_fd(), &SockAddr::from(to), parts, segment as u16) {
            Ok(()) => Ok(count),
            Err(error) if super::is_transient(&error) => Err(error),
            Err(error) => {
                // An old kernel, or datagrams that the device does not take whole.
                tracing::info!(%error, "the kernel does not cut datagrams here");
                self.segments.set(false);
                self.send(to, &run[0]).map(|()| 1)
            }
        }
    }

    /// Sends some of `datagrams`, in one call: how many.
    pub(crate) fn send_each(&self, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        #[cfg(test)]
        self.refuse_for_test()?;
        sys::send_each(self.socket.as_raw_fd(), datagrams)
    }

    /// Asks the kernel to join datagrams. False if it does not.
    pub(crate) fn join_datagrams(&self) -> bool {
        sys::join_datagrams(self.socket.as_raw_fd())
            .inspect_err(|error| tracing::info!(%error, "the kernel does not join datagrams here"))
            .is_ok()
    }

    /// Receives one datagram or several joined ones: see [`sys::receive_joined`].
    pub(crate) fn recv_joined(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<usize>)> {
        sys::receive_joined(self.socket.as_raw_fd(), into)
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
