//! [`Endpoint`]: one party's door to the network.

pub(crate) mod config;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod network;
mod peers;
mod sharing;
mod stats;

pub use config::{
    EndpointConfig, OpenError, SharedMemory, SharedMemoryConfig, TRANSPORT_VARIABLE, TransportChoice,
    XDP_MODE_VARIABLE, XdpMode,
};
pub(crate) use network::PARTS_MAX;
pub use peers::Path;
pub use stats::{Drops, Stats};

use crate::clock::Clock;
use crate::counters::{Counters, Live};
use crate::inject;
use crate::pool::{Buf, Exhausted, Pool};
use crate::shm::{ChannelId, Shm};
use crate::transport::{self, TransportKind};
use cl_base::faults::FaultCounts;
use cl_base::{PeerId, Time};
use network::{Ended, Network};
use peers::Peers;
use sharing::{Rhythm, SHARED_IN_A_ROW};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// A message that has arrived.
#[derive(Debug)]
pub struct Received {
    /// The sender as the header says: a hint, until the contents are authenticated.
    pub from: PeerId,
    /// The address it came from (of the last fragment to arrive, if there were several). Over shared memory,
    /// the network address of the sender's endpoint.
    pub addr: SocketAddr,
    /// The contents, without `cl`'s header.
    pub buf: Buf,
    /// The channel it came through, if through shared memory.
    pub(crate) channel: Option<ChannelId>,
}

/// A message that has arrived, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// As [`Received::from`].
    pub from: PeerId,
    /// As [`Received::addr`].
    pub addr: SocketAddr,
    /// The contents.
    pub contents: &'a [u8],
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
    pool: Pool,
    clock: Clock,
    network: Network,
    reason: Arc<str>,
    peers: Peers,
    stats: Stats,
    /// Where others read the counters.
    live: Option<Box<Live>>,
    shm: Option<Shm>,
    /// Messages up to this length are copied into shared memory.
    copy_max: usize,
    /// There are channels.
    sharing: bool,
    rhythm: Rhythm,
    /// Channels that have closed, for the reliable layer; `None` if nobody asks.
    closed: Option<VecDeque<(ChannelId, PeerId)>>,
}

impl Endpoint {
    /// Opens an endpoint: its buffers, its socket, its transport.
    ///
    /// # Errors
    /// [`OpenError`] says which of these failed, and why.
    pub fn open(config: EndpointConfig) -> Result<Endpoint, OpenError> {
        let choice = config.transport.or_from_environment()?;
        let injection = config.faults_or_from_environment()?;
        let mtu = config.mtu_checked(choice)?;
        let pool = Pool::new(&config.pool).map_err(OpenError::Pool)?;
        let (transport, reason) = transport::open(&config, choice, mtu, &pool)?;
        let (me, addr, clock) = (config.me, transport.local_addr(), Clock::new());
        let injects = injection.is_some_and(|injection| !injection.faults.is_none());
        let transport = inject::wrap(transport, injection, me, clock);
        tracing::info!(
            %me, %addr, transport = %transport.kind(), mtu, reason, pages = ?pool.pages(), "endpoint open"
        );
        let shm = match &config.shared_memory {
            SharedMemory::Never => None,
            // The injector sits in front of the network; nothing must get past it.
            SharedMemory::Auto(_) if injects => None,
            SharedMemory::Auto(shared) => {
                Shm::open((me, addr), &pool, clock, shared.ring_len, shared.copy_max)
                    .inspect_err(
                        |error| tracing::warn!(%error, "no memory will be shared with other processes"),
                    )
                    .ok()
            }
        };
        let about = [
            ("address", addr.to_string()),
            ("transport", transport.kind().to_string()),
            ("program", std::env::args().next().unwrap_or_default()),
        ];
        let live = match config.counters {
            Counters::Never => None,
            Counters::Auto => Live::open(me, &about, clock.now())
                .inspect_err(|error| tracing::warn!(%error, "nobody else will see the counters"))
                .ok(),
        };
        Ok(Endpoint {
            me,
            clock,
            network: Network::new(me, mtu, pool.clone(), clock, transport),
            pool,
            reason: reason.into(),
            peers: Peers::default(),
            stats: Stats::default(),
            live: live.map(Box::new),
            copy_max: shm.as_ref().map_or(0, Shm::copy_max),
            shm,
            sharing: false,
            rhythm: Rhythm::default(),
            closed: None,
        })
    }

    /// Whose endpoint this is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.network.transport.local_addr()
    }

    /// The largest datagram in bytes, `cl`'s header included.
    pub fn mtu(&self) -> usize {
        self.network.mtu()
    }

    /// The longest message that travels in one datagram, in bytes.
    pub fn unfragmented_len_max(&self) -> usize {
        self.network.unfragmented_len_max()
    }

    /// Bytes of arrivals the socket holds until they are polled, by the system's count, which is about
    /// twice the contents. What exceeds it is lost.
    pub fn receive_buffer(&self) -> usize {
        self.network.transport.receive_buffer()
    }

    /// What carries the datagrams.
    pub fn transport(&self) -> TransportKind {
        self.network.transport.kind()
    }

    /// Why that transport was chosen, as a sentence for people.
    pub fn transport_reason(&self) -> &str {
        &self.reason
    }

    /// How messages to `peer` travel, and why; `None` if no address of it is known.
    pub fn path(&self, peer: PeerId) -> Option<Path> {
        let known = self.peers.get(peer)?;
        if self.peers.channel_to(peer, None).is_some() {
            let (_, addr) = known.shared?;
            return Some(Path { kind: TransportKind::SharedMemory, addr, reason: known.reason.clone() });
        }
        let addr = *known.addresses.front()?;
        let reason = match (&self.shm, known.reason.is_empty()) {
            (None, _) => format!("{}; sharing memory is off", self.reason),
            (_, true) => self.reason.to_string(),
            (_, false) => format!("{}; {}", self.reason, known.reason),
        };
        Some(Path { kind: self.transport(), addr, reason })
    }

    /// The buffers of this endpoint.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Learns an address of `peer`. Messages go to the one learnt last; the eight latest are kept. If the
    /// peer is a process of this host that shares memory, they go that way.
    pub fn resolve(&mut self, peer: PeerId, addr: SocketAddr) {
        self.peers.learn(peer, addr);
        if self.shm.is_some() && self.peers.channel_to(peer, Some(addr)).is_none() {
            self.share_with(peer, addr);
        }
    }

    /// Forgets all addresses of `peer`.
    pub fn forget(&mut self, peer: PeerId) {
        self.peers.forget(peer);
    }

    /// The address messages to `peer` go to.
    pub fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        self.peers.address_of(peer)
    }

    /// All known addresses of `peer`, the one used first.
    pub fn addresses_of(&self, peer: PeerId) -> impl Iterator<Item = SocketAddr> + '_ {
        self.peers.addresses_of(peer)
    }

    /// An empty buffer with room for `len` bytes.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none; the pool's buffers come back as messages are sent or dropped.
    #[inline]
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
    #[inline]
    pub fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, None) {
            let sent = self.send_shared(channel, to, None, buf);
            self.ring_bells();
            return sent;
        }
        self.send_by_network(to, None, buf)
    }

    /// Sends a message to `to` at `addr`, whatever addresses are known.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    #[inline]
    pub fn send_to(&mut self, to: PeerId, addr: SocketAddr, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, Some(addr)) {
            let sent = self.send_shared(channel, to, Some(addr), buf);
            self.ring_bells();
            return sent;
        }
        self.send_by_network(to, Some(addr), buf)
    }

    /// Sends the concatenation of `parts`, at most three, to `to` (at `addr`, if given). They are the caller's
    /// again on return: for whoever makes its messages in memory of its own, or sends one part to many. What
    /// fits into a datagram is gathered by the system and not copied before.
    ///
    /// # Errors
    /// [`Refusal`] says why not; with [`Refusal::Backpressure`] it may succeed later.
    ///
    /// # Panics
    /// If there are more than three parts.
    pub fn send_parts(
        &mut self,
        to: PeerId,
        addr: Option<SocketAddr>,
        parts: &[IoSlice<'_>],
    ) -> Result<(), Refusal> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.shared_way(to, addr).is_none() && len <= self.unfragmented_len_max() && !self.has_backlog() {
            let to_addr = addr.or_else(|| self.peers.address_of(to)).ok_or(Refusal::Unresolved)?;
            match self.transmit_parts(to, to_addr, parts) {
                // Kept until the network takes it.
                Err(Refusal::Backpressure) => {}
                sent => return sent,
            }
        }
        if len > self.pool.capacity_max() {
            return Err(Refusal::TooLong);
        }
        let mut buf = self.pool.alloc(len).map_err(|_| Refusal::Backpressure)?;
        for part in parts {
            buf.extend_from_slice(part);
        }
        self.stats.copies += 1;
        let sent = match addr {
            Some(addr) => self.send_to(to, addr, buf),
            None => self.send(to, buf),
        };
        sent.map_err(|error| error.reason)
    }

    /// As [`Endpoint::send`], but the message may wait until the next [`Endpoint::flush`] or
    /// [`Endpoint::poll`], so that small messages to one destination travel together: a datagram costs far
    /// more than a message in it.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    #[inline]
    pub fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, None) {
            return self.send_shared(channel, to, None, buf);
        }
        let Some(addr) = self.peers.address_of(to) else {
            return self.count_sent(to, 0, Err(SendError { buf, reason: Refusal::Unresolved }));
        };
        let len = buf.len();
        let sent = self.network.queue(to, addr, buf, &mut self.stats);
        self.count_sent(to, len, sent)
    }

    /// As [`Endpoint::queue`], for a copy of `contents`: the fastest way for messages of some hundred bytes,
    /// which are copied anyway.
    ///
    /// # Errors
    /// [`Refusal`] says why not; with [`Refusal::Backpressure`] it may succeed later.
    #[inline]
    pub fn queue_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<(), Refusal> {
        if contents.len() <= self.copy_max
            && let Some(channel) = self.shared_way(to, None)
        {
            match self.send_copy_on(channel, None, contents) {
                // The peer is gone from there. Whether it is elsewhere, the network will know.
                Err(Refusal::Unresolved) => {}
                queued => return queued,
            }
        }
        self.queue_copy_slowly(to, contents)
    }

    fn queue_copy_slowly(&mut self, to: PeerId, contents: &[u8]) -> Result<(), Refusal> {
        if self.shared_way(to, None).is_some() {
            let buf = self.alloc_copy(contents).map_err(|_| Refusal::Backpressure)?;
            self.stats.copies += 1;
            return self.queue(to, buf).map_err(|error| error.reason);
        }
        let queued = match self.peers.address_of(to) {
            Some(addr) => self.network.queue_copy(to, addr, contents, &mut self.stats),
            None => Err(Refusal::Unresolved),
        };
        self.count_sent(to, contents.len(), queued)
    }

    /// Calls `each` with up to `max` messages that have arrived, where they lie, and tells how many there were:
    /// the fastest way to receive many small messages. Like [`Endpoint::poll`] it sends what waits.
    #[inline]
    pub fn drain(&mut self, max: usize, mut each: impl FnMut(Message<'_>)) -> usize {
        self.flush();
        let mut count = 0;
        if self.sharing
            && let Some(shm) = &mut self.shm
        {
            let budget = match self.rhythm.in_a_row {
                // The network has its turn, too.
                SHARED_IN_A_ROW.. => max - max / 4,
                _ => max,
            };
            count = shm.visit(budget, |_, from, addr, contents| each(Message { from, addr, contents }));
            if count > 0 {
                self.rhythm.shared_is_used = true;
            }
            self.rhythm.in_a_row = if budget < max { 0 } else { self.rhythm.in_a_row + count as u32 };
        }
        if count < max && !self.network_can_wait() {
            if self.shm.is_some() {
                self.tend_if_due();
            }
            let live = &mut self.live;
            let seen = self.network.visit(max - count, &mut self.stats, |from, addr, contents| {
                if let Some(live) = live {
                    live.received(from, contents.len());
                }
                each(Message { from, addr, contents });
            });
            self.rhythm.looked_at_network(seen > 0);
            self.stats.messages_received += seen as u64;
            count += seen;
        }
        count
    }

    /// Sends what waits: queued messages, and what the network did not take at once. [`Endpoint::poll`] does
    /// it as well.
    #[inline]
    pub fn flush(&mut self) {
        if self.network.has_backlog() {
            self.network.flush(&mut self.stats);
        }
        self.ring_bells();
    }

    /// True if a message waits for the network to take it.
    pub fn has_backlog(&self) -> bool {
        self.network.has_backlog()
    }

    /// The next message that has arrived. `None` means: nothing now.
    #[inline]
    pub fn poll(&mut self) -> Option<Received> {
        self.flush();
        if !self.sharing {
            return self.poll_network();
        }
        if self.rhythm.in_a_row >= SHARED_IN_A_ROW {
            self.rhythm.in_a_row = 0;
            if let Some(received) = self.poll_network_if_due() {
                return Some(received);
            }
        }
        match self.poll_shared() {
            Some(received) => {
                self.rhythm.in_a_row += 1;
                Some(received)
            }
            None => self.poll_network_if_due(),
        }
    }

    /// Sleeps until there may be something to poll, or `limit` has passed.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn park(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.flush();
        let direct = self.network.transport.park_directly();
        let ready = match direct {
            Some(_) => {
                self.network.ended == Ended::More
                    || !self.network.transport.prepare_direct_park(&self.pool)
                    || !self.prepare_park_shared()
            }
            None => !self.prepare_park(),
        };
        if ready {
            return Ok(());
        }
        if direct.is_some() && self.live.is_some() {
            self.publish(self.clock.now());
        }
        let now = self.clock.now();
        let deadline = self.deadline();
        let own = (deadline != Time::MAX).then(|| deadline.saturating_since(now));
        let limit =
            [limit, own, self.is_starved().then_some(Duration::from_millis(1))].into_iter().flatten().min();
        let interest =
            crate::sys::Readiness { read: direct.unwrap_or(self.readable_fd()), write: self.writable_fd() };
        crate::sys::wait(interest, self.shared_fd(), self.has_backlog(), limit)
    }

    /// Counters of what happened so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        (stats.drops.reassembly_evicted, stats.drops.reassembly_expired) = self.network.evicted_and_expired();
        self.network.transport.count(&mut stats);
        if let Some(shm) = &self.shm {
            shm.count(&mut stats);
        }
        stats
    }

    /// The page from which others read the counters, for a layer above to add its own; `None` if there is
    /// none.
    pub fn counters(&mut self) -> Option<&mut Live> {
        self.live.as_deref_mut()
    }

    /// The same, once after each time that this layer has shown its counters (at most every 50 ms): now the
    /// layer above is to set its own. Costs next to nothing otherwise; to be called whenever there is nothing
    /// else to do.
    #[inline]
    pub fn counters_due(&mut self) -> Option<&mut Live> {
        let live = self.live.as_deref_mut()?;
        if live.take_due() { Some(live) } else { None }
    }

    /// Processes that memory is shared with, and buffers of ours that they have at present.
    pub fn shared(&self) -> (usize, usize) {
        self.shm.as_ref().map_or((0, 0), Shm::counts)
    }

    /// See [`crate::for_rcl::transmit`].
    pub(crate) fn transmit_parts(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        parts: &[IoSlice<'_>],
    ) -> Result<(), Refusal> {
        let sent = self.network.transmit_parts(to, addr, parts, &mut self.stats);
        let len = parts.iter().map(|part| part.len()).sum();
        self.count_sent(to, len, sent)
    }

    /// See [`crate::for_rcl::channel`].
    pub(crate) fn channel_to(&self, peer: PeerId) -> Option<ChannelId> {
        self.peers.channel_to(peer, None)
    }

    /// See [`crate::for_rcl::send`].
    #[inline]
    pub(crate) fn send_on(&mut self, channel: ChannelId, buf: Buf) -> Result<(), SendError> {
        let Some(shm) = &mut self.shm else {
            return Err(SendError { buf, reason: Refusal::Unresolved });
        };
        let sent = shm.send(channel, buf);
        self.rhythm.shared_is_used = true;
        self.stats.sends_refused += u64::from(sent.is_err());
        sent
    }

    /// See [`crate::for_rcl::send_copy`].
    #[inline]
    pub(crate) fn send_copy_on(
        &mut self,
        channel: ChannelId,
        word: Option<u64>,
        contents: &[u8],
    ) -> Result<(), Refusal> {
        let Some(shm) = &mut self.shm else { return Err(Refusal::Unresolved) };
        if !self.rhythm.shared_is_used {
            self.rhythm.shared_is_used = true;
        }
        let sent = shm.send_copy(channel, word, contents);
        if sent.is_err() {
            self.stats.sends_refused += 1;
        }
        sent
    }

    /// Faults injected on purpose so far, if any were asked for ([`EndpointConfig::faults`]).
    pub fn faults(&self) -> Option<FaultCounts> {
        self.network.transport.faults()
    }

    /// See [`crate::for_rcl::next_closed`].
    pub(crate) fn next_closed(&mut self) -> Option<(ChannelId, PeerId)> {
        self.closed.get_or_insert_default().pop_front()
    }

    /// The descriptor that becomes readable when there may be something to poll from the network.
    pub(crate) fn readable_fd(&self) -> RawFd {
        self.network.transport.readable_fd()
    }

    /// The descriptor that becomes writable when the network takes datagrams again.
    pub(crate) fn writable_fd(&self) -> RawFd {
        self.network.transport.writable_fd()
    }

    /// The descriptor that becomes readable when there may be something to poll from shared memory.
    pub(crate) fn shared_fd(&self) -> Option<RawFd> {
        self.shm.as_ref().map(Shm::readable_fd)
    }

    /// The clock of this endpoint, and of the [runtime](crate::runtime) that has it.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Prepares for a sleep on [`Endpoint::readable_fd`]. False if there is something to poll already.
    pub(crate) fn prepare_park(&mut self) -> bool {
        // With datagrams left unread, nothing would announce them again.
        if self.network.ended == Ended::More || !self.network.transport.prepare_park(&self.pool) {
            return false;
        }
        if !self.prepare_park_shared() {
            return false;
        }
        if self.live.is_some() {
            self.publish(self.clock.now());
        }
        true
    }

    fn prepare_park_shared(&mut self) -> bool {
        let Some(shm) = &mut self.shm else { return true };
        let quiet = shm.prepare_park();
        if !quiet {
            shm.unpark();
        }
        quiet
    }

    /// Shows others the counters as they are.
    fn publish(&mut self, now: Time) {
        let stats = self.stats();
        let (shared, lent) = self.shared();
        let backlog = self.network.backlog_len();
        let Some(live) = &mut self.live else { return };
        if let Some(shm) = &mut self.shm {
            shm.take_traffic(|peer, traffic| live.add(peer, traffic));
        }
        let free = self.pool.available(self.network.mtu());
        live.publish(now, &stats, [backlog, free, shared, lent].map(|level| level as u64));
    }

    /// When the endpoint wants to be polled though nothing arrives.
    pub(crate) fn deadline(&self) -> Time {
        self.network.deadline().min(self.shm.as_ref().map_or(Time::MAX, Shm::deadline))
    }

    /// True if something may be waiting that could not be received for want of a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.network.ended == Ended::Starved
    }

    #[inline]
    fn count_sent<E>(&mut self, to: PeerId, len: usize, sent: Result<(), E>) -> Result<(), E> {
        if sent.is_err() {
            self.stats.sends_refused += 1;
            return sent;
        }
        self.stats.messages_sent += 1;
        if let Some(live) = &mut self.live {
            live.sent(to, len);
        }
        sent
    }

    fn send_by_network(&mut self, to: PeerId, addr: Option<SocketAddr>, buf: Buf) -> Result<(), SendError> {
        let len = buf.len();
        let sent = match addr.or_else(|| self.peers.address_of(to)) {
            Some(addr) => self.network.send(to, addr, buf, &mut self.stats),
            None => Err(SendError { buf, reason: Refusal::Unresolved }),
        };
        self.count_sent(to, len, sent)
    }

    /// The channel to `to` (at `addr`, if given), if messages go that way.
    #[inline]
    fn shared_way(&self, to: PeerId, addr: Option<SocketAddr>) -> Option<ChannelId> {
        if self.sharing { self.peers.channel_to(to, addr) } else { None }
    }

    #[inline]
    fn send_shared(
        &mut self,
        channel: ChannelId,
        to: PeerId,
        addr: Option<SocketAddr>,
        buf: Buf,
    ) -> Result<(), SendError> {
        match self.send_on(channel, buf) {
            // The peer is gone from there. Whether it is elsewhere, the network will know.
            Err(SendError { buf, reason: Refusal::Unresolved }) => self.send_by_network(to, addr, buf),
            sent => sent,
        }
    }

    #[inline]
    fn ring_bells(&mut self) {
        if self.sharing
            && let Some(shm) = &mut self.shm
        {
            shm.flush();
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
