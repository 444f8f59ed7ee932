use crate::config::Config;
use crate::connection::{CloseReason, Connection, Head, State};
use crate::gate::Gate;
use crate::memory::{Memory, Sink, Source};
use crate::past::{Past, Remembered};
use crate::receiver::Read;
use crate::shares::{Group, Shares};
use crate::wire::{FrameError, HEADER_LEN, Header, Kind};
use cl_base::{PeerId, Time};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;

mod calls;
mod counters;
mod event;

pub use counters::{Counters, Sizes};
pub use event::{Event, Refusal, SendError, TransferId, Transmit};

/// Answers to frames of no connection that wait to be sent; more than this at once is somebody's flood, and who means
/// it asks again.
const ANSWERS_MAX: usize = 64;
/// Events that wait for the application, in terms of the connections there may be: a peer that starts anew again
/// and again, while the application does not ask, is not answered beyond this.
const EVENTS_PER_CONNECTION: usize = 4;

/// Connections that lacked a buffer of which so many are tried again in one call: each costs a look at the memory.
const STARVED_TRIES: usize = 8;

/// What of a frame is taken in.
#[derive(Clone, Copy)]
struct Taking {
    calls: bool,
    contents: bool,
}

struct Slot<B> {
    peer: PeerId,
    connection: Connection<B>,
    /// It is in the queue of those that may have something to send.
    active: bool,
    /// It is in the queue of those to be read, or of those that lack a buffer for that.
    readable: bool,
    /// It holds a large buffer, and is counted for that.
    large: bool,
    /// Its end has been reported.
    reported: bool,
    /// Where the peer was when it began, and when that was.
    group: Group,
    since: Time,
    /// The peer has called.
    called: bool,
    /// It has sent something.
    used: bool,
    /// What came in the peer's name and was dropped, while this connection was there.
    dropped: Counters,
}

/// One party's connections, at most one to each peer.
pub struct Node<M: Memory> {
    config: Config,
    memory: M,
    /// The place of each peer's connection; never iterated.
    places: FxHashMap<PeerId, usize>,
    last: Option<(PeerId, usize)>,
    slots: Vec<Option<Slot<M::Buf>>>,
    /// When each of them is to be called, and the least of these or something less.
    deadlines: Vec<Time>,
    deadline: Time,
    vacant: Vec<usize>,
    active: VecDeque<usize>,
    readable: VecDeque<usize>,
    /// Those of which the next message needs a buffer that was not there, the longest-waiting first.
    starved: VecDeque<usize>,
    gate: Gate,
    shares: Shares,
    /// Not before then it is looked for a place that could be given up.
    search_at: Time,
    remembered: Remembered,
    /// What is said to those with whom there is no connection, or no more.
    answers: VecDeque<(PeerId, SocketAddr, Header)>,
    events: VecDeque<Event<M::Buf>>,
    head: Head,
    counters: Counters,
}

impl<M: Memory> Node<M> {
    /// No connections yet. `secret` must be another one in each life, and one that nobody can guess: the numbers of
    /// connections follow from it, by which lives are told apart, and what strangers can do hangs on that.
    pub fn new(config: Config, secret: &[u8; 32], memory: M) -> Node<M> {
        Node {
            shares: Shares::new(&config),
            search_at: Time::ZERO,
            config,
            memory,
            places: FxHashMap::default(),
            last: None,
            slots: Vec::new(),
            deadlines: Vec::new(),
            deadline: Time::MAX,
            vacant: Vec::new(),
            active: VecDeque::new(),
            readable: VecDeque::new(),
            starved: VecDeque::new(),
            gate: Gate::new(secret),
            remembered: Remembered::default(),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            head: Head::new(),
            counters: Counters::default(),
        }
    }

    /// Calls `peer` at `addr`, unless there is a connection already. Messages may be sent at once; they wait
    /// until the peer has answered.
    pub fn connect(&mut self, now: Time, peer: PeerId, addr: SocketAddr) {
        if self.slot(peer).is_none_or(|(_, s)| s.connection.is_over()) {
            self.begin(now, peer, addr);
        }
    }

    /// True if there is a connection to `peer`, or will be when it has answered.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        let place = self.places.get(&peer);
        place.and_then(|&p| self.slots[p].as_ref()).is_some_and(|s| !s.connection.is_over())
    }

    /// Accepts a message for `peer`. `Ok(true)` says that it is worth sending at once; otherwise messages to
    /// come may share its frame.
    ///
    /// # Errors
    /// [`SendError`] hands it back.
    pub fn send(&mut self, peer: PeerId, message: M::Buf) -> Result<bool, SendError<M::Buf>> {
        if message.len() > self.config.message_len_max {
            return Err(SendError { buf: message, reason: Refusal::TooLong });
        }
        let Some((place, _)) = self.slot(peer) else {
            return Err(SendError { buf: message, reason: Refusal::NotConnected });
        };
        let slot = self.slots[place].as_mut().expect("just found");
        if !slot.connection.is_writable() {
            return Err(SendError { buf: message, reason: Refusal::NotConnected });
        }
        let pushed = slot.connection.sender.push(&self.memory, message);
        let urgent = pushed.map_err(|buf| SendError { buf, reason: Refusal::Backpressure })?;
        if !slot.active {
            slot.active = true;
            self.active.push_back(place);
        }
        Ok(urgent)
    }

    /// Announces a large message to `peer`. It is sent once the peer has accepted it, between the messages
    /// that follow; the announcement has its place among them.
    ///
    /// # Errors
    /// [`SendError`] hands it back.
    pub fn send_large(
        &mut self,
        peer: PeerId,
        source: Box<dyn Source>,
    ) -> Result<TransferId, SendError<Box<dyn Source>>> {
        let Some((place, slot)) = self.slot(peer).filter(|(_, s)| s.connection.is_writable()) else {
            return Err(SendError { buf: source, reason: Refusal::NotConnected });
        };
        match slot.connection.announce(source) {
            Ok(id) => {
                self.touch(place);
                Ok(TransferId(id))
            }
            Err(buf) => Err(SendError { buf, reason: Refusal::Backpressure }),
        }
    }

    /// Takes a message that `peer` has announced; it is put into `sink`. Nothing happens if there is none of
    /// that name.
    pub fn accept(&mut self, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        let Some((place, slot)) = self.slot(peer) else { return };
        let empty = slot.connection.accept_transfer(id.0, sink);
        self.touch(place);
        if let Some(sink) = empty {
            self.events.push_back(Event::Received { from: peer, id, sink });
        }
    }

    /// Tells `peer` that a message it has announced is not wanted.
    pub fn reject(&mut self, peer: PeerId, id: TransferId) {
        if let Some((place, slot)) = self.slot(peer) {
            slot.connection.reject_transfer(id.0);
            self.touch(place);
        }
    }

    /// Ends the connection after all messages accepted for sending have arrived; the peer's until then are
    /// still received.
    pub fn close(&mut self, peer: PeerId) {
        if let Some((place, slot)) = self.slot(peer) {
            slot.connection.close();
            self.touch(place);
        }
    }

    /// Ends the connection at once. What has not arrived never will.
    pub fn abort(&mut self, peer: PeerId) {
        let Some((place, slot)) = self.slot(peer).filter(|(_, s)| !s.connection.is_over()) else { return };
        let (reset, addr) = (slot.connection.reset(), slot.connection.addr);
        slot.connection.end(CloseReason::Aborted);
        self.queue_answer(peer, addr, reset);
        self.touch(place);
    }

    /// Takes in a frame that says it is from `peer` and came from `addr`. If it belongs to the connection, by
    /// the numbers of both ends, the peer is answered there from now on.
    pub fn on_frame(&mut self, now: Time, peer: PeerId, addr: SocketAddr, frame: M::Buf) {
        self.take_in(now, peer, addr, frame, Taking { calls: true, contents: true });
    }

    /// As [`Node::on_frame`], for a peer that we are connected with by other means than this: calls in its name come to
    /// nothing.
    pub fn on_frame_but_calls(&mut self, now: Time, peer: PeerId, addr: SocketAddr, frame: M::Buf) {
        self.take_in(now, peer, addr, frame, Taking { calls: false, contents: true });
    }

    /// As [`Node::on_frame`], when buffers are so scarce that none can be kept: of a frame with contents only
    /// what it acknowledges and grants is taken in, and the contents are to be sent again.
    pub fn on_frame_but_contents(&mut self, now: Time, peer: PeerId, addr: SocketAddr, frame: M::Buf) {
        self.take_in(now, peer, addr, frame, Taking { calls: true, contents: false });
    }

    fn take_in(&mut self, now: Time, peer: PeerId, addr: SocketAddr, frame: M::Buf, taking: Taking) {
        let header =
            match Header::parse(&frame, self.config.checksum_demanded.unwrap_or(self.config.checksum)) {
                Ok(header) => header,
                Err(error) => {
                    return self.drop_of(peer, |counters| match error {
                        FrameError::Truncated => &mut counters.truncated,
                        FrameError::Version => &mut counters.version,
                        FrameError::Kind => &mut counters.kind,
                        FrameError::Length => &mut counters.length,
                        FrameError::Checksum => &mut counters.checksum,
                    });
                }
            };
        if let Some((place, slot)) = self.slot(peer)
            && slot.connection.admits(&header)
        {
            let before = slot.connection.state();
            slot.connection.addr = addr;
            slot.connection.on_frame::<M>(now, &header, frame, taking.contents);
            if !slot.used && header.kind.is_segment() {
                slot.used = true;
                let group = slot.group;
                self.shares.begin_use(group);
            }
            self.announce(now, place, before);
            return;
        }
        match header.kind {
            Kind::Hello | Kind::Confirm if !taking.calls => {
                self.drop_of(peer, |counters| &mut counters.taken)
            }
            Kind::Hello => self.on_call(now, peer, addr, &header),
            Kind::Confirm => self.on_confirm(now, peer, addr, &header),
            Kind::Welcome | Kind::Reset | Kind::Refuse => self.drop_of(peer, |counters| &mut counters.stale),
            // What follows a call at once is sent again if it is admitted.
            _ if self.slot(peer).is_some_and(|(_, slot)| slot.connection.is_of_newcomer(&header)) => {
                self.drop_of(peer, |counters| &mut counters.stale);
            }
            _ => self.on_stale(now, peer, addr, &header),
        }
    }

    /// Turns what a frame or the time has changed into events and work.
    fn announce(&mut self, now: Time, place: usize, before: State) {
        self.tell(place, before);
        self.settle(now, place);
    }

    /// Turns what has changed about a connection into events.
    fn tell(&mut self, place: usize, before: State) {
        let slot = self.slots[place].as_mut().expect("it is there");
        let (peer, connection) = (slot.peer, &mut slot.connection);
        let after = connection.state();
        if before == State::Calling && matches!(after, State::Answered | State::Open) {
            self.events.push_back(Event::Connected(peer));
        }
        while let Some(id) = connection.sent.pop_front() {
            self.events.push_back(Event::Sent { to: peer, id: TransferId(id) });
        }
        if before != after
            && let State::Closed(CloseReason::Violation) = after
        {
            self.counters.violations += 1;
            slot.dropped.violations += 1;
            let (reset, addr) = (connection.reset(), connection.addr);
            self.queue_answer(peer, addr, reset);
        }
    }

    /// Something about a connection may have changed: it is looked at again.
    fn touch(&mut self, place: usize) {
        let slot = self.slots[place].as_mut().expect("it is there");
        let connection = &slot.connection;
        let deadline = connection.deadline();
        self.deadlines[place] = deadline;
        self.deadline = self.deadline.min(deadline);
        if !slot.active {
            slot.active = true;
            self.active.push_back(place);
        }
        let over = connection.is_over() && !slot.reported;
        if !slot.readable && (over || connection.has_unread()) {
            slot.readable = true;
            self.readable.push_back(place);
        }
    }

    /// The time is `now`; to be called at [`Node::next_deadline`], and harmless at any other time.
    pub fn on_deadline(&mut self, now: Time) {
        if now < self.deadline {
            return;
        }
        for place in 0..self.slots.len() {
            if self.deadlines[place] > now {
                continue;
            }
            let slot = self.slots[place].as_mut().expect("who has a deadline is there");
            let before = slot.connection.state();
            if slot.connection.on_deadline(now) {
                if slot.reported {
                    let peer = slot.peer;
                    self.forget(peer);
                } else {
                    // Kept until it is, and the peer is answered.
                    slot.connection.linger_on(now);
                    self.touch(place);
                }
            } else {
                self.announce(now, place, before);
            }
        }
        self.deadline = self.deadlines.iter().copied().min().unwrap_or(Time::MAX);
    }

    /// When [`Node::on_deadline`] is to be called, or [`Time::MAX`]. It may be a little early.
    pub fn next_deadline(&self) -> Time {
        self.deadline
    }

    /// The next frame to be sent now.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit<'_>> {
        if let Some((to, addr, header)) = self.answers.pop_front() {
            header.write(&mut self.head.bytes[..HEADER_LEN], &[], self.config.checksum);
            return Some(Transmit {
                to,
                addr,
                head: &self.head.bytes[..HEADER_LEN],
                body: &[],
                lasting: false,
                sequence: None,
            });
        }
        while let Some(&place) = self.active.front() {
            let Some(slot) = self.slots[place].as_mut() else {
                self.active.pop_front();
                continue;
            };
            slot.connection.set_share(self.shares.of(slot.group, slot.used));
            let Some(out) = slot.connection.poll_transmit(now, &mut self.head) else {
                self.active.pop_front();
                slot.active = false;
                let deadline = slot.connection.deadline();
                self.deadlines[place] = deadline;
                self.deadline = self.deadline.min(deadline);
                continue;
            };
            // All have their turn.
            self.active.rotate_left(1);
            let slot = self.slots[place].as_ref().expect("just seen");
            let body = out.as_ref().map_or(&[][..], |o| slot.connection.sender.body(o));
            return Some(Transmit {
                to: slot.peer,
                addr: slot.connection.addr,
                head: &self.head.bytes[..self.head.len],
                body,
                lasting: out.is_some_and(|o| o.lasting),
                sequence: out.map(|o| o.sequence),
            });
        }
        None
    }

    /// The socket did not take the frame for `to` with segment `sequence`: it is sent again.
    pub fn not_sent(&mut self, to: PeerId, sequence: u64) {
        if let Some((place, slot)) = self.slot(to) {
            slot.connection.not_sent(sequence);
            self.touch(place);
        }
    }

    /// What has happened, or arrived.
    pub fn poll_event(&mut self) -> Option<Event<M::Buf>> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let mut tries = self.starved.len().min(STARVED_TRIES);
        loop {
            let Some(&place) = self.readable.front() else {
                // All others have been read: those that waited for a buffer, each in turn.
                if tries == 0 {
                    return None;
                }
                tries -= 1;
                self.readable.extend(self.starved.pop_front());
                continue;
            };
            let Some(slot) = self.slots[place].as_mut() else {
                self.readable.pop_front();
                continue;
            };
            let (from, before) = (slot.peer, slot.connection.state());
            let read = slot.connection.read(&self.memory, self.shares.is_alone(slot.group));
            let large = slot.connection.receiver.holds_large(&self.memory);
            if slot.large != large {
                slot.large = large;
                self.shares.set_large(slot.group, large);
            }
            if !slot.active {
                slot.active = true;
                self.active.push_back(place);
            }
            match read {
                Read::Message(buf) => return Some(Event::Message { from, buf }),
                Read::Announced(id, len) => {
                    return Some(Event::Announced { from, id: TransferId(id), len });
                }
                Read::Received(id, sink) => {
                    return Some(Event::Received { from, id: TransferId(id), sink });
                }
                Read::Answer(id, _) => return Some(Event::Rejected { by: from, id: TransferId(id) }),
                Read::Starved => {
                    // The others go on.
                    self.readable.pop_front();
                    self.starved.push_back(place);
                    continue;
                }
                Read::Nothing | Read::Fin => {}
            }
            self.readable.pop_front();
            slot.readable = false;
            let reason = match slot.connection.state() {
                State::Closed(reason) => Some(reason),
                State::Lingering(_) => Some(CloseReason::Graceful),
                _ => None,
            };
            let report = reason.filter(|_| !slot.reported);
            slot.reported |= reason.is_some();
            self.tell(place, before);
            self.touch(place);
            self.events.extend(report.map(|r| Event::Closed(from, r)));
            if matches!(self.slots[place].as_ref().map(|s| s.connection.state()), Some(State::Closed(_))) {
                self.forget(from);
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
        }
    }

    /// True if [`Node::poll_event`] may have something, as far as is known. Whether there are buffers for those that lacked
    /// one the last time, nobody knows.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.readable.is_empty()
    }

    /// True if [`Node::poll_event`] found no buffer for a message of some peer. It is to be called again a little later:
    /// nobody tells when buffers come back.
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// True if [`Node::poll_transmit`] may have something.
    pub fn has_work(&self) -> bool {
        !self.active.is_empty() || !self.answers.is_empty()
    }

    /// What the connections have done so far.
    pub fn counters(&self) -> Counters {
        let mut all = self.counters;
        for slot in self.slots.iter().flatten() {
            all.add(&slot.connection);
        }
        all
    }

    /// The state of the connection to `peer`.
    pub fn sizes(&self, peer: PeerId) -> Option<Sizes> {
        let slot = self.slots[*self.places.get(&peer)?].as_ref()?;
        Some(Sizes::of(&slot.connection))
    }

    /// All connections, with what each has done and its state. Of what was dropped, it has what came in the peer's name
    /// while the connection was there.
    pub fn connections(&self) -> impl Iterator<Item = (PeerId, Counters, Sizes)> {
        self.slots.iter().flatten().map(|slot| {
            let mut counters = slot.dropped;
            counters.add(&slot.connection);
            (slot.peer, counters, Sizes::of(&slot.connection))
        })
    }

    fn slot(&mut self, peer: PeerId) -> Option<(usize, &mut Slot<M::Buf>)> {
        let place = match self.last {
            Some((last, place)) if last == peer => place,
            _ => {
                let place = *self.places.get(&peer)?;
                self.last = Some((peer, place));
                place
            }
        };
        Some((place, self.slots[place].as_mut()?))
    }

    /// Counts a frame that came in the name of `peer` and was dropped.
    #[cold]
    fn drop_of(&mut self, peer: PeerId, why: impl Fn(&mut Counters) -> &mut u64) {
        *why(&mut self.counters) += 1;
        if let Some((_, slot)) = self.slot(peer) {
            *why(&mut slot.dropped) += 1;
        }
    }

    fn queue_answer(&mut self, peer: PeerId, addr: SocketAddr, answer: Header) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back((peer, addr, answer));
        } else {
            self.drop_of(peer, |counters| &mut counters.unanswered);
        }
    }

    /// A new connection, with the number that follows from the former one.
    fn begin(&mut self, now: Time, peer: PeerId, addr: SocketAddr) {
        let local = self.next_number(peer);
        let connection = Connection::new(&self.config, now, local, addr);
        self.replace(now, peer, connection);
    }

    /// Puts a new connection in the place of an old one.
    fn replace(&mut self, now: Time, peer: PeerId, connection: Connection<M::Buf>) {
        self.forget(peer);
        let group = self.shares.group(connection.addr.ip());
        self.shares.begin(group);
        let slot = Slot {
            peer,
            connection,
            active: false,
            readable: false,
            large: false,
            reported: false,
            group,
            since: now,
            called: false,
            used: false,
            dropped: Counters::default(),
        };
        let place = match self.vacant.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                self.deadlines.push(Time::MAX);
                self.slots.len() - 1
            }
        };
        self.slots[place] = Some(slot);
        self.places.insert(peer, place);
        self.touch(place);
    }

    fn forget(&mut self, peer: PeerId) {
        let Some(place) = self.places.remove(&peer) else { return };
        let mut slot = self.slots[place].take().expect("it has a place");
        if slot.large {
            self.shares.set_large(slot.group, false);
        }
        self.shares.end(slot.group, slot.used);
        slot.connection.sender.renounce::<M>();
        self.counters.add(&slot.connection);
        self.last = None;
        self.deadlines[place] = Time::MAX;
        self.active.retain(|&p| p != place);
        self.readable.retain(|&p| p != place);
        self.starved.retain(|&p| p != place);
        self.vacant.push(place);
        let connection = &slot.connection;
        let past = Past {
            local: connection.local(),
            remote: connection.remote().unwrap_or(0),
            epitaph: connection.epitaph(),
        };
        self.remembered.insert(peer, past);
    }
}

impl<M: Memory> Drop for Node<M> {
    fn drop(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.connection.sender.renounce::<M>();
        }
    }
}

impl<M: Memory> std::fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("connections", &self.places.len())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
