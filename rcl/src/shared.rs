//! Connections over shared memory, which is reliable and ordered by itself: one word in front of a message,
//! and nothing else. No sequence, no acknowledgement, no timer, no checksum; a full ring is what stops the
//! sender, and the end of the channel tells of a dead peer.
//!
//! If both have called at once, the call of the party with the lower name counts, unless it is refused. There may be two
//! channels between two parties, and what comes through one may overtake what comes through the other.

mod calls;
mod link;
mod transfers;
mod word;

use crate::{Event, SendError};
use cl::for_rcl::ChannelId;
use cl::{Buf, Endpoint, Received};
use cl_base::PeerId;
pub(crate) use link::{Accepted, Refused, Traffic};
use link::{Link, Waiting, send_message, send_word};
use rcl_proto::{CloseReason, Refusal, Sizes};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;
use word::{Kind, WORD_LEN, parse};

/// Messages that wait until the peer has answered the call; what comes after that is put into the ring. Fewer
/// than the protocol of the network takes at once, which may get them in the end.
const WAITING_MAX: usize = 256;

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
    /// Calls of peers that have not been told to the application because it has not heard yet of the end of the
    /// connection before: one of each peer. What it says until then is for that one.
    successors: FxHashMap<PeerId, (ChannelId, u32)>,
    /// Peers that have successors of whose predecessors' ends the application has heard.
    succeeding: Vec<PeerId>,
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
            successors: FxHashMap::default(),
            succeeding: Vec::new(),
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
        !self.busy.is_empty() || !self.orphans.is_empty() || !self.succeeding.is_empty()
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

    /// Goes on with what did not fit, and with calls that had to wait. `by_network` says whether there is a connection
    /// to a peer by the network.
    pub(crate) fn pump(&mut self, cl: &mut Endpoint, by_network: impl Fn(PeerId) -> bool) {
        for peer in std::mem::take(&mut self.succeeding) {
            if let Some((channel, number)) = self.successors.remove(&peer) {
                self.on_call(cl, channel, peer, number, by_network(peer));
            }
        }
        for (to, number, kind) in std::mem::take(&mut self.orphans) {
            self.tell(cl, to, number, kind);
        }
        for index in std::mem::take(&mut self.busy) {
            if self.links[index].is_some() {
                self.pump_link(cl, index);
            }
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
        let event = self.events.pop_front();
        if let Some(Event::Closed(peer, _)) = event
            && self.successors.contains_key(&peer)
        {
            self.succeeding.push(peer);
        }
        event
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
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
        if kind == Kind::Reset && self.successors.get(&from) == Some(&(channel, number)) {
            self.successors.remove(&from);
            return Arrival::Nothing;
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
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("peers", &self.by_peer.len()).finish_non_exhaustive()
    }
}
