//! Timers, widening, group timer events (PROTOCOL.md 2.9, 2.10; dissertation 7.1.4).

use super::{Mode, Refusal, Replica, Role};
use crate::config::{MemberId, View};
use crate::effect::{Event, LeaveReason};
use crate::keys::Digest;
use crate::machine::StateMachine;
use crate::message::Message;
use cl_base::{Rng, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a STATUS interval is doubled while nothing moves: 50 ms becomes 800 ms.
const STATUS_BACKOFF_MAX: u32 = 4;

/// Deadlines of a replica.
#[derive(Debug)]
pub(crate) struct Timers {
    /// When the next STATUS is sent, and when the last one was.
    status_at: Time,
    status_last: Time,
    /// STATUS messages in a row that changed nothing.
    status_fruitless: u32,
    /// T_req runs since then: work is known and unfinished.
    waiting_since: Option<Time>,
    widen_asked: bool,
    /// T_nv: when the view asked for must be there.
    new_view_at: Option<Time>,
    /// When the view was installed: an overdue deadline is the new primary's fault only from then on.
    view_since: Time,
    /// When execution last moved.
    executed_at: Time,
    /// When each member's STATUS was last answered.
    answered: BTreeMap<MemberId, Time>,
    attempt: u64,
    jitter: Rng,
}

impl Timers {
    pub(crate) fn new(now: Time, me: MemberId) -> Timers {
        Timers {
            status_at: now,
            status_last: now,
            status_fruitless: 0,
            waiting_since: None,
            widen_asked: false,
            new_view_at: None,
            view_since: now,
            executed_at: now,
            answered: BTreeMap::new(),
            attempt: u64::from(me.0),
            // Only spreads the members' STATUS messages; any seed does.
            jitter: Rng::new(u64::from(me.0) ^ now.as_nanos()),
        }
    }

    /// Counts attempts, so that each asks other members.
    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }

    /// Whether a STATUS of `member` is answered now; a storm of them is not.
    pub(crate) fn may_answer(&mut self, member: MemberId, now: Time, pause: Duration) -> bool {
        let due = self.answered.get(&member).is_none_or(|last| now >= *last + pause);
        if due {
            self.answered.insert(member, now);
        }
        due
    }

    /// Up to a quarter more or less.
    fn jittered(&mut self, d: Duration) -> Duration {
        let nanos = d.as_nanos() as u64;
        Duration::from_nanos(self.jitter.within(nanos - nanos / 4, nanos + nanos / 4))
    }
}

impl<S: StateMachine> Replica<S> {
    /// `base` doubled once for each fruitless view (k of 2.9), capped.
    ///
    /// T_req grows like T_nv: a network slower than T_req would otherwise lose every view it installs.
    pub(super) fn backed_off(&self, base: Duration) -> Duration {
        base.saturating_mul(1 << self.fruitless.min(16)).min(self.config.timeout_max.max(base))
    }

    /// Whether T_req must run: an active member knows of something that the view has not finished.
    fn is_waiting(&self) -> bool {
        self.normal()
            && self.is_active()
            && (self.has_state() && !self.pending.is_empty() || self.has_uncommitted())
    }

    fn has_uncommitted(&self) -> bool {
        self.log.uncommitted().any(|slot| slot.accepted.is_some() || slot.held.is_some())
    }

    /// Whether STATUS should be frequent.
    fn is_unfinished(&self) -> bool {
        !self.normal()
            || !self.has_state()
            || self.unjustified.is_some()
            || self.is_waiting()
            || (self.wide.is_some() && self.has_uncommitted())
    }

    /// When an active member gives up on the primary because of a deadline that it withholds.
    fn withheld_at(&self) -> Option<Time> {
        if !(self.normal() && self.is_active() && self.has_state()) {
            return None;
        }
        let deadline = self.machine.next_deadline().filter(|d| *d > self.time)?;
        let late = (deadline + self.config.late_threshold).max(self.timers.view_since);
        Some(late + self.backed_off(self.config.request_timeout))
    }

    /// Starts and stops timers to fit the situation after an input.
    pub(super) fn update_timers(&mut self) {
        if !self.is_waiting() {
            self.timers.waiting_since = None;
            self.timers.widen_asked = false;
        } else if self.timers.waiting_since.is_none() {
            self.timers.waiting_since = Some(self.now);
        }
        if self.mode == Mode::Normal {
            self.timers.new_view_at = None;
        } else if self.timers.new_view_at.is_none() && self.asking(self.view) >= self.config.quorum() {
            self.timers.new_view_at = Some(self.now + self.backed_off(self.config.new_view_timeout));
        }
        if self.is_unfinished() {
            let interval = self.config.status_active * (1 << self.timers.status_fruitless);
            let soon = self.now.max(self.timers.executed_at) + interval.min(self.config.status_idle);
            if soon + interval < self.timers.status_at {
                self.timers.status_at = soon;
            }
        } else {
            self.timers.status_fruitless = 0;
        }
    }

    /// The earliest of all timers.
    pub(super) fn earliest_timer(&self) -> Time {
        let mut at = self.timers.status_at;
        if let Some(since) = self.timers.waiting_since {
            let patience = self.backed_off(self.config.request_timeout);
            let widened = self.timers.widen_asked || !self.config.widens();
            at = at.min(since + if widened { patience } else { patience / 2 });
        }
        if let Some(new_view_at) = self.timers.new_view_at {
            at = at.min(new_view_at);
        }
        if let Some(transfer) = &self.transfer {
            at = at.min(transfer.retry_at);
        }
        if let Some(withheld_at) = self.withheld_at() {
            at = at.min(withheld_at);
        }
        if self.normal()
            && self.role() == Role::Primary
            && self.has_state()
            && let Some(deadline) = self.machine.next_deadline()
            && deadline > self.last_proposed_time.max(self.now)
        {
            at = at.min(deadline);
        }
        at
    }

    /// Does what is due. Group timer events of the primary follow in `propose`.
    pub(super) fn expire(&mut self) {
        let asked = self.view.max(self.asked_view());
        if let Some(since) = self.timers.waiting_since {
            let patience = self.backed_off(self.config.request_timeout);
            if self.now >= since + patience {
                self.leave(asked + 1, LeaveReason::RequestTimeout);
            } else if self.config.widens() && self.now >= since + patience / 2 && !self.timers.widen_asked {
                self.ask_to_widen();
            }
        }
        if self.withheld_at().is_some_and(|at| self.now >= at) {
            let asked = self.view.max(self.asked_view());
            self.leave(asked + 1, LeaveReason::DeadlineWithheld);
        }
        if self.timers.new_view_at.is_some_and(|at| self.now >= at) {
            self.leave(self.view + 1, LeaveReason::NewViewTimeout);
        }
        self.retry_transfer();
        if self.now >= self.timers.status_at {
            self.tick_status();
        }
    }

    /// The member loses patience with its view now, whatever the clock says: for model checkers, where timers fire
    /// at will.
    #[doc(hidden)]
    pub fn time_out(&mut self) {
        if self.halted.is_none() {
            let next = self.view.max(self.asked_view()) + 1;
            self.leave(next, LeaveReason::RequestTimeout);
            self.settle();
        }
    }

    /// Another member has what this one lacks: asks for it soon.
    pub(super) fn hasten_status(&mut self) {
        let soon = (self.timers.status_last + self.config.status_active).max(self.now);
        self.timers.status_at = self.timers.status_at.min(soon);
    }

    fn tick_status(&mut self) {
        let unfinished = self.is_unfinished();
        let interval = if unfinished {
            self.config.status_active * (1 << self.timers.status_fruitless)
        } else {
            self.config.status_idle
        };
        if unfinished {
            self.timers.status_fruitless = (self.timers.status_fruitless + 1).min(STATUS_BACKOFF_MAX);
            self.fetch_bodies();
            self.fetch_justification();
            if self.timers.widen_asked {
                self.ask_to_widen();
            }
        }
        self.timers.status_last = self.now;
        self.timers.status_at = self.now + self.timers.jittered(interval.min(self.config.status_idle));
        self.send_status();
        // Execution stands still although w members are past a checkpoint: fetch it.
        if self.has_state()
            && self.now >= self.timers.executed_at + self.config.request_timeout
            && let Some((rsn, digest)) = self.highest_weak(self.executed)
        {
            self.begin_transfer(rsn, digest);
        }
    }

    /// Execution has moved: the primary is alive.
    pub(super) fn note_execution(&mut self) {
        self.executed_in_view += 1;
        self.executed_since_fall += 1;
        if self.executed_since_fall >= self.config.checkpoint_interval {
            self.executed_since_fall = 0;
            self.fruitless = self.fruitless.saturating_sub(1);
        }
        self.note_progress();
    }

    /// What is executed here has moved, by execution or by transfer.
    pub(super) fn note_progress(&mut self) {
        let timers = &mut self.timers;
        timers.executed_at = self.now;
        timers.status_fruitless = 0;
        timers.widen_asked = false;
        if timers.waiting_since.is_some() {
            timers.waiting_since = Some(self.now);
        }
        // Nothing was lost so far, so STATUS can wait; but not for ever.
        let later = self.now + self.config.status_active;
        timers.status_at =
            timers.status_at.max(later).min(timers.status_last + self.config.status_idle).max(self.now);
        if self.wide.is_some_and(|since| self.executed >= since + self.config.checkpoint_interval) {
            self.wide = None;
            self.event(Event::Narrowed { view: self.view });
        }
    }

    pub(super) fn left_view(&mut self) {
        self.unheard.clear();
        self.timers.waiting_since = None;
        self.timers.widen_asked = false;
        self.timers.new_view_at = None;
        self.timers.status_fruitless = 0;
        self.update_timers();
    }

    pub(super) fn installed_view(&mut self) {
        self.left_view();
        self.timers.view_since = self.now;
    }

    fn ask_to_widen(&mut self) {
        self.timers.widen_asked = true;
        self.broadcast(&Message::Widen { view: self.view, tag: self.tag });
        self.widen();
    }

    /// A WIDEN of any active member opens the view (2.10).
    pub(super) fn on_widen(&mut self, from: MemberId, view: View, tag: Digest) {
        if !self.normal() || view != self.view || tag != self.tag {
            return self.refuse(Refusal::View);
        }
        if !self.active.contains(&from) {
            return self.refuse(Refusal::Sender);
        }
        if !self.config.widens() {
            return self.refuse(Refusal::Unasked);
        }
        self.widen();
    }

    /// All members are asked from now on; the spares get what is under way.
    fn widen(&mut self) {
        if self.wide.is_some() {
            return;
        }
        self.wide = Some(self.executed);
        self.event(Event::Widened { view: self.view });
        if self.is_active() {
            for spare in self.config.all().filter(|m| !self.active.contains(m)).collect::<Vec<_>>() {
                self.resend_uncommitted(spare);
            }
        } else {
            self.vote_on_order();
            self.fetch_bodies();
        }
    }
}
