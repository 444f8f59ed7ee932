//! Messages carried by libfabric between two processes: this one and a copy of the test program that echoes.
#![cfg(feature = "ofi")]

use cl::runtime::{Core, LoopStats, Policy, RuntimeConfig, Service, TimerId, run, spawn};
use cl::{
    Buf, Endpoint, EndpointConfig, OpenError, Received, SharedMemory, Stats, TransportChoice, TransportKind,
};
use cl_base::PeerId;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const ALICE: PeerId = PeerId::new(1, 0);
const BOB: PeerId = PeerId::new(2, 0);
const CAROL: PeerId = PeerId::new(3, 0);
const NOBODY: PeerId = PeerId::new(4, 0);

/// The providers of Debian's libfabric that work everywhere.
const PROVIDERS: [&str; 3] = ["tcp", "shm", "udp"];
/// Those to which a process may be killed in the middle of a call. shm has locks in the memory it shares, which a
/// process that is killed while it holds one leaves taken for ever.
const PROVIDERS_WITHOUT_LOCKS: [&str; 2] = ["tcp", "udp"];
/// Enough on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const ROLE: &str = "CL_OFI_TEST_ROLE";
const PROVIDER: &str = "CL_OFI_TEST_PROVIDER";
const BIND: &str = "CL_OFI_TEST_BIND";
const INSTANCE: &str = "CL_OFI_TEST_PRINCIPAL";
const LOOPBACK: &str = "127.0.0.1:0";

fn config(me: PeerId, provider: &str, bind: &str) -> EndpointConfig {
    let transport = format!("ofi:{provider}").parse().unwrap();
    // The parties are on one host here.
    let shared_memory = SharedMemory::Never;
    EndpointConfig { transport, shared_memory, ..EndpointConfig::new(me, bind.parse().unwrap()) }
}

fn open(me: PeerId, provider: &str, bind: &str) -> Endpoint {
    let started = Instant::now();
    loop {
        match Endpoint::open(config(me, provider, bind)) {
            Ok(endpoint) => return endpoint,
            // The one that was killed is not quite gone.
            Err(error) if error.is_address_in_use() && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{provider}: {error}"),
        }
    }
}

/// The other process. It is killed on drop.
struct Other {
    child: Child,
    addr: SocketAddr,
}

impl Other {
    fn start(me: PeerId, provider: &str, bind: &str) -> Other {
        let mut child = role("echo")
            .env(PROVIDER, provider)
            .env(BIND, bind)
            .env(INSTANCE, me.to_u64().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let addr = out.lines().find_map(|line| line.unwrap().strip_prefix("listening ")?.parse().ok());
        Other { child, addr: addr.expect("the other process says where it is") }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        remove_shm_files(self.child.id());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The files that the provider shm has for a process.
fn shm_files(process: u32) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path());
    let prefix = format!("{process}:");
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix)).collect()
}

/// Removes what the provider shm leaves when its process is killed.
fn remove_shm_files(process: u32) {
    shm_files(process).iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// This program again, to play a role.
fn role(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "another_process", "--ignored", "--nocapture"]).env(ROLE, role);
    command.env_remove(cl::TRANSPORT_VARIABLE);
    command
}

/// Not a test of its own: what the tests start as another process.
#[test]
#[ignore = "the other tests start it"]
fn another_process() {
    let variable = |name: &str| std::env::var(name).unwrap();
    match variable(ROLE).as_str() {
        "echo" => {
            std::thread::spawn(|| {
                // Whoever started this is gone.
                let _ = std::io::stdin().read(&mut [0]);
                std::process::exit(0);
            });
            let me = PeerId::from_u64(variable(INSTANCE).parse().unwrap());
            let mut endpoint = open(me, &variable(PROVIDER), &variable(BIND));
            println!("\nlistening {}", endpoint.local_addr());
            let mut idle = 0;
            loop {
                match endpoint.poll() {
                    // Asleep it is not killed in the middle of a call.
                    None if idle > 1000 => std::thread::sleep(Duration::from_millis(1)),
                    None => {
                        idle += 1;
                        std::thread::yield_now();
                    }
                    Some(Received { from, addr, buf, .. }) => {
                        idle = 0;
                        if let Err(error) = endpoint.send_to(from, addr, buf) {
                            assert!(error.is_backpressure(), "{error}");
                        }
                    }
                }
            }
        }
        "residue" => {
            let _first = Endpoint::open(config(ALICE, "shm", LOOPBACK)).unwrap();
            let files = shm_files(std::process::id());
            let [first] = &files[..] else { panic!("{files:?}") };
            // As if a process with this id had been killed.
            let (names, count) = first.to_str().unwrap().rsplit_once(':').unwrap();
            let count: u32 = count.parse().unwrap();
            let taken = [1, 2].map(|more| format!("{names}:{}", count + more));
            for name in taken {
                std::fs::copy(first, name).unwrap();
            }
            let second = Endpoint::open(config(BOB, "shm", LOOPBACK));
            remove_shm_files(std::process::id());
            println!("\nopened: {}", second.is_ok());
        }
        "open" => {
            let error = Endpoint::open(config(ALICE, "tcp", LOOPBACK)).unwrap_err();
            println!("\nerror: {error}");
        }
        role => panic!("no role {role:?}"),
    }
}

fn filled(endpoint: &Endpoint, len: usize, seed: usize) -> Buf {
    let mut buf = endpoint.alloc(len).unwrap();
    buf.resize(len);
    buf.iter_mut().enumerate().for_each(|(i, b)| *b = ((i * 7 + seed) >> 2) as u8);
    buf
}

fn poll_within(endpoint: &mut Endpoint, limit: Duration) -> Option<Received> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(received) = endpoint.poll() {
            return Some(received);
        }
        std::thread::yield_now();
    }
    None
}

/// Sends small messages to `to` until the echo of one of them comes back; what comes beside it is ignored.
fn until_echoed(endpoint: &mut Endpoint, to: PeerId) {
    let started = Instant::now();
    static MARKS: AtomicU32 = AtomicU32::new(0);
    let mark = format!("mark {}", MARKS.fetch_add(1, Ordering::Relaxed));
    while started.elapsed() < PATIENCE {
        let message = endpoint.alloc_copy(mark.as_bytes()).unwrap();
        match endpoint.send(to, message) {
            Ok(()) => {}
            Err(error) => assert!(error.is_backpressure(), "{error}"),
        }
        while let Some(received) = poll_within(endpoint, Duration::from_millis(10)) {
            if received.from == to && received.buf[..] == *mark.as_bytes() {
                return;
            }
        }
    }
    panic!("{to} does not answer: {:?}", endpoint.stats());
}

#[test]
fn messages_of_every_length_go_both_ways() {
    for provider in PROVIDERS {
        let other = Other::start(BOB, provider, LOOPBACK);
        let mut me = open(ALICE, provider, LOOPBACK);
        assert_eq!(me.transport(), TransportKind::Ofi);
        assert!(me.transport_reason().contains(provider), "{}", me.transport_reason());
        println!("{}", me.transport_reason());
        me.resolve(BOB, other.addr);
        let one = me.unfragmented_len_max();
        let lens = [0, 1, 7, 100, 1000, 4000, 5000, 16_000, 33_000, one - 1, one, one + 1, 2 * one, 100_000];
        for (seed, len) in lens.into_iter().chain([1 << 20, 0]).enumerate() {
            let sent = filled(&me, len, seed);
            let copy = sent.to_vec();
            me.send(BOB, sent).unwrap();
            let received = poll_within(&mut me, PATIENCE)
                .unwrap_or_else(|| panic!("{provider}: no echo of {len} bytes: {:?}", me.stats()));
            assert_eq!((received.from, received.addr), (BOB, other.addr));
            assert!(received.buf[..] == copy[..], "{provider}: another echo of {len} bytes");
            if len <= one {
                assert_eq!(received.buf.headroom(), cl::HEADROOM);
            }
        }
        let Stats { copies, drops, .. } = me.stats();
        assert_eq!(drops.total(), 0, "{provider}: {drops:?}");
        assert!(copies > 0, "{provider}: a large datagram is copied before it is sent");
    }
}

#[test]
fn many_messages_under_way_at_once_arrive_in_order() {
    for provider in PROVIDERS {
        let other = Other::start(BOB, provider, LOOPBACK);
        let mut me = open(ALICE, provider, LOOPBACK);
        me.resolve(BOB, other.addr);
        until_echoed(&mut me, BOB);
        let (mut sent, mut received) = (0u32, 0u32);
        let started = Instant::now();
        const COUNT: u32 = 20_000;
        while received < COUNT {
            assert!(started.elapsed() < 3 * PATIENCE, "{provider}: {received} of {sent}: {:?}", me.stats());
            if sent < COUNT && sent - received < 32 {
                let mut message = me.alloc(10_000).unwrap();
                message.resize(if sent.is_multiple_of(10) { 10_000 } else { 20 });
                message[..4].copy_from_slice(&sent.to_le_bytes());
                if me.send(BOB, message).is_ok() {
                    sent += 1;
                }
            }
            while let Some(echo) = me.poll() {
                if echo.buf.starts_with(b"mark") {
                    continue;
                }
                assert_eq!(echo.buf[..4], received.to_le_bytes(), "{provider}");
                received += 1;
            }
        }
        println!("{provider}: {COUNT} echoes in {:?}", started.elapsed());
        assert_eq!(me.stats().drops.total(), 0, "{provider}: {:?}", me.stats());
    }
}

#[test]
fn a_party_that_is_restarted_is_found_again() {
    for provider in PROVIDERS {
        let mut me = open(ALICE, provider, LOOPBACK);
        let mut bind = LOOPBACK.to_owned();
        for life in 0..4 {
            let other = Other::start(BOB, provider, &bind);
            bind = other.addr.to_string();
            me.resolve(BOB, other.addr);
            let started = Instant::now();
            until_echoed(&mut me, BOB);
            std::thread::sleep(Duration::from_millis(50));
            println!("{provider}: life {life} answers after {:?}", started.elapsed());
        }
    }
}

#[test]
fn a_party_that_is_killed_or_never_was_stops_nobody() {
    for provider in PROVIDERS_WITHOUT_LOCKS {
        let mut victim = Other::start(BOB, provider, LOOPBACK);
        let other = Other::start(CAROL, provider, LOOPBACK);
        // It takes questions and does not answer.
        let mute = UdpSocket::bind(LOOPBACK).unwrap();
        let mut me = open(ALICE, provider, LOOPBACK);
        me.resolve(BOB, victim.addr);
        me.resolve(CAROL, other.addr);
        me.resolve(NOBODY, mute.local_addr().unwrap());
        until_echoed(&mut me, BOB);
        let started = Instant::now();
        let mut longest = Duration::ZERO;
        let mut killed = false;
        let mut pings = 0;
        while started.elapsed() < Duration::from_secs(3) {
            if !killed && started.elapsed() > Duration::from_millis(300) {
                victim.kill();
                killed = true;
            }
            for (to, len) in [(BOB, 30_000), (NOBODY, 200), (BOB, 100), (NOBODY, 50_000)] {
                let Ok(mut message) = me.alloc(len) else { continue };
                message.resize(len);
                let before = Instant::now();
                if let Err(error) = me.send(to, message) {
                    assert!(error.is_backpressure(), "{provider}: {error}");
                }
                longest = longest.max(before.elapsed());
            }
            until_echoed(&mut me, CAROL);
            pings += 1;
        }
        println!("{provider}: {pings} echoes beside a dead party, the longest send took {longest:?}");
        assert!(longest < Duration::from_secs(1), "{provider}: a send took {longest:?}");
        assert!(pings > 20, "{provider}: only {pings} echoes beside a dead party: {:?}", me.stats());
        assert!(me.stats().drops.unreachable > 0, "{provider}: {:?}", me.stats());
    }
}

#[test]
fn parties_killed_one_after_the_other_do_not_use_it_up() {
    for provider in PROVIDERS {
        let other = Other::start(CAROL, provider, LOOPBACK);
        let mut me = open(ALICE, provider, LOOPBACK);
        me.resolve(CAROL, other.addr);
        for death in 0..8 {
            let mut victim = Other::start(BOB, provider, LOOPBACK);
            me.resolve(BOB, victim.addr);
            until_echoed(&mut me, BOB);
            std::thread::sleep(Duration::from_millis(50));
            victim.kill();
            let (started, before) = (Instant::now(), me.stats().drops.unreachable);
            while me.stats().drops.unreachable == before {
                assert!(started.elapsed() < PATIENCE, "{provider}: a dead party takes messages");
                if let Ok(mut message) = me.alloc(30_000) {
                    message.resize(30_000);
                    let _ = me.send(BOB, message);
                }
                me.poll();
            }
            println!("{provider}: death {death} is noticed after {:?}", started.elapsed());
            until_echoed(&mut me, CAROL);
        }
    }
}

/// Echoes, asleep in between, and notes how often it slept.
#[derive(Default)]
struct Echo {
    idle_for: Option<Duration>,
    stats: LoopStats,
}

impl Service for Echo {
    type Mail = ();

    fn start(&mut self, cx: &mut Core<()>) {
        if let Some(idle) = self.idle_for {
            cx.set_timer(cx.now() + idle, TimerId(0));
        }
    }

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if received.buf.is_empty() {
            cx.stop();
        }
        cx.endpoint_mut().send_to(received.from, received.addr, received.buf).unwrap();
    }

    fn on_timer(&mut self, cx: &mut Core<()>, _id: TimerId) {
        self.stats = cx.stats();
        cx.stop();
    }
}

fn parking(provider: &str) -> RuntimeConfig {
    RuntimeConfig { policy: Policy::Park, ..RuntimeConfig::new(Some(config(BOB, provider, LOOPBACK))) }
}

#[test]
fn a_sleeper_is_woken() {
    for provider in PROVIDERS {
        let echo = spawn("echo", parking(provider), |_| Echo::default()).unwrap();
        let mut me = open(ALICE, provider, LOOPBACK);
        me.resolve(BOB, echo.local_addr().unwrap());
        let mut longest = Duration::ZERO;
        for round in 0..100 {
            // Now awake still, now asleep for long.
            std::thread::sleep(Duration::from_millis(round % 10 * 3));
            let len = if round == 99 { 0 } else { [20, 10_000, 200_000][round as usize % 3] };
            let sent = filled(&me, len, round as usize);
            let copy = sent.to_vec();
            let started = Instant::now();
            me.send(BOB, sent).unwrap();
            let received = poll_within(&mut me, PATIENCE);
            let received = received.unwrap_or_else(|| panic!("{provider} round {round}: {:?}", me.stats()));
            assert!(received.buf[..] == copy[..], "{provider} round {round}");
            if round > 0 {
                longest = longest.max(started.elapsed());
            }
        }
        println!("{provider}: the longest echo of a sleeper took {longest:?}");
        assert!(longest < Duration::from_secs(1), "{provider}: {longest:?}");
        echo.join().unwrap();
    }
}

#[test]
fn an_idle_thread_sleeps_unless_the_provider_cannot_wake_it() {
    for (provider, parks_max) in [("tcp", 5), ("udp", 100), ("shm", 100)] {
        let echo = Echo { idle_for: Some(Duration::from_millis(500)), ..Echo::default() };
        let parks = run(echo, parking(provider)).unwrap().stats.parks;
        println!("{provider}: {parks} sleeps in 500 ms");
        assert!(parks <= parks_max, "{provider}: {parks} sleeps in 500 ms");
    }
}

#[test]
fn what_makes_no_sense_is_counted() {
    let mut me = open(ALICE, "tcp", LOOPBACK);
    let stranger = UdpSocket::bind(LOOPBACK).unwrap();
    for len in [0, 1, 64, 319, 320, 321, 1000] {
        stranger.send_to(&vec![7; len], me.local_addr()).unwrap();
    }
    let started = Instant::now();
    while me.stats().drops.control < 7 {
        assert!(me.poll().is_none());
        assert!(started.elapsed() < PATIENCE, "{:?}", me.stats());
    }
    // An answer to no question.
    let mut answer = [0u8; 320];
    answer[..8].copy_from_slice(b"GOFI\x01\x02\x01\0");
    answer[40..50].copy_from_slice(&[4, 0, 1, 0, 0, 0, 0, 0, 127, 0]);
    answer[64] = 1;
    stranger.send_to(&answer, me.local_addr()).unwrap();
    while me.stats().drops.control < 8 {
        assert!(me.poll().is_none());
        assert!(started.elapsed() < PATIENCE, "{:?}", me.stats());
    }
}

#[test]
fn the_best_provider_is_found_and_an_unknown_one_is_refused() {
    let transport: TransportChoice = "ofi".parse().unwrap();
    let any = EndpointConfig { transport, ..EndpointConfig::new(ALICE, LOOPBACK.parse().unwrap()) };
    let endpoint = Endpoint::open(any).unwrap();
    assert!(endpoint.transport_reason().contains("libfabric's first choice"));
    let error = Endpoint::open(config(ALICE, "nonsense", LOOPBACK)).unwrap_err();
    assert!(matches!(&error, OpenError::Ofi(why) if why.contains("nonsense")), "{error}");
    assert!("ofi:no/name".parse::<TransportChoice>().is_err());
}

#[test]
fn names_that_a_killed_process_has_left_are_passed_over() {
    let output = role("residue").output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("opened: true"), "{output}");
}

#[test]
fn without_the_library_the_error_says_what_to_install() {
    let output = role("open").env("GHIDRAH_LIBFABRIC", "/nonexistent/libfabric.so").output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    let error = output.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{output}"));
    assert!(error.contains("libfabric1") && error.contains("/nonexistent"), "{error}");
}
