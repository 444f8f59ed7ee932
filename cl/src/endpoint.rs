//! [`Endpoint`]: one party's door to the network.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub(crate) mod network;
mod park;
mod peers;
mod receive;
mod rhythm;
mod send;
mod send_each;
mod sharing;

pub use peers::Path;
pub use send_each::Parcel;

use crate::clock::Clock;
use crate::config::{EndpointConfig, OpenError, SharedMemory};
use crate::counters::{Counters, Live, Tally};
use crate::inject;
use crate::pool::{Buf, Exhausted, Pool};
use crate::shm::Shm;
use crate::shm::id::ChannelId;
use crate::stats::Stats;
use crate::transport::{TransportKind, choose};
use cl_base::faults::FaultCounts;
use cl_base::{PeerId, Time};
use network::Network;
use peers::Peers;
use rhythm::Rhythm;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

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
    tally: Tally,
    shm: Option<Shm>,
    /// Messages up to this length are copied into shared memory.
    copy_max: usize,
    /// There are channels.
    sharing: bool,
    rhythm: Rhythm,
    /// When peers that share no memory are asked again.
    share_at: Time,
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
        let mtu = config.mtu_checked(choice, choose::default_mtu(choice, config.bind)?)?;
        let pool = Pool::new(&config.pool).map_err(OpenError::Pool)?;
        let (transport, reason) = choose::open(&config, choice, mtu, &pool)?;
        let (me, addr, clock) = (config.me, transport.local_addr(), Clock::new());
        let injects = injection.is_some_and(|injection| !injection.faults.is_none());
        let transport = inject::transport::wrap(transport, injection, me, clock);
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
            tally: Tally { stats: Stats::default(), live: live.map(Box::new) },
            copy_max: shm.as_ref().map_or(0, Shm::copy_max),
            shm,
            sharing: false,
            rhythm: Rhythm::default(),
            share_at: Time::ZERO,
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

    /// Counters of what happened so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.tally.stats;
        self.network.transport.count(&mut stats);
        if let Some(shm) = &self.shm {
            shm.count(&mut stats);
        }
        stats
    }

    /// The page from which others read the counters, for a layer above to add its own; `None` if there is
    /// none.
    pub fn counters(&mut self) -> Option<&mut Live> {
        self.tally.live.as_deref_mut()
    }

    /// The same, once after each time that this layer has shown its counters (at most every 50 ms): now the
    /// layer above is to set its own. Costs next to nothing otherwise; to be called whenever there is nothing
    /// else to do.
    #[inline]
    pub fn counters_due(&mut self) -> Option<&mut Live> {
        let live = self.tally.live.as_deref_mut()?;
        if live.take_due() { Some(live) } else { None }
    }

    /// As [`Endpoint::counters_due`], for the event loop beside the layer above: if they were shown after `seen`, which
    /// then becomes the time when they were.
    #[inline]
    pub(crate) fn counters_written_after(&mut self, seen: &mut Time) -> Option<&mut Live> {
        let live = self.tally.live.as_deref_mut()?;
        let written = live.written_at();
        if std::mem::replace(seen, written) == written { None } else { Some(live) }
    }

    /// Processes that memory is shared with, and buffers of ours that they have at present.
    pub fn shared(&self) -> (usize, usize) {
        self.shm.as_ref().map_or((0, 0), Shm::counts)
    }

    /// Faults injected on purpose so far, if any were asked for ([`EndpointConfig::faults`]).
    pub fn faults(&self) -> Option<FaultCounts> {
        self.network.transport.faults()
    }

    /// See [`crate::for_rcl::next_closed`].
    pub(crate) fn next_closed(&mut self) -> Option<(ChannelId, PeerId)> {
        self.closed.get_or_insert_default().pop_front()
    }

    /// The clock of this endpoint, and of the [runtime](crate::runtime) that has it.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Shows others the counters as they are.
    fn publish(&mut self, now: Time) {
        let stats = self.stats();
        let (shared, lent) = self.shared();
        let backlog = self.network.backlog_len();
        let Some(live) = &mut self.tally.live else { return };
        if let Some(shm) = &mut self.shm {
            shm.take_traffic(|peer, traffic| live.add(peer, traffic));
        }
        let free = self.pool.available(self.network.mtu());
        live.publish(now, &stats, [backlog, free, shared, lent].map(|level| level as u64));
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
