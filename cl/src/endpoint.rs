//! [`Endpoint`]: one party's door to the network.

pub(crate) mod config;
mod stats;

pub use config::{EndpointConfig, OpenError, TRANSPORT_VARIABLE, TransportChoice};
pub use stats::{Drops, Stats};

use crate::clock::Clock;
use crate::header::{Geometry, HEADER_LEN, HeaderError, Repr};
use crate::inject;
use crate::pool::{Buf, Exhausted, Pool};
use crate::reassembly::{Outcome, Reassembly, TIMEOUT};
use crate::transport::{self, Recv, Transport, TransportKind};
use cl_base::faults::FaultCounts;
use cl_base::{PeerId, Time};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Addresses remembered for one peer: as many as it plausibly has network interfaces.
const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Messages that wait for the socket to take them before `send` reports back-pressure. Enough to ride out
/// a full socket buffer; a longer queue would only hide that the network is slower than the sender.
const BACKLOG_MAX: usize = 64;
/// Datagrams that one call of `poll` may refuse or put to others before it lets the caller go on.
const DATAGRAMS_PER_POLL: usize = 256;

/// A message that has arrived.
#[derive(Debug)]
pub struct Received {
    /// The sender as the header says: a hint, until the contents are authenticated.
    pub from: PeerId,
    /// The address it came from (of the last fragment to arrive, if there were several).
    pub addr: SocketAddr,
    /// The contents, without `cl`'s header.
    pub buf: Buf,
}

/// A message that was not accepted for sending, and why.
#[derive(Debug, thiserror::Error)]
#[error("message not sent: {reason}")]
pub struct SendError {
    /// The message, unchanged.
    pub buf: Buf,
    /// What was in the way.
    pub reason: Refusal,
}

impl SendError {
    /// True if the same send may succeed a little later.
    pub fn is_backpressure(&self) -> bool {
        matches!(self.reason, Refusal::Backpressure)
    }
}

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The network does not take messages as fast as they come.
    #[error("the network is slower than the sender")]
    Backpressure,
    /// No address is known for the peer.
    #[error("no address is known for the peer")]
    Unresolved,
    /// Longer than [`MESSAGE_LEN_MAX`](crate::MESSAGE_LEN_MAX), or than can be counted in fragments of the MTU.
    #[error("the message is too long")]
    TooLong,
    /// The system refused the datagram for good (say, no route), with its error kind.
    #[error("the system refused it: {0}")]
    System(io::ErrorKind),
}

/// One party's door to the network: unreliable messages of up to 16 MiB to and from other parties.
///
/// An endpoint has no thread: whoever owns it calls [`Endpoint::poll`], in a loop of its own or from the
/// [`runtime`](crate::runtime).
pub struct Endpoint {
    me: PeerId,
    mtu: usize,
    pool: Pool,
    clock: Clock,
    transport: Box<dyn Transport>,
    reason: Arc<str>,
    /// Never iterated, so its order does not matter.
    addresses: HashMap<PeerId, VecDeque<SocketAddr>>,
    next_message: u32,
    backlog: VecDeque<Outgoing>,
    reassembly: Reassembly,
    next_expiry: Time,
    /// How the last poll ended.
    ended: PollEnd,
    stats: Stats,
}

/// The most parts one datagram may be gathered from: a header of the layer above, and contents in two
/// pieces if need be.
pub(crate) const PARTS_MAX: usize = 3;

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollEnd {
    /// There may be more.
    More,
    /// Nothing was left.
    Empty,
    /// There was no buffer to receive into.
    Starved,
}

/// A message of which a part has not been taken by the socket yet.
struct Outgoing {
    to: PeerId,
    addr: SocketAddr,
    buf: Buf,
    message: u32,
    geometry: Geometry,
    next: u16,
}

impl Endpoint {
    /// Opens an endpoint: its buffers, its socket, its transport.
    ///
    /// # Errors
    /// [`OpenError`] says which of these failed, and why.
    pub fn open(config: EndpointConfig) -> Result<Endpoint, OpenError> {
        let choice = config.transport.or_from_environment()?;
        let injection = config.faults_or_from_environment()?;
        let mtu = config.mtu_checked()?;
        let pool = Pool::new(&config.pool).map_err(OpenError::Pool)?;
        let (transport, reason) = transport::open(&config, choice, mtu, &pool)?;
        let clock = Clock::new();
        let transport = inject::wrap(transport, injection, config.me, clock);
        tracing::info!(
            me = %config.me, addr = %transport.local_addr(), transport = %transport.kind(), mtu, reason,
            "endpoint open"
        );
        Ok(Endpoint {
            me: config.me,
            mtu,
            pool,
            clock,
            transport,
            reason: reason.into(),
            addresses: HashMap::new(),
            // Not 0: after a restart the fragments of a former life must not meet those of this one.
            next_message: clock.now().as_nanos() as u32,
            backlog: VecDeque::new(),
            reassembly: Reassembly::default(),
            next_expiry: Time::MAX,
            ended: PollEnd::More,
            stats: Stats::default(),
        })
    }

    /// Whose endpoint this is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    /// The largest datagram in bytes, `cl`'s header included.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The longest message that travels in one datagram, in bytes.
    pub fn unfragmented_len_max(&self) -> usize {
        self.mtu - HEADER_LEN
    }

    /// Bytes of arrivals the socket holds until they are polled, by the system's count, which is about
    /// twice the contents. What exceeds it is lost.
    pub fn receive_buffer(&self) -> usize {
        self.transport.receive_buffer()
    }

    /// What carries the datagrams.
    pub fn transport(&self) -> TransportKind {
        self.transport.kind()
    }

    /// Why that transport was chosen, as a sentence for people.
    pub fn transport_reason(&self) -> &str {
        &self.reason
    }

    /// The buffers of this endpoint.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Learns an address of `peer`. Messages go to the one learnt last; the eight latest are kept.
    pub fn resolve(&mut self, peer: PeerId, addr: SocketAddr) {
        let known = self.addresses.entry(peer).or_default();
        known.retain(|a| *a != addr);
        known.push_front(addr);
        known.truncate(ADDRESSES_PER_PEER_MAX);
    }

    /// Forgets all addresses of `peer`.
    pub fn forget(&mut self, peer: PeerId) {
        self.addresses.remove(&peer);
    }

    /// The address messages to `peer` go to.
    pub fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        self.addresses.get(&peer)?.front().copied()
    }

    /// All known addresses of `peer`, the one used first.
    pub fn addresses_of(&self, peer: PeerId) -> impl Iterator<Item = SocketAddr> + '_ {
        self.addresses.get(&peer).into_iter().flatten().copied()
    }

    /// An empty buffer with room for `len` bytes.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none; the pool's buffers come back as messages are sent or dropped.
    pub fn alloc(&self, len: usize) -> Result<Buf, Exhausted> {
        self.pool.alloc(len)
    }

    /// A buffer that holds a copy of `contents`.
    ///
    /// # Errors
    /// As [`Endpoint::alloc`].
    pub fn alloc_copy(&self, contents: &[u8]) -> Result<Buf, Exhausted> {
        let mut buf = self.pool.alloc(contents.len())?;
        buf.extend_from_slice(contents);
        Ok(buf)
    }

    /// Sends a message to the address of `to`. It may be lost, doubled or overtaken on the way.
    ///
    /// # Errors
    /// [`SendError`] hands the message back.
    pub fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), SendError> {
        match self.address_of(to) {
            Some(addr) => self.send_to(to, addr, buf),
            None => self.refuse(buf, Refusal::Unresolved),
        }
    }

    /// Sends a message to `to` at `addr`, whatever addresses are known.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    pub fn send_to(&mut self, to: PeerId, addr: SocketAddr, buf: Buf) -> Result<(), SendError> {
        let Some(geometry) = Geometry::for_message(buf.len(), self.unfragmented_len_max()) else {
            return self.refuse(buf, Refusal::TooLong);
        };
        if !self.backlog.is_empty() {
            self.flush();
            if self.backlog.len() >= BACKLOG_MAX {
                return self.refuse(buf, Refusal::Backpressure);
            }
        }
        let message = self.next_message;
        self.next_message = message.wrapping_add(1);
        let mut outgoing = Outgoing { to, addr, buf, message, geometry, next: 0 };
        let progress = if self.backlog.is_empty() { self.transmit(&mut outgoing) } else { Ok(false) };
        match progress {
            Ok(true) => {}
            Ok(false) => self.backlog.push_back(outgoing),
            Err(kind) => return self.refuse(outgoing.buf, Refusal::System(kind)),
        }
        self.stats.messages_sent += 1;
        Ok(())
    }

    /// Tries again to send what the socket did not take at once. [`Endpoint::poll`] does it as well.
    pub fn flush(&mut self) {
        while let Some(mut outgoing) = self.backlog.pop_front() {
            match self.transmit(&mut outgoing) {
                Ok(true) => {}
                Ok(false) => {
                    self.backlog.push_front(outgoing);
                    return;
                }
                // It was accepted, and it is lost: as messages may be. The counter tells.
                Err(_) => self.stats.drops.send_failed += 1,
            }
        }
    }

    /// True if a message waits for the socket to take it.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The next message that has arrived. `None` means: nothing now.
    pub fn poll(&mut self) -> Option<Received> {
        if !self.backlog.is_empty() {
            self.flush();
        }
        self.ended = PollEnd::More;
        for _ in 0..DATAGRAMS_PER_POLL {
            match self.transport.recv(&self.pool) {
                Recv::Datagram(addr, buf) => {
                    if let Some(received) = self.on_datagram(addr, buf) {
                        self.stats.messages_received += 1;
                        self.stats.bytes_received += received.buf.len() as u64;
                        return Some(received);
                    }
                }
                Recv::Empty => {
                    self.ended = PollEnd::Empty;
                    break;
                }
                Recv::Starved => {
                    self.ended = PollEnd::Starved;
                    self.stats.starved += 1;
                    break;
                }
                Recv::Failed => self.stats.drops.receive_failed += 1,
            }
        }
        if self.next_expiry != Time::MAX {
            self.expire();
        }
        None
    }

    /// See [`crate::for_rcl::transmit`].
    pub(crate) fn transmit_parts(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        parts: &[IoSlice<'_>],
    ) -> Result<(), Refusal> {
        assert!(parts.len() <= PARTS_MAX, "{} parts", parts.len());
        let len = parts.iter().map(|p| p.len()).sum::<usize>();
        let refusal = match Geometry::for_message(len, self.unfragmented_len_max()) {
            Some(geometry) if geometry.count() == 1 => {
                let message = self.next_message;
                self.next_message = message.wrapping_add(1);
                let repr = Repr { source: self.me, destination: to, message, geometry, index: 0 };
                let header = repr.to_bytes();
                let mut all = [IoSlice::new(&[]); PARTS_MAX + 1];
                all[0] = IoSlice::new(&header);
                all[1..=parts.len()].copy_from_slice(parts);
                match self.transport.send(addr, &all[..=parts.len()]) {
                    Ok(()) => {
                        self.stats.messages_sent += 1;
                        self.stats.datagrams_sent += 1;
                        self.stats.bytes_sent += len as u64;
                        return Ok(());
                    }
                    Err(error) if transport::is_transient(&error) => Refusal::Backpressure,
                    Err(error) => Refusal::System(error.kind()),
                }
            }
            _ => Refusal::TooLong,
        };
        self.stats.sends_refused += 1;
        Err(refusal)
    }

    /// Counters of what happened so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        (stats.drops.reassembly_evicted, stats.drops.reassembly_expired) =
            self.reassembly.evicted_and_expired();
        stats
    }

    /// Faults injected on purpose so far, if any were asked for ([`EndpointConfig::faults`]).
    pub fn faults(&self) -> Option<FaultCounts> {
        self.transport.faults()
    }

    /// The descriptor that becomes readable when there may be something to poll.
    pub(crate) fn readable_fd(&self) -> RawFd {
        self.transport.readable_fd()
    }

    /// The descriptor that becomes writable when the socket takes datagrams again.
    pub(crate) fn writable_fd(&self) -> RawFd {
        self.transport.writable_fd()
    }

    /// The clock that [`Endpoint::deadline`] goes by.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Prepares for a sleep on [`Endpoint::readable_fd`]. False if there is something to poll already.
    pub(crate) fn prepare_park(&mut self) -> bool {
        // With datagrams left unread, nothing would announce them again.
        self.ended != PollEnd::More && self.transport.prepare_park(&self.pool)
    }

    /// When the endpoint wants to be polled though nothing arrives.
    pub(crate) fn deadline(&self) -> Time {
        self.next_expiry.min(self.transport.deadline())
    }

    /// True if something may be waiting that could not be received for want of a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.ended == PollEnd::Starved
    }

    fn refuse(&mut self, buf: Buf, reason: Refusal) -> Result<(), SendError> {
        self.stats.sends_refused += 1;
        Err(SendError { buf, reason })
    }

    /// Sends fragments until none is left (true) or the socket takes no more (false).
    fn transmit(&mut self, outgoing: &mut Outgoing) -> Result<bool, io::ErrorKind> {
        if outgoing.geometry.count() == 1 && outgoing.buf.headroom() >= HEADER_LEN {
            return self.transmit_whole(outgoing);
        }
        let Outgoing { to, addr, ref buf, message, geometry, .. } = *outgoing;
        while outgoing.next < geometry.count() {
            let index = outgoing.next;
            let header = Repr { source: self.me, destination: to, message, geometry, index }.to_bytes();
            let contents = &buf[geometry.range(index)];
            match self.transport.send(addr, &[IoSlice::new(&header), IoSlice::new(contents)]) {
                Ok(()) => {
                    outgoing.next += 1;
                    self.stats.datagrams_sent += 1;
                    self.stats.bytes_sent += contents.len() as u64;
                }
                Err(error) if transport::is_transient(&error) => return Ok(false),
                Err(error) if index == 0 => return Err(error.kind()),
                Err(_) => {
                    self.stats.drops.send_failed += 1;
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Sends a message of one fragment, its header written in front of it. The buffer is as it was on return.
    fn transmit_whole(&mut self, outgoing: &mut Outgoing) -> Result<bool, io::ErrorKind> {
        let Outgoing { to, addr, ref mut buf, message, geometry, .. } = *outgoing;
        let len = buf.len() as u64;
        let header = Repr { source: self.me, destination: to, message, geometry, index: 0 }.to_bytes();
        buf.prepend(HEADER_LEN).copy_from_slice(&header);
        let sent = self.transport.send(addr, &[IoSlice::new(buf)]);
        buf.advance(HEADER_LEN);
        match sent {
            Ok(()) => {
                self.stats.datagrams_sent += 1;
                self.stats.bytes_sent += len;
                Ok(true)
            }
            Err(error) if transport::is_transient(&error) => Ok(false),
            Err(error) => Err(error.kind()),
        }
    }

    fn on_datagram(&mut self, addr: SocketAddr, mut buf: Buf) -> Option<Received> {
        self.stats.datagrams_received += 1;
        let drops = &mut self.stats.drops;
        let repr = match Repr::parse(&buf) {
            Ok(repr) => repr,
            Err(error) => {
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
            drops.misaddressed += 1;
            return None;
        }
        buf.advance(HEADER_LEN);
        if repr.geometry.count() == 1 {
            return Some(Received { from: repr.source, addr, buf });
        }
        let now = self.clock.now();
        match self.reassembly.insert(now, addr, &repr, &buf, &self.pool) {
            Outcome::Complete(buf) => return Some(Received { from: repr.source, addr, buf }),
            Outcome::Incomplete => self.next_expiry = self.next_expiry.min(now + TIMEOUT),
            Outcome::Duplicate => drops.duplicate_fragment += 1,
            Outcome::Inconsistent => drops.inconsistent_fragment += 1,
            Outcome::Exhausted => drops.exhausted += 1,
        }
        None
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        if now >= self.next_expiry {
            self.reassembly.expire(now);
            self.next_expiry = if self.reassembly.is_empty() { Time::MAX } else { now + TIMEOUT };
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("me", &self.me)
            .field("addr", &self.local_addr())
            .field("transport", &self.transport())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "endpoint_test.rs"]
mod tests;
