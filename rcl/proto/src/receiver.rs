use crate::config::{Config, WINDOW_MAX};
use crate::memory::{Memory, Sink};
use crate::sender::TRANSFERS_MAX;
use crate::wire::{BITMAP_LEN_MAX, Kind, PACKED_LEN_LEN, u64_at, unpack};
use std::collections::{BTreeMap, VecDeque};

/// Messages above such a part of the longest there may be are large: there are few buffers for them (of the runtime's
/// pool, those above 64 KiB).
const LARGE_PART: usize = 256;

/// The receiving half of a connection: puts segments in order and messages together.
///
/// Segments are kept as they arrived until the application reads: reading walks along them. So nothing is
/// kept twice, and what is unread holds up the peer by itself.
pub(crate) struct Receiver<B> {
    window: usize,
    message_len_max: usize,
    /// Segments from `head`, the first one not read wholly; `None` where one is missing.
    slots: VecDeque<Option<(Kind, B)>>,
    head: u64,
    /// All segments below this have arrived.
    next: u64,
    /// The highest limit granted; never taken back.
    limit: u64,
    /// The message being put together, and the length it will have.
    partial: Option<(B, usize)>,
    /// Transfers announced and not accepted yet, with their lengths.
    announced: BTreeMap<u64, u64>,
    /// Transfers under way.
    incoming: BTreeMap<u64, Incoming>,
    finished: bool,
    /// Which copies of each segment have arrived, by its number modulo the window: a bit for each. Empty until one
    /// was sent again.
    copies: Vec<u8>,
    /// Segments that have come again and were not needed, and how many the peer has been told of.
    needless: u64,
    needless_told: u64,
    pub(crate) tally: Tally,
}

/// What a receiver has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) copies: u64,
    pub(crate) duplicates: u64,
    pub(crate) stalls: u64,
}

impl Tally {
    pub(crate) fn received(&mut self, len: u64) {
        self.messages += 1;
        self.bytes += len;
    }
}

struct Incoming {
    sink: Box<dyn Sink>,
    len: u64,
    at: u64,
}

/// What is read next.
pub(crate) enum Read<B> {
    Message(B),
    /// The peer announces a transfer of this number and length.
    Announced(u64, u64),
    /// A transfer has arrived.
    Received(u64, Box<dyn Sink>),
    /// The peer takes, or does not take, a transfer of ours.
    Answer(u64, bool),
    /// Nothing follows.
    Fin,
    /// Nothing now.
    Nothing,
    /// Something, but there is no buffer for it now.
    Starved,
}

/// A peer broke the rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation;

fn is_large<M: Memory>(memory: &M, len: usize) -> bool {
    len > memory.capacity_max() / LARGE_PART
}

impl<B: std::ops::Deref<Target = [u8]>> Receiver<B> {
    pub(crate) fn new(config: &Config) -> Receiver<B> {
        let window = config.window.clamp(2, WINDOW_MAX);
        Receiver {
            window,
            message_len_max: config.message_len_max,
            slots: VecDeque::new(),
            head: 0,
            next: 0,
            limit: 0,
            partial: None,
            announced: BTreeMap::new(),
            incoming: BTreeMap::new(),
            finished: false,
            copies: Vec::new(),
            needless: 0,
            needless_told: 0,
            tally: Tally::default(),
        }
    }

    /// Takes in a segment. True if it is new.
    pub(crate) fn insert(&mut self, sequence: u64, kind: Kind, body: B) -> Result<bool, Violation> {
        if sequence >= self.limit {
            return Err(Violation);
        }
        if sequence < self.next {
            self.tally.duplicates += 1;
            return Ok(false);
        }
        let index = (sequence - self.head) as usize;
        while self.slots.len() <= index {
            self.slots.push_back(None);
        }
        if self.slots[index].is_some() {
            self.tally.duplicates += 1;
            return Ok(false);
        }
        self.slots[index] = Some((kind, body));
        while let Some(Some(_)) = self.slots.get((self.next - self.head) as usize) {
            self.next += 1;
        }
        Ok(true)
    }

    /// Notes which copy of a segment has arrived, so that the peer can be told of needless ones. A copy that the
    /// network has made bears the number of another, and does not count.
    pub(crate) fn note_copy(&mut self, sequence: u64, copy: u8, new: bool) {
        if self.copies.is_empty() {
            if copy == 0 {
                return;
            }
            // So far only first copies have arrived.
            self.copies.resize(self.window, 1);
        }
        let window = self.window as u64;
        let seen = &mut self.copies[(sequence % window) as usize];
        // Of the many that are rarely needed, one bit tells.
        let bit = 1 << copy.min(7);
        if new {
            *seen = bit;
        } else if sequence + window >= self.head + self.slots.len() as u64 && *seen & bit == 0 {
            // Otherwise the place is another segment's by now.
            *seen |= bit;
            self.needless += 1;
        }
    }

    /// True if there have been needless copies of which the peer does not know.
    pub(crate) fn has_needless_untold(&self) -> bool {
        self.needless > self.needless_told
    }

    /// How many needless copies there have been, to be told.
    pub(crate) fn tell_needless(&mut self) -> u64 {
        self.needless_told = self.needless;
        self.needless
    }

    /// True if a segment is missing before one that has arrived.
    pub(crate) fn has_gap(&self) -> bool {
        self.slots.len() as u64 > self.next - self.head
    }

    /// True if [`Receiver::read`] has something to look at.
    pub(crate) fn has_unread(&self) -> bool {
        self.head < self.next
    }

    /// True if a large message has begun and is not complete: it has a buffer of which there are few.
    pub(crate) fn holds_large<M: Memory<Buf = B>>(&self, memory: &M) -> bool {
        self.partial.as_ref().is_some_and(|(_, len)| is_large(memory, *len))
    }

    /// The next thing in order. `alone`: nobody at the peer's address [holds](Receiver::holds_large) a large buffer, so that
    /// it may have a scarce one.
    pub(crate) fn read<M: Memory<Buf = B>>(&mut self, memory: &M, alone: bool) -> Result<Read<B>, Violation> {
        while self.head < self.next {
            if self.finished {
                return Err(Violation);
            }
            let slot = self.slots.front_mut().expect("it has arrived");
            let (kind, body) = slot.as_mut().expect("it has arrived");
            let kind = *kind;
            if self.partial.is_some() && !matches!(kind, Kind::Next | Kind::Chunk) {
                return Err(Violation);
            }
            let read = match kind {
                Kind::Whole => Read::Message(self.pop()),
                Kind::Pack => {
                    let Some(message) = unpack(body) else { return Err(Violation) };
                    let Some(mut copy) = memory.alloc(message.len()) else {
                        self.tally.stalls += 1;
                        return Ok(Read::Starved);
                    };
                    M::append(&mut copy, message);
                    let taken = PACKED_LEN_LEN + message.len();
                    M::advance(body, taken);
                    self.tally.copies += 1;
                    if body.is_empty() {
                        self.pop();
                    }
                    Read::Message(copy)
                }
                Kind::First | Kind::Next => match self.assemble(memory, kind, alone)? {
                    Read::Nothing => continue,
                    read => return Ok(read),
                },
                Kind::Chunk => {
                    let body = self.pop();
                    match self.place(&body)? {
                        Read::Nothing => continue,
                        read => read,
                    }
                }
                Kind::Announce => {
                    let (id, len) = (u64_at(body, 0), u64_at(body, 8));
                    if self.announced.len() + self.incoming.len() >= TRANSFERS_MAX
                        || self.incoming.contains_key(&id)
                        || self.announced.insert(id, len).is_some()
                    {
                        return Err(Violation);
                    }
                    self.pop();
                    Read::Announced(id, len)
                }
                Kind::Accept | Kind::Reject => {
                    let id = u64_at(&self.pop(), 0);
                    Read::Answer(id, kind == Kind::Accept)
                }
                Kind::Fin => {
                    self.pop();
                    self.finished = true;
                    Read::Fin
                }
                kind => unreachable!("{kind:?} is no segment"),
            };
            return Ok(read);
        }
        Ok(Read::Nothing)
    }

    /// Takes the first segment.
    fn pop(&mut self) -> B {
        self.head += 1;
        self.slots.pop_front().flatten().expect("it has arrived").1
    }

    /// Adds the first segment to the message that is put together.
    fn assemble<M: Memory<Buf = B>>(
        &mut self,
        memory: &M,
        kind: Kind,
        alone: bool,
    ) -> Result<Read<B>, Violation> {
        let mut at = 0;
        if kind == Kind::First {
            let (_, body) = self.slots[0].as_ref().expect("it has arrived");
            let len = usize::try_from(u64_at(body, 0)).map_err(|_| Violation)?;
            if len > self.message_len_max.min(memory.capacity_max()) {
                return Err(Violation);
            }
            let may_have = alone || !is_large(memory, len) || !memory.is_scarce(len);
            let Some(buf) = may_have.then(|| memory.alloc(len)).flatten() else {
                self.tally.stalls += 1;
                return Ok(Read::Starved);
            };
            self.partial = Some((buf, len));
            at = kind.numbers_len();
        }
        let body = self.pop();
        let (mut message, len) = self.partial.take().ok_or(Violation)?;
        if message.len() + body.len() - at > len {
            return Err(Violation);
        }
        M::append(&mut message, &body[at..]);
        if message.len() == len {
            return Ok(Read::Message(message));
        }
        self.partial = Some((message, len));
        Ok(Read::Nothing)
    }

    /// Puts a piece of a transfer in its place.
    fn place(&mut self, body: &[u8]) -> Result<Read<B>, Violation> {
        let (id, at, bytes) = (u64_at(body, 0), u64_at(body, 8), &body[Kind::Chunk.numbers_len()..]);
        let incoming = self.incoming.get_mut(&id).ok_or(Violation)?;
        if at != incoming.at || bytes.len() as u64 > incoming.len - at {
            return Err(Violation);
        }
        incoming.sink.place(at, bytes.len()).copy_from_slice(bytes);
        incoming.at += bytes.len() as u64;
        if incoming.at < incoming.len {
            return Ok(Read::Nothing);
        }
        let done = self.incoming.remove(&id).expect("just seen");
        self.tally.received(done.len);
        Ok(Read::Received(id, done.sink))
    }

    /// The application takes a transfer that was announced. Hands the sink back if there is none of that
    /// number, or if there is nothing to come (`true`).
    pub(crate) fn accept(&mut self, id: u64, sink: Box<dyn Sink>) -> Result<(), (Box<dyn Sink>, bool)> {
        match self.announced.remove(&id) {
            None => Err((sink, false)),
            Some(0) => {
                self.tally.received(0);
                Err((sink, true))
            }
            Some(len) => {
                self.incoming.insert(id, Incoming { sink, len, at: 0 });
                Ok(())
            }
        }
    }

    /// The application does not take it. False if there is none of that number.
    pub(crate) fn reject(&mut self, id: u64) -> bool {
        self.announced.remove(&id).is_some()
    }

    /// Nothing more will be read.
    pub(crate) fn discard(&mut self) {
        self.slots.clear();
        self.head = self.next;
    }

    /// All segments below this have arrived.
    pub(crate) fn ack(&self) -> u64 {
        self.next
    }

    fn could_grant(&self, share: usize) -> u64 {
        self.head + self.window.min(share) as u64
    }

    /// How many segments from [`Receiver::ack`] on the peer may send. What is unread counts against the
    /// window, of which this connection has `share` at the most.
    pub(crate) fn grant(&mut self, share: usize) -> u32 {
        self.limit = self.limit.max(self.could_grant(share));
        (self.limit - self.next) as u32
    }

    /// The peer was granted `grant` segments before there was a connection.
    pub(crate) fn keep_promise(&mut self, grant: u32) {
        self.limit = self.limit.max(u64::from(grant));
    }

    /// True if the peer is, or soon will be, held up by what was granted last, and could be told better.
    pub(crate) fn grant_is_due(&self, share: usize) -> bool {
        let window = self.window.min(share) as u64;
        self.could_grant(share) >= self.limit + window.div_ceil(2)
    }

    /// Segments after which an acknowledgement is worth a frame of its own.
    pub(crate) fn ack_every(&self, share: usize) -> u32 {
        (self.window.min(share) / 4).clamp(1, 16) as u32
    }

    /// Writes what has arrived after the first gap; returns the number of bytes.
    pub(crate) fn bitmap(&self, into: &mut [u8]) -> usize {
        let mut len = 0;
        let from = (self.next - self.head) as usize + 1;
        for (i, slot) in self.slots.iter().skip(from).enumerate().take(BITMAP_LEN_MAX * 8) {
            if i % 8 == 0 {
                into[i / 8] = 0;
            }
            if slot.is_some() {
                into[i / 8] |= 1 << (i % 8);
                len = i / 8 + 1;
            }
        }
        len
    }

    /// True once the peer's last segment has been read, and with it all others.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Segments that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}
