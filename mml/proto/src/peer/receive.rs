//! What a peer's frames do.

use super::{Context, Link, Peer};
use crate::ack::{AckReceiver, Arrival};
use crate::handshake::{Hello, SessionKeys};
use crate::nack::NackReceiver;
use crate::session::{Refusal, Repeat, Session};
use crate::wire::{self, Item, Kind, SessionFrame};
use crate::{Delivery, DownReason, Event, FailReason, Sequence, Verdict};
use cl_base::Time;

impl Peer {
    /// A handshake frame whose MAC has been checked.
    pub(crate) fn on_handshake(
        &mut self,
        now: Time,
        cx: &mut Context,
        kind: Kind,
        theirs: Hello,
        echo: Option<Hello>,
    ) -> Verdict {
        if self.known.is_some_and(|known| theirs.incarnation < known) {
            cx.counters.stale_incarnation += 1;
            return Verdict::Refused;
        }
        let verdict = match (kind, echo) {
            (Kind::Hello, _) => self.on_hello(now, cx, theirs),
            (_, Some(mine)) if self.is_fresh(now, cx, mine) => {
                self.install(now, cx, mine, theirs, kind == Kind::HelloAck);
                Verdict::Established
            }
            (Kind::Confirm, Some(mine)) => self.on_repeated_confirm(mine, theirs),
            _ => Verdict::Refused,
        };
        match verdict {
            Verdict::Refused => cx.counters.stale_handshake += 1,
            Verdict::Authentic | Verdict::Established => cx.counters.frames_received += 1,
        }
        verdict
    }

    fn on_hello(&mut self, now: Time, cx: &mut Context, theirs: Hello) -> Verdict {
        let mine = match &self.link {
            // The HELLO crossed ours; the peer is to arrive at the session that we have.
            Link::Up(session) if session.theirs == theirs => session.mine,
            _ => Hello { incarnation: cx.incarnation, nonce: self.refresh_nonce(now, cx) },
        };
        self.reply_due = Some((mine, theirs));
        Verdict::Authentic
    }

    /// The peer has not heard us in the session yet, or has begun at the same time as we.
    fn on_repeated_confirm(&mut self, mine: Hello, theirs: Hello) -> Verdict {
        match &mut self.link {
            Link::Up(session) if session.mine == mine && session.theirs == theirs => {
                session.confirm = None;
                session.confirm_due = false;
                session.answer_due = true;
                Verdict::Authentic
            }
            _ => Verdict::Refused,
        }
    }

    /// Whether the peer has echoed the nonce that we would use for the next session: then it is alive.
    fn is_fresh(&self, now: Time, cx: &Context, mine: Hello) -> bool {
        let nonce = self.nonce.filter(|(_, until)| now < *until).map(|(nonce, _)| nonce);
        mine.incarnation == cx.incarnation && Some(mine.nonce) == nonce
    }

    /// The peer has proved to be alive: the new session replaces whatever there was.
    fn install(&mut self, now: Time, cx: &mut Context, mine: Hello, theirs: Hello, initiator: bool) {
        let new = theirs.incarnation;
        assert!(self.known.is_none_or(|known| known <= new), "stale incarnations were refused");
        let was_up = self.is_up();
        let restarted = self.known.filter(|known| *known < new);
        self.nonce = None;
        self.hello_due = false;
        self.known = Some(new);
        if let Some(old) = restarted {
            cx.events.push_back(Event::Restarted { peer: self.id, old, new });
            // What was accepted since the old session ended has not been sent, and is for whoever comes up.
            let ack = self.ack.fail(FailReason::Restarted, !was_up);
            let nack = self.nack.fail(FailReason::Restarted, !was_up);
            self.report_failed(cx, Delivery::Ack, ack, FailReason::Restarted);
            self.report_failed(cx, Delivery::Nack, nack, FailReason::Restarted);
            self.ack_in = AckReceiver::default();
            self.nack_in = NackReceiver::default();
        }
        let keys = SessionKeys::derive(&self.keys, cx.me, mine, self.id, theirs);
        let confirm = initiator.then(|| Repeat::new(now, &cx.config));
        self.link = Link::Up(Box::new(Session::new(keys, mine, theirs, confirm)));
        if !was_up {
            cx.events.push_back(Event::Up { peer: self.id, incarnation: new });
        }
        self.ack.on_new_session();
        self.nack.on_new_session(now, &cx.config);
        self.nack_in.on_new_session(now, &cx.config);
    }

    /// A session frame; nothing of it has been checked.
    pub(crate) fn on_session_frame(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: &SessionFrame<'_>,
    ) -> Verdict {
        let closed = matches!(self.link, Link::Closed(_));
        let session = match &mut self.link {
            Link::Up(session) | Link::Closed(session) if session.keys.id == frame.header.session => session,
            _ => {
                cx.counters.unknown_session += 1;
                self.probe(now, cx);
                return Verdict::Refused;
            }
        };
        if let Err(refusal) = session.accept(self.id, cx.me, frame) {
            match refusal {
                Refusal::BadMac => cx.counters.bad_mac += 1,
                Refusal::Replayed => cx.counters.replayed += 1,
            }
            return Verdict::Refused;
        }
        let Some(items) = wire::read_items(frame) else {
            cx.counters.malformed += 1;
            return Verdict::Refused;
        };
        cx.counters.frames_received += 1;
        if closed {
            self.on_frame_after_close(now, cx, &items);
            return Verdict::Authentic;
        }
        session.confirm = None;
        session.confirm_due = false;
        session.waiting_since = None;
        self.last_used = now;
        for item in items {
            if !self.on_item(now, cx, frame.header.class, item) {
                cx.counters.malformed += 1;
            }
        }
        Verdict::Authentic
    }

    /// The peer does not know yet that the session has ended: its CLOSE was lost.
    fn on_frame_after_close(&mut self, now: Time, cx: &mut Context, items: &[Item<'_>]) {
        if items.contains(&Item::Close) || !self.may_probe(now, cx) {
            return;
        }
        if let Link::Closed(session) = &mut self.link {
            self.parting = Some(super::transmit::close_frame(cx, self.id, session, None));
        }
    }

    /// Somebody sends frames of a session that we do not know. If it is the peer, it has missed our restart
    /// or the end of the session: one HELLO lets it know. It may be anybody, hence no more than that.
    fn probe(&mut self, now: Time, cx: &mut Context) {
        if matches!(self.link, Link::Idle) && self.may_probe(now, cx) {
            self.refresh_nonce(now, cx);
            self.hello_due = true;
        }
    }

    fn may_probe(&mut self, now: Time, cx: &Context) -> bool {
        let may = self.probed.is_none_or(|at| at + cx.config.probe_interval <= now);
        if may {
            self.probed = Some(now);
        }
        may
    }

    /// One item of an authentic frame; false if it claims the impossible.
    fn on_item(&mut self, now: Time, cx: &mut Context, class: u8, item: Item<'_>) -> bool {
        let (from, Some(incarnation)) = (self.id, self.known) else {
            unreachable!("a session has an incarnation")
        };
        match item {
            Item::Message { kind, number, base, body } => {
                if body.len() > cx.config.body_bytes_max {
                    return false;
                }
                let message = |delivery, number, class, body| Event::Message {
                    from,
                    incarnation,
                    class,
                    seq: Sequence { delivery, number },
                    body,
                };
                let arrival = match kind {
                    wire::UNR => {
                        cx.events.push_back(message(Delivery::Unr, number, class, body.to_vec()));
                        cx.counters.messages_delivered += 1;
                        Arrival::New
                    }
                    wire::ACK => {
                        self.ack_in.on_message(now, number, base, class, body, &cx.config, |n, c, b| {
                            cx.events.push_back(message(Delivery::Ack, n, c, b));
                            cx.counters.messages_delivered += 1;
                        })
                    }
                    _ => {
                        let (arrival, gaps) = self.nack_in.on_message(now, number, base, &cx.config);
                        self.report_gaps(cx, gaps);
                        if arrival == Arrival::New {
                            cx.events.push_back(message(Delivery::Nack, number, class, body.to_vec()));
                            cx.counters.messages_delivered += 1;
                        }
                        arrival
                    }
                };
                cx.counters.duplicates += u64::from(arrival == Arrival::Duplicate);
                cx.counters.reorder_full += u64::from(arrival == Arrival::Full);
            }
            Item::Ack { next, beyond } => {
                let Ok(settled) = self.ack.on_ack(now, next, &beyond, &mut self.rtt, &cx.config) else {
                    return false;
                };
                let seq = |number| Sequence { delivery: Delivery::Ack, number };
                cx.events.extend(settled.map(|number| Event::Delivered { peer: from, seq: seq(number) }));
            }
            Item::Report { next, missing } => {
                return self.nack.on_report(now, next, &missing, &self.rtt, &cx.config).is_ok();
            }
            Item::Advert { base, next } => {
                let gaps = self.nack_in.on_advert(now, base, next, &cx.config);
                self.report_gaps(cx, gaps);
            }
            // The items after it are of a session that is over.
            Item::Close => self.on_close(cx),
        }
        true
    }

    fn on_close(&mut self, cx: &mut Context) {
        if self.is_up() {
            self.go_down(cx, DownReason::Closed);
        }
    }

    fn report_gaps(&self, cx: &mut Context, count: u64) {
        if count > 0 {
            cx.counters.gaps += count;
            cx.events.push_back(Event::Gap { peer: self.id, count });
        }
    }
}
