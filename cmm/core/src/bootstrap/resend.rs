//! What is said again, to whom and when: less and less often, and not at all to who knows the decision.

use super::Config;
use super::machine::Bootstrap;
use super::wire::{Message, Statement};
use cl_base::Time;
use std::time::Duration;

/// How often a decision is repeated to who was heard and does not confirm it. It asks by itself when it can.
const DECISION_REPEATS: u32 = 8;

/// The longest time between repetitions once there is a decision: then it is no longer urgent.
const DECIDED_RESEND_MAX: Duration = Duration::from_secs(30);

/// An agent is answered no more often than this: an answer is larger than the question.
const ANSWER_SPACING: Duration = Duration::from_millis(10);

/// When to repeat.
#[derive(Clone, Debug)]
pub(super) struct Resend {
    pub(super) at: Option<Time>,
    interval: Duration,
    decision_repeats: u32,
}

impl Resend {
    pub(super) fn new(now: Time, config: &Config) -> Resend {
        Resend { at: Some(now), interval: config.resend, decision_repeats: 0 }
    }
}

impl Bootstrap {
    /// Something new was said: repeat it soon, then less and less often.
    pub(super) fn resend_soon(&mut self, now: Time) {
        self.resend.interval = self.config.resend;
        self.resend.decision_repeats = 0;
        self.schedule_resend(now);
    }

    pub(super) fn resend_if_due(&mut self, now: Time) {
        if self.resend.at.is_none_or(|at| now < at) {
            return;
        }
        for to in self.others() {
            self.tell(to);
        }
        self.resend.decision_repeats += u32::from(self.is_decided());
        let longest = if self.is_decided() { DECIDED_RESEND_MAX } else { self.config.resend_max };
        self.resend.interval = (self.resend.interval * 2).min(longest);
        self.schedule_resend(now);
    }

    fn schedule_resend(&mut self, now: Time) {
        let owes = (!self.is_decided() && !self.served)
            || self.lacks_service()
            || self.asks_for_vouches()
            || self.others().any(|to| self.owes_decision(to));
        let interval = self.resend.interval.as_nanos() as u64;
        let jittered = self.rng.within(interval - interval / 4, interval + interval / 4);
        self.resend.at = owes.then_some(now + Duration::from_nanos(jittered));
    }

    /// Whether this agent said NO-SERVICE to what is still the highest decided instance.
    fn lacks_service(&self) -> bool {
        self.is_decided() && !self.served && self.state.no_service == self.state.decided()
    }

    /// Whether this agent lost its memory and is not yet cleared.
    fn asks_for_vouches(&self) -> bool {
        self.state.remembers_from == u64::MAX
    }

    fn owes_decision(&self, to: usize) -> bool {
        let peer = &self.peers[to];
        self.is_decided()
            && peer.heard
            && peer.decided < self.state.decided()
            && self.resend.decision_repeats < DECISION_REPEATS
    }

    /// Whether `to` may be answered now; notes that it was.
    pub(super) fn may_answer(&mut self, now: Time, to: usize) -> bool {
        spaced(&mut self.peers[to].answered, now)
    }

    /// The same for vouching.
    pub(super) fn may_vouch(&mut self, now: Time, to: usize) -> bool {
        spaced(&mut self.peers[to].vouched, now)
    }

    /// Says to one agent what this one stands for now.
    pub(super) fn tell(&mut self, to: usize) {
        if self.is_decided() {
            self.tell_decided(to);
        } else if !self.served {
            self.tell_undecided(to);
        }
    }

    fn tell_decided(&mut self, to: usize) {
        if self.owes_decision(to)
            && let Some(decision) = self.state.decision.clone()
        {
            self.send(to, &Message::Decision(decision));
        }
        if self.lacks_service()
            && let Some((instance, signature)) = self.peers[self.me].no_service
        {
            self.send(to, &Message::Says(Statement::NoService { instance }, signature));
        }
        if self.asks_for_vouches() && self.peers[to].vouch < Some(self.state.decided()) {
            let alive = self.own_alive();
            let signature = self.sign(&alive);
            self.send(to, &Message::Says(alive, signature));
        }
    }

    fn tell_undecided(&mut self, to: usize) {
        if self.state.instance > 1 && self.peers[to].alive.is_none() {
            let signatures = self.state.opened_by.clone();
            self.send(to, &Message::NoService { instance: self.state.instance - 1, signatures });
        }
        if let Some((alive, signature)) = self.peers[self.me].alive {
            self.send(to, &Message::Says(Statement::Alive(alive), signature));
        }
        if !self.takes_part() {
            return;
        }
        if let Some(message) = self.own_view_change() {
            self.send(to, &message);
        }
        if self.has_begun() {
            let supports = self.peers[to].prepare.as_ref().is_some_and(|(view, ..)| *view >= self.state.view);
            if let Some(proposal) = self.proposal.clone().filter(|_| !supports) {
                self.send(to, &Message::Propose(Box::new(proposal)));
            }
            if let Some((view, configuration, signature)) = self.peers[self.me].prepare.clone() {
                self.send(to, &Message::Says(Statement::Prepare { view, configuration }, signature));
            }
        }
        if let Some((view, configuration, signature)) = self.peers[self.me].commit.clone() {
            self.send(to, &Message::Says(Statement::Commit { view, configuration }, signature));
        }
    }
}

/// Whether `last` is long enough ago; then it is now.
fn spaced(last: &mut Option<Time>, now: Time) -> bool {
    let due = last.is_none_or(|last| now >= last + ANSWER_SPACING);
    if due {
        *last = Some(now);
    }
    due
}
