//! System calls that the standard library does not offer, each behind a safe function.
#![allow(unsafe_code)]

use crate::transport::{DATAGRAMS_AT_ONCE, Datagram};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Turns a C return value into a result.
fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// An anonymous file of `len` zero bytes, whose pages exist once they are touched, for other processes to
/// map: its size is sealed, so that none of them can be killed by another that cuts it short. `huge`: in
/// huge pages, if enough are set aside.
pub(crate) fn memfd(name: &std::ffi::CStr, len: u64, huge: bool) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | if huge { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: `name` is a valid C string for the duration of the call.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    rustix::fs::fcntl_add_seals(&file, SIZE_SEALS)?;
    Ok(file)
}

/// Seals that keep a file's size as it is.
pub(crate) const SIZE_SEALS: rustix::fs::SealFlags =
    rustix::fs::SealFlags::SHRINK.union(rustix::fs::SealFlags::GROW).union(rustix::fs::SealFlags::SEAL);

/// Asks for transparent huge pages.
pub(crate) fn advise_huge(map: &memmap2::MmapRaw) -> io::Result<()> {
    map.advise(memmap2::Advice::HugePage)
}

/// Asks for socket buffers of `bytes` each way: beyond the system's limit (net.core.rmem_max) if we may, up
/// to it otherwise.
pub(crate) fn set_socket_buffers(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let force = |option| {
        let size = size_of_val(&value) as libc::socklen_t;
        let at = (&raw const value).cast();
        // SAFETY: `value` is a C int, as the option wants, and outlives the call.
        check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, size) })
    };
    if force(libc::SO_RCVBUFFORCE).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    if force(libc::SO_SNDBUFFORCE).is_err() {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

/// How many datagrams a socket has had no room for, or refused, so far.
pub(crate) fn datagrams_dropped(socket: &impl AsRawFd) -> io::Result<u32> {
    /// The place of this count among those that the kernel tells (Linux 4.12); it is the last one.
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut counts = [0_u32; DROPS + 1];
    let mut size = size_of_val(&counts) as libc::socklen_t;
    let into = counts.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `size` bytes, which is what there is room for.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, into, &raw mut size)
    })?;
    Ok(counts[DROPS])
}

/// Waits until the other end of a pipe is closed. False if it is not within `limit`.
pub(crate) fn hangs_up_within(pipe: &std::io::PipeReader, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("some seconds");
        // A hang-up is reported whether it is asked for or not.
        let mut watched = [PollFd::new(pipe, PollFlags::empty())];
        match poll(&mut watched, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            reported => return reported == Ok(1) && watched[0].revents().contains(PollFlags::HUP),
        }
    }
}

/// Bytes of the smallest page there is.
pub(crate) fn page_size() -> usize {
    // SAFETY: no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the system knows its pages")
}

/// Descriptors to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub(crate) read: RawFd,
    pub(crate) write: RawFd,
}

/// Sleeps until `network.read` or `shared` is readable, `network.write` is writable (if `want_write`), or
/// `limit` has passed.
pub(crate) fn wait(
    network: Readiness,
    shared: Option<RawFd>,
    want_write: bool,
    limit: Option<Duration>,
) -> io::Result<()> {
    let watch = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let mut watched = [
        watch(network.read, libc::POLLIN),
        // A negative descriptor is not looked at.
        watch(shared.unwrap_or(-1), libc::POLLIN),
        watch(if want_write { network.write } else { -1 }, libc::POLLOUT),
    ];
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let at = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array and the limit outlive the call; a null limit and a null mask are allowed.
    match check(unsafe {
        libc::ppoll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, at, std::ptr::null())
    }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// A counter that is readable while it is not zero.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An alarm that makes a file descriptor readable; exact where `epoll_wait` counts in milliseconds.
#[derive(Debug)]
pub(crate) struct AlarmFd(OwnedFd);

impl AlarmFd {
    pub(crate) fn new() -> io::Result<AlarmFd> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        })?;
        // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
        Ok(AlarmFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Goes off once after `delay` (at once if it is zero), or never if it is `None`.
    pub(crate) fn set(&self, delay: Option<Duration>) -> io::Result<()> {
        let mut value = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if let Some(delay) = delay {
            // A zero value would disarm the timer.
            let delay = delay.max(Duration::from_nanos(1));
            value.tv_sec = libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX);
            value.tv_nsec = delay.subsec_nanos().into();
        }
        let spec =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: `spec` outlives the call; a null old value is allowed.
        check(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &spec, std::ptr::null_mut()) })?;
        Ok(())
    }
}

impl AsRawFd for AlarmFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Blocks the numbered signals for this thread (and those it starts) and returns a non-blocking
/// descriptor from which they can be read.
pub(crate) fn signalfd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &signal in signals {
        // SAFETY: `set` is initialised; a bad number is reported by the return value.
        check(unsafe { libc::sigaddset(&mut set, signal) })?;
    }
    // SAFETY: `set` is initialised; a null old set is allowed.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    // SAFETY: `set` is initialised and outlives the call.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal number waiting in a descriptor made by [`signalfd`].
pub(crate) fn read_signal(fd: &OwnedFd) -> io::Result<Option<u32>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the pointer is valid for `size` bytes.
    let n = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if n < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    if n.unsigned_abs() != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "signalfd returned a part of a record"));
    }
    // SAFETY: the kernel has written the whole record.
    Ok(Some(unsafe { info.assume_init() }.ssi_signo))
}

/// Has `command` start its process with an empty signal mask.
pub(crate) fn unblock_signals_in(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let unblock = || {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set; a null old set is allowed.
        let rc = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
        };
        if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
    };
    // SAFETY: between fork and exec the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(unblock) }
}

/// The most datagrams that the kernel cuts out of one call (UDP_MAX_SEGMENTS of older kernels).
pub(crate) const SEGMENTS_MAX: usize = 64;
/// The most bytes that it cuts: an IPv4 packet less its headers.
pub(crate) const SEGMENTED_LEN_MAX: usize = 65_507;

/// Control data of one message of two bytes, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn message(
    name: Option<&socket2::SockAddr>,
    iov: *mut libc::iovec,
    iov_len: usize,
    control: &mut Control,
) -> libc::msghdr {
    // SAFETY: a message header of zeroes is valid: no name, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(name) = name {
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.len();
    }
    message.msg_iov = iov;
    message.msg_iovlen = iov_len;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}

/// Sends the bytes of `parts` as datagrams of `segment` bytes each, the last one shorter, in one call (UDP
/// generic segmentation offload, Linux 4.18).
pub(crate) fn send_segments(
    fd: RawFd,
    to: &socket2::SockAddr,
    parts: &[io::IoSlice<'_>],
    segment: u16,
) -> io::Result<()> {
    send_to_be_cut(fd, Some(to), parts, segment, 0)
}

fn send_to_be_cut(
    fd: RawFd,
    to: Option<&socket2::SockAddr>,
    parts: &[io::IoSlice<'_>],
    segment: u16,
    flags: libc::c_int,
) -> io::Result<()> {
    let mut control = Control([0; 64]);
    // The kernel does not write through these, and an `IoSlice` is an `iovec`.
    let iov = parts.as_ptr().cast_mut().cast::<libc::iovec>();
    let mut message = message(to, iov, parts.len(), &mut control);
    // SAFETY: the control space holds a header and two bytes (checked by CMSG_SPACE being at most 64); the
    // pointers that CMSG_* compute lie within it.
    unsafe {
        let space = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
        assert!(space <= control.0.len());
        message.msg_controllen = space;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
    }
    // SAFETY: name, vectors and control data are valid for the duration of the call, and only read.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL | flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends `heads` and the `len` bytes of `file` from `at` on as one datagram, the latter from where they are: their
/// pages are lent to the kernel until the datagram has been received. The socket is connected or `to` is given.
///
/// Of a datagram put together by several calls the kernel computes the checksum, reading all of it, though nobody
/// checks it where both ends are on one host; unless it might have to cut it.
pub(crate) fn send_from(
    socket: &impl AsFd,
    to: Option<&socket2::SockAddr>,
    heads: &[io::IoSlice<'_>],
    file: &File,
    at: u64,
    len: usize,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    send_to_be_cut(fd, to, heads, SEGMENTED_LEN_MAX as u16, libc::MSG_MORE)?;
    let mut at = at;
    let why = match rustix::fs::sendfile(socket, file, Some(&mut at), len) {
        Ok(sent) if sent == len => return Ok(()),
        Ok(_) => io::ErrorKind::WouldBlock.into(),
        Err(error) => error.into(),
    };
    // What there is of the datagram must not become the beginning of the next one. It goes out; whoever gets it
    // sees that the length is wrong.
    let off: libc::c_int = 0;
    let size = size_of_val(&off) as libc::socklen_t;
    // SAFETY: `off` is a C int, as the option wants, and outlives the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_CORK, (&raw const off).cast(), size) })?;
    Err(why)
}

/// Sends some of `datagrams` in one call, at least the first: how many.
///
/// # Panics
/// If there are none, or more than [`DATAGRAMS_AT_ONCE`].
pub(crate) fn send_each(fd: RawFd, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
    const { assert!(DATAGRAMS_AT_ONCE <= libc::UIO_MAXIOV as usize) };
    assert!((1..=DATAGRAMS_AT_ONCE).contains(&datagrams.len()), "{} datagrams", datagrams.len());
    let mut names = [const { MaybeUninit::<socket2::SockAddr>::uninit() }; DATAGRAMS_AT_ONCE];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; DATAGRAMS_AT_ONCE];
    for ((datagram, name), message) in datagrams.iter().zip(&mut names).zip(&mut messages) {
        let name = name.write(datagram.to.into());
        // SAFETY: a message header of zeroes is valid: no name, no vectors, no control data.
        let message = message.write(unsafe { std::mem::zeroed() });
        message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = name.len();
        // The kernel does not write through these, and an `IoSlice` is an `iovec`.
        message.msg_hdr.msg_iov = datagram.parts.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_iovlen = datagram.parts.len();
    }
    let count = datagrams.len() as libc::c_uint;
    // SAFETY: the first `count` headers are initialised; their names and vectors are valid for the duration of the call,
    // and only read. The kernel writes the lengths into the headers.
    let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr().cast(), count, libc::MSG_NOSIGNAL) };
    check(sent).map(|sent| sent.unsigned_abs() as usize)
}

/// Asks the kernel to join datagrams of equal length from one sender before it hands them over (UDP generic
/// receive offload, Linux 5.0).
pub(crate) fn join_datagrams(fd: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is a C int, as the option wants, and outlives the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_GRO, (&raw const on).cast(), size) })?;
    Ok(())
}

/// Receives a datagram, or several joined by [`join_datagrams`]: how many bytes, from whom, and the length of
/// each datagram but the last, if there are several.
pub(crate) fn receive_joined(
    fd: RawFd,
    into: &mut [u8],
) -> io::Result<(usize, std::net::SocketAddr, Option<usize>)> {
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut header = message(None, &raw mut iov, 1, &mut control);
    let mut name = socket2::SockAddrStorage::zeroed();
    header.msg_namelen = name.size_of();
    // SAFETY: the storage is as large as is said, and any bytes are an address to it.
    header.msg_name = unsafe { std::ptr::from_mut(name.view_as::<libc::sockaddr_storage>()).cast() };
    // SAFETY: name, vector and control data are valid for writing for the duration of the call.
    let len = unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let (len, name_len) = (len.unsigned_abs(), header.msg_namelen);
    // SAFETY: the kernel has written an address of that length.
    let from = unsafe { socket2::SockAddr::new(name, name_len) };
    let from = from.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has set the length of the control data, and knows no more than there is room for.
    let segment = unsafe { segment_in(&header) };
    Ok((len, from, plausible(segment, len)))
}

/// Bytes of control data that tell the length of joined datagrams.
// SAFETY: it computes a length.
pub(crate) const JOINED_CONTROL_LEN: usize =
    unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as usize };

/// The length of each but the last of joined datagrams, `len` bytes in all, if control data received with them
/// says so.
pub(crate) fn joined_segment(control: &[u8], len: usize) -> Option<usize> {
    let mut aligned = Control([0; 64]);
    aligned.0.get_mut(..control.len())?.copy_from_slice(control);
    let mut header = message(None, std::ptr::null_mut(), 0, &mut aligned);
    header.msg_controllen = control.len();
    // SAFETY: the control data is there and aligned.
    plausible(unsafe { segment_in(&header) }, len)
}

/// A length that makes `len` bytes several datagrams.
fn plausible(segment: Option<usize>, len: usize) -> Option<usize> {
    segment.filter(|&segment| segment > 0 && segment < len)
}

/// The length of joined datagrams that the control data of a received message tells.
///
/// # Safety
/// The control data is valid for reading, as long as the header says, and aligned.
unsafe fn segment_in(header: &libc::msghdr) -> Option<usize> {
    let mut segment = None;
    // SAFETY: these pointers stay within the control data; the value of UDP_GRO is a C int.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            if ((*at).cmsg_level, (*at).cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
                let value = libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned();
                segment = usize::try_from(value).ok();
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    segment
}
