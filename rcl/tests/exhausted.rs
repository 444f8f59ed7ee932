//! A program that holds every buffer of its endpoint for longer than the time after which a silent peer is dead still
//! hears its peer, and goes on when it gives some back.

use cl::{PoolConfig, SharedMemory, SizeClass, TransportChoice};
use cl_base::PeerId;
use rcl::{Buf, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const DEAD_AFTER: Duration = Duration::from_millis(800);
const BUFFERS: usize = 128;
const MTU: usize = 1400;
const LEN: usize = 1000;
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, buffers: usize, transport: TransportChoice) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = SharedMemory::Never;
    config.cl.pool = PoolConfig { classes: vec![SizeClass { capacity: 2048, count: buffers }] };
    (config.cl.mtu, config.cl.transport) = (Some(MTU), transport);
    config.protocol.dead_after = DEAD_AFTER;
    Endpoint::open(config).unwrap()
}

/// Two ends, of which one holds all buffers.
struct Pair {
    a: Endpoint,
    b: Endpoint,
    /// What A holds, and whether it wants all there are.
    held: Vec<Buf>,
    greedy: bool,
    sleeps: bool,
    /// Messages that have come to A and to B.
    received: [u32; 2],
}

impl Pair {
    fn step(&mut self) {
        while self.greedy
            && let Ok(buf) = self.a.alloc(LEN)
        {
            self.held.push(buf);
        }
        let next = |received: &mut u32, buf: &[u8]| {
            assert_eq!(buf[..4], received.to_le_bytes());
            *received += 1;
        };
        match self.a.poll() {
            Some(Event::Message { buf, .. }) => {
                next(&mut self.received[0], &buf);
                if self.greedy {
                    self.held.push(buf);
                }
            }
            None if self.sleeps => self.a.park(Some(Duration::from_millis(1))).unwrap(),
            Some(Event::Connected(B)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        match self.b.poll() {
            Some(Event::Message { buf, .. }) => next(&mut self.received[1], &buf),
            Some(Event::Connected(A)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}

fn message(end: &Endpoint, n: u32) -> Option<Buf> {
    let mut buf = end.alloc(LEN).ok()?;
    buf.extend_from_slice(&n.to_le_bytes());
    buf.extend_from_slice(&[7; LEN - 4]);
    Some(buf)
}

fn hold_everything(transport: TransportChoice, sleeps: bool) {
    let (a, b) = (open(A, BUFFERS, transport), open(B, 1024, transport));
    let mut pair = Pair { a, b, held: Vec::new(), greedy: false, sleeps, received: [0; 2] };
    pair.a.connect(B, pair.b.local_addr());
    let start = Instant::now();
    while !(pair.a.sizes(B).is_some() && pair.b.sizes(A).is_some()) {
        pair.step();
        assert!(start.elapsed() < LIMIT);
    }
    // A part is in what was sent, and what was not is held.
    let (mut sent, mut said) = (0, 0);
    while let Some(buf) = message(&pair.a, sent) {
        if pair.a.send(B, buf).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent as usize > BUFFERS / 4, "{sent} sent");
    pair.greedy = true;
    let start = Instant::now();
    while start.elapsed() < 3 * DEAD_AFTER {
        pair.step();
        // What B says meanwhile cannot be kept.
        if let Some(buf) = message(&pair.b, said)
            && pair.b.send(A, buf).is_ok()
        {
            said += 1;
        }
    }
    assert_eq!(pair.received[1], sent, "all was acknowledged, and B waits");
    let held = pair.held.len();
    (pair.greedy, pair.held) = (false, Vec::new());
    let start = Instant::now();
    let all = sent + 1000;
    while pair.received != [said, all] {
        assert!(start.elapsed() < LIMIT, "{:?} of {:?}", pair.received, [said, all]);
        if sent < all
            && let Some(buf) = message(&pair.a, sent)
            && pair.a.send(B, buf).is_ok()
        {
            sent += 1;
        }
        pair.step();
    }
    println!("{held} buffers held, {said} messages received after that, {:?}", pair.a.counters());
    assert!(held > BUFFERS * 3 / 4 && said > 0);
}

#[test]
fn who_holds_all_buffers_still_hears_its_peer() {
    hold_everything(TransportChoice::Mio, false);
    hold_everything(TransportChoice::Auto, true);
}
