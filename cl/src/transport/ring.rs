//! The io_uring part of the uring transport: one multishot receive into pool buffers.
//!
//! What the kernel may write to belongs to [`Ring`] until it has written: `lent` keeps each buffer that is
//! in the provided-buffer ring. A completion hands one of them over. On drop the receive is cancelled and
//! the buffers are withdrawn before they return to their pool. Only the thread that uses the ring may ask
//! for that; in another one the ring is closed, and the kernel's taking it apart is waited for. If that fails
//! the buffers are leaked, for a buffer lost is better than one with two writers.
#![allow(unsafe_code)]

use crate::header::HEADER_LEN;
use crate::pool::{Buf, HEADROOM, Pool};
use crate::sys;
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode};
use memmap2::MmapMut;
use socket2::{SockAddr, SockAddrStorage};
use std::io::{self, PipeReader};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::time::Duration;

/// Buffers lent to the kernel: a burst of this many datagrams is received without us.
const LENT: u16 = 128;
/// The same where datagrams come joined: each of these buffers is large and takes many.
const LENT_JOINED: u16 = 32;
/// The group the buffers are in; there is only one.
const GROUP: u16 = 0;
/// Submissions at once: one receive.
const SUBMISSIONS: u32 = 4;
/// The receive's name.
const RECEIVE: u64 = 1;
/// The kernel puts its `io_uring_recvmsg_out` (16 bytes), the sender's address and control data (the length of
/// joined datagrams) in front of the datagram. The address gets whatever makes the contents behind our own
/// header start where those of a fresh buffer do.
const ADDRESS_LEN: usize = HEADROOM - HEADER_LEN - 16 - sys::JOINED_CONTROL_LEN;
const _: () = assert!(ADDRESS_LEN >= size_of::<libc::sockaddr_in6>(), "an address must fit");
/// A wait for the cancellation on drop; it is done at once in practice.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// A wait for the kernel to take a closed ring apart: some 50 ms in practice, more on a busy machine.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the ring reports.
pub(super) enum Completion {
    /// A datagram, or joined ones and the length of each but the last.
    Arrival(SocketAddr, Buf, Option<usize>),
    /// The receive has come to an end, for want of buffers or for a reason of the kernel's.
    Ended,
    /// The receive has failed.
    Failed,
}

pub(super) struct Ring {
    uring: ManuallyDrop<IoUring>,
    /// One end of a pipe whose other end the ring has: this one hangs up when the kernel has taken a closed
    /// ring apart and uses no memory of ours any more.
    gone: PipeReader,
    /// The provided-buffer ring, `LENT` entries shared with the kernel.
    shared: MmapMut,
    /// Entries written so far, modulo 2^16.
    tail: u16,
    /// The buffer behind each buffer id the kernel may write to. `ManuallyDrop` by way of `take` on drop.
    lent: Vec<Option<Buf>>,
    /// Buffer ids without a buffer.
    vacant: Vec<u16>,
    /// The most bytes that come at once.
    len_max: usize,
    template: Template,
    enabled: bool,
    armed: bool,
}

/// The message header that tells the kernel how much room the sender's address has.
struct Template(Box<libc::msghdr>);

// SAFETY: all pointers in it are null, and it is never written to after it is made.
unsafe impl Send for Template {}

impl Ring {
    /// Makes the ring, disabled, so that the thread that enables it becomes its only user. The kernel
    /// signals `bell` when there is work and we have asked to be told ([`Ring::set_bell`]). `joins`: the `len_max` bytes
    /// that come at once may be several datagrams.
    pub(super) fn new(len_max: usize, joins: bool, bell: &OwnedFd) -> io::Result<Ring> {
        // Deferred task running came (with Linux 6.1) after all else that is needed here, so a kernel that
        // takes these flags has the rest as well.
        let uring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(2 * u32::from(LENT))
            .build(SUBMISSIONS)?;
        uring.submitter().register_eventfd(bell.as_raw_fd())?;
        let (gone, held) = io::pipe()?;
        uring.submitter().register_files(&[held.as_raw_fd()])?;
        let shared = MmapMut::map_anon(usize::from(LENT) * size_of::<BufRingEntry>())?;
        // SAFETY: `shared` is page-aligned, has `LENT` entries, and lives as long as the ring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(shared.as_ptr() as u64, LENT, GROUP, 0)?;
        }
        // SAFETY: a message header of zeroes is valid: no name, no vectors, no control data.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        template.msg_namelen = ADDRESS_LEN as libc::socklen_t;
        template.msg_controllen = sys::JOINED_CONTROL_LEN as _;
        let lent = if joins { LENT_JOINED } else { LENT };
        Ok(Ring {
            uring: ManuallyDrop::new(uring),
            gone,
            shared,
            tail: 0,
            lent: (0..lent).map(|_| None).collect(),
            vacant: (0..lent).rev().collect(),
            len_max,
            template: Template(template),
            enabled: false,
            armed: false,
        })
    }

    /// Makes this thread the one that uses the ring. In another one [`Ring::arm`] and [`Ring::next`] fail with
    /// [`io::ErrorKind::AlreadyExists`].
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            self.uring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// True while the receive is pending.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Lends the kernel buffers in place of those it has filled. False if it has none at all.
    pub(super) fn refill(&mut self, pool: &Pool) -> bool {
        let before = self.tail;
        while let Some(id) = self.vacant.pop() {
            let Ok(mut buf) = pool.alloc(self.len_max) else {
                self.vacant.push(id);
                break;
            };
            let (address, len) = buf.raw_slot();
            let len = len.min(HEADROOM - HEADER_LEN + self.len_max) as u32;
            let at = usize::from(self.tail % LENT) * size_of::<BufRingEntry>();
            assert!(at + size_of::<BufRingEntry>() <= self.shared.len());
            // SAFETY: the entry lies within `shared`, which is aligned for it, and is not the kernel's: only
            // entries between its head and the published tail are, and there are never more than `LENT`.
            let entry = unsafe { &mut *self.shared.as_mut_ptr().add(at).cast::<BufRingEntry>() };
            entry.set_addr(address as u64);
            entry.set_len(len);
            entry.set_bid(id);
            self.lent[usize::from(id)] = Some(buf);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            // SAFETY: `shared` begins with the first entry, whose reserved field is the tail; the kernel
            // reads it while we write, hence the atomic.
            let tail = unsafe {
                let tail = BufRingEntry::tail(self.shared.as_ptr().cast());
                AtomicU16::from_ptr(tail.cast_mut())
            };
            // Release: the kernel sees the entries before the tail that covers them.
            tail.store(self.tail, Ordering::Release);
        }
        self.vacant.len() < self.lent.len()
    }

    /// Starts the receive. What has arrived already completes at once.
    pub(super) fn arm(&mut self, socket: RawFd) -> io::Result<()> {
        assert!(!self.armed, "one receive at a time");
        let receive =
            opcode::RecvMsgMulti::new(Fd(socket), &*self.template.0, GROUP).build().user_data(RECEIVE);
        // SAFETY: the template lives as long as the ring, and the buffers it may write to are in `lent`.
        unsafe { self.uring.submission().push(&receive) }
            .map_err(|_| io::Error::other("the submission queue is full"))?;
        self.uring.submitter().submit_and_wait(0)?;
        self.armed = true;
        Ok(())
    }

    /// Says whether the bell shall become readable when there is work: it costs the kernel some time for each datagram.
    pub(super) fn set_bell(&mut self, on: bool) {
        let completion = self.uring.completion();
        if on {
            completion.enable_eventfd()
        } else {
            completion.disable_eventfd()
        }
        // Whoever looks for work after this must not look before it.
        fence(Ordering::SeqCst);
    }

    /// True if [`Ring::next`] may have something.
    pub(super) fn has_work(&mut self) -> bool {
        if !self.armed || !self.uring.completion().is_empty() {
            return true;
        }
        let submission = self.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// The next completion.
    pub(super) fn next(&mut self) -> io::Result<Option<Completion>> {
        let mut entry = self.uring.completion().next();
        if entry.is_none() && self.has_work() && self.armed {
            // Runs the deferred work, which is what receives.
            self.uring.submitter().submit()?;
            entry = self.uring.completion().next();
        }
        Ok(entry.map(|entry| self.complete(&entry)))
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Completion {
        if !cqueue::more(entry.flags()) {
            self.armed = false;
        }
        let Some(id) = cqueue::buffer_select(entry.flags()) else {
            return match -entry.result() {
                libc::ENOBUFS | libc::ECANCELED | 0 => Completion::Ended,
                _ => Completion::Failed,
            };
        };
        let mut buf = self.lent[usize::from(id)].take().expect("the kernel returns what it was lent");
        self.vacant.push(id);
        let written = usize::try_from(entry.result()).unwrap_or(0);
        let from = self.contents(&mut buf, written);
        match from {
            Some((from, segment)) => Completion::Arrival(from, buf, segment),
            None => Completion::Failed,
        }
    }

    /// Makes what the kernel has received the contents of `buf`, and finds its sender and, of joined datagrams,
    /// the length of each but the last.
    fn contents(&self, buf: &mut Buf, written: usize) -> Option<(SocketAddr, Option<usize>)> {
        buf.set_range(0, written);
        let out = RecvMsgOut::parse(buf, &self.template.0).ok()?;
        if out.is_name_data_truncated() {
            return None;
        }
        let len = out.payload_data().len();
        let from = socket_addr(out.name_data())?;
        let segment = sys::joined_segment(out.control_data(), len);
        let start = HEADROOM - HEADER_LEN;
        buf.set_range(start, start + len);
        Some((from, segment))
    }
}

/// The address in the bytes of a `sockaddr`.
fn socket_addr(name: &[u8]) -> Option<SocketAddr> {
    let mut storage = SockAddrStorage::zeroed();
    if name.len() > storage.size_of() as usize {
        return None;
    }
    // SAFETY: the storage is plain bytes, at least `name.len()` of them, and any bytes are a valid value.
    let addr = unsafe {
        let to = (&raw mut storage).cast::<u8>();
        std::ptr::copy_nonoverlapping(name.as_ptr(), to, name.len());
        SockAddr::new(storage, name.len() as libc::socklen_t)
    };
    addr.as_socket()
}

impl Ring {
    /// Takes the buffers back from the kernel. False if this thread may not, or it does not give them.
    fn withdraw(&self) -> bool {
        let submitter = self.uring.submitter();
        let cancelled = !self.armed || {
            let timeout = io_uring::types::Timespec::from(CANCEL_TIMEOUT);
            match submitter.register_sync_cancel(Some(timeout), CancelBuilder::user_data(RECEIVE)) {
                Ok(()) => true,
                // It has ended already; its last completion was not read.
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
        };
        cancelled && submitter.unregister_buf_ring(GROUP).is_ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let withdrawn = self.withdraw();
        // SAFETY: it is used no more, here or later.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if !withdrawn && !sys::hangs_up_within(&self.gone, TEARDOWN_TIMEOUT) {
            tracing::error!("io_uring does not give its buffers back; they are lost");
            std::mem::forget(std::mem::take(&mut self.lent));
        }
    }
}
