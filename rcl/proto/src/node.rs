use crate::config::Config;
use crate::connection::{Body, CloseReason, Connection, Frame, Segment, State};
use crate::wire::{BITMAP_LEN, HEADER_LEN, Header, Kind};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::{BTreeMap, VecDeque};

/// Resets waiting to be sent; more than this at once is somebody's flood, and they are only a courtesy.
const RESETS_MAX: usize = 64;
/// Peers of which the latest incarnation is remembered after their connection has ended, so that a delayed
/// hello of theirs does not open it again.
const REMEMBERED_MAX: usize = 8192;

/// What has happened to the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer has answered our call, or we its.
    Connected {
        /// The other end.
        peer: PeerId,
        /// It was the peer that called.
        incoming: bool,
    },
    /// There are messages to [receive](Node::receive).
    Readable(PeerId),
    /// The connection has ended. What arrived before can still be received, until a new connection to the
    /// peer is opened or it calls again.
    Closed(PeerId, CloseReason),
}

/// A frame to be sent: the concatenation of the two.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// To whom.
    pub to: PeerId,
    head: [u8; HEADER_LEN + BITMAP_LEN],
    head_len: usize,
    body: Option<Segment>,
    sequence: Option<u64>,
}

impl Transmit {
    /// The first part.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// The second part, a piece of a message; often empty.
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    fn new(to: PeerId, frame: Frame) -> Transmit {
        let mut head = [0; HEADER_LEN + BITMAP_LEN];
        head[..HEADER_LEN].copy_from_slice(&frame.header);
        let (head_len, body) = match frame.body {
            Body::None => (HEADER_LEN, None),
            Body::Bitmap(bitmap) => {
                head[HEADER_LEN..].copy_from_slice(&bitmap.to_bytes());
                (HEADER_LEN + BITMAP_LEN, None)
            }
            Body::Segment(segment) => (HEADER_LEN, Some(segment)),
        };
        Transmit { to, head, head_len, body, sequence: frame.sequence }
    }
}

/// A message that was not accepted for sending.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection to the peer, or it is being closed.
    #[error("not connected")]
    NotConnected(Vec<u8>),
    /// As much as may wait is waiting: try again after acknowledgements have come.
    #[error("the peer or the network is slower than the sender")]
    Backpressure(Vec<u8>),
}

/// Frames that came to nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Not a frame of ours.
    pub malformed: u64,
    /// Of an incarnation that has passed.
    pub stale: u64,
    /// Calls beyond the greatest number of connections.
    pub refused: u64,
}

/// One party's connections, at most one to each peer.
#[derive(Debug)]
pub struct Node {
    config: Config,
    next_incarnation: u64,
    connections: BTreeMap<PeerId, Connection>,
    /// The latest incarnation of each peer that has ended.
    remembered: BTreeMap<PeerId, u64>,
    resets: VecDeque<(PeerId, Header)>,
    events: VecDeque<Event>,
    /// Who is asked next for a frame, so that all have their turn.
    turn: PeerId,
    counters: Counters,
}

impl Node {
    /// No connections yet. `incarnation` must be larger than that of any connection this party had in a
    /// former life: the wall clock in nanoseconds serves.
    pub fn new(config: Config, incarnation: Incarnation) -> Node {
        Node {
            config,
            // 0 stands for "not known yet" on the wire.
            next_incarnation: incarnation.0.max(1),
            connections: BTreeMap::new(),
            remembered: BTreeMap::new(),
            resets: VecDeque::new(),
            events: VecDeque::new(),
            turn: PeerId::from_u64(0),
            counters: Counters::default(),
        }
    }

    /// Calls `peer`, unless there is a connection already. Messages may be sent at once; they wait until
    /// the peer has answered.
    pub fn connect(&mut self, now: Time, peer: PeerId) {
        if self.connections.get(&peer).is_none_or(Connection::is_over) {
            let local = self.incarnation();
            self.replace(peer, Connection::connect(&self.config, now, local));
        }
    }

    /// Accepts a message for `peer`.
    ///
    /// # Errors
    /// [`SendError`] hands it back.
    pub fn send(&mut self, peer: PeerId, message: Vec<u8>) -> Result<(), SendError> {
        match self.connections.get_mut(&peer) {
            Some(c) if c.is_writable() => c.push(message).map_err(SendError::Backpressure),
            _ => Err(SendError::NotConnected(message)),
        }
    }

    /// The oldest message of `peer` not received yet.
    pub fn receive(&mut self, peer: PeerId) -> Option<Vec<u8>> {
        self.connections.get_mut(&peer)?.read()
    }

    /// Ends the connection after all messages accepted for sending have arrived; the peer's until then are
    /// still received.
    pub fn close(&mut self, peer: PeerId) {
        if let Some(c) = self.connections.get_mut(&peer) {
            c.close();
        }
    }

    /// Ends the connection at once. What has not arrived never will.
    pub fn abort(&mut self, peer: PeerId) {
        if let Some(c) = self.connections.get_mut(&peer).filter(|c| !c.is_over()) {
            let reset = c.reset();
            c.end(CloseReason::Aborted);
            self.queue_reset(peer, reset);
            self.events.push_back(Event::Closed(peer, CloseReason::Aborted));
        }
    }

    /// Takes in a frame that says it is from `peer`. True if it belongs to the connection, by both
    /// incarnations, or has opened one: only then is the place it came from worth remembering.
    pub fn on_frame(&mut self, now: Time, peer: PeerId, bytes: &[u8]) -> bool {
        let Some((header, body)) = Header::parse(bytes) else {
            self.counters.malformed += 1;
            return false;
        };
        if let Some(connection) = self.connections.get_mut(&peer) {
            let (state, ready) = (connection.state(), connection.ready());
            if connection.on_frame(now, &header, body) {
                self.announce(peer, state, ready);
                return true;
            }
        }
        match header.kind {
            Kind::Hello => return self.on_call(now, peer, &header),
            Kind::Reset => self.counters.stale += 1,
            _ => {
                self.counters.stale += 1;
                let reset = Header {
                    kind: Kind::Reset,
                    source: header.destination,
                    destination: header.source,
                    sequence: 0,
                    ack: 0,
                    limit: 0,
                };
                self.queue_reset(peer, reset);
            }
        }
        false
    }

    /// A hello that belongs to no connection there is. True if it has opened one.
    fn on_call(&mut self, now: Time, peer: PeerId, hello: &Header) -> bool {
        let known = self.connections.get(&peer).and_then(Connection::remote);
        let known = known.max(self.remembered.get(&peer).copied());
        if hello.source == 0 || known.is_some_and(|k| hello.source <= k) {
            self.counters.stale += 1;
            return false;
        }
        if let Some(old) = self.connections.get(&peer) {
            if !old.is_over() && old.state() != State::Called {
                self.events.push_back(Event::Closed(peer, CloseReason::Restarted));
            }
        } else if self.connections.len() >= self.config.connections_max {
            self.counters.refused += 1;
            return false;
        }
        let local = self.incarnation();
        self.replace(peer, Connection::accept(&self.config, now, local, hello));
        true
    }

    /// Turns what a frame or the time has changed into events.
    fn announce(&mut self, peer: PeerId, before: State, ready_before: usize) {
        let connection = &self.connections[&peer];
        let after = connection.state();
        let was_new = matches!(before, State::Calling | State::Called);
        if was_new && matches!(after, State::Open | State::Lingering(_)) {
            self.events.push_back(Event::Connected { peer, incoming: before == State::Called });
        }
        if connection.ready() > ready_before {
            self.events.push_back(Event::Readable(peer));
        }
        let was_over = matches!(before, State::Closed(_) | State::Lingering(_));
        match after {
            // A call that was never confirmed is nobody's business.
            State::Closed(_) if before == State::Called => {}
            State::Closed(reason) if !was_over => {
                if reason == CloseReason::Violation {
                    let reset = connection.reset();
                    self.queue_reset(peer, reset);
                }
                self.events.push_back(Event::Closed(peer, reason));
            }
            State::Lingering(_) if !was_over => {
                self.events.push_back(Event::Closed(peer, CloseReason::Graceful));
            }
            _ => {}
        }
    }

    /// The time is `now`; to be called at [`Node::next_deadline`], and harmless at any other time.
    pub fn on_deadline(&mut self, now: Time) {
        let due: Vec<PeerId> =
            self.connections.iter().filter(|(_, c)| c.deadline() <= now).map(|(&p, _)| p).collect();
        for peer in due {
            let connection = self.connections.get_mut(&peer).expect("just found");
            let (before, ready) = (connection.state(), connection.ready());
            let finished = connection.on_deadline(now);
            self.announce(peer, before, ready);
            if finished && ready == 0 {
                self.forget(peer);
            } else if finished {
                // Kept, without a deadline, for what is still unread.
                self.connections.get_mut(&peer).expect("still there").end(CloseReason::Graceful);
            }
        }
    }

    /// When [`Node::on_deadline`] is to be called, or [`Time::MAX`].
    pub fn next_deadline(&self) -> Time {
        self.connections.values().map(Connection::deadline).min().unwrap_or(Time::MAX)
    }

    /// The next frame to be sent now.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if let Some((to, header)) = self.resets.pop_front() {
            let frame = Frame { header: header.to_bytes(), body: Body::None, sequence: None };
            return Some(Transmit::new(to, frame));
        }
        // From the one whose turn it is to the end, and from the start.
        let turn = self.turn;
        let ours = self.connections.range_mut(turn..).find_map(|c| Some((*c.0, c.1.poll_transmit(now)?)));
        let (peer, frame) = match ours {
            Some(found) => found,
            None => self.connections.range_mut(..turn).find_map(|c| Some((*c.0, c.1.poll_transmit(now)?)))?,
        };
        self.turn = PeerId::from_u64(peer.to_u64().wrapping_add(1));
        Some(Transmit::new(peer, frame))
    }

    /// The socket did not take a frame: it is sent again, or missed by nobody.
    pub fn not_sent(&mut self, transmit: &Transmit) {
        if let (Some(sequence), Some(c)) = (transmit.sequence, self.connections.get_mut(&transmit.to)) {
            c.not_sent(sequence);
        }
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Frames that came to nothing.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation - 1
    }

    fn queue_reset(&mut self, peer: PeerId, reset: Header) {
        if self.resets.len() < RESETS_MAX {
            self.resets.push_back((peer, reset));
        }
    }

    /// Puts a new connection in the place of an old one.
    fn replace(&mut self, peer: PeerId, connection: Connection) {
        self.forget(peer);
        self.connections.insert(peer, connection);
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(remote) = self.connections.remove(&peer).and_then(|c| c.remote()) {
            self.remembered.insert(peer, remote);
            if self.remembered.len() > REMEMBERED_MAX {
                self.remembered.pop_first();
            }
        }
    }
}
