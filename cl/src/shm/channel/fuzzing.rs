//! A neighbour that writes whatever it likes into the memory it shares with us.

use super::*;
use crate::pool::{PoolConfig, SizeClass};
use crate::stats::Stats;
use crate::sync::Ordering;
use std::collections::VecDeque;

const RING_WORDS: usize = 256;
const COPY_MAX: usize = 64;
const CLASSES: [SizeClass; 2] =
    [SizeClass { capacity: INLINE_MAX, count: 8 }, SizeClass { capacity: 8192, count: 4 }];
/// Buffers received and not dropped yet.
const HELD_MAX: usize = 6;

/// What is made once, for making it costs more than using it.
struct Rig {
    plan: Plan,
    ours: Pool,
    foreign: Arc<Foreign>,
    /// The region each side has made.
    regions: [Arc<Region>; 2],
}

impl Rig {
    fn new() -> Rig {
        let pool = || Pool::new(&PoolConfig { classes: CLASSES.to_vec() }).expect("memory for some buffers");
        let (ours, theirs) = (pool(), pool());
        let plan = Plan { ring_words: RING_WORDS, slots: ours.slots() };
        let region = || Arc::new(Region::new(c"cl-fuzz", plan.len()).expect("memory for a ring").0);
        let regions = [region(), region()];
        let (arena, config) = theirs.to_share();
        let link = Arc::new(handshake::bell().expect("a descriptor"));
        let foreign = Foreign::new(arena, &config, plan.returns(&regions[1]), link).expect("a sound pool");
        Rig { plan, ours, foreign: Arc::new(foreign), regions }
    }

    fn words(&self) -> [Words<AtomicU64>; 2] {
        self.regions.each_ref().map(|region| region.words(0..self.plan.len()))
    }

    /// Our end of a channel on which nothing has been said.
    fn channel(&self) -> Channel {
        for word in self.words().iter().flat_map(|words| words.iter()) {
            word.store(0, Ordering::Relaxed);
        }
        let bell = || handshake::bell().expect("a descriptor");
        let [ours, theirs] = &self.regions;
        Channel {
            link: Arc::new(bell()),
            peer: PeerId::new(2, 0),
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            state: State::Open,
            traffic: Traffic::default(),
            told: Traffic::default(),
            producer: Producer::default(),
            loans: Loans::new(&self.ours, self.plan.returns(ours)),
            out: Way::new(ours, self.plan),
            inbox: Some(Inbox {
                way: Way::new(theirs, self.plan),
                consumer: Consumer::default(),
                foreign: Arc::clone(&self.foreign),
                bell: bell(),
                scratch: Box::new([0; SCRATCH_LEN]),
            }),
        }
    }
}

thread_local! {
    static RIG: Rig = Rig::new();
}

/// The input says by turns what the neighbour writes and what we do.
pub(in crate::shm) fn neighbour(mut input: &[u8]) {
    fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
        let (taken, rest) = input.split_first_chunk::<N>()?;
        *input = rest;
        Some(*taken)
    }
    RIG.with(|rig| {
        let mut channel = rig.channel();
        let words = rig.words();
        let mut held = VecDeque::new();
        while let Some([what, place]) = take(&mut input) {
            let place = usize::from(place);
            match what % 8 {
                0 => {
                    let Some(value) = take(&mut input) else { break };
                    let words = &words[usize::from(what >> 3) % 2];
                    words[place % words.len()].store(u64::from_le_bytes(value), Ordering::Relaxed);
                }
                1 => {
                    // A header as it might be, and a loan as it might be behind it.
                    let Some([len, start, slot]) = take(&mut input) else { break };
                    let at = Plan::RING / 8 + place % (RING_WORDS - 1);
                    let kind = 1 << 63 | u64::from(what >> 3 & 3) << 32;
                    let header = kind | u64::from(start) << 34 | u64::from(len) * 9;
                    words[1][at].store(header, Ordering::Relaxed);
                    let loan = u64::from(slot % 16) | u64::from(start) << 38;
                    words[1][at + 1].store(loan, Ordering::Relaxed);
                }
                2 => {
                    // Says that it has given something back.
                    let Some([slot]) = take(&mut input) else { break };
                    let links = rig.plan.links() / 8;
                    let at = if place % 2 == 0 { Plan::HEAD / 8 } else { links + place % 6 };
                    let at = at.min(words[0].len() - 1);
                    words[0][at].store(u64::from(slot % 16) << (place & 32), Ordering::Relaxed);
                }
                3 => match channel.recv(&rig.ours) {
                    Ok(mut buf) => {
                        buf.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                        held.push_back(buf);
                        if held.len() > HELD_MAX {
                            held.pop_front();
                        }
                    }
                    Err(Trouble::Broken) => break,
                    Err(Trouble::Nothing | Trouble::Starved) => {}
                },
                4 => {
                    let before = received(&channel);
                    let (mut seen, mut bytes) = (0, 0);
                    let (count, trouble) = channel.visit(place % 8, |message| {
                        seen += 1;
                        bytes += message.len() as u64;
                    });
                    assert!(count <= place % 8 && count == seen);
                    assert_eq!(received(&channel), (before.0 + seen as u64, before.1 + bytes));
                    if trouble == Some(Trouble::Broken) {
                        break;
                    }
                }
                5 => drop(held.pop_front()),
                6 if what & 8 != 0 => {
                    let messages: [&[u8]; 3] = [&[0; COPY_MAX + 1][..place % (COPY_MAX + 2)], &[1; 5], &[]];
                    channel.ring_bell();
                    let before = channel.traffic();
                    let (count, stop, rest) = channel.send_copies(COPY_MAX, messages.into_iter());
                    let left = rest.count() + usize::from(stop != Stop::Done);
                    assert_eq!(count + left, messages.len());
                    channel.ring_bell();
                    let bytes = messages[..count].iter().map(|message| message.len()).sum::<usize>();
                    let sent = Traffic::default().and_sent_copies(count as u64, bytes as u64);
                    assert_eq!(channel.traffic().since(before), sent);
                }
                6 => {
                    let buf = held.pop_back().or_else(|| {
                        let mut buf = rig.ours.alloc(place * 16).ok()?;
                        buf.resize(place * 16);
                        Some(buf)
                    });
                    if let Some(buf) = buf
                        && let Err((buf, _)) = channel.send(buf, COPY_MAX)
                    {
                        held.push_back(buf);
                    }
                }
                _ => channel.reclaim(),
            }
            assert_no_two_in_one_slot(&mut held);
        }
        drop(held);
        channel.state = State::Ended;
        channel.bury();
        for SizeClass { capacity, count } in CLASSES {
            assert_eq!(rig.ours.available(capacity), count, "a buffer is lost, or there twice");
        }
    });
}

/// Messages and bytes that the channel says to have received.
fn received(channel: &Channel) -> (u64, u64) {
    let mut stats = Stats::default();
    channel.traffic.count_shared(&mut stats);
    (stats.messages_received, stats.bytes_received)
}

fn assert_no_two_in_one_slot(held: &mut VecDeque<Buf>) {
    let mut slots = held.iter_mut().map(|buf| buf.raw_slot().0).collect::<Vec<_>>();
    slots.sort_unstable();
    assert!(slots.windows(2).all(|pair| pair[0] != pair[1]), "two buffers in one slot");
}
