//! Many send to one over the network at once: all get through, at much the same rate.

use cl::SharedMemory;
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SINK: PeerId = PeerId::new(1000, 0);
const SENDERS: usize = 64;
/// Each polls its part of the senders.
const THREADS: usize = 2;
const MESSAGE_LEN: usize = 16 << 10;
const MESSAGES: usize = 256;
const LIMIT: Duration = Duration::from_secs(60);

fn open(me: PeerId) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = SharedMemory::Never;
    Endpoint::open(config).unwrap()
}

/// Sends for the senders of these numbers.
fn send(numbers: Vec<usize>, sink: SocketAddr, go: &AtomicBool, done: &AtomicBool) -> u64 {
    let mut senders: Vec<_> = numbers.iter().map(|&n| (open(PeerId::new(n as u32, 0)), 0)).collect();
    senders.iter_mut().for_each(|(endpoint, _)| endpoint.connect(SINK, sink));
    while !done.load(Ordering::Relaxed) {
        for (endpoint, sent) in &mut senders {
            while go.load(Ordering::Relaxed) && *sent < MESSAGES {
                let Ok(mut buf) = endpoint.alloc(MESSAGE_LEN) else { break };
                buf.resize(MESSAGE_LEN);
                buf[..8].copy_from_slice(&(*sent as u64).to_le_bytes());
                match endpoint.send(SINK, buf) {
                    Ok(()) => *sent += 1,
                    Err(error) if error.is_backpressure() => break,
                    Err(error) => panic!("{error}"),
                }
            }
            match endpoint.poll() {
                None | Some(Event::Connected(SINK)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
        std::thread::yield_now();
    }
    senders.iter().map(|(endpoint, _)| endpoint.counters().retransmissions).sum()
}

/// The rate of the slowest sender in terms of the mean.
fn incast() -> f64 {
    let mut sink = open(SINK);
    let addr = sink.local_addr();
    let [go, done] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            let numbers = (1..=SENDERS).filter(|n| n % THREADS == t).collect();
            std::thread::spawn(move || send(numbers, addr, &go, &done))
        })
        .collect();
    let (mut connected, mut received) = (0, [0; SENDERS]);
    let (mut start, mut rates) = (Instant::now(), Vec::new());
    while rates.len() < SENDERS {
        assert!(start.elapsed() < LIMIT, "{connected} connected, received {received:?}");
        match sink.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(_)) => {
                connected += 1;
                if connected == SENDERS {
                    start = Instant::now();
                    go.store(true, Ordering::Relaxed);
                }
            }
            Some(Event::Message { from, buf }) => {
                let count = &mut received[from.principal.0 as usize - 1];
                assert_eq!((buf.len(), &buf[..8]), (MESSAGE_LEN, &(*count as u64).to_le_bytes()[..]));
                *count += 1;
                if *count == MESSAGES {
                    rates.push((MESSAGES * MESSAGE_LEN) as f64 / start.elapsed().as_secs_f64() / 1e6);
                }
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    let took = start.elapsed();
    done.store(true, Ordering::Relaxed);
    let again: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    let mean = rates.iter().sum::<f64>() / SENDERS as f64;
    let slowest = rates.iter().copied().fold(f64::MAX, f64::min);
    println!(
        "{SENDERS} to 1: {took:.2?}, {:.0} MB/s together; mean {mean:.2}, slowest {slowest:.2} MB/s, ratio {:.2}; \
         {again} segments sent again",
        (SENDERS * MESSAGES * MESSAGE_LEN) as f64 / took.as_secs_f64() / 1e6,
        slowest / mean
    );
    slowest / mean
}

#[test]
fn sixty_four_senders_share_one_receiver_fairly() {
    // Other work on the machine may favour one thread of senders for a while.
    let mut ratios = [(); 3].map(|()| incast());
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[1] >= 0.5, "{ratios:?}");
}
