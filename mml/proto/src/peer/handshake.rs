//! How keys come about: our attempts, the answers to the peer's, and what new keys change.
//!
//! *Crossing.* When both sides have an `init` under way, one of the two must count, or each would install the other's
//! session. The smaller party leaves the larger one's `init` unanswered for a while after it has sent its own, and the
//! larger one, having answered, does not listen to the answer to its own.

use super::{Context, Link, Peer};
use crate::ack::AckReceiver;
use crate::gate::{self, Admission};
use crate::handshake::{Answer, Attempt, Flight, SessionKeys, common_version, prologue};
use crate::mac::MAC_BYTES;
use crate::nack::NackReceiver;
use crate::noise;
use crate::session::{Epoch, Repeat, Session};
use crate::wire::handshake::{Accepted, Init, InitFrame, Notice, Refused};
use crate::wire::{self, Kind};
use crate::{Config, Delivery, DownReason, Event, FailReason, Pair, Verdict};
use cl_base::{Incarnation, PeerId, Time};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An `init` sent so often in vain is replaced by a new one: the peer may have taken it and forgotten its answer.
const SENT_MAX: u32 = 4;
/// An `init` that has come so often is a recording: its sender gives it up after [`SENT_MAX`], and the network
/// doubles some. Whoever repeats it makes us send no more than this.
const ANSWERED_MAX: u32 = 2 * SENT_MAX;

/// How long the smaller party insists on its own `init`.
fn crossing(config: &Config) -> Duration {
    config.rto_initial * 2
}

impl Attempt {
    /// An attempt that begins now.
    fn new(now: Time, cx: &mut Context) -> Attempt {
        let repeat = Repeat::new(now, &cx.config, &mut cx.entropy);
        Attempt { until: now + cx.config.connect_timeout, repeat, due: true, flight: None }
    }
}

impl Peer {
    pub(crate) fn connect(&mut self, now: Time, cx: &mut Context) {
        if matches!(self.link, Link::Idle | Link::Closed(_)) {
            self.link = Link::Connecting;
            self.attempt = Some(Attempt::new(now, cx));
            // The peer is about to connect by itself.
            let expected = self.answer.as_ref().is_some_and(|(_, until)| now < *until);
            self.attempt.as_mut().expect("just set").due = !expected;
        }
    }

    /// There is another static key, the peer's or ours. Nothing that was agreed on under the former one counts any longer;
    /// both sides live on, so what was under way is for the next session.
    pub(crate) fn take_pair(&mut self, now: Time, cx: &mut Context, pair: Arc<Pair>) {
        self.pair = pair;
        (self.attempt, self.answer, self.answer_due) = (None, None, false);
        (self.notice, self.cookie, self.parting) = (None, None, None);
        let wanted = matches!(self.link, Link::Up(_) | Link::Connecting);
        self.link = Link::Idle;
        if wanted {
            self.connect(now, cx);
        }
    }

    /// Asks for new keys while the session goes on, unless that is under way.
    pub(super) fn renew_keys(&mut self, now: Time, cx: &mut Context) {
        if self.attempt.is_none() {
            self.attempt = Some(Attempt::new(now, cx));
        }
    }

    /// The `init` to be sent now. It is computed when it is needed first, and repeated as it is.
    pub(super) fn fill_init(&mut self, now: Time, cx: &mut Context, frame: &mut Vec<u8>) {
        let attempt = self.attempt.as_mut().expect("an attempt is due");
        attempt.due = false;
        attempt.flight.take_if(|flight| flight.times_sent >= SENT_MAX);
        let flight = attempt.flight.get_or_insert_with(|| {
            cx.attempts += 1;
            let continues = match &self.link {
                Link::Up(session) => session.current.keys.id,
                _ => 0,
            };
            let init = Init {
                versions: cx.config.versions,
                features: cx.config.features,
                incarnation: cx.incarnation,
                attempt: cx.attempts,
                continues,
            };
            let prologue = prologue(cx.me, self.id, init);
            let (noise, message) = noise::initiate(&self.pair, cx.entropy.draw(), &prologue);
            let mut text = init.to_bytes().to_vec();
            text.extend_from_slice(&message);
            let mac = self.pair.notices.mac(cx.me, self.id, &[&text]);
            text.extend_from_slice(&mac);
            Flight { noise, text, mac, continues, first_sent: now, times_sent: 0 }
        });
        flight.times_sent += 1;
        frame.extend_from_slice(&flight.text);
        let cookie = self.cookie.filter(|(_, until)| now < *until).map(|(cookie, _)| cookie);
        let mac = cookie.map(|cookie| gate::cookie_mac(&self.pair, &cookie, cx.me, self.id, &flight.text));
        frame.extend_from_slice(&mac.unwrap_or([0; MAC_BYTES]));
    }

    /// An `init` whose MAC under the static key has been checked. A peer that `is_new` has been admitted by the gate
    /// already, before there was a place for it.
    pub(crate) fn on_init(
        &mut self,
        now: Time,
        cx: &mut Context,
        source: SocketAddr,
        frame: &InitFrame<'_>,
        is_new: bool,
    ) -> Verdict {
        let init = frame.init;
        if let Some(known) = self.known.filter(|known| init.incarnation < *known) {
            self.counters.stale_incarnation += 1;
            return self.refuse(now, cx, frame, Refused::Superseded(known));
        }
        let order = (init.incarnation, init.attempt);
        if let Some((answer, _)) = self.answer.as_mut().filter(|(answer, _)| answer.mac == frame.mac) {
            if answer.times_asked == ANSWERED_MAX {
                self.counters.stale_handshake += 1;
                return Verdict::Refused;
            }
            answer.times_asked += 1;
            self.answer_due = true;
            self.counters.frames_received += 1;
            return Verdict::Authentic;
        }
        if self.heard.is_some_and(|heard| order <= heard) {
            self.counters.stale_handshake += 1;
            return Verdict::Refused;
        }
        let Some(version) = common_version(cx.config.versions, init.versions) else {
            self.counters.incompatible += 1;
            let (low, high) = cx.config.versions;
            let verdict = self.refuse(now, cx, frame, Refused::Version(low, high));
            if verdict == Verdict::Authentic {
                let ours = cx.config.versions;
                cx.events.push_back(Event::Incompatible { peer: self.id, ours, theirs: init.versions });
            }
            return verdict;
        };
        let insists = |attempt: &Attempt| {
            let sent = attempt.flight.as_ref().map(|flight| flight.first_sent);
            sent.is_some_and(|sent| now < sent + crossing(&cx.config))
        };
        if cx.me < self.id && self.attempt.as_ref().is_some_and(insists) {
            self.counters.frames_received += 1;
            return Verdict::Authentic;
        }
        let (me, from) = (cx.me, self.id);
        let is_signed = |cookie: &_| gate::is_signed(&self.pair, cookie, from, me, frame);
        let admission = match is_new {
            true => Admission::Welcome,
            false => cx.gate.admit(now, &cx.config, from, source, is_signed),
        };
        match admission {
            Admission::Welcome => self.respond(now, cx, frame, version),
            Admission::Cookie(_) if !cx.gate.may_give_cookie(now, &cx.config) => Verdict::Refused,
            Admission::Cookie(cookie) => {
                self.counters.cookies += 1;
                self.tell(cx, Notice::Cookie { echo: frame.mac, cookie })
            }
            Admission::Refused => {
                self.counters.handshakes_refused += 1;
                Verdict::Refused
            }
        }
    }

    /// Computes the answer. The keys wait until they are used by the peer.
    fn respond(&mut self, now: Time, cx: &mut Context, frame: &InitFrame<'_>, version: u8) -> Verdict {
        let init = frame.init;
        self.counters.handshakes += 1;
        let continued = matches!(&self.link, Link::Up(session) if session.current.keys.id == init.continues);
        let features = cx.config.features & init.features;
        let accepted = Accepted { incarnation: cx.incarnation, features, version, continued };
        let prologue = prologue(self.id, cx.me, init);
        let answer =
            noise::respond(&self.pair, cx.entropy.draw(), &prologue, frame.noise, &accepted.to_bytes());
        let Some((secrets, message)) = answer else {
            // The pair's MAC was right, so it is the peer itself that is wrong.
            self.counters.malformed += 1;
            return Verdict::Refused;
        };
        self.heard = Some((init.incarnation, init.attempt));
        let mut response = Vec::with_capacity(wire::handshake::RESPONSE_BYTES);
        self.seal(cx, &mut response, Notice::Response { echo: frame.mac, noise: &message });
        let keys = SessionKeys::of_responder(&secrets);
        let epoch = Epoch::new(keys, version, features, now, &cx.config, &mut cx.entropy);
        let answer = Answer {
            mac: frame.mac,
            incarnation: init.incarnation,
            response,
            epoch: Box::new(epoch),
            continued,
            times_asked: 1,
        };
        self.answer = Some((answer, now + crossing(&cx.config)));
        self.answer_due = true;
        self.on_incarnation(cx, init.incarnation);
        self.counters.frames_received += 1;
        Verdict::Authentic
    }

    /// What the peer says outside of a session, other than an `init`; its MAC has been checked.
    pub(crate) fn on_notice(&mut self, now: Time, cx: &mut Context, notice: Notice<'_>) -> Verdict {
        let stale = match notice {
            Notice::Response { echo, noise } => return self.on_response(now, cx, &echo, noise),
            Notice::Unknown { session, incarnation } => !self.on_unknown(now, cx, session, incarnation),
            Notice::Cookie { echo, .. } | Notice::Refusal { echo, .. } if !self.in_flight(&echo) => true,
            Notice::Cookie { cookie, .. } => {
                self.cookie = Some((cookie, now + gate::COOKIE_LIFE));
                false
            }
            Notice::Refusal { refused: Refused::Version(low, high), .. } => {
                let ours = cx.config.versions;
                cx.events.push_back(Event::Incompatible { peer: self.id, ours, theirs: (low, high) });
                self.go_down(cx, DownReason::Incompatible);
                false
            }
            Notice::Refusal { refused: Refused::Superseded(known), .. } if known > cx.incarnation => {
                cx.events.push_back(Event::Superseded { peer: self.id, ours: cx.incarnation, known });
                self.go_down(cx, DownReason::Superseded);
                false
            }
            Notice::Refusal { .. } => true,
        };
        if stale {
            self.counters.stale_handshake += 1;
            return Verdict::Refused;
        }
        self.counters.frames_received += 1;
        Verdict::Authentic
    }

    fn in_flight(&self, mac: &[u8; MAC_BYTES]) -> bool {
        let flight = self.attempt.as_ref().and_then(|attempt| attempt.flight.as_ref());
        flight.is_some_and(|flight| flight.mac == *mac)
    }

    fn on_response(&mut self, now: Time, cx: &mut Context, echo: &[u8; MAC_BYTES], noise: &[u8]) -> Verdict {
        let crossed = cx.me > self.id && self.answer.as_ref().is_some_and(|(_, until)| now < *until);
        if crossed || !self.in_flight(echo) {
            self.counters.stale_handshake += 1;
            return Verdict::Refused;
        }
        let flight = self.attempt.as_mut().and_then(|attempt| attempt.flight.take()).expect("checked above");
        let Some((secrets, accepted)) = flight.noise.finish(noise) else {
            self.counters.malformed += 1;
            return Verdict::Refused;
        };
        let Accepted { incarnation, features, version, continued } = Accepted::read(&accepted);
        if self.known.is_some_and(|known| incarnation < known) {
            self.counters.stale_incarnation += 1;
            return Verdict::Refused;
        }
        let (low, high) = cx.config.versions;
        if !(low..=high).contains(&version) || features & !cx.config.features != 0 {
            self.counters.malformed += 1;
            return Verdict::Refused;
        }
        let keys = SessionKeys::of_initiator(&secrets);
        let epoch = Epoch::new(keys, version, features, now, &cx.config, &mut cx.entropy);
        let continued = continued && flight.continues != 0;
        let confirm = Repeat::new(now, &cx.config, &mut cx.entropy);
        self.counters.frames_received += 1;
        self.install(now, cx, epoch, incarnation, continued.then_some(flight.continues), Some(confirm));
        Verdict::Established
    }

    /// The peer does not know `session`. True if that is ours.
    fn on_unknown(&mut self, now: Time, cx: &mut Context, session: u64, incarnation: Incarnation) -> bool {
        let ours = matches!(&self.link, Link::Up(up) if up.current.keys.id == session);
        if !ours || self.known.is_some_and(|known| incarnation < known) || !self.may_probe(now, cx) {
            return false;
        }
        self.on_incarnation(cx, incarnation);
        match &self.link {
            // It lives, and has lost the session: a new one will find what was in flight and repeat it.
            Link::Up(_) => self.renew_keys(now, cx),
            _ => self.connect(now, cx),
        }
        true
    }

    /// The peer has said, under the static key, that it lives its life `new`: then earlier ones are over. It need not
    /// be the peer that says it again now, so nothing more follows from it.
    fn on_incarnation(&mut self, cx: &mut Context, new: Incarnation) {
        let Some(old) = self.known.filter(|known| *known < new) else { return };
        let was_up = self.is_up();
        self.known = Some(new);
        // Keys that the former life asked for.
        if self.answer.take_if(|(answer, _)| answer.incarnation < new).is_some() {
            self.answer_due = false;
        }
        cx.events.push_back(Event::Restarted { peer: self.id, old, new });
        // What was accepted since the old session ended has not been sent, and is for whoever comes up.
        let ack = self.ack.fail(FailReason::Restarted, !was_up);
        let nack = self.nack.fail(FailReason::Restarted, !was_up);
        self.report_failed(cx, Delivery::Ack, ack, FailReason::Restarted);
        self.report_failed(cx, Delivery::Nack, nack, FailReason::Restarted);
        self.ack_in = AckReceiver::default();
        self.nack_in = NackReceiver::default();
        if was_up {
            self.link = Link::Idle;
            self.attempt = None;
        }
    }

    /// The peer has proved to be alive: new keys, for the session `continued` or for a new one.
    fn install(
        &mut self,
        now: Time,
        cx: &mut Context,
        epoch: Epoch,
        theirs: Incarnation,
        continued: Option<u64>,
        confirm: Option<Repeat>,
    ) {
        assert!(self.known.is_none_or(|known| known <= theirs), "stale incarnations were refused");
        self.on_incarnation(cx, theirs);
        self.known = Some(theirs);
        self.attempt = None;
        self.answer = None;
        self.answer_due = false;
        match &mut self.link {
            Link::Up(session) if continued == Some(session.current.keys.id) => {
                self.counters.rekeyed += 1;
                session.renew(epoch, confirm, now + cx.config.dead_after);
            }
            _ => {
                let was_up = self.is_up();
                self.link = Link::Up(Box::new(Session::new(epoch, confirm)));
                if !was_up {
                    cx.events.push_back(Event::Up { peer: self.id, incarnation: theirs });
                }
                self.ack.on_new_session();
                self.nack.on_new_session(now, &cx.config);
                self.nack_in.on_new_session(now, &cx.config);
            }
        }
    }

    /// The peer uses the keys that wait for it, so it has them: they are installed.
    pub(super) fn take_up_answer(&mut self, now: Time, cx: &mut Context) {
        let Some((answer, _)) = self.answer.take() else { return };
        let Answer { incarnation, epoch, continued, .. } = answer;
        let continued = match &self.link {
            Link::Up(session) if continued => Some(session.current.keys.id),
            _ => None,
        };
        self.install(now, cx, *epoch, incarnation, continued, None);
    }

    fn refuse(&mut self, now: Time, cx: &mut Context, frame: &InitFrame<'_>, refused: Refused) -> Verdict {
        self.say(now, cx, Notice::Refusal { echo: frame.mac, refused })
    }

    /// Says something that is not worth remembering, unless too much is being said.
    fn say(&mut self, now: Time, cx: &mut Context, notice: Notice<'_>) -> Verdict {
        if !cx.gate.may_reply(now, &cx.config) {
            return Verdict::Refused;
        }
        self.tell(cx, notice)
    }

    fn tell(&mut self, cx: &Context, notice: Notice<'_>) -> Verdict {
        let mut frame = Vec::new();
        self.seal(cx, &mut frame, notice);
        self.notice = Some(frame);
        Verdict::Authentic
    }

    fn seal(&self, cx: &Context, frame: &mut Vec<u8>, notice: Notice<'_>) {
        seal_notice(&self.pair, cx.me, self.id, frame, notice);
    }

    /// Somebody sends frames of a session that we do not know. If it is the peer, it has missed our restart
    /// or the end of the session: it is told so. It may be anybody, hence no more than that.
    pub(super) fn tell_unknown(&mut self, now: Time, cx: &mut Context, session: u64) {
        if matches!(self.link, Link::Idle | Link::Up(_)) && self.may_probe(now, cx) {
            self.say(now, cx, Notice::Unknown { session, incarnation: cx.incarnation });
        }
    }

    pub(super) fn may_probe(&mut self, now: Time, cx: &Context) -> bool {
        let may = self.probed.is_none_or(|at| at + cx.config.probe_interval <= now);
        if may {
            self.probed = Some(now);
        }
        may
    }

    /// Time has passed for an attempt. True if it was given up.
    pub(super) fn on_attempt_timeout(&mut self, now: Time, cx: &mut Context) -> bool {
        let Some(attempt) = &mut self.attempt else { return false };
        if attempt.until <= now {
            self.attempt = None;
            return true;
        }
        attempt.due |= attempt.repeat.fire(now, &cx.config, &mut cx.entropy);
        false
    }
}

/// A frame outside of sessions, from `me` to `to`.
pub(crate) fn seal_notice(
    pair: &crate::Pair,
    me: PeerId,
    to: PeerId,
    frame: &mut Vec<u8>,
    notice: Notice<'_>,
) {
    frame.clear();
    notice.put(frame);
    let mac = pair.notices.mac(me, to, &[frame]);
    frame.extend_from_slice(&mac);
}

/// Reads such a frame of `from`; `None` if its MAC is wrong, or it is of no use.
pub(crate) fn open_notice<'a>(
    pair: &crate::Pair,
    from: PeerId,
    me: PeerId,
    kind: Kind,
    frame: &'a [u8],
) -> Result<Option<Notice<'a>>, BadMac> {
    let (text, mac) = frame.split_at(frame.len() - MAC_BYTES);
    if !pair.notices.verify(from, me, &[text], mac) {
        return Err(BadMac);
    }
    Ok(Notice::read(kind, text))
}

pub(crate) struct BadMac;
