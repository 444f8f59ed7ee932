//! Messages between processes of one host: here between two endpoints, of which one is often a child process
//! that can be killed.

mod common;

use cl::{Endpoint, EndpointConfig, SharedMemory, SharedMemoryConfig, TransportKind};
use cl_base::PeerId;
use common::{ALICE, BOB, LIMIT, receive, sharing, wait};
use std::time::{Duration, Instant};

fn open(me: PeerId) -> Endpoint {
    Endpoint::open(sharing(me)).unwrap()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed) as u8).collect()
}

#[test]
fn messages_of_every_length_go_through_shared_memory_in_order() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    assert_eq!(a.path(BOB).unwrap().kind, TransportKind::SharedMemory);
    for round in 0..200 {
        for len in [0, 1, 7, 8, 9, 63, 1000, 1023, 1024, 1025, 5000, 65_000, 1 << 20] {
            let sent = pattern(len, round);
            a.send(BOB, a.alloc_copy(&sent).unwrap()).unwrap();
            let received = receive(&mut b);
            assert_eq!((received.from, received.addr), (ALICE, a.local_addr()));
            assert!(received.buf[..] == sent[..], "{len} bytes, round {round}");
            // And back, in the very buffer.
            b.send_to(received.from, received.addr, received.buf).unwrap();
            assert!(receive(&mut a).buf[..] == sent[..], "{len} bytes back, round {round}");
        }
    }
    assert_eq!(a.stats().shared_sent, a.stats().messages_sent);
    assert_eq!((a.stats().datagrams_sent, b.stats().datagrams_sent), (0, 0));
}

#[test]
fn messages_longer_than_the_bound_are_not_copied_and_nothing_is_allocated_for_them() {
    let lent = SharedMemory::Auto(SharedMemoryConfig { copy_max: 0, ..SharedMemoryConfig::default() });
    let mut a = Endpoint::open(EndpointConfig { shared_memory: lent, ..sharing(ALICE) }).unwrap();
    let mut b = open(BOB);
    a.resolve(BOB, b.local_addr());
    for len in [1, 100, 60_000] {
        for _ in 0..1000 {
            a.send(BOB, a.alloc_copy(&pattern(len, 1)).unwrap()).unwrap();
            assert_eq!(receive(&mut b).buf.len(), len);
        }
    }
    assert_eq!((a.stats().copies, b.stats().copies), (0, 0));
    wait(|| {
        a.poll();
        a.shared() == (1, 0)
    });
}

#[test]
fn a_receiver_that_does_not_poll_stops_the_sender_and_loses_nothing() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    for len in [50, 3000] {
        let mut sent = 0;
        let refused = loop {
            let mut buf = match a.alloc(len) {
                Ok(buf) => buf,
                Err(_) => break None,
            };
            buf.resize(len);
            buf[..4].copy_from_slice(&u32::to_le_bytes(sent));
            match a.send(BOB, buf) {
                Ok(()) => sent += 1,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = refused {
            assert!(error.is_backpressure());
        }
        assert!(sent > 100 && sent < 10_000, "{sent} messages of {len} bytes");
        for n in 0..sent {
            assert_eq!(receive(&mut b).buf[..4], n.to_le_bytes());
        }
        wait(|| {
            a.poll();
            a.shared().1 == 0
        });
    }
}

#[test]
fn who_shares_no_memory_is_reached_by_the_network_and_the_reason_is_told() {
    let mut a = open(ALICE);
    let mut b =
        Endpoint::open(EndpointConfig { shared_memory: SharedMemory::Never, ..sharing(BOB) }).unwrap();
    a.resolve(BOB, b.local_addr());
    let path = a.path(BOB).unwrap();
    assert_ne!(path.kind, TransportKind::SharedMemory);
    assert!(path.reason.contains("no endpoint of this host shares memory"), "{}", path.reason);
    a.send(BOB, a.alloc_copy(b"by the network").unwrap()).unwrap();
    assert_eq!(&receive(&mut b).buf[..], b"by the network");
}

#[test]
fn who_starts_later_is_found_later_and_who_starts_anew_is_another() {
    let mut a = open(ALICE);
    let addr = {
        let b = open(BOB);
        b.local_addr()
    };
    a.resolve(BOB, addr);
    assert_ne!(a.path(BOB).unwrap().kind, TransportKind::SharedMemory);
    for life in 0..3u8 {
        let mut b = Endpoint::open(EndpointConfig { bind: addr, ..sharing(BOB) }).unwrap();
        wait(|| {
            a.poll();
            a.path(BOB).unwrap().kind == TransportKind::SharedMemory
        });
        a.send(BOB, a.alloc_copy(&[life; 3]).unwrap()).unwrap();
        assert_eq!(receive(&mut b).buf[..], [life; 3]);
        drop(b);
        wait(|| {
            a.poll();
            a.path(BOB).unwrap().kind != TransportKind::SharedMemory
        });
        wait(|| {
            a.poll();
            a.shared() == (0, 0)
        });
    }
}

#[test]
fn buffers_outlive_the_endpoints_of_both_sides() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    let sent = pattern(50_000, 3);
    a.send(BOB, a.alloc_copy(&sent).unwrap()).unwrap();
    let received = receive(&mut b);
    drop(b);
    // The borrower's endpoint has gone, its buffer has not: it must not be reused.
    wait(|| {
        a.poll();
        a.path(BOB).unwrap().kind != TransportKind::SharedMemory
    });
    assert_eq!(a.shared(), (1, 1));
    drop(a);
    assert!(received.buf[..] == sent[..]);
}

#[test]
fn a_sleeper_is_woken() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    b.resolve(ALICE, a.local_addr());
    let echo = std::thread::spawn(move || {
        let mut echoed = 0;
        while echoed < 2000 {
            match b.poll() {
                Some(received) => {
                    b.send(ALICE, received.buf).unwrap();
                    echoed += 1;
                }
                None => b.park(Some(LIMIT)).unwrap(),
            }
        }
        b
    });
    for round in 0..2000u32 {
        a.send(BOB, a.alloc_copy(&round.to_le_bytes()).unwrap()).unwrap();
        let start = Instant::now();
        let received = loop {
            match a.poll() {
                Some(received) => break received,
                None => a.park(Some(LIMIT)).unwrap(),
            }
        };
        assert_eq!(received.buf[..], round.to_le_bytes());
        assert!(start.elapsed() < LIMIT / 2, "the bell was not rung in round {round}");
    }
    assert_eq!(echo.join().unwrap().stats().messages_received, 2000);
}

#[test]
fn copies_of_small_messages_are_received_where_they_lie_by_either_way() {
    for shared in [true, false] {
        let open = |me| match shared {
            true => open(me),
            false => {
                Endpoint::open(EndpointConfig { shared_memory: SharedMemory::Never, ..sharing(me) }).unwrap()
            }
        };
        let (mut a, mut b) = (open(ALICE), open(BOB));
        a.resolve(BOB, b.local_addr());
        let lens = [0, 1, 8, 64, 1000, 1024, 1025, 2048, 2049, 70_000, 3];
        for round in 0..200 {
            let messages = lens.map(|len| pattern(len, round));
            if round % 2 == 0 {
                messages.iter().for_each(|message| a.queue_copy(BOB, message).unwrap());
            } else {
                assert_eq!(a.queue_copies(BOB, messages), (lens.len(), None));
            }
            a.flush();
            let mut arrived = 0;
            wait(|| {
                b.drain(3, |message| {
                    assert_eq!((message.from, message.addr), (ALICE, a.local_addr()));
                    assert!(
                        message.contents == pattern(lens[arrived], round),
                        "{} in round {round}",
                        lens[arrived]
                    );
                    arrived += 1;
                });
                arrived == lens.len()
            });
        }
        // What one way of receiving has begun to unpack another goes on with.
        for n in 0..10u8 {
            a.queue_copy(BOB, &[n]).unwrap();
        }
        a.flush();
        assert_eq!(receive(&mut b).buf[..], [0]);
        let mut next = 1;
        wait(|| {
            b.drain(4, |message| {
                assert_eq!(message.contents, [next]);
                next += 1;
            });
            next == 5
        });
        (5..10).for_each(|n| assert_eq!(receive(&mut b).buf[..], [n]));
        assert_eq!(b.stats().messages_received, 200 * lens.len() as u64 + 10);
        assert_eq!(b.stats().bytes_received, 200 * lens.iter().sum::<usize>() as u64 + 10);
    }
}

#[test]
fn what_is_handed_over_is_counted_however_many_there_are_at_once() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    let mut sent = 0;
    // Among these is the number at which the ring shows all of them without being told to.
    for burst in 1..=60 {
        (0..burst).for_each(|_| a.queue_copy(BOB, &[7; 64]).unwrap());
        a.flush();
        sent += burst;
        wait(|| {
            b.drain(burst as usize, |_| ());
            b.stats().messages_received == sent
        });
        assert_eq!((a.stats().messages_sent, a.stats().bytes_sent), (sent, 64 * sent), "{burst} at once");
    }
}

#[test]
fn many_copies_stop_where_there_is_no_room_and_go_on_there() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    // Of all lengths that are copied, so that the records meet the end of the ring in every way.
    let messages: Vec<Vec<u8>> = (0..20_000).map(|n| pattern(n * 7 % 130, n)).collect();
    let (mut accepted, mut arrived, mut refusals) = (0, 0, 0);
    wait(|| {
        let (more, refusal) = a.queue_copies(BOB, &messages[accepted..]);
        accepted += more;
        refusals += u64::from(refusal.is_some());
        assert_eq!(refusal, (accepted < messages.len()).then_some(cl::Refusal::Backpressure));
        assert!(a.poll().is_none());
        b.drain(100, |message| {
            assert!(message.contents == messages[arrived], "message {arrived}");
            arrived += 1;
        });
        arrived == messages.len()
    });
    assert!(refusals > 10, "the ring was full {refusals} times only");
    let bytes = messages.iter().map(|message| message.len() as u64).sum::<u64>();
    let (sent, received) = (a.stats(), b.stats());
    assert_eq!((sent.messages_sent, sent.shared_sent, sent.bytes_sent), (20_000, 20_000, bytes));
    assert_eq!((sent.copies, sent.sends_refused), (20_000, refusals));
    assert_eq!((received.messages_received, received.bytes_received), (20_000, bytes));
}

#[test]
fn what_was_queued_is_read_though_its_sender_has_gone() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    a.resolve(BOB, b.local_addr());
    a.send(BOB, a.alloc_copy(b"hello").unwrap()).unwrap();
    assert_eq!(&receive(&mut b).buf[..], b"hello");
    for n in 0..3u8 {
        a.queue_copy(BOB, &[n]).unwrap();
    }
    drop(a);
    (0..3).for_each(|n| assert_eq!(receive(&mut b).buf[..], [n]));
}

#[test]
fn a_copy_for_a_peer_that_shares_memory_no_more_goes_by_the_network() {
    let mut a = open(ALICE);
    let b = open(BOB);
    let addr = b.local_addr();
    a.resolve(BOB, addr);
    assert_eq!(a.path(BOB).unwrap().kind, TransportKind::SharedMemory);
    drop(b);
    let bind = EndpointConfig { bind: addr, shared_memory: SharedMemory::Never, ..sharing(BOB) };
    let mut b = Endpoint::open(bind).unwrap();
    wait(|| {
        // Lost as long as the end of the channel has not been seen, and never refused for good.
        match a.queue_copy(BOB, b"either way") {
            Ok(()) | Err(cl::Refusal::Backpressure) => {}
            Err(refusal) => panic!("{refusal}"),
        }
        a.poll();
        b.poll().is_some_and(|received| received.buf[..] == *b"either way")
    });
}

/// Sends `count` messages of `len` bytes, asleep whenever there is no room or no buffer. Nobody else ever wakes it.
fn flood(mut a: Endpoint, len: usize, count: usize) -> (Endpoint, u64) {
    let mut parks = 0;
    for n in 0..count {
        loop {
            if let Ok(buf) = a.alloc_copy(&pattern(len, n)) {
                match a.send(BOB, buf) {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_backpressure(), "{error}"),
                }
            }
            assert!(a.poll().is_none());
            a.park(None).unwrap();
            parks += 1;
        }
    }
    a.flush();
    (a, parks)
}

#[test]
fn who_sleeps_for_want_of_room_wakes_when_there_is_some() {
    const COUNT: usize = 400;
    const PAUSE: Duration = Duration::from_millis(200);
    // Copies fill the ring; lent buffers are used up before.
    for len in [500, 5000] {
        let mut config = sharing(ALICE);
        config.pool.classes =
            [8 << 10, 64 << 10].map(|capacity| cl::SizeClass { capacity, count: 64 }).into();
        let (mut a, mut b) = (Endpoint::open(config).unwrap(), open(BOB));
        a.resolve(BOB, b.local_addr());
        a.send(BOB, a.alloc_copy(b"first").unwrap()).unwrap();
        // What is behind it waits for a reader that does something else.
        drop(receive(&mut b));
        let sender = std::thread::spawn(move || flood(a, len, COUNT));
        let start = Instant::now();
        std::thread::sleep(PAUSE);
        for n in 0..COUNT {
            let received = receive(&mut b);
            assert!(received.buf[..] == pattern(len, n)[..], "message {n} of {len} bytes");
            if n % 16 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let took = start.elapsed();
        let (_a, parks) = sender.join().unwrap();
        assert!(parks > 1, "there was always room");
        // It does not look for room all the time: every 4 ms in the long pause, and now and then in each short one.
        assert!(parks < 20 * COUNT as u64 + took.as_millis() as u64, "slept {parks} times in {took:?}");
    }
}
