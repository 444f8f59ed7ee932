//! Of each peer other processes see what was copied for it and what was dropped of it, and of each event loop what
//! it does.

mod common;

use cl::counters::{Snapshot, list};
use cl::runtime::{Core, RuntimeConfig, Service, spawn};
use cl::{Endpoint, Received, TransportChoice};
use cl_base::PeerId;
use common::{LIMIT, over};
use std::time::{Duration, Instant};

/// Parties of this test alone.
const ALICE: PeerId = PeerId::new(0x434f, 1);
const BOB: PeerId = PeerId::new(0x434f, 2);
const STRANGER: PeerId = PeerId::new(0x434f, 3);
const NOBODY: PeerId = PeerId::new(0x434f, 4);

fn open(me: PeerId) -> Endpoint {
    Endpoint::open(over(me, TransportChoice::Mio)).unwrap()
}

fn snapshot(me: PeerId) -> Snapshot {
    let of_ours = |e: &Snapshot| e.pid == std::process::id() && e.me == me;
    list().endpoints.into_iter().find(of_ours).expect("this machine has /dev/shm or /tmp")
}

fn of_peer(snapshot: &Snapshot, peer: Option<PeerId>, group: &str, name: &str) -> u64 {
    let mut counters = snapshot.peer_counters.iter();
    let column = counters.position(|c| c.group == group && c.name == name).expect("a counter of that name");
    snapshot.peers.iter().find(|p| p.peer == peer).map_or(0, |row| row.values[column])
}

#[test]
fn copies_and_drops_are_counted_by_peer() {
    let (mut a, mut b, mut stranger) = (open(ALICE), open(BOB), open(STRANGER));
    a.resolve(BOB, b.local_addr());
    b.resolve(ALICE, a.local_addr());
    // B has a row at A, for A has sent it something; the stranger has none.
    a.send(BOB, a.alloc_copy(b"x").unwrap()).unwrap();
    for sender in [&mut b, &mut stranger] {
        for _ in 0..3 {
            let lost = sender.alloc_copy(b"lost").unwrap();
            sender.send_to(NOBODY, a.local_addr(), lost).unwrap();
        }
    }
    // Eight that share a datagram: copied into it, and out of it.
    for _ in 0..8 {
        b.queue_copy(ALICE, b"packed").unwrap();
    }
    b.flush();
    let deadline = Instant::now() + LIMIT;
    let mut received = 0;
    loop {
        // Often enough that the time is looked at, for the counters to be shown.
        for _ in 0..100 {
            received += usize::from(a.poll().is_some());
            assert!(b.poll().is_none_or(|received| received.from == ALICE));
        }
        let (seen_a, seen_b) = (snapshot(ALICE), snapshot(BOB));
        if received == 8
            && of_peer(&seen_a, Some(BOB), "cl", "messages_received") == 8
            && of_peer(&seen_a, None, "cl drops", "misaddressed") == 3
            && of_peer(&seen_b, Some(ALICE), "cl", "copies") == 8
        {
            assert_eq!(of_peer(&seen_a, Some(BOB), "cl drops", "misaddressed"), 3);
            assert_eq!(of_peer(&seen_a, Some(BOB), "cl", "copies"), 8);
            assert_eq!((a.stats().copies, b.stats().copies), (8, 8));
            assert_eq!(a.stats().drops.misaddressed, 6);
            return;
        }
        assert!(Instant::now() < deadline, "{received} received; {seen_a:?}");
    }
}

/// Receives, and sleeps in between.
struct Sink;

impl Service for Sink {
    type Mail = ();

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if received.buf.is_empty() {
            cx.stop();
        }
    }
}

#[test]
fn an_event_loop_shows_what_it_does_before_it_sleeps() {
    const SINK: PeerId = PeerId::new(0x434f, 5);
    let endpoint = over(SINK, TransportChoice::Mio);
    let sink = spawn("sink", RuntimeConfig::new(Some(endpoint)), |_| Sink).unwrap();
    let mut sender = open(PeerId::new(0x434f, 6));
    sender.resolve(SINK, sink.local_addr().unwrap());
    let of_loop = |name: &str| {
        let seen = snapshot(SINK);
        let mut totals = seen.totals.iter();
        totals.find(|(c, _)| c.group == "runtime" && c.name == name).unwrap_or_else(|| panic!("no {name}")).1
    };
    let deadline = Instant::now() + LIMIT;
    let mut sent = 0;
    // A sleep is counted when it is over: the next message ends it.
    while sent < 3 || of_loop("parked_us") == 0 {
        sender.send(SINK, sender.alloc_copy(b"one more").unwrap()).unwrap();
        sent += 1;
        // Nothing else wakes it: what it did is shown though it sleeps on.
        while of_loop("messages") < sent {
            assert!(Instant::now() < deadline, "message {sent}: {:?}", snapshot(SINK));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(of_loop("messages"), sent);
    assert!(of_loop("parks") > 0 && of_loop("turns") >= of_loop("parks"), "{:?}", snapshot(SINK));
    assert!(of_loop("handlers_us") >= of_loop("handler_max_us"));
    assert_eq!((of_loop("mails"), of_loop("mailbox"), of_loop("run_queue")), (0, 0, 0));
    sender.send(SINK, sender.alloc(0).unwrap()).unwrap();
    sink.join().unwrap();
}
