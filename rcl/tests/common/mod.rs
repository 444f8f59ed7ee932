//! What the tests that last share: messages whose contents tell what they are, and what a process has in use.
#![allow(dead_code, reason = "each test uses its part")]

use cl_base::{PeerId, Rng};
use rcl::{Endpoint, Event, TransferId};
use std::any::Any;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Announced messages that one side has under way at the most.
const TRANSFERS_MAX: usize = 4;
/// Messages accepted in one turn, so that the sender also polls.
const TURN: usize = 64;

/// Calls `step` until it says that it is done.
pub(crate) fn within(limit: Duration, what: &str, mut step: impl FnMut() -> bool) {
    let start = Instant::now();
    while !step() {
        assert!(start.elapsed() < limit, "{what} takes longer than {limit:?}");
    }
}

/// Memory of this process that is in use, in MiB.
pub(crate) fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Open descriptors of this process, and mappings of memory that could be shared.
pub(crate) fn in_use() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shared = maps.lines().filter(|line| line.contains("memfd:")).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), shared)
}

/// The message number `n` of the sequence `tag`: a word that says so, and words computed from it.
fn word(tag: u32, n: u32, i: usize) -> u64 {
    let first = u64::from(tag) << 32 | u64::from(n);
    first.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub(crate) fn fill(contents: &mut [u8], tag: u32, n: u32) {
    let mut words = contents.chunks_exact_mut(8);
    let count = words.len();
    words.by_ref().enumerate().for_each(|(i, w)| w.copy_from_slice(&word(tag, n, i).to_le_bytes()));
    let rest = words.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&word(tag, n, count).to_le_bytes()[..len]);
}

/// Tag and number, as the first word tells them.
pub(crate) fn name(contents: &[u8]) -> Option<(u32, u32)> {
    let first = u64::from_le_bytes(*contents.first_chunk()?);
    Some(((first >> 32) as u32, first as u32))
}

pub(crate) fn verify(contents: &[u8], tag: u32, n: u32) {
    let right = |(i, w): (usize, &[u8])| *w == word(tag, n, i).to_le_bytes()[..w.len()];
    let wrong = contents.chunks(8).enumerate().find(|&(i, w)| !right((i, w)));
    if let Some((i, w)) = wrong {
        panic!(
            "message {n} of {tag}, {} bytes: word {i} is {w:x?}; its name says {:?}",
            contents.len(),
            name(contents)
        );
    }
}

/// How long the messages of a sequence are.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    /// Bytes of the shortest message.
    pub shortest: u64,
    /// Bytes of the longest message that is not announced.
    pub longest: u64,
    /// Bytes of the longest announced message.
    pub announced: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub n: u32,
    pub len: usize,
    pub announced: bool,
}

/// A sequence of messages that both sides can compute.
struct Script {
    rng: Rng,
    tag: u32,
    n: u32,
    mix: Mix,
}

impl Script {
    fn new(tag: u32, mix: Mix) -> Script {
        Script { rng: Rng::new(u64::from(tag)), tag, n: 0, mix }
    }

    fn next(&mut self) -> Item {
        let Mix { shortest, longest, announced } = self.mix;
        let n = self.n;
        self.n += 1;
        let (len, announced) = match self.rng.below(200) {
            // The first one is one that tells its name.
            _ if n == 0 => (64, false),
            0 => (self.rng.within(shortest, announced), true),
            1..4 => (self.rng.within(shortest, longest), false),
            4..40 => (self.rng.within(shortest, (64 << 10).min(longest)), false),
            _ => (self.rng.within(shortest, 1000), false),
        };
        Item { n, len: len as usize, announced }
    }
}

/// One side's part in sending a sequence.
pub(crate) struct Sender {
    script: Script,
    next: Option<Item>,
    under_way: usize,
    /// Accepted so far.
    pub messages: u64,
    pub bytes: u64,
}

impl Sender {
    pub(crate) fn new(tag: u32, mix: Mix) -> Sender {
        Sender { script: Script::new(tag, mix), next: None, under_way: 0, messages: 0, bytes: 0 }
    }

    /// Sends what is accepted now; true if something was. That the connection has ended is told by an event.
    pub(crate) fn send(&mut self, endpoint: &mut Endpoint, to: PeerId) -> bool {
        for turn in 0..TURN {
            let item = *self.next.get_or_insert_with(|| self.script.next());
            let accepted = if item.announced {
                self.under_way < TRANSFERS_MAX && {
                    let mut contents = vec![0; item.len];
                    fill(&mut contents, self.script.tag, item.n);
                    match endpoint.send_large(to, Box::new(contents)) {
                        Ok(_) => true,
                        Err(error) => {
                            assert_ne!(error.reason, rcl::Refusal::TooLong);
                            false
                        }
                    }
                }
            } else {
                let Ok(mut buf) = endpoint.alloc(item.len) else { return turn > 0 };
                buf.resize(item.len);
                fill(&mut buf, self.script.tag, item.n);
                match endpoint.send(to, buf) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_ne!(error.reason, rcl::Refusal::TooLong);
                        false
                    }
                }
            };
            if !accepted {
                return turn > 0;
            }
            self.next = None;
            self.under_way += usize::from(item.announced);
            self.messages += 1;
            self.bytes += item.len as u64;
        }
        true
    }

    /// An announced message has arrived.
    pub(crate) fn on_sent(&mut self) {
        self.under_way -= 1;
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way == 0
    }
}

/// One side's part in receiving a sequence.
pub(crate) struct Receiver {
    mix: Mix,
    script: Option<Script>,
    announced: BTreeMap<TransferId, Item>,
    /// Arrived so far.
    pub messages: u64,
    pub bytes: u64,
}

impl Receiver {
    pub(crate) fn new(mix: Mix) -> Receiver {
        Receiver { mix, script: None, announced: BTreeMap::new(), messages: 0, bytes: 0 }
    }

    /// Of which sequence the messages are, as the first one has told.
    pub(crate) fn tag(&self) -> Option<u32> {
        self.script.as_ref().map(|s| s.tag)
    }

    /// Takes in an event of the peer's messages and checks that it is the next one, with every byte right.
    /// Hands out a message together with its number.
    pub(crate) fn on_event(&mut self, endpoint: &mut Endpoint, event: Event) -> Option<(rcl::Buf, u32)> {
        match event {
            Event::Message { buf, .. } => {
                let mix = self.mix;
                let script = self.script.get_or_insert_with(|| {
                    let (tag, n) = name(&buf).expect("the first message is long enough");
                    assert_eq!(n, 0, "the first message of {tag} is not the first that was sent");
                    Script::new(tag, mix)
                });
                let item = script.next();
                assert_eq!((buf.len(), false), (item.len, item.announced), "message {}", item.n);
                verify(&buf, script.tag, item.n);
                self.count(item);
                Some((buf, item.n))
            }
            Event::Announced { from, id, len } => {
                let item = self.script.as_mut().expect("the first message is not announced").next();
                assert_eq!((len as usize, true), (item.len, item.announced), "announced {}", item.n);
                assert!(self.announced.insert(id, item).is_none());
                endpoint.accept(from, id, Box::new(Vec::<u8>::with_capacity(item.len)));
                None
            }
            Event::Received { id, sink, .. } => {
                let item = self.announced.remove(&id).expect("it was announced, and has not arrived before");
                let contents = (sink as Box<dyn Any>).downcast::<Vec<u8>>().unwrap();
                assert_eq!(contents.len(), item.len);
                verify(&contents, self.script.as_ref().unwrap().tag, item.n);
                self.count(item);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, item: Item) {
        self.messages += 1;
        self.bytes += item.len as u64;
    }
}
