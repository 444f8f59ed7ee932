//! Whether two links carry large messages faster than one: every message of 1 MiB goes by one connection over one
//! veth pair, or in two halves by two connections over two pairs, between the same two network namespaces. One
//! thread sends, another receives, each on a processor of its own. Needs root, iproute2 and two processors.
//!
//! `cargo bench -p rcl --bench rails`

#[path = "../../cl/tests/netns/mod.rs"]
mod netns;

use cl_base::PeerId;
use core_affinity::CoreId;
use netns::{Namespaces, Side};
use rcl::{Endpoint, EndpointConfig, Event, Refusal};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SENDER: PeerId = PeerId::new(1, 0);
const RECEIVER: PeerId = PeerId::new(2, 0);
const MESSAGE_LEN: usize = 1 << 20;
/// What Ethernet carries, and what large frames do.
const MTUS: [usize; 2] = [1500, 9000];
/// One link and two in turn, so often; the medians count.
const ROUNDS: usize = 7;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_millis(500);

fn pin(number: usize) {
    assert!(core_affinity::set_for_current(CoreId { id: number }), "processor {number} is not to be had");
}

/// An endpoint on the device with this address.
fn open(net: &Namespaces, side: Side, me: PeerId, ip: Ipv4Addr, mtu: usize) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from((ip, 0)));
    config.cl.mtu = Some(mtu - 28);
    net.within(side, || Endpoint::open(config)).expect("an endpoint")
}

/// Sends a part of every message on each rail, until `stop`.
fn send(mut rails: Vec<Endpoint>, stop: &AtomicBool) {
    let part = MESSAGE_LEN / rails.len();
    while !stop.load(Ordering::Relaxed) {
        for rail in &mut rails {
            while let Some(event) = rail.poll() {
                assert!(!matches!(event, Event::Closed(..)), "{event:?}");
            }
            let Ok(mut buf) = rail.alloc(part) else { continue };
            buf.grow(part);
            match rail.send(RECEIVER, buf) {
                Ok(()) => rail.flush(),
                Err(refused) => assert_eq!(refused.reason, Refusal::Backpressure),
            }
        }
    }
}

/// Bytes per second that arrive.
fn receive(mut rails: Vec<Endpoint>) -> f64 {
    let start = Instant::now();
    let (mut bytes, mut since) = (0, None);
    loop {
        for rail in &mut rails {
            while let Some(event) = rail.poll() {
                if let Event::Message { buf, .. } = event {
                    bytes += buf.len();
                }
            }
        }
        let now = Instant::now();
        match since {
            None if now >= start + WARM_UP => (bytes, since) = (0, Some(now)),
            Some(since) if now >= since + MEASURED => return bytes as f64 / (now - since).as_secs_f64(),
            _ => {}
        }
    }
}

/// One run over `links`, each given by the addresses of its ends.
fn run(net: &Namespaces, links: &[[Ipv4Addr; 2]], mtu: usize) -> f64 {
    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for [from, to] in links {
        let receiver = open(net, Side::B, RECEIVER, *to, mtu);
        let mut sender = open(net, Side::A, SENDER, *from, mtu);
        sender.connect(RECEIVER, receiver.local_addr());
        senders.push(sender);
        receivers.push(receiver);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            pin(0);
            send(senders, &stop);
        });
        let receiver = s.spawn(|| {
            pin(1);
            receive(receivers)
        });
        let rate = receiver.join().expect("it receives");
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("messages of 1 MiB, median of {ROUNDS} rounds of {MEASURED:?}");
    for mtu in MTUS {
        let net = Namespaces::new(mtu);
        let links = [[Side::A.ip(), Side::B.ip()], net.second_link(mtu)];
        let rounds = (0..ROUNDS).map(|_| [run(&net, &links[..1], mtu), run(&net, &links, mtu)]);
        let rounds = rounds.collect::<Vec<_>>();
        let of = |figure: fn(&[f64; 2]) -> f64| median(rounds.iter().map(figure).collect());
        println!(
            "packets of {mtu} B: one link {:.2} GB/s, two {:.2} GB/s, {:.2}x",
            of(|round| round[0]) / 1e9,
            of(|round| round[1]) / 1e9,
            of(|round| round[1] / round[0]),
        );
    }
}
