//! Connections over shared memory, which is reliable and ordered by itself: one word in front of a message,
//! and nothing else. No sequence, no acknowledgement, no timer, no checksum; a full ring is what stops the
//! sender, and the end of the channel tells of a dead peer.
//!
//! The word, little-endian: kind (`u8`), version (`u8`), 0 (`u16`), the number of the connection (`u32`),
//! by which messages to a former connection over the same channel are told apart: that of the call. If both have called at
//! once, the call of the party with the lower name counts, unless it is refused. There may be two channels between two
//! parties, and what comes through one may overtake what comes through the other.

use crate::{Event, SendError};
use cl::for_rcl::{self, ChannelId};
use cl::{Buf, Endpoint, Received};
use cl_base::PeerId;
use rcl_proto::{CloseReason, Refusal, Sink, Sizes, Source, TransferId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Bytes in front of a message.
const WORD_LEN: usize = 8;
const VERSION: u8 = 2;
/// Messages that wait until the peer has answered the call; what comes after that is put into the ring. Fewer
/// than the protocol of the network takes at once, which may get them in the end.
const WAITING_MAX: usize = 256;
/// Transfers announced and not done with, each way.
const TRANSFERS_MAX: usize = 1024;
/// Bytes of a large message that go in one buffer: as many as fit one of 64 KiB with what is in front.
const CHUNK_LEN: usize = (64 << 10) - CHUNK_HEAD_LEN;
const CHUNK_HEAD_LEN: usize = WORD_LEN + 16;
/// Pieces of large messages put into the rings between two looks at what has arrived.
const CHUNKS_PER_ROUND: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Message,
    /// A call, and its answers.
    Hello,
    Welcome,
    Refuse,
    /// The connection is no more.
    Reset,
    /// Nothing follows.
    Fin,
    /// The number of a transfer follows, and for the first its length.
    Announce,
    Accept,
    Reject,
    Done,
    /// The number of a transfer, a place in it, and the bytes from there on.
    Chunk,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Message,
        Kind::Hello,
        Kind::Welcome,
        Kind::Refuse,
        Kind::Reset,
        Kind::Fin,
        Kind::Announce,
        Kind::Accept,
        Kind::Reject,
        Kind::Done,
        Kind::Chunk,
    ];

    /// Bytes of numbers behind the word.
    fn numbers_len(self) -> usize {
        match self {
            Kind::Announce | Kind::Chunk => 16,
            Kind::Accept | Kind::Reject | Kind::Done => 8,
            _ => 0,
        }
    }
}

fn word(kind: Kind, number: u32) -> [u8; WORD_LEN] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind as u8, VERSION, 0, 0, a, b, c, d]
}

/// The kind and the number, if the length is one of the kind.
#[inline]
fn parse(bytes: &[u8]) -> Option<(Kind, u32)> {
    let (&[kind, version, 0, 0, a, b, c, d], rest) = bytes.split_first_chunk::<WORD_LEN>()? else {
        return None;
    };
    let kind = *Kind::ALL.get(usize::from(kind)).filter(|_| version == VERSION)?;
    let fits = match kind {
        Kind::Message => true,
        Kind::Chunk => rest.len() > kind.numbers_len(),
        _ => rest.len() == kind.numbers_len(),
    };
    fits.then_some((kind, u32::from_le_bytes([a, b, c, d])))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// What is to be sent in its order.
enum Waiting {
    Message(Buf),
    Word(Kind, [u64; 2]),
}

struct Outgoing {
    source: Box<dyn Source>,
    at: u64,
    flows: bool,
}

struct Incoming {
    sink: Box<dyn Sink>,
    at: u64,
    len: u64,
}

/// What a connection has carried and what it holds, for observers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    /// Times that the ring, or what may wait for an answer, was full.
    pub(crate) stalls: u64,
}

impl Traffic {
    #[inline]
    fn sent(&mut self, len: u64) {
        self.messages_sent += 1;
        self.bytes_sent += len;
    }

    #[inline]
    fn received(&mut self, len: u64) {
        self.messages_received += 1;
        self.bytes_received += len;
    }

    pub(crate) fn add(&mut self, other: Traffic) {
        self.messages_sent += other.messages_sent;
        self.bytes_sent += other.bytes_sent;
        self.messages_received += other.messages_received;
        self.bytes_received += other.bytes_received;
        self.stalls += other.stalls;
    }
}

/// What was accepted for a peer that then did not want to be called over shared memory.
pub(crate) struct Refused {
    pub(crate) peer: PeerId,
    pub(crate) waiting: Vec<Accepted>,
    /// Nothing follows.
    pub(crate) closing: bool,
}

pub(crate) enum Accepted {
    Message(Buf),
    Announced(TransferId, Box<dyn Source>),
}

struct Link {
    peer: PeerId,
    /// Where we send, and the number we send with.
    out: ChannelId,
    out_number: u32,
    /// The same of the peer, once it is known.
    from: Option<(ChannelId, u32)>,
    /// The connection is our call, which the peer has answered.
    is_our_call: bool,
    /// A call of the peer that counts if it refuses ours, or ours ends before that call is taken back.
    other: Option<(ChannelId, u32)>,
    waiting: VecDeque<Waiting>,
    /// Bytes of messages in there.
    waiting_bytes: usize,
    /// The last message was refused for want of room.
    stalled: bool,
    traffic: Traffic,
    fin_wanted: bool,
    fin_queued: bool,
    fin_received: bool,
    outgoing: BTreeMap<u64, Outgoing>,
    next_transfer: u64,
    announced: BTreeMap<u64, u64>,
    incoming: BTreeMap<u64, Incoming>,
}

impl Link {
    fn new(peer: PeerId, out: ChannelId, out_number: u32, from: Option<(ChannelId, u32)>) -> Link {
        Link {
            peer,
            out,
            out_number,
            from,
            is_our_call: false,
            other: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stalled: false,
            traffic: Traffic::default(),
            fin_wanted: false,
            fin_queued: false,
            fin_received: false,
            outgoing: BTreeMap::new(),
            next_transfer: 0,
            announced: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }

    fn is_open(&self) -> bool {
        self.from.is_some()
    }

    fn note_refused(&mut self, reason: Refusal) {
        self.traffic.stalls += u64::from(reason == Refusal::Backpressure && !self.stalled);
        self.stalled |= reason == Refusal::Backpressure;
    }

    /// What was accepted for a peer that has never answered, in its order.
    fn into_refused(mut self) -> Refused {
        let accepted = |waiting| match waiting {
            Waiting::Message(buf) => Some(Accepted::Message(buf)),
            Waiting::Word(Kind::Announce, [id, _]) => {
                let transfer = self.outgoing.remove(&id)?;
                Some(Accepted::Announced(TransferId(id), transfer.source))
            }
            Waiting::Word(..) => None,
        };
        let waiting = self.waiting.into_iter().filter_map(accepted).collect();
        Refused { peer: self.peer, waiting, closing: self.fin_wanted }
    }

    /// Puts what waits into the ring, in its order. True if nothing is left.
    fn pump(&mut self, cl: &mut Endpoint) -> bool {
        if !self.is_open() {
            return false;
        }
        loop {
            let sent = match self.waiting.pop_front() {
                None => break,
                Some(Waiting::Message(buf)) => {
                    let len = buf.len();
                    match send_message(cl, self.out, self.out_number, buf) {
                        Ok(()) => {
                            self.waiting_bytes -= len;
                            continue;
                        }
                        Err(error) => Waiting::Message(error.buf),
                    }
                }
                Some(Waiting::Word(kind, numbers)) => {
                    match send_word(cl, self.out, self.out_number, kind, numbers) {
                        Ok(()) => continue,
                        Err(_) => Waiting::Word(kind, numbers),
                    }
                }
            };
            self.waiting.push_front(sent);
            return false;
        }
        self.pump_transfers(cl) && {
            if self.fin_wanted && !self.fin_queued && self.outgoing.is_empty() {
                self.fin_queued = true;
                self.waiting.push_back(Waiting::Word(Kind::Fin, [0; 2]));
                return self.pump(cl);
            }
            true
        }
    }

    /// Puts pieces of large messages into the ring. True if nothing is left.
    fn pump_transfers(&mut self, cl: &mut Endpoint) -> bool {
        for _ in 0..CHUNKS_PER_ROUND {
            let Some((id, transfer)) = self.outgoing.iter_mut().find(|(_, t)| t.flows) else { return true };
            let left = transfer.source.len() - transfer.at;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_LEN);
            let Ok(mut buf) = cl.alloc(CHUNK_HEAD_LEN + len) else { return false };
            buf.extend_from_slice(&word(Kind::Chunk, self.out_number));
            buf.extend_from_slice(&id.to_le_bytes());
            buf.extend_from_slice(&transfer.at.to_le_bytes());
            buf.extend_streaming(transfer.source.chunk(transfer.at, len));
            if for_rcl::send(cl, self.out, buf).is_err() {
                return false;
            }
            transfer.at += len as u64;
            transfer.flows = transfer.at < transfer.source.len();
        }
        false
    }
}

#[inline]
fn send_message(cl: &mut Endpoint, to: ChannelId, number: u32, mut buf: Buf) -> Result<(), cl::SendError> {
    if buf.headroom() < WORD_LEN {
        // A buffer received as a part of something longer, say.
        let Ok(mut copy) = cl.alloc(buf.len()) else {
            return Err(cl::SendError { buf, reason: cl::Refusal::Backpressure });
        };
        copy.extend_from_slice(&buf);
        buf = copy;
    }
    buf.prepend(WORD_LEN).copy_from_slice(&word(Kind::Message, number));
    for_rcl::send(cl, to, buf).map_err(|mut error| {
        error.buf.advance(WORD_LEN);
        error
    })
}

fn send_word(
    cl: &mut Endpoint,
    to: ChannelId,
    number: u32,
    kind: Kind,
    numbers: [u64; 2],
) -> Result<(), cl::Refusal> {
    let numbers = [numbers[0].to_le_bytes(), numbers[1].to_le_bytes()];
    let word = u64::from_le_bytes(word(kind, number));
    for_rcl::send_copy(cl, to, Some(word), &numbers.as_flattened()[..kind.numbers_len()])
}

/// What a message from a channel has come to.
pub(crate) enum Arrival {
    Event(Event),
    Nothing,
    /// The peer does not want our call: what was accepted for it goes by the network.
    Refused(Refused),
}

/// All connections over shared memory.
pub(crate) struct Links {
    /// Never iterated.
    by_peer: FxHashMap<PeerId, usize>,
    links: Vec<Option<Link>>,
    last: Option<(PeerId, usize)>,
    next_number: u32,
    events: VecDeque<Event>,
    /// Links that have something to send which did not fit.
    busy: Vec<usize>,
    /// Resets and refusals that did not fit.
    orphans: Vec<(ChannelId, u32, Kind)>,
    /// What is not of this protocol or of a connection that has passed.
    pub(crate) stale: u64,
    /// Bytes of messages that wait until a peer has answered, at the most.
    waiting_bytes_max: usize,
    /// What went over connections that are no more.
    past: Traffic,
}

impl Links {
    /// None yet. `waiting_bytes_max`: bytes of messages that wait until a peer has answered, at the most; a longer
    /// message waits alone.
    pub(crate) fn new(waiting_bytes_max: usize) -> Links {
        Links {
            by_peer: FxHashMap::default(),
            links: Vec::new(),
            last: None,
            next_number: 0,
            events: VecDeque::new(),
            busy: Vec::new(),
            orphans: Vec::new(),
            stale: 0,
            waiting_bytes_max,
            past: Traffic::default(),
        }
    }

    /// What went over all of them.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut all = self.past;
        self.links.iter().flatten().for_each(|link| all.add(link.traffic));
        all
    }

    /// Each connection, what went over it, bytes that wait and how many messages they are.
    pub(crate) fn each(&self) -> impl Iterator<Item = (PeerId, Traffic, usize, usize)> {
        let links = self.links.iter().flatten();
        links.map(|link| (link.peer, link.traffic, link.waiting_bytes, link.waiting.len()))
    }

    /// True if [`Links::pump`] has something to do.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        !self.busy.is_empty() || !self.orphans.is_empty()
    }

    #[inline]
    fn find(&mut self, peer: PeerId) -> Option<usize> {
        match self.last {
            Some((last, index)) if last == peer => Some(index),
            _ => {
                let index = *self.by_peer.get(&peer)?;
                self.last = Some((peer, index));
                Some(index)
            }
        }
    }

    #[inline]
    fn link(&mut self, index: usize) -> &mut Link {
        self.links[index].as_mut().expect("it is there")
    }

    /// As [`Links::has`], remembering whom was asked for.
    #[inline]
    pub(crate) fn has_hot(&mut self, peer: PeerId) -> bool {
        self.find(peer).is_some()
    }

    /// The state of the connection to `peer`, if it is by shared memory: what is in the ring has been handed over.
    pub(crate) fn sizes(&self, peer: PeerId) -> Option<Sizes> {
        let link = self.links[*self.by_peer.get(&peer)?].as_ref()?;
        Some(Sizes {
            held: link.waiting_bytes,
            waiting: link.waiting.len(),
            under_way: 0,
            window: 0,
            kept: 0,
            round_trip: Duration::ZERO,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_peer.len()
    }

    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }

    fn add(&mut self, link: Link) -> usize {
        let peer = link.peer;
        let index = match self.links.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.links.push(None);
                self.links.len() - 1
            }
        };
        self.links[index] = Some(link);
        self.by_peer.insert(peer, index);
        index
    }

    fn remove(&mut self, index: usize) -> Link {
        let link = self.links[index].take().expect("it is there");
        self.by_peer.remove(&link.peer);
        self.last = None;
        self.busy.retain(|&b| b != index);
        self.past.add(link.traffic);
        link
    }

    fn end(&mut self, index: usize, reason: CloseReason) {
        let link = self.remove(index);
        self.events.push_back(Event::Closed(link.peer, reason));
    }

    /// True if the call of this number has not been answered.
    pub(crate) fn is_calling(&self, peer: PeerId, call: u32) -> bool {
        let link = self.by_peer.get(&peer).and_then(|&index| self.links[index].as_ref());
        link.is_some_and(|link| link.out_number == call && !link.is_open())
    }

    /// Calls `peer` over `channel`; tells the number of the call.
    pub(crate) fn connect(&mut self, cl: &mut Endpoint, peer: PeerId, channel: ChannelId) -> u32 {
        self.next_number = self.next_number.wrapping_add(1).max(1);
        let number = self.next_number;
        self.add(Link::new(peer, channel, number, None));
        self.tell(cl, channel, number, Kind::Hello);
        number
    }

    /// Sends a word that is in nobody's order.
    fn tell(&mut self, cl: &mut Endpoint, to: ChannelId, number: u32, kind: Kind) {
        if send_word(cl, to, number, kind, [0; 2]) == Err(cl::Refusal::Backpressure) {
            self.orphans.push((to, number, kind));
        }
    }

    /// Accepts a message for `peer`, to whom there is a link.
    #[inline]
    pub(crate) fn send(&mut self, cl: &mut Endpoint, peer: PeerId, buf: Buf) -> Result<(), SendError> {
        let index = self.find(peer).expect("asked before");
        let link = self.links[index].as_mut().expect("it is there");
        if link.fin_wanted || link.fin_received {
            return Err(SendError { buf, reason: Refusal::NotConnected });
        }
        let len = buf.len();
        if link.is_open() && link.waiting.is_empty() {
            match send_message(cl, link.out, link.out_number, buf) {
                Ok(()) => {
                    link.stalled = false;
                    link.traffic.sent(len as u64);
                    return Ok(());
                }
                Err(error) => {
                    let reason = match error.reason {
                        cl::Refusal::Backpressure => Refusal::Backpressure,
                        cl::Refusal::TooLong => Refusal::TooLong,
                        _ => Refusal::NotConnected,
                    };
                    link.note_refused(reason);
                    return Err(SendError { buf: error.buf, reason });
                }
            }
        }
        let too_much = link.waiting_bytes > 0 && link.waiting_bytes + len > self.waiting_bytes_max;
        if link.waiting.len() >= WAITING_MAX || too_much {
            link.note_refused(Refusal::Backpressure);
            return Err(SendError { buf, reason: Refusal::Backpressure });
        }
        link.stalled = false;
        link.traffic.sent(len as u64);
        link.waiting_bytes += len;
        link.waiting.push_back(Waiting::Message(buf));
        Ok(())
    }

    pub(crate) fn send_large(
        &mut self,
        cl: &mut Endpoint,
        peer: PeerId,
        source: Box<dyn Source>,
    ) -> Result<TransferId, rcl_proto::SendError<Box<dyn Source>>> {
        let index = self.find(peer).expect("asked before");
        let link = self.link(index);
        if link.fin_wanted || link.fin_received {
            return Err(rcl_proto::SendError { buf: source, reason: Refusal::NotConnected });
        }
        if link.outgoing.len() >= TRANSFERS_MAX || link.waiting.len() >= WAITING_MAX {
            return Err(rcl_proto::SendError { buf: source, reason: Refusal::Backpressure });
        }
        let id = link.next_transfer;
        link.next_transfer += 1;
        let len = source.len();
        link.outgoing.insert(id, Outgoing { source, at: 0, flows: false });
        self.say(cl, index, Kind::Announce, [id, len]);
        Ok(TransferId(id))
    }

    /// Sends a word in order.
    fn say(&mut self, cl: &mut Endpoint, index: usize, kind: Kind, numbers: [u64; 2]) {
        self.link(index).waiting.push_back(Waiting::Word(kind, numbers));
        self.pump_link(cl, index);
    }

    fn pump_link(&mut self, cl: &mut Endpoint, index: usize) {
        let done = self.link(index).pump(cl);
        if !done && !self.busy.contains(&index) {
            self.busy.push(index);
        }
        let link = self.link(index);
        if done && link.fin_queued && link.fin_received {
            self.end_for_other(cl, index, CloseReason::Graceful);
        }
    }

    /// Goes on with what did not fit.
    pub(crate) fn pump(&mut self, cl: &mut Endpoint) {
        for (to, number, kind) in std::mem::take(&mut self.orphans) {
            self.tell(cl, to, number, kind);
        }
        for index in std::mem::take(&mut self.busy) {
            if self.links[index].is_some() {
                self.pump_link(cl, index);
            }
        }
    }

    pub(crate) fn accept(&mut self, cl: &mut Endpoint, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        let Some(index) = self.find(peer) else { return };
        let link = self.link(index);
        let Some(len) = link.announced.remove(&id.0) else { return };
        if len == 0 {
            link.traffic.received(0);
            self.events.push_back(Event::Received { from: peer, id, sink });
            self.say(cl, index, Kind::Done, [id.0, 0]);
        } else {
            link.incoming.insert(id.0, Incoming { sink, at: 0, len });
            self.say(cl, index, Kind::Accept, [id.0, 0]);
        }
    }

    pub(crate) fn reject(&mut self, cl: &mut Endpoint, peer: PeerId, id: TransferId) {
        let Some(index) = self.find(peer) else { return };
        if self.link(index).announced.remove(&id.0).is_some() {
            self.say(cl, index, Kind::Reject, [id.0, 0]);
        }
    }

    pub(crate) fn close(&mut self, cl: &mut Endpoint, peer: PeerId) {
        let Some(index) = self.find(peer) else { return };
        self.link(index).fin_wanted = true;
        self.pump_link(cl, index);
    }

    pub(crate) fn abort(&mut self, cl: &mut Endpoint, peer: PeerId, reason: CloseReason) {
        let Some(index) = self.find(peer) else { return };
        let (out, number) = (self.link(index).out, self.link(index).out_number);
        self.end(index, reason);
        self.tell(cl, out, number, Kind::Reset);
    }

    #[inline]
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A channel has closed. If the peer had never answered there, it may be that it shares no memory with us: it
    /// has none of what was accepted for it.
    pub(crate) fn on_closed(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        peer: PeerId,
    ) -> Option<Refused> {
        self.orphans.retain(|(to, ..)| *to != channel);
        let index = self.find(peer)?;
        let link = self.link(index);
        if link.out == channel && !link.is_open() {
            let other = link.other.take().filter(|(open, _)| *open != channel);
            let Some((channel, number)) = other else { return Some(self.give_up(index)) };
            self.take_call(cl, index, channel, number);
            return None;
        }
        link.other = link.other.filter(|(open, _)| *open != channel);
        if link.out == channel || link.from.is_some_and(|(from, _)| from == channel) {
            self.end_for_other(cl, index, CloseReason::Dead);
        }
        None
    }

    /// Ends a connection that never was one.
    fn give_up(&mut self, index: usize) -> Refused {
        let mut link = self.remove(index);
        // The network counts it.
        let Traffic { messages_sent, bytes_sent, .. } = std::mem::take(&mut link.traffic);
        self.past.messages_sent -= messages_sent;
        self.past.bytes_sent -= bytes_sent;
        link.into_refused()
    }

    /// Takes in what has come through a channel. `by_network` says whether there is a connection to the peer
    /// by the network already.
    #[inline]
    pub(crate) fn on_received(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        received: Received,
        by_network: impl FnOnce(PeerId) -> bool,
    ) -> Arrival {
        let Received { from, mut buf, .. } = received;
        if let Some((Kind::Message, number)) = parse(&buf)
            && let Some(index) = self.find(from)
            && self.link(index).from == Some((channel, number))
        {
            buf.advance(WORD_LEN);
            self.link(index).traffic.received(buf.len() as u64);
            return Arrival::Event(Event::Message { from, buf });
        }
        self.on_word(cl, channel, from, &buf, by_network(from))
    }

    fn on_word(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        from: PeerId,
        bytes: &[u8],
        by_network: bool,
    ) -> Arrival {
        let Some((kind, number)) = parse(bytes) else {
            self.stale += 1;
            return Arrival::Nothing;
        };
        if kind == Kind::Hello {
            self.on_call(cl, channel, from, number, by_network);
            return self.poll_event().map_or(Arrival::Nothing, Arrival::Event);
        }
        let Some(index) = self.find(from) else {
            self.stale += 1;
            return Arrival::Nothing;
        };
        let link = self.link(index);
        let of_ours = link.out == channel && link.out_number == number;
        match kind {
            Kind::Welcome if of_ours && !link.is_open() => {
                link.from = Some((channel, number));
                link.is_our_call = true;
                self.pump_link(cl, index);
                return Arrival::Event(Event::Connected(from));
            }
            Kind::Refuse if of_ours && !link.is_open() => match link.other.take() {
                Some((channel, number)) => self.take_call(cl, index, channel, number),
                None => return Arrival::Refused(self.give_up(index)),
            },
            Kind::Reset if link.other == Some((channel, number)) => link.other = None,
            _ if link.from != Some((channel, number)) => {
                self.stale += 1;
                return Arrival::Nothing;
            }
            Kind::Reset => self.end_for_other(cl, index, CloseReason::Reset),
            Kind::Fin => {
                link.fin_received = true;
                link.fin_wanted = true;
                self.pump_link(cl, index);
            }
            _ => {
                if !self.on_transfer(cl, index, kind, &bytes[WORD_LEN..]) {
                    self.abort(cl, from, CloseReason::Violation);
                }
            }
        }
        self.poll_event().map_or(Arrival::Nothing, Arrival::Event)
    }

    fn on_call(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        from: PeerId,
        number: u32,
        by_network: bool,
    ) {
        if let Some(index) = self.find(from) {
            let link = self.link(index);
            if (!link.is_open() || link.is_our_call) && cl.me() < from {
                // Both have called at once, and our call counts. The answer to it may have overtaken the peer's call.
                link.other = Some((channel, number));
                return;
            }
            if !link.is_open() {
                let (out, call) = (link.out, link.out_number);
                self.tell(cl, out, call, Kind::Reset);
                self.take_call(cl, index, channel, number);
                return;
            }
            if link.from == Some((channel, number)) {
                self.stale += 1;
                return;
            }
            self.end(index, CloseReason::Restarted);
        }
        if by_network {
            self.tell(cl, channel, number, Kind::Refuse);
            return;
        }
        self.be_called(cl, from, channel, number);
    }

    /// Ends a connection; a call of the peer that was not taken back is the next one.
    fn end_for_other(&mut self, cl: &mut Endpoint, index: usize, reason: CloseReason) {
        let (peer, other) = (self.link(index).peer, self.link(index).other);
        self.end(index, reason);
        if let Some((channel, number)) = other {
            self.be_called(cl, peer, channel, number);
        }
    }

    /// The peer's call is a new connection.
    fn be_called(&mut self, cl: &mut Endpoint, peer: PeerId, channel: ChannelId, number: u32) {
        let index = self.add(Link::new(peer, channel, number, None));
        self.take_call(cl, index, channel, number);
    }

    /// The peer's call is the connection, whatever ours was.
    fn take_call(&mut self, cl: &mut Endpoint, index: usize, channel: ChannelId, number: u32) {
        let link = self.link(index);
        let peer = link.peer;
        (link.out, link.out_number, link.from) = (channel, number, Some((channel, number)));
        link.is_our_call = false;
        self.tell(cl, channel, number, Kind::Welcome);
        self.events.push_back(Event::Connected(peer));
        self.pump_link(cl, index);
    }

    /// A word about a transfer. False if it is against the rules.
    fn on_transfer(&mut self, cl: &mut Endpoint, index: usize, kind: Kind, body: &[u8]) -> bool {
        let link = self.links[index].as_mut().expect("it is there");
        let (peer, id) = (link.peer, u64_at(body, 0));
        let name = TransferId(id);
        match kind {
            Kind::Announce => {
                let len = u64_at(body, 8);
                let many = link.announced.len() + link.incoming.len() >= TRANSFERS_MAX;
                if many || link.incoming.contains_key(&id) || link.announced.insert(id, len).is_some() {
                    return false;
                }
                self.events.push_back(Event::Announced { from: peer, id: name, len });
            }
            Kind::Accept => {
                let Some(transfer) = link.outgoing.get_mut(&id) else { return false };
                if transfer.flows || transfer.at > 0 || transfer.source.is_empty() {
                    return false;
                }
                transfer.flows = true;
                self.pump_link(cl, index);
            }
            Kind::Reject => {
                if link.outgoing.remove(&id).is_none() {
                    return false;
                }
                self.events.push_back(Event::Rejected { by: peer, id: name });
                self.pump_link(cl, index);
            }
            Kind::Done => {
                let Some(done) = link.outgoing.remove(&id).filter(|t| t.at >= t.source.len()) else {
                    return false;
                };
                link.traffic.sent(done.source.len());
                self.events.push_back(Event::Sent { to: peer, id: name });
                self.pump_link(cl, index);
            }
            Kind::Chunk => {
                let (at, bytes) = (u64_at(body, 8), &body[16..]);
                let Some(incoming) = link.incoming.get_mut(&id) else { return false };
                if at != incoming.at || bytes.len() as u64 > incoming.len - at {
                    return false;
                }
                incoming.sink.place(at, bytes.len()).copy_from_slice(bytes);
                incoming.at += bytes.len() as u64;
                if incoming.at == incoming.len {
                    let done = link.incoming.remove(&id).expect("just seen");
                    link.traffic.received(done.len);
                    self.events.push_back(Event::Received { from: peer, id: name, sink: done.sink });
                    self.say(cl, index, Kind::Done, [id, 0]);
                }
            }
            _ => return false,
        }
        true
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("peers", &self.by_peer.len()).finish_non_exhaustive()
    }
}
