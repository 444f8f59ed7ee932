use super::network::BACKLOG_MAX;
use super::*;

#[test]
fn the_counters_are_shown_before_it_sleeps() {
    let config = |me| EndpointConfig {
        transport: TransportChoice::Mio,
        shared_memory: SharedMemory::Never,
        ..EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let (me, peer) = (PeerId::new(1, 0), PeerId::new(2, 0));
    let (mut a, b) = (Endpoint::open(config(me)).unwrap(), Endpoint::open(config(peer)).unwrap());
    let path = a.live.as_ref().expect("this machine has /dev/shm or /tmp").path().to_owned();
    let shown = || {
        let listing = crate::counters::list_in(&[path.parent().unwrap().to_owned()]);
        let snapshot = listing.endpoints.into_iter().find(|e| e.path == path).expect("it is there");
        snapshot.totals.iter().find(|(c, _)| c.name == "messages_sent").unwrap().1
    };
    a.resolve(peer, b.local_addr());
    for n in 1..=10 {
        a.send(peer, a.alloc_copy(b"x").unwrap()).unwrap();
        assert!(a.poll().is_none());
        assert_eq!(shown(), n - 1);
        assert!(a.prepare_park(), "nothing has arrived");
        assert_eq!(shown(), n);
    }
}

#[test]
fn the_ring_takes_over_once_the_caller_wants_to_sleep() {
    let (me, peer) = (PeerId::new(1, 0), PeerId::new(2, 0));
    let config = |me| EndpointConfig {
        shared_memory: SharedMemory::Never,
        ..EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let mut a = match Endpoint::open(EndpointConfig { transport: TransportChoice::Uring, ..config(me) }) {
        Ok(endpoint) => endpoint,
        Err(error) => return eprintln!("without io_uring: {error}"),
    };
    let mut b = Endpoint::open(EndpointConfig { transport: TransportChoice::Mio, ..config(peer) }).unwrap();
    b.resolve(me, a.local_addr());
    b.send(me, b.alloc_copy(b"before").unwrap()).unwrap();
    assert!(!a.prepare_park(), "it has not been polled yet");
    assert_eq!(&a.poll().unwrap().buf[..], b"before");
    assert!(a.poll().is_none());
    assert!(!a.prepare_park(), "the ring is only being enabled");
    b.send(me, b.alloc_copy(b"between").unwrap()).unwrap();
    assert_eq!(&a.poll().unwrap().buf[..], b"between");
    // More than the ring has buffers.
    for round in 0..1000u32 {
        assert!(a.poll().is_none());
        assert!(a.prepare_park());
        for i in 0..=round % 7 {
            b.send(me, b.alloc_copy(&(round + i).to_le_bytes()).unwrap()).unwrap();
        }
        assert!(!a.prepare_park(), "a datagram has arrived");
        for i in 0..=round % 7 {
            let received = a.poll().unwrap();
            assert_eq!((&received.buf[..], received.addr), (&(round + i).to_le_bytes()[..], b.local_addr()));
            assert_eq!(received.buf.headroom(), crate::HEADROOM);
        }
    }
}

#[test]
fn what_a_busy_network_refuses_is_sent_later_in_order_and_beyond_a_bound_handed_back() {
    let (me, peer) = (PeerId::new(1, 0), PeerId::new(2, 0));
    let config = |me| EndpointConfig {
        mtu: Some(1000),
        shared_memory: SharedMemory::Never,
        ..EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let (mut a, mut b) = (Endpoint::open(config(me)).unwrap(), Endpoint::open(config(peer)).unwrap());
    a.resolve(peer, b.local_addr());
    let busy = |a: &Endpoint, n| {
        a.network.transport.refuse_sends(n);
    };
    // Each is of several fragments.
    let message = |a: &Endpoint, n: usize| a.alloc_copy(&[n as u8; 2500]).unwrap();
    for n in 0..BACKLOG_MAX {
        busy(&a, 1);
        a.send(peer, message(&a, n)).unwrap();
        assert!(a.has_backlog());
    }
    busy(&a, 1);
    let error = a.send(peer, message(&a, 99)).unwrap_err();
    assert!(error.is_backpressure() && error.buf[..] == [99; 2500]);
    assert!(a.poll().is_none() && !a.has_backlog(), "a poll sends the rest");
    for n in 0..BACKLOG_MAX {
        let received = std::iter::from_fn(|| Some(b.poll())).take(1_000_000).flatten().next();
        assert!(received.unwrap().buf[..] == [n as u8; 2500], "message {n}");
    }
    assert_eq!(a.stats().sends_refused, 1);
}
