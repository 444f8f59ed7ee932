//! NACK messages: the receiver asks for what it misses.

use crate::ack::{Arrival, Impossible};
use crate::body::Spare;
use crate::outcome::Outcomes;
use crate::queue::Queue;
use crate::rtt::Rtt;
use crate::wire::items::RANGES_MAX;
use crate::{Config, FailReason, SendStatus};
use cl_base::Time;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// How far a receiver remembers what has arrived beyond a gap; older gaps are given up.
const WINDOW: u64 = 1024;

/// The sending side: a history of what was sent, then what is still to be sent.
#[derive(Debug)]
pub(crate) struct NackSender {
    pub(crate) queue: Queue,
    /// The peer has told that it has everything below.
    reported: u64,
    advert_at: Option<Time>,
    advert_backoff: u32,
    pub(crate) advert_due: bool,
    outcomes: Outcomes,
}

impl NackSender {
    pub(crate) fn new(first: u64) -> NackSender {
        NackSender {
            queue: Queue::new(first),
            reported: first,
            advert_at: None,
            advert_backoff: 0,
            advert_due: false,
            outcomes: Outcomes::new(first),
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.queue.unsent() == 0 && self.reported >= self.queue.sent_end()
    }

    pub(crate) fn advert_at(&self) -> Option<Time> {
        self.advert_at
    }

    pub(crate) fn next_to_send(&self) -> Option<u64> {
        self.queue.next_to_repeat().or_else(|| (self.queue.unsent() > 0).then(|| self.queue.sent_end()))
    }

    pub(crate) fn on_sent(&mut self, now: Time, number: u64, config: &Config, spare: &mut Spare) {
        if self.queue.on_sent(now, number) {
            self.advert_backoff = 0;
            self.advert_at = Some(now + config.advert_delay);
            self.trim(config, spare);
        }
    }

    fn trim(&mut self, config: &Config, spare: &mut Spare) {
        while self.queue.sent() > config.history_messages
            || self.queue.sent() > 1 && self.queue.sent_bytes() > config.history_bytes
        {
            if self.queue.base() >= self.reported {
                self.outcomes.forget_through(self.queue.base());
            }
            spare.give(self.queue.pop_sent().body);
        }
    }

    /// The peer has everything below `next` and misses `missing`.
    pub(crate) fn on_report(
        &mut self,
        now: Time,
        next: u64,
        missing: impl Iterator<Item = (u64, u32)>,
        rtt: &Rtt,
        config: &Config,
        spare: &mut Spare,
    ) -> Result<(), Impossible> {
        let end = self.queue.sent_end();
        if next > end {
            return Err(Impossible);
        }
        self.reported = self.reported.max(next);
        while self.queue.base() < next {
            spare.give(self.queue.pop_sent().body);
        }
        // A repetition asked for again within a round trip was asked for once too often.
        let patience = rtt.overtaken(config) / 2;
        for (first, count) in missing {
            let wanted = first.max(self.queue.base())..first.saturating_add(u64::from(count)).min(end);
            for number in wanted {
                let entry = self.queue.entry(number).expect("within what was sent");
                if entry.attempts < 2 || entry.sent + patience <= now {
                    self.queue.repeat([number]);
                }
            }
        }
        self.advert_backoff = 0;
        self.advert_due = false;
        self.advert_at = (self.reported < end).then(|| now + rtt.rto(config, 1));
        Ok(())
    }

    pub(crate) fn on_timeout(&mut self, now: Time, config: &Config) {
        if self.advert_at.is_none_or(|at| at > now) {
            return;
        }
        self.advert_due = true;
        self.advert_backoff = (self.advert_backoff + 1).min(16);
        let interval = config.advert_delay.saturating_mul(1 << self.advert_backoff);
        self.advert_at = Some(now + interval.min(config.rto_max));
    }

    pub(crate) fn on_new_session(&mut self, now: Time, config: &Config) {
        if self.reported < self.queue.sent_end() {
            self.advert_due = true;
            self.advert_backoff = 0;
            self.advert_at = Some(now + config.advert_delay);
        }
    }

    pub(crate) fn on_session_end(&mut self) {
        self.advert_at = None;
        self.advert_due = false;
    }

    /// Repeats a message at once; false if it is no longer in the history.
    pub(crate) fn resend(&mut self, number: u64) -> bool {
        let there = number < self.queue.sent_end() && self.queue.entry(number).is_some();
        if there {
            self.queue.repeat([number]);
        }
        there
    }

    /// Gives up everything, or only what was sent before. Returns the numbers given up.
    pub(crate) fn fail(&mut self, reason: FailReason, sent_only: bool) -> Range<u64> {
        let first = self.queue.base().max(self.reported);
        self.queue.clear(sent_only);
        let end = self.queue.base();
        (first..end).for_each(|number| self.outcomes.fail(number, reason));
        self.reported = end;
        self.on_session_end();
        first..end
    }

    pub(crate) fn status(&self, number: u64) -> SendStatus {
        if number >= self.queue.next_number() {
            SendStatus::Unknown
        } else if number < self.reported {
            self.outcomes.status(number)
        } else if number >= self.queue.base() {
            SendStatus::Pending
        } else {
            // Fell out of the history before the peer told anything about it.
            SendStatus::Unknown
        }
    }
}

/// The receiving side.
#[derive(Debug, Default)]
pub(crate) struct NackReceiver {
    /// Everything below has arrived or was given up; unknown before the first message.
    next: Option<u64>,
    /// Arrived, at or above `next`.
    arrived: BTreeSet<u64>,
    /// The sender has sent everything below.
    end: u64,
    ask_at: Option<Time>,
    asked: u32,
    /// A report is owed although nothing may be missing.
    pub(crate) report_due: bool,
}

impl NackReceiver {
    /// Takes a message. Returns whether it is new, and how many were given up.
    pub(crate) fn on_message(
        &mut self,
        now: Time,
        number: u64,
        base: u64,
        config: &Config,
    ) -> (Arrival, u64) {
        // In order, as nearly all are: no set is touched.
        if self.next == Some(number) && self.end == number && base <= number {
            self.next = Some(number + 1);
            self.end = number + 1;
            return (Arrival::New, 0);
        }
        let gaps = self.advance(base, number + 1);
        let next = self.next.expect("set by advance");
        let arrival =
            if number < next || !self.arrived.insert(number) { Arrival::Duplicate } else { Arrival::New };
        self.settle(now, config);
        (arrival, gaps)
    }

    /// The sender has sent everything below `end` and can repeat what is not below `base`. Returns how many
    /// were given up.
    pub(crate) fn on_advert(&mut self, now: Time, base: u64, end: u64, config: &Config) -> u64 {
        let gaps = self.advance(base, end);
        self.settle(now, config);
        self.report_due = true;
        gaps
    }

    fn advance(&mut self, base: u64, end: u64) -> u64 {
        let old = self.next.unwrap_or(base);
        self.end = self.end.max(end);
        let next = old.max(base).max(self.end.saturating_sub(WINDOW));
        self.next = Some(next);
        let mut given_up = next - old;
        while self.arrived.first().is_some_and(|first| *first < next) {
            self.arrived.pop_first();
            given_up -= 1;
        }
        given_up
    }

    fn settle(&mut self, now: Time, config: &Config) {
        let mut next = self.next.expect("set by advance");
        while self.arrived.remove(&next) {
            next += 1;
        }
        if self.next != Some(next) {
            self.asked = 0;
        }
        self.next = Some(next);
        if next == self.end {
            self.ask_at = None;
            self.asked = 0;
        } else if self.ask_at.is_none() {
            self.ask_at = Some(now + config.nack_delay);
        }
    }

    pub(crate) fn ask_at(&self) -> Option<Time> {
        self.ask_at
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.next.is_some_and(|next| next < self.end)
    }

    pub(crate) fn report_now(&mut self) {
        self.report_due = self.next.is_some();
    }

    pub(crate) fn on_timeout(&mut self, now: Time, rto: Duration, config: &Config) {
        if self.ask_at.is_none_or(|at| at > now) {
            return;
        }
        self.report_due = true;
        self.asked = (self.asked + 1).min(16);
        self.ask_at = Some(now + rto.saturating_mul(1 << (self.asked - 1)).min(config.rto_max));
    }

    /// There is a new session: what is missing is asked for again soon.
    pub(crate) fn on_new_session(&mut self, now: Time, config: &Config) {
        self.asked = 0;
        self.ask_at = self.is_missing().then(|| now + config.nack_delay);
    }

    pub(crate) fn on_session_end(&mut self) {
        self.ask_at = None;
        self.report_due = false;
    }

    /// The report, if one is due.
    pub(crate) fn take_report(&mut self) -> Option<(u64, Vec<(u64, u32)>)> {
        if !std::mem::take(&mut self.report_due) {
            return None;
        }
        let next = self.next?;
        let mut missing = Vec::new();
        let mut from = next;
        for number in self.arrived.iter().copied().chain([self.end]) {
            if from < number && missing.len() < RANGES_MAX {
                missing.push((from, u32::try_from(number - from).expect("within the window")));
            }
            from = number + 1;
        }
        Some((next, missing))
    }
}
