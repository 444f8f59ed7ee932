//! Half round trips over the loopback device, the bare socket measured in the same run.
//!
//! `cargo bench -p cl --bench pingpong`; run by `cargo test` it makes a few rounds only, so as not to rot.
//! Two processors are needed for the spinning rows to mean anything.

use cl::runtime::{Core, Policy, RuntimeConfig, Service, spawn};
use cl::{Endpoint, EndpointConfig, Received, TransportChoice};
use cl_base::PeerId;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const CLIENT: PeerId = PeerId::new(1, 0);
const SERVER: PeerId = PeerId::new(2, 0);
const LENS: [usize; 4] = [8, 1024, 8192, 60_000];

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Sends every message back; an empty one ends it.
struct Echo;

impl Service for Echo {
    type Mail = ();
    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if received.buf.is_empty() {
            cx.stop();
        }
        cx.endpoint_mut().send_to(received.from, received.addr, received.buf).expect("loopback takes it");
    }
}

/// Runs `round` so many times and prints what it took.
fn report(name: &str, len: usize, rounds: usize, mut round: impl FnMut()) {
    (0..rounds / 10).for_each(|_| round());
    let mut took: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed() / 2
        })
        .collect();
    took.sort_unstable();
    let at = |percent: usize| took[(rounds - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("{name:<28} {len:>6} B  p50 {:>7.2} us  p99 {:>7.2} us", at(50), at(99));
}

fn bare_socket(rounds: usize) {
    let socket = || {
        let socket = UdpSocket::bind(loopback()).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        socket
    };
    let (client, server) = (socket(), socket());
    let (to_client, to_server) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    let receive = |socket: &UdpSocket, into: &mut [u8]| loop {
        match socket.recv_from(into) {
            Ok((len, _)) => return len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut buf = vec![0; 1 << 16];
            loop {
                let len = receive(&server, &mut buf);
                server.send_to(&buf[..len], to_client).expect("loopback takes it");
                if len == 0 {
                    return;
                }
            }
        });
        let mut buf = vec![0; 1 << 16];
        for len in LENS {
            report("bare socket, spinning", len, rounds, || {
                client.send_to(&buf[..len], to_server).expect("loopback takes it");
                receive(&client, &mut buf);
            });
        }
        client.send_to(&[], to_server).expect("loopback takes it");
    });
}

fn endpoint(transport: TransportChoice, policy: Policy, rounds: usize) {
    let config = |me| EndpointConfig { transport, ..EndpointConfig::new(me, loopback()) };
    let runtime = RuntimeConfig { policy, ..RuntimeConfig::new(Some(config(SERVER))) };
    let server = spawn("echo", runtime, |_| Echo).expect("a server");
    let mut client = Endpoint::open(config(CLIENT)).expect("a client");
    client.resolve(SERVER, server.local_addr().expect("it has an endpoint"));
    for len in LENS.into_iter().chain([0]) {
        let mut ball = client.alloc(len).expect("a buffer");
        ball.resize(len);
        let mut ball = Some(ball);
        let mut round = || {
            client.send(SERVER, ball.take().expect("it came back")).expect("loopback takes it");
            ball = Some(loop {
                if let Some(received) = client.poll() {
                    break received.buf;
                }
            });
        };
        if len == 0 {
            round();
        } else {
            report(&format!("{transport:?}, server {policy:?}"), len, rounds, round);
        }
    }
    server.join().expect("it stops when told to");
}

fn main() {
    let rounds = if std::env::args().any(|a| a == "--bench") { 20_000 } else { 20 };
    bare_socket(rounds);
    for transport in [TransportChoice::Mio, TransportChoice::Uring] {
        if let Err(error) =
            Endpoint::open(EndpointConfig { transport, ..EndpointConfig::new(CLIENT, loopback()) })
        {
            println!("{transport:?}: {error}");
            continue;
        }
        for policy in [Policy::Spin, Policy::SpinThenPark(Duration::from_micros(100)), Policy::Park] {
            endpoint(transport, policy, rounds);
        }
    }
}
