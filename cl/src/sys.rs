//! System calls that the standard library does not offer, each behind a safe function.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

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
