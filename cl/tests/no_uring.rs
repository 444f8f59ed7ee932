//! Where io_uring is forbidden, as in many containers, everything works over mio, and one log line says so.

// A seccomp filter is set by system calls.
#![allow(unsafe_code)]

use cl::runtime::{Core, Policy, RuntimeConfig, Service, spawn};
use cl::{
    Endpoint, EndpointConfig, OpenError, Received, SharedMemory, SharedMemoryConfig, TransportChoice,
    TransportKind,
};
use cl_base::PeerId;
use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

const ALICE: PeerId = PeerId::new(1, 0);
const BOB: PeerId = PeerId::new(2, 0);
const LIMIT: Duration = Duration::from_secs(10);

/// Empty, small, at both sides of the longest copied and of the longest unfragmented one, fragmented.
const LENS: [usize; 10] = [0, 1, 64, 1024, 1025, 8192, 64_968, 64_969, 200_000, 1 << 20];

/// From now on this process logs, and the kernel refuses io_uring to this thread and to those it starts, as containers do.
fn forbid_uring() {
    log();
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // A number that differs skips the next instruction.
    let unless = |number: libc::c_long| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: number as u32,
    };
    let give = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        // The number of the system call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        unless(libc::SYS_io_uring_setup),
        statement(give, refuse),
        unless(libc::SYS_io_uring_enter),
        statement(give, refuse),
        unless(libc::SYS_io_uring_register),
        statement(give, refuse),
        statement(give, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes numbers only.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(promised, 0, "{}", io::Error::last_os_error());
    // SAFETY: the program and its instructions live until the call returns, and the kernel copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "seccomp: {}", io::Error::last_os_error());
    // SAFETY: the filter refuses it before the kernel looks at the pointer.
    let uring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<u8>()) };
    assert_eq!((uring, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
}

fn config(me: PeerId, shared_memory: SharedMemory) -> EndpointConfig {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    EndpointConfig { shared_memory, transport: TransportChoice::Auto, ..EndpointConfig::new(me, bind) }
}

fn sharing() -> SharedMemory {
    SharedMemory::Auto(SharedMemoryConfig::default())
}

/// Sends messages of every length to BOB, who sends them back.
fn exchange(a: &mut Endpoint, mut turn: impl FnMut()) {
    for (round, len) in (0..20).flat_map(|round| LENS.map(|len| (round, len))) {
        let sent = (0..len).map(|i| (i * 31 + round) as u8).collect::<Vec<_>>();
        a.send(BOB, a.alloc_copy(&sent).unwrap()).unwrap();
        let start = Instant::now();
        let back = loop {
            turn();
            if let Some(received) = a.poll() {
                break received;
            }
            assert!(start.elapsed() < LIMIT, "{len} bytes do not come back: {:?}", a.stats());
        };
        assert!(back.from == BOB && back.buf[..] == sent[..], "{len} bytes, round {round}");
    }
    assert_eq!(a.stats().drops.total(), 0);
}

thread_local! {
    /// What this thread has logged.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to [`LOGGED`].
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of level `level` that this thread has logged.
fn logged(level: &str) -> Vec<String> {
    let text = LOGGED.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    text.lines().filter(|line| line.contains(level)).map(str::to_owned).collect()
}

/// From now on this process logs. One subscriber for all threads: with one for a thread, an event that another thread
/// meets first, without a subscriber, may be lost.
fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init());
}

#[test]
fn an_endpoint_opens_over_mio_and_one_line_says_why() {
    forbid_uring();
    let endpoint = Endpoint::open(config(ALICE, sharing())).unwrap();
    assert_eq!(endpoint.transport(), TransportKind::Mio);
    assert!(endpoint.transport_reason().contains("io_uring is forbidden here"), "{endpoint:?}");
    let warnings = logged("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("falling back to mio") && warnings[0].contains("io_uring is forbidden here"),
        "{warnings:?}"
    );
    assert!(logged("ERROR").is_empty());
}

#[test]
fn who_insists_on_it_is_refused() {
    forbid_uring();
    let insisting = EndpointConfig { transport: TransportChoice::Uring, ..config(ALICE, sharing()) };
    let error = Endpoint::open(insisting).unwrap_err();
    assert!(matches!(&error, OpenError::Uring(why) if why.raw_os_error() == Some(libc::EPERM)), "{error}");
}

#[test]
fn messages_of_every_length_travel_by_the_network_and_through_shared_memory() {
    forbid_uring();
    for (shared_memory, kind) in
        [(SharedMemory::Never, TransportKind::Mio), (sharing(), TransportKind::SharedMemory)]
    {
        let mut a = Endpoint::open(config(ALICE, shared_memory.clone())).unwrap();
        let mut b = Endpoint::open(config(BOB, shared_memory)).unwrap();
        a.resolve(BOB, b.local_addr());
        assert_eq!(a.path(BOB).unwrap().kind, kind);
        exchange(&mut a, || {
            if let Some(received) = b.poll() {
                b.send_to(received.from, received.addr, received.buf).unwrap();
            }
        });
        assert_eq!(a.stats().shared_sent > 0, kind == TransportKind::SharedMemory);
    }
}

/// Sends every message back; stops when it is told to.
struct Echo;

impl Service for Echo {
    type Mail = ();

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if received.buf[..] == *b"stop" {
            cx.stop();
            return;
        }
        cx.endpoint_mut().send_to(received.from, received.addr, received.buf).unwrap();
    }
}

#[test]
fn a_runtime_that_parks_is_woken() {
    forbid_uring();
    for shared_memory in [SharedMemory::Never, sharing()] {
        let endpoint = config(BOB, shared_memory.clone());
        let config_of_runtime = RuntimeConfig { policy: Policy::Park, ..RuntimeConfig::new(Some(endpoint)) };
        let echo = spawn("echo", config_of_runtime, |_| Echo).unwrap();
        let mut client = Endpoint::open(config(ALICE, shared_memory)).unwrap();
        client.resolve(BOB, echo.local_addr().unwrap());
        // We sleep as well, when there is nothing for us.
        exchange(&mut client, || std::thread::sleep(Duration::from_micros(100)));
        client.send(BOB, client.alloc_copy(b"stop").unwrap()).unwrap();
        echo.join().unwrap();
    }
}
