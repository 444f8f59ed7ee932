//! A and B: each sends at a steady rate, every other message as ACK, and judges what it is handed.

use crate::process::{commands, parsed, say, token};
use crate::{A, B, RATE, config, roster, secret};
use cl::{EndpointConfig, SharedMemory};
use cl_base::{Incarnation, PeerId};
use mml::{Delivery, Endpoint, Event, Keyring, Message, SendError, SendStatus, Sequence};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

const BODY_BYTES: usize = 64;
/// A sleeps so long between its messages: the attacker gets its processor on a machine with two.
const NAP: Duration = Duration::from_micros(50);
/// Frames taken before something else is done.
const FRAMES_AT_ONCE: usize = 64;

fn wall() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// What the peer has said.
struct Judge {
    token: u64,
    peer: PeerId,
    acks: u64,
    unrs: HashSet<u64>,
    /// Ages in ns of the messages of this round.
    ages: Vec<u64>,
}

impl Judge {
    fn take(&mut self, message: Message<'_>) {
        assert_eq!(message.from, self.peer, "nobody else says anything");
        assert_eq!(message.body.len(), BODY_BYTES);
        let word = |i: usize| u64::from_le_bytes(message.body[i * 8..][..8].try_into().unwrap());
        assert_eq!(word(0), self.token, "the peer has not said this");
        assert_eq!(word(1), message.seq.delivery as u64, "the peer has not said it this way");
        match message.seq.delivery {
            Delivery::Ack => {
                assert_eq!(word(2), self.acks, "an ACK message twice, or not in its place");
                self.acks += 1;
            }
            _ => assert!(self.unrs.insert(word(2)), "UNR message {} twice", word(2)),
        }
        self.ages.push(wall().saturating_sub(word(3)));
    }

    /// Number and median age since the last time.
    fn window(&mut self) -> (usize, u64) {
        let middle = self.ages.len() / 2;
        let p50 = if self.ages.is_empty() { 0 } else { *self.ages.select_nth_unstable(middle).1 };
        let number = self.ages.len();
        self.ages.clear();
        (number, p50)
    }
}

/// What this party says.
struct Speaker {
    token: u64,
    peer: PeerId,
    rate: u64,
    start: Instant,
    acks: u64,
    unrs: u64,
    last_ack: Option<Sequence>,
    stopped: bool,
}

impl Speaker {
    /// Says what is due.
    fn speak(&mut self, mml: &mut Endpoint, cl: &mut cl::Endpoint, now: cl_base::Time) {
        let due = (self.start.elapsed().as_micros() as u64) * self.rate / 1_000_000;
        let mut said = false;
        while !self.stopped && self.acks + self.unrs < due {
            let (delivery, number) = match self.acks <= self.unrs {
                true => (Delivery::Ack, self.acks),
                false => (Delivery::Unr, self.unrs),
            };
            let mut body = [0; BODY_BYTES];
            for (i, word) in [self.token, delivery as u64, number, wall()].iter().enumerate() {
                body[i * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
            match mml.queue(now, self.peer, delivery, 1, &body[..]) {
                Ok(sequence) if delivery == Delivery::Ack => {
                    self.acks += 1;
                    self.last_ack = Some(sequence);
                }
                Ok(_) => self.unrs += 1,
                // The peer had no processor for a while.
                Err(SendError::Backpressure(_)) => break,
                Err(error) => panic!("{error}"),
            }
            said = true;
        }
        if said {
            mml.flush(cl, now);
        }
    }

    fn is_heard(&self, mml: &Endpoint) -> bool {
        self.last_ack.is_some_and(|last| mml.status(self.peer, last) == SendStatus::Delivered)
    }
}

/// Resident memory of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    parsed(line.split_whitespace().next().unwrap())
}

/// The attack was noticed for what it was, reason by reason.
fn check_counters(mml: &Endpoint, cl: &cl::Endpoint) {
    let c = mml.counters();
    let drops = cl.stats().drops;
    println!("measured: {c:?}\nmeasured: {drops:?}");
    let refused = [
        ("malformed", c.malformed),
        ("unknown peer", c.unknown_peer),
        ("bad mac", c.bad_mac),
        ("replayed", c.replayed),
        ("unknown session", c.unknown_session),
        ("stale handshake", c.stale_handshake),
        ("handshakes without a cookie", c.cookies),
        ("no header", drops.magic),
        ("impossible fragments", drops.geometry),
        ("reflected", drops.misaddressed),
        ("unfinished", drops.reassembly_evicted),
    ];
    for (reason, count) in refused {
        assert!(count > 0, "nothing was refused as {reason}: {c:?} {drops:?}");
    }
    assert!(c.rekeyed > 1, "there were no former epochs to record");
}

/// The part `a` or `b`.
pub(crate) fn run(part: &str) {
    let (me, peer, rate) = if part == "a" { (A, B, RATE) } else { (B, A, RATE / 10) };
    let commands = commands();
    let bind = "127.0.0.1:0".parse().unwrap();
    let cl = EndpointConfig { shared_memory: SharedMemory::Never, ..EndpointConfig::new(me, bind) };
    let mut cl = cl::Endpoint::open(cl).expect("an endpoint");
    say(format_args!("bound {}", cl.local_addr()));
    let go: Vec<SocketAddr> = commands.recv().unwrap()[1..].iter().map(|word| parsed(word)).collect();
    let roster = roster(go[0], go[1]);
    let keyring = Keyring::new(me.principal, secret(me.principal), &roster).unwrap();
    let mut mml =
        Endpoint::new(config(), me, Incarnation(1), keyring, &roster, mml::keys::entropy().unwrap());
    // At first over the attacker's wire.
    cl.resolve(peer, go[2]);
    let clock = cl::Clock::new();
    let mut judge = Judge { token: token(), peer, acks: 0, unrs: HashSet::new(), ages: Vec::new() };
    let mut speaker = Speaker {
        token: token(),
        peer,
        rate,
        start: Instant::now(),
        acks: 0,
        unrs: 0,
        last_ack: None,
        stopped: false,
    };
    let mut said_sent = false;
    loop {
        let now = clock.now();
        let taken = cl.stats().datagrams_received;
        mml.receive(&mut cl, now, FRAMES_AT_ONCE, |message| judge.take(message));
        if mml.next_timeout().is_some_and(|at| at <= now) {
            mml.handle_timeout(&mut cl, now);
        }
        while let Some(event) = mml.poll_event() {
            let failed = matches!(event, Event::Down { .. } | Event::Failed { .. } | Event::Restarted { .. });
            assert!(!failed, "{part}: {event:?}");
        }
        speaker.speak(&mut mml, &mut cl, now);
        if speaker.stopped && !said_sent && speaker.is_heard(&mml) {
            say(format_args!("sent {} {}", speaker.acks, speaker.unrs));
            said_sent = true;
        }
        match commands.try_recv().as_deref() {
            Err(_) => {}
            Ok([command, ..]) => match command.as_str() {
                "direct" => cl.resolve(peer, if part == "a" { go[1] } else { go[0] }),
                "memory" => say(format_args!("memory {}", memory())),
                "window" => {
                    let (number, p50) = judge.window();
                    say(format_args!("window {number} {p50} {}", cl.stats().datagrams_received));
                }
                "stop" => speaker.stopped = true,
                "finish" => {
                    if part == "b" {
                        check_counters(&mml, &cl);
                    }
                    say(format_args!("got {} {}", judge.acks, judge.unrs.len()));
                }
                "end" => return,
                _ => panic!("{command}?"),
            },
            Ok([]) => panic!("an empty line"),
        }
        // Who yields amid junk would leave the processor to the attacker.
        if cl.stats().datagrams_received == taken {
            if part == "a" {
                std::thread::sleep(NAP);
            } else {
                std::thread::yield_now();
            }
        }
    }
}
