//! An AF_XDP socket whose frames lie in buffers of the pool.
//!
//! The slots of one size class are the memory shared with the kernel (the UMEM). A buffer belongs either to
//! its owner outside or to the kernel: those lent to it, to receive into or to send from, are kept in
//! [`Xsk::lent`] until the kernel gives them back.
#![allow(unsafe_code)]

use super::frame::{FRAME_LEN_MIN, HEADERS_LEN, Template};
use super::ring::Ring;
use crate::pool::{Buf, HEADROOM, Pool, Region};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Entries of each ring, and so the most buffers the kernel has to receive into: enough for the fragments
/// of a message of 1 MiB at an Ethernet's MTU.
const RING: u32 = 1024;
/// Buffers to send from. A device sends what it is given at once, or is slower than we are.
const SENDING: usize = 128;
/// The kernel leaves this many bytes free in front of a frame it has received (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;
/// What a chunk of shared memory may measure: `XDP_UMEM_MIN_CHUNK_SIZE`, and a page.
const CHUNK_MIN: usize = 2048;
const CHUNK_MAX: usize = 4096;
/// In an address that the kernel returns, the upper 16 bits are an offset to add to the others.
const OFFSET_SHIFT: u32 = 48;
/// The size of a page, to which the shared memory is aligned.
const PAGE: usize = 4096;

/// The longest frame that can be sent and received.
pub(super) const FRAME_LEN_MAX: usize = CHUNK_MAX - KERNEL_HEADROOM;

pub(super) struct Xsk {
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    fill: Ring<u64>,
    completion: Ring<u64>,
    socket: OwnedFd,
    region: Region,
    /// Where the shared memory begins, the page of the region's first byte.
    base: usize,
    /// The capacity to ask the pool for.
    capacity: usize,
    chunk: usize,
    /// By slot of the region: the buffers the kernel has.
    lent: Box<[Option<Buf>]>,
    /// How many of these it may receive into, and how many it should have.
    receiving: usize,
    receiving_wanted: usize,
    /// Buffers to send from; the one used last, which is still in the cache, is used first.
    sending: Vec<Buf>,
    /// Frames are in the ring that the kernel has not looked at.
    unsent: bool,
    zero_copy: bool,
}

impl Xsk {
    /// Opens a socket for frames of at most `frame_len` bytes on queue 0 of `device`, without or with
    /// copying in the kernel.
    pub(super) fn open(device: u32, frame_len: usize, zero_copy: bool, pool: &Pool) -> io::Result<Xsk> {
        let capacity = CHUNK_MIN.max(KERNEL_HEADROOM + frame_len) - HEADROOM;
        let region = pool
            .region(capacity)
            .ok_or_else(|| io::Error::other(format!("no buffer of the pool holds {capacity} bytes")))?;
        let chunk = region.slot_len.min(CHUNK_MAX);
        let base = region.start & !(PAGE - 1);
        let socket = socket()?;
        let fd = socket.as_raw_fd();
        let memory = libc::xdp_umem_reg {
            addr: base as u64,
            len: (region.start + region.stride * region.count - base) as u64,
            chunk_size: chunk as u32,
            headroom: 0,
            flags: libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
            tx_metadata_len: 0,
        };
        set_option(fd, libc::XDP_UMEM_REG, &memory)?;
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            set_option(fd, ring, &RING)?;
        }
        let at = ring_offsets(fd)?;
        let mut xsk = Xsk {
            rx: Ring::map(fd, libc::XDP_PGOFF_RX_RING as u64, at.rx, RING)?,
            tx: Ring::map(fd, libc::XDP_PGOFF_TX_RING as u64, at.tx, RING)?,
            fill: Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, at.fr, RING)?,
            completion: Ring::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, at.cr, RING)?,
            socket,
            base,
            capacity,
            chunk,
            lent: (0..region.count).map(|_| None).collect(),
            receiving: 0,
            // At most half of them, so that as many can wait to be looked at, or be written.
            receiving_wanted: (region.count / 2).min(RING as usize),
            sending: Vec::with_capacity(SENDING),
            unsent: false,
            zero_copy,
            region,
        };
        for _ in 0..SENDING.min(xsk.region.count / 8) {
            let Some(buf) = xsk.take(pool) else { break };
            xsk.sending.push(buf);
        }
        xsk.refill(pool);
        let kind = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        bind(fd, device, kind | libc::XDP_USE_NEED_WAKEUP)?;
        Ok(xsk)
    }

    /// Bytes of frames that can arrive before one is taken.
    pub(super) fn receive_buffer(&self) -> usize {
        self.receiving_wanted * self.chunk
    }

    /// A buffer of the region. The pool may give one of a larger class when it has no other.
    fn take(&self, pool: &Pool) -> Option<Buf> {
        let mut buf = pool.alloc(self.capacity).ok()?;
        let at = buf.raw_slot().0 as usize;
        let fits = self.slot_at(at).is_some() && !(self.zero_copy && at % PAGE + self.chunk > PAGE);
        fits.then_some(buf)
    }

    /// The slot of the region that contains the address.
    fn slot_at(&self, address: usize) -> Option<usize> {
        let slot = address.checked_sub(self.region.start)? / self.region.stride;
        (slot < self.region.count).then_some(slot)
    }

    /// Gives the kernel a buffer; returns the address of its slot by the kernel's count.
    fn lend(&mut self, mut buf: Buf) -> u64 {
        let at = buf.raw_slot().0 as usize;
        let slot = self.slot_at(at).expect("a buffer of the region");
        assert!(self.lent[slot].replace(buf).is_none(), "a buffer is lent once");
        (at - self.base) as u64
    }

    /// Takes back the buffer that the kernel's address lies in, with the place of the address in it.
    fn reclaim(&mut self, address: u64) -> (Buf, usize) {
        let offset = address >> OFFSET_SHIFT;
        let at = self.base + (address - (offset << OFFSET_SHIFT) + offset) as usize;
        let slot = self.slot_at(at).expect("the kernel returns what it was lent");
        let buf = self.lent[slot].take().expect("the kernel returns what it was lent");
        (buf, at - self.region.start - slot * self.region.stride)
    }

    /// Lends the kernel buffers to receive into in place of those it has filled. False if it has none.
    pub(super) fn refill(&mut self, pool: &Pool) -> bool {
        let before = self.receiving;
        while self.receiving < self.receiving_wanted {
            let Some(buf) = self.take(pool) else { break };
            let address = self.lend(buf);
            assert!(self.fill.push(address), "the ring is as long as what is lent");
            self.receiving += 1;
        }
        if self.receiving != before {
            self.fill.publish();
            if self.fill.needs_wakeup() {
                wake_receiver(self.socket.as_raw_fd());
            }
        }
        self.receiving > 0
    }

    /// True if so many of the lent buffers are filled that it is time to [`Xsk::refill`].
    pub(super) fn is_low(&self) -> bool {
        self.receiving < self.receiving_wanted / 2
    }

    /// The next frame received.
    pub(super) fn recv(&mut self) -> Option<Buf> {
        let frame = self.rx.pop()?;
        let (mut buf, start) = self.reclaim(frame.addr);
        self.receiving -= 1;
        buf.set_range(start, start + frame.len as usize);
        Some(buf)
    }

    /// True if [`Xsk::recv`] has something.
    pub(super) fn has_frames(&self) -> bool {
        !self.rx.is_empty()
    }

    /// Adds a frame to those that [`Xsk::kick`] sends: headers by `template`, and a datagram of `len` bytes in
    /// `parts`. `WouldBlock` means that the device has not sent the earlier ones yet.
    pub(super) fn put(&mut self, template: &Template, parts: &[IoSlice<'_>], len: usize) -> io::Result<()> {
        while let Some(address) = self.completion.pop() {
            let (buf, _) = self.reclaim(address);
            self.sending.push(buf);
        }
        let frame_len = (HEADERS_LEN + len).max(FRAME_LEN_MIN);
        if frame_len > self.chunk {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let Some(mut buf) = self.sending.pop() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        buf.set_range(0, frame_len);
        let (headers, mut rest) = buf.split_at_mut(HEADERS_LEN);
        headers.copy_from_slice(&template.headers(len));
        for part in parts {
            let (to, behind) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = behind;
        }
        // The padding of a short frame must not tell what was there before.
        rest.fill(0);
        let addr = self.lend(buf);
        let pushed = self.tx.push(libc::xdp_desc { addr, len: frame_len as u32, options: 0 });
        assert!(pushed, "the ring is longer than there are buffers to send from");
        self.tx.publish();
        Ok(())
    }

    /// Has the kernel send what is in the ring, if it wants to be told. A device that is busy is told again
    /// by the next call.
    pub(super) fn kick(&mut self) -> io::Result<()> {
        self.unsent = false;
        if !self.tx.needs_wakeup() {
            return Ok(());
        }
        // SAFETY: no data and no address are passed.
        let rc = unsafe {
            let fd = self.socket.as_raw_fd();
            libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if rc >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {
                self.unsent = true;
                Ok(())
            }
            // The device is down: the frame stays in the ring, and is lost as any may be.
            _ => Err(error),
        }
    }

    /// True if [`Xsk::kick`] is to be called again.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent
    }
}

impl AsRawFd for Xsk {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Xsk {
    fn drop(&mut self) {
        if self.zero_copy {
            // The device may write to them for a while after the socket is closed: a buffer lost is better
            // than one with two writers. In the other modes closing the socket ends all use of them.
            std::mem::forget(std::mem::take(&mut self.lent));
        }
    }
}

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option<T>(socket: RawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let at = (&raw const *value).cast();
    // SAFETY: the value is of the option's type, and outlives the call. The memory an `xdp_umem_reg` names is
    // the pool's, which buffers lent to the kernel keep mapped and the kernel itself keeps in existence.
    check(unsafe { libc::setsockopt(socket, libc::SOL_XDP, option, at, size_of::<T>() as u32) }).map(drop)
}

fn ring_offsets(socket: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&offsets) as libc::socklen_t;
    let at = (&raw mut offsets).cast();
    // SAFETY: the kernel writes at most `len` bytes.
    check(unsafe { libc::getsockopt(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, at, &mut len) })?;
    if len as usize == size_of_val(&offsets) {
        Ok(offsets)
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than Linux 5.4"))
    }
}

fn bind(socket: RawFd, device: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: device,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the address is of the socket's family, and outlives the call.
    check(unsafe { libc::bind(socket, (&raw const address).cast(), size_of_val(&address) as u32) }).map(drop)
}

/// Tells a driver without copying that there are buffers to receive into.
fn wake_receiver(socket: RawFd) {
    // SAFETY: no data and no address are asked for. It has nothing to report: what fails here is tried again.
    unsafe {
        let (data, from, len) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        libc::recvfrom(socket, data, 0, libc::MSG_DONTWAIT, from, len);
    }
}
