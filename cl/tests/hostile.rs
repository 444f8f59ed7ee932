//! Bytes from strangers: each datagram is refused for a counted reason, and good traffic does not notice.

mod common;

use cl::header::{Form, Geometry, HeaderError, Repr};
use cl::runtime::{Core, RuntimeConfig, Service, spawn};
use cl::{Drops, Endpoint, EndpointConfig, HEADER_LEN, MESSAGE_LEN_MAX, Received, Stats, TransportChoice};
use cl_base::{PeerId, Rng};
use common::{ALICE, BOB, each_transport, over};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MALLORY: PeerId = PeerId::new(666, 0);
const MTU: usize = 1452;

fn config(me: PeerId, transport: TransportChoice) -> EndpointConfig {
    EndpointConfig { mtu: Some(MTU), ..over(me, transport) }
}

/// A header for Bob, made by hand as a stranger would.
fn header(source: PeerId, message: u32, total: usize, index: u16, count: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&[0x47, 0x43, 1, 0]);
    header[4..8].copy_from_slice(&(total as u32).to_le_bytes());
    header[8..16].copy_from_slice(&source.to_u64().to_le_bytes());
    header[16..24].copy_from_slice(&BOB.to_u64().to_le_bytes());
    header[24..28].copy_from_slice(&message.to_le_bytes());
    header[28..30].copy_from_slice(&index.to_le_bytes());
    header[30..].copy_from_slice(&count.to_le_bytes());
    header
}

/// The ways to be wrong.
const KINDS: u64 = 11;

/// A datagram that no endpoint of ours would send to Bob.
fn hostile(rng: &mut Rng, kind: u64) -> Vec<u8> {
    let len = rng.below(1000) as usize;
    let mut frame = header(MALLORY, 7, len, 0, 1).to_vec();
    frame.extend((0..len).map(|_| rng.next_u64() as u8));
    match kind {
        // Truncated: within the header, or within the contents.
        0 => frame.truncate(rng.below(HEADER_LEN as u64) as usize),
        1 => frame.truncate(HEADER_LEN + len.saturating_sub(1)),
        2 => frame[rng.below(2) as usize] ^= rng.within(1, 255) as u8,
        // The version, or the form behind it.
        3 if rng.chance(1, 2) => frame[2] ^= rng.within(1, 255) as u8,
        3 => frame[3] = rng.within(2, 255) as u8,
        4 => frame[16..24].copy_from_slice(&rng.next_u64().to_le_bytes()),
        // A claim of more than the longest message, or of fragments that cannot be.
        5 => frame[4..8]
            .copy_from_slice(&(MESSAGE_LEN_MAX as u32 + 1 + rng.below(1 << 31) as u32).to_le_bytes()),
        6 => frame[28..32].copy_from_slice(&[1, 0, 1, 0]),
        7 => frame[30..32].copy_from_slice(&[0, 0]),
        // Oversize: beyond the claim, and beyond the MTU.
        8 => frame.resize(rng.within(2000, 9000) as usize, 0),
        // Packed messages, the first of which is longer than all of them together.
        9 => {
            frame[3] = 1;
            let total = frame.len() - HEADER_LEN + 2;
            frame[4..8].copy_from_slice(&(total as u32).to_le_bytes());
            frame.splice(HEADER_LEN..HEADER_LEN, (total as u16).to_le_bytes());
        }
        _ => frame.iter_mut().for_each(|b| *b = rng.next_u64() as u8),
    }
    frame
}

/// Counts the reason why Bob refuses `frame`. False if he does not.
fn expect(frame: &[u8], drops: &mut Drops) -> bool {
    // What exceeds the MTU is cut off by the kernel.
    let reason = match Repr::parse(&frame[..frame.len().min(MTU)]) {
        Err(HeaderError::Truncated) => &mut drops.truncated,
        Err(HeaderError::Magic) => &mut drops.magic,
        Err(HeaderError::Version) => &mut drops.version,
        Err(HeaderError::Geometry) => &mut drops.geometry,
        Ok(repr) if repr.destination != BOB => &mut drops.misaddressed,
        Ok(repr) if repr.form == Form::Packed => {
            let (len, packed) = frame[HEADER_LEN..].split_first_chunk().expect("it was written there");
            assert!(usize::from(u16::from_le_bytes(*len)) > packed.len());
            &mut drops.geometry
        }
        Ok(_) => return false,
    };
    *reason += 1;
    true
}

/// Sends message `n` of `len` bytes from Alice to Bob, and sees it arrive.
fn good(a: &mut Endpoint, b: &mut Endpoint, n: u32, len: usize) {
    let contents: Vec<u8> = (0..len).map(|i| (i as u32 ^ n) as u8).collect();
    a.send(BOB, a.alloc_copy(&contents).unwrap()).unwrap();
    let start = Instant::now();
    let received = loop {
        assert!(start.elapsed() < Duration::from_secs(20), "message {n} is not there: {:?}", b.stats());
        a.flush();
        if let Some(received) = b.poll() {
            break received;
        }
    };
    assert_eq!((received.from, received.addr), (ALICE, a.local_addr()));
    assert!(received.buf[..] == contents[..], "message {n}");
}

fn pair(transport: TransportChoice) -> (Endpoint, Endpoint, UdpSocket) {
    let mut a = Endpoint::open(config(ALICE, transport)).unwrap();
    let b = Endpoint::open(config(BOB, transport)).unwrap();
    a.resolve(BOB, b.local_addr());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(b.local_addr()).unwrap();
    (a, b, stranger)
}

/// Free buffers of every class, when nothing is left to receive.
fn free(endpoint: &mut Endpoint) -> [usize; 5] {
    assert!(endpoint.poll().is_none());
    [1, 10_000, 60_000, 1 << 20, 16 << 20].map(|len| endpoint.pool().available(len))
}

#[test]
fn every_bad_datagram_is_counted_by_its_reason_and_every_good_one_arrives() {
    for transport in each_transport() {
        let (mut a, mut b, stranger) = pair(transport);
        good(&mut a, &mut b, 0, 10);
        let before = free(&mut b);
        let (mut rng, mut expected) = (Rng::new(1), Drops::default());
        for n in 1..1000 {
            for _ in 0..16 {
                let kind = rng.below(KINDS);
                let frame = hostile(&mut rng, kind);
                if expect(&frame, &mut expected) {
                    stranger.send(&frame).unwrap();
                }
            }
            let len = *rng.pick(&[0, 1, 100, MTU - HEADER_LEN, 5000, 20_000]).unwrap();
            good(&mut a, &mut b, n, len);
        }
        assert_eq!(b.stats().drops, expected, "{transport:?}");
        let Drops { truncated, magic, version, geometry, misaddressed, .. } = expected;
        assert!(
            [truncated, magic, version, geometry, misaddressed].iter().all(|&n| n > 1000),
            "{expected:?}"
        );
        assert_eq!(b.stats().messages_received, 1000);
        assert_eq!(free(&mut b), before, "no buffer is lost");
    }
}

#[test]
fn fragments_of_messages_that_never_end_cost_strangers_only() {
    for transport in each_transport() {
        let (mut a, mut b, stranger) = pair(transport);
        good(&mut a, &mut b, 0, 10);
        let before = free(&mut b);
        let strangers: Vec<UdpSocket> = (0..8).map(|_| stranger.try_clone().unwrap()).collect();
        let others: Vec<UdpSocket> = (0..8)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(b.local_addr()).unwrap();
                socket
            })
            .collect();
        let mut rng = Rng::new(2);
        let fragment = |rng: &mut Rng, message: u32, total: usize| {
            let geometry = Geometry::for_message(total, 1000).unwrap();
            // Never the first, so that none is ever complete; and as if from Alice.
            let index = rng.within(1, u64::from(geometry.count()) - 1) as u16;
            let mut frame = header(ALICE, message, total, index, geometry.count()).to_vec();
            frame.resize(HEADER_LEN + geometry.range(index).len(), 0xee);
            frame
        };
        for n in 1..500u32 {
            for socket in strangers.iter().chain(&others) {
                // The numbers that Alice is likely to use as well, and lengths that contradict each other.
                let total = *rng.pick(&[2000, 20_000, 60_000, 1 << 20, MESSAGE_LEN_MAX]).unwrap();
                let message = rng.next_u64() as u32 % 64;
                socket.send(&fragment(&mut rng, message, total)).unwrap();
            }
            good(&mut a, &mut b, n, *rng.pick(&[0, 100, 5000, 20_000]).unwrap());
        }
        let Drops { inconsistent_fragment, duplicate_fragment, reassembly_evicted, .. } = b.stats().drops;
        assert!(inconsistent_fragment > 0 && duplicate_fragment > 0 && reassembly_evicted > 0);
        // What nobody completes is given up, and its buffers come back.
        let start = Instant::now();
        while free(&mut b) != before {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}, not {before:?}", free(&mut b));
        }
        assert!(b.stats().drops.reassembly_expired > 0);
    }
}

/// Answers Alice with what she sent.
#[derive(Default)]
struct Echo {
    stats: Stats,
}

impl Service for Echo {
    type Mail = ();

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        assert_eq!(received.from, ALICE, "nothing hostile gets as far as this");
        cx.endpoint_mut().send_to(ALICE, received.addr, received.buf).unwrap();
    }

    fn on_mail(&mut self, cx: &mut Core<()>, (): ()) {
        self.stats = cx.endpoint().stats();
        cx.stop();
    }
}

#[test]
fn under_a_flood_good_traffic_goes_on() {
    const ROUNDS: u32 = 3000;
    // A stranger as fast as it can be fills the socket's buffer, and then the kernel drops what comes, good
    // or bad. This layer promises no more than to have answered what reaches it, so Alice repeats herself.
    const PATIENCE: Duration = Duration::from_millis(20);
    for transport in each_transport() {
        let echo =
            spawn("echo", RuntimeConfig::new(Some(config(BOB, transport))), |_| Echo::default()).unwrap();
        let bob = echo.local_addr().unwrap();
        let mut a = Endpoint::open(config(ALICE, transport)).unwrap();
        a.resolve(BOB, bob);
        let (done, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
        let begin = Instant::now();
        let repeated = std::thread::scope(|s| {
            s.spawn(|| {
                let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut rng = Rng::new(3);
                let frames: Vec<Vec<u8>> = (0..1000)
                    .map(|n| hostile(&mut rng, n % KINDS))
                    .filter(|frame| expect(frame, &mut Drops::default()))
                    .collect();
                while !done.load(Ordering::Relaxed) {
                    for frame in &frames {
                        stranger.send_to(frame, bob).unwrap();
                    }
                    flooded.fetch_add(frames.len() as u64, Ordering::Relaxed);
                }
            });
            let mut repeated = 0;
            for n in 0..ROUNDS {
                let question = [&n.to_le_bytes()[..], &[n as u8; 196]].concat();
                'asking: loop {
                    assert!(begin.elapsed() < Duration::from_secs(120), "question {n}: no answer");
                    a.send(BOB, a.alloc_copy(&question).unwrap()).unwrap();
                    let asked = Instant::now();
                    while asked.elapsed() < PATIENCE {
                        let Some(received) = a.poll() else { continue };
                        assert_eq!((received.from, received.addr, received.buf.len()), (BOB, bob, 200));
                        // Answers to questions that were repeated in haste come late.
                        if received.buf[..] == question {
                            break 'asking;
                        }
                    }
                    repeated += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            repeated
        });
        let took = begin.elapsed();
        echo.mailbox().send(()).unwrap();
        let stats = echo.join().unwrap().stats;
        let Drops { truncated, magic, version, geometry, misaddressed, .. } = stats.drops;
        assert!([truncated, magic, version, geometry, misaddressed].iter().all(|&n| n > 0), "{stats:?}");
        assert_eq!(stats.drops.total(), truncated + magic + version + geometry + misaddressed);
        assert_eq!(stats.datagrams_received, stats.messages_received + stats.drops.total());
        assert!(stats.messages_received >= u64::from(ROUNDS));
        println!(
            "measured: {transport:?}: {ROUNDS} questions answered in {took:.1?} ({repeated} repeated) beside {} bad \
             datagrams, of which {} were received and refused",
            flooded.load(Ordering::Relaxed),
            stats.drops.total()
        );
    }
}
