//! One pair of processes that share memory: what each writes and the other reads.

mod copies;
#[cfg(fuzzing)]
pub(super) mod fuzzing;

pub(crate) use copies::Stop;

use super::bell;
use super::handshake::{self, Heard, Offer};
use super::ring::{Broken, Consumer, INLINE_MAX, Producer, Record};
use crate::counters::Traffic;
use crate::pool::{Buf, Foreign, Layout, Loans, Pool, Returns};
use crate::region::{Region, Words};
use crate::sync::AtomicU64;
use cl_base::PeerId;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Buffers out on loan before those that came back are looked for at every loan: enough to be worth the
/// look, which costs a cache line's transfer, and few, so that hot buffers are reused.
const RECLAIM_AT: usize = 8;

/// Before a message this long is lent the look is always worth it: a buffer still in the cache saves more.
const RECLAIM_LEN: usize = 8 << 10;

/// Where things lie in the region that one side makes for what it sends. What the other side writes is in
/// cache lines of its own.
///
/// ```text
///  0          8         64                128             128 + 8 words
///  ┌──────────┬─────────┬─────────────────┬───────────────┬─────────────────────────┐
///  │ consumed │ asleep  │ head of returns │ the ring      │ links of returns        │
///  └──────────┴─────────┴─────────────────┴───────────────┴─────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug)]
struct Plan {
    ring_words: usize,
    slots: u32,
}

impl Plan {
    const HEAD: usize = 64;
    const RING: usize = 128;

    fn links(self) -> usize {
        Plan::RING + self.ring_words * 8
    }

    fn len(self) -> usize {
        (self.links() + Returns::next_len(self.slots)).next_multiple_of(8)
    }

    fn returns(self, region: &Arc<Region>) -> Returns {
        Returns::new(region, Plan::HEAD, self.links(), self.slots)
    }
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// Words that the reader has told to be consumed, and a word that is not zero while it sleeps or is about to.
    reader: Words<AtomicU64>,
    ring: Words<AtomicU64>,
}

impl Way {
    fn new(region: &Arc<Region>, plan: Plan) -> Way {
        Way { reader: region.words(0..16), ring: region.words(Plan::RING..plan.links()) }
    }

    #[inline]
    fn consumed(&self) -> &AtomicU64 {
        &self.reader[0]
    }

    #[inline]
    fn asleep(&self) -> &AtomicU64 {
        &self.reader[1]
    }
}

/// What the other side shares with us.
#[derive(Debug)]
struct Inbox {
    way: Way,
    consumer: Consumer,
    foreign: Arc<Foreign>,
    bell: OwnedFd,
    /// Where messages that are visited are copied to.
    scratch: Box<[u8; SCRATCH_LEN]>,
}

/// How a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// We have connected; the other side has not answered.
    Calling,
    /// Both sides share.
    Open,
    /// The other side takes no more messages; what it wrote is still read.
    Left,
    /// The other side is gone; what it wrote is still read.
    Ended,
    /// The other side has broken the layout. Nothing more is taken from it.
    Broken,
}

/// Why a message was not put into the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// No room now.
    Now,
    /// The other side is gone.
    ForGood,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is none.
    Nothing,
    /// There is no buffer to copy it into.
    Starved,
    /// The other side has broken the layout.
    Broken,
}

/// What a visit copies out of the ring before it is looked at: then the copies have reached the cache, from which
/// wider words are read than were written, and the lines of several messages are on their way at once.
const SCRATCH_LEN: usize = 4 * INLINE_MAX;
/// And so many messages at once.
const VISITED_AT_ONCE: usize = 32;

/// Our end.
#[derive(Debug)]
pub(super) struct Channel {
    /// The connection to the other process, whose end is its end.
    pub(super) link: Arc<OwnedFd>,
    /// Who is at the other end: when we have called, whom we called.
    pub(super) peer: PeerId,
    pub(super) addr: SocketAddr,
    pub(super) state: State,
    /// What was lent through it and what came through it.
    traffic: Traffic,
    /// What [`Channel::take_traffic`] has told.
    told: Traffic,
    out: Way,
    producer: Producer,
    loans: Loans,
    inbox: Option<Inbox>,
}

impl Channel {
    /// Our end of a connection, our offer sent.
    pub(super) fn new(
        link: OwnedFd,
        me: (PeerId, SocketAddr),
        peer: (PeerId, SocketAddr),
        ring_words: usize,
        pool: &Pool,
        bell: &OwnedFd,
    ) -> io::Result<Channel> {
        let plan = Plan { ring_words, slots: pool.slots() };
        let (region, file) = Region::new(c"cl-ring", plan.len())?;
        handshake::send_offer(&link, me, ring_words, pool, &file, bell)?;
        let region = Arc::new(region);
        Ok(Channel {
            link: Arc::new(link),
            peer: peer.0,
            addr: peer.1,
            state: State::Calling,
            traffic: Traffic::default(),
            told: Traffic::default(),
            producer: Producer::default(),
            loans: Loans::new(pool, plan.returns(&region)),
            out: Way::new(&region, plan),
            inbox: None,
        })
    }

    /// Takes up what the other side offers.
    pub(super) fn open(&mut self, offer: Offer) -> io::Result<()> {
        let slots = Layout::new(&offer.pool).map_or(0, |layout| layout.slots());
        let plan = Plan { ring_words: offer.ring_words, slots };
        let region = Arc::new(Region::of(&offer.region, plan.len())?);
        let returns = plan.returns(&region);
        let foreign = Foreign::new(&offer.arena, &offer.pool, returns, Arc::clone(&self.link))?;
        self.inbox = Some(Inbox {
            way: Way::new(&region, plan),
            consumer: Consumer::default(),
            foreign: Arc::new(foreign),
            bell: offer.bell,
            scratch: Box::new([0; SCRATCH_LEN]),
        });
        self.state = State::Open;
        Ok(())
    }

    /// Hears what comes over the connection: an offer, or its end. True if something has changed.
    pub(super) fn tend(&mut self) -> io::Result<bool> {
        if self.state == State::Ended {
            return Ok(false);
        }
        // Also of a broken one the end is awaited, for it may have our buffers until then.
        match handshake::hear(&self.link)? {
            Heard::Nothing => Ok(false),
            Heard::Goodbye => {
                self.state = State::Left;
                Ok(true)
            }
            Heard::End => {
                if self.state == State::Broken {
                    self.stop_listening();
                }
                self.state = State::Ended;
                Ok(true)
            }
            Heard::Offer(offer) => {
                let expected =
                    self.state == State::Calling && offer.peer == self.peer && offer.addr == self.addr;
                if !expected {
                    let why = format!("{} at {} answers, not {}", offer.peer, offer.addr, self.peer);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                self.open(*offer).map(|()| true)
            }
        }
    }

    /// Hands over a message: a short one as a copy, a longer one by lending its buffer.
    #[inline]
    pub(super) fn send(&mut self, buf: Buf, copy_max: usize) -> Result<(), (Buf, Full)> {
        if self.is_over() {
            return Err((buf, Full::ForGood));
        }
        if buf.len() > copy_max {
            return self.lend(buf);
        }
        if !self.producer.put(&self.out.ring, self.out.consumed(), None, &buf) {
            return Err((buf, Full::Now));
        }
        Ok(())
    }

    #[inline(never)]
    fn lend(&mut self, buf: Buf) -> Result<(), (Buf, Full)> {
        if self.loans.count() >= RECLAIM_AT || buf.len() >= RECLAIM_LEN {
            self.reclaim();
        }
        if !self.producer.has_room_for_loan(&self.out.ring, self.out.consumed()) {
            return Err((buf, Full::Now));
        }
        // A buffer that was itself lent to us must go back to where it came from: its contents move on in
        // one of ours.
        let (buf, copied) = self.loans.own(buf).map_err(|buf| (buf, Full::Now))?;
        self.traffic.sent(buf.len());
        if copied {
            self.traffic.copied();
        }
        let loan = self.loans.lend(buf);
        self.producer.put_loan(&self.out.ring, self.out.consumed(), loan);
        Ok(())
    }

    /// Hands over a copy of a message of at most [`INLINE_MAX`] bytes, a word in front of it if given.
    #[inline]
    pub(super) fn send_copy(&mut self, word: Option<u64>, contents: &[u8]) -> Result<(), Full> {
        if self.is_over() {
            return Err(Full::ForGood);
        }
        match self.producer.put(&self.out.ring, self.out.consumed(), word, contents) {
            true => Ok(()),
            false => Err(Full::Now),
        }
    }

    /// Lets the other side see what has been sent, and wakes it if it sleeps.
    #[inline]
    pub(super) fn ring_bell(&mut self) {
        self.producer.release(&self.out.ring);
        if bell::is_wanted(self.out.asleep()) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if let Some(inbox) = &self.inbox {
            // A full counter is a bell that rings already.
            let _ = rustix::io::write(&inbox.bell, &1u64.to_ne_bytes());
        }
    }

    /// The next message from the other side.
    #[inline]
    pub(super) fn recv(&mut self, pool: &Pool) -> Result<Buf, Trouble> {
        let Channel { inbox: Some(Inbox { way, consumer, foreign, .. }), traffic, .. } = self else {
            return Err(Trouble::Nothing);
        };
        let ring = &way.ring[..];
        match consumer.peek(ring) {
            Ok(None) => Err(Trouble::Nothing),
            Ok(Some(Record::Inline(len))) => {
                let mut buf = pool.alloc(len).map_err(|_| Trouble::Starved)?;
                consumer.copy(ring, buf.spare_mut(len));
                buf.grow(len);
                consumer.done(ring, way.consumed(), len);
                traffic.received(len);
                traffic.copied();
                Ok(buf)
            }
            Ok(Some(Record::Lent(loan))) => {
                let end = loan.start.checked_add(loan.len).ok_or(Trouble::Broken)?;
                let buf = foreign.borrow(loan.slot, loan.start..end).ok_or(Trouble::Broken)?;
                consumer.done(ring, way.consumed(), 8);
                traffic.received(buf.len());
                Ok(buf)
            }
            Err(Broken) => Err(Trouble::Broken),
        }
    }

    /// Calls `each` with messages from the other side, at most `max`. Tells how many, and what was in the way
    /// of more.
    #[inline]
    pub(super) fn visit(&mut self, max: usize, mut each: impl FnMut(&[u8])) -> (usize, Option<Trouble>) {
        let Channel { inbox: Some(Inbox { way, consumer, foreign, scratch, .. }), traffic, .. } = self else {
            return (0, None);
        };
        let ring = &way.ring[..];
        let mut count = 0;
        let mut ends = [0; VISITED_AT_ONCE];
        while count < max {
            let (mut copied, mut len) = (0, 0);
            let next = loop {
                if copied == ends.len().min(max - count) {
                    break None;
                }
                match consumer.peek(ring) {
                    Ok(Some(Record::Inline(more))) if len + more <= SCRATCH_LEN => {
                        consumer.copy(ring, &mut scratch[len..len + more]);
                        consumer.done(ring, way.consumed(), more);
                        len += more;
                        ends[copied] = len;
                        copied += 1;
                    }
                    Ok(Some(Record::Inline(_))) => break None,
                    next => break Some(next),
                }
            };
            traffic.received_copies(copied, len);
            count += copied;
            let mut start = 0;
            for &end in &ends[..copied] {
                each(&scratch[start..end]);
                start = end;
            }
            match next {
                None => {}
                Some(Ok(Some(Record::Lent(loan)))) => {
                    let end = loan.start.checked_add(loan.len);
                    let Some(buf) = end.and_then(|end| foreign.borrow(loan.slot, loan.start..end)) else {
                        return (count, Some(Trouble::Broken));
                    };
                    consumer.done(ring, way.consumed(), 8);
                    traffic.received(buf.len());
                    count += 1;
                    each(&buf);
                }
                Some(Err(Broken)) => return (count, Some(Trouble::Broken)),
                Some(Ok(_)) => return (count, None),
            }
        }
        (max, None)
    }

    /// What went through it so far.
    pub(super) fn traffic(&self) -> Traffic {
        let (messages, bytes) = self.producer.copied();
        self.traffic.and_sent_copies(messages, bytes)
    }

    /// What went through it since the last call.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        let all = self.traffic();
        all.since(std::mem::replace(&mut self.told, all))
    }

    /// Tells the other side whether we sleep.
    pub(super) fn set_asleep(&self, asleep: bool) {
        if let Some(inbox) = &self.inbox {
            bell::set_asleep(inbox.way.asleep(), asleep);
        }
    }

    /// True if nothing waits to be received.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.as_ref().is_none_or(|inbox| inbox.consumer.is_empty(&inbox.way.ring))
    }

    /// Takes back buffers that the other side is done with.
    pub(super) fn reclaim(&mut self) {
        if !self.loans.reclaim() {
            tracing::warn!(peer = %self.peer, "it gave back a buffer that it did not have");
            self.state = State::Broken;
        }
    }

    /// True if nothing can be sent any more.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Left | State::Ended | State::Broken)
    }

    /// Buffers that the other side has.
    pub(super) fn lent(&self) -> usize {
        self.loans.count()
    }

    /// Tells the other side that we are done, except with the buffers it lent us.
    pub(super) fn leave(&self) {
        handshake::say_goodbye(&self.link);
    }

    /// Reads nothing more of what the other side writes.
    pub(super) fn stop_listening(&mut self) {
        self.inbox = None;
    }

    /// Takes back everything, the connection having ended.
    pub(super) fn bury(mut self) {
        assert_eq!(self.state, State::Ended, "buried alive");
        self.loans.reclaim_from_the_gone();
    }
}
