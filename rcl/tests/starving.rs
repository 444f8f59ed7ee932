//! Peers that begin long messages and then say nothing hold the buffers of which there are few. An endpoint that sleeps
//! between messages goes on answering the others.

use cl::{PoolConfig, SharedMemory, SizeClass};
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SERVER: PeerId = PeerId::new(1, 0);
const CLIENT: PeerId = PeerId::new(2, 0);
/// Who begins and does not end.
const NAMES: u32 = 8;
const LONG: usize = 4 << 20;
const PINGS: u32 = 200;
/// A server that is woken by its peers' questions only would sleep for a quarter of this, longer than the test may take.
const DEAD_AFTER: Duration = Duration::from_secs(400);
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, last: u8) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, last], 0)));
    config.cl.shared_memory = SharedMemory::Never;
    let class = |capacity, count| SizeClass { capacity, count };
    config.cl.pool = PoolConfig { classes: vec![class(2 << 10, 1024), class(64 << 10, 128), class(LONG, 4)] };
    config.protocol.dead_after = DEAD_AFTER;
    Endpoint::open(config).unwrap()
}

/// Sends every short message back, and sleeps when there is nothing.
fn serve(server: &mut Endpoint, stop: &AtomicBool) {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) && start.elapsed() < LIMIT {
        match server.poll() {
            Some(Event::Message { from, buf }) => {
                assert_eq!((from, buf.len()), (CLIENT, 8), "no other ends a message");
                server.send(from, buf).unwrap();
                server.flush();
            }
            Some(Event::Connected(_)) => {}
            Some(other) => panic!("{other:?}"),
            None => server.park(Some(LIMIT)).unwrap(),
        }
    }
}

#[test]
fn a_sleeping_endpoint_goes_on_while_long_messages_are_unfinished() {
    let mut server = open(SERVER, 1);
    let address = server.local_addr();
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            serve(&mut server, &stop);
            server.counters()
        });
        let strangers: Vec<Endpoint> = (0..NAMES)
            .map(|n| {
                let mut stranger = open(PeerId::new(100 + n, 0), 7);
                stranger.connect(SERVER, address);
                while !matches!(stranger.poll(), Some(Event::Connected(SERVER))) {
                    assert!(start.elapsed() < LIMIT);
                }
                stranger.send(SERVER, stranger.alloc_copy(&vec![7; LONG]).unwrap()).unwrap();
                // What the first window holds is sent, and no more.
                stranger.flush();
                stranger
            })
            .collect();
        let mut client = open(CLIENT, 1);
        client.connect(SERVER, address);
        for n in 0..PINGS {
            client.send(SERVER, client.alloc_copy(&[n as u8; 8]).unwrap()).unwrap();
            client.flush();
            loop {
                assert!(start.elapsed() < LIMIT, "ping {n} had no answer");
                match client.poll() {
                    Some(Event::Message { buf, .. }) => {
                        assert_eq!(buf[..], [n as u8; 8]);
                        break;
                    }
                    Some(Event::Connected(SERVER)) => {}
                    Some(other) => panic!("{other:?}"),
                    None => client.park(Some(Duration::from_millis(1))).unwrap(),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        // It sleeps for a moment only while somebody lacks a buffer.
        let counters = thread.join().unwrap();
        assert!(counters.starved > 0, "{counters:?}");
        drop(strangers);
    });
}
