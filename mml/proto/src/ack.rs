//! ACK messages: acknowledged, repeated, delivered once and in order.

use crate::body::Spare;
use crate::entry::Entry;
use crate::outcome::Outcomes;
use crate::queue::Queue;
use crate::rtt::Rtt;
use crate::wire::items::ACK_WORDS_MAX;
use crate::{Config, FailReason, SendStatus};
use cl_base::Time;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// Messages in flight at most, so that one acknowledgement can speak of all of them.
const WINDOW: u64 = 64 * ACK_WORDS_MAX as u64;
/// Body bytes in flight at most (but one message always may be): about what a gigabit network holds for
/// some milliseconds; more would only fill the receiver's socket buffer.
const WINDOW_BYTES: usize = 1 << 20;
/// Messages repeated on one expiry, or as many as fill a frame. A burst of all would be lost for the same reason as the
/// first time.
const BURST: usize = 16;
/// So often, at the least, a message is repeated before the peer that does not answer is taken for dead: where nine of ten
/// frames are lost on either way, one of a hundred comes back, and pauses that double without end would leave ten tries.
const TRIES_MIN: u32 = 64;
/// A message is taken for lost when so many later ones have arrived (RFC 5681 uses the same number).
const OVERTAKEN_BY: u64 = 3;
/// Arrivals after which an acknowledgement no longer waits for company.
const UNREPORTED_MAX: u32 = 16;

/// The sending side: its queue begins with the oldest unacknowledged message.
#[derive(Debug)]
pub(crate) struct AckSender {
    pub(crate) queue: Queue,
    expiry: Option<Time>,
    backoff: u32,
    outcomes: Outcomes,
}

/// An acknowledgement of what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Impossible;

impl AckSender {
    pub(crate) fn new(first: u64) -> AckSender {
        AckSender { queue: Queue::new(first), expiry: None, backoff: 0, outcomes: Outcomes::new(first) }
    }

    pub(crate) fn expiry(&self) -> Option<Time> {
        self.expiry
    }

    /// The message to send next.
    pub(crate) fn next_to_send(&self) -> Option<u64> {
        if let Some(number) = self.queue.next_to_repeat() {
            return Some(number);
        }
        let (entry, sent) = (self.queue.first_unsent()?, self.queue.sent());
        let room = sent == 0 || self.queue.sent_bytes() + entry.body.len() <= WINDOW_BYTES;
        ((sent as u64) < WINDOW && room).then_some(self.queue.sent_end())
    }

    /// The message from [`AckSender::next_to_send`] was sent.
    pub(crate) fn on_sent(&mut self, now: Time, number: u64, rto: Duration) {
        self.queue.on_sent(now, number);
        if self.expiry.is_none() {
            self.expiry = Some(now + rto);
        }
    }

    /// All below `next` have arrived, and `next + 1 + i` has if bit `i` of `beyond` is set. Returns the
    /// numbers that are now settled.
    pub(crate) fn on_ack(
        &mut self,
        now: Time,
        next: u64,
        beyond: &[u64; ACK_WORDS_MAX],
        rtt: &mut Rtt,
        config: &Config,
        spare: &mut Spare,
    ) -> Result<Range<u64>, Impossible> {
        let end = self.queue.sent_end();
        if next > end {
            return Err(Impossible);
        }
        let old_base = self.queue.base();
        let mut progress = false;
        let mut sample = None;
        while self.queue.base() < next {
            let entry = self.queue.pop_sent();
            progress = true;
            if !entry.arrived && entry.attempts == 1 {
                sample = Some(entry.sent);
            }
            spare.give(entry.body);
        }
        let mut highest = None;
        let beyond = (0u64..).zip(beyond).filter(|(_, word)| **word != 0);
        let arrived = beyond.flat_map(|(i, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 64 * i + bit)
        });
        for bit in arrived {
            let number = next + 1 + bit;
            if number < self.queue.base() || number >= end {
                continue;
            }
            highest = Some(number);
            if let Some(entry) = self.queue.on_arrived(number) {
                progress = true;
                if entry.attempts == 1 {
                    sample = Some(entry.sent);
                }
            }
        }
        if let Some(sent) = sample {
            rtt.sample(now.saturating_since(sent));
        }
        if let Some(highest) = highest {
            self.repeat_overtaken(now, highest, rtt.overtaken(config));
        }
        if progress {
            self.backoff = 0;
            self.expiry = (self.queue.sent() > 0).then(|| now + rtt.rto(config, 0));
        }
        Ok(old_base..self.queue.base())
    }

    /// What was sent and has not arrived, with its numbers.
    fn missing(&self) -> impl Iterator<Item = (&Entry, u64)> {
        self.queue.sent_entries().filter(|(entry, _)| !entry.arrived)
    }

    fn repeat_overtaken(&mut self, now: Time, highest: u64, after: Duration) {
        let lost = self.missing().take_while(|(_, number)| number + OVERTAKEN_BY <= highest);
        let lost = lost.filter(|(entry, _)| entry.sent + after <= now);
        let lost: Vec<u64> = lost.map(|(_, number)| number).collect();
        self.queue.repeat(lost);
    }

    pub(crate) fn on_timeout(&mut self, now: Time, rtt: &Rtt, config: &Config) {
        if self.expiry.is_none_or(|at| at > now) {
            return;
        }
        let (mut messages, mut bytes) = (0, 0);
        let repeated = self.missing().take_while(|(entry, _)| {
            (messages, bytes) = (messages + 1, bytes + entry.body.len());
            messages <= BURST || bytes < config.frame_bytes
        });
        let repeated: Vec<u64> = repeated.map(|(_, number)| number).collect();
        self.queue.repeat(repeated);
        self.backoff = self.backoff.saturating_add(1);
        let pause_max = (config.dead_after / TRIES_MIN).max(rtt.rto(config, 0));
        self.expiry = (self.queue.sent() > 0).then(|| now + rtt.rto(config, self.backoff).min(pause_max));
    }

    /// There is a new session with the same incarnation: what was in flight is sent again.
    pub(crate) fn on_new_session(&mut self) {
        let missing: Vec<u64> = self.missing().map(|(_, number)| number).collect();
        self.queue.repeat(missing);
        self.backoff = 0;
        self.expiry = None;
    }

    /// Nothing is sent until there is a session again.
    pub(crate) fn on_session_end(&mut self) {
        self.expiry = None;
    }

    /// Repeats a message at once; false if it is not waiting for an acknowledgement.
    pub(crate) fn resend(&mut self, number: u64) -> bool {
        let waiting = number < self.queue.sent_end() && self.queue.entry(number).is_some_and(|e| !e.arrived);
        if waiting {
            self.queue.repeat([number]);
        }
        waiting
    }

    /// Gives up everything, or only what was sent before. Returns the numbers given up.
    pub(crate) fn fail(&mut self, reason: FailReason, sent_only: bool) -> Range<u64> {
        let first = self.queue.base();
        self.queue.clear(sent_only);
        (self.backoff, self.expiry) = (0, None);
        let given_up = first..self.queue.base();
        given_up.clone().for_each(|number| self.outcomes.fail(number, reason));
        given_up
    }

    pub(crate) fn status(&self, number: u64) -> SendStatus {
        if number >= self.queue.next_number() {
            SendStatus::Unknown
        } else if number >= self.queue.base() {
            SendStatus::Pending
        } else {
            self.outcomes.status(number)
        }
    }
}

/// The next number wanted, and what has arrived beyond it: bit `i` stands for `next + 1 + i`.
pub(crate) type AckReport = (u64, [u64; ACK_WORDS_MAX]);

/// What the receiving side needs of [`Config`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckArrivals {
    pub(crate) reorder_bytes: usize,
    pub(crate) ack_delay: Duration,
}

/// The receiving side.
#[derive(Debug, Default)]
pub(crate) struct AckReceiver {
    /// The next number to hand up; unknown before the first message.
    next: Option<u64>,
    held: BTreeMap<u64, (u8, Vec<u8>)>,
    held_bytes: usize,
    /// Arrivals since the last acknowledgement.
    unreported: u32,
    /// Until when an acknowledgement may wait for company.
    report_at: Option<Time>,
    /// It waits no longer.
    pub(crate) report_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Duplicate,
    /// Not taken: too far ahead of a missing one.
    Full,
}

impl AckReceiver {
    /// Takes a message; `base` is the oldest number the sender still has. Hands up what is in order.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_message(
        &mut self,
        now: Time,
        number: u64,
        base: u64,
        class: u8,
        body: &[u8],
        config: AckArrivals,
        mut deliver: impl FnMut(u64, u8, &[u8]),
    ) -> Arrival {
        let next = self.next.map_or(base, |next| next.max(base));
        if self.next.is_some_and(|old| old < next) {
            self.drop_held_below(next);
        }
        self.next = Some(next);
        let arrival = if number < next || !self.held.is_empty() && self.held.contains_key(&number) {
            Arrival::Duplicate
        } else if number == next {
            deliver(number, class, body);
            self.next = Some(number + 1);
            Arrival::New
        } else if number - next >= WINDOW || self.held_bytes + body.len() > config.reorder_bytes {
            Arrival::Full
        } else {
            self.held_bytes += body.len();
            self.held.insert(number, (class, body.to_vec()));
            Arrival::New
        };
        if !self.held.is_empty() {
            self.deliver_held(&mut deliver);
        }
        self.unreported = self.unreported.saturating_add(1);
        self.report_due |=
            arrival != Arrival::New || !self.held.is_empty() || self.unreported >= UNREPORTED_MAX;
        self.report_at.get_or_insert(now + config.ack_delay);
        arrival
    }

    fn deliver_held(&mut self, deliver: &mut impl FnMut(u64, u8, &[u8])) {
        while let Some((class, body)) = self.next.and_then(|next| self.held.remove(&next)) {
            self.held_bytes -= body.len();
            let number = self.next.expect("a held message was just found under it");
            deliver(number, class, &body);
            self.next = Some(number + 1);
        }
    }

    /// The sender has given up everything below `next`: no longer part of an ordered stream.
    fn drop_held_below(&mut self, next: u64) {
        let kept = self.held.split_off(&next);
        self.held_bytes -= self.held.values().map(|(_, body)| body.len()).sum::<usize>();
        self.held = kept;
    }

    /// When [`AckReceiver::on_timeout`] has something to do.
    pub(crate) fn report_at(&self) -> Option<Time> {
        self.report_at.filter(|_| !self.report_due)
    }

    pub(crate) fn on_timeout(&mut self, now: Time) {
        self.report_due |= self.report_at.is_some_and(|at| at <= now);
    }

    /// Reports at once, whether something has arrived since the last time or not.
    pub(crate) fn report_now(&mut self) {
        self.report_due = self.next.is_some();
    }

    /// Whether [`AckReceiver::take_report`] would return one.
    #[inline]
    pub(crate) fn owes_report(&self) -> bool {
        self.report_due || self.report_at.is_some()
    }

    /// The acknowledgement, if one is owed, due or not: it costs little on a frame that is sent anyway.
    pub(crate) fn take_report(&mut self) -> Option<AckReport> {
        if !std::mem::take(&mut self.report_due) && self.report_at.is_none() {
            return None;
        }
        self.report_at = None;
        self.unreported = 0;
        let next = self.next?;
        let mut beyond = [0; ACK_WORDS_MAX];
        for number in self.held.keys() {
            let bit = number - next - 1;
            beyond[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        Some((next, beyond))
    }
}
