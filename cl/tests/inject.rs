//! Faults on purpose, between endpoints over the loopback device, by each transport.

mod common;

use cl::runtime::{self, Core, Policy, RuntimeConfig, Service};
use cl::{Endpoint, EndpointConfig, FAULTS_VARIABLE, Injection, Received, TransportChoice};
use cl_base::PeerId;
use cl_base::faults::FaultCounts;
use common::{ALICE, BOB, each_transport, pair, sharing};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes of contents in most messages here.
const LEN: usize = 100;

fn config(me: PeerId, transport: TransportChoice) -> EndpointConfig {
    EndpointConfig { transport, ..sharing(me) }
}

fn with_faults(config: EndpointConfig, faults: &str) -> EndpointConfig {
    let faults = Some(faults.parse::<Injection>().unwrap());
    EndpointConfig { faults, ..config }
}

/// Message number `n`: any change of it shows.
fn message(n: u32) -> [u8; LEN] {
    let mut message = [n as u8; LEN];
    message[..4].copy_from_slice(&n.to_le_bytes());
    message[4..8].copy_from_slice(&(!n).to_le_bytes());
    message
}

/// The number of an intact message.
fn number(contents: &[u8]) -> Option<u32> {
    let n = u32::from_le_bytes(contents.get(..4)?.try_into().ok()?);
    (contents == message(n)).then_some(n)
}

/// What arrived of a stream of messages.
#[derive(Debug, PartialEq, Eq)]
struct Arrived {
    /// Numbers of intact ones in the order of arrival.
    intact: Vec<u32>,
    /// Messages with contents that nobody sent.
    damaged: u64,
}

impl Arrived {
    fn distinct(&self) -> BTreeSet<u32> {
        self.intact.iter().copied().collect()
    }
}

/// Sends `count` messages from `a` to `b` and collects what arrives, until `complete`.
fn stream(
    (a, b): &mut (Endpoint, Endpoint),
    count: u32,
    complete: impl Fn(&Endpoint, &Endpoint) -> bool,
) -> Arrived {
    let mut arrived = Arrived { intact: Vec::new(), damaged: 0 };
    let collect = |b: &mut Endpoint, arrived: &mut Arrived| {
        while let Some(received) = b.poll() {
            match number(&received.buf) {
                Some(n) => arrived.intact.push(n),
                None => arrived.damaged += 1,
            }
        }
    };
    for n in 0..count {
        a.send(BOB, a.alloc_copy(&message(n)).unwrap()).unwrap();
        collect(b, &mut arrived);
    }
    let start = Instant::now();
    while !complete(a, b) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {:?}", a.faults(), b.stats());
        assert!(a.poll().is_none());
        collect(b, &mut arrived);
    }
    arrived
}

/// Everything that was sent and not dropped has arrived, copies as well.
fn all_there(a: &Endpoint, b: &Endpoint) -> bool {
    let faults = a.faults().unwrap();
    b.stats().datagrams_received == faults.messages - faults.dropped + faults.duplicated
}

fn assert_near(count: u64, messages: u64, probability: f64, what: &str) {
    let expected = messages as f64 * probability;
    let deviation = (expected * (1.0 - probability)).sqrt();
    assert!((count as f64 - expected).abs() <= 5.0 * deviation, "{what}: {count}, not {expected}");
}

#[test]
fn faults_come_as_often_as_asked_for_and_what_they_miss_arrives() {
    const COUNT: u32 = 20_000;
    for transport in each_transport() {
        let faults = "drop=2%,duplicate=2%,corrupt=1e-4/byte,reorder=2%,delay=100us..1ms@2%,seed=1";
        let mut ends = pair(with_faults(config(ALICE, transport), faults), config(BOB, transport));
        let arrived = stream(&mut ends, COUNT, all_there);
        let (a, b) = &ends;
        assert_eq!(b.faults(), None);
        let FaultCounts { messages, dropped, corrupted, duplicated, reordered, delayed } =
            a.faults().unwrap();
        assert_eq!(messages, u64::from(COUNT));
        assert_near(dropped, messages, 0.02, "dropped");
        assert_near(duplicated, messages, 0.02, "duplicated");
        let hit = 1.0 - (1.0 - 1e-4f64).powi((LEN + cl::HEADER_LEN) as i32);
        assert_near(corrupted, messages, hit, "corrupted");
        assert_near(reordered, messages, 0.02, "reordered");
        assert_near(delayed, messages, 0.02, "delayed");

        // Good messages are not affected: all arrive, whatever happens to others.
        let distinct = arrived.distinct().len() as u64;
        assert!(distinct >= messages - dropped - corrupted, "{transport:?}: {distinct}");
        assert!(!arrived.intact.is_sorted());
        // A changed datagram is refused for a reason, or its contents are changed; or what was hit is a
        // hint (source, message number; 12 bytes of 132).
        let noticed = b.stats().drops.total() + arrived.damaged;
        assert!(b.stats().drops.total() > 0 && arrived.damaged > 0);
        assert!(noticed >= corrupted * 3 / 4 && noticed <= corrupted * 11 / 10 + 5, "{noticed}, {corrupted}");
    }
}

#[test]
fn a_corrupted_header_is_refused_for_a_reason_and_a_good_one_is_not() {
    for transport in each_transport() {
        // Nothing but a header travels, so that it is what is hit.
        let faults = "corrupt=50%,seed=2";
        let (mut a, mut b) = pair(with_faults(config(ALICE, transport), faults), config(BOB, transport));
        let mut received = 0;
        for _ in 0..2000 {
            a.send(BOB, a.alloc(0).unwrap()).unwrap();
            received += std::iter::from_fn(|| b.poll()).count() as u64;
        }
        let start = Instant::now();
        while !all_there(&a, &b) && start.elapsed() < Duration::from_secs(20) {
            received += std::iter::from_fn(|| b.poll()).count() as u64;
        }
        let (corrupted, drops) = (a.faults().unwrap().corrupted, b.stats().drops);
        for (reason, count) in [
            ("magic", drops.magic),
            ("version", drops.version),
            ("geometry", drops.geometry),
            ("misaddressed", drops.misaddressed),
        ] {
            assert!(count > 0, "{reason}: {drops:?}");
        }
        assert_eq!(received + drops.total(), 2000, "each is received or counted");
        assert!(received >= 2000 - corrupted);
    }
}

#[test]
fn one_seed_is_one_sequence_of_faults() {
    let run = |seed: u64| {
        let faults = format!("drop=10%,duplicate=5%,corrupt=5%,reorder=5%,seed={seed}");
        let transport = TransportChoice::Mio;
        let mut ends = pair(with_faults(config(ALICE, transport), &faults), config(BOB, transport));
        let arrived = stream(&mut ends, 2000, all_there);
        (arrived.distinct(), arrived.damaged, ends.0.faults())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

#[test]
fn arrivals_can_suffer_as_well() {
    const COUNT: u32 = 5000;
    for transport in each_transport() {
        let faults = "drop=5%,duplicate=5%,reorder=5%,delay=1ms@5%,seed=3,side=in";
        let mut ends = pair(config(ALICE, transport), with_faults(config(BOB, transport), faults));
        let arrived = stream(&mut ends, COUNT, |_, b| {
            let faults = b.faults().unwrap();
            let expected = faults.messages - faults.dropped + faults.duplicated;
            faults.messages == u64::from(COUNT) && b.stats().datagrams_received == expected
        });
        let faults = ends.1.faults().unwrap();
        assert_eq!(ends.0.faults(), None);
        assert_near(faults.dropped, COUNT.into(), 0.05, "dropped");
        assert_near(faults.duplicated, COUNT.into(), 0.95 * 0.05, "duplicated");
        assert_eq!(arrived.distinct().len() as u64, u64::from(COUNT) - faults.dropped);
        assert_eq!((arrived.damaged, ends.1.stats().drops.total()), (0, 0));
        assert!(!arrived.intact.is_sorted());
    }
}

#[test]
fn fragments_are_put_together_whatever_their_order_and_number() {
    for transport in each_transport() {
        let small = EndpointConfig { mtu: Some(1000), ..config(ALICE, transport) };
        let (mut a, mut b) =
            pair(with_faults(small, "reorder=10%,duplicate=10%,seed=4"), config(BOB, transport));
        for round in 0..50u8 {
            let contents: Vec<u8> = (0..50_000usize).map(|i| (i / 7) as u8 ^ round).collect();
            a.send(BOB, a.alloc_copy(&contents).unwrap()).unwrap();
            let start = Instant::now();
            let mut given_up = b.stats().drops.reassembly_expired;
            let received = loop {
                assert!(start.elapsed() < Duration::from_secs(10), "{:?}", b.stats());
                assert!(a.poll().is_none());
                // On a crowded machine the rest may come too late.
                if b.stats().drops.reassembly_expired > given_up {
                    given_up = b.stats().drops.reassembly_expired;
                    a.send(BOB, a.alloc_copy(&contents).unwrap()).unwrap();
                }
                if let Some(received) = b.poll() {
                    break received;
                }
            };
            assert!(received.buf[..] == contents, "round {round}");
            // Stragglers would begin a message anew that waits for the rest in vain.
            while !all_there(&a, &b) {
                assert!(a.poll().is_none() && b.poll().is_none());
            }
        }
        let faults = a.faults().unwrap();
        assert!(faults.reordered > 0 && faults.duplicated > 0);
    }
}

/// Sends one message, and stops when an answer comes.
struct Caller {
    peer: SocketAddr,
    /// When, and how often the thread had slept until then.
    answered: Option<(Instant, u64)>,
}

impl Service for Caller {
    type Mail = ();

    fn start(&mut self, cx: &mut Core<()>) {
        let endpoint = cx.endpoint_mut();
        let message = endpoint.alloc_copy(b"call").unwrap();
        endpoint.send_to(BOB, self.peer, message).unwrap();
    }

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        assert_eq!(&received.buf[..], b"answer");
        self.answered = Some((Instant::now(), cx.stats().parks));
        cx.stop();
    }
}

#[test]
fn a_thread_that_sleeps_wakes_for_what_is_held_back() {
    for transport in each_transport() {
        let faults = "delay=30ms@100%,side=both,seed=5";
        let mut b = Endpoint::open(config(BOB, transport)).unwrap();
        let peer = b.local_addr();
        let begin = Instant::now();
        let caller = std::thread::spawn(move || {
            let endpoint = with_faults(config(ALICE, transport), faults);
            let runtime = RuntimeConfig { policy: Policy::Park, ..RuntimeConfig::new(Some(endpoint)) };
            runtime::run(Caller { peer, answered: None }, runtime).unwrap().answered.unwrap()
        });
        let call = loop {
            assert!(begin.elapsed() < Duration::from_secs(20), "the call does not come");
            if let Some(received) = b.poll() {
                break received;
            }
            std::thread::sleep(Duration::from_micros(100));
        };
        assert!(begin.elapsed() >= Duration::from_millis(30), "{:?}", begin.elapsed());
        b.send_to(ALICE, call.addr, b.alloc_copy(b"answer").unwrap()).unwrap();
        let (answered, parks) = caller.join().unwrap();
        let took = answered.duration_since(begin);
        assert!(took >= Duration::from_millis(60), "{took:?}");
        // It slept for what was held back, and did not ask for the time all the while.
        assert!((2..=20).contains(&parks), "{transport:?}: slept {parks} times");
    }
}

#[test]
fn an_endpoint_parked_by_its_owner_wakes_for_what_is_held_back() {
    for transport in each_transport() {
        let faults = "delay=30ms@100%,seed=6";
        let (mut a, mut b) = pair(with_faults(config(ALICE, transport), faults), config(BOB, transport));
        a.send(BOB, a.alloc_copy(&message(1)).unwrap()).unwrap();
        let (begin, mut parks) = (Instant::now(), 0);
        let received = loop {
            assert!(begin.elapsed() < Duration::from_secs(20), "{transport:?}: parked {parks} times");
            assert!(a.poll().is_none());
            if let Some(received) = b.poll() {
                break received;
            }
            a.park(Some(Duration::from_secs(10))).unwrap();
            parks += 1;
        };
        assert_eq!(number(&received.buf), Some(1));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(10), "{took:?}");
        assert!(parks <= 20, "{transport:?}: parked {parks} times");
    }
}

#[test]
#[ignore = "run by the test below, with the variable set"]
fn says_which_faults_it_injects() {
    let configured = with_faults(config(ALICE, TransportChoice::Mio), "drop=100%");
    match Endpoint::open(configured) {
        Ok(mut a) => {
            a.resolve(BOB, a.local_addr());
            (0..10).for_each(|_| a.send(BOB, a.alloc(1).unwrap()).unwrap());
            println!("injected {:?}", a.faults());
        }
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn the_environment_overrides_the_faults_and_what_is_malformed_is_an_error() {
    let output = |value: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "says_which_faults_it_injects", "--ignored", "--nocapture"]);
        command.env_remove(FAULTS_VARIABLE).envs(value.map(|value| (FAULTS_VARIABLE, value)));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(output(None).contains("dropped: 10"));
    let doubled = output(Some("duplicate=100%,seed=1"));
    assert!(doubled.contains("dropped: 0") && doubled.contains("duplicated: 10"), "{doubled}");
    assert!(output(Some("")).contains("injected None"));
    let error = output(Some("drop=1%,delay=fast"));
    for part in ["error: ", FAULTS_VARIABLE, "delay=fast: a delay is 2ms@5%", "an example: drop=1%"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
