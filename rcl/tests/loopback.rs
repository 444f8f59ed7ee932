//! Reliable messages over real sockets, by each transport.

use cl::TransportChoice;
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::any::Any;
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

fn pair() -> (Endpoint, Endpoint) {
    let (mut a, b) = (open(A, TransportChoice::Auto, None), open(B, TransportChoice::Auto, None));
    a.connect(B, b.local_addr());
    (a, b)
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    let mut pattern =
        (0..1021).map(|i| ((i * 31 + salt) >> 2) as u8).collect::<Vec<_>>().repeat(len / 1021 + 1);
    pattern.truncate(len);
    pattern
}

/// Calls `step` until it says that it is done.
fn within(seconds: u64, what: &str, mut step: impl FnMut() -> bool) {
    let start = Instant::now();
    while !step() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "{what} takes too long");
    }
}

/// 80 MiB in messages of many lengths from A to B.
fn transfer(transport: TransportChoice, mtu: Option<usize>) {
    let (mut a, mut b) = (open(A, transport, mtu), open(B, transport, mtu));
    a.connect(B, b.local_addr());
    let mut lens = vec![0, 1, 1000, 65_000, 100_000];
    lens.extend([64; 10_000]);
    lens.extend((0..100).map(|i| i * 300));
    lens.extend([1 << 20; 32]);
    lens.extend([16 << 20; 3]);
    let start = Instant::now();
    let mut waiting = None;
    let (mut sent, mut received, mut closed) = (0, 0, [false; 2]);
    within(60, "the transfer", || {
        while sent < lens.len() {
            let next = waiting.take().or_else(|| a.alloc_copy(&pattern(lens[sent], sent)).ok());
            let Some(message) = next else { break };
            match a.send(B, message) {
                Ok(()) => sent += 1,
                Err(error) if error.is_backpressure() => {
                    waiting = Some(error.buf);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            if sent == lens.len() {
                a.close(B);
            }
        }
        while let Some(event) = a.poll() {
            closed[0] |= matches!(event, Event::Closed(B, CloseReason::Graceful));
        }
        while let Some(event) = b.poll() {
            match event {
                Event::Message { from: A, buf } => {
                    let expected = pattern(lens[received], received);
                    assert!(buf[..] == expected, "message {received} is not what was sent");
                    received += 1;
                }
                Event::Closed(A, CloseReason::Graceful) => closed[1] = true,
                Event::Connected(A) => {}
                other => panic!("{other:?}"),
            }
        }
        closed == [true; 2]
    });
    assert_eq!(received, lens.len());
    println!("{transport:?} {mtu:?}: {:?}, {:?}, {:?}", start.elapsed(), a.counters(), a.cl().stats());
    println!("{:?}", b.counters());
}

#[test]
fn messages_of_all_lengths_arrive_whole_over_io_uring_where_there_is_one() {
    transfer(TransportChoice::Auto, None);
}

#[test]
fn messages_of_all_lengths_arrive_whole_over_mio_in_ethernet_frames() {
    transfer(TransportChoice::Mio, Some(1452));
}

#[test]
fn a_vanished_peer_is_reported_dead() {
    let (mut a, mut b) = pair();
    within(5, "the call", || {
        b.poll();
        matches!(a.poll(), Some(Event::Connected(B)))
    });
    drop(b);
    let start = Instant::now();
    within(5, "the death", || match a.poll() {
        Some(Event::Closed(B, reason)) => {
            assert_eq!(reason, CloseReason::Dead);
            true
        }
        _ => false,
    });
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_frame_of_a_stranger_in_a_peers_name_does_not_divert_the_connection() {
    let (mut a, mut b) = pair();
    let mut stranger =
        cl::Endpoint::open(cl::EndpointConfig::new(B, SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    stranger.resolve(A, a.local_addr());
    stranger.send(A, stranger.alloc_copy(&[2; 48]).unwrap()).unwrap();
    stranger.send(A, stranger.alloc_copy(b"rubbish").unwrap()).unwrap();
    within(5, "the rubbish", || {
        a.poll();
        a.counters().checksum > 0 && a.counters().truncated > 0
    });
    a.send(B, a.alloc_copy(b"to the true one").unwrap()).unwrap();
    within(5, "the message", || {
        a.poll();
        matches!(b.poll(), Some(Event::Message { buf, .. }) if buf[..] == *b"to the true one")
    });
}

#[test]
fn an_announced_message_lands_where_the_receiver_says() {
    let (mut a, mut b) = pair();
    let contents = pattern(50 << 20, 7);
    let id = a.send_large(B, Box::new(contents.clone())).unwrap();
    a.send(B, a.alloc_copy(b"small, sent later").unwrap()).unwrap();
    let (mut overtaken, mut sent, mut received) = (false, false, None);
    within(20, "the transfer", || {
        match a.poll() {
            Some(Event::Sent { to: B, id: which }) => sent = which == id,
            Some(Event::Connected(_)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        match b.poll() {
            Some(Event::Announced { from: A, id, len }) => {
                assert_eq!((len, overtaken), (50 << 20, false), "the announcement keeps its place");
                b.accept(A, id, Box::new(vec![0; len as usize]));
            }
            Some(Event::Message { buf, .. }) => {
                assert_eq!(&buf[..], b"small, sent later");
                overtaken = true;
            }
            Some(Event::Received { id: which, sink, .. }) => {
                assert_eq!(which, id);
                received = Some((sink as Box<dyn Any>).downcast::<Vec<u8>>().unwrap());
            }
            Some(Event::Connected(_)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        sent && received.is_some()
    });
    assert!(overtaken && *received.unwrap() == contents);

    let id = a.send_large(B, Box::new(contents)).unwrap();
    within(5, "the refusal", || {
        if let Some(Event::Announced { from, id, .. }) = b.poll() {
            b.reject(from, id);
        }
        matches!(a.poll(), Some(Event::Rejected { by: B, id: which }) if which == id)
    });
}
