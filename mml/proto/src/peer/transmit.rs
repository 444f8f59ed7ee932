//! What is sent to a peer, and when.

use super::{Context, Link, Peer};
use crate::ack::AckReport;
use crate::frame::FrameWriter;
use crate::handshake::Hello;
use crate::session::Session;
use crate::wire::{self, Kind};
use crate::{DownReason, Transmit};
use cl_base::{PeerId, Time};

impl Peer {
    /// Whether [`Peer::poll_transmit`] would fill a frame.
    pub(crate) fn wants_to_send(&self) -> bool {
        if self.hello_due || self.reply_due.is_some() || self.parting.is_some() {
            return true;
        }
        match &self.link {
            Link::Up(session) => {
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

    /// Fills `frame` with the next frame to this peer, if there is one.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Time,
        cx: &mut Context,
        frame: &mut Vec<u8>,
    ) -> Option<Transmit> {
        frame.clear();
        let mut answers_hello = false;
        if let Some(parting) = self.parting.take() {
            *frame = parting;
        } else if self.hello_due {
            self.hello_due = false;
            let (nonce, _) = self.nonce.expect("drawn when HELLO was asked for");
            self.put_handshake(cx, frame, Kind::Hello, &[Hello { incarnation: cx.incarnation, nonce }]);
        } else if let Some((mine, theirs)) = self.reply_due.take() {
            answers_hello = true;
            self.put_handshake(cx, frame, Kind::HelloAck, &[mine, theirs]);
        } else if let Some(hellos) = self.take_confirm(now) {
            self.put_handshake(cx, frame, Kind::Confirm, &hellos);
        } else if !self.wants_to_send() {
            return None;
        } else {
            self.fill_session_frame(now, cx, frame);
        }
        cx.counters.frames_sent += 1;
        Some(Transmit { to: self.id, answers_hello })
    }

    fn take_confirm(&mut self, now: Time) -> Option<[Hello; 2]> {
        match &mut self.link {
            Link::Up(session) if session.confirm_due => {
                session.confirm_due = false;
                session.waiting_since.get_or_insert(now);
                Some([session.mine, session.theirs])
            }
            _ => None,
        }
    }

    fn put_handshake(&self, cx: &Context, frame: &mut Vec<u8>, kind: Kind, hellos: &[Hello]) {
        wire::put_handshake(frame, kind, hellos);
        let mac = self.keys.handshake.mac(cx.me, self.id, &[frame]);
        frame.extend_from_slice(&mac);
    }

    fn fill_session_frame(&mut self, now: Time, cx: &mut Context, frame: &mut Vec<u8>) {
        let Link::Up(session) = &mut self.link else {
            unreachable!("there is something to send in a session")
        };
        session.answer_due = false;
        let rto = self.rtt.rto(&cx.config, 0);
        let mut writer = FrameWriter::new(frame, &cx.config);
        let mut owes_answer = false;
        if let Some((next, beyond)) = self.ack_in.take_report() {
            wire::put_ack(writer.items(), next, &beyond);
        }
        if let Some((next, missing)) = self.nack_in.take_report() {
            owes_answer |= !missing.is_empty();
            wire::put_report(writer.items(), next, &missing);
        }
        if std::mem::take(&mut self.nack.advert_due) {
            owes_answer = true;
            wire::put_advert(writer.items(), self.nack.base(), self.nack.sent_end());
        }
        loop {
            // Urgency first: what was lost holds others up, and UNR messages age.
            let repeats = [self.ack.next_to_repeat().is_some(), self.nack.next_to_repeat().is_some()];
            if !self.unr.is_empty() && repeats == [false, false] {
                let (number, class, body) = &self.unr[0];
                if !writer.push(wire::UNR, *number, *number, *class, body) {
                    break;
                }
                self.unr_bytes -= body.len();
                self.unr.pop_front();
            } else if let Some(number) = self.ack.next_to_send().filter(|_| repeats != [false, true]) {
                let entry = self.ack.entry(number).expect("it is to be sent");
                if !writer.push(wire::ACK, number, self.ack.base(), entry.class, &entry.body) {
                    break;
                }
                cx.counters.retransmitted += u64::from(entry.attempts > 0);
                self.ack.on_sent(now, number, rto);
                owes_answer = true;
            } else if let Some(number) = self.nack.next_to_send() {
                let entry = self.nack.entry(number).expect("it is to be sent");
                if !writer.push(wire::NACK, number, self.nack.base(), entry.class, &entry.body) {
                    break;
                }
                cx.counters.retransmitted += u64::from(entry.attempts > 0);
                self.nack.on_sent(now, number, &cx.config);
            } else {
                break;
            }
        }
        cx.counters.messages_sent += writer.messages;
        if owes_answer {
            session.waiting_since.get_or_insert(now);
        }
        let number = session.next_frame_number();
        writer.finish(cx.me, self.id, &session.keys, number);
    }

    pub(crate) fn on_timeout(&mut self, now: Time, cx: &mut Context) {
        match &mut self.link {
            Link::Idle | Link::Closed(_) => {}
            Link::Connecting { until, .. } if *until <= now => self.go_down(cx, DownReason::Unreachable),
            Link::Connecting { repeat, .. } => self.hello_due |= repeat.fire(now, &cx.config),
            Link::Up(session) => {
                if session.waiting_since.is_some_and(|since| since + cx.config.dead_after <= now) {
                    self.go_down(cx, DownReason::Silent);
                    return;
                }
                if let Some(repeat) = &mut session.confirm {
                    session.confirm_due |= repeat.fire(now, &cx.config);
                }
                self.ack.on_timeout(now, &self.rtt, &cx.config);
                self.nack.on_timeout(now, &cx.config);
                self.nack_in.on_timeout(now, self.rtt.rto(&cx.config, 0), &cx.config);
                self.ack_in.on_timeout(now);
            }
        }
    }
}

/// The last frame of a session that is ended on purpose, with the acknowledgement that is still owed.
pub(super) fn close_frame(
    cx: &Context,
    to: PeerId,
    session: &mut Session,
    owed: Option<AckReport>,
) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = FrameWriter::new(&mut frame, &cx.config);
    if let Some((next, beyond)) = owed {
        wire::put_ack(writer.items(), next, &beyond);
    }
    wire::put_close(writer.items());
    let number = session.next_frame_number();
    writer.finish(cx.me, to, &session.keys, number);
    frame
}
