//! Whether the peer still lives, when somebody else has called in its name.
//!
//! A call that is confirmed proves that somebody receives at the address it came from: the peer after a restart, or anybody.
//! So the peer is asked (`Ask`) at the address where it was heard last. If it lives there it says so (`Alive`), and the newcomer is
//! refused. If it has started anew there, or does not know this connection for another reason, it says that (`Reset`), and the
//! newcomer takes the place, as it does if nobody says anything for a [while](Connection::patience). RFC 5961 has TCP ask
//! like that before a SYN ends a connection.
//!
//! A connection that the peer has not answered for good is a question in itself: it is repeated instead.

use super::{CloseReason, Connection, Head, State};
use crate::wire::{HEADER_LEN, Header, Kind};
use cl_base::Time;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

/// The peer is asked so many times before its silence counts: with a tenth of all frames lost, all of the questions or
/// their answers are once in a million times.
const QUESTIONS: u32 = 8;
/// For so long the peer's word counts, and it is not asked more often: who calls in its name all the time costs it a
/// hundred frames per second.
const PAUSE: Duration = Duration::from_millis(10);
/// Who comes late to the end of the patience has not listened, and asks again; so often at the most.
const RENEWALS_MAX: u32 = 3;

/// Who has called in the peer's name, and has proved that it receives at its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub(crate) addr: SocketAddr,
    pub(crate) confirm: Header,
}

/// What becomes of a [`Newcomer`].
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The peer lives.
    Refused(Newcomer),
    /// The former connection has ended.
    Admitted(Newcomer),
    /// Where we have called nobody answers: the call goes to the newcomer.
    Followed(Newcomer),
}

pub(super) struct Doubt {
    newcomer: Newcomer,
    question: u64,
    /// The question is to be sent now.
    due: bool,
    asked_at: Time,
    /// When to ask again, and how long in all.
    ask_at: Time,
    until: Time,
    renewals: u32,
    /// The peer lives.
    answered: bool,
    /// Our call goes to the newcomer.
    follows: bool,
}

impl Doubt {
    pub(super) fn deadline(&self) -> Time {
        self.ask_at.min(self.until)
    }
}

impl<B: Deref<Target = [u8]>> Connection<B> {
    /// How long a peer may be silent when it is asked whether it lives: as long as between two of the questions
    /// that any silent peer is asked.
    fn patience(&self) -> Duration {
        self.dead_after / 4
    }

    /// Somebody else has called in the peer's name. [`Connection::verdict`] tells in time what becomes of it.
    pub(crate) fn doubt(&mut self, now: Time, mut newcomer: Newcomer) {
        let here = self.addr;
        // Taken in later, it is no measure of the round trip.
        newcomer.confirm.answer = true;
        if let Some(doubt) = &mut self.doubt {
            // Who calls from where the peer was is sooner the peer than others.
            if newcomer.addr == here || newcomer.addr == doubt.newcomer.addr {
                doubt.newcomer = newcomer;
            }
            if now >= doubt.asked_at + PAUSE {
                self.ask(now);
            }
            return;
        }
        // Where it was it may have started anew since.
        let believed = now < self.believed_until && newcomer.addr != here;
        self.doubt = Some(Box::new(Doubt {
            newcomer,
            question: 0,
            due: false,
            asked_at: now,
            ask_at: now,
            until: now + self.patience(),
            renewals: 0,
            answered: believed,
            follows: false,
        }));
        if !believed {
            self.ask(now);
        }
    }

    /// Has the question asked.
    fn ask(&mut self, now: Time) {
        let again = self.patience() / QUESTIONS;
        let Some(doubt) = &mut self.doubt else { return };
        if self.state == State::Open {
            if !doubt.due {
                self.questions += 1;
            }
            (doubt.question, doubt.due) = (self.questions, true);
        } else {
            self.probe_due = true;
        }
        (doubt.asked_at, doubt.ask_at) = (now, now + again);
    }

    /// The peer lives, and answers the question of this number.
    pub(super) fn on_alive(&mut self, now: Time, question: u64) {
        if let Some(doubt) = &mut self.doubt
            && doubt.question == question
        {
            doubt.answered = true;
            self.believed_until = now + PAUSE;
        }
    }

    /// The peer has answered our call for good: so it lives.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
        if let Some(doubt) = &mut self.doubt {
            doubt.answered = true;
        }
    }

    /// Time has passed in which the peer may have said that it lives.
    pub(super) fn on_doubt_deadline(&mut self, now: Time) {
        let (patience, late) = (self.patience(), self.dead_after / 8);
        let Some(doubt) = self.doubt.as_mut().filter(|doubt| now >= doubt.deadline()) else { return };
        if now >= doubt.until {
            let listened = now.saturating_since(doubt.until) <= late || doubt.renewals >= RENEWALS_MAX;
            if listened && self.state == State::Calling {
                (doubt.follows, self.addr) = (true, doubt.newcomer.addr);
                return;
            }
            if listened {
                self.state = State::Closed(CloseReason::Restarted);
                return;
            }
            doubt.renewals += 1;
            doubt.until = now + patience;
        }
        self.ask(now);
    }

    /// What is to be done about who has called in the peer's name, once that is known.
    pub(crate) fn verdict(&mut self) -> Option<Verdict> {
        let doubt = self.doubt.as_ref()?;
        let newcomer = doubt.newcomer;
        let verdict = if self.is_over() {
            Verdict::Admitted(newcomer)
        } else if doubt.answered {
            Verdict::Refused(newcomer)
        } else if doubt.follows {
            Verdict::Followed(newcomer)
        } else {
            return None;
        };
        if self.state == State::Closed(CloseReason::Reset) {
            self.state = State::Closed(CloseReason::Restarted);
        }
        self.doubt = None;
        Some(verdict)
    }

    /// True if a frame is of the connection that a newcomer would have.
    pub(crate) fn is_of_newcomer(&self, header: &Header) -> bool {
        let confirm = self.doubt.as_ref().map(|doubt| doubt.newcomer.confirm);
        confirm.is_some_and(|c| (c.source, c.destination) == (header.source, header.destination))
    }

    /// Writes the answer to a question of the peer's, or a question of ours, if one is due.
    pub(super) fn write_questions(&mut self, now: Time, head: &mut Head) -> bool {
        let (kind, number) = if let Some(question) = self.asked.take() {
            (Kind::Alive, question)
        } else if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.due) {
            doubt.due = false;
            (Kind::Ask, doubt.question)
        } else {
            return false;
        };
        head.bytes[HEADER_LEN..HEADER_LEN + kind.numbers_len()].copy_from_slice(&number.to_le_bytes());
        self.write(now, head, kind.numbers_len(), kind, None);
        true
    }
}
