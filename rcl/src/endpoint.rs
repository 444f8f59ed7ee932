use crate::counters::Shown;
use crate::memory::PoolMemory;
use crate::shared::{Arrival, Links};
use crate::{Event, SendError};
use cl::for_rcl::{channel, channel_of, next_closed, transmit};
use cl::{Buf, Clock, Exhausted, OpenError};
use cl_base::{Incarnation, PeerId, Time};
use rcl_proto::{Checksum, CloseReason, Config, Counters, HEADER_LEN, Node, Sink, Sizes, Source, TransferId};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

/// Frames taken from the network in one call of `poll` that hands nothing out: enough for a message of
/// many segments, few enough that the caller gets its turn.
const FRAMES_PER_POLL: usize = 64;
/// When to try again after the socket has taken no more.
const BUSY_RETRY: Duration = Duration::from_micros(500);
/// A window smaller than this cannot show which of its segments are lost.
const WINDOW_MIN: usize = 4;

/// How to open an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The endpoint below.
    pub cl: cl::EndpointConfig,
    /// The protocol's settings. `segment_len` is set to what the endpoint below carries in one datagram, the
    /// windows and the length of messages are limited to what its socket and its pool hold.
    pub protocol: Config,
}

impl EndpointConfig {
    /// The defaults for `me` at `bind`. On a loopback address, where there is no wire, the checksum covers the
    /// headers only.
    pub fn new(me: PeerId, bind: SocketAddr) -> EndpointConfig {
        let mut protocol = Config::new(0);
        if bind.ip().is_loopback() {
            protocol.checksum = Checksum::Header;
        }
        EndpointConfig { cl: cl::EndpointConfig::new(me, bind), protocol }
    }
}

/// One party's reliable connections. See the [crate's page](crate).
#[derive(Debug)]
pub struct Endpoint {
    cl: cl::Endpoint,
    /// Connections by the network,
    node: Node<PoolMemory>,
    /// and those by shared memory.
    links: Links,
    /// Where others read the counters.
    shown: Option<Shown>,
    clock: Clock,
    /// The socket took no more; there may be something to send.
    busy_until: Time,
}

impl Endpoint {
    /// Opens the endpoint below, and no connections. Calls of peers are answered.
    ///
    /// # Errors
    /// As [`cl::Endpoint::open`].
    pub fn open(config: EndpointConfig) -> Result<Endpoint, OpenError> {
        let mut cl = cl::Endpoint::open(config.cl)?;
        let shown = cl.counters().map(Shown::new);
        let mut protocol = config.protocol;
        if cl.faults().is_some() {
            // What is damaged on purpose must be found. The peer need not know of it.
            protocol.checksum_demanded.get_or_insert(protocol.checksum);
            protocol.checksum = Checksum::Full;
        }
        protocol.segment_len = cl.unfragmented_len_max() - HEADER_LEN;
        // What is on its way to us lies in our socket's buffer until it is polled, and in the pool's buffers
        // until it is read; the half of these is for what is sent.
        let datagrams = cl.receive_buffer() / 2 / cl.mtu();
        let bufs = cl.pool().available(cl.mtu()) / 2;
        protocol.window = protocol.window.min(datagrams).min(bufs).max(WINDOW_MIN);
        protocol.window_of_all = protocol.window_of_all.min(bufs).max(WINDOW_MIN);
        protocol.message_len_max = protocol.message_len_max.min(cl.pool().capacity_max());
        let clock = Clock::new();
        let memory = PoolMemory(cl.pool().clone());
        let node = Node::new(protocol, Incarnation(clock.now().as_nanos()), memory);
        Ok(Endpoint { cl, node, links: Links::default(), shown, clock, busy_until: Time::MAX })
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.cl.local_addr()
    }

    /// The endpoint below, for its statistics.
    pub fn cl(&self) -> &cl::Endpoint {
        &self.cl
    }

    /// An empty buffer with room for `len` bytes.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none; buffers come back as messages are acknowledged or dropped.
    pub fn alloc(&self, len: usize) -> Result<Buf, Exhausted> {
        self.cl.alloc(len)
    }

    /// A buffer that holds a copy of `contents`.
    ///
    /// # Errors
    /// As [`Endpoint::alloc`].
    pub fn alloc_copy(&self, contents: &[u8]) -> Result<Buf, Exhausted> {
        self.cl.alloc_copy(contents)
    }

    /// What the connections have done, and frames that came to nothing, by reason.
    pub fn counters(&self) -> Counters {
        let mut counters = self.node.counters();
        counters.stale += self.links.stale;
        counters
    }

    /// The state of the connection to `peer`, if there is one.
    pub fn sizes(&self, peer: PeerId) -> Option<Sizes> {
        self.node.sizes(peer)
    }

    /// Calls `peer` at `addr`, unless there is a connection. Messages may be sent at once.
    /// [`Event::Connected`] says that the peer has answered, [`Event::Closed`] that it has not. A peer that
    /// shares memory with us is called that way, and the connection stays with the way it was made.
    pub fn connect(&mut self, peer: PeerId, addr: SocketAddr) {
        if self.links.has(peer) || self.node.is_connected(peer) {
            return;
        }
        self.cl.resolve(peer, addr);
        match channel(&self.cl, peer) {
            Some(channel) => self.links.connect(&mut self.cl, peer, channel),
            None => self.node.connect(self.clock.now(), peer, addr),
        }
        self.flush();
    }

    /// Accepts a message for `peer`, without copying it. Small messages wait for others to share their
    /// datagram, until the next [`Endpoint::poll`] or [`Endpoint::flush`].
    ///
    /// # Errors
    /// [`SendError`] hands the message back.
    #[inline]
    pub fn send(&mut self, peer: PeerId, buf: Buf) -> Result<(), SendError> {
        if self.links.has_hot(peer) {
            return self.links.send(&mut self.cl, peer, buf);
        }
        if self.node.send(peer, buf)? {
            self.flush();
        }
        Ok(())
    }

    /// Announces a message of any length to `peer`. It is sent once the peer has [accepted](Endpoint::accept)
    /// it: between the messages that follow, which may overtake it. The announcement has its place among them.
    /// [`Event::Sent`] says that it has arrived, [`Event::Rejected`] that it is not wanted.
    ///
    /// # Errors
    /// [`rcl_proto::SendError`] hands it back.
    pub fn send_large(
        &mut self,
        peer: PeerId,
        source: Box<dyn Source>,
    ) -> Result<TransferId, rcl_proto::SendError<Box<dyn Source>>> {
        if self.links.has(peer) {
            return self.links.send_large(&mut self.cl, peer, source);
        }
        let id = self.node.send_large(peer, source)?;
        self.flush();
        Ok(id)
    }

    /// Takes a message that `peer` has announced. It is put into `sink`, which comes back with
    /// [`Event::Received`]. Nothing happens if there is none of that name.
    pub fn accept(&mut self, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        if self.links.has(peer) {
            return self.links.accept(&mut self.cl, peer, id, sink);
        }
        self.node.accept(peer, id, sink);
        self.flush();
    }

    /// Tells `peer` that a message it has announced is not wanted.
    pub fn reject(&mut self, peer: PeerId, id: TransferId) {
        if self.links.has(peer) {
            return self.links.reject(&mut self.cl, peer, id);
        }
        self.node.reject(peer, id);
        self.flush();
    }

    /// Ends the connection after all messages accepted have arrived; [`Event::Closed`] says when.
    pub fn close(&mut self, peer: PeerId) {
        if self.links.has(peer) {
            return self.links.close(&mut self.cl, peer);
        }
        self.node.close(peer);
        self.flush();
    }

    /// Ends the connection at once.
    pub fn abort(&mut self, peer: PeerId) {
        self.links.abort(&mut self.cl, peer, CloseReason::Aborted);
        self.node.abort(peer);
        self.flush();
    }

    /// The next event, if there is one. Otherwise does what is to be done now: sends, receives, acknowledges,
    /// sends again.
    #[inline]
    pub fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.links.poll_event() {
            return Some(event);
        }
        if let Some(event) = self.node_event() {
            return Some(event);
        }
        self.receive()
    }

    /// The next event of a connection by the network.
    #[inline]
    fn node_event(&mut self) -> Option<Event> {
        let event = self.node.poll_event()?;
        if let Event::Connected(peer) = event
            && self.links.is_open(peer)
        {
            // It has forgotten us, and cannot be reached any more by shared memory.
            self.links.abort(&mut self.cl, peer, CloseReason::Restarted);
            self.links.push_event(event);
            return self.links.poll_event();
        }
        Some(event)
    }

    fn receive(&mut self) -> Option<Event> {
        if let Some(live) = self.cl.counters_due()
            && let Some(shown) = &mut self.shown
        {
            let mut counters = self.node.counters();
            counters.stale += self.links.stale;
            shown.show(live, counters, self.links.count(), self.node.connections());
        }
        if self.links.is_busy() {
            self.links.pump(&mut self.cl);
        }
        if self.node.has_work() {
            self.flush();
        }
        for _ in 0..FRAMES_PER_POLL {
            let Some(received) = self.cl.poll() else { break };
            if let Some(channel) = channel_of(&received) {
                let node = &self.node;
                match self.links.on_received(&mut self.cl, channel, received, |p| node.is_connected(p)) {
                    Arrival::Event(event) => return Some(event),
                    Arrival::Nothing => continue,
                    Arrival::Refused(peer, messages) => {
                        self.go_by_network(peer, messages);
                        continue;
                    }
                }
            }
            let cl::Received { from, addr, buf, .. } = received;
            let now = self.clock.now();
            self.node.on_frame(now, from, addr, buf);
            if now >= self.next_deadline() {
                self.on_deadline(now);
            }
            let event = self.node_event();
            if event.is_none() || matches!(event, Some(Event::Closed(..))) {
                // Whoever hears of the end may stop polling, and the peer waits for the last word.
                self.transmit(now);
            }
            if event.is_some() {
                return event;
            }
        }
        while let Some((channel, peer)) = next_closed(&mut self.cl) {
            self.links.on_closed(channel, peer);
        }
        if self.next_deadline() != Time::MAX {
            let now = self.clock.now();
            if now >= self.next_deadline() {
                self.on_deadline(now);
                self.transmit(now);
            }
        }
        self.node_event().or_else(|| self.links.poll_event())
    }

    /// The peer has called us by the network at the same time: that is the way, then.
    fn go_by_network(&mut self, peer: PeerId, messages: Vec<Buf>) {
        if let Some(addr) = self.cl.address_of(peer) {
            self.node.connect(self.clock.now(), peer, addr);
        }
        for message in messages {
            if let Err(error) = self.node.send(peer, message) {
                // Order cannot be kept without it.
                tracing::warn!(%peer, %error, "a message accepted before the connection was made");
                self.node.abort(peer);
                return;
            }
        }
    }

    fn on_deadline(&mut self, now: Time) {
        self.node.on_deadline(now);
        if self.busy_until <= now {
            self.transmit(now);
        }
    }

    /// When [`Endpoint::poll`] is to be called though nothing arrives.
    pub fn next_deadline(&self) -> Time {
        self.node.next_deadline().min(self.busy_until)
    }

    /// Sends what may be sent.
    pub fn flush(&mut self) {
        if self.node.has_work() {
            self.transmit(self.clock.now());
        }
        self.cl.flush();
    }

    fn transmit(&mut self, now: Time) {
        self.busy_until = Time::MAX;
        while let Some(frame) = self.node.poll_transmit(now) {
            let parts = [IoSlice::new(frame.head), IoSlice::new(frame.body)];
            let parts = if frame.body.is_empty() { &parts[..1] } else { &parts[..] };
            match transmit(&mut self.cl, frame.to, frame.addr, parts) {
                Ok(()) => {}
                Err(cl::Refusal::Backpressure) => {
                    let (to, sequence) = (frame.to, frame.sequence);
                    if let Some(sequence) = sequence {
                        self.node.not_sent(to, sequence);
                    }
                    self.busy_until = now + BUSY_RETRY;
                    break;
                }
                // As good as lost on the way: the time-out sends it again, or declares the peer dead.
                Err(error) => tracing::debug!(to = %frame.to, %error, "frame not sent"),
            }
        }
    }
}
