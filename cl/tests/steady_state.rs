//! Once warm, nothing is allocated for a message, and nothing copied that need not be: shown by counters.

mod common;

use allocation_counter::measure;
use cl::{Endpoint, EndpointConfig, Received, SharedMemory, SharedMemoryConfig, TransportChoice};
use common::{ALICE, BOB, LIMIT, receive};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Messages until pools, queues and caches have the size they keep, and for how long at the least: what
/// happens once, such as the peer's answer when memory is first shared, is looked for at intervals only. On a
/// busy machine that takes longer: what is measured begins after so many passes in a row without an allocation.
const WARM_UP: u32 = 5_000;
const WARM_UP_PASSES: u32 = 10;
const WARM_UP_TIME: Duration = Duration::from_millis(50);
const MESSAGES: u32 = 100_000;
/// Queued before they are received, so that they are packed.
const WINDOW: u32 = 8;

fn pair(transport: TransportChoice, shared_memory: &SharedMemory) -> Option<(Endpoint, Endpoint)> {
    let open = |me| {
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let shared_memory = shared_memory.clone();
        Endpoint::open(EndpointConfig { transport, shared_memory, ..EndpointConfig::new(me, bind) })
    };
    let (mut a, b) = match (open(ALICE), open(BOB)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) if transport == TransportChoice::Uring => {
            eprintln!("without io_uring: {error}");
            return None;
        }
        (Err(error), _) | (_, Err(error)) => panic!("{error}"),
    };
    a.resolve(BOB, b.local_addr());
    Some((a, b))
}

/// Two endpoints over each transport to be had here that share no memory: io_uring may be forbidden.
fn network_pairs() -> impl Iterator<Item = (Endpoint, Endpoint)> {
    let transports = [TransportChoice::Mio, TransportChoice::Uring];
    transports.into_iter().filter_map(|transport| pair(transport, &SharedMemory::Never))
}

fn shared_pair(copy_max: usize) -> (Endpoint, Endpoint) {
    let shared = SharedMemoryConfig { copy_max, ..SharedMemoryConfig::default() };
    pair(TransportChoice::Mio, &SharedMemory::Auto(shared)).expect("mio is everywhere")
}

fn message(endpoint: &Endpoint, len: usize, number: u32) -> cl::Buf {
    let mut buf = endpoint.alloc(len).expect("buffers come back");
    buf.resize(len);
    let head = len.min(4);
    buf[..head].copy_from_slice(&number.to_le_bytes()[..head]);
    buf
}

fn check(received: &Received, len: usize, number: u32) {
    let head = len.min(4);
    assert_eq!((received.from, received.buf.len()), (ALICE, len));
    assert_eq!(received.buf[..head], number.to_le_bytes()[..head]);
}

/// Sends messages of `len` bytes, one at a time.
fn one_by_one(a: &mut Endpoint, b: &mut Endpoint, len: usize, count: u32) {
    for number in 0..count {
        a.send(BOB, message(a, len, number)).unwrap();
        check(&receive(b), len, number);
        // The sender takes back what it has lent, and hears what there is to hear.
        assert!(a.poll().is_none());
    }
}

/// Sends messages of `len` bytes, several at a time.
fn in_windows(a: &mut Endpoint, b: &mut Endpoint, len: usize, count: u32) {
    for window in 0..count / WINDOW {
        let numbers = window * WINDOW..(window + 1) * WINDOW;
        for number in numbers.clone() {
            a.queue(BOB, message(a, len, number)).unwrap();
        }
        a.flush();
        numbers.for_each(|number| check(&receive(b), len, number));
        assert!(a.poll().is_none());
    }
}

/// What `count` messages cost once warm: allocations, and copies on both sides.
fn cost(
    (a, b): (&mut Endpoint, &mut Endpoint),
    len: usize,
    count: u32,
    pass: fn(&mut Endpoint, &mut Endpoint, usize, u32),
) -> (u64, u64) {
    let start = Instant::now();
    let mut calm = 0;
    while calm < WARM_UP_PASSES || start.elapsed() < WARM_UP_TIME {
        let allocated = measure(|| pass(a, b, len, WARM_UP.min(count))).count_total;
        calm = if allocated == 0 { calm + 1 } else { 0 };
        assert!(start.elapsed() < 6 * LIMIT, "{len} bytes: it allocates on and on");
    }
    let copies = |a: &Endpoint, b: &Endpoint| a.stats().copies + b.stats().copies;
    let copied = copies(a, b);
    let allocated = measure(|| pass(a, b, len, count)).count_total;
    (allocated, copies(a, b) - copied)
}

#[test]
fn what_is_allocated_is_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1u8; 100]))).count_total, 1);
}

#[test]
fn a_message_lent_through_shared_memory_is_neither_copied_nor_allocated_for() {
    for (copy_max, len) in [(0, 8), (0, 1000), (1024, 4096), (1024, 60_000)] {
        let (mut a, mut b) = shared_pair(copy_max);
        assert_eq!(cost((&mut a, &mut b), len, MESSAGES, one_by_one), (0, 0), "{len} bytes, one by one");
        assert_eq!(cost((&mut a, &mut b), len, MESSAGES, in_windows), (0, 0), "{len} bytes, in windows");
        assert_eq!(b.stats().shared_received, b.stats().messages_received);
    }
}

#[test]
fn a_message_copied_through_shared_memory_is_copied_in_and_out_and_not_allocated_for() {
    for len in [0, 8, 64, 1024] {
        let (mut a, mut b) = shared_pair(1024);
        let copies = u64::from(MESSAGES) * 2;
        assert_eq!(cost((&mut a, &mut b), len, MESSAGES, one_by_one), (0, copies), "{len} bytes, one by one");
        assert_eq!(cost((&mut a, &mut b), len, MESSAGES, in_windows), (0, copies), "{len} bytes, in windows");
        assert_eq!(b.stats().shared_received, b.stats().messages_received);
    }
}

#[test]
fn a_datagram_is_handed_over_in_the_buffer_it_was_received_into() {
    for (mut a, mut b) in network_pairs() {
        for len in [0, 8, 1400, a.unfragmented_len_max()] {
            let cost = cost((&mut a, &mut b), len, MESSAGES, one_by_one);
            assert_eq!(cost, (0, 0), "{len} bytes over {}", a.transport());
        }
        assert_eq!(b.stats().shared_received, 0);
    }
}

#[test]
fn packed_messages_are_copied_together_and_apart_and_not_allocated_for() {
    for (mut a, mut b) in network_pairs() {
        let (allocated, copied) = cost((&mut a, &mut b), 64, MESSAGES, in_windows);
        assert_eq!((allocated, copied), (0, u64::from(MESSAGES) * 2), "over {}", a.transport());
        assert!(a.stats().datagrams_sent < a.stats().messages_sent / 4, "{:?}", a.stats());
    }
}

#[test]
fn fragments_are_copied_once_and_not_allocated_for() {
    for (mut a, mut b) in network_pairs() {
        let (len, count) = (200_000, 1000);
        let cost = cost((&mut a, &mut b), len, count, one_by_one);
        assert_eq!(cost, (0, count.into()), "over {}", a.transport());
    }
}
