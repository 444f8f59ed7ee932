use cl::for_rcl::transmit;
use cl::{Clock, OpenError, Refusal};
use cl_base::{Incarnation, PeerId, Time};
use rcl_proto::{Config, Counters, Event, HEADER_LEN, Node, SendError};
use std::io::IoSlice;
use std::net::SocketAddr;

/// Frames taken from the network between two rounds of sending: enough that one acknowledgement answers
/// many segments, few enough that it does not come late.
const FRAMES_PER_ROUND: usize = 32;

/// How to open an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The endpoint below.
    pub cl: cl::EndpointConfig,
    /// The protocol's settings. `segment_len` is set to what the endpoint below carries in one datagram.
    pub protocol: Config,
}

impl EndpointConfig {
    /// The defaults for `me` at `bind`.
    pub fn new(me: PeerId, bind: SocketAddr) -> EndpointConfig {
        EndpointConfig { cl: cl::EndpointConfig::new(me, bind), protocol: Config::new(0) }
    }
}

/// One party's reliable connections. See the [crate's page](crate).
#[derive(Debug)]
pub struct Endpoint {
    cl: cl::Endpoint,
    node: Node,
    clock: Clock,
    next_deadline: Time,
}

impl Endpoint {
    /// Opens the endpoint below, and no connections. Calls of peers are answered.
    ///
    /// # Errors
    /// As [`cl::Endpoint::open`].
    pub fn open(config: EndpointConfig) -> Result<Endpoint, OpenError> {
        let cl = cl::Endpoint::open(config.cl)?;
        let mut protocol = config.protocol;
        protocol.segment_len = cl.unfragmented_len_max() - HEADER_LEN;
        // What is on the way to a slow receiver lies in its socket buffer. A peer's cannot be known, but it is
        // likely as large as ours.
        let datagrams = cl.receive_buffer() / 2 / cl.mtu();
        protocol.window = protocol.window.min(datagrams as u64).max(4);
        let clock = Clock::new();
        let node = Node::new(protocol, Incarnation(clock.now().as_nanos()));
        Ok(Endpoint { cl, node, clock, next_deadline: Time::MAX })
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.cl.local_addr()
    }

    /// The endpoint below, for its statistics.
    pub fn cl(&self) -> &cl::Endpoint {
        &self.cl
    }

    /// Frames that came to nothing.
    pub fn counters(&self) -> Counters {
        self.node.counters()
    }

    /// Calls `peer` at `addr`, unless there is a connection. Messages may be sent at once.
    /// [`Event::Connected`] says that the peer has answered, [`Event::Closed`] that it has not.
    pub fn connect(&mut self, peer: PeerId, addr: SocketAddr) {
        self.cl.resolve(peer, addr);
        self.node.connect(self.clock.now(), peer);
        self.flush();
    }

    /// Accepts a message for `peer` and sends what may be sent.
    ///
    /// # Errors
    /// [`SendError`] hands the message back.
    pub fn send(&mut self, peer: PeerId, message: Vec<u8>) -> Result<(), SendError> {
        self.node.send(peer, message)?;
        self.flush();
        Ok(())
    }

    /// The oldest message of `peer` not received yet.
    pub fn receive(&mut self, peer: PeerId) -> Option<Vec<u8>> {
        self.node.receive(peer)
    }

    /// Ends the connection after all messages accepted have arrived; [`Event::Closed`] says when.
    pub fn close(&mut self, peer: PeerId) {
        self.node.close(peer);
        self.flush();
    }

    /// Ends the connection at once.
    pub fn abort(&mut self, peer: PeerId) {
        self.node.abort(peer);
        self.flush();
    }

    /// Does what is to be done now: receives, acknowledges, sends again. The next event, if there is one;
    /// call it until there is none.
    pub fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.node.poll_event() {
            return Some(event);
        }
        for _ in 0..FRAMES_PER_ROUND {
            let Some(received) = self.cl.poll() else { break };
            let cl::Received { from, addr, buf, .. } = received;
            let ours = self.node.on_frame(self.clock.now(), from, &buf);
            // A peer that calls is answered where it called from, and may move, for its frames prove themselves
            // by the connection's incarnations. Anybody else is not followed.
            let known = self.cl.address_of(from);
            if known.is_none() || (ours && known != Some(addr)) {
                self.cl.resolve(from, addr);
            }
        }
        let now = self.clock.now();
        if now >= self.next_deadline {
            self.node.on_deadline(now);
        }
        self.flush();
        self.node.poll_event()
    }

    /// When [`Endpoint::poll`] is to be called though nothing arrives.
    pub fn next_deadline(&self) -> Time {
        self.next_deadline
    }

    /// Sends what may be sent.
    fn flush(&mut self) {
        let now = self.clock.now();
        while let Some(frame) = self.node.poll_transmit(now) {
            let Some(addr) = self.cl.address_of(frame.to) else {
                self.node.not_sent(&frame);
                continue;
            };
            let parts = [IoSlice::new(frame.head()), IoSlice::new(frame.body())];
            match transmit(&mut self.cl, frame.to, addr, &parts) {
                Ok(()) => {}
                Err(Refusal::Backpressure) => {
                    // The next poll tries again.
                    self.node.not_sent(&frame);
                    break;
                }
                // As good as lost on the way: the time-out sends it again, or declares the peer dead.
                Err(error) => tracing::debug!(to = %frame.to, %error, "frame not sent"),
            }
        }
        self.next_deadline = self.node.next_deadline();
    }
}
