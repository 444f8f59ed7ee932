//! What a peer's frames do.

use super::{Context, Deliver, Link, Peer};
use crate::ack::Arrival;
use crate::session::Refusal;
use crate::wire::SessionFrame;
use crate::wire::items::{ACK, Item, Items, UNR};
use crate::{Delivery, DownReason, Event, Message, Sequence, Verdict};
use cl_base::{Incarnation, PeerId, Time};

impl Peer {
    /// A session frame; nothing of it has been checked.
    pub(crate) fn on_session_frame(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: SessionFrame<'_>,
        mut deliver: Deliver<'_>,
    ) -> Verdict {
        let closed = matches!(self.link, Link::Closed(_));
        let (session, class) = (frame.header.session, frame.header.class);
        let (items, is_current, verdict) = match self.open_frame(now, cx, frame) {
            Ok(opened) => opened,
            Err(refusal) => {
                match refusal {
                    Refusal::Unknown => {
                        self.counters.unknown_session += 1;
                        self.tell_unknown(now, cx, session);
                    }
                    Refusal::BadMac => self.counters.bad_mac += 1,
                    Refusal::Replayed => self.counters.replayed += 1,
                }
                return Verdict::Refused;
            }
        };
        let closed = closed && verdict == Verdict::Authentic;
        if !items.are_sound() {
            self.counters.malformed += 1;
            return Verdict::Refused;
        }
        self.counters.frames_received += 1;
        if closed {
            self.on_frame_after_close(now, cx, items);
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
        self.pace.on_heard();
        for item in items {
            if !self.on_item(now, cx, class, item, &mut deliver) {
                self.counters.malformed += 1;
            }
        }
        verdict
    }

    /// Opens a frame under whichever keys it is under: those of the session, or those that wait for the peer to use
    /// them, which are installed then. True if they are the present ones.
    fn open_frame<'a>(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: SessionFrame<'a>,
    ) -> Result<(Items<'a>, bool, Verdict), Refusal> {
        let id = frame.header.session;
        if let Link::Up(session) | Link::Closed(session) = &mut self.link
            && let Some((epoch, is_current)) = session.epoch(now, id)
        {
            return epoch.accept(frame).map(|items| (items, is_current, Verdict::Authentic));
        }
        let answer = self.answer.as_mut().filter(|(answer, _)| answer.epoch.keys.id == id);
        let (answer, _) = answer.ok_or(Refusal::Unknown)?;
        let items = answer.epoch.accept(frame)?;
        self.take_up_answer(now, cx);
        Ok((items, true, Verdict::Established))
    }

    /// The peer does not know yet that the session has ended: its CLOSE was lost.
    fn on_frame_after_close(&mut self, now: Time, cx: &mut Context, mut items: Items<'_>) {
        if items.any(|item| item == Item::Close) || !self.may_probe(now, cx) {
            return;
        }
        if let Link::Closed(session) = &mut self.link {
            self.parting = Some(super::transmit::close_frame(cx, session, None));
        }
    }

    /// One item of an authentic frame; false if it claims the impossible.
    fn on_item(
        &mut self,
        now: Time,
        cx: &mut Context,
        class: u8,
        item: Item<'_>,
        deliver: &mut Deliver<'_>,
    ) -> bool {
        let (from, Some(incarnation)) = (self.id, self.known) else {
            unreachable!("a session has an incarnation")
        };
        match item {
            Item::Message { kind, number, base, body } => {
                if body.len() > cx.config.body_bytes_max {
                    return false;
                }
                let arrival = match kind {
                    UNR => {
                        let message = message(from, incarnation, Delivery::Unr, number, class, body);
                        deliver.deliver(&mut cx.events, &mut self.counters, message);
                        Arrival::New
                    }
                    ACK => {
                        let config = cx.config.ack_arrivals();
                        self.ack_in.on_message(now, number, base, class, body, config, |n, c, b| {
                            let message = message(from, incarnation, Delivery::Ack, n, c, b);
                            deliver.deliver(&mut cx.events, &mut self.counters, message);
                        })
                    }
                    _ => {
                        let (arrival, gaps) = self.nack_in.on_message(now, number, base, &cx.config);
                        self.report_gaps(cx, gaps);
                        if arrival == Arrival::New {
                            let message = message(from, incarnation, Delivery::Nack, number, class, body);
                            deliver.deliver(&mut cx.events, &mut self.counters, message);
                        }
                        arrival
                    }
                };
                self.counters.duplicates += u64::from(arrival == Arrival::Duplicate);
                self.counters.reorder_full += u64::from(arrival == Arrival::Full);
            }
            Item::Ack { next, beyond } => {
                let Ok(settled) =
                    self.ack.on_ack(now, next, &beyond, &mut self.rtt, &cx.config, &mut cx.spare)
                else {
                    return false;
                };
                let seq = |number| Sequence { delivery: Delivery::Ack, number };
                cx.events.extend(settled.map(|number| Event::Delivered { peer: from, seq: seq(number) }));
            }
            Item::Report { next, missing } => {
                return self
                    .nack
                    .on_report(now, next, missing.iter(), &self.rtt, &cx.config, &mut cx.spare)
                    .is_ok();
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

    fn report_gaps(&mut self, cx: &mut Context, count: u64) {
        if count > 0 {
            self.counters.gaps += count;
            cx.events.push_back(Event::Gap { peer: self.id, count });
        }
    }
}

/// A message, and who sent it.
fn message(
    from: PeerId,
    incarnation: Incarnation,
    delivery: Delivery,
    number: u64,
    class: u8,
    body: &[u8],
) -> Message<'_> {
    Message { from, incarnation, class, seq: Sequence { delivery, number }, body }
}
