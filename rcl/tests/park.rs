//! Endpoints that sleep: idle ones cost nothing, and nothing is late because of it.

use cl::runtime::{Core, Policy, RuntimeConfig, Service, TimerId, spawn};
use cl::{Received, SharedMemory, TransportChoice};
use cl_base::PeerId;
use rcl::{CloseReason, Connections, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);

/// How the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Shared,
    Auto,
    Mio,
}

fn config(me: PeerId, way: Way, faults: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if way != Way::Shared {
        config.cl.shared_memory = SharedMemory::Never;
    }
    if way == Way::Mio {
        config.cl.transport = TransportChoice::Mio;
    }
    if !faults.is_empty() {
        config.cl.faults = Some(faults.parse().expect("faults"));
    }
    config
}

fn open(me: PeerId, way: Way, faults: &str) -> Endpoint {
    Endpoint::open(config(me, way, faults)).unwrap()
}

/// The processor time that this thread has used.
fn cpu_time() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(line.split(' ').next().unwrap().parse().unwrap())
}

/// The next event, asleep until there is one; how often it slept.
fn wait(endpoint: &mut Endpoint, parks: &mut u32) -> Event {
    let start = Instant::now();
    loop {
        if let Some(event) = endpoint.poll() {
            return event;
        }
        assert!(start.elapsed() < LIMIT, "no event; {:?}", endpoint.counters());
        endpoint.park(Some(LIMIT)).unwrap();
        *parks += 1;
    }
}

/// Sends every message back until the connection ends, asleep in between; tells how often it slept.
fn echo(mut endpoint: Endpoint) -> u32 {
    let mut parks = 0;
    loop {
        match wait(&mut endpoint, &mut parks) {
            Event::Message { from, buf } => endpoint.send(from, buf).unwrap(),
            Event::Closed(_, reason) => {
                assert_eq!(reason, CloseReason::Graceful);
                break;
            }
            _ => {}
        }
        endpoint.flush();
    }
    // The peer may not know yet that all has arrived, and asks.
    let end = Instant::now();
    while end.elapsed() < Duration::from_secs(1) {
        endpoint.poll();
        endpoint.park(Some(Duration::from_millis(50))).unwrap();
    }
    parks
}

/// Throws a ball `rounds` times, closes, and waits for the end.
fn play(endpoint: &mut Endpoint, rounds: u32) -> u32 {
    let mut parks = 0;
    for n in 0..rounds {
        endpoint.send(B, endpoint.alloc_copy(&n.to_le_bytes()).unwrap()).unwrap();
        endpoint.flush();
        loop {
            match wait(endpoint, &mut parks) {
                Event::Message { from: B, buf } => {
                    assert_eq!(buf[..], n.to_le_bytes());
                    break;
                }
                Event::Connected(B) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    endpoint.close(B);
    assert!(matches!(wait(endpoint, &mut parks), Event::Closed(B, CloseReason::Graceful)));
    parks
}

#[test]
fn two_that_sleep_wake_for_each_other() {
    for way in [Way::Shared, Way::Auto, Way::Mio] {
        let b = open(B, way, "");
        let addr = b.local_addr();
        let other = std::thread::spawn(move || echo(b));
        let mut a = open(A, way, "");
        a.connect(B, addr);
        let parks = play(&mut a, 200);
        // Now and then the answer is there before it has fallen asleep.
        assert!(parks < 2000, "{way:?}: slept {parks} times for 200 messages");
        assert!(other.join().unwrap() < 2000, "{way:?}");
        assert_eq!(a.cl().stats().shared_sent > 100, way == Way::Shared);
    }
}

#[test]
fn what_is_lost_is_sent_again_in_time_though_both_sleep() {
    for way in [Way::Auto, Way::Mio] {
        let b = open(B, way, "drop=20%,seed=2");
        let addr = b.local_addr();
        let other = std::thread::spawn(move || echo(b));
        let mut a = open(A, way, "drop=20%,seed=1");
        a.connect(B, addr);
        let start = Instant::now();
        play(&mut a, 50);
        let (took, counters) = (start.elapsed(), a.counters());
        other.join().unwrap();
        // One of five is lost, and repeated after some milliseconds; waiting for anything else would take longer.
        assert!(counters.retransmissions > 3, "{counters:?}");
        assert!(took < Duration::from_secs(10), "{way:?}: {took:?} for 50 rounds, {counters:?}");
    }
}

#[test]
fn who_waits_for_room_in_shared_memory_wakes_without_being_called() {
    const COUNT: u32 = 1000;
    let (mut a, mut b) = (open(A, Way::Shared, ""), open(B, Way::Shared, ""));
    a.connect(B, b.local_addr());
    let sender = std::thread::spawn(move || {
        let mut sent = 0u32;
        while sent < COUNT {
            let mut message = [0; 500];
            message[..4].copy_from_slice(&sent.to_le_bytes());
            match a.send(B, a.alloc_copy(&message).unwrap()) {
                Ok(()) => sent += 1,
                Err(error) => {
                    assert_eq!(error.reason, rcl::Refusal::Backpressure);
                    match a.poll() {
                        None => a.park(None).unwrap(),
                        Some(event) => assert!(matches!(event, Event::Connected(B)), "{event:?}"),
                    }
                }
            }
        }
        a.close(B);
        loop {
            match a.poll() {
                None => a.park(None).unwrap(),
                Some(Event::Closed(B, reason)) => break assert_eq!(reason, CloseReason::Graceful),
                Some(event) => assert!(matches!(event, Event::Connected(B)), "{event:?}"),
            }
        }
    });
    let (start, mut expected) = (Instant::now(), 0u32);
    loop {
        assert!(start.elapsed() < LIMIT, "{expected} of {COUNT} have come; {:?}", b.counters());
        match b.poll() {
            Some(Event::Message { buf, .. }) => {
                assert_eq!(buf[..4], expected.to_le_bytes());
                expected += 1;
                if expected % 32 == 0 {
                    // A slow reader.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Some(Event::Closed(A, reason)) => break assert_eq!(reason, CloseReason::Graceful),
            Some(event) => assert!(matches!(event, Event::Connected(A)), "{event:?}"),
            None => {}
        }
    }
    assert_eq!(expected, COUNT);
    // The last word, for which the bell is rung at the next look otherwise.
    b.flush();
    sender.join().unwrap();
}

#[test]
fn an_idle_connection_uses_no_processor_time() {
    const IDLE: Duration = Duration::from_millis(1500);
    for way in [Way::Shared, Way::Auto, Way::Mio] {
        let (mut a, mut b) = (open(A, way, ""), open(B, way, ""));
        a.connect(B, b.local_addr());
        let start = Instant::now();
        let mut told = [false; 2];
        while told != [true; 2] {
            assert!(start.elapsed() < LIMIT);
            told[0] |= matches!(a.poll(), Some(Event::Connected(B)));
            told[1] |= matches!(b.poll(), Some(Event::Connected(A)));
        }
        // Idle, but for questions whether the other lives.
        let idle = |mut endpoint: Endpoint| {
            move || {
                let (start, mut parks, cpu) = (Instant::now(), 0, cpu_time());
                while start.elapsed() < IDLE {
                    assert!(endpoint.poll().is_none());
                    endpoint.park(Some(IDLE.saturating_sub(start.elapsed()))).unwrap();
                    parks += 1;
                }
                (parks, cpu_time() - cpu, endpoint)
            }
        };
        let threads = [a, b].map(|endpoint| std::thread::spawn(idle(endpoint)));
        for thread in threads {
            let (parks, cpu, _endpoint) = thread.join().unwrap();
            assert!(parks < 60, "{way:?}: woke {parks} times in {IDLE:?}");
            assert!(cpu < IDLE / 20, "{way:?}: {cpu:?} of processor time in {IDLE:?}");
        }
    }
}

#[test]
fn who_has_something_to_poll_does_not_sleep() {
    let mut a = open(A, Way::Mio, "");
    a.connect(B, SocketAddr::from(([127, 0, 0, 1], 9)));
    a.abort(B);
    let start = Instant::now();
    a.park(Some(LIMIT)).unwrap();
    assert!(start.elapsed() < LIMIT / 2, "it slept on an event");
    assert!(matches!(a.poll(), Some(Event::Closed(B, CloseReason::Aborted))));
}

#[test]
fn a_death_wakes_a_sleeper() {
    let quick = |me| {
        let mut config = config(me, Way::Mio, "");
        config.protocol.dead_after = Duration::from_millis(200);
        Endpoint::open(config).unwrap()
    };
    let (mut a, mut b) = (quick(A), quick(B));
    a.connect(B, b.local_addr());
    while !matches!(a.poll(), Some(Event::Connected(B))) {
        b.poll();
    }
    drop(b);
    let mut parks = 0;
    assert!(matches!(wait(&mut a, &mut parks), Event::Closed(B, CloseReason::Dead)));
    assert!(parks < 30, "woke {parks} times for a handful of questions");
}

/// Sends every message back, inside the runtime.
struct Guest {
    connections: Connections,
    parks: u64,
}

const DUE: TimerId = TimerId(0);

impl Guest {
    fn on_event(&mut self, cx: &mut Core<()>, event: Event) {
        match event {
            Event::Message { from, buf } => self.connections.send(cx.endpoint_mut(), from, buf).unwrap(),
            Event::Closed(_, reason) => assert_eq!(reason, CloseReason::Graceful),
            _ => {}
        }
    }
}

impl Service for Guest {
    type Mail = ();

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if let Some(event) = self.connections.on_received(cx.endpoint_mut(), received) {
            self.on_event(cx, event);
        }
    }

    fn on_mail(&mut self, cx: &mut Core<()>, (): ()) {
        self.parks = cx.stats().parks;
        cx.stop();
    }

    fn on_idle(&mut self, cx: &mut Core<()>) {
        while let Some(event) = self.connections.poll(cx.endpoint_mut()) {
            self.on_event(cx, event);
        }
        cx.set_timer(self.connections.next_deadline(), DUE);
    }
}

#[test]
fn a_service_of_the_runtime_has_connections() {
    for (way, faults) in [(Way::Shared, ""), (Way::Auto, ""), (Way::Mio, "drop=20%,seed=3")] {
        let EndpointConfig { cl, protocol } = config(B, way, faults);
        let runtime = RuntimeConfig { policy: Policy::Park, ..RuntimeConfig::new(Some(cl)) };
        let service = spawn("guest", runtime, |cx| Guest {
            connections: Connections::new(cx.endpoint_mut(), protocol).unwrap(),
            parks: 0,
        });
        let service = service.unwrap();
        let mut a = open(A, way, faults);
        a.connect(B, service.local_addr().unwrap());
        play(&mut a, 100);
        // What it does when nothing comes: a few timers until the connection is forgotten.
        std::thread::sleep(Duration::from_millis(300));
        service.mailbox().send(()).unwrap();
        let parks = service.join().unwrap().parks;
        assert!((10..2000).contains(&parks), "{way:?}: slept {parks} times for 100 messages");
    }
}
