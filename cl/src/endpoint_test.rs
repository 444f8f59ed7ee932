use super::network::BACKLOG_MAX;
use super::*;
use crate::TransportChoice;
use std::time::Duration;

#[test]
fn the_counters_are_shown_before_it_sleeps() {
    let config = |me| EndpointConfig {
        transport: TransportChoice::Mio,
        shared_memory: SharedMemory::Never,
        ..EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let (me, peer) = (PeerId::new(1, 0), PeerId::new(2, 0));
    let (mut a, b) = (Endpoint::open(config(me)).unwrap(), Endpoint::open(config(peer)).unwrap());
    let path = a.tally.live.as_ref().expect("this machine has /dev/shm or /tmp").path().to_owned();
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

/// An endpoint that a thread has slept with, to which `b` has sent a message meanwhile; and that thread, which
/// lives until the sender is dropped.
fn parked_elsewhere(
    b: &mut Endpoint,
) -> Option<(Endpoint, std::thread::JoinHandle<()>, std::sync::mpsc::Sender<()>)> {
    let me = PeerId::new(1, 0);
    let mut a = match Endpoint::open(EndpointConfig {
        transport: TransportChoice::Uring,
        shared_memory: SharedMemory::Never,
        ..EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))
    }) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            eprintln!("without io_uring: {error}");
            return None;
        }
    };
    b.resolve(me, a.local_addr());
    let (give, take) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        assert!(a.poll().is_none() && !a.prepare_park(), "the ring is only being enabled");
        assert!(a.poll().is_none() && a.prepare_park());
        give.send(a).unwrap();
        ended.recv().unwrap_err();
    });
    let a = take.recv().unwrap();
    b.send(me, b.alloc_copy(b"meanwhile").unwrap()).unwrap();
    Some((a, thread, end))
}

fn plain(me: PeerId) -> Endpoint {
    let config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    Endpoint::open(EndpointConfig { shared_memory: SharedMemory::Never, ..config }).unwrap()
}

#[test]
fn an_endpoint_that_slept_in_one_thread_is_dropped_in_another_and_all_its_buffers_come_back() {
    for lives in [true, false] {
        let Some((a, thread, end)) = parked_elsewhere(&mut plain(PeerId::new(2, 0))) else { return };
        let (pool, len) = (a.pool().clone(), a.mtu());
        let mut thread = Some((thread, end));
        let mut join = || {
            if let Some((thread, end)) = thread.take() {
                drop(end);
                thread.join().unwrap();
            }
        };
        if !lives {
            join();
        }
        drop(a);
        join();
        let all = crate::PoolConfig::default().classes.into_iter().find(|c| c.capacity >= len).unwrap();
        assert_eq!(pool.available(len), all.count, "the thread lives: {lives}");
    }
}

#[test]
fn an_endpoint_that_slept_in_one_thread_goes_on_in_another() {
    let mut b = plain(PeerId::new(2, 0));
    let Some((mut a, thread, end)) = parked_elsewhere(&mut b) else { return };
    for n in 0..10u8 {
        b.send(a.me(), b.alloc_copy(&[n]).unwrap()).unwrap();
    }
    let start = std::time::Instant::now();
    let mut latest = None;
    while latest != Some(9) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", a.stats());
        match a.poll() {
            Some(received) => latest = Some(received.buf[0]),
            None => a.park(Some(Duration::from_secs(5))).unwrap(),
        }
    }
    drop(end);
    thread.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "it was woken for what came");
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
