//! What connections do, as it is seen from outside.

use cl::counters::{Snapshot, list};
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(0x5747, 1);
const B: PeerId = PeerId::new(0x5747, 2);
/// Those that share memory.
const C: PeerId = PeerId::new(0x5747, 3);
const D: PeerId = PeerId::new(0x5747, 4);
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, faults: Option<&str>) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if ![C, D].contains(&me) {
        config.cl.shared_memory = cl::SharedMemory::Never;
    }
    config.cl.faults = faults.map(|faults| faults.parse().expect("faults"));
    Endpoint::open(config).expect("an endpoint")
}

fn snapshot(me: PeerId) -> Snapshot {
    let of_ours = |e: &Snapshot| e.pid == std::process::id() && e.me == me;
    list().endpoints.into_iter().find(of_ours).expect("this machine has /dev/shm or /tmp")
}

fn total(snapshot: &Snapshot, group: &str, name: &str) -> u64 {
    let found = snapshot.totals.iter().find(|(c, _)| c.group == group && c.name == name);
    found.unwrap_or_else(|| panic!("no {group} {name}")).1
}

fn of_peer(snapshot: &Snapshot, peer: PeerId, name: &str) -> u64 {
    of_peer_in(snapshot, peer, "rcl", name)
}

fn of_peer_in(snapshot: &Snapshot, peer: PeerId, group: &str, name: &str) -> u64 {
    let mut counters = snapshot.peer_counters.iter();
    let column = counters.position(|c| c.group == group && c.name == name).expect("a counter of that name");
    snapshot.peers.iter().find(|p| p.peer == Some(peer)).expect("a row").values[column]
}

/// The rows of all peers, and of the others, are the total.
fn assert_rows_add_up(seen: &Snapshot) {
    for name in
        ["messages_sent", "bytes_sent", "messages_received", "bytes_received", "retransmissions", "copies"]
    {
        let mut counters = seen.peer_counters.iter();
        let column =
            counters.position(|c| c.group == "rcl" && c.name == name).expect("a counter of that name");
        let sum: u64 = seen.peers.iter().map(|p| p.values[column]).sum();
        assert_eq!(sum, total(seen, "rcl", name), "{name}: {seen:?}");
    }
}

#[test]
fn connections_over_a_bad_network_show_what_they_do() {
    let (mut a, mut b) = (open(A, Some("drop=20%,seed=1")), open(B, None));
    a.connect(B, b.local_addr());
    let deadline = Instant::now() + LIMIT;
    let (mut sent, mut received) = (0u32, 0u32);
    while received < 500 {
        assert!(Instant::now() < deadline, "{sent} sent, {received} received");
        if sent < 500 && a.send(B, a.alloc_copy(&[1; 3000]).expect("a buffer")).is_ok() {
            sent += 1;
        }
        while let Some(event) = a.poll() {
            assert!(!matches!(event, Event::Closed(..)), "{event:?}");
        }
        while let Some(event) = b.poll() {
            received += u32::from(matches!(event, Event::Message { .. }));
        }
    }
    // They are shown while the endpoints are polled.
    let shown = loop {
        let (seen_a, seen_b) = (snapshot(A), snapshot(B));
        let all = total(&seen_a, "rcl", "retransmissions") == a.counters().retransmissions
            && total(&seen_b, "rcl drops", "duplicates") == b.counters().duplicates
            && of_peer(&seen_a, B, "held") == 0
            && total(&seen_b, "rcl", "messages_received") == 500;
        if all {
            break seen_a;
        }
        assert!(Instant::now() < deadline, "{seen_a:?} {seen_b:?}");
        assert!(a.poll().is_none() && b.poll().is_none());
    };
    assert!(a.counters().retransmissions > 0);
    assert_eq!(of_peer(&shown, B, "retransmissions"), a.counters().retransmissions);
    assert_eq!((of_peer(&shown, B, "messages_sent"), of_peer(&shown, B, "bytes_sent")), (500, 500 * 3000));
    assert_eq!(
        (total(&shown, "rcl", "messages_sent"), total(&shown, "rcl", "bytes_sent")),
        (500, 500 * 3000)
    );
    let shown_b = snapshot(B);
    assert_eq!(total(&shown_b, "rcl", "bytes_received"), 500 * 3000);
    // All came from A, and nothing else was dropped.
    assert_eq!(of_peer_in(&shown_b, A, "rcl drops", "duplicates"), b.counters().duplicates);
    assert_eq!(of_peer_in(&shown_b, A, "rcl drops", "checksum"), 0);
    assert_eq!(of_peer(&shown_b, A, "copies"), b.counters().copies);
    assert!(total(&shown, "rcl", "spurious") <= a.counters().spurious);
    assert_eq!(total(&shown, "rcl", "connections"), 1);
    assert!(of_peer(&shown, B, "window") > 0 && of_peer(&shown, B, "rtt_us") > 0, "{shown:?}");

    // A connection that has ended leaves no state behind, but what it has counted.
    a.abort(B);
    while of_peer(&snapshot(A), B, "window") > 0 {
        assert!(Instant::now() < deadline);
        a.poll();
        b.poll();
    }
    assert_eq!(total(&snapshot(A), "rcl", "connections"), 0);
    assert_eq!(of_peer(&snapshot(A), B, "messages_sent"), 500);
    assert_rows_add_up(&snapshot(A));
}

#[test]
fn connections_over_shared_memory_show_what_they_carry() {
    let (mut c, mut d) = (open(C, None), open(D, None));
    c.connect(D, d.local_addr());
    let deadline = Instant::now() + LIMIT;
    // D reads only when C can send no more.
    let mut sent = 0u64;
    while sent == 0 || c.alloc_copy(&[7; 100]).is_ok_and(|buf| c.send(D, buf).map(|()| sent += 1).is_ok()) {
        assert!(Instant::now() < deadline, "{sent} sent");
        let connected = matches!(c.poll(), Some(Event::Connected(D)));
        sent += u64::from(connected && c.send(D, c.alloc_copy(&[7; 100]).expect("a buffer")).is_ok());
        if sent == 0 {
            d.poll();
        }
    }
    let mut received = 0;
    while received < sent {
        assert!(Instant::now() < deadline, "{sent} sent, {received} received");
        c.poll();
        received += u64::from(matches!(d.poll(), Some(Event::Message { .. })));
    }
    loop {
        assert!(Instant::now() < deadline);
        assert!(c.poll().is_none() && d.poll().is_none());
        let (seen_c, seen_d) = (snapshot(C), snapshot(D));
        if total(&seen_c, "rcl", "messages_sent") == sent
            && total(&seen_d, "rcl", "bytes_received") == sent * 100
        {
            assert_eq!(total(&seen_c, "rcl", "shared_connections"), 1);
            assert_eq!(
                (of_peer(&seen_c, D, "messages_sent"), of_peer(&seen_c, D, "bytes_sent")),
                (sent, sent * 100)
            );
            assert!(of_peer(&seen_c, D, "credit_stalls") > 0, "the ring was full");
            assert_eq!(of_peer(&seen_d, C, "messages_received"), sent);
            // The endpoints themselves say the same.
            let (of_c, of_d) = (c.counters(), d.counters());
            assert_eq!((of_c.messages_sent, of_c.bytes_sent), (sent, sent * 100));
            assert_eq!((of_d.messages_received, of_d.bytes_received), (sent, sent * 100));
            break;
        }
    }
    // They are still there when the connection has ended, and those of the next are added.
    for again in [0, 1] {
        if again > 0 {
            c.connect(D, d.local_addr());
            c.send(D, c.alloc_copy(&[7; 100]).expect("a buffer")).expect("it waits for the answer");
            while d.counters().messages_received < sent + again {
                assert!(Instant::now() < deadline);
                c.poll();
                d.poll();
            }
        }
        c.abort(D);
        while total(&snapshot(C), "rcl", "shared_connections") > 0
            || total(&snapshot(C), "rcl", "messages_sent") != sent + again
        {
            assert!(Instant::now() < deadline);
            c.poll();
            d.poll();
        }
        let seen = snapshot(C);
        assert_rows_add_up(&seen);
        // The last moments of a short one are the others'.
        assert!((sent..=sent + again).contains(&of_peer(&seen, D, "messages_sent")), "{seen:?}");
    }
}
