//! Reliable messages over real sockets, by each transport.

use cl::{SharedMemory, TransportChoice};
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

/// How the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Shared,
    Auto,
    Mio(usize),
}

fn config(me: PeerId, way: Way) -> EndpointConfig {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if way != Way::Shared {
        config.cl.shared_memory = SharedMemory::Never;
    }
    if let Way::Mio(mtu) = way {
        (config.cl.transport, config.cl.mtu) = (TransportChoice::Mio, Some(mtu));
    }
    config.protocol.dead_after = Duration::from_millis(500);
    config
}

fn open(me: PeerId, way: Way) -> Endpoint {
    Endpoint::open(config(me, way)).unwrap()
}

fn pair(way: Way) -> (Endpoint, Endpoint) {
    let (mut a, b) = (open(A, way), open(B, way));
    a.connect(B, b.local_addr());
    (a, b)
}

/// The same for tests that compute for a while between their calls, on a machine with other work.
fn patient_pair(way: Way) -> (Endpoint, Endpoint) {
    let [mut a, b] = [A, B].map(|me| {
        let mut config = config(me, way);
        config.protocol.dead_after = Duration::from_secs(10);
        Endpoint::open(config).unwrap()
    });
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
fn transfer(way: Way) {
    let (mut a, mut b) = patient_pair(way);
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
    let shared = a.cl().stats().shared_sent > 10_000;
    assert_eq!(shared, way == Way::Shared, "{:?}", a.cl().stats());
    if a.cl().pool().pages() == cl::Pages::Plain {
        let lent = a.cl().stats().datagrams_lent > 500;
        assert_eq!(lent, way == Way::Auto, "of 80 MiB in long messages: {:?}", a.cl().stats());
    }
    println!("{way:?}: {:?}, {:?}, {:?}", start.elapsed(), a.counters(), a.cl().stats());
}

#[test]
fn messages_of_all_lengths_arrive_whole_over_io_uring_where_there_is_one() {
    transfer(Way::Auto);
}

#[test]
fn messages_of_all_lengths_arrive_whole_over_shared_memory() {
    transfer(Way::Shared);
}

#[test]
fn messages_of_all_lengths_arrive_whole_over_mio_in_ethernet_frames() {
    transfer(Way::Mio(1452));
}

#[test]
fn a_call_that_is_not_answered_ends_and_is_not_answered_late() {
    for way in [Way::Shared, Way::Auto] {
        let (mut a, mut b) = pair(way);
        a.send(B, a.alloc_copy(b"is anybody there?").unwrap()).unwrap();
        let start = Instant::now();
        within(5, "the call", || matches!(a.poll(), Some(Event::Closed(B, CloseReason::Dead))));
        assert!(start.elapsed() > Duration::from_millis(300), "{way:?}");
        // B wakes up, and hears the call and that it is over. Nothing of it is left.
        let mut told = Vec::new();
        within(5, "the end", || {
            told.extend(b.poll());
            a.poll();
            start.elapsed() > Duration::from_secs(1)
        });
        let messages = told.iter().filter(|event| matches!(event, Event::Message { .. })).count();
        assert_eq!(messages, 0, "{way:?}: {told:?}");
        a.connect(B, b.local_addr());
        a.send(B, a.alloc_copy(b"again").unwrap()).unwrap();
        within(5, "the second call", || {
            assert!(!matches!(a.poll(), Some(Event::Closed(..))), "{way:?}");
            matches!(b.poll(), Some(Event::Message { buf, .. }) if buf[..] == *b"again")
        });
    }
}

/// How long it takes until a peer that has ended without a word is known to be dead.
fn vanish(way: Way) -> Duration {
    let (mut a, mut b) = pair(way);
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
    start.elapsed()
}

#[test]
fn a_vanished_peer_is_reported_dead() {
    let took = vanish(Way::Auto);
    // Exact in the simulator; here the machine may have other work.
    assert!((300..4_000).contains(&took.as_millis()), "{took:?}");
    let took = vanish(Way::Shared);
    assert!(took.as_millis() < 200, "{took:?}");
}

#[test]
fn a_frame_of_a_stranger_in_a_peers_name_does_not_divert_the_connection() {
    let (mut a, mut b) = pair(Way::Auto);
    let mut stranger =
        cl::Endpoint::open(cl::EndpointConfig::new(B, SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    stranger.resolve(A, a.local_addr());
    stranger.send(A, stranger.alloc_copy(&[5; 48]).unwrap()).unwrap();
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
fn a_call_by_datagram_in_a_peers_name_does_nothing_to_a_connection_over_shared_memory() {
    let (mut a, mut b) = pair(Way::Shared);
    a.send(B, a.alloc_copy(b"first").unwrap()).unwrap();
    within(5, "the first message", || {
        a.poll();
        matches!(b.poll(), Some(Event::Message { buf, .. }) if buf[..] == *b"first")
    });
    let mut stranger = open(A, Way::Auto);
    stranger.connect(B, b.local_addr());
    stranger.send(B, stranger.alloc_copy(b"not from the true one").unwrap()).unwrap();
    // It repeats its call all the time.
    within(5, "calls", || {
        assert!(stranger.poll().is_none() && b.poll().is_none() && a.poll().is_none());
        b.counters().taken >= 3
    });
    b.send(A, b.alloc_copy(b"to the true one").unwrap()).unwrap();
    within(5, "the message", || {
        assert!(stranger.poll().is_none() && b.poll().is_none());
        matches!(a.poll(), Some(Event::Message { buf, .. }) if buf[..] == *b"to the true one")
    });
}

#[test]
fn an_announced_message_lands_where_the_receiver_says() {
    announce(Way::Auto);
    announce(Way::Shared);
}

fn announce(way: Way) {
    let (mut a, mut b) = patient_pair(way);
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

/// A reader that does not read stops the sender; the buffers of both suffice, and nothing is lost.
fn slow_reader(way: Way, len: usize) {
    let (mut a, mut b) = pair(way);
    within(5, "the call", || {
        b.poll();
        matches!(a.poll(), Some(Event::Connected(B)))
    });
    let mut sent = 0u32;
    let mut refused_since = Instant::now();
    within(20, "back-pressure", || {
        assert!(a.poll().is_none());
        while let Ok(mut buf) = a.alloc(len) {
            buf.extend_from_slice(&sent.to_le_bytes());
            buf.resize(len);
            match a.send(B, buf) {
                Ok(()) => (sent, refused_since) = (sent + 1, Instant::now()),
                Err(error) if error.is_backpressure() => break,
                Err(error) => panic!("{error}"),
            }
        }
        refused_since.elapsed() > Duration::from_millis(300)
    });
    println!("{way:?}: {sent} messages of {len} bytes accepted");
    let mut received = 0;
    within(20, "reading", || {
        assert!(a.poll().is_none());
        match b.poll() {
            Some(Event::Message { buf, .. }) => {
                assert_eq!((&buf[..4], buf.len()), (&u32::to_le_bytes(received)[..], len));
                received += 1;
            }
            None | Some(Event::Connected(_)) => {}
            Some(other) => panic!("{other:?}"),
        }
        received == sent
    });
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    for way in [Way::Auto, Way::Mio(1452), Way::Shared] {
        for len in [64, 10_000, 200_000] {
            slow_reader(way, len);
        }
    }
}

#[test]
fn a_ping_pong_takes_one_datagram_each_way_and_no_copy() {
    let (mut a, mut b) = pair(Way::Auto);
    let mut ball = a.alloc_copy(&[7; 1000]).unwrap();
    let mut rounds = || {
        for _ in 0..1000 {
            for peer in [B, A] {
                let (me, other) = if peer == B { (&mut a, &mut b) } else { (&mut b, &mut a) };
                let sent = std::mem::replace(&mut ball, me.alloc(0).unwrap());
                me.send(peer, sent).unwrap();
                within(5, "the ball", || {
                    me.poll();
                    let Some(Event::Message { buf, .. }) = other.poll() else { return false };
                    ball = buf;
                    true
                });
            }
        }
        (a.cl().stats().datagrams_sent + b.cl().stats().datagrams_sent, a.counters().copies)
    };
    let (before, copies) = rounds();
    let (after, copies_after) = rounds();
    // A machine that lets one of them wait may make it acknowledge now and then.
    assert!((2000..2100).contains(&(after - before)), "{} datagrams", after - before);
    assert_eq!((copies, copies_after), (0, 0));
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let mut config = config(A, Way::Auto);
    config.protocol.rto_min = Duration::from_secs(1);
    let error = Endpoint::open(config).unwrap_err().to_string();
    assert_eq!(error, "rcl::Config::rto_min: 1s is above `rto_max`, 500ms; lower it, or raise `rto_max`");
}

#[test]
fn sizes_tell_what_waits_also_for_shared_memory() {
    for way in [Way::Shared, Way::Auto] {
        let (mut a, mut b) = pair(way);
        a.send(B, a.alloc_copy(&[7; 5000]).unwrap()).unwrap();
        a.send(B, a.alloc_copy(&[7; 3000]).unwrap()).unwrap();
        let sizes = a.sizes(B).expect("there is a call");
        assert!(sizes.held >= 8000, "{way:?}: nobody has answered, {sizes:?}");
        assert!(sizes.waiting > 0);
        let mut received = 0;
        within(5, "the messages", || {
            a.poll();
            received += usize::from(matches!(b.poll(), Some(Event::Message { .. })));
            received == 2 && a.sizes(B).is_some_and(|s| (s.held, s.waiting) == (0, 0))
        });
        a.abort(B);
        while a.poll().is_some() {}
        assert_eq!(a.sizes(B), None, "{way:?}");
    }
}

#[test]
fn those_who_call_each_other_at_once_have_one_connection() {
    for way in [Way::Auto, Way::Shared] {
        let (mut a, mut b) = (open(A, way), open(B, way));
        a.connect(B, b.local_addr());
        b.connect(A, a.local_addr());
        a.send(B, a.alloc_copy(b"from a").unwrap()).unwrap();
        b.send(A, b.alloc_copy(b"from b").unwrap()).unwrap();
        let (mut events_a, mut events_b) = (Vec::new(), Vec::new());
        within(5, "the exchange", || {
            events_a.extend(a.poll().map(|e| format!("{e:?}")));
            events_b.extend(b.poll().map(|e| format!("{e:?}")));
            events_a.len() + events_b.len() == 4
        });
        assert_eq!(events_a, [format!("Connected({B})"), format!("Message from {B}")], "{way:?}");
        assert_eq!(events_b, [format!("Connected({A})"), format!("Message from {A}")], "{way:?}");
    }
}

#[test]
fn a_peer_that_starts_anew_is_a_new_connection() {
    for way in [Way::Auto, Way::Shared] {
        let (mut a, mut b) = pair(way);
        within(5, "the call", || {
            b.poll();
            matches!(a.poll(), Some(Event::Connected(B)))
        });
        let addr = b.local_addr();
        drop(b);
        let mut config = config(B, way);
        config.cl.bind = addr;
        let mut b = Endpoint::open(config).unwrap();
        b.connect(A, a.local_addr());
        b.send(A, b.alloc_copy(b"new life").unwrap()).unwrap();
        let mut events = Vec::new();
        within(5, "the new life", || {
            b.poll();
            events.extend(a.poll().map(|e| format!("{e:?}")));
            events.len() == 3
        });
        assert!(events[0].starts_with("Closed"), "{events:?}");
        assert_eq!(events[1..], [format!("Connected({B})"), format!("Message from {B}")]);
        b.abort(A);
        within(5, "the abort", || {
            b.poll();
            matches!(a.poll(), Some(Event::Closed(B, CloseReason::Reset)))
        });
    }
}

#[test]
fn who_hears_of_the_end_may_stop_polling_and_the_other_hears_of_it_too() {
    let config = |me| {
        let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cl.shared_memory = cl::SharedMemory::Never;
        config
    };
    let (alice, bob) = (PeerId::new(1, 0), PeerId::new(2, 0));
    for round in 0..50 {
        let mut a = Endpoint::open(config(alice)).unwrap();
        let mut b = Endpoint::open(config(bob)).unwrap();
        a.connect(bob, b.local_addr());
        a.send(bob, a.alloc_copy(b"last words").unwrap()).unwrap();
        a.close(bob);
        let (mut a_heard, mut b_heard) = (false, false);
        let start = std::time::Instant::now();
        while !(a_heard && b_heard) {
            // Each stops polling as soon as it has heard.
            for (end, heard) in [(&mut a, &mut a_heard), (&mut b, &mut b_heard)] {
                if !*heard && let Some(Event::Closed(_, reason)) = end.poll() {
                    assert_eq!(reason, CloseReason::Graceful, "round {round}");
                    *heard = true;
                }
            }
            assert!(start.elapsed() < std::time::Duration::from_secs(8), "round {round}: one waits in vain");
        }
    }
}
