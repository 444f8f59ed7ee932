//! The thread behind a [`Handle`](super::Handle).

use super::desk::{Desk, Question};
use super::notices::Bell;
use crate::carrier::{Arrived, CARRIER_TIMER, Carrier};
use cl::Received;
use cl::runtime::{Core, TimerId};
use cl_base::PeerId;

const DESK: TimerId = TimerId(1);

pub(crate) enum Mail {
    Ask(Question),
    Listen(Bell),
    Frame { from: PeerId, bytes: Vec<u8> },
    Leave,
}

pub(crate) struct Service {
    pub(crate) desk: Desk,
    pub(crate) carrier: Carrier,
}

type Cx = Core<Mail>;

impl Service {
    /// Hands frames between carrier and client until neither has more to do.
    fn settle(&mut self, cx: &mut Cx) {
        let now = cx.now();
        loop {
            let mut sent = false;
            while let Some((to, bytes)) = self.desk.poll_send() {
                self.carrier.send(now, to, bytes);
                sent = true;
            }
            if sent {
                self.carrier.flush(cx);
            }
            match self.carrier.poll() {
                Some(Arrived::Frame { from, bytes }) => self.desk.on_message(now, from, &bytes),
                Some(Arrived::Refusal { from, why }) => self.desk.on_refusal(from, why),
                None if !sent => break,
                None => {}
            }
        }
        match self.desk.next_timeout() {
            Some(at) => cx.set_timer(at, DESK),
            None => {
                cx.cancel_timer(DESK);
            }
        }
    }
}

impl cl::runtime::Service for Service {
    type Mail = Mail;

    fn start(&mut self, cx: &mut Cx) {
        let members = self.desk.config().members.clone();
        self.carrier.connect(cx, &members);
        self.settle(cx);
    }

    fn on_message(&mut self, cx: &mut Cx, received: Received) {
        self.carrier.on_message(cx, received);
        self.settle(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx, id: TimerId) {
        match id {
            CARRIER_TIMER => self.carrier.on_timer(cx),
            _ => self.desk.on_timeout(cx.now()),
        }
        self.settle(cx);
    }

    fn on_mail(&mut self, cx: &mut Cx, mail: Mail) {
        match mail {
            Mail::Ask(question) => self.desk.ask(cx.now(), question),
            Mail::Listen(bell) => self.desk.listen(cx.now(), bell),
            Mail::Frame { from, bytes } => self.desk.on_message(cx.now(), from, &bytes),
            Mail::Leave => {
                self.carrier.close(cx);
                cx.stop();
                return;
            }
        }
        self.settle(cx);
    }
}
