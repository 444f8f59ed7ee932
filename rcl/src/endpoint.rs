use crate::connections::Connections;
use crate::{Event, SendError};
use cl::for_rcl::poll_network;
use cl::{Buf, Exhausted};
use cl_base::{PeerId, Time};
use rcl_proto::{Checksum, Config, ConfigError, Counters, Sink, Sizes, Source, TransferId};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Frames taken from the network in one call of `poll` that hands nothing out: enough for a message of
/// many segments, few enough that the caller gets its turn.
const FRAMES_PER_POLL: usize = 64;
/// Events handed out of what has arrived before, until the network is looked at again. A reader that needs
/// long for each message shall still answer its peers.
const EVENTS_PER_LOOK: u32 = 8;

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

/// Why an endpoint was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting of the protocol cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The endpoint below cannot be opened.
    #[error(transparent)]
    Below(#[from] cl::OpenError),
}

/// One party's reliable connections. See the [crate's page](crate).
#[derive(Debug)]
pub struct Endpoint {
    cl: cl::Endpoint,
    connections: Connections,
    /// Events handed out since the network was looked at.
    events: u32,
}

impl Endpoint {
    /// Opens the endpoint below, and no connections. Calls of peers are answered.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong.
    pub fn open(config: EndpointConfig) -> Result<Endpoint, OpenError> {
        config.protocol.check()?;
        let mut cl = cl::Endpoint::open(config.cl)?;
        let connections = Connections::new(&mut cl, config.protocol)?;
        Ok(Endpoint { cl, connections, events: 0 })
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
        self.connections.counters()
    }

    /// The state of the connection to `peer`, if there is one. Over shared memory there are no segments: what is
    /// `held` and `waiting` has found no room in the ring yet, or the peer has not answered.
    pub fn sizes(&self, peer: PeerId) -> Option<Sizes> {
        self.connections.sizes(peer)
    }

    /// Calls `peer` at `addr`, unless there is a connection. Messages may be sent at once.
    /// [`Event::Connected`] says that the peer has answered, [`Event::Closed`] that it has not. A peer that
    /// shares memory with us is called that way, and the connection stays with the way it was made.
    pub fn connect(&mut self, peer: PeerId, addr: SocketAddr) {
        self.connections.connect(&mut self.cl, peer, addr);
    }

    /// Accepts a message for `peer`, without copying it. Small messages wait for others to share their
    /// datagram, until the next [`Endpoint::poll`] or [`Endpoint::flush`].
    ///
    /// # Errors
    /// [`SendError`] hands the message back. After [`Refusal::Backpressure`](crate::Refusal::Backpressure) it may
    /// be accepted once [`Endpoint::poll`] or [`Endpoint::progress`] has taken in what the peer says.
    #[inline]
    pub fn send(&mut self, peer: PeerId, buf: Buf) -> Result<(), SendError> {
        self.connections.send(&mut self.cl, peer, buf)
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
        self.connections.send_large(&mut self.cl, peer, source)
    }

    /// Takes a message that `peer` has announced. It is put into `sink`, which comes back with
    /// [`Event::Received`]. Nothing happens if there is none of that name.
    pub fn accept(&mut self, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        self.connections.accept(&mut self.cl, peer, id, sink);
    }

    /// Tells `peer` that a message it has announced is not wanted.
    pub fn reject(&mut self, peer: PeerId, id: TransferId) {
        self.connections.reject(&mut self.cl, peer, id);
    }

    /// Ends the connection after all messages accepted have arrived; [`Event::Closed`] says when.
    pub fn close(&mut self, peer: PeerId) {
        self.connections.close(&mut self.cl, peer);
    }

    /// Ends the connection at once.
    pub fn abort(&mut self, peer: PeerId) {
        self.connections.abort(&mut self.cl, peer);
    }

    /// The next event, if there is one. Otherwise does what is to be done now: sends, receives, acknowledges,
    /// sends again.
    #[inline]
    pub fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.connections.next_event() {
            self.events += 1;
            if self.events >= EVENTS_PER_LOOK {
                self.events = 0;
                self.look_if_late();
            }
            return Some(event);
        }
        self.receive()
    }

    fn receive(&mut self) -> Option<Event> {
        self.events = 0;
        self.connections.begin_round(&mut self.cl);
        if let Some(event) = self.connections.next_event() {
            return Some(event);
        }
        for _ in 0..FRAMES_PER_POLL {
            let Some(received) = self.cl.poll() else { break };
            if let Some(event) = self.connections.on_received(&mut self.cl, received) {
                return Some(event);
            }
        }
        self.connections.end_round(&mut self.cl);
        self.connections.last_event(&self.cl)
    }

    /// Does what is to be done now, as [`Endpoint::poll`] does, without handing anything out: frames of the
    /// network are taken in and acknowledged, peers that ask whether we live are answered, room that peers have
    /// granted is used, what was lost is sent again. What arrives is kept for [`Endpoint::poll`], within the window
    /// that was granted for it. A call takes in up to 64 frames and costs one system call at least.
    ///
    /// For a program that for a while wants no messages, or waits for [`Endpoint::send`] to accept one. A program
    /// that neither polls nor calls this within half of [`Config::dead_after`] may be called dead by its peers. Over
    /// shared memory, where the kernel tells of deaths, it may pause for as long as it likes.
    pub fn progress(&mut self) {
        self.connections.begin_round(&mut self.cl);
        let mut last = None;
        for _ in 0..FRAMES_PER_POLL {
            let Some(frame) = poll_network(&mut self.cl) else { break };
            last = Some(self.connections.on_frame(&mut self.cl, frame));
        }
        if let Some(now) = last {
            self.connections.transmit(&mut self.cl, now);
        }
        self.connections.end_round(&mut self.cl);
        self.cl.flush();
    }

    /// Looks at the network though there is something else to hand out, if that has not been done for long.
    #[cold]
    fn look_if_late(&mut self) {
        if self.connections.is_late() {
            self.progress();
        }
    }

    /// Sleeps until something arrives, something is to be done ([`Endpoint::next_deadline`]), or `limit` has
    /// passed. Returns at once if there is an event to be polled, and may return early. To be called when
    /// [`Endpoint::poll`] has nothing, and followed by it, for this call does none of its work.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn park(&mut self, limit: Option<Duration>) -> io::Result<()> {
        match self.connections.prepare_park(&mut self.cl) {
            Some(Duration::ZERO) => Ok(()),
            own => self.cl.park([limit, own].into_iter().flatten().min()),
        }
    }

    /// When [`Endpoint::poll`] is to be called though nothing arrives.
    pub fn next_deadline(&self) -> Time {
        self.connections.next_deadline()
    }

    /// Sends what may be sent.
    pub fn flush(&mut self) {
        self.connections.flush(&mut self.cl);
    }
}
