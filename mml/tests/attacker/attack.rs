//! The attacker. It uses its own secret key, the roster, what it sees on the wire, and nothing else of the others.

use crate::process::{commands, parsed, say};
use crate::{A, B, C, JUNK_RATE, config, roster, secret};
use cl_base::{Incarnation, PeerId, Rng, Time};
use mml::{Keyring, PairKeys};
use mml_proto::Mml;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Datagrams of the beginning that are kept, and as many of the latest, in each direction.
const KEPT: usize = 500;
/// Addresses from which it sends.
const SOURCES: usize = 16;
/// Lives that each of its instances claims: more handshakes than B computes for one principal in the whole test.
const LIVES: u64 = 8;
const INSTANCES: u32 = 256;
/// It catches up on so many packets after it had no processor; the rest it leaves.
const BURST_MAX: u64 = 1000;
/// As short as the kernel lets it sleep, so that it does not send in bursts: some 50 µs.
const NAP: Duration = Duration::from_micros(1);
/// The longest datagram of random bytes, as long as an Ethernet carries.
const JUNK_BYTES_MAX: u64 = 1472;
const CL_HEADER: usize = 32;
/// Lengths of the frames of `mml`, by kind from 1 on, so that junk gets past the first check.
const FRAME_BYTES: [usize; 6] = [112, 100, 52, 200, 36, 44];

/// One direction of the wire.
#[derive(Default)]
struct Recording {
    first: Vec<Vec<u8>>,
    latest: Vec<Vec<u8>>,
    next: usize,
}

impl Recording {
    fn keep(&mut self, datagram: &[u8]) {
        if self.first.len() < KEPT {
            self.first.push(datagram.to_vec());
        } else if self.latest.len() < KEPT {
            self.latest.push(datagram.to_vec());
        } else {
            self.latest[self.next % KEPT] = datagram.to_vec();
            self.next += 1;
        }
    }

    fn pick(&self, rng: &mut Rng) -> Vec<u8> {
        let half = if rng.chance(1, 2) || self.latest.is_empty() { &self.first } else { &self.latest };
        rng.pick(half).cloned().unwrap_or_default()
    }
}

type Shared = Arc<Mutex<Recording>>;

/// Hands on what comes in at `input` to `to`, and keeps it.
fn tap(input: &UdpSocket, output: &UdpSocket, to: SocketAddr) -> Shared {
    let (input, output) = (input.try_clone().unwrap(), output.try_clone().unwrap());
    let recording = Shared::default();
    let kept = recording.clone();
    std::thread::spawn(move || {
        let mut datagram = [0; 65536];
        while let Ok((len, _)) = input.recv_from(&mut datagram) {
            // A full socket is a lossy wire.
            let _ = output.send_to(&datagram[..len], to);
            kept.lock().unwrap().keep(&datagram[..len]);
        }
    });
    recording
}

/// The header of `cl`, whose authors nobody checks.
fn header(source: PeerId, destination: PeerId, total: u32, count: u16) -> [u8; CL_HEADER] {
    let mut b = [0; CL_HEADER];
    b[..4].copy_from_slice(&[0x47, 0x43, 1, 0]);
    b[4..8].copy_from_slice(&total.to_le_bytes());
    b[8..16].copy_from_slice(&source.to_u64().to_le_bytes());
    b[16..24].copy_from_slice(&destination.to_u64().to_le_bytes());
    b[30..32].copy_from_slice(&count.to_le_bytes());
    b
}

fn datagram(source: PeerId, contents: &[u8]) -> Vec<u8> {
    let mut datagram = header(source, B, contents.len() as u32, 1).to_vec();
    datagram.extend_from_slice(contents);
    datagram
}

/// A handshake with B that says it is from `claimed` in its life `incarnation`.
fn handshake(claimed: PeerId, incarnation: u64, keys: Box<dyn PairKeys>, seed: u64) -> Vec<u8> {
    let mut bytes = [C.0 as u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut mml = Mml::new(config(), claimed, Incarnation(incarnation), keys, bytes);
    mml.connect(Time::default(), B).unwrap();
    let mut frame = Vec::new();
    mml.poll_transmit(Time::default(), &mut frame).expect("a handshake");
    datagram(claimed, &frame)
}

struct Arsenal {
    rng: Rng,
    forth: Shared,
    back: Shared,
    as_a: Vec<Vec<u8>>,
    own: Vec<Vec<u8>>,
    next: usize,
}

impl Arsenal {
    fn random(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.rng.next_u64().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }

    fn recorded(&mut self) -> Vec<u8> {
        self.forth.lock().unwrap().pick(&mut self.rng)
    }

    /// The next datagram.
    fn draw(&mut self) -> Vec<u8> {
        self.next += 1;
        match self.next % 12 {
            // Anything.
            0 => {
                let len = self.rng.below(JUNK_BYTES_MAX) as usize;
                self.random(len)
            }
            // Frames of every kind, of A, of its own and of nobody, right but for what is sealed.
            1 | 2 => {
                let kind = self.rng.below(6) as usize;
                let mut frame = self.random(FRAME_BYTES[kind]);
                frame[..8].copy_from_slice(&[1, kind as u8 + 1, 0, 0, 0, 0, 0, 0]);
                let sources = [A, PeerId { principal: C, instance: 7 }, PeerId::new(99, 1)];
                datagram(*self.rng.pick(&sources).unwrap(), &frame)
            }
            // The present session's number with text of its own, and recordings with a flipped bit.
            3 => {
                let mut altered = self.recorded();
                if altered.len() > CL_HEADER {
                    let at = self.rng.within(CL_HEADER as u64, altered.len() as u64 - 1) as usize;
                    altered[at] ^= 1 << self.rng.below(8);
                }
                altered
            }
            // Cut off, with and without a header that says so.
            4 => {
                let mut cut = self.recorded();
                cut.truncate(self.rng.below(cut.len() as u64 + 1) as usize);
                if cut.len() > CL_HEADER && self.rng.chance(1, 2) {
                    cut = datagram(A, &cut[CL_HEADER..]);
                }
                cut
            }
            // Again: frames of the present keys, of former ones, handshakes.
            5..=7 => self.recorded(),
            // Back: as they are, and as if A had said it.
            8 => {
                let back = self.back.lock().unwrap().pick(&mut self.rng);
                match back.get(CL_HEADER..) {
                    Some(contents) if self.rng.chance(1, 2) => datagram(A, contents),
                    _ => back,
                }
            }
            // As A, under its own key.
            9 => self.rng.pick(&self.as_a).cloned().unwrap(),
            // As itself, more often than it may.
            10 => self.own[self.next / 12 % self.own.len()].clone(),
            // The first fragment of the longest message there is.
            _ => {
                let (total, count) = (16 << 20, 16_384_u32);
                let mut fragment = header(A, B, total, count as u16).to_vec();
                fragment[24..28].copy_from_slice(&(self.next as u32).to_le_bytes());
                fragment.extend(self.random(total.div_ceil(count) as usize));
                fragment
            }
        }
    }
}

/// Any address of 127.0.0.0/8 is its own to send from, and one from which B hears A.
fn sources(wire_b: UdpSocket) -> Vec<UdpSocket> {
    let bind = |i: usize| UdpSocket::bind(SocketAddr::from(([127, i as u8, 0, 1 + i as u8], 0))).unwrap();
    (1..SOURCES).map(bind).chain([wire_b]).collect()
}

/// The part `attacker`.
pub(crate) fn run() {
    let commands = commands();
    let victims: Vec<SocketAddr> = commands.recv().unwrap()[1..].iter().map(|word| parsed(word)).collect();
    let [wire_a, wire_b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    // A's end of the wire leads to B, and B's to A.
    let forth = tap(&wire_a, &wire_b, victims[1]);
    let back = tap(&wire_b, &wire_a, victims[0]);

    let roster = roster(victims[0], victims[1]);
    let keyring = Keyring::new(C, secret(C), &roster).unwrap();
    let pair = keyring.pair(PeerId { principal: C, instance: 0 }, B).unwrap();
    let lying = |i| {
        let pair = pair.clone();
        handshake(A, 1 + i % 3, Box::new(move |_: PeerId, _: PeerId| Some(pair.clone())), i)
    };
    let own = |i: u64| {
        let me = PeerId { principal: C, instance: (i % u64::from(INSTANCES)) as u32 };
        handshake(me, 1 + i / u64::from(INSTANCES), Box::new(keyring.clone()), i)
    };
    let mut arsenal = Arsenal {
        rng: Rng::new(1),
        forth,
        back,
        as_a: (0..64).map(lying).collect(),
        own: (0..u64::from(INSTANCES) * LIVES).map(own).collect(),
        next: 0,
    };
    say(format_args!("bound {} {}", wire_a.local_addr().unwrap(), wire_b.local_addr().unwrap()));

    let sources = sources(wire_b);
    // Over all attacks: packets, and how long they lasted.
    let (mut sent, mut lasted) = (0, Duration::ZERO);
    let mut since: Option<(Instant, u64)> = None;
    loop {
        match commands.try_recv().map(|words| words[0].clone()).as_deref() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
            Ok("attack") => since = Some((Instant::now(), 0)),
            Ok("pause") => {
                let (start, _) = since.take().unwrap();
                lasted += start.elapsed();
            }
            Ok("finish") => {
                say(format_args!("junk {sent} {}", (sent as f64 / lasted.as_secs_f64()) as u64));
            }
            Ok("end") => return,
            Ok(other) => panic!("{other}?"),
        }
        if let Some((start, done)) = &mut since {
            let due = start.elapsed().as_micros() as u64 * JUNK_RATE / 1_000_000;
            for i in (*done).max(due.saturating_sub(BURST_MAX))..due {
                if sources[i as usize % SOURCES].send_to(&arsenal.draw(), victims[1]).is_ok() {
                    sent += 1;
                }
            }
            *done = due;
        }
        std::thread::sleep(NAP);
    }
}
