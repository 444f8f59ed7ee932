//! Much, over a bad network: every byte right, in order, exactly once.

mod common;

use cl::SharedMemory;
use cl_base::PeerId;
use common::{Mix, Receiver, Sender};
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// On what each side sends.
const FAULTS: &str = "drop=1%,reorder=1%,duplicate=1%,corrupt=0.1%,seed=1";
const MIX: Mix = Mix { shortest: 0, longest: 8 << 20, announced: 32 << 20 };
/// The run has come to a stop if nothing arrives for so long.
const STALL: Duration = Duration::from_secs(20);

fn open(me: PeerId) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = SharedMemory::Never;
    config.cl.faults = Some(FAULTS.parse().unwrap());
    Endpoint::open(config).unwrap()
}

/// Sends `total` bytes from a thread of its own and receives them here.
fn soak(total: u64) {
    let (mut a, mut b) = (open(A), open(B));
    let there = b.local_addr();
    let done = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&done);
    let sending = std::thread::spawn(move || {
        a.connect(B, there);
        let mut sender = Sender::new(1, MIX);
        loop {
            if sender.bytes < total {
                sender.send(&mut a, B);
                if sender.bytes >= total {
                    a.close(B);
                }
            }
            match a.poll() {
                None => std::thread::yield_now(),
                Some(Event::Connected(B)) => {}
                Some(Event::Sent { .. }) => sender.on_sent(),
                Some(Event::Closed(B, CloseReason::Graceful)) => break,
                Some(other) => panic!("{other:?}; {:?}", a.counters()),
            }
        }
        // The other side may have to ask again for the last acknowledgement.
        while !heard.load(Ordering::Relaxed) {
            a.poll();
            std::thread::yield_now();
        }
        (sender.messages, sender.bytes, a)
    });
    let mut receiver = Receiver::new(MIX);
    let (start, mut said, mut last) = (Instant::now(), Instant::now(), (Instant::now(), 0));
    let took = loop {
        match b.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(A)) => {}
            Some(Event::Closed(A, CloseReason::Graceful)) => break start.elapsed(),
            Some(event @ Event::Closed(..)) => panic!("{event:?} after {} bytes", receiver.bytes),
            Some(event) => drop(receiver.on_event(&mut b, event)),
        }
        if said.elapsed() > Duration::from_secs(1) {
            said = Instant::now();
            let (arrived, seconds) = (receiver.bytes as f64, start.elapsed().as_secs_f64());
            print!(
                "\r{:5.2} of {:.2} GB, {:4.0} MB/s ",
                arrived / 1e9,
                total as f64 / 1e9,
                arrived / seconds / 1e6
            );
            std::io::stdout().flush().unwrap();
            if last.1 != receiver.bytes {
                last = (said, receiver.bytes);
            }
            assert!(last.0.elapsed() < STALL, "it has stopped: {:?} {:?}", b.counters(), b.sizes(A));
        }
    };
    done.store(true, Ordering::Relaxed);
    let (messages, bytes, a) = sending.join().unwrap();
    assert_eq!((receiver.messages, receiver.bytes), (messages, bytes));
    println!(
        "\n{messages} messages, {bytes} bytes in {took:.1?}: {:.0} MB/s\nsender: {:?}\n{:?}\nreceiver: {:?}\n{:?}",
        bytes as f64 / took.as_secs_f64() / 1e6,
        a.cl().faults().unwrap(),
        a.counters(),
        b.cl().faults().unwrap(),
        b.counters()
    );
    assert!(a.counters().retransmissions > 0 && b.counters().checksum > 0);
}

#[test]
fn two_hundred_megabytes_over_a_bad_network() {
    soak(200_000_000);
}

#[test]
#[ignore = "takes minutes"]
fn ten_gigabytes_over_a_bad_network() {
    soak(10_000_000_000);
}
