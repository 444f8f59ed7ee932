//! The receiving end of notifications: voted on, in order, each once.

use crate::config::MemberId;
use crate::keys::Domain;
use crate::keys::{Digest, hash};
use crate::message::Notify;
use cl_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Undecided notifications kept, counted from the next one expected. What lies further ahead comes again by
/// a pull.
const UNDECIDED_MAX: u64 = 256;

/// Accepted notifications whose digest is remembered, to catch members that say otherwise later.
const DECIDED_MAX: usize = 256;

/// A quiet inbox asks after this many T_c, in case that everything was lost; at times that are multiples of that, which many
/// clients have in common: waking the members once for all of them costs less than once for each.
const QUIET_TIMEOUTS: u32 = 4;

/// What a message changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The next notification is this one; earlier ones do not come any more.
    Begin(u64),
    /// The next notification.
    Next(u64, Vec<u8>),
    /// This member contradicted the others.
    Liar(MemberId),
}

#[derive(Debug, Default)]
struct Undecided {
    votes: BTreeMap<MemberId, Digest>,
    bodies: BTreeMap<Digest, Vec<u8>>,
}

/// Notifications of one client, not in its hands yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The next to deliver; 0 while the position is not known.
    expected: u64,
    /// What each member says: where the outbox begins, and the last notification in it.
    first: BTreeMap<MemberId, u64>,
    last: BTreeMap<MemberId, u64>,
    undecided: BTreeMap<u64, Undecided>,
    decided: BTreeMap<u64, Digest>,
    pull_at: Time,
}

impl Inbox {
    pub(crate) fn new(now: Time) -> Inbox {
        Inbox {
            expected: 0,
            first: BTreeMap::new(),
            last: BTreeMap::new(),
            undecided: BTreeMap::new(),
            decided: BTreeMap::new(),
            pull_at: now,
        }
    }

    /// The highest notification up to which all are in the client's hands.
    pub(crate) fn received(&self) -> u64 {
        self.expected.saturating_sub(1)
    }

    pub(crate) fn pull_at(&self) -> Time {
        self.pull_at
    }

    /// A pull is sent now; gives the number from which on.
    pub(crate) fn pulled(&mut self, now: Time, timeout: Duration) -> u64 {
        self.pull_at =
            if self.expected == 0 { now + timeout } else { in_common(now, timeout * QUIET_TIMEOUTS) };
        self.expected
    }

    /// Another roster: what single members of the one before said counts no more.
    pub(crate) fn begin_epoch(&mut self) {
        self.first.clear();
        self.last.clear();
        self.undecided.clear();
    }

    /// Something is known to be missing: a pull follows soon.
    pub(crate) fn hurry(&mut self, now: Time, timeout: Duration) {
        self.pull_at = self.pull_at.min(now + timeout / 2);
    }

    /// A member says that this is the last notification there is.
    pub(crate) fn claim_last(&mut self, member: MemberId, last: u64) {
        let known = self.last.entry(member).or_insert(last);
        *known = (*known).max(last);
    }

    /// Whether w members know of notifications that are not delivered.
    pub(crate) fn is_behind(&self, weak: usize) -> bool {
        nth_largest(self.last.values().copied(), weak).is_some_and(|last| last >= self.expected.max(1))
    }

    /// Takes a NOTIFY of `member` in.
    pub(crate) fn take(&mut self, member: MemberId, notify: Notify, weak: usize) -> Vec<Progress> {
        let mut progress = Vec::new();
        let first = self.first.entry(member).or_insert(notify.first);
        *first = (*first).max(notify.first);
        if let Some((last, _)) = notify.entries.last() {
            self.claim_last(member, *last);
        }
        // An outbox only moves forward, so what w members claim is true.
        if let Some(begin) = nth_largest(self.first.values().copied(), weak)
            && begin > self.expected
        {
            self.expected = begin;
            self.undecided.retain(|seq, _| *seq >= begin && seq - begin < UNDECIDED_MAX);
            progress.push(Progress::Begin(begin));
        }
        // Before the position is known the window is that of the claimant's own outbox.
        let base = if self.expected > 0 { self.expected } else { notify.first };
        for (seq, body) in notify.entries {
            let digest = hash(Domain::Result, &body);
            if let Some(decided) = self.decided.get(&seq) {
                if *decided != digest {
                    progress.push(Progress::Liar(member));
                }
            } else if seq >= base && seq - base < UNDECIDED_MAX && self.room_for(seq) {
                let undecided = self.undecided.entry(seq).or_default();
                if *undecided.votes.entry(member).or_insert(digest) != digest {
                    progress.push(Progress::Liar(member));
                } else {
                    undecided.bodies.insert(digest, body);
                }
            }
        }
        self.deliver(weak, &mut progress);
        progress
    }

    fn room_for(&self, seq: u64) -> bool {
        self.undecided.contains_key(&seq) || (self.undecided.len() as u64) < 2 * UNDECIDED_MAX
    }

    fn deliver(&mut self, weak: usize, progress: &mut Vec<Progress>) {
        while self.expected > 0
            && let Some(undecided) = self.undecided.get_mut(&self.expected)
        {
            let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
            for digest in undecided.votes.values() {
                *counts.entry(*digest).or_default() += 1;
            }
            let Some(digest) = counts.into_iter().find(|(_, n)| *n >= weak).map(|(d, _)| d) else { return };
            let Some(body) = undecided.bodies.remove(&digest) else { return };
            let liars: BTreeSet<MemberId> =
                undecided.votes.iter().filter(|(_, d)| **d != digest).map(|(m, _)| *m).collect();
            let seq = self.expected;
            self.undecided.remove(&seq);
            self.decided.insert(seq, digest);
            if self.decided.len() > DECIDED_MAX {
                self.decided.pop_first();
            }
            self.expected += 1;
            progress.push(Progress::Next(seq, body));
            progress.extend(liars.into_iter().map(Progress::Liar));
        }
    }
}

/// The n-th largest, counted from 1. With n = w and values that only grow at correct members, at least one
/// correct member claims this much.
pub(crate) fn nth_largest(values: impl Iterator<Item = u64>, n: usize) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(n - 1).copied()
}

/// The first multiple of `period` that is half a period or more away.
fn in_common(now: Time, period: Duration) -> Time {
    let period = u64::try_from(period.as_nanos()).expect("a timeout is far below 584 years").max(1);
    Time::from_nanos((now.as_nanos() + period / 2).div_ceil(period) * period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(first: u64, entries: &[(u64, &str)]) -> Notify {
        let entries = entries.iter().map(|(seq, body)| (*seq, body.as_bytes().to_vec())).collect();
        Notify { view: 0, first, entries }
    }

    const A: MemberId = MemberId(0);
    const B: MemberId = MemberId(1);
    const C: MemberId = MemberId(2);

    #[test]
    fn one_member_alone_delivers_nothing_and_a_liar_is_named() {
        let mut inbox = Inbox::new(Time::ZERO);
        assert_eq!(inbox.take(A, notify(1, &[(1, "x")]), 2), []);
        assert_eq!(inbox.take(B, notify(1, &[(1, "y")]), 2), [Progress::Begin(1)]);
        let progress = inbox.take(C, notify(1, &[(1, "x")]), 2);
        assert_eq!(progress, [Progress::Next(1, b"x".to_vec()), Progress::Liar(B)]);
        assert_eq!(inbox.take(B, notify(1, &[(1, "z")]), 2), [Progress::Liar(B)]);
        assert_eq!(inbox.received(), 1);
    }

    #[test]
    fn notifications_are_delivered_in_order_and_once() {
        let mut inbox = Inbox::new(Time::ZERO);
        inbox.take(A, notify(1, &[(2, "b")]), 2);
        assert_eq!(inbox.take(B, notify(1, &[(2, "b")]), 2), [Progress::Begin(1)]);
        assert!(inbox.is_behind(2));
        inbox.take(A, notify(1, &[(1, "a")]), 2);
        let progress = inbox.take(B, notify(1, &[(1, "a"), (2, "b")]), 2);
        assert_eq!(progress, [Progress::Next(1, b"a".to_vec()), Progress::Next(2, b"b".to_vec())]);
        assert_eq!(inbox.take(C, notify(1, &[(1, "a"), (2, "b")]), 2), []);
        assert!(!inbox.is_behind(2));
    }

    #[test]
    fn a_liar_that_comes_first_cannot_fill_the_inbox() {
        let mut inbox = Inbox::new(Time::ZERO);
        for first in (1_000..9_000).step_by(200) {
            let entries: Vec<_> = (first..first + 200).map(|seq| (seq, "lie")).collect();
            inbox.take(C, notify(first, &entries), 2);
        }
        assert_eq!(inbox.take(A, notify(1, &[(1, "a")]), 2), [Progress::Begin(1)]);
        assert_eq!(inbox.take(B, notify(1, &[(1, "a")]), 2), [Progress::Next(1, b"a".to_vec())]);
    }

    #[test]
    fn quiet_inboxes_ask_at_the_same_times() {
        let ms = |ms: u64| Time::from_nanos(ms * 1_000_000);
        let timeout = Duration::from_millis(250);
        for asked in [1_300, 1_499, 600] {
            let mut inbox = Inbox::new(ms(asked));
            assert_eq!(
                (inbox.pulled(ms(asked), timeout), inbox.pull_at()),
                (0, ms(asked + 250)),
                "its position"
            );
            inbox.take(A, notify(1, &[(1, "a")]), 2);
            inbox.take(B, notify(1, &[(1, "a")]), 2);
            assert_eq!((inbox.pulled(ms(asked), timeout), inbox.pull_at()), (2, ms(2_000)), "{asked}");
        }
    }

    #[test]
    fn a_restarted_client_begins_where_f_plus_1_members_say() {
        let mut inbox = Inbox::new(Time::ZERO);
        assert_eq!(inbox.take(A, notify(900, &[(900, "lie")]), 2), []);
        assert_eq!(inbox.take(B, notify(7, &[(7, "g")]), 2), [Progress::Begin(7)]);
        assert_eq!(inbox.take(C, notify(7, &[(7, "g")]), 2), [Progress::Next(7, b"g".to_vec())]);
    }
}
