//! Receiving: matching, buffers for many messages, probing.

use super::transfer::Place;
use super::{Begun, Engine, Shared};
use crate::abi::{
    FI_ADDR_UNSPEC, FI_CLAIM, FI_COMPLETION, FI_DISCARD, FI_ECANCELED, FI_EINVAL, FI_EIO, FI_ENOMSG,
    FI_ETRUNC, FI_MSG, FI_MULTI_RECV, FI_RECV, FI_REMOTE_CQ_DATA, FI_TAGGED,
};
use crate::matching::{ReceiveId, Wanted};
use crate::memory::{Area, Pieces, pull};
use crate::queues::Completion;
use crate::wire::{ACK, DATA, Head, Kind, Offer, PULL, TAGGED};
use cl::Buf;
use rcl::{Sink, TransferId};
use std::any::Any;
use std::ffi::c_int;

/// A buffer for many messages is given back when it has less room than this, unless the application sets it.
pub(super) const MIN_MULTI_RECV_DEFAULT: usize = 64;
/// Waiting messages that stay in the buffers they came in; those of further ones are copied, so that messages which
/// nobody receives do not use up the pool.
const BUFFERS_KEPT_MAX: usize = 256;
/// Longer ones are copied anyway: there are few buffers of their size.
const KEPT_LEN_MAX: usize = 2 << 10;

/// A receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming {
    pub(crate) area: Area,
    pub(crate) context: usize,
    pub(crate) flags: u64,
    /// The buffer for many messages that it is, or is a part of.
    multi: Option<usize>,
}

impl Incoming {
    pub(crate) fn new(area: Area, context: usize, flags: u64) -> Incoming {
        Incoming { area, context, flags, multi: None }
    }
}

/// A buffer that receives one message behind the other.
pub(super) struct Multi {
    used: usize,
    /// Messages that are being received.
    pending: usize,
    /// It takes no more.
    is_full: bool,
}

/// What a message is, beside its contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    source: u32,
    tagged: bool,
    tag: u64,
    data: Option<u64>,
    /// The sender's number, if it waits for the end.
    operation: Option<u32>,
    len: u64,
}

impl Arrival {
    fn new(source: u32, head: Head, len: u64) -> Arrival {
        let data = head.has(DATA).then_some(head.data);
        let operation = (head.has(ACK) || head.kind == Kind::Offer).then_some(head.operation);
        Arrival { source, tagged: head.has(TAGGED), tag: head.tag, data, operation, len }
    }
}

pub(super) enum Contents {
    Buffer(Buf),
    Copied(Vec<u8>),
    /// In the sender's memory.
    There(Pieces),
    /// Announced, or about to be: the number of the taking.
    Announced(usize),
    /// It went with its sender.
    Lost(c_int),
}

/// A message for which there was no receive.
pub(super) struct Waiting {
    arrival: Arrival,
    contents: Contents,
}

/// What comes in as an announced transfer.
pub(super) struct Taking {
    peer: u32,
    len: u64,
    transfer: Option<TransferId>,
    purpose: Purpose,
}

/// What a transfer is for.
pub(super) enum Purpose {
    /// A message that waits.
    Undecided,
    Receive(Incoming, Arrival),
    /// Nobody wants it.
    Nothing,
    /// The operation of ours that asked for it.
    Read(u32),
    /// Memory of a region. The peer is told by the end of the transfer.
    Region(Area),
}

/// What a probe is for: the flags of the operation beside `FI_PEEK`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) context: usize,
    pub(crate) flags: u64,
}

fn index(tagged: bool) -> usize {
    usize::from(tagged)
}

impl Engine {
    fn wanted(&mut self, shared: &Shared, source: u64, tag: u64, ignore: u64) -> Result<Wanted, c_int> {
        let source = match source {
            FI_ADDR_UNSPEC => None,
            _ if !self.directed => None,
            number => Some(self.route(shared, number)?),
        };
        Ok(Wanted { source, tag, ignore })
    }

    /// Posts a receive of a message with a tag, or without one (`tag` is `None`).
    ///
    /// # Errors
    /// libfabric's number.
    pub(crate) fn receive(
        &mut self,
        shared: &mut Shared,
        source: u64,
        tag: Option<(u64, u64)>,
        mut incoming: Incoming,
    ) -> Begun {
        let (value, ignore) = tag.unwrap_or((0, 0));
        let wanted = self.wanted(shared, source, value, ignore)?;
        let of = index(tag.is_some());
        if incoming.flags & FI_MULTI_RECV != 0 {
            if tag.is_some() {
                return Err(FI_EINVAL);
            }
            let multi = self.multis.insert(Multi { used: 0, pending: 0, is_full: false });
            incoming.multi = Some(multi);
            while let Some(id) = self.matching[of].find(&wanted) {
                let (_, _, waiting) = self.matching[of].take(id);
                let (part, is_full) = self.part_of(multi, incoming, waiting.arrival.len);
                self.deliver(shared, part, waiting);
                if is_full {
                    return Ok(());
                }
            }
        } else if let Some(id) = self.matching[of].find(&wanted) {
            let (_, _, waiting) = self.matching[of].take(id);
            self.deliver(shared, incoming, waiting);
            return Ok(());
        }
        self.matching[of].post(wanted, incoming);
        Ok(())
    }

    /// The room for a message of `len` bytes in a buffer for many, and whether that was its last.
    fn part_of(&mut self, multi: usize, whole: Incoming, len: u64) -> (Incoming, bool) {
        let state = &mut self.multis[multi];
        let area = whole.area.part(state.used, usize::try_from(len).unwrap_or(usize::MAX));
        state.used += area.len();
        state.pending += 1;
        state.is_full = whole.area.len() - state.used < self.min_multi_recv.max(1);
        (Incoming { area, ..whole }, state.is_full)
    }

    /// Takes the receive that a message goes into, or a part of it.
    fn take_receive(&mut self, of: usize, id: ReceiveId, len: u64) -> Incoming {
        let incoming = *self.matching[of].receive(id);
        let Some(multi) = incoming.multi else { return self.matching[of].remove(id) };
        let (part, is_full) = self.part_of(multi, incoming, len);
        if is_full {
            self.matching[of].remove(id);
        }
        part
    }

    /// A message has arrived whole; `buf` is without its head.
    #[inline]
    pub(super) fn on_arrival(&mut self, shared: &mut Shared, source: u32, head: Head, buf: Buf) {
        let arrival = Arrival::new(source, head, buf.len() as u64);
        let of = index(arrival.tagged);
        if let Some(id) = self.matching[of].receive_for(source, arrival.tag) {
            let mut incoming = self.take_receive(of, id, arrival.len);
            incoming.area.write(&buf);
            drop(buf);
            self.finish(shared, incoming, arrival, 0);
        } else {
            let keeps = self.buffers_kept < BUFFERS_KEPT_MAX && buf.len() <= KEPT_LEN_MAX;
            let contents = if keeps { Contents::Buffer(buf) } else { Contents::Copied(buf.to_vec()) };
            self.buffers_kept += usize::from(keeps);
            let (tag, operation) = (arrival.tag, arrival.operation);
            // Delivered to this endpoint, which keeps it for the application.
            let arrival = Arrival { operation: None, ..arrival };
            self.matching[of].keep(source, tag, Waiting { arrival, contents });
            if let Some(operation) = operation {
                self.say_done(source, operation, 0);
            }
        }
    }

    /// A message is offered that lies in the sender's memory, or is announced next. False if that makes no sense.
    pub(super) fn on_offer(&mut self, shared: &mut Shared, source: u32, head: Head, body: &[u8]) -> bool {
        let Some(offer) = Offer::parse(body) else { return false };
        let arrival = Arrival::new(source, head, offer.len);
        let Some(contents) = self.contents_of(source, head, offer) else { return false };
        let of = index(arrival.tagged);
        let waiting = Waiting { arrival, contents };
        match self.matching[of].receive_for(source, arrival.tag) {
            Some(id) => {
                let incoming = self.take_receive(of, id, arrival.len);
                self.deliver(shared, incoming, waiting);
            }
            None => self.matching[of].keep(source, arrival.tag, waiting),
        }
        true
    }

    /// What an offer offers; `None` if it offers what cannot be had.
    pub(super) fn contents_of(&mut self, peer: u32, head: Head, offer: Offer) -> Option<Contents> {
        if head.has(PULL) {
            let known = &self.peers[peer as usize];
            return (known.process.is_some() && offer.pieces.len() == Some(offer.len))
                .then_some(Contents::There(offer.pieces));
        }
        Some(Contents::Announced(self.expect(peer, offer.len, Purpose::Undecided)))
    }

    /// Expects that a peer announces `len` bytes next.
    pub(super) fn expect(&mut self, peer: u32, len: u64, purpose: Purpose) -> usize {
        let taking = self.takings.insert(Taking { peer, len, transfer: None, purpose });
        self.peers[peer as usize].awaited.push_back(taking);
        taking
    }

    /// Puts a message into the receive it goes into, or begins to.
    fn deliver(&mut self, shared: &mut Shared, mut incoming: Incoming, waiting: Waiting) {
        let Waiting { arrival, contents } = waiting;
        let error = match contents {
            Contents::Buffer(buf) => {
                self.buffers_kept -= 1;
                incoming.area.write(&buf);
                0
            }
            Contents::Copied(bytes) => {
                incoming.area.write(&bytes);
                0
            }
            Contents::There(pieces) => {
                let process = self.peers[arrival.source as usize].process.unwrap_or(0);
                pull(process, &pieces, &incoming.area).map_or(FI_EIO, |()| 0)
            }
            Contents::Announced(taking) => {
                return self.take_into(taking, Purpose::Receive(incoming, arrival));
            }
            Contents::Lost(error) => error,
        };
        self.finish(shared, incoming, arrival, error);
    }

    /// Says what an announced transfer is for; it is accepted now or when its announcement comes.
    pub(super) fn take_into(&mut self, taking: usize, purpose: Purpose) {
        self.takings[taking].purpose = purpose;
        if self.takings[taking].transfer.is_some() {
            self.accept(taking);
        }
    }

    fn accept(&mut self, number: usize) {
        let taking = &self.takings[number];
        let Some(transfer) = taking.transfer else { return };
        let area = match &taking.purpose {
            Purpose::Undecided => return,
            Purpose::Receive(incoming, _) => incoming.area,
            Purpose::Region(area) => *area,
            Purpose::Read(operation) => match self.sendings.get(*operation as usize) {
                Some(sending) => sending.area,
                None => return,
            },
            Purpose::Nothing => {
                let Taking { peer, .. } = self.takings.remove(number);
                let known = &mut self.peers[peer as usize];
                known.takings.remove(&transfer.0);
                return self.net.reject(known.id, transfer);
            }
        };
        let id = self.peers[taking.peer as usize].id;
        self.net.accept(id, transfer, Box::new(Place::new(area)));
    }

    pub(super) fn on_announced(&mut self, peer: u32, transfer: TransferId, len: u64) {
        let known = &mut self.peers[peer as usize];
        let expected = known.awaited.pop_front();
        match expected.filter(|&taking| self.takings.get(taking).is_some_and(|t| t.len == len)) {
            Some(taking) => {
                known.takings.insert(transfer.0, taking);
                self.takings[taking].transfer = Some(transfer);
                self.accept(taking);
            }
            None => {
                self.refused.stray += 1;
                self.give_up(peer);
            }
        }
    }

    pub(super) fn on_transferred(
        &mut self,
        shared: &mut Shared,
        peer: u32,
        transfer: TransferId,
        sink: Box<dyn Sink>,
    ) {
        if let Ok(mut place) = (sink as Box<dyn Any>).downcast::<Place>() {
            place.settle();
        }
        let Some(taking) = self.peers[peer as usize].takings.remove(&transfer.0) else { return };
        match self.takings.remove(taking).purpose {
            // The sender learns of the end from the transfer itself.
            Purpose::Receive(incoming, arrival) => {
                self.finish(shared, incoming, Arrival { operation: None, ..arrival }, 0);
            }
            Purpose::Read(operation) => self.on_done(shared, peer, operation, 0),
            Purpose::Region(_) | Purpose::Undecided | Purpose::Nothing => {}
        }
    }

    /// Tells the application of a message, and the sender if it waits for that.
    fn finish(&mut self, shared: &mut Shared, incoming: Incoming, arrival: Arrival, error: c_int) {
        let kind = if arrival.tagged { FI_TAGGED } else { FI_MSG };
        let with_data = if arrival.data.is_some() { FI_REMOTE_CQ_DATA } else { 0 };
        let mut completion = Completion::new(incoming.context, FI_RECV | kind | with_data);
        let len = usize::try_from(arrival.len).unwrap_or(usize::MAX);
        completion.len = len.min(incoming.area.len());
        completion.lost = len - completion.len;
        completion.error = match error {
            0 if completion.lost > 0 => FI_ETRUNC,
            error => error,
        };
        completion.buf = incoming.area.addr();
        completion.data = arrival.data.unwrap_or(0);
        completion.tag = arrival.tag;
        completion.source = Some(self.peers[arrival.source as usize].id);
        let mut asked = incoming.flags & FI_COMPLETION != 0;
        if let Some(multi) = incoming.multi
            && let Some(state) = self.multis.get_mut(multi)
        {
            state.pending -= 1;
            if state.is_full && state.pending == 0 {
                self.multis.remove(multi);
                completion.flags |= FI_MULTI_RECV;
                asked = true;
            }
        }
        shared.queues.complete(self.bindings.receive, asked, completion);
        if let Some(operation) = arrival.operation {
            self.say_done(arrival.source, operation, error);
        }
    }

    pub(super) fn say_done(&mut self, peer: u32, operation: u32, error: c_int) {
        let mut head = Head::new(Kind::Done, operation);
        head.tag = error as u64;
        self.say(peer, head, 0, |_| {});
    }

    /// Looks for a message that waits, tells what it is, and keeps it aside or throws it away if so asked.
    ///
    /// # Errors
    /// libfabric's number.
    pub(crate) fn probe(
        &mut self,
        shared: &mut Shared,
        source: u64,
        tag: Option<(u64, u64)>,
        probe: Probe,
    ) -> Begun {
        // Who probes again and again finds each time an answer in the queue, and nobody else looks at the network.
        self.progress(shared);
        let (value, ignore) = tag.unwrap_or((0, 0));
        let wanted = self.wanted(shared, source, value, ignore)?;
        let of = index(tag.is_some());
        let kind = if tag.is_some() { FI_TAGGED } else { FI_MSG };
        let mut completion = Completion::new(probe.context, FI_RECV | kind);
        match self.matching[of].find(&wanted) {
            None => completion.error = FI_ENOMSG,
            Some(id) => {
                let (source, tag, waiting) = self.matching[of].message(id);
                completion.flags |= if waiting.arrival.data.is_some() { FI_REMOTE_CQ_DATA } else { 0 };
                completion.len = usize::try_from(waiting.arrival.len).unwrap_or(usize::MAX);
                completion.data = waiting.arrival.data.unwrap_or(0);
                completion.tag = tag;
                completion.source = Some(self.peers[source as usize].id);
                if probe.flags & (FI_CLAIM | FI_DISCARD) != 0 {
                    let (_, _, waiting) = self.matching[of].take(id);
                    if probe.flags & FI_DISCARD != 0 {
                        self.discard(waiting);
                    } else {
                        self.claimed.insert(probe.context, waiting);
                    }
                }
            }
        }
        let asked = probe.flags & FI_COMPLETION != 0;
        shared.queues.complete(self.bindings.receive, asked, completion);
        Ok(())
    }

    /// Receives the message that a probe with the same context has kept aside, or throws it away.
    ///
    /// # Errors
    /// `FI_EINVAL` if there is none.
    pub(crate) fn claim(&mut self, shared: &mut Shared, incoming: Incoming) -> Begun {
        let waiting = self.claimed.remove(&incoming.context).ok_or(FI_EINVAL)?;
        if incoming.flags & FI_DISCARD != 0 {
            let kind = if waiting.arrival.tagged { FI_TAGGED } else { FI_MSG };
            self.discard(waiting);
            let completion = Completion::new(incoming.context, FI_RECV | kind);
            shared.queues.complete(self.bindings.receive, incoming.flags & FI_COMPLETION != 0, completion);
        } else {
            self.deliver(shared, incoming, waiting);
        }
        Ok(())
    }

    fn discard(&mut self, waiting: Waiting) {
        let Waiting { arrival, contents } = waiting;
        match contents {
            Contents::Buffer(_) => self.buffers_kept -= 1,
            Contents::Copied(_) | Contents::Lost(_) => {}
            Contents::There(_) => {
                if let Some(operation) = arrival.operation {
                    self.say_done(arrival.source, operation, 0);
                }
            }
            Contents::Announced(taking) => self.take_into(taking, Purpose::Nothing),
        }
    }

    /// Cancels the receive of that context, if it is posted still.
    pub(crate) fn cancel(&mut self, shared: &mut Shared, context: usize) {
        for of in [1, 0] {
            if let Some(id) = self.matching[of].search(|_, incoming| incoming.context == context) {
                return self.fail_receive(shared, of, id, FI_ECANCELED);
            }
        }
    }

    fn fail_receive(&mut self, shared: &mut Shared, of: usize, id: ReceiveId, error: c_int) {
        let incoming = self.matching[of].remove(id);
        let kind = if of == index(true) { FI_TAGGED } else { FI_MSG };
        let mut completion = Completion::new(incoming.context, FI_RECV | kind);
        completion.error = error;
        if let Some(multi) = incoming.multi {
            // Messages that are being received still complete; the buffer is given back with this.
            completion.flags |= FI_MULTI_RECV;
            self.multis.remove(multi);
        }
        shared.queues.complete(self.bindings.receive, true, completion);
    }

    /// What a peer was to send does not come. `for_ever`: nor does anything else of it.
    pub(super) fn fail_receives(&mut self, shared: &mut Shared, peer: u32, error: c_int, for_ever: bool) {
        for of in [0, 1] {
            for (source, waiting) in self.matching[of].messages_mut() {
                if source == peer && matches!(waiting.contents, Contents::There(_) | Contents::Announced(_)) {
                    waiting.contents = Contents::Lost(error);
                    waiting.arrival.operation = None;
                }
            }
        }
        for waiting in self.claimed.values_mut() {
            let gone = matches!(waiting.contents, Contents::There(_) | Contents::Announced(_));
            if waiting.arrival.source == peer && gone {
                waiting.contents = Contents::Lost(error);
                waiting.arrival.operation = None;
            }
        }
        let gone: Vec<usize> =
            self.takings.iter().filter(|(_, taking)| taking.peer == peer).map(|(number, _)| number).collect();
        for number in gone {
            if let Purpose::Receive(incoming, arrival) = self.takings.remove(number).purpose {
                self.finish(shared, incoming, Arrival { operation: None, ..arrival }, error);
            }
        }
        for of in [0, 1] {
            while for_ever && let Some(id) = self.matching[of].search(|wanted, _| wanted.source == Some(peer))
            {
                self.fail_receive(shared, of, id, error);
            }
        }
    }
}
