//! What connections do, as it is seen from outside.

use cl::counters::{Snapshot, list};
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(0x5747, 1);
const B: PeerId = PeerId::new(0x5747, 2);
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, faults: Option<&str>) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.cl.shared_memory = cl::SharedMemory::Never;
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
    let mut counters = snapshot.peer_counters.iter();
    let column = counters.position(|c| c.group == "rcl" && c.name == name).expect("a counter of that name");
    snapshot.peers.iter().find(|p| p.peer == Some(peer)).expect("a row").values[column]
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
            && of_peer(&seen_a, B, "held") == 0;
        if all {
            break seen_a;
        }
        assert!(Instant::now() < deadline, "{seen_a:?} {seen_b:?}");
        assert!(a.poll().is_none() && b.poll().is_none());
    };
    assert!(a.counters().retransmissions > 0);
    assert_eq!(of_peer(&shown, B, "retransmissions"), a.counters().retransmissions);
    assert_eq!(total(&shown, "rcl", "connections"), 1);
    assert!(of_peer(&shown, B, "window") > 0 && of_peer(&shown, B, "rtt_us") > 0, "{shown:?}");

    // A connection that has ended leaves no state behind.
    a.abort(B);
    while of_peer(&snapshot(A), B, "window") > 0 {
        assert!(Instant::now() < deadline);
        a.poll();
        b.poll();
    }
    assert_eq!(total(&snapshot(A), "rcl", "connections"), 0);
}
