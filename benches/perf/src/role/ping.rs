use super::{Goal, Messages, Role, Step};
use crate::case::{Case, Effort};
use crate::party::{Party, Refused};
use crate::stats::{Figures, RoundTrips};
use cl::Buf;
use cl_base::PeerId;
use std::time::Instant;

/// A ball that has not come back for so many ticks (0.2 s) is lost: another is thrown. Far more than a loaded
/// machine takes to run the other process.
const TICKS_UNTIL_LOST: u32 = 40;
/// In a batch the clock is read only once in so many rounds, so that the mean does not contain it.
const CLOCK_EVERY: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    WarmUp,
    /// Every round trip is timed by itself, for the percentiles.
    Single,
    /// Rounds without reading the clock, for the mean.
    Batch,
    Over,
}

/// Throws the ball and measures how long it takes to come back.
#[derive(Debug)]
pub struct Pinger {
    to: PeerId,
    messages: Messages,
    effort: Effort,
    part: Part,
    goal: Goal,
    trips: RoundTrips,
    mean_ns: Option<f64>,
    /// Of the ball under way.
    number: u64,
    /// When that was thrown; kept in [`Part::Single`] only.
    thrown: Instant,
    /// The ball was not accepted for sending: it is still here.
    held: bool,
    number_at_tick: u64,
    silent_ticks: u32,
    lost: u64,
    lost_in_batch: bool,
    /// The ball has come back, and has not been thrown again.
    back: bool,
}

impl Pinger {
    /// A player for `case` against `to`.
    pub fn new(case: &Case, to: PeerId) -> Pinger {
        let now = Instant::now();
        Pinger {
            to,
            messages: Messages::new(case),
            effort: case.effort,
            part: Part::WarmUp,
            goal: Goal::new(case.effort.warm_up(), now),
            trips: RoundTrips::default(),
            mean_ns: None,
            number: 0,
            thrown: now,
            held: false,
            number_at_tick: 0,
            silent_ticks: 0,
            lost: 0,
            lost_in_batch: false,
            back: false,
        }
    }

    #[inline]
    fn throw<P: Party>(&mut self, party: &mut P) -> Step {
        self.held = true;
        if self.messages.are_small_copies() {
            self.held = !party.send_copy(self.to, self.messages.copy_of(self.number))?;
            return Ok(());
        }
        let Some(buf) = self.messages.make(party, self.number) else { return Ok(()) };
        match party.send(self.to, buf) {
            Ok(()) => {
                self.held = false;
                Ok(())
            }
            Err(Refused::Later(_)) => Ok(()),
            Err(Refused::Never(why)) => Err(why),
        }
    }

    /// Goes on to the next part if this one is over at `now`.
    fn advance(&mut self, now: Instant) {
        if !self.goal.reached(now) {
            return;
        }
        let (part, effort) = match self.part {
            Part::WarmUp => (Part::Single, self.effort.part(2, 3)),
            Part::Single => (Part::Batch, self.effort.part(1, 3)),
            Part::Batch => {
                // A batch in which a ball was lost tells only how long that was waited for.
                if !self.lost_in_batch {
                    let took = now.duration_since(self.goal.since).as_nanos() as f64;
                    self.mean_ns = Some(took / self.goal.done as f64 / 2.0);
                }
                (Part::Over, self.effort)
            }
            Part::Over => return,
        };
        self.part = part;
        self.goal = Goal::new(effort, now);
    }
}

impl Role for Pinger {
    fn start<P: Party>(&mut self, party: &mut P) -> Step {
        self.goal = Goal::new(self.effort.warm_up(), Instant::now());
        self.throw(party)
    }

    fn takes_contents(&self) -> bool {
        self.messages.are_small_copies()
    }

    #[inline]
    fn on_contents(&mut self, _from: PeerId, contents: &[u8]) -> Step {
        if self.messages.take(contents)? != self.messages.number(self.number) {
            return Ok(()); // it had been given up for lost
        }
        self.back = true;
        self.number += 1;
        self.goal.done += 1;
        let look = match self.goal.effort {
            Effort::Iterations(n) => self.goal.done >= n,
            Effort::Time(_) => self.goal.done.is_multiple_of(CLOCK_EVERY),
        };
        if self.part == Part::Single || look {
            let now = Instant::now();
            if self.part == Part::Single {
                self.trips.record(now - self.thrown);
            }
            self.advance(now);
        }
        Ok(())
    }

    #[inline]
    fn after_contents<P: Party>(&mut self, party: &mut P) -> Step {
        if !std::mem::take(&mut self.back) {
            return Ok(());
        }
        match self.part {
            Part::Over => return Ok(()),
            Part::Single => self.thrown = Instant::now(),
            Part::WarmUp | Part::Batch => {}
        }
        self.throw(party)
    }

    #[inline]
    fn on_idle<P: Party>(&mut self, party: &mut P) -> Step {
        if self.held { self.throw(party) } else { Ok(()) }
    }

    fn on_tick<P: Party>(&mut self, party: &mut P) -> Step {
        if P::RELIABLE || self.part == Part::Over {
            return Ok(());
        }
        if self.number != self.number_at_tick {
            self.number_at_tick = self.number;
            self.silent_ticks = 0;
            return Ok(());
        }
        self.silent_ticks += 1;
        if self.silent_ticks < TICKS_UNTIL_LOST {
            return Ok(());
        }
        self.silent_ticks = 0;
        self.lost += 1;
        self.lost_in_batch |= self.part == Part::Batch;
        // Another number, so that the old ball is known should it come after all.
        self.number += 1;
        self.thrown = Instant::now();
        self.throw(party)
    }

    fn finished(&self) -> bool {
        self.part == Part::Over
    }

    fn figures(&self) -> Figures {
        let loss = self.lost as f64 / (self.number.max(1)) as f64;
        let mut figures = Figures { mean_ns: self.mean_ns, loss: Some(loss), ..Figures::default() };
        self.trips.write_halves(&mut figures);
        figures
    }
}

/// Throws the ball back.
#[derive(Debug)]
pub struct Echo {
    messages: Messages,
    /// An answer that was not accepted for sending.
    held: Option<(PeerId, u64)>,
}

impl Echo {
    /// The other player for `case`.
    pub fn new(case: &Case) -> Echo {
        Echo { messages: Messages::new(case), held: None }
    }

    #[inline]
    fn answer<P: Party>(&mut self, party: &mut P, to: PeerId, number: u64) -> Step {
        if self.messages.are_small_copies() {
            if !party.send_copy(to, self.messages.copy_of(number))? {
                self.held = Some((to, number));
            }
            return Ok(());
        }
        let Some(buf) = self.messages.make(party, number) else {
            self.held = Some((to, number));
            return Ok(());
        };
        match party.send(to, buf) {
            Ok(()) => {}
            Err(Refused::Later(_)) => self.held = Some((to, number)),
            Err(Refused::Never(why)) => return Err(why),
        }
        Ok(())
    }
}

impl Role for Echo {
    fn start<P: Party>(&mut self, _party: &mut P) -> Step {
        Ok(())
    }

    #[inline]
    fn on_message<P: Party>(&mut self, party: &mut P, from: PeerId, buf: Buf) -> Step {
        let number = self.messages.take(&buf)?;
        drop(buf);
        self.answer(party, from, number)
    }

    fn takes_contents(&self) -> bool {
        self.messages.are_small_copies()
    }

    #[inline]
    fn on_contents(&mut self, from: PeerId, contents: &[u8]) -> Step {
        self.held = Some((from, self.messages.take(contents)?));
        Ok(())
    }

    #[inline]
    fn after_contents<P: Party>(&mut self, party: &mut P) -> Step {
        self.on_idle(party)
    }

    #[inline]
    fn on_idle<P: Party>(&mut self, party: &mut P) -> Step {
        match self.held.take() {
            None => Ok(()),
            Some((to, number)) => self.answer(party, to, number),
        }
    }

    fn on_tick<P: Party>(&mut self, party: &mut P) -> Step {
        self.on_idle(party)
    }

    fn finished(&self) -> bool {
        false
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }
}
