//! The part of an endpoint that cuts messages into datagrams, packs small ones together, and puts what
//! arrives together again.

mod each;

use crate::clock::Clock;
use crate::counters::{Reason, Tally};
use crate::header::{Form, Geometry, HEADER_LEN, HeaderError, Repr};
use crate::message::{Received, Refusal, SendError};
use crate::pool::{Buf, Pool};
use crate::reassembly::{Outcome, Reassembly, TIMEOUT};
use crate::transport::{self, Recv, Transport};
use cl_base::{PeerId, Time};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// Messages that wait for the transport to take them before `send` reports back-pressure. Enough to ride out
/// a full socket buffer; a longer queue would only hide that the network is slower than the sender.
pub(super) const BACKLOG_MAX: usize = 64;
/// Datagrams that one call may refuse or put to others before it lets the caller go on.
const DATAGRAMS_PER_POLL: usize = 256;
/// The longest message that is packed together with others. Copying it costs less than a datagram of its own.
const PACKED_LEN_MAX: usize = 2048;
/// The most parts one datagram may be gathered from: a header of the layer above, and contents in two
/// pieces if need be.
pub(crate) const PARTS_MAX: usize = 3;
/// So many bytes are sent faster from the pages they are in than by copying them: over loopback 60 KiB take a third
/// less, half of it gains little.
const LENT_LEN_MIN: usize = 32 << 10;
/// Fragments offered to the transport at once; it may take them in one system call.
const RUN_MAX: usize = 64;

/// How a look for datagrams ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There may be more.
    More,
    /// Nothing was left.
    Empty,
    /// There was no buffer to receive into.
    Starved,
}

/// A message of which a part has not been taken by the transport yet.
struct Outgoing {
    to: PeerId,
    addr: SocketAddr,
    buf: Buf,
    message: u32,
    geometry: Geometry,
    form: Form,
    next: u16,
}

/// Small messages to one destination that wait to travel together.
struct Pack {
    to: PeerId,
    addr: SocketAddr,
    /// One message as it is, or one or several each behind its length (`prefixed`).
    buf: Buf,
    count: usize,
    prefixed: bool,
}

/// Messages that have come together in a datagram, less those handed up.
struct Unpacking {
    from: PeerId,
    addr: SocketAddr,
    buf: Buf,
}

pub(super) struct Network {
    me: PeerId,
    mtu: usize,
    pool: Pool,
    clock: Clock,
    pub(super) transport: Box<dyn Transport>,
    next_message: u32,
    pack: Option<Pack>,
    backlog: VecDeque<Outgoing>,
    unpacking: Option<Unpacking>,
    reassembly: Reassembly,
    next_expiry: Time,
    pub(super) ended: Ended,
}

impl Network {
    pub(super) fn new(
        me: PeerId,
        mtu: usize,
        pool: Pool,
        clock: Clock,
        transport: Box<dyn Transport>,
    ) -> Network {
        Network {
            me,
            mtu,
            pool,
            transport,
            // Not 0: after a restart the fragments of a former life must not meet those of this one.
            next_message: clock.now().as_nanos() as u32,
            clock,
            pack: None,
            backlog: VecDeque::new(),
            unpacking: None,
            reassembly: Reassembly::default(),
            next_expiry: Time::MAX,
            ended: Ended::More,
        }
    }

    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    pub(super) fn unfragmented_len_max(&self) -> usize {
        self.mtu - HEADER_LEN
    }

    /// When to be polled though nothing arrives.
    pub(super) fn deadline(&self) -> Time {
        self.next_expiry.min(self.transport.deadline())
    }

    /// Messages that wait for the transport to take them.
    pub(super) fn backlog_len(&self) -> usize {
        self.backlog.len() + self.pack.as_ref().map_or(0, |pack| pack.count)
    }

    /// True if something waits for the transport to take it.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || self.pack.is_some()
    }

    /// Sends a message now, if the transport takes it.
    pub(super) fn send(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        buf: Buf,
        tally: &mut Tally,
    ) -> Result<(), SendError> {
        let refused = |buf, reason| Err(SendError { buf, reason });
        let Some(geometry) = Geometry::for_message(buf.len(), self.unfragmented_len_max()) else {
            return refused(buf, Refusal::TooLong);
        };
        if self.has_backlog() {
            self.flush(tally);
            if self.backlog.len() >= BACKLOG_MAX {
                return refused(buf, Refusal::Backpressure);
            }
        }
        let outgoing = self.outgoing(to, addr, buf, geometry, Form::Plain);
        match self.dispatch(outgoing, tally) {
            Ok(()) => Ok(()),
            Err((buf, kind)) => refused(buf, Refusal::System(kind)),
        }
    }

    /// Accepts a message that may wait until [`Network::flush`], for others to travel with it.
    pub(super) fn queue(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        buf: Buf,
        tally: &mut Tally,
    ) -> Result<(), SendError> {
        if buf.len() > PACKED_LEN_MAX || !self.backlog.is_empty() {
            return self.send(to, addr, buf, tally);
        }
        if !self.joins_pack(to, addr, &buf, tally) {
            self.pack = Some(Pack { to, addr, buf, count: 1, prefixed: false });
        }
        Ok(())
    }

    /// Adds a message to the pack that waits. If it does not go with that, the pack is sent and there is none.
    #[inline]
    fn joins_pack(&mut self, to: PeerId, addr: SocketAddr, message: &[u8], tally: &mut Tally) -> bool {
        let len_max = self.unfragmented_len_max();
        let Some(pack) = &mut self.pack else { return false };
        let joined = (pack.to, pack.addr) == (to, addr) && pack.add(message, len_max, &self.pool);
        if !joined {
            self.flush(tally);
        }
        joined
    }

    /// As [`Network::queue`], for a copy of `contents`.
    pub(super) fn queue_copy(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        contents: &[u8],
        tally: &mut Tally,
    ) -> Result<(), Refusal> {
        if contents.len() <= PACKED_LEN_MAX && self.backlog.is_empty() {
            if self.joins_pack(to, addr, contents, tally) {
                return Ok(());
            }
            if let Ok(mut buf) = self.pool.alloc(self.unfragmented_len_max()) {
                append_packed(&mut buf, contents);
                self.pack = Some(Pack { to, addr, buf, count: 1, prefixed: true });
                return Ok(());
            }
        }
        let mut buf = self.pool.alloc(contents.len()).map_err(|_| Refusal::Backpressure)?;
        buf.extend_from_slice(contents);
        tally.copied_to(to, 1);
        self.queue(to, addr, buf, tally).map_err(|error| error.reason)
    }

    /// Sends what waits, as far as the transport takes it.
    pub(super) fn flush(&mut self, tally: &mut Tally) {
        while let Some(mut outgoing) = self.backlog.pop_front() {
            match self.transmit(&mut outgoing, tally) {
                Ok(true) => {}
                Ok(false) => {
                    self.backlog.push_front(outgoing);
                    break;
                }
                // It was accepted, and it is lost: as messages may be. The counter tells.
                Err(_) => tally.dropped(outgoing.to, Reason::SendFailed),
            }
        }
        if let Some(Pack { to, addr, mut buf, count, prefixed }) = self.pack.take() {
            if prefixed {
                // Once for all of them, because a peer's counters are looked up.
                tally.copied_to(to, count);
            }
            let form = if count == 1 { Form::Plain } else { Form::Packed };
            if count == 1 && prefixed {
                buf.advance(PACKED_PREFIX);
            }
            let geometry = Geometry::for_message(buf.len(), self.unfragmented_len_max());
            let geometry = geometry.expect("a pack fits into a datagram");
            let outgoing = self.outgoing(to, addr, buf, geometry, form);
            if self.dispatch(outgoing, tally).is_err() {
                tally.dropped(to, Reason::SendFailed);
            }
        }
    }

    /// See [`crate::for_rcl::transmit`].
    pub(super) fn transmit_parts(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        parts: &[IoSlice<'_>],
        lasting: bool,
        tally: &mut Tally,
    ) -> Result<(), Refusal> {
        assert!(parts.len() <= PARTS_MAX, "{} parts", parts.len());
        let len = parts.iter().map(|p| p.len()).sum::<usize>();
        let Some(geometry) =
            Geometry::for_message(len, self.unfragmented_len_max()).filter(|g| g.count() == 1)
        else {
            return Err(Refusal::TooLong);
        };
        let header = self.header(to, self.next_message, geometry, Form::Plain, 0);
        let mut all = [IoSlice::new(&[]); PARTS_MAX + 1];
        all[0] = IoSlice::new(&header);
        all[1..=parts.len()].copy_from_slice(parts);
        let all = &all[..=parts.len()];
        let lent = match parts.last() {
            Some(last) if lasting && last.len() >= LENT_LEN_MIN => self.pool.lend_pages(last),
            _ => None,
        };
        let sent = match lent {
            Some((file, at)) => self.transport.send_from(addr, all, file, at),
            None => self.transport.send(addr, all).map(|()| false),
        };
        match sent {
            Ok(uncopied) => {
                self.next_message = self.next_message.wrapping_add(1);
                tally.stats.datagrams_sent += 1;
                tally.stats.datagrams_lent += u64::from(uncopied);
                tally.stats.bytes_sent += len as u64;
                Ok(())
            }
            Err(error) if transport::is_transient(&error) => Err(Refusal::Backpressure),
            Err(error) => Err(Refusal::System(error.kind())),
        }
    }

    fn header(
        &self,
        to: PeerId,
        message: u32,
        geometry: Geometry,
        form: Form,
        index: u16,
    ) -> [u8; HEADER_LEN] {
        Repr { source: self.me, destination: to, message, geometry, form, index }.to_bytes()
    }

    fn outgoing(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        buf: Buf,
        geometry: Geometry,
        form: Form,
    ) -> Outgoing {
        let message = self.next_message;
        self.next_message = message.wrapping_add(1);
        Outgoing { to, addr, buf, message, geometry, form, next: 0 }
    }

    /// Sends it, or the part that the transport takes; the rest waits. An error hands the contents back.
    fn dispatch(&mut self, mut outgoing: Outgoing, tally: &mut Tally) -> Result<(), (Buf, io::ErrorKind)> {
        let progress = if self.backlog.is_empty() { self.transmit(&mut outgoing, tally) } else { Ok(false) };
        match progress {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.backlog.push_back(outgoing);
                Ok(())
            }
            Err(kind) => Err((outgoing.buf, kind)),
        }
    }

    /// Sends fragments until none is left (true) or the transport takes no more (false).
    fn transmit(&mut self, outgoing: &mut Outgoing, tally: &mut Tally) -> Result<bool, io::ErrorKind> {
        if outgoing.geometry.count() == 1 && outgoing.buf.headroom() >= HEADER_LEN {
            return self.transmit_whole(outgoing, tally);
        }
        let Outgoing { to, addr, ref buf, message, geometry, form, .. } = *outgoing;
        while outgoing.next < geometry.count() {
            let first = outgoing.next;
            let run = usize::from(geometry.count() - first).min(RUN_MAX);
            let mut headers = [[0; HEADER_LEN]; RUN_MAX];
            for (index, header) in (first..).zip(&mut headers[..run]) {
                *header = self.header(to, message, geometry, form, index);
            }
            let mut datagrams = [[IoSlice::new(&[]), IoSlice::new(&[])]; RUN_MAX];
            for ((index, header), datagram) in (first..).zip(&headers[..run]).zip(&mut datagrams) {
                *datagram = [IoSlice::new(header), IoSlice::new(&buf[geometry.range(index)])];
            }
            match self.transport.send_run(addr, &datagrams[..run]) {
                Ok(taken) => {
                    outgoing.next += taken as u16;
                    tally.stats.datagrams_sent += taken as u64;
                    let bytes = datagrams[..taken].iter().map(|d| d[1].len() as u64);
                    tally.stats.bytes_sent += bytes.sum::<u64>();
                }
                Err(error) if transport::is_transient(&error) => return Ok(false),
                Err(error) if first == 0 => return Err(error.kind()),
                Err(_) => {
                    tally.dropped(to, Reason::SendFailed);
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Sends a message of one fragment, its header written in front of it. The buffer is as it was on return.
    fn transmit_whole(&mut self, outgoing: &mut Outgoing, tally: &mut Tally) -> Result<bool, io::ErrorKind> {
        let header = self.header(outgoing.to, outgoing.message, outgoing.geometry, outgoing.form, 0);
        let Outgoing { addr, ref mut buf, .. } = *outgoing;
        let len = buf.len() as u64;
        buf.prepend(HEADER_LEN).copy_from_slice(&header);
        let sent = self.transport.send(addr, &[IoSlice::new(buf)]);
        buf.advance(HEADER_LEN);
        match sent {
            Ok(()) => {
                tally.stats.datagrams_sent += 1;
                tally.stats.bytes_sent += len;
                Ok(true)
            }
            Err(error) if transport::is_transient(&error) => Ok(false),
            Err(error) => Err(error.kind()),
        }
    }

    /// The next message that has arrived.
    pub(super) fn recv(&mut self, tally: &mut Tally) -> Option<Received> {
        loop {
            if self.unpacking.is_some() {
                self.ended = Ended::More;
                let message = self.unpack(tally);
                if message.is_some() || self.unpacking.is_some() {
                    return message;
                }
            }
            let received = self.recv_whole(tally);
            if received.is_some() || self.unpacking.is_none() {
                return received;
            }
        }
    }

    /// The next message that has a datagram of its own, or of several fragments. `None` and something to
    /// unpack: several have come in one.
    fn recv_whole(&mut self, tally: &mut Tally) -> Option<Received> {
        self.ended = Ended::More;
        for _ in 0..DATAGRAMS_PER_POLL {
            match self.transport.recv(&self.pool) {
                Recv::Datagram(addr, buf) => {
                    let received = self.on_datagram(addr, buf, tally);
                    if received.is_some() || self.unpacking.is_some() {
                        return received;
                    }
                }
                Recv::Empty => {
                    self.ended = Ended::Empty;
                    break;
                }
                Recv::Starved => {
                    self.ended = Ended::Starved;
                    tally.stats.starved += 1;
                    break;
                }
                Recv::Failed => tally.stats.drops.receive_failed += 1,
            }
        }
        if self.next_expiry != Time::MAX {
            self.expire(tally);
        }
        None
    }

    /// Calls `each` with up to `max` messages where they lie, and tells how many.
    pub(super) fn visit(
        &mut self,
        max: usize,
        tally: &mut Tally,
        mut each: impl FnMut(PeerId, SocketAddr, &[u8]),
    ) -> usize {
        let mut count = 0;
        while count < max {
            if let Some(Unpacking { from, addr, buf }) = &mut self.unpacking {
                let mut at = 0;
                while count < max
                    && let Some(message) = split_packed(&buf[at..])
                {
                    each(*from, *addr, message);
                    at += PACKED_PREFIX + message.len();
                    count += 1;
                    tally.received(*from, message.len());
                }
                buf.advance(at);
                // With something left it is full, or of an impossible length.
                if buf.is_empty() || split_packed(buf).is_none() {
                    if !buf.is_empty() {
                        tally.dropped(*from, Reason::Geometry);
                    }
                    self.unpacking = None;
                }
                continue;
            }
            let Some(received) = self.recv_whole(tally) else {
                if self.unpacking.is_none() {
                    break;
                }
                continue;
            };
            each(received.from, received.addr, &received.buf);
            tally.received(received.from, received.buf.len());
            count += 1;
        }
        count
    }

    fn on_datagram(&mut self, addr: SocketAddr, mut buf: Buf, tally: &mut Tally) -> Option<Received> {
        tally.stats.datagrams_received += 1;
        let repr = match Repr::parse(&buf) {
            Ok(repr) => repr,
            Err(error) => {
                let drops = &mut tally.stats.drops;
                *match error {
                    HeaderError::Truncated => &mut drops.truncated,
                    HeaderError::Magic => &mut drops.magic,
                    HeaderError::Version => &mut drops.version,
                    HeaderError::Geometry => &mut drops.geometry,
                } += 1;
                return None;
            }
        };
        if repr.destination != self.me {
            tally.dropped(repr.source, Reason::Misaddressed);
            return None;
        }
        buf.advance(HEADER_LEN);
        if repr.form == Form::Packed {
            self.unpacking = Some(Unpacking { from: repr.source, addr, buf });
            return None;
        }
        if repr.geometry.count() == 1 {
            return Some(Received { from: repr.source, addr, buf, channel: None });
        }
        let now = self.clock.now();
        match self.reassembly.insert(now, addr, &repr, &buf, &self.pool, tally) {
            Outcome::Complete(buf) => {
                tally.copied_from(repr.source);
                return Some(Received { from: repr.source, addr, buf, channel: None });
            }
            Outcome::Incomplete => self.next_expiry = self.next_expiry.min(now + TIMEOUT),
            Outcome::Duplicate => tally.dropped(repr.source, Reason::DuplicateFragment),
            Outcome::Inconsistent => tally.dropped(repr.source, Reason::InconsistentFragment),
            Outcome::Exhausted => tally.dropped(repr.source, Reason::Exhausted),
        }
        None
    }

    /// The next message of the datagram being unpacked.
    fn unpack(&mut self, tally: &mut Tally) -> Option<Received> {
        let Unpacking { from, addr, buf } = self.unpacking.as_mut()?;
        let (from, addr) = (*from, *addr);
        match split_packed(buf) {
            Some(message) => {
                let len = message.len();
                let Ok(mut own) = self.pool.alloc(len) else {
                    self.ended = Ended::Starved;
                    tally.stats.starved += 1;
                    return None;
                };
                own.extend_from_slice(message);
                buf.advance(PACKED_PREFIX + len);
                if buf.is_empty() {
                    self.unpacking = None;
                }
                tally.copied_from(from);
                Some(Received { from, addr, buf: own, channel: None })
            }
            None => {
                tally.dropped(from, Reason::Geometry);
                self.unpacking = None;
                None
            }
        }
    }

    fn expire(&mut self, tally: &mut Tally) {
        let now = self.clock.now();
        if now >= self.next_expiry {
            self.reassembly.expire(now, tally);
            self.next_expiry = if self.reassembly.is_empty() { Time::MAX } else { now + TIMEOUT };
        }
    }
}

/// Bytes of the length in front of each packed message.
const PACKED_PREFIX: usize = 2;

/// The first of packed messages, or `None` if its length cannot be.
fn split_packed(packed: &[u8]) -> Option<&[u8]> {
    let (len, rest) = packed.split_first_chunk::<PACKED_PREFIX>()?;
    rest.get(..usize::from(u16::from_le_bytes(*len)))
}

impl Pack {
    /// Adds a message, if there is room for it in a datagram of `len_max` bytes.
    #[inline]
    fn add(&mut self, message: &[u8], len_max: usize, pool: &Pool) -> bool {
        let already = if self.prefixed { 0 } else { PACKED_PREFIX } + self.buf.len();
        if already + PACKED_PREFIX + message.len() > len_max {
            return false;
        }
        if !self.prefixed {
            let Ok(mut pack) = pool.alloc(len_max) else { return false };
            append_packed(&mut pack, &self.buf);
            self.buf = pack;
            self.prefixed = true;
        }
        append_packed(&mut self.buf, message);
        self.count += 1;
        true
    }
}

#[inline]
fn append_packed(pack: &mut Buf, message: &[u8]) {
    const { assert!(PACKED_LEN_MAX <= u16::MAX as usize) };
    pack.extend_from_slice(&(message.len() as u16).to_le_bytes());
    pack.extend_from_slice(message);
}
