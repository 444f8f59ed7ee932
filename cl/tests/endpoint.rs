//! Messages between two endpoints over the loopback device, by each transport.

mod common;

use cl::{
    Buf, Endpoint, EndpointConfig, HEADER_LEN, MESSAGE_LEN_MAX, OpenError, PoolConfig, Refusal, SizeClass,
    TransportChoice, TransportKind,
};
use cl_base::PeerId;
use common::{ALICE, BOB, each_transport, over, pair, poll_within};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

fn filled(endpoint: &Endpoint, len: usize) -> Buf {
    let mut buf = endpoint.alloc(len).unwrap();
    buf.resize(len);
    buf.iter_mut().enumerate().for_each(|(i, b)| *b = ((i * 7) >> 2) as u8);
    buf
}

fn lens_around_every_boundary(endpoint: &Endpoint) -> Vec<usize> {
    // A message that a small socket buffer cannot hold at once is lost on the loopback device.
    let max = (1 << 20).min(endpoint.receive_buffer() / 4);
    let one = endpoint.unfragmented_len_max();
    [0, 1, 7, 100, one - 1, one, one + 1, 2 * one, 2 * one + 1, 100_000, 1 << 20]
        .into_iter()
        .filter(|&len| len <= max)
        .collect()
}

#[test]
fn messages_of_every_length_arrive_whole() {
    for transport in each_transport() {
        for mtu in [None, Some(1452), Some(9000)] {
            let with_mtu = |me| EndpointConfig { mtu, ..over(me, transport) };
            let (mut a, mut b) = pair(with_mtu(ALICE), with_mtu(BOB));
            for len in lens_around_every_boundary(&b) {
                let sent = filled(&a, len);
                let copy = sent.to_vec();
                a.send(BOB, sent).unwrap();
                let received = poll_within(&mut b, Duration::from_secs(5))
                    .unwrap_or_else(|| panic!("{transport:?} mtu {mtu:?} len {len}: {:?}", b.stats()));
                assert_eq!((received.from, received.addr), (ALICE, a.local_addr()));
                assert_eq!(received.buf[..], copy[..], "{transport:?} mtu {mtu:?} len {len}");
            }
            assert_eq!(b.stats().drops.total(), 0);
        }
    }
}

#[test]
fn a_refused_io_uring_falls_back_to_mio_and_says_why() {
    let mut config = over(ALICE, TransportChoice::Auto);
    config.refuse_uring = Some(io::ErrorKind::PermissionDenied);
    let endpoint = Endpoint::open(config.clone()).unwrap();
    assert_eq!(endpoint.transport(), TransportKind::Mio);
    assert!(endpoint.transport_reason().contains("io_uring"), "{}", endpoint.transport_reason());

    config.transport = TransportChoice::Uring;
    assert!(matches!(Endpoint::open(config), Err(OpenError::Uring(_))), "asked for by name, it is an error");
}

#[test]
#[ignore = "run by the test below, with the variable set"]
fn says_which_transport_it_opens() {
    match Endpoint::open(over(ALICE, TransportChoice::Uring)) {
        Ok(endpoint) => println!("opened {}", endpoint.transport()),
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn the_environment_overrides_the_transport_and_an_unknown_name_is_an_error() {
    let output = |value: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "says_which_transport_it_opens", "--ignored", "--nocapture"]);
        let output = command.env(cl::TRANSPORT_VARIABLE, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(output("mio").contains("opened mio"));
    if each_transport().contains(&TransportChoice::Uring) {
        assert!(output("uring").contains("opened uring"));
    }
    let error = output("pigeons");
    assert!(error.contains("error") && error.contains("pigeons") && error.contains("mio"), "{error}");
}

#[test]
fn refused_sends_hand_the_message_back_with_the_reason() {
    let mut a = Endpoint::open(over(ALICE, TransportChoice::Auto)).unwrap();
    let error = a.send(BOB, filled(&a, 10)).unwrap_err();
    assert_eq!((error.reason, error.buf.len()), (Refusal::Unresolved, 10));
    assert!(!error.is_backpressure());

    let pool = PoolConfig { classes: vec![SizeClass { capacity: MESSAGE_LEN_MAX + 1, count: 4 }] };
    let mut a = Endpoint::open(EndpointConfig { pool, ..over(ALICE, TransportChoice::Auto) }).unwrap();
    a.resolve(BOB, a.local_addr());
    let error = a.send(BOB, filled(&a, MESSAGE_LEN_MAX + 1)).unwrap_err();
    assert_eq!((error.reason, error.buf.len()), (Refusal::TooLong, MESSAGE_LEN_MAX + 1));
}

#[test]
fn messages_go_to_the_address_learnt_last() {
    let (mut a, mut b) = pair(over(ALICE, TransportChoice::Mio), over(BOB, TransportChoice::Mio));
    let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    a.resolve(BOB, elsewhere);
    assert_eq!(a.address_of(BOB), Some(elsewhere));
    a.resolve(BOB, b.local_addr());
    assert_eq!(a.addresses_of(BOB).collect::<Vec<_>>(), [b.local_addr(), elsewhere]);
    a.send(BOB, filled(&a, 3)).unwrap();
    assert!(poll_within(&mut b, Duration::from_secs(5)).is_some());
    a.forget(BOB);
    assert_eq!(a.address_of(BOB), None);
}

#[test]
fn foreign_and_misaddressed_datagrams_cost_a_counter_each() {
    for transport in each_transport() {
        let (mut a, mut b) = pair(over(ALICE, transport), over(BOB, transport));
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in [&[][..], b"hello", &[0; 100], &[0x47, 0x43, 9, 0, 0, 0, 0, 0]] {
            stranger.send_to(bytes, b.local_addr()).unwrap();
        }
        let mut wrong_version = [0; HEADER_LEN];
        wrong_version[..3].copy_from_slice(&[0x47, 0x43, 2]);
        stranger.send_to(&wrong_version, b.local_addr()).unwrap();
        let carol = PeerId::new(3, 0);
        a.resolve(carol, b.local_addr());
        a.send(carol, filled(&a, 1)).unwrap();
        a.send(BOB, filled(&a, 1)).unwrap();
        assert_eq!(poll_within(&mut b, Duration::from_secs(5)).unwrap().buf.len(), 1);
        let drops = b.stats().drops;
        assert_eq!((drops.truncated, drops.magic, drops.version, drops.misaddressed), (3, 1, 1, 1));
        assert_eq!(drops.total(), 6);
    }
}

#[test]
fn with_no_buffer_left_messages_wait_in_the_socket() {
    for transport in each_transport() {
        let pool = PoolConfig { classes: vec![SizeClass { capacity: 65_000, count: 3 }] };
        let (mut a, mut b) = pair(over(ALICE, transport), EndpointConfig { pool, ..over(BOB, transport) });
        for _ in 0..5 {
            a.send(BOB, filled(&a, 9)).unwrap();
        }
        let held: Vec<_> = (0..3).map(|_| poll_within(&mut b, Duration::from_secs(5)).unwrap()).collect();
        assert!(poll_within(&mut b, Duration::from_millis(20)).is_none());
        assert!(b.stats().starved > 0);
        drop(held);
        assert!(poll_within(&mut b, Duration::from_secs(5)).is_some());
        assert!(poll_within(&mut b, Duration::from_secs(5)).is_some());
    }
}

#[test]
fn a_received_buffer_has_the_headroom_of_a_fresh_one() {
    for transport in each_transport() {
        let (mut a, mut b) = pair(over(ALICE, transport), over(BOB, transport));
        a.send(BOB, filled(&a, 50)).unwrap();
        let received = poll_within(&mut b, Duration::from_secs(5)).unwrap();
        assert_eq!(received.buf.headroom(), cl::HEADROOM);
    }
}

#[test]
fn an_mtu_out_of_range_or_above_all_buffers_is_refused() {
    let open = |mtu, capacity| {
        let pool = PoolConfig { classes: vec![SizeClass { capacity, count: 1 }] };
        let base = over(ALICE, TransportChoice::Mio);
        Endpoint::open(EndpointConfig { mtu: Some(mtu), pool, ..base })
    };
    assert!(matches!(open(10, 1 << 16), Err(OpenError::Mtu(10))));
    assert!(matches!(open(1 << 16, 1 << 17), Err(OpenError::Mtu(_))));
    assert!(matches!(open(9000, 2048), Err(OpenError::PoolTooSmall(9000))));
}

#[test]
fn the_inner_door_sends_one_datagram_from_borrowed_parts() {
    use cl::for_rcl::transmit;
    use std::io::IoSlice;
    let (mut a, mut b) = pair(over(ALICE, TransportChoice::Auto), over(BOB, TransportChoice::Auto));
    let parts = [&b"head"[..], b"", b"body"].map(IoSlice::new);
    transmit(&mut a, BOB, b.local_addr(), &parts, false).unwrap();
    assert_eq!(&poll_within(&mut b, Duration::from_secs(5)).unwrap().buf[..], b"headbody");
    let long = vec![0; a.unfragmented_len_max()];
    let parts = [&long[..], &[0]].map(IoSlice::new);
    assert_eq!(transmit(&mut a, BOB, b.local_addr(), &parts, false), Err(Refusal::TooLong));
}

#[test]
fn joined_datagrams_are_taken_apart_again() {
    for transport in each_transport() {
        for sleeps in [false, true] {
            let joining =
                |me| EndpointConfig { mtu: Some(1452), join_datagrams: true, ..over(me, transport) };
            let (mut a, mut b) = pair(joining(ALICE), joining(BOB));
            let mut receive = || {
                let start = Instant::now();
                loop {
                    if let Some(received) = b.poll() {
                        return received;
                    }
                    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", b.stats());
                    if sleeps {
                        b.park(Some(Duration::from_secs(1))).unwrap();
                    }
                }
            };
            // One message of many fragments, which travel joined where the kernel cuts and joins datagrams.
            for len in [0, 1, 1420, 1421, 3000, 200_000] {
                let sent = filled(&a, len);
                let copy = sent.to_vec();
                a.send(BOB, sent).unwrap();
                assert!(receive().buf[..] == copy[..], "{len} bytes over {transport:?}");
            }
            // And messages of a datagram each.
            for n in 0..200u8 {
                a.send(BOB, a.alloc_copy(&[n; 1000]).unwrap()).unwrap();
            }
            for n in 0..200u8 {
                assert_eq!(receive().buf[..], [n; 1000]);
            }
            assert_eq!(b.stats().drops.total(), 0);
        }
    }
}

#[test]
fn a_peer_that_much_goes_to_gets_a_socket_of_its_own_and_nobody_is_lost_by_it() {
    const CAROL: PeerId = PeerId::new(3, 0);
    for transport in each_transport() {
        let (mut a, mut b) = pair(over(ALICE, transport), over(BOB, transport));
        let mut c = Endpoint::open(over(CAROL, transport)).unwrap();
        c.resolve(ALICE, a.local_addr());
        a.resolve(CAROL, c.local_addr());
        let exchange = |from: &mut Endpoint, to: &mut Endpoint, peer, n: u32| {
            from.send(peer, from.alloc_copy(&n.to_le_bytes()).unwrap()).unwrap();
            let received = poll_within(to, Duration::from_secs(5)).expect("it arrives");
            assert_eq!(
                (received.buf[..].to_vec(), received.addr),
                (n.to_le_bytes().to_vec(), from.local_addr())
            );
        };
        for n in 0..1000 {
            exchange(&mut a, &mut b, BOB, n);
            exchange(&mut b, &mut a, ALICE, n);
            if n % 100 == 0 {
                // By the way, others.
                exchange(&mut c, &mut a, ALICE, n);
                exchange(&mut a, &mut c, CAROL, n);
            }
        }
        // The address is nobody else's.
        let error =
            Endpoint::open(EndpointConfig { bind: a.local_addr(), ..over(CAROL, transport) }).unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
        // Who sleeps is woken by everybody.
        for (from_bob, n) in [(true, 1u32), (false, 2), (true, 3)] {
            let start = Instant::now();
            let peer = if from_bob { &mut b } else { &mut c };
            peer.send(ALICE, peer.alloc_copy(&n.to_le_bytes()).unwrap()).unwrap();
            let received = loop {
                if let Some(received) = a.poll() {
                    break received;
                }
                a.park(Some(Duration::from_secs(5))).unwrap();
            };
            assert_eq!(received.buf[..], n.to_le_bytes());
            assert!(start.elapsed() < Duration::from_secs(3), "not woken");
        }
        // One that is gone is no error, and one that comes again is reached.
        let addr = b.local_addr();
        drop(b);
        for n in 0..10u32 {
            a.send(BOB, a.alloc_copy(&n.to_le_bytes()).unwrap()).unwrap();
            assert!(a.poll().is_none());
        }
        let mut b = Endpoint::open(EndpointConfig { bind: addr, ..over(BOB, transport) }).unwrap();
        exchange(&mut a, &mut b, BOB, 7);
    }
}

#[test]
fn others_are_heard_beside_a_peer_that_floods_its_own_socket() {
    const CAROL: PeerId = PeerId::new(3, 0);
    let (mut a, mut b) = pair(over(ALICE, TransportChoice::Mio), over(BOB, TransportChoice::Mio));
    let mut c = Endpoint::open(over(CAROL, TransportChoice::Mio)).unwrap();
    c.resolve(ALICE, a.local_addr());
    // Much goes to Bob, so that he gets a socket of his own.
    for n in 0..300u32 {
        a.send(BOB, a.alloc_copy(&n.to_le_bytes()).unwrap()).unwrap();
        poll_within(&mut b, Duration::from_secs(5)).expect("it arrives");
    }
    let flood = |b: &mut Endpoint| b.send(ALICE, b.alloc_copy(b"flood").unwrap()).unwrap();
    (0..100).for_each(|_| flood(&mut b));
    c.send(ALICE, c.alloc_copy(b"carol").unwrap()).unwrap();
    // For each of his that is taken Bob sends another: the socket is never empty.
    for _ in 0..1000 {
        let Some(received) = a.poll() else { continue };
        if received.from == CAROL {
            return;
        }
        flood(&mut b);
    }
    panic!("Carol was not heard");
}
