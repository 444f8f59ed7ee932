use crate::config::Config;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::wire::{Bitmap, HEADER_LEN, Header, Kind};
use cl_base::Time;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A silent peer is asked so many times before it is called dead. A quarter of the bound apart, they fit
/// within it.
const PROBES_MIN: u32 = 3;

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Both sides have closed, and everything has arrived.
    #[error("closed by both sides")]
    Graceful,
    /// Our side gave it up.
    #[error("aborted")]
    Aborted,
    /// The peer gave it up, or knows nothing of it (any longer).
    #[error("reset by the peer")]
    Reset,
    /// The peer was silent for too long.
    #[error("the peer is dead")]
    Dead,
    /// The peer has started anew and forgotten this connection.
    #[error("the peer has restarted")]
    Restarted,
    /// The peer has broken the protocol.
    #[error("the peer has broken the protocol")]
    Violation,
}

/// A range of a message that is kept until it is acknowledged.
#[derive(Clone, Debug)]
pub struct Segment {
    message: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl std::ops::Deref for Segment {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.message[self.range.clone()]
    }
}

/// What goes into a frame behind the header.
pub(crate) enum Body {
    None,
    Bitmap(Bitmap),
    Segment(Segment),
}

/// A frame to be sent.
pub(crate) struct Frame {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) body: Body,
    /// For [`Connection::not_sent`].
    pub(crate) sequence: Option<u64>,
}

/// How far a connection has come.
///
/// ```text
/// connect ──▶ Calling ──any frame of ours──▶ Open ──both Fins──▶ Lingering ──▶ (removed)
/// a Hello ──▶ Called  ──────"───────────────▶  │
///             any state ──reset, silence, restart, violation, abort──▶ Closed ──▶ (removed)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// We have said hello.
    Calling,
    /// The peer has; that it is not an echo of the past is not confirmed yet.
    Called,
    Open,
    /// All is done, but the peer may not know: acknowledgements are still sent until then.
    Lingering(Time),
    Closed(CloseReason),
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    local: u64,
    /// The peer's incarnation, once it is known.
    remote: Option<u64>,
    state: State,
    sender: Sender,
    receiver: Receiver,
    dead_after: Duration,
    linger: Duration,
    heard_at: Time,
    /// When to say hello again, or to ask whether the peer lives.
    probe_at: Time,
    /// When that was done last, or something was heard.
    probed_at: Time,
    /// Probes since something was heard.
    probes: u32,
    probe_due: bool,
    ack_due: bool,
    welcome_due: bool,
}

impl Connection {
    /// The end that calls.
    pub(crate) fn connect(config: &Config, now: Time, local: u64) -> Connection {
        Connection::new(config, now, local, None, State::Calling)
    }

    /// The end that is called.
    pub(crate) fn accept(config: &Config, now: Time, local: u64, hello: &Header) -> Connection {
        let mut c = Connection::new(config, now, local, Some(hello.source), State::Called);
        c.sender.acknowledge(now, 0, None, hello.limit);
        c.welcome_due = true;
        c
    }

    fn new(config: &Config, now: Time, local: u64, remote: Option<u64>, state: State) -> Connection {
        Connection {
            local,
            remote,
            state,
            sender: Sender::new(config),
            receiver: Receiver::new(config.window, config.message_len_max),
            dead_after: config.dead_after,
            linger: (config.rto_max * 8).min(config.dead_after),
            heard_at: now,
            probe_at: now + config.dead_after / 4,
            probed_at: now,
            probes: 0,
            probe_due: state == State::Calling,
            ack_due: false,
            welcome_due: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn remote(&self) -> Option<u64> {
        self.remote
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Closed(_) | State::Lingering(_))
    }

    /// Takes in a frame. False if it belongs to another incarnation of either side.
    pub(crate) fn on_frame(&mut self, now: Time, header: &Header, body: &[u8]) -> bool {
        if header.kind == Kind::Hello {
            return self.on_hello(now, header);
        }
        if header.destination != self.local || self.remote.is_some_and(|r| r != header.source) {
            return false;
        }
        if let State::Closed(_) = self.state {
            return true;
        }
        if header.kind == Kind::Reset {
            if !self.is_over() {
                self.state = State::Closed(CloseReason::Reset);
            }
            return true;
        }
        self.remote = Some(header.source);
        if matches!(self.state, State::Calling | State::Called) {
            // The other side may be waiting for a frame that proves us alive.
            self.ack_due |= self.state == State::Calling;
            self.state = State::Open;
        }
        self.heard_at = now;
        self.probe_at = now + self.dead_after / 4;
        self.probed_at = now;
        self.probes = 0;
        let bitmap = if header.kind == Kind::Ack { Bitmap::parse(body) } else { None };
        if !self.sender.acknowledge(now, header.ack, bitmap.as_ref(), header.limit) {
            self.state = State::Closed(CloseReason::Violation);
            return true;
        }
        if header.kind.is_segment() {
            self.ack_due = true;
            if self.receiver.insert(header.sequence, header.kind, body).is_err() {
                self.state = State::Closed(CloseReason::Violation);
                return true;
            }
            if self.receiver.is_finished() {
                // The peer has ended: so do we, after what we still have to say.
                self.sender.finish();
            }
        }
        self.ack_due |= header.kind == Kind::Ping;
        self.end_if_done(now);
        true
    }

    /// A hello of the peer of this connection: again, or at the same time as ours.
    fn on_hello(&mut self, now: Time, header: &Header) -> bool {
        match self.remote {
            Some(remote) if remote != header.source => return false,
            _ => {}
        }
        if !self.is_over() {
            self.remote = Some(header.source);
            self.sender.acknowledge(now, 0, None, header.limit);
            self.heard_at = now;
            self.welcome_due = true;
        }
        true
    }

    fn end_if_done(&mut self, now: Time) {
        if self.state == State::Open && self.receiver.is_finished() && self.sender.is_finished() {
            self.state = State::Lingering(now + self.linger);
        }
    }

    /// Accepts a message for sending, or hands it back: too much waits, or the end has been announced.
    pub(crate) fn push(&mut self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        self.sender.push(message)
    }

    /// True if messages are still accepted for sending.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_over() && !self.sender.is_finishing()
    }

    /// The oldest message not read yet. Messages that arrived before the end can be read after it.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        let message = self.receiver.read()?;
        self.ack_due |= self.receiver.grant_is_due();
        Some(message)
    }

    /// Messages that can be read.
    pub(crate) fn ready(&self) -> usize {
        self.receiver.ready()
    }

    /// Ends the connection after what has been accepted for sending.
    pub(crate) fn close(&mut self) {
        self.sender.finish();
    }

    /// Ends it now.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        self.state = State::Closed(reason);
    }

    /// The reset frame that tells the peer of our giving up.
    pub(crate) fn reset(&self) -> Header {
        self.header(Kind::Reset, 0, 0)
    }

    fn header(&self, kind: Kind, sequence: u64, limit: u64) -> Header {
        Header {
            kind,
            source: self.local,
            destination: self.remote.unwrap_or(0),
            sequence,
            ack: self.receiver.ack(),
            limit,
        }
    }

    fn frame(&mut self, kind: Kind, body: Body, sequence: Option<u64>) -> Frame {
        let limit = self.receiver.grant();
        Frame { header: self.header(kind, sequence.unwrap_or(0), limit).to_bytes(), body, sequence }
    }

    /// The next frame to be sent now.
    pub(crate) fn poll_transmit(&mut self, now: Time) -> Option<Frame> {
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        if std::mem::take(&mut self.welcome_due) {
            return Some(self.frame(Kind::Welcome, Body::None, None));
        }
        if std::mem::take(&mut self.probe_due) {
            let kind = if self.state == State::Calling { Kind::Hello } else { Kind::Ping };
            return Some(self.frame(kind, Body::None, None));
        }
        if std::mem::take(&mut self.ack_due) {
            let bitmap = self.receiver.bitmap();
            return Some(self.frame(Kind::Ack, Body::Bitmap(bitmap), None));
        }
        if self.state != State::Open {
            return None;
        }
        let out = self.sender.transmit(now)?;
        let body = Body::Segment(Segment { message: out.message, range: out.range });
        Some(self.frame(out.kind, body, Some(out.sequence)))
    }

    /// The socket did not take the frame with this segment.
    pub(crate) fn not_sent(&mut self, sequence: u64) {
        self.sender.not_sent(sequence);
    }

    /// When [`Connection::on_deadline`] is to be called.
    pub(crate) fn deadline(&self) -> Time {
        match self.state {
            State::Closed(_) => Time::MAX,
            State::Lingering(until) => until,
            State::Calling | State::Called | State::Open => {
                let dead_at = match self.probes {
                    PROBES_MIN.. => self.heard_at + self.dead_after,
                    _ => Time::MAX,
                };
                self.sender.deadline().min(self.probe_time()).min(dead_at)
            }
        }
    }

    /// When to probe: sooner if the peer holds us up, for its word that it no longer does may be lost.
    fn probe_time(&self) -> Time {
        if self.is_held_up() {
            self.probe_at.min(self.probed_at + self.sender.timeout())
        } else {
            self.probe_at
        }
    }

    /// True if nothing can be sent before the peer says something.
    fn is_held_up(&self) -> bool {
        self.state != State::Open || self.sender.is_blocked_by_peer()
    }

    /// Time has passed. True if the connection is no longer needed.
    pub(crate) fn on_deadline(&mut self, now: Time) -> bool {
        match self.state {
            State::Closed(_) => return true,
            State::Lingering(until) => return now >= until,
            State::Calling | State::Called | State::Open => {}
        }
        // Silence alone proves nothing if it was us who did not listen: probes must have had no answer, too.
        if now.saturating_since(self.heard_at) >= self.dead_after && self.probes >= PROBES_MIN {
            self.state = State::Closed(CloseReason::Dead);
            return false;
        }
        self.sender.on_deadline(now);
        if now >= self.probe_time() {
            self.probe_due = true;
            self.probed_at = now;
            self.probes += 1;
            self.probe_at = now + self.dead_after / 4;
            if self.is_held_up() {
                self.sender.back_off();
            }
        }
        false
    }
}
