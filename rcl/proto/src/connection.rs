use crate::config::Config;
use crate::connection::doubt::Doubt;
use crate::gate::Promise;
use crate::memory::{Memory, Sink, Source};
use crate::receiver::{Read, Receiver};
use crate::round_trip::ACK_DELAY;
use crate::sender::{Outgoing, Sender};
use crate::wire::{BITMAP_LEN_MAX, CallRefusal, Checksum, HEADER_LEN, Header, Kind, NUMBERS_LEN_MAX, u64_at};
use cl_base::Time;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

mod doubt;

pub(crate) use doubt::{Newcomer, Verdict};

/// A silent peer is asked so many times before it is called dead. A quarter of the bound apart, they fit
/// within it.
const PROBES_MIN: u32 = 3;
/// Who is called so late that the silence may be its own asks again, but no more often than this in all.
const PROBES_MAX: u32 = 2 * PROBES_MIN;
/// An end that has nothing more to say waits for so many of the longest time-outs since it was asked last, in
/// case its last acknowledgement was lost. Who asks later is answered without the connection (see
/// [`Connection::epitaph`]).
const LINGER_TIMEOUTS: u32 = 8;

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
    /// Nothing had gone over it, and its place was given to another peer.
    #[error("given up for another peer, as nothing had gone over it")]
    Unused,
    /// The peer has refused our call.
    #[error("the peer has refused the call: {0}")]
    Refused(CallRefusal),
}

/// How far a connection has come.
///
/// ```text
/// connect ──▶ Calling ──Welcome──▶ Answered ──any other frame──▶ Open ──both Fins──▶ Lingering ──▶ (removed)
///                a Confirm, with or without a call of ours ──────▶  │
///             any state ──reset, silence, restart, violation, abort──▶ Closed ──▶ (removed)
///             Calling, Answered ──Refuse──▶ Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// We have said hello.
    Calling,
    /// The peer has answered, and remembers nothing of it until we have confirmed.
    Answered,
    Open,
    /// All is done, but the peer may not know: acknowledgements are still sent until then.
    Lingering(Time),
    Closed(CloseReason),
}

/// The first part of a frame: the header, and what of the body is not a piece of a message.
pub(crate) struct Head {
    pub(crate) bytes: [u8; HEADER_LEN + BITMAP_LEN_MAX],
    pub(crate) len: usize,
}

const _: () = assert!(BITMAP_LEN_MAX >= NUMBERS_LEN_MAX);

impl Head {
    pub(crate) fn new() -> Head {
        Head { bytes: [0; HEADER_LEN + BITMAP_LEN_MAX], len: 0 }
    }
}

/// One end of a connection.
pub(crate) struct Connection<B> {
    /// Where the peer was heard last.
    pub(crate) addr: SocketAddr,
    /// The numbers of both ends; the peer's once it is known.
    local: u64,
    remote: Option<u64>,
    /// What the call was confirmed with, or is to be; 0 before.
    token: u64,
    /// What the peer has to hear again with that.
    promise: u32,
    state: State,
    pub(crate) sender: Sender<B>,
    pub(crate) receiver: Receiver<B>,
    checksum: Checksum,
    dead_after: Duration,
    linger: Duration,
    keep_alive: bool,
    heard_at: Time,
    /// When to say hello again, or to ask whether the peer lives.
    probe_at: Time,
    /// When that was done last, or something was heard.
    probed_at: Time,
    /// Regular probes since something was heard.
    probes: u32,
    probe_due: bool,
    /// When we have called, and how often.
    called_at: Time,
    calls: u32,
    confirmed: bool,
    /// An acknowledgement is to be sent now, or at `ack_at`.
    ack_due: bool,
    ack_at: Time,
    /// Segments that have come since the last acknowledgement, and when the newest did.
    unacknowledged: u32,
    arrived_at: Time,
    /// How much of the window of all connections is this one's.
    share: usize,
    /// Transfers of ours that have arrived and of which the application does not know yet.
    pub(crate) sent: VecDeque<u64>,
    /// Somebody else has called in the peer's name.
    doubt: Option<Box<Doubt>>,
    /// Until then it is not asked again whether it lives, for it has just said so.
    believed_until: Time,
    /// How often it was asked.
    questions: u64,
    /// The peer asks whether we live, with this number.
    asked: Option<u64>,
}

impl<B: Deref<Target = [u8]>> Connection<B> {
    /// An end that calls, or takes in the confirmation of a call next. `local`: its number.
    pub(crate) fn new(config: &Config, now: Time, local: u64, addr: SocketAddr) -> Connection<B> {
        Connection {
            addr,
            local,
            remote: None,
            token: 0,
            promise: 0,
            state: State::Calling,
            sender: Sender::new(config),
            receiver: Receiver::new(config),
            checksum: config.checksum,
            dead_after: config.dead_after,
            linger: (config.rto_max * LINGER_TIMEOUTS).min(config.dead_after),
            keep_alive: config.keep_alive,
            heard_at: now,
            probe_at: now + config.dead_after / 4,
            probed_at: now,
            probes: 0,
            probe_due: true,
            called_at: now,
            calls: 0,
            confirmed: false,
            ack_due: false,
            ack_at: Time::MAX,
            unacknowledged: 0,
            arrived_at: now,
            share: usize::MAX,
            sent: VecDeque::new(),
            doubt: None,
            believed_until: Time::ZERO,
            questions: 0,
            asked: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn local(&self) -> u64 {
        self.local
    }

    pub(crate) fn remote(&self) -> Option<u64> {
        self.remote
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Closed(_) | State::Lingering(_))
    }

    /// True if a call with this number from this address is one of the peer's, of which it perhaps does not know yet that it
    /// is this connection. Who calls from elsewhere than where we have called the peer need not be the peer.
    pub(crate) fn is_with(&self, caller: u64, addr: SocketAddr) -> bool {
        let unsettled = matches!(self.state, State::Calling | State::Answered);
        !self.is_over() && (self.remote == Some(caller) || (unsettled && self.addr == addr))
    }

    pub(crate) fn set_share(&mut self, share: usize) {
        self.share = share;
    }

    /// True if a frame with this header belongs to this connection, by the numbers of both ends. A call that is not
    /// known to be answered for good admits what tells it the peer's.
    pub(crate) fn admits(&self, header: &Header) -> bool {
        let tells = match self.state {
            State::Calling => matches!(header.kind, Kind::Welcome | Kind::Confirm),
            State::Answered => {
                (header.kind == Kind::Welcome && header.answer) || header.kind == Kind::Confirm
            }
            _ => false,
        };
        if header.kind == Kind::Refuse && self.state == State::Calling {
            return header.destination == self.local;
        }
        header.destination == self.local
            && (self.remote == Some(header.source) || (tells && header.source != 0))
    }

    /// Takes in a frame that it [admits](Connection::admits).
    /// Its contents are to be kept if `keep`; otherwise they count as lost.
    pub(crate) fn on_frame<M: Memory<Buf = B>>(
        &mut self,
        now: Time,
        header: &Header,
        mut frame: B,
        keep: bool,
    ) {
        if let State::Closed(_) = self.state {
            return;
        }
        match header.kind {
            Kind::Welcome => return self.on_welcome(now, header),
            Kind::Confirm => return self.on_confirm(now, header),
            Kind::Refuse => {
                if matches!(self.state, State::Calling | State::Answered) {
                    self.state = State::Closed(CloseReason::Refused(CallRefusal::from_wire(header.sequence)));
                }
                return;
            }
            Kind::Reset if self.is_over() => return,
            Kind::Reset if header.sequence != self.token => {
                // It may be said of a frame that has overtaken the confirmation. So we ask.
                self.probe_due = true;
                return;
            }
            Kind::Reset if !self.is_epitaph(header) => {
                self.state = State::Closed(CloseReason::Reset);
                return;
            }
            _ => {}
        }
        if self.state == State::Answered {
            self.open();
        }
        self.heard(now);
        let bitmap = if header.kind == Kind::Ack { &frame[HEADER_LEN..] } else { &[] };
        if self.sender.acknowledge(now, header, bitmap, &mut self.sent).is_err() {
            self.state = State::Closed(CloseReason::Violation);
            return;
        }
        if header.kind == Kind::Ack {
            self.sender.note_needless(header.sequence);
        }
        match header.kind {
            Kind::Ping => self.ack_due = true,
            Kind::Ask => self.asked = Some(u64_at(&frame, HEADER_LEN)),
            Kind::Alive => self.on_alive(now, u64_at(&frame, HEADER_LEN)),
            _ => {}
        }
        if header.kind == Kind::Ping || header.kind.is_segment() {
            // It does not know yet that all is done.
            self.linger_on(now);
        }
        if header.kind.is_segment() && !keep {
            self.ack_due |= header.answer;
            self.receiver.tally.stalls += 1;
        } else if header.kind.is_segment() {
            M::advance(&mut frame, HEADER_LEN);
            let gap_before = self.receiver.has_gap();
            let Ok(new) = self.receiver.insert(header.sequence, header.kind, frame) else {
                self.state = State::Closed(CloseReason::Violation);
                return;
            };
            self.receiver.note_copy(header.sequence, header.copy, new);
            self.arrived_at = now;
            self.unacknowledged += 1;
            let many = self.unacknowledged >= self.receiver.ack_every(self.share);
            if !new || header.answer || many || gap_before || self.receiver.has_gap() {
                self.ack_due = true;
            } else {
                self.ack_at = self.ack_at.min(now + ACK_DELAY);
            }
        }
        self.end_if_done();
    }

    /// The peer answers our call. Further answers, to calls that were repeated, say nothing new, unless the peer says
    /// that it can no longer keep what it had promised and has taken nothing in. Another life of it cannot know that.
    fn on_welcome(&mut self, now: Time, welcome: &Header) {
        let waits = matches!(self.state, State::Calling | State::Answered);
        if !waits || self.remote == Some(welcome.source) {
            return;
        }
        let first = self.state == State::Calling && self.calls == 1;
        self.state = State::Answered;
        self.remote = Some(welcome.source);
        (self.token, self.promise) = (welcome.sequence, welcome.delay);
        self.take_grant(now, welcome);
        self.heard(now);
        if first {
            self.sender.sample(now, now.saturating_since(self.called_at));
        }
        self.probe_due = true;
    }

    /// The peer means its call: the first time, or again, because it has not heard that we know.
    pub(crate) fn on_confirm(&mut self, now: Time, confirm: &Header) {
        if matches!(self.state, State::Calling | State::Answered) {
            self.open();
            self.remote = Some(confirm.source);
            self.token = confirm.sequence;
            self.probe_due = false;
            self.take_grant(now, confirm);
            if !confirm.answer {
                self.sender.sample(now, Promise(confirm.delay).age(now));
            }
        }
        self.heard(now);
        self.ack_due = true;
    }

    /// A greeting acknowledges nothing, whatever it says.
    fn take_grant(&mut self, now: Time, greeting: &Header) {
        let plain = Header { ack: 0, ..*greeting };
        let taken = self.sender.acknowledge(now, &plain, &[], &mut self.sent);
        assert!(taken.is_ok(), "nothing is claimed");
    }

    fn heard(&mut self, now: Time) {
        self.heard_at = now;
        self.probe_at = now + self.dead_after / 4;
        self.probed_at = now;
        self.probes = 0;
    }

    fn end_if_done(&mut self) {
        if self.state == State::Open && self.receiver.is_finished() && self.sender.is_finished() {
            self.state = State::Lingering(self.heard_at + self.linger);
            self.ack_due = true;
        }
    }

    /// If all is done: answers the peer for another while.
    pub(crate) fn linger_on(&mut self, now: Time) {
        if let State::Lingering(_) = self.state {
            self.state = State::Lingering(now + self.linger);
        }
    }

    /// What is to be said about this connection after its graceful end to a peer that does not know of it yet:
    /// that all its segments have arrived, up to this one. 0 after another end.
    pub(crate) fn epitaph(&self) -> u64 {
        if matches!(self.state, State::Lingering(_)) { self.receiver.ack() } else { 0 }
    }

    /// True if a reset is such an [epitaph](Connection::epitaph): all that we have sent has arrived, and the peer
    /// has read it to the end. It has then sent all it had to say, and our acknowledgement of that has arrived.
    fn is_epitaph(&self, reset: &Header) -> bool {
        self.sender.has_sent_all() && reset.ack == self.sender.next()
    }

    /// True if messages are still accepted for sending.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_over() && !self.sender.is_finishing()
    }

    /// Announces a large message.
    pub(crate) fn announce(&mut self, source: Box<dyn Source>) -> Result<u64, Box<dyn Source>> {
        self.sender.announce(source)
    }

    /// Takes a transfer that was announced. The sink, if all of nothing has arrived with that.
    pub(crate) fn accept_transfer(&mut self, id: u64, sink: Box<dyn Sink>) -> Option<Box<dyn Sink>> {
        match self.receiver.accept(id, sink) {
            Ok(()) => {
                self.sender.answer(id, true);
                None
            }
            Err((sink, true)) => {
                self.sender.answer(id, true);
                Some(sink)
            }
            Err((_, false)) => None,
        }
    }

    /// Does not take it.
    pub(crate) fn reject_transfer(&mut self, id: u64) {
        if self.receiver.reject(id) {
            self.sender.answer(id, false);
        }
    }

    /// What the application is to know next, in the peer's order. What arrived before the end can be read
    /// after it. `alone`: see [`Receiver::read`].
    pub(crate) fn read<M: Memory<Buf = B>>(&mut self, memory: &M, alone: bool) -> Read<B> {
        loop {
            let Ok(read) = self.receiver.read(memory, alone) else {
                self.receiver.discard();
                if !self.is_over() {
                    self.state = State::Closed(CloseReason::Violation);
                }
                return Read::Nothing;
            };
            if !self.ack_due && self.receiver.grant_is_due(self.share) {
                self.ack_due = true;
            }
            match read {
                Read::Answer(id, true) => match self.sender.accepted(id) {
                    Ok(true) => {
                        self.sender.tally.sent(0);
                        self.sent.push_back(id);
                    }
                    Ok(false) => {}
                    Err(_) => self.state = State::Closed(CloseReason::Violation),
                },
                Read::Answer(id, false) => match self.sender.rejected(id) {
                    Ok(()) => return Read::Answer(id, false),
                    Err(_) => self.state = State::Closed(CloseReason::Violation),
                },
                Read::Fin => {
                    // The peer has ended: so do we, after what we still have to say.
                    self.sender.finish();
                    self.ack_due = true;
                    self.end_if_done();
                }
                read => {
                    if let Read::Message(message) = &read {
                        self.receiver.tally.received(message.len() as u64);
                    }
                    return read;
                }
            }
        }
    }

    /// True if the application has anything to read.
    pub(crate) fn has_unread(&self) -> bool {
        self.receiver.has_unread()
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
        Header { ack: 0, sequence: self.token, ..self.header(Kind::Reset) }
    }

    fn header(&self, kind: Kind) -> Header {
        Header {
            kind,
            source: self.local,
            destination: self.remote.unwrap_or(0),
            ack: self.receiver.ack(),
            ..Header::EMPTY
        }
    }

    /// Writes a frame, whose body begins with `numbers_len` bytes that are in `head` already.
    fn write(&mut self, now: Time, head: &mut Head, numbers_len: usize, kind: Kind, out: Option<&Outgoing>) {
        let delay = now.saturating_since(self.arrived_at).as_nanos();
        let header = Header {
            answer: out.is_some_and(|o| o.answer),
            copy: out.map_or(0, |o| o.copy),
            sequence: match (out, kind) {
                (Some(out), _) => out.sequence,
                (None, Kind::Ack) => self.receiver.tell_needless(),
                (None, _) => self.token,
            },
            grant: self.receiver.grant(self.share),
            delay: u32::try_from(delay).unwrap_or(u32::MAX),
            ..self.header(kind)
        };
        head.len = HEADER_LEN + numbers_len;
        let body = out.map_or(&[][..], |o| self.sender.body(o));
        header.write(&mut head.bytes[..head.len], body, self.checksum);
        self.unacknowledged = 0;
        self.ack_at = Time::MAX;
        // Only an acknowledgement of its own tells what has arrived after a gap, or needlessly.
        self.ack_due &= kind != Kind::Ack && (self.receiver.has_gap() || self.receiver.has_needless_untold());
    }

    /// Writes the first part of the next frame to be sent now. The segment that follows it, if there is one.
    pub(crate) fn poll_transmit(&mut self, now: Time, head: &mut Head) -> Option<Option<Outgoing>> {
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        if std::mem::take(&mut self.probe_due) {
            match self.state {
                State::Calling => self.greet(now, head, Kind::Hello),
                State::Answered => self.greet(now, head, Kind::Confirm),
                _ => self.write(now, head, 0, Kind::Ping, None),
            }
            return Some(None);
        }
        if self.write_questions(now, head) {
            return Some(None);
        }
        if self.ack_due && self.receiver.has_gap() {
            self.write_ack(now, head);
            return Some(None);
        }
        if matches!(self.state, State::Answered | State::Open)
            && let Some(out) = self.sender.transmit(now)
        {
            let len = out.kind.numbers_len();
            let numbers = [out.numbers[0].to_le_bytes(), out.numbers[1].to_le_bytes()];
            head.bytes[HEADER_LEN..HEADER_LEN + len].copy_from_slice(&numbers.as_flattened()[..len]);
            self.write(now, head, len, out.kind, Some(&out));
            return Some(Some(out));
        }
        if self.ack_due {
            self.write_ack(now, head);
            return Some(None);
        }
        None
    }

    /// Writes a call, or its confirmation.
    fn greet(&mut self, now: Time, head: &mut Head, kind: Kind) {
        if kind == Kind::Hello {
            self.called_at = now;
            self.calls = self.calls.saturating_add(1);
        }
        let header = Header {
            // Not the first time: no measure of the round trip.
            answer: kind == Kind::Confirm && std::mem::replace(&mut self.confirmed, true),
            sequence: self.token,
            ack: 0,
            grant: self.receiver.grant(self.share),
            delay: self.promise,
            ..self.header(kind)
        };
        head.len = HEADER_LEN;
        header.write(&mut head.bytes[..HEADER_LEN], &[], self.checksum);
    }

    fn write_ack(&mut self, now: Time, head: &mut Head) {
        let len = self.receiver.bitmap(&mut head.bytes[HEADER_LEN..]);
        self.write(now, head, len, Kind::Ack, None);
    }

    /// The socket did not take the frame with this segment.
    pub(crate) fn not_sent(&mut self, sequence: u64) {
        self.sender.not_sent(sequence);
    }

    /// When [`Connection::on_deadline`] is to be called.
    pub(crate) fn deadline(&self) -> Time {
        match self.state {
            State::Closed(_) => Time::MAX,
            State::Lingering(until) => until.min(self.ack_at),
            State::Calling | State::Answered | State::Open => {
                let doubt_at = self.doubt.as_ref().map_or(Time::MAX, |doubt| doubt.deadline());
                let own = self.sender.deadline().min(self.probe_time()).min(self.dead_at());
                own.min(self.ack_at).min(doubt_at)
            }
        }
    }

    /// When the peer is dead. Silence alone proves nothing if it was us who did not listen: probes must have
    /// had no answer, too.
    fn dead_at(&self) -> Time {
        match self.probes {
            // The time after the last of them is up when the next one is due.
            PROBES_MIN.. => (self.heard_at + self.dead_after).max(self.probe_at),
            _ => Time::MAX,
        }
    }

    /// When to probe: sooner if the peer holds us up, for its word that it no longer does may be lost.
    fn probe_time(&self) -> Time {
        if self.is_held_up() {
            self.probe_at.min(self.probed_at + self.sender.timeout())
        } else if self.keep_alive || !self.sender.is_idle() {
            self.probe_at
        } else {
            Time::MAX
        }
    }

    /// True if nothing can be sent before the peer says something.
    fn is_held_up(&self) -> bool {
        self.state != State::Open || self.sender.is_blocked_by_peer()
    }

    /// Time has passed. True if the connection is no longer needed.
    pub(crate) fn on_deadline(&mut self, now: Time) -> bool {
        if self.ack_at <= now {
            self.ack_at = Time::MAX;
            self.ack_due = true;
        }
        match self.state {
            State::Closed(_) => return true,
            State::Lingering(until) => return now >= until,
            State::Calling | State::Answered | State::Open => {}
        }
        // Who comes late has not listened, and asks once more.
        let late_after = self.dead_after / 8;
        let late = |due: Time| now.saturating_since(due) > late_after;
        let dead_at = self.dead_at();
        if now >= dead_at && (!late(dead_at) || self.probes >= PROBES_MAX) {
            self.state = State::Closed(CloseReason::Dead);
            return false;
        }
        if self.doubt.is_some() {
            self.on_doubt_deadline(now);
            if self.is_over() {
                return false;
            }
        }
        // Otherwise small delays do not add up.
        let grid = if late(self.probe_at) { now } else { self.probe_at };
        self.sender.on_deadline(now);
        if now >= self.probe_time() {
            self.probe_due = true;
            self.probed_at = now;
            if self.is_held_up() {
                self.sender.back_off();
            }
            // Those made in haste, while held up, do not count.
            if now >= self.probe_at {
                self.probe_at = grid + self.dead_after / 4;
                self.probes += 1;
            }
        }
        false
    }
}
