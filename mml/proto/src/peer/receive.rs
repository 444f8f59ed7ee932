//! What a peer's frames do.

use super::{Context, Link, Peer};
use crate::ack::Arrival;
use crate::session::Refusal;
use crate::wire::{self, Item, SessionFrame};
use crate::{Delivery, DownReason, Event, Sequence, Verdict};
use cl_base::Time;

impl Peer {
    /// A session frame; nothing of it has been checked.
    pub(crate) fn on_session_frame(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: &SessionFrame<'_>,
    ) -> Verdict {
        let closed = matches!(self.link, Link::Closed(_));
        let accepted = match &mut self.link {
            Link::Up(session) | Link::Closed(session) => session.accept(now, self.id, cx.me, frame),
            _ => Err(Refusal::Unknown),
        };
        let (is_current, verdict) = match accepted {
            Ok(is_current) => (is_current, Verdict::Authentic),
            Err(Refusal::Unknown) if self.take_up_answer(now, cx, frame) => (true, Verdict::Established),
            Err(refusal) => {
                match refusal {
                    Refusal::Unknown => {
                        cx.counters.unknown_session += 1;
                        self.tell_unknown(now, cx, frame.header.session);
                    }
                    Refusal::BadMac => cx.counters.bad_mac += 1,
                    Refusal::Replayed => cx.counters.replayed += 1,
                }
                return Verdict::Refused;
            }
        };
        let closed = closed && verdict == Verdict::Authentic;
        let Some(items) = wire::read_items(frame) else {
            cx.counters.malformed += 1;
            return Verdict::Refused;
        };
        cx.counters.frames_received += 1;
        if closed {
            self.on_frame_after_close(now, cx, &items);
            return Verdict::Authentic;
        }
        if let Link::Up(session) = &mut self.link {
            session.waiting_since = None;
            if is_current {
                session.confirm = None;
                session.confirm_due = false;
            }
        }
        self.last_used = now;
        for item in items {
            if !self.on_item(now, cx, frame.header.class, item) {
                cx.counters.malformed += 1;
            }
        }
        verdict
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
            Item::Confirm => {
                if let Link::Up(session) = &mut self.link {
                    session.answer_due = true;
                }
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
