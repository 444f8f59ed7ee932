//! Messages go on, each of them, while strangers call in the names of one of the parties and of invented ones. What
//! they cannot do is the business of `rcl-proto`'s tests; here the frames come through the socket.

use cl_base::{PeerId, Rng};
use rcl::{Checksum, CloseReason, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);
const MESSAGES: u32 = 20_000;
/// Of the forged frames as many as of the messages, so that they fill no socket's buffer for long.
const FORGED: u64 = 20_000;
/// Names in which strangers call.
const NAMES: u32 = 8;
const CONNECTIONS_MAX: usize = 4;

fn open(me: PeerId) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = cl::SharedMemory::Never;
    // Whoever makes a frame up can make up its checksum.
    config.protocol.checksum = Checksum::None;
    config.protocol.connections_max = CONNECTIONS_MAX;
    // The window is shared: two who were invented would halve it.
    config.protocol.window_of_all = 64;
    Endpoint::open(config).unwrap()
}

/// A call, or the confirmation of one, of a life later than any.
fn forged(rng: &mut Rng) -> Vec<u8> {
    let kind = if rng.chance(1, 4) { 14 } else { 0 };
    let mut frame = vec![5, kind, 0, 0, 0, 0, 0, 0];
    let destination = if kind == 0 { 0 } else { rng.next_u64() };
    for word in [rng.next_u64(), destination, rng.next_u64(), u64::MAX, rng.next_u64()] {
        frame.extend_from_slice(&word.to_le_bytes());
    }
    frame
}

#[test]
fn messages_go_on_while_strangers_call() {
    let (mut a, mut b) = (open(A), open(B));
    a.connect(B, b.local_addr());
    let mut rng = Rng::new(1);
    // One of them says that it is A.
    let mut strangers: Vec<cl::Endpoint> = (0..NAMES)
        .map(|n| {
            let me = if n == 0 { A } else { PeerId::new(100 + n, 0) };
            let mut config = cl::EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
            config.shared_memory = cl::SharedMemory::Never;
            let mut stranger = cl::Endpoint::open(config).unwrap();
            stranger.resolve(B, b.local_addr());
            stranger
        })
        .collect();
    let (start, mut sent, mut received, mut said) = (Instant::now(), 0u32, 0u32, 0u64);
    let mut answers = 0;
    while received < MESSAGES || said < FORGED {
        assert!(start.elapsed() < LIMIT, "{received} received, {:?}", b.counters());
        if said < FORGED {
            let stranger = &mut strangers[rng.below(u64::from(NAMES)) as usize];
            let frame = stranger.alloc_copy(&forged(&mut rng)).unwrap();
            said += u64::from(stranger.send(B, frame).is_ok());
            while stranger.poll().is_some() {
                answers += 1;
            }
        }
        if sent < MESSAGES && a.send(B, a.alloc_copy(&sent.to_le_bytes()).unwrap()).is_ok() {
            sent += 1;
        }
        for (me, end) in [(A, &mut a), (B, &mut b)] {
            match end.poll() {
                Some(Event::Message { from, buf }) => {
                    assert_eq!((me, from, &buf[..]), (B, A, &received.to_le_bytes()[..]));
                    received += 1;
                }
                Some(Event::Connected(peer)) => assert!(peer == A || peer == B, "nobody else is there"),
                None => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }
    let counters = b.counters();
    println!("{answers} answers to {said} forged frames, {counters:?}");
    assert!(counters.unproven > FORGED / 8, "the forged frames have arrived: {counters:?}");
    assert_eq!(counters.refused, 0, "and took no room");
    assert!(answers <= said, "nobody is told more than he says");
    // The true one closes as if nothing had been.
    a.close(B);
    let mut closed = [false; 2];
    while closed != [true; 2] {
        assert!(start.elapsed() < LIMIT, "{closed:?}");
        for (closed, end) in closed.iter_mut().zip([&mut a, &mut b]) {
            if let Some(Event::Closed(_, reason)) = end.poll() {
                assert_eq!(reason, CloseReason::Graceful);
                *closed = true;
            }
        }
    }
}
