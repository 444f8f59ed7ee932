//! Reliable messages over real sockets, by each transport.

use cl::TransportChoice;
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event, SendError};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

fn open(me: PeerId, transport: TransportChoice, mtu: Option<usize>) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    (config.cl.transport, config.cl.mtu) = (transport, mtu);
    config.protocol.dead_after = Duration::from_millis(500);
    Endpoint::open(config).unwrap()
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    let mut pattern =
        (0..1021).map(|i| ((i * 31 + salt) >> 2) as u8).collect::<Vec<_>>().repeat(len / 1021 + 1);
    pattern.truncate(len);
    pattern
}

/// 64 MiB in messages of many lengths from A to B.
fn transfer(transport: TransportChoice, mtu: Option<usize>) {
    let (mut a, mut b) = (open(A, transport, mtu), open(B, transport, mtu));
    a.connect(B, b.local_addr());
    let mut lens = vec![0, 1, 1000, 65_000, 100_000];
    lens.extend([1 << 20; 31]);
    lens.push((33 << 20) - 166_001);
    assert_eq!(lens.iter().sum::<usize>(), 64 << 20);
    let start = Instant::now();
    let (mut sent, mut received, mut closed) = (0, 0, [false; 2]);
    let mut waiting = None;
    while closed != [true; 2] {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{transport:?} {mtu:?}: {received} of {}",
            lens.len()
        );
        while sent < lens.len() {
            let message = waiting.take().unwrap_or_else(|| pattern(lens[sent], sent));
            match a.send(B, message) {
                Ok(()) => sent += 1,
                Err(SendError::Backpressure(message)) => {
                    waiting = Some(message);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            if sent == lens.len() {
                a.close(B);
            }
        }
        while let Some(event) = a.poll() {
            closed[0] |= event == Event::Closed(B, CloseReason::Graceful);
        }
        while let Some(event) = b.poll() {
            closed[1] |= event == Event::Closed(A, CloseReason::Graceful);
        }
        while let Some(message) = b.receive(A) {
            assert!(message == pattern(lens[received], received), "message {received} is not what was sent");
            received += 1;
        }
    }
    assert_eq!(received, lens.len());
    println!("{transport:?} {mtu:?}: {:?}, {:?}", start.elapsed(), a.cl().stats());
}

#[test]
fn sixty_four_mebibytes_arrive_whole_over_io_uring_where_there_is_one() {
    transfer(TransportChoice::Auto, None);
}

#[test]
fn sixty_four_mebibytes_arrive_whole_over_mio_in_ethernet_frames() {
    transfer(TransportChoice::Mio, Some(1452));
}

#[test]
fn a_vanished_peer_is_reported_dead() {
    let (mut a, mut b) = (open(A, TransportChoice::Auto, None), open(B, TransportChoice::Auto, None));
    a.connect(B, b.local_addr());
    let start = Instant::now();
    while a.poll() != Some(Event::Connected { peer: B, incoming: false }) {
        b.poll();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    drop(b);
    let start = Instant::now();
    loop {
        if let Some(event) = a.poll() {
            assert_eq!(event, Event::Closed(B, CloseReason::Dead));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_frame_of_a_stranger_in_a_peers_name_does_not_divert_the_connection() {
    let (mut a, mut b) = (open(A, TransportChoice::Auto, None), open(B, TransportChoice::Auto, None));
    a.connect(B, b.local_addr());
    let mut stranger =
        cl::Endpoint::open(cl::EndpointConfig::new(B, SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    stranger.resolve(A, a.local_addr());
    // The shape of an acknowledgement, of incarnations that it does not know.
    let mut forged = vec![0; 48 + 32];
    forged[..2].copy_from_slice(&[1, 5]);
    stranger.send(A, stranger.alloc_copy(&forged).unwrap()).unwrap();
    stranger.send(A, stranger.alloc_copy(b"rubbish").unwrap()).unwrap();
    let start = Instant::now();
    while a.counters().stale == 0 || a.counters().malformed == 0 {
        a.poll();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(a.cl().address_of(B), Some(b.local_addr()));
    a.send(B, b"to the true one".to_vec()).unwrap();
    while b.receive(A).as_deref() != Some(b"to the true one") {
        a.poll();
        b.poll();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
