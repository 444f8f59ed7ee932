use super::{Goal, Messages, Role, Step};
use crate::case::{Case, Effort};
use crate::party::{Party, Refused};
use crate::stats::Figures;
use cl::Buf;
use cl_base::PeerId;
use std::time::Instant;

/// A sender whose window is closed, and who has heard nothing for so many ticks (20 ms), takes what is under
/// way for lost and goes on.
const TICKS_UNTIL_LOST: u32 = 4;
/// After the last message, credit for it is awaited for so many ticks (100 ms).
const TICKS_UNTIL_OVER: u32 = 20;

/// What a receiver tells a sender, as a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Credit {
    /// Messages received of this sender.
    received: u64,
    /// One more than the highest number among them: earlier ones that are missing are lost, or very late.
    seen: u64,
}

const CREDIT_LEN: usize = 16;

impl Credit {
    fn to_bytes(self) -> [u8; CREDIT_LEN] {
        let mut bytes = [0; CREDIT_LEN];
        bytes[..8].copy_from_slice(&self.received.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seen.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Credit, String> {
        let bytes: &[u8; CREDIT_LEN] =
            bytes.try_into().map_err(|_| format!("a credit of {} bytes arrived", bytes.len()))?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Ok(Credit { received: word(0), seen: word(8) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    WarmUp,
    Measured,
    /// All is sent, credit for the last is awaited.
    Draining,
    Over,
}

/// Sends as fast as its window allows, and measures how fast messages arrive: by the receiver's credits.
#[derive(Debug)]
pub struct Source {
    to: PeerId,
    messages: Messages,
    window: u64,
    effort: Effort,
    part: Part,
    goal: Goal,
    sent: u64,
    credit: Credit,
    /// Sent, and taken for lost, for nothing was heard of them.
    given_up: u64,
    heard_at_tick: u64,
    silent_ticks: u32,
    /// When the measured part began, with how many messages received.
    began: (Instant, u64),
    figures: Figures,
    /// A message the layer would not take yet.
    held: Option<Buf>,
}

impl Source {
    /// A sender for `case` to `to`.
    pub fn new(case: &Case, to: PeerId) -> Source {
        let now = Instant::now();
        Source {
            to,
            messages: Messages::new(case),
            window: u64::from(case.window.max(1)),
            effort: case.effort,
            part: Part::WarmUp,
            goal: Goal::new(case.effort.warm_up(), now),
            sent: 0,
            credit: Credit::default(),
            given_up: 0,
            heard_at_tick: 0,
            silent_ticks: 0,
            began: (now, 0),
            figures: Figures::default(),
            held: None,
        }
    }

    /// Messages that count as under way.
    fn under_way(&self) -> u64 {
        self.sent - self.credit.seen.max(self.given_up)
    }

    /// Sends until the window is full or the layer takes no more.
    #[inline]
    fn send<P: Party>(&mut self, party: &mut P) -> Step {
        if matches!(self.part, Part::Draining | Part::Over) {
            return Ok(());
        }
        let mut room = self.window.saturating_sub(self.under_way());
        if let Effort::Iterations(n) = self.effort {
            room = room.min((n + self.warm_up_messages()).saturating_sub(self.sent));
        }
        if room == 0 {
            return Ok(());
        }
        if self.messages.are_small_copies() {
            while room > 0 {
                let messages = self.messages.copies_of(self.sent, room);
                let (accepted, all) = party.queue_copies(self.to, messages)?;
                self.sent += accepted;
                room -= accepted;
                if !all {
                    break;
                }
            }
            party.flush();
            return Ok(());
        }
        for _ in 0..room {
            let buf = match self.held.take() {
                Some(buf) => buf,
                None => match self.messages.make(party, self.sent) {
                    Some(buf) => buf,
                    None => break,
                },
            };
            match party.queue(self.to, buf) {
                Ok(()) => self.sent += 1,
                Err(Refused::Later(buf)) => {
                    self.held = Some(buf);
                    break;
                }
                Err(Refused::Never(why)) => return Err(why),
            }
        }
        party.flush();
        Ok(())
    }

    fn warm_up_messages(&self) -> u64 {
        match self.effort.warm_up() {
            Effort::Iterations(n) => n,
            Effort::Time(_) => 0,
        }
    }

    /// Goes on to the next part if this one is over.
    fn advance(&mut self) {
        self.goal.done = self.credit.seen.max(self.given_up)
            - if self.part == Part::Measured { self.warm_up_messages() } else { 0 };
        let now = Instant::now();
        if !self.goal.reached(now) {
            return;
        }
        match self.part {
            Part::WarmUp => {
                self.part = Part::Measured;
                self.began = (now, self.credit.received);
                self.goal = Goal::new(self.effort, now);
            }
            Part::Measured => {
                let (since, received) = self.began;
                let rate = (self.credit.received - received) as f64 / now.duration_since(since).as_secs_f64();
                self.figures.rate = Some(rate);
                self.figures.samples = Some((self.credit.received - received) as f64);
                self.figures.bandwidth = Some(rate * self.messages.size as f64);
                self.part = Part::Draining;
                self.silent_ticks = 0;
            }
            Part::Draining | Part::Over => {}
        }
    }
}

impl Role for Source {
    fn start<P: Party>(&mut self, party: &mut P) -> Step {
        self.goal = Goal::new(self.effort.warm_up(), Instant::now());
        self.send(party)
    }

    #[inline]
    fn on_message<P: Party>(&mut self, party: &mut P, _from: PeerId, buf: Buf) -> Step {
        let credit = Credit::from_bytes(&buf)?;
        drop(buf);
        if credit.seen > self.sent || credit.received > self.sent * 2 {
            return Err(format!("credit for {} messages of {} sent", credit.seen, self.sent));
        }
        // Datagrams may overtake each other.
        self.credit.received = self.credit.received.max(credit.received);
        self.credit.seen = self.credit.seen.max(credit.seen);
        self.advance();
        self.send(party)
    }

    #[inline]
    fn on_idle<P: Party>(&mut self, party: &mut P) -> Step {
        self.send(party)
    }

    fn on_tick<P: Party>(&mut self, party: &mut P) -> Step {
        let heard = self.credit.received;
        self.silent_ticks = if heard == self.heard_at_tick { self.silent_ticks + 1 } else { 0 };
        self.heard_at_tick = heard;
        match self.part {
            Part::Draining => {
                if heard >= self.sent || self.silent_ticks >= TICKS_UNTIL_OVER {
                    self.figures.loss = Some(1.0 - heard as f64 / self.sent.max(1) as f64);
                    self.part = Part::Over;
                }
                return Ok(());
            }
            Part::Over => return Ok(()),
            Part::WarmUp | Part::Measured => {}
        }
        if !P::RELIABLE && self.silent_ticks >= TICKS_UNTIL_LOST {
            self.given_up = self.sent;
        }
        self.advance();
        self.send(party)
    }

    fn finished(&self) -> bool {
        self.part == Part::Over
    }

    fn figures(&self) -> Figures {
        self.figures
    }
}

/// What a [`Sink`] knows of one sender.
#[derive(Clone, Copy, Debug, Default)]
struct Sender {
    credit: Credit,
    /// Messages received when credit was given last.
    credited: u64,
}

/// Receives, and gives credit.
#[derive(Debug)]
pub struct Sink {
    messages: Messages,
    numbered: bool,
    credit_every: u64,
    first: PeerId,
    /// By the distance of the sender's principal from that of `first`.
    senders: Vec<Sender>,
}

impl Sink {
    /// A receiver for `case`; the senders are `first` and those whose principals follow.
    pub fn new(case: &Case, first: PeerId) -> Sink {
        Sink {
            messages: Messages::new(case),
            numbered: case.size >= super::NUMBER_LEN,
            credit_every: u64::from(case.messages_per_credit()),
            first,
            senders: vec![Sender::default(); case.senders as usize],
        }
    }

    fn give_credit<P: Party>(&mut self, party: &mut P, index: usize) -> Step {
        let Some(mut buf) = party.alloc(CREDIT_LEN) else { return Ok(()) };
        let credit = self.senders[index].credit;
        buf.extend_from_slice(&credit.to_bytes());
        let to = PeerId::new(self.first.principal.0 + index as u32, self.first.instance);
        match party.send(to, buf) {
            Ok(()) => {
                self.senders[index].credited = credit.received;
                Ok(())
            }
            // The next message or tick tries again.
            Err(Refused::Later(_)) => Ok(()),
            Err(Refused::Never(why)) => Err(why),
        }
    }
}

impl Role for Sink {
    fn start<P: Party>(&mut self, _party: &mut P) -> Step {
        Ok(())
    }

    fn takes_contents(&self) -> bool {
        self.messages.are_small_copies()
    }

    #[inline]
    fn on_contents(&mut self, from: PeerId, contents: &[u8]) -> Step {
        let index = from.principal.0.wrapping_sub(self.first.principal.0) as usize;
        let Some(sender) = self.senders.get_mut(index) else {
            return Err(format!("a message of {from}, which takes no part"));
        };
        let number = self.messages.take(contents)?;
        sender.credit.received += 1;
        let seen = if self.numbered { number + 1 } else { sender.credit.received };
        sender.credit.seen = sender.credit.seen.max(seen);
        Ok(())
    }

    #[inline]
    fn after_contents<P: Party>(&mut self, party: &mut P) -> Step {
        for index in 0..self.senders.len() {
            let sender = self.senders[index];
            if sender.credit.received - sender.credited >= self.credit_every {
                self.give_credit(party, index)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn on_idle<P: Party>(&mut self, _party: &mut P) -> Step {
        Ok(())
    }

    fn on_tick<P: Party>(&mut self, party: &mut P) -> Step {
        // To all, for a credit may have been lost, and the last messages fill no quarter of a window.
        (0..self.senders.len())
            .filter(|i| self.senders[*i].credit.received > 0)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|i| self.give_credit(party, i))
    }

    fn finished(&self) -> bool {
        false
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }
}
