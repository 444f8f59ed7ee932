//! A connection given up in the middle of a large message, which the network may still send from where they lie.

use cl::{Pages, SharedMemory};
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const LIMIT: Duration = Duration::from_secs(20);
/// It is sent wholly before anything is acknowledged, for it is within the first congestion window, and fits
/// the socket's buffer where the system grants no more than is usual (208 KiB, which the kernel doubles).
const LEN: usize = 256 << 10;

fn open(me: PeerId) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = SharedMemory::Never;
    Endpoint::open(config).unwrap()
}

/// Until there is an event at `end`, with `other` polling as well if it is to.
fn event(end: &mut Endpoint, mut other: Option<&mut Endpoint>) -> Event {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "nothing happens");
        if let Some(event) = end.poll() {
            return event;
        }
        other.as_deref_mut().map(Endpoint::poll);
    }
}

/// Until the sender has a socket of its own for the peer.
fn warm_up(a: &mut Endpoint, b: &mut Endpoint) {
    a.connect(B, b.local_addr());
    assert!(matches!(event(a, Some(b)), Event::Connected(B)));
    let first = a.cl().stats().datagrams_sent;
    while a.cl().stats().datagrams_sent < first + 400 {
        let message = a.alloc_copy(b"warm").unwrap();
        a.send(B, message).unwrap();
        a.flush();
        while !matches!(event(b, Some(a)), Event::Message { .. }) {}
    }
    a.abort(B);
    while !matches!(event(b, Some(a)), Event::Closed(..)) {}
    while a.poll().is_some() {}
}

#[test]
fn what_was_sent_before_arrives_as_it_was_though_its_buffers_are_used_again() {
    let (mut a, mut b) = (open(A), open(B));
    for round in 0..4 {
        if round == 2 {
            warm_up(&mut a, &mut b);
        }
        let lent = a.cl().stats().datagrams_lent;
        a.connect(B, b.local_addr());
        assert!(matches!(event(&mut a, Some(&mut b)), Event::Connected(B)));
        // So that the long one is not alone.
        let short = a.alloc_copy(&[1]).unwrap();
        a.send(B, short).unwrap();
        let mut long = a.alloc(LEN).unwrap();
        long.resize(LEN);
        long.fill(2);
        a.send(B, long).unwrap();
        a.flush();
        if a.cl().pool().pages() == Pages::Plain {
            assert!(a.cl().stats().datagrams_lent > lent, "round {round}");
        }
        let free = a.cl().pool().available(LEN);
        a.abort(B);
        // Until it has let go of it.
        let start = Instant::now();
        while a.cl().pool().available(LEN) < free + 1 {
            assert!(start.elapsed() < LIMIT, "round {round}: the buffer is not given back");
            a.poll();
        }
        // Every buffer that it can have been in.
        let mut all = Vec::new();
        while let Ok(mut buf) = a.alloc(LEN) {
            buf.resize(LEN);
            buf.fill(0xff);
            all.push(buf);
        }
        let mut received = Vec::new();
        loop {
            match event(&mut b, None) {
                Event::Message { buf, .. } => {
                    let number = buf[0];
                    assert_eq!(buf.len(), if number == 1 { 1 } else { LEN });
                    assert!(
                        buf.iter().all(|&byte| byte == number),
                        "round {round}: message {number} is damaged"
                    );
                    received.push(number);
                }
                Event::Closed(A, reason) => {
                    assert_eq!(reason, CloseReason::Reset);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(received, [1, 2], "round {round}");
        drop(all);
        while a.poll().is_some() {}
    }
}
