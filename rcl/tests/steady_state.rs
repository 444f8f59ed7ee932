//! Once warm, nothing is allocated for a reliable message, and nothing copied that need not be.

use allocation_counter::measure;
use cl::{SharedMemory, TransportChoice};
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const ALICE: PeerId = PeerId::new(1, 0);
const BOB: PeerId = PeerId::new(2, 0);
const LIMIT: Duration = Duration::from_secs(60);

/// Until queues, pools and caches have the size they keep, and the congestion window its largest.
const WARM_UP_TIME: Duration = Duration::from_millis(500);
const MESSAGES: u32 = 100_000;
/// Of so many messages each, of which the best counts.
const ROUNDS: usize = 3;
/// Sent before they are received.
const WINDOW: u32 = 32;

/// Two endpoints with a connection between them, through shared memory or not.
fn pair(shared: bool) -> (Endpoint, Endpoint) {
    let open = |me| {
        let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cl.transport = TransportChoice::Mio;
        if !shared {
            config.cl.shared_memory = SharedMemory::Never;
        }
        Endpoint::open(config).unwrap()
    };
    let (mut a, b) = (open(ALICE), open(BOB));
    a.connect(BOB, b.local_addr());
    (a, b)
}

/// Sends messages of `len` bytes, `at_once` before they are received.
fn pass((a, b): (&mut Endpoint, &mut Endpoint), len: usize, at_once: u32, count: u32) {
    let start = Instant::now();
    let mut received = 0;
    for first in (0..count).step_by(at_once as usize) {
        let end = count.min(first + at_once);
        for number in first..end {
            let mut buf = a.alloc(len).expect("buffers come back");
            buf.resize(len);
            buf[..4].copy_from_slice(&number.to_le_bytes());
            a.send(BOB, buf).unwrap();
        }
        while received < end {
            assert!(start.elapsed() < LIMIT, "{received} of {count} messages of {len} bytes");
            while let Some(event) = a.poll() {
                assert!(matches!(event, Event::Connected(BOB)), "{event:?}");
            }
            while let Some(event) = b.poll() {
                if let Event::Message { buf, .. } = event {
                    assert_eq!((buf.len(), &buf[..4]), (len, &received.to_le_bytes()[..]));
                    received += 1;
                }
            }
        }
    }
}

/// What [`MESSAGES`] cost once warm: allocations, and copies on both sides by either layer, together.
fn cost(shared: bool, len: usize, at_once: u32) -> (u64, u64) {
    let (mut a, mut b) = pair(shared);
    let start = Instant::now();
    while start.elapsed() < WARM_UP_TIME {
        pass((&mut a, &mut b), len, at_once, MESSAGES / 100);
    }
    let copies = |a: &Endpoint, b: &Endpoint| -> u64 {
        [a, b].iter().map(|end| end.counters().copies + end.cl().stats().copies).sum()
    };
    let mut round = || {
        let copied = copies(&a, &b);
        let allocated = measure(|| pass((&mut a, &mut b), len, at_once, MESSAGES)).count_total;
        (allocated, copies(&a, &b) - copied)
    };
    // A queue may grow once more when the machine stalls and more waits than ever before.
    (0..ROUNDS).map(|_| round()).min().expect("there are rounds")
}

#[test]
fn a_message_alone_in_its_datagram_is_neither_copied_nor_allocated_for() {
    for len in [64, 8192, 60_000] {
        assert_eq!(cost(false, len, 1), (0, 0), "{len} bytes");
    }
}

#[test]
fn messages_that_share_a_datagram_are_copied_into_it_and_out_and_not_allocated_for() {
    let (allocated, copied) = cost(false, 64, WINDOW);
    assert_eq!(allocated, 0);
    assert!(copied <= u64::from(MESSAGES) * 2, "{copied} copies");
}

#[test]
fn a_message_lent_through_shared_memory_is_neither_copied_nor_allocated_for() {
    for (len, at_once) in [(4096, 1), (60_000, 1), (60_000, WINDOW)] {
        assert_eq!(cost(true, len, at_once), (0, 0), "{len} bytes, {at_once} at once");
    }
}

#[test]
fn a_short_message_is_copied_into_shared_memory_and_out_and_not_allocated_for() {
    for at_once in [1, WINDOW] {
        assert_eq!(cost(true, 64, at_once), (0, u64::from(MESSAGES) * 2), "{at_once} at once");
    }
}
