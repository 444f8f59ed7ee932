//! Half round trips between two network namespaces over a veth pair: AF_XDP against a UDP socket, both with
//! a caller that spins, in turns. Needs root, iproute2 and two processors of its own.
//!
//! `cargo bench -p cl --bench xdp`; run by `cargo test` it makes a few rounds only, so as not to rot.

#[path = "../tests/netns/mod.rs"]
mod netns;

use cl::{Endpoint, EndpointConfig, TransportChoice, XdpMode};
use cl_base::PeerId;
use core_affinity::CoreId;
use netns::{Namespaces, Side};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const CLIENT: PeerId = PeerId::new(1, 0);
const SERVER: PeerId = PeerId::new(2, 0);
const LENS: [usize; 4] = [64, 256, 1024, 3072];
/// Large enough for the longest of them in one frame.
const MTU: usize = 3400;
/// Of each length and transport; the median counts.
const RUNS: usize = 5;
/// A datagram is given up after this.
const LOST: Duration = Duration::from_millis(100);

/// The ways to be compared; the first is what the others are compared to.
const WAYS: [(&str, TransportChoice, XdpMode); 3] = [
    ("udp", TransportChoice::Mio, XdpMode::Auto),
    ("xdp generic", TransportChoice::Xdp, XdpMode::Generic),
    ("xdp native", TransportChoice::Xdp, XdpMode::Native),
];

/// Median and 99th percentile of a half round trip, in microseconds.
#[derive(Clone, Copy)]
struct Measured {
    p50: f64,
    p99: f64,
}

/// Keeps this thread on one of the processors that the process may use.
fn pin(number: usize) {
    static ALL: OnceLock<Vec<CoreId>> = OnceLock::new();
    // Asked once: a thread that is pinned sees only its own.
    let all = ALL.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if let Some(id) = all.get(number) {
        core_affinity::set_for_current(*id);
    }
}

fn open(net: &Namespaces, side: Side, me: PeerId, transport: TransportChoice, xdp_mode: XdpMode) -> Endpoint {
    let bind = SocketAddr::from((side.ip(), 0));
    let config = EndpointConfig { transport, xdp_mode, mtu: Some(MTU - 48), ..EndpointConfig::new(me, bind) };
    net.within(side, || Endpoint::open(config)).expect("an endpoint")
}

/// Sends every message back until an empty one comes.
fn echo(mut server: Endpoint) {
    loop {
        if let Some(ball) = server.poll() {
            if ball.buf.is_empty() {
                return;
            }
            server.send_to(ball.from, ball.addr, ball.buf).expect("the device takes it");
        }
    }
}

fn round(client: &mut Endpoint, len: usize) -> Option<Duration> {
    let start = Instant::now();
    let mut ball = client.alloc(len).expect("a buffer");
    ball.resize(len);
    client.send(SERVER, ball).expect("the device takes it");
    while start.elapsed() < LOST {
        if client.poll().is_some() {
            return Some(start.elapsed() / 2);
        }
    }
    None
}

/// One run of every length.
fn run(net: &Namespaces, transport: TransportChoice, mode: XdpMode, rounds: usize) -> Vec<Measured> {
    let server = open(net, Side::B, SERVER, transport, mode);
    let mut client = open(net, Side::A, CLIENT, transport, mode);
    client.resolve(SERVER, server.local_addr());
    std::thread::scope(|s| {
        s.spawn(|| {
            pin(1);
            echo(server);
        });
        pin(0);
        let measured = LENS.map(|len| {
            (0..rounds / 10).for_each(|_| _ = round(&mut client, len));
            let mut took: Vec<Duration> = (0..rounds).filter_map(|_| round(&mut client, len)).collect();
            assert!(took.len() >= rounds * 9 / 10, "{} of {rounds} rounds were lost", rounds - took.len());
            took.sort_unstable();
            let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e6;
            Measured { p50: at(50), p99: at(99) }
        });
        // Datagrams may be lost; an end that never comes would hang.
        for _ in 0..10 {
            let end = client.alloc(0).expect("a buffer");
            client.send(SERVER, end).expect("the device takes it");
        }
        measured.to_vec()
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rounds = if std::env::args().any(|a| a == "--bench") { 10_000 } else { 20 };
    let net = Namespaces::new(MTU);
    let mut runs: [Vec<Vec<Measured>>; WAYS.len()] = Default::default();
    for number in 1..=RUNS {
        for (runs, (name, transport, mode)) in runs.iter_mut().zip(WAYS) {
            let measured = run(&net, transport, mode, rounds);
            let each = measured.iter().zip(LENS).map(|(m, len)| format!("{len} B {:.2}/{:.2}", m.p50, m.p99));
            eprintln!("run {number}, {name}: {} us", each.collect::<Vec<_>>().join(", "));
            runs.push(measured);
        }
    }
    println!("half round trip over veth, spinning, median of {RUNS} runs of {rounds}");
    for (i, len) in LENS.into_iter().enumerate() {
        let of = |way: usize| Measured {
            p50: median(runs[way].iter().map(|run| run[i].p50).collect()),
            p99: median(runs[way].iter().map(|run| run[i].p99).collect()),
        };
        let base = of(0);
        for (way, (name, ..)) in WAYS.into_iter().enumerate() {
            let Measured { p50, p99 } = of(way);
            let ratio = p50 / base.p50;
            println!("{name:<12} {len:>5} B  p50 {p50:>6.2} us  p99 {p99:>7.2} us  {ratio:.2}x udp");
        }
    }
}
