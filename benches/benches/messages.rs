//! The goals of authenticated messages, each as a ratio within one run (docs/PERFORMANCE.md, "Authenticated
//! messages"). One thread, no network unless a line says so: processor time is what is compared.
//!
//! `cargo bench -p benches --bench messages`, or with `-- WORD` the lines that have that word.

use cl::{EndpointConfig, SharedMemory};
use cl_base::{Incarnation, PeerId, Principal, Time};
use cmm_core::heartbeat::{Beat, Heartbeat, Monitor, Routing, TAG_DOMAIN};
use cmm_core::identity::NodeId;
use mml::{Config, Delivery, Keyring, Member, Roster, SecretKey, TagKey};
use mml_proto::{Mml, Outgoing};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Each figure is the median of so many rounds, in each of which both sides of a ratio are measured.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(60);
const AGENTS: u32 = 100_000;
const SOURCE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

fn main() {
    println!("| measure | ours | compared with | ratio | goal | floor |");
    println!("| --- | --- | --- | --- | --- | --- |");
    bundles();
    for (receivers, goal) in [(3, 0.6), (100, 0.4)] {
        groups(receivers, goal);
        groups_over_udp(receivers, goal);
    }
    streams();
    heartbeats();
}

/// Nanoseconds for each call of `act`, which does `units` things, for each thing.
fn time(units: usize, mut act: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < ROUND {
        for _ in 0..8 {
            act();
        }
        calls += 8;
    }
    start.elapsed().as_nanos() as f64 / (calls * units) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether a line is asked for.
fn is_wanted(what: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--")).peekable();
    words.peek().is_none() || words.any(|word| what.contains(&word))
}

/// Compares `run(true)`, ours, with `run(false)`, both in nanoseconds; `limits` are goal and floor.
fn compare<F: FnMut() -> f64>(what: &str, limits: Option<[f64; 2]>, run: impl Fn(bool) -> F) {
    if !is_wanted(what) {
        return;
    }
    let mut sides = [run(true), run(false)];
    for side in &mut sides {
        side();
    }
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| sides.each_mut().map(|side| side())).collect();
    let ratio = median(rounds.iter().map(|[ours, rival]| ours / rival).collect());
    let [ours, rival] = [0, 1].map(|side| median(rounds.iter().map(|round| round[side]).collect()));
    let [goal, floor] = limits.map_or([String::new(), String::new()], |l| l.map(|l| format!("{l:.2}x")));
    println!("| {what} | {ours:.0} ns | {rival:.0} ns | **{ratio:.2}x** | {goal} | {floor} |");
}

fn id(number: u32) -> PeerId {
    PeerId::new(number, 0)
}

fn secret(number: u32) -> SecretKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(seed)
}

fn roster(count: u32) -> Roster {
    let member = |number: u32| Member {
        principal: Principal(number),
        name: format!("p{number}"),
        role: "bench".into(),
        key: secret(number).public(),
        address: None,
    };
    Roster::from_members((0..count).map(member).collect(), "bench").expect("a good roster")
}

fn keyring(number: u32, roster: &Roster) -> Keyring {
    Keyring::new(Principal(number), secret(number), roster).expect("the key fits")
}

fn party(number: u32, roster: &Roster) -> Mml {
    let keys = Box::new(keyring(number, roster));
    Mml::new(
        Config { frame_bytes: 32 << 10, ..Config::default() },
        id(number),
        Incarnation(1),
        keys,
        [number as u8; 32],
    )
}

fn now() -> Time {
    Time::from_nanos(1 << 40)
}

/// Moves frames between party 0 and the others until nobody has any, and forgets the events.
fn settle(first: &mut Mml, others: &mut [Mml]) {
    let mut frame = Vec::new();
    loop {
        let mut moved = false;
        while let Some(transmit) = first.poll_transmit(now(), &mut frame) {
            others[transmit.to.principal.0 as usize - 1].handle(now(), id(0), SOURCE, &mut frame);
            moved = true;
        }
        for other in others.iter_mut() {
            while other.poll_transmit(now(), &mut frame).is_some() {
                first.handle(now(), other.me(), SOURCE, &mut frame);
                moved = true;
            }
            while other.poll_event().is_some() {}
        }
        while first.poll_event().is_some() {}
        if !moved {
            return;
        }
    }
}

/// Party 0 with a session with each of `others`.
fn connected(others: u32) -> (Mml, Vec<Mml>) {
    let roster = roster(others + 1);
    let mut first = party(0, &roster);
    let mut rest: Vec<Mml> = (1..=others).map(|number| party(number, &roster)).collect();
    for other in &rest {
        first.connect(now(), other.me()).expect("a key is known");
    }
    settle(&mut first, &mut rest);
    assert!((1..=others).all(|number| first.is_up(id(number))), "all sessions are up");
    (first, rest)
}

/// 64 messages of 64 B sent and received: in one frame, and in 64.
fn bundles() {
    const MESSAGES: usize = 64;
    let run = |together: bool| {
        let (mut a, mut b) = connected(1);
        let (body, mut frame) = ([5; 64], Vec::new());
        move || {
            time(MESSAGES, || {
                let mut received = 0;
                let mut pass = |a: &mut Mml| {
                    while a.poll_transmit(now(), &mut frame).is_some() {
                        b[0].handle_each(now(), id(0), SOURCE, &mut frame, &mut |message| {
                            received += message.body.len();
                        });
                    }
                };
                for _ in 0..MESSAGES {
                    a.send(now(), id(1), Delivery::Unr, 0, &body).expect("there is room");
                    if !together {
                        pass(&mut a);
                    }
                }
                pass(&mut a);
                assert_eq!(received, 64 * MESSAGES);
            })
        }
    };
    compare("send and receive 64 B, 64 in a frame, against a frame each", Some([0.15, 0.3]), run);
}

/// 1 KiB to many: as a group, and to one after the other.
fn groups(receivers: u32, goal: f64) {
    let everybody: Vec<PeerId> = (1..=receivers).map(id).collect();
    let contents = vec![3; 1024];
    let run = |grouped: bool| {
        let (mut first, _others) = connected(receivers);
        let (everybody, contents, mut frame) = (everybody.clone(), contents.clone(), Vec::new());
        move || {
            time(1, || {
                if grouped {
                    let body = Outgoing::from(&contents).for_group(everybody.len());
                    for to in &everybody {
                        let sent = first.send_at_once(now(), *to, 0, &body, &mut frame);
                        black_box(sent).expect("there is room").1.expect("nothing waits");
                        black_box(&frame);
                    }
                    return;
                }
                for to in &everybody {
                    first.send(now(), *to, Delivery::Unr, 0, &contents).expect("there is room");
                    let sent = first.poll_transmit_parts(now(), &mut frame);
                    black_box(sent).expect("it leaves");
                    black_box(&frame);
                }
            })
        }
    };
    let what = format!("group send of 1 KiB to {receivers}, this layer alone");
    compare(&what, Some([goal, 0.9]), run);
}

/// Party 0 with sessions with others over the sockets of the system, who do not read any more.
struct OverUdp {
    cl: cl::Endpoint,
    mml: mml::Endpoint,
    _others: Vec<std::net::UdpSocket>,
}

impl OverUdp {
    fn new(others: u32, config: Config) -> OverUdp {
        let roster = roster(others + 1);
        let open = |number| {
            let config = EndpointConfig {
                shared_memory: SharedMemory::Never,
                ..EndpointConfig::new(id(number), ([127, 0, 0, 1], 0).into())
            };
            cl::Endpoint::open(config).expect("a socket")
        };
        let endpoint = |number| {
            let (keyring, seed) = (keyring(number, &roster), [number as u8; 32]);
            mml::Endpoint::new(config.clone(), id(number), Incarnation(1), keyring, &roster, seed)
        };
        let (mut cl, mut mml) = (open(0), endpoint(0));
        // One after the other: a receiver is needed only until its session is up.
        let mut connect = |number| {
            let (to, mut socket, mut other) = (id(number), open(number), endpoint(number));
            let addr = socket.local_addr();
            cl.resolve(to, addr);
            socket.resolve(id(0), cl.local_addr());
            mml.connect(&mut cl, now(), to).expect("a key is known");
            while !mml.is_up(to) || !other.is_up(id(0)) {
                other.receive(&mut socket, now(), 8, |_| ());
                mml.receive(&mut cl, now(), 8, |_| ());
                while other.poll_event().is_some() || mml.poll_event().is_some() {}
            }
            drop(socket);
            std::net::UdpSocket::bind(addr).expect("the port is free again")
        };
        let others = (1..=others).map(&mut connect).collect();
        OverUdp { cl, mml, _others: others }
    }
}

/// The same with the sockets of the system, to receivers that do not read.
fn groups_over_udp(receivers: u32, goal: f64) {
    let everybody: Vec<PeerId> = (1..=receivers).map(id).collect();
    let contents = vec![3; 1024];
    let run = |grouped: bool| {
        // The time stands still here, which would be load.
        let config = Config { company_wait: Duration::ZERO, ..Config::default() };
        let mut first = OverUdp::new(receivers, config);
        let (everybody, contents) = (everybody.clone(), contents.clone());
        move || {
            let OverUdp { cl, mml, .. } = &mut first;
            time(1, || {
                if grouped {
                    mml.send_group(cl, now(), &everybody, Delivery::Unr, 0, &contents, |_, sent| {
                        sent.expect("there is room");
                    });
                } else {
                    for to in &everybody {
                        mml.send(cl, now(), *to, Delivery::Unr, 0, &contents).expect("there is room");
                    }
                }
            })
        }
    };
    let what = format!("group send of 1 KiB to {receivers}, over UDP");
    compare(&what, Some([goal, 0.9]), run);
}

/// 64 B sent one by one over UDP, where the messages of a stream wait for each other, and where each leaves at once.
fn streams() {
    let run = |waits: bool| {
        let company_wait = if waits { Config::default().company_wait } else { Duration::ZERO };
        let mut first = OverUdp::new(1, Config { company_wait, ..Config::default() });
        let (clock, body) = (cl::Clock::new(), [5; 64]);
        move || {
            let OverUdp { cl, mml, .. } = &mut first;
            time(64, || {
                for _ in 0..64 {
                    mml.send(cl, clock.now(), id(1), Delivery::Unr, 0, &body).expect("there is room");
                }
                mml.flush(cl, clock.now());
            })
        }
    };
    compare("stream of 64 B over UDP, waiting for company, against each at once", None, run);
}

/// Heartbeats of 100,000 agents, bundled, verified and recorded by one manager.
fn heartbeats() {
    let what = format!("heartbeats verified and recorded, {AGENTS} agents");
    if !is_wanted(&what) {
        return;
    }
    let manager = id(1 << 24);
    // The keys are derived from those of pairs; here from numbers, for 100,000 key exchanges take seconds.
    let roster = roster(2);
    let pair = party(0, &roster);
    let key: TagKey = pair.tag_key_from(id(1), TAG_DOMAIN).expect("a key is known");
    // Each agent its own copy in memory, as its own key would be.
    let keys: Vec<TagKey> = (0..AGENTS).map(|_| key.clone()).collect();
    let mut backup = Monitor::new(Duration::from_secs(1));
    let mut primary = Monitor::new(Duration::from_secs(1));
    let mut rates = Vec::new();
    for number in 1..=ROUNDS as u64 {
        for node in 0..AGENTS {
            let routing = Routing::ALL_DIRECT;
            let beat = Beat { node: NodeId(node), incarnation: Incarnation(1), number, routing };
            let tags = vec![(manager, keys[node as usize].tag(&beat.to_bytes()))];
            assert!(backup.heard(now(), &beat));
            backup.collect(Heartbeat { beat, tags });
        }
        let bundles = backup.take_bundles(&[manager]);
        let start = Instant::now();
        let news: usize = bundles
            .iter()
            .map(|(_, bundle)| {
                primary
                    .heard_bundle(now(), bundle, |node, bytes, tag| keys[node.0 as usize].verify(bytes, tag))
            })
            .sum();
        let took = start.elapsed();
        assert_eq!(news, AGENTS as usize);
        rates.push(f64::from(AGENTS) / took.as_secs_f64());
    }
    let rate = median(rates);
    println!("| {what} | {:.0} ns | {rate:.0} per second | | 1000000 | 200000 |", 1e9 / rate);
}
