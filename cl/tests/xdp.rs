//! AF_XDP between two network namespaces, over a veth pair. Needs root and iproute2.

mod netns;

use cl::runtime::{Core, Policy, RuntimeConfig, Service, spawn};
use cl::{
    Endpoint, EndpointConfig, OpenError, Parcel, Received, SizeClass, TransportChoice, TransportKind, XdpMode,
};
use cl_base::PeerId;
use netns::{Namespaces, Side};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ALICE: PeerId = PeerId::new(1, 0);
const BOB: PeerId = PeerId::new(2, 0);
const MTU: usize = 1500;
/// A datagram may be lost when the machine is busy, so a message is sent again, with patience.
const PATIENCE: Duration = Duration::from_secs(20);
const RESEND: Duration = Duration::from_millis(200);

fn config(side: Side, transport: TransportChoice) -> EndpointConfig {
    let me = if side == Side::A { ALICE } else { BOB };
    EndpointConfig { transport, ..EndpointConfig::new(me, SocketAddr::from((side.ip(), 0))) }
}

fn open(net: &Namespaces, side: Side, transport: TransportChoice) -> Endpoint {
    net.within(side, || Endpoint::open(config(side, transport))).unwrap()
}

fn introduce(a: &mut Endpoint, b: &mut Endpoint) {
    a.resolve(BOB, b.local_addr());
    b.resolve(ALICE, a.local_addr());
}

/// Sends a message of `len` bytes from one to the other and checks it.
fn carry(from: &mut Endpoint, to: &mut Endpoint, len: usize) {
    let contents: Vec<u8> = (0..len).map(|i| ((i * 7) >> 2) as u8).collect();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let message = from.alloc_copy(&contents).unwrap();
        from.send(to.me(), message).unwrap();
        let sent = Instant::now();
        while sent.elapsed() < RESEND {
            // What a full ring did not take is sent by polling.
            assert!(from.poll().is_none_or(|late| late.from == to.me()));
            let Some(received) = to.poll() else { continue };
            // One that was sent again may arrive twice, or late.
            if received.buf.len() == len {
                assert_eq!((received.from, received.addr), (from.me(), from.local_addr()));
                assert_eq!(received.buf[..], contents[..], "{len} bytes");
                return;
            }
        }
    }
    panic!("{len} bytes from {from:?} to {to:?}: {:?} {:?}", from.stats(), to.stats());
}

fn carry_every_length_both_ways(a: &mut Endpoint, b: &mut Endpoint) {
    let one = a.unfragmented_len_max();
    for len in [0, 1, 64, 1000, one - 1, one, one + 1, 2 * one + 1, 100_000, 1 << 20] {
        carry(a, b, len);
        carry(b, a, len);
    }
}

/// Messages have gone through the device, not only through the ordinary socket.
fn is_attached(net: &Namespaces, side: Side) -> bool {
    net.link(side).contains("\"xdp\":")
}

#[test]
fn messages_of_every_length_arrive_whole_in_every_mode() {
    for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
        for mtu in [MTU, 3400] {
            let net = Namespaces::new(mtu);
            let open = |side| {
                let mut config = EndpointConfig { xdp_mode: mode, ..config(side, TransportChoice::Xdp) };
                // Enough buffers for all fragments of a message at once: no more arrive before it is polled.
                config.pool.classes.push(SizeClass { capacity: 3900, count: 2048 });
                net.within(side, || Endpoint::open(config)).unwrap()
            };
            let (mut a, mut b) = (open(Side::A), open(Side::B));
            introduce(&mut a, &mut b);
            assert_eq!((a.transport(), a.mtu()), (TransportKind::Xdp, mtu - 48));
            assert!(a.transport_reason().contains(Side::A.device()), "{}", a.transport_reason());
            assert!(is_attached(&net, Side::A) && is_attached(&net, Side::B));
            carry_every_length_both_ways(&mut a, &mut b);
            assert_eq!((a.stats().drops.receive_failed, b.stats().drops.receive_failed), (0, 0));
        }
    }
}

#[test]
fn a_peer_on_an_ordinary_socket_is_understood() {
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let net = Namespaces::new(MTU);
        let xdp = EndpointConfig { xdp_mode: mode, ..config(Side::A, TransportChoice::Xdp) };
        let mut a = net.within(Side::A, || Endpoint::open(xdp)).unwrap();
        let mut b = open(&net, Side::B, TransportChoice::Mio);
        introduce(&mut a, &mut b);
        carry_every_length_both_ways(&mut a, &mut b);
        assert_eq!((a.stats().drops.total(), b.stats().drops.truncated), (0, 0));
    }
}

#[test]
fn messages_sent_together_arrive_each_whole() {
    let net = Namespaces::new(MTU);
    let (mut a, mut b) =
        (open(&net, Side::A, TransportChoice::Xdp), open(&net, Side::B, TransportChoice::Xdp));
    introduce(&mut a, &mut b);
    // So that its hardware address is known.
    carry(&mut a, &mut b, 1);
    let bodies: Vec<[u8; 2]> = (0..20).map(|n| [9, n]).collect();
    let (start, mut seen) = (Instant::now(), std::collections::BTreeSet::new());
    while seen.len() < bodies.len() {
        assert!(start.elapsed() < PATIENCE, "{seen:?}: {:?} {:?}", a.stats(), b.stats());
        let parts = |body| [IoSlice::new(&[8; 700]), IoSlice::new(body)];
        let parcels: Vec<_> =
            bodies.iter().map(|body| Parcel { to: BOB, addr: None, parts: parts(&body[..]) }).collect();
        a.send_each(&parcels, |place, sent| assert_eq!(sent, Ok(()), "{place}"));
        let sent = Instant::now();
        while sent.elapsed() < RESEND && seen.len() < bodies.len() {
            assert!(a.poll().is_none());
            let Some(received) = b.poll().filter(|received| received.buf.len() == 702) else { continue };
            assert_eq!((&received.buf[..700], received.buf[700]), (&[8; 700][..], 9));
            seen.insert(received.buf[701]);
        }
    }
}

#[test]
fn datagrams_for_others_are_left_alone() {
    let net = Namespaces::new(MTU);
    let mut a = open(&net, Side::A, TransportChoice::Xdp);
    let bind = |side: Side| net.within(side, || UdpSocket::bind((side.ip(), 0)).unwrap());
    let (near, far) = (bind(Side::A), bind(Side::B));
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buf = [0; 8192];
    // The last one is fragmented by IP.
    for len in [1, 1000, 1472, 5000] {
        far.send_to(&vec![7; len], near.local_addr().unwrap()).unwrap();
        let (got, from) = near.recv_from(&mut buf).unwrap();
        assert_eq!((got, from), (len, far.local_addr().unwrap()));
    }
    assert!(a.poll().is_none());
    assert_eq!(a.stats().datagrams_received, 0);
}

#[test]
fn bytes_that_are_no_message_cost_a_counter() {
    let net = Namespaces::new(MTU);
    let mut a = open(&net, Side::A, TransportChoice::Xdp);
    let stranger = net.within(Side::B, || UdpSocket::bind((Side::B.ip(), 0)).unwrap());
    let start = Instant::now();
    while a.stats().drops.truncated < 2 || a.stats().drops.magic < 2 {
        assert!(start.elapsed() < PATIENCE, "{:?}", a.stats());
        for len in [0, 31, 32, 1400] {
            stranger.send_to(&vec![0xa5; len], a.local_addr()).unwrap();
            assert!(a.poll().is_none());
        }
    }
}

#[test]
fn frames_that_lie_about_their_length_are_counted() {
    let net = Namespaces::new(MTU);
    let mut a = open(&net, Side::A, TransportChoice::Xdp);
    let raw = net.within(Side::B, || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap());
    let to = SocketAddr::from((Side::A.ip(), 0));
    let mut sent = 0;
    let start = Instant::now();
    while a.stats().drops.frame < 30 {
        assert!(start.elapsed() < PATIENCE, "{sent} sent: {:?}", a.stats());
        // The UDP header by hand: source and destination port, length, checksum.
        for len in [0u16, 7, 8 + 33, u16::MAX] {
            let mut datagram = Vec::from(9u16.to_be_bytes());
            datagram.extend_from_slice(&a.local_addr().port().to_be_bytes());
            datagram.extend_from_slice(&len.to_be_bytes());
            datagram.extend_from_slice(&[0; 2 + 32]);
            raw.send_to(&datagram, &to.into()).unwrap();
            sent += 1;
            assert!(a.poll().is_none());
        }
    }
    assert_eq!(a.stats().datagrams_received, 0);
}

#[test]
fn a_device_has_one_endpoint_and_lets_it_go_when_it_is_dropped() {
    let net = Namespaces::new(MTU);
    let first = open(&net, Side::A, TransportChoice::Xdp);
    let second = net.within(Side::A, || Endpoint::open(config(Side::A, TransportChoice::Xdp)));
    match second {
        Err(OpenError::Xdp(why)) => {
            assert!(why.contains(Side::A.device()) && why.contains("another endpoint"), "{why}");
        }
        other => panic!("two endpoints on one device: {other:?}"),
    }
    assert!(is_attached(&net, Side::A));
    drop(first);
    assert!(!is_attached(&net, Side::A));
    drop(open(&net, Side::A, TransportChoice::Xdp));
}

#[test]
fn what_cannot_be_bound_is_refused_with_the_reason() {
    let refused = |bind: &str| {
        let config = EndpointConfig::new(ALICE, bind.parse().unwrap());
        match Endpoint::open(EndpointConfig { transport: TransportChoice::Xdp, ..config }) {
            Err(OpenError::Xdp(why)) => why,
            other => panic!("{bind}: {other:?}"),
        }
    };
    assert!(refused("127.0.0.1:0").contains("no Ethernet device"));
    assert!(refused("0.0.0.0:0").contains("must be that of a device"));
    assert!(refused("[::1]:0").contains("no IPv4 address"));
    assert!(refused("192.0.2.1:0").contains("no device has 192.0.2.1"));
    let net = Namespaces::new(MTU);
    let config = EndpointConfig { mtu: Some(MTU), ..config(Side::A, TransportChoice::Xdp) };
    let error = net.within(Side::A, || Endpoint::open(config)).unwrap_err();
    assert!(error.to_string().contains("carries 1472 bytes"), "{error}");
}

/// Answers every message with its first byte; an empty one ends it.
struct Answer;

impl Service for Answer {
    type Mail = ();
    fn on_message(&mut self, cx: &mut Core<()>, mut received: Received) {
        if received.buf.is_empty() {
            cx.stop();
        }
        received.buf.truncate(1);
        cx.endpoint_mut().send_to(received.from, received.addr, received.buf).unwrap();
    }
}

#[test]
fn a_sleeper_is_woken_by_frames_and_by_the_ordinary_socket() {
    let net = Namespaces::new(MTU);
    let runtime = RuntimeConfig {
        policy: Policy::Park,
        ..RuntimeConfig::new(Some(config(Side::B, TransportChoice::Xdp)))
    };
    let server = net.within(Side::B, || spawn("answers", runtime, |_| Answer)).unwrap();
    let ask = |client: &mut Endpoint, len: usize| {
        client.resolve(BOB, server.local_addr().unwrap());
        let mut answered = 0;
        for round in 0..20u8 {
            // Long enough to fall asleep.
            std::thread::sleep(Duration::from_millis(5));
            client.send(BOB, client.alloc_copy(&vec![round; len]).unwrap()).unwrap();
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_secs(1) {
                if client.poll().is_some_and(|r| r.buf[..] == [round]) {
                    answered += 1;
                    break;
                }
            }
        }
        // One may be lost; a sleeper who misses the bell would miss all.
        assert!(answered >= 19, "{client:?}, {len} bytes: {answered} of 20 were answered");
    };
    ask(&mut open(&net, Side::A, TransportChoice::Xdp), 1000);
    let mut client = open(&net, Side::A, TransportChoice::Mio);
    ask(&mut client, 1000);
    // Now IP fragments them, and they come through the ordinary socket.
    net.set_mtu(Side::A, 600);
    ask(&mut client, 1000);
    client.send(BOB, client.alloc(0).unwrap()).unwrap();
    server.join().unwrap();
}

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "started by nothing_is_left_of_a_killed_process"]
fn an_endpoint_until_killed() {
    let _endpoint = Endpoint::open(config(Side::A, TransportChoice::Xdp)).unwrap();
    println!("\nopen");
    std::thread::sleep(PATIENCE);
    panic!("nobody killed this process");
}

#[test]
fn nothing_is_left_of_a_killed_process() {
    let net = Namespaces::new(MTU);
    let mut child = net.within(Side::A, || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "an_endpoint_until_killed", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "open"), "the child has no endpoint");
    assert!(is_attached(&net, Side::A));
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while is_attached(&net, Side::A) {
        assert!(
            start.elapsed() < PATIENCE,
            "the program of a dead process is attached: {}",
            net.link(Side::A)
        );
    }
    // And the device is free for the next.
    drop(open(&net, Side::A, TransportChoice::Xdp));
}
