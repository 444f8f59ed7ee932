//! Everything works where little memory may be locked and `/dev/shm` is small, and what was given up is told.

mod common;

use cl::{SharedMemory, TransportChoice, TransportKind};
use cl_base::PeerId;
use common::{Mix, Receiver, Sender};
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// Set in the process that has little.
const INSIDE_VARIABLE: &str = "RCL_TEST_INSIDE";
const TEST: &str = "all_ways_work_with_8_mib_of_locked_memory_and_64_mib_of_dev_shm";
/// Such a process, with what follows run in it.
const CONFINE: &str = "mount -t tmpfs -o size=64m none /dev/shm && ulimit -l 8192 && \
                       exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$0\" \"$@\"";
const CAP_IPC_LOCK: u32 = 14;
const MIX: Mix = Mix { shortest: 8, longest: 2 << 20, announced: 8 << 20 };
/// More than all that may be locked, and than `/dev/shm` holds.
const BYTES: u64 = 150_000_000;
/// Endpoints at once, so that their rings may exceed what may be locked.
const MANY: u32 = 48;
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, shared: bool, transport: TransportChoice) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if !shared {
        config.cl.shared_memory = SharedMemory::Never;
    }
    config.cl.transport = transport;
    Endpoint::open(config).unwrap()
}

/// Moves [`BYTES`], and tells how.
fn transfer(shared: bool, transport: TransportChoice) {
    let (mut a, mut b) = (open(A, shared, transport), open(B, shared, transport));
    a.connect(B, b.local_addr());
    let (mut sender, mut receiver) = (Sender::new(1, MIX), Receiver::new(MIX));
    let start = Instant::now();
    while sender.bytes < BYTES || receiver.messages < sender.messages || !sender.is_quiet() {
        assert!(start.elapsed() < LIMIT, "{} of {} messages", receiver.messages, sender.messages);
        if sender.bytes < BYTES {
            sender.send(&mut a, B);
        }
        match a.poll() {
            None | Some(Event::Connected(B)) => {}
            Some(Event::Sent { .. }) => sender.on_sent(),
            Some(other) => panic!("{other:?}"),
        }
        while let Some(event) = b.poll() {
            if !matches!(event, Event::Connected(A)) {
                receiver.on_event(&mut b, event);
            }
        }
    }
    let path = a.cl().path(B).unwrap();
    println!(
        "{} bytes in {:.1?} by {:?} ({}); pages: {:?}",
        receiver.bytes,
        start.elapsed(),
        path.kind,
        path.reason,
        a.cl().pool().pages()
    );
    assert_eq!(path.kind == TransportKind::SharedMemory, shared);
}

/// Says what it has, and tries all ways with it.
fn inside() {
    let shm = rustix::fs::statvfs("/dev/shm").unwrap();
    assert_eq!(shm.f_blocks * shm.f_frsize, 64 << 20);
    let locked = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    assert_eq!(locked.maximum, Some(8 << 20));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap();
    assert_eq!(u64::from_str_radix(effective, 16).unwrap() >> CAP_IPC_LOCK & 1, 0, "{effective}");

    transfer(true, TransportChoice::Auto);
    transfer(false, TransportChoice::Auto);
    transfer(false, TransportChoice::Mio);
    let many: Vec<_> =
        (1..=MANY).map(|n| open(PeerId::new(n + 2, 0), false, TransportChoice::Auto)).collect();
    let given_up: Vec<_> = many.iter().filter(|e| e.cl().transport() == TransportKind::Mio).collect();
    println!("{} of {MANY} endpoints gave up io_uring", given_up.len());
    for endpoint in given_up {
        let reason = endpoint.cl().transport_reason();
        assert!(reason.contains("RLIMIT_MEMLOCK"), "{reason}");
    }
    // Once more, with whatever is left beside them.
    transfer(true, TransportChoice::Auto);
    transfer(false, TransportChoice::Auto);
    println!("all ways work");
}

#[test]
fn all_ways_work_with_8_mib_of_locked_memory_and_64_mib_of_dev_shm() {
    if std::env::var_os(INSIDE_VARIABLE).is_some() {
        return inside();
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", CONFINE])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE_VARIABLE, "1")
        .output()
        .expect("unshare: apt-get install util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("all ways work"));
}
