//! What is sent to a peer, and when.

use super::{Context, Link, Peer};
use crate::ack::AckReport;
use crate::frame::FrameWriter;
use crate::session::Session;
use crate::wire::items::{self, ACK, NACK, UNR};
use crate::{Body, Config, DownReason, Outgoing, Transmit};
use cl_base::Time;

impl Peer {
    /// Whether [`Peer::poll_transmit`] would fill a frame.
    pub(crate) fn wants_to_send(&self, config: &Config) -> bool {
        let attempt_due = self.attempt.as_ref().is_some_and(|attempt| attempt.due);
        if attempt_due || self.answer_due || self.notice.is_some() || self.parting.is_some() {
            return true;
        }
        match &self.link {
            Link::Up(session) if !session.current.is_used_up(config) => {
                session.confirm_due
                    || session.answer_due
                    || self.ack_in.report_due
                    || self.nack_in.report_due
                    || self.nack.advert_due
                    || !self.unr.is_empty()
                    || self.ack.next_to_send().is_some()
                    || self.nack.next_to_send().is_some()
            }
            _ => false,
        }
    }

    /// Fills `frame` with the next frame to this peer, if there is one, and returns what goes behind it.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: &mut Vec<u8>,
    ) -> Option<(Transmit, Option<Body>)> {
        frame.clear();
        let (mut answers_hello, mut bulk) = (false, None);
        if let Some(parting) = self.parting.take() {
            *frame = parting;
        } else if let Some(notice) = self.notice.take() {
            answers_hello = true;
            *frame = notice;
        } else if std::mem::take(&mut self.answer_due) {
            answers_hello = true;
            let (answer, _) = self.answer.as_ref().expect("it goes with what is due");
            frame.extend_from_slice(&answer.response);
        } else if self.attempt.as_ref().is_some_and(|attempt| attempt.due) {
            self.fill_init(now, cx, frame);
        } else if !self.wants_to_send(&cx.config) {
            return None;
        } else {
            bulk = self.fill_session_frame(now, cx, frame);
        }
        self.counters.frames_sent += 1;
        Some((Transmit { to: self.id, answers_hello }, bulk))
    }

    /// Fills `frame` with an UNR message alone: its number, and what goes behind the frame. `None`, and nothing is done, if
    /// something else waits to be sent, or an acknowledgement to ride with it, or the keys are to be renewed.
    #[inline]
    pub(crate) fn fill_at_once(
        &mut self,
        now: Time,
        cx: &mut Context,
        class: u8,
        body: &Outgoing<'_>,
        frame: &mut Vec<u8>,
    ) -> Option<(u64, Option<Body>)> {
        let Link::Up(session) = &mut self.link else { return None };
        if self.queued || self.ack_in.owes_report() || session.current.is_old(now, &cx.config) {
            return None;
        }
        let number = self.unr.skip();
        let mut writer = FrameWriter::new(frame, &cx.config);
        let fits = writer.push(UNR, number, number, class, body.content());
        debug_assert!(fits, "the first message of a frame always does");
        self.last_used = now;
        self.counters.messages_sent += 1;
        self.counters.frames_sent += 1;
        let frame_number = session.current.next_frame_number();
        Some((number, writer.finish(&session.current.keys, frame_number)))
    }

    fn fill_session_frame(&mut self, now: Time, cx: &mut Context, frame: &mut Vec<u8>) -> Option<Body> {
        let Link::Up(session) = &mut self.link else {
            unreachable!("there is something to send in a session")
        };
        session.answer_due = false;
        let rto = self.rtt.rto(&cx.config, 0);
        let mut writer = FrameWriter::new(frame, &cx.config);
        let mut owes_answer = std::mem::take(&mut session.confirm_due);
        if owes_answer {
            items::put_confirm(writer.items());
        }
        if let Some((next, beyond)) = self.ack_in.take_report() {
            items::put_ack(writer.items(), next, &beyond);
        }
        if let Some((next, missing)) = self.nack_in.take_report() {
            owes_answer |= !missing.is_empty();
            items::put_report(writer.items(), next, &missing);
        }
        if std::mem::take(&mut self.nack.advert_due) {
            owes_answer = true;
            items::put_advert(writer.items(), self.nack.queue.base(), self.nack.queue.sent_end());
        }
        loop {
            // Urgency first: what was lost holds others up, and UNR messages age.
            let repeats =
                [self.ack.queue.next_to_repeat().is_some(), self.nack.queue.next_to_repeat().is_some()];
            if repeats == [false, false]
                && let Some((number, class, content)) = self.unr.front()
            {
                if !writer.push(UNR, number, number, class, content) {
                    break;
                }
                self.unr.pop(&mut cx.spare);
            } else if let Some(number) = self.ack.next_to_send().filter(|_| repeats != [false, true]) {
                let entry = self.ack.queue.entry(number).expect("it is to be sent");
                if !writer.push(ACK, number, self.ack.queue.base(), entry.class, entry.body.content()) {
                    break;
                }
                self.counters.retransmitted += u64::from(entry.attempts > 0);
                self.ack.on_sent(now, number, rto);
                owes_answer = true;
            } else if let Some(number) = self.nack.next_to_send() {
                let entry = self.nack.queue.entry(number).expect("it is to be sent");
                if !writer.push(NACK, number, self.nack.queue.base(), entry.class, entry.body.content()) {
                    break;
                }
                self.counters.retransmitted += u64::from(entry.attempts > 0);
                self.nack.on_sent(now, number, &cx.config, &mut cx.spare);
            } else {
                break;
            }
        }
        self.counters.messages_sent += writer.messages;
        if owes_answer {
            session.waiting_since.get_or_insert(now);
        }
        let number = session.current.next_frame_number();
        let bulk = writer.finish(&session.current.keys, number);
        if session.current.is_old(now, &cx.config) {
            self.renew_keys(now, cx);
        }
        bulk
    }

    pub(crate) fn on_timeout(&mut self, now: Time, cx: &mut Context) {
        match &mut self.link {
            Link::Idle | Link::Closed(_) => {}
            Link::Connecting => {
                if self.on_attempt_timeout(now, cx) {
                    self.go_down(cx, DownReason::Unreachable);
                }
            }
            Link::Up(session) => {
                if session.waiting_since.is_some_and(|since| since + cx.config.dead_after <= now) {
                    self.go_down(cx, DownReason::Silent);
                    return;
                }
                if let Some(repeat) = &mut session.confirm {
                    session.confirm_due |= repeat.fire(now, &cx.config, &mut cx.entropy);
                }
                session.forget_previous(now);
                self.on_attempt_timeout(now, cx);
                self.ack.on_timeout(now, &self.rtt, &cx.config);
                self.nack.on_timeout(now, &cx.config);
                self.nack_in.on_timeout(now, self.rtt.rto(&cx.config, 0), &cx.config);
                self.ack_in.on_timeout(now);
            }
        }
    }
}

/// The last frame of a session that is ended on purpose, with the acknowledgement that is still owed.
pub(super) fn close_frame(cx: &Context, session: &mut Session, owed: Option<AckReport>) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = FrameWriter::new(&mut frame, &cx.config);
    if let Some((next, beyond)) = owed {
        items::put_ack(writer.items(), next, &beyond);
    }
    items::put_close(writer.items());
    let number = session.current.next_frame_number();
    let bulk = writer.finish(&session.current.keys, number);
    debug_assert!(bulk.is_none());
    frame
}
