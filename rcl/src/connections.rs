use crate::counters::{self, Shown};
use crate::memory::PoolMemory;
use crate::reserve::Reserve;
use crate::shared::{Accepted, Arrival, Links, Refused};
use crate::{Event, SendError};
use cl::for_rcl::{channel, channel_of, is_starved, next_closed, poll_network, transmit};
use cl::{Buf, Clock};
use cl_base::{PeerId, Time};
use rcl_proto::{
    Checksum, CloseReason, Config, ConfigError, Counters, HEADER_LEN, Node, Sink, Sizes, Source, TransferId,
};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// When to try again after the socket, or a ring of shared memory, has taken no more.
const BUSY_RETRY: Duration = Duration::from_micros(500);
/// A window smaller than this cannot show which of its segments are lost.
const WINDOW_MIN: usize = 4;
/// A reader that has much to read looks at the network so many times within the bound after which its peers
/// would call it dead.
const LOOKS_IN_TIME: u32 = 16;

/// Frames taken in at once when the program holds all buffers: as many as an endpoint takes in with buffers.
const FRAMES_WITH_RESERVE: usize = 64;

/// Reliable connections over an endpoint of `cl` that its owner drives: the [runtime](cl::runtime), say. All
/// calls take that endpoint, which must always be the same. [`Endpoint`](crate::Endpoint) is the two in one.
///
/// The owner hands in whatever arrives ([`Connections::on_received`]), calls [`Connections::poll`] after that and
/// at [`Connections::next_deadline`], until it has nothing more, and may sleep then:
///
/// ```no_run
/// use cl::Received;
/// use cl::runtime::{Core, Service, TimerId};
/// use rcl::{Config, Connections, Event};
///
/// /// Sends every message back.
/// struct Echo {
///     connections: Connections,
/// }
///
/// const DUE: TimerId = TimerId(0);
///
/// impl Echo {
///     fn on_event(&mut self, cx: &mut Core<()>, event: Event) {
///         if let Event::Message { from, buf } = event
///             && let Err(refused) = self.connections.send(cx.endpoint_mut(), from, buf)
///         {
///             eprintln!("{refused}");
///         }
///     }
/// }
///
/// impl Service for Echo {
///     type Mail = ();
///
///     fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
///         if let Some(event) = self.connections.on_received(cx.endpoint_mut(), received) {
///             self.on_event(cx, event);
///         }
///     }
///
///     fn on_timer(&mut self, _: &mut Core<()>, _: TimerId) {}
///
///     /// Before the thread spins or sleeps, so after every message and every timer.
///     fn on_idle(&mut self, cx: &mut Core<()>) {
///         while let Some(event) = self.connections.poll(cx.endpoint_mut()) {
///             self.on_event(cx, event);
///         }
///         cx.set_timer(self.connections.next_deadline(), DUE);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Connections {
    /// Connections by the network,
    node: Node<PoolMemory>,
    /// and those by shared memory.
    links: Links,
    /// Where others read the counters.
    shown: Option<Shown>,
    reserve: Reserve,
    clock: Clock,
    /// The socket took no more; there may be something to send.
    busy_until: Time,
    /// When frames were last taken in though the application had enough to read.
    looked_at: Time,
    /// Calls over shared memory: until when each is to be answered, in that order.
    calls: VecDeque<(Time, PeerId, u32)>,
    dead_after: Duration,
}

/// What strangers cannot guess, for this life.
fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    let drawn = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
    assert_eq!(drawn, Ok(secret.len()), "Linux has it since 3.17, and hands out 256 bytes at once");
    secret
}

/// An event, of which the log is told what happens rarely.
#[inline]
fn noted(event: Option<Event>, shared: bool) -> Option<Event> {
    if let Some(Event::Connected(_) | Event::Closed(..)) = event {
        note(event.as_ref(), shared);
    }
    event
}

#[cold]
fn note(event: Option<&Event>, shared: bool) {
    let by = if shared { "shared memory" } else { "the network" };
    match event {
        Some(Event::Connected(peer)) => tracing::info!(%peer, by, "connected"),
        Some(Event::Closed(peer, why)) => tracing::info!(%peer, by, %why, "the connection has ended"),
        _ => {}
    }
}

impl Connections {
    /// No connections yet, over `cl`. Calls of peers are answered. `segment_len` of `protocol` is set to what
    /// `cl` carries in one datagram; the windows and the length of messages are limited to what its socket and
    /// its pool hold; `own_address` is that of `cl`, if none is given.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot be.
    pub fn new(cl: &mut cl::Endpoint, mut protocol: Config) -> Result<Connections, ConfigError> {
        protocol.check()?;
        let shown = cl.counters().map(Shown::new);
        let reserve = Reserve::new(cl);
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
        protocol.own_address.get_or_insert(match cl.local_addr().ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            own => own,
        });
        let (calls, dead_after) = (VecDeque::new(), protocol.dead_after);
        // What waits must fit into what the network's protocol accepts, which counts a part of it double.
        let links = Links::new(protocol.send_buffer / 2);
        let clock = cl.clock();
        let memory = PoolMemory(cl.pool().clone());
        let node = Node::new(protocol, &secret(), memory);
        let (busy_until, looked_at) = (Time::MAX, Time::ZERO);
        Ok(Connections { node, links, shown, reserve, clock, busy_until, looked_at, calls, dead_after })
    }

    /// As [`Endpoint::counters`](crate::Endpoint::counters).
    pub fn counters(&self) -> Counters {
        counters::of_all(&self.node, &self.links)
    }

    /// As [`Endpoint::sizes`](crate::Endpoint::sizes).
    pub fn sizes(&self, peer: PeerId) -> Option<Sizes> {
        self.links.sizes(peer).or_else(|| self.node.sizes(peer))
    }

    /// As [`Endpoint::connect`](crate::Endpoint::connect).
    pub fn connect(&mut self, cl: &mut cl::Endpoint, peer: PeerId, addr: SocketAddr) {
        if self.links.has(peer) || self.node.is_connected(peer) {
            return;
        }
        cl.resolve(peer, addr);
        // A connection with oneself has both ends here, which by shared memory would be one and the same link.
        match channel(cl, peer).filter(|_| peer != cl.me()) {
            Some(channel) => {
                let call = self.links.connect(cl, peer, channel);
                self.calls.retain(|(_, called, _)| *called != peer);
                self.calls.push_back((self.clock.now() + self.dead_after, peer, call));
            }
            None => self.node.connect(self.clock.now(), peer, addr),
        }
        self.flush(cl);
    }

    /// As [`Endpoint::send`](crate::Endpoint::send).
    ///
    /// # Errors
    /// [`SendError`] hands the message back.
    #[inline]
    pub fn send(&mut self, cl: &mut cl::Endpoint, peer: PeerId, buf: Buf) -> Result<(), SendError> {
        if self.links.has_hot(peer) {
            return self.links.send(cl, peer, buf);
        }
        if self.node.send(peer, buf)? {
            self.flush(cl);
        }
        Ok(())
    }

    /// As [`Endpoint::send_large`](crate::Endpoint::send_large).
    ///
    /// # Errors
    /// [`rcl_proto::SendError`] hands it back.
    pub fn send_large(
        &mut self,
        cl: &mut cl::Endpoint,
        peer: PeerId,
        source: Box<dyn Source>,
    ) -> Result<TransferId, rcl_proto::SendError<Box<dyn Source>>> {
        if self.links.has(peer) {
            return self.links.send_large(cl, peer, source);
        }
        let id = self.node.send_large(peer, source)?;
        self.flush(cl);
        Ok(id)
    }

    /// As [`Endpoint::accept`](crate::Endpoint::accept).
    pub fn accept(&mut self, cl: &mut cl::Endpoint, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        if self.links.has(peer) {
            return self.links.accept(cl, peer, id, sink);
        }
        self.node.accept(peer, id, sink);
        self.flush(cl);
    }

    /// As [`Endpoint::reject`](crate::Endpoint::reject).
    pub fn reject(&mut self, cl: &mut cl::Endpoint, peer: PeerId, id: TransferId) {
        if self.links.has(peer) {
            return self.links.reject(cl, peer, id);
        }
        self.node.reject(peer, id);
        self.flush(cl);
    }

    /// As [`Endpoint::close`](crate::Endpoint::close).
    pub fn close(&mut self, cl: &mut cl::Endpoint, peer: PeerId) {
        if self.links.has(peer) {
            return self.links.close(cl, peer);
        }
        self.node.close(peer);
        self.flush(cl);
    }

    /// As [`Endpoint::abort`](crate::Endpoint::abort).
    pub fn abort(&mut self, cl: &mut cl::Endpoint, peer: PeerId) {
        self.links.abort(cl, peer, CloseReason::Aborted);
        self.node.abort(peer);
        self.flush(cl);
    }

    /// The next event, if there is one. Otherwise does what is to be done now: sends, acknowledges, sends again.
    pub fn poll(&mut self, cl: &mut cl::Endpoint) -> Option<Event> {
        if let Some(event) = self.next_event() {
            return Some(event);
        }
        self.begin_round(cl);
        self.end_round(cl);
        self.last_event(cl)
    }

    /// Takes in what `cl` has received. The event that this makes, if it makes one; [`Connections::poll`] knows
    /// of further ones.
    #[inline]
    pub fn on_received(&mut self, cl: &mut cl::Endpoint, received: cl::Received) -> Option<Event> {
        if let Some(channel) = channel_of(&received) {
            let node = &self.node;
            return match self.links.on_received(cl, channel, received, |p| node.is_connected(p)) {
                Arrival::Event(event) => noted(Some(event), true),
                Arrival::Nothing => None,
                Arrival::Refused(refused) => {
                    self.go_by_network(cl, refused);
                    None
                }
            };
        }
        let now = self.on_frame(cl, received);
        self.after_frame(cl, now)
    }

    /// What a frame of the network has led to.
    #[inline]
    fn after_frame(&mut self, cl: &mut cl::Endpoint, now: Time) -> Option<Event> {
        let event = noted(self.node.poll_event(), false);
        if event.is_none() || matches!(event, Some(Event::Closed(..))) {
            // Whoever hears of the end may stop polling, and the peer waits for the last word.
            self.transmit(cl, now);
        }
        event
    }

    /// Takes in a frame, and tells the time.
    #[inline]
    pub(crate) fn on_frame(&mut self, cl: &mut cl::Endpoint, frame: cl::Received) -> Time {
        let cl::Received { from, addr, buf, .. } = frame;
        let now = self.clock.now();
        if self.links.has(from) {
            // The kernel tells if the process at the other end of shared memory has ended, and nothing else does.
            self.node.on_frame_but_calls(now, from, addr, buf);
        } else if self.reserve.is_whole() {
            self.node.on_frame(now, from, addr, buf);
        } else {
            self.node.on_frame_but_contents(now, from, addr, buf);
            self.reserve.fill(cl);
        }
        if now >= self.next_deadline() {
            self.on_deadline(cl, now);
        }
        now
    }

    /// The next event there is.
    #[inline]
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.links.poll_event() {
            return noted(Some(event), true);
        }
        noted(self.node.poll_event(), false)
    }

    /// The same at the end of a round: if there is none, the owner may sleep.
    #[inline]
    pub(crate) fn last_event(&mut self, cl: &cl::Endpoint) -> Option<Event> {
        let event = self.next_event();
        if event.is_none() {
            self.look_again(cl);
        }
        event
    }

    /// What is to be done before arrivals are looked for.
    #[inline]
    pub(crate) fn begin_round(&mut self, cl: &mut cl::Endpoint) {
        if let Some(live) = cl.counters_due()
            && let Some(shown) = &mut self.shown
        {
            shown.show(live, &self.node, &self.links);
        }
        if self.links.is_busy() {
            let node = &self.node;
            self.links.pump(cl, |peer| node.is_connected(peer));
        }
        if self.node.has_work() {
            self.flush(cl);
        }
        if is_starved(cl) || !self.reserve.is_whole() {
            self.listen_with_reserve(cl);
        }
    }

    /// The program holds all buffers that frames could be received into, and perhaps waits for an acknowledgement that
    /// frees some. So they are received into those that were kept back.
    #[cold]
    fn listen_with_reserve(&mut self, cl: &mut cl::Endpoint) {
        self.reserve.fill(cl);
        if !is_starved(cl) {
            return;
        }
        self.reserve.lend();
        for _ in 0..FRAMES_WITH_RESERVE {
            let Some(frame) = poll_network(cl) else { break };
            self.on_frame(cl, frame);
        }
        self.reserve.fill(cl);
        self.flush(cl);
    }

    /// Shows others what has been counted.
    fn show(&mut self, cl: &mut cl::Endpoint) {
        if let Some(live) = cl.counters()
            && let Some(shown) = &mut self.shown
        {
            shown.show(live, &self.node, &self.links);
        }
    }

    /// And after it.
    #[inline]
    pub(crate) fn end_round(&mut self, cl: &mut cl::Endpoint) {
        while let Some((channel, peer)) = next_closed(cl) {
            if let Some(refused) = self.links.on_closed(cl, channel, peer) {
                self.go_by_network(cl, refused);
            }
        }
        if self.next_deadline() != Time::MAX {
            let now = self.clock.now();
            while let Some(&(due, peer, call)) = self.calls.front()
                && due <= now
            {
                // The kernel tells of a process that has ended; this one lives, and does nothing.
                self.calls.pop_front();
                if self.links.is_calling(peer, call) {
                    self.links.abort(cl, peer, CloseReason::Dead);
                }
            }
            if now >= self.next_deadline() {
                self.on_deadline(cl, now);
                self.transmit(cl, now);
            }
        }
        self.look_again(cl);
    }

    /// True if something waits for room in a ring, or for buffers: these come back without a word.
    #[inline]
    fn awaits_room(&self, cl: &cl::Endpoint) -> bool {
        self.links.is_busy() || self.node.is_starved() || is_starved(cl)
    }

    /// Sees to it that nobody sleeps long over what comes back without a word.
    #[inline]
    fn look_again(&mut self, cl: &cl::Endpoint) {
        if self.busy_until == Time::MAX && self.awaits_room(cl) {
            self.busy_until = self.clock.now() + BUSY_RETRY;
        }
    }

    /// The peer does not answer over shared memory, or has called us by the network at the same time: that is the
    /// way, then. What was accepted for it has gone nowhere yet.
    fn go_by_network(&mut self, cl: &mut cl::Endpoint, refused: Refused) {
        let Refused { peer, waiting, closing } = refused;
        if let Some(addr) = cl.address_of(peer) {
            self.node.connect(self.clock.now(), peer, addr);
        }
        for accepted in waiting {
            let sent = match accepted {
                Accepted::Message(buf) => self.node.send(peer, buf).map(|_| true).map_err(|e| e.reason),
                // The application knows it by this name.
                Accepted::Announced(name, source) => {
                    self.node.send_large(peer, source).map(|id| id == name).map_err(|e| e.reason)
                }
            };
            if sent != Ok(true) {
                // Order cannot be kept without it.
                tracing::warn!(%peer, ?sent, "a message accepted before the connection was made");
                return self.node.abort(peer);
            }
        }
        if closing {
            self.node.close(peer);
        }
        self.flush(cl);
    }

    /// True if it is time to look at the network though there is enough to read.
    pub(crate) fn is_late(&mut self) -> bool {
        let now = self.clock.now();
        let late = now.saturating_since(self.looked_at) >= self.dead_after / LOOKS_IN_TIME;
        if late {
            self.looked_at = now;
        }
        late
    }

    /// Before a sleep: how long it may last at the most; zero if there is something to do.
    pub(crate) fn prepare_park(&mut self, cl: &mut cl::Endpoint) -> Option<Duration> {
        if self.node.has_events() || self.links.has_events() {
            return Some(Duration::ZERO);
        }
        self.flush(cl);
        self.look_again(cl);
        self.show(cl);
        let deadline = self.next_deadline();
        (deadline != Time::MAX).then(|| deadline.saturating_since(self.clock.now()))
    }

    fn on_deadline(&mut self, cl: &mut cl::Endpoint, now: Time) {
        self.node.on_deadline(now);
        if self.busy_until <= now {
            self.transmit(cl, now);
        }
    }

    /// When [`Connections::poll`] is to be called though nothing arrives, by `cl`'s clock.
    #[inline]
    pub fn next_deadline(&self) -> Time {
        let call = self.calls.front().map_or(Time::MAX, |(due, ..)| *due);
        self.node.next_deadline().min(self.busy_until).min(call)
    }

    /// As [`Endpoint::flush`](crate::Endpoint::flush).
    pub fn flush(&mut self, cl: &mut cl::Endpoint) {
        if self.node.has_work() {
            self.transmit(cl, self.clock.now());
        }
        cl.flush();
    }

    pub(crate) fn transmit(&mut self, cl: &mut cl::Endpoint, now: Time) {
        self.busy_until = if self.awaits_room(cl) { now + BUSY_RETRY } else { Time::MAX };
        while let Some(frame) = self.node.poll_transmit(now) {
            let parts = [IoSlice::new(frame.head), IoSlice::new(frame.body)];
            let parts = if frame.body.is_empty() { &parts[..1] } else { &parts[..] };
            match transmit(cl, frame.to, frame.addr, parts, frame.lasting) {
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
