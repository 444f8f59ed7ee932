//! What the senders of ACK and of NACK messages have in common: which messages there are, which of them were sent, and which
//! are to be sent again.

use crate::Body;
use crate::entry::Entry;
use cl_base::Time;
use std::collections::{BTreeSet, VecDeque};

/// Messages in the order of their numbers: first those that were sent at least once, then those still to be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Number of the front of `entries`.
    base: u64,
    /// How many entries, from the front, were sent.
    sent: usize,
    sent_bytes: usize,
    unsent_bytes: usize,
    /// Sent before, to be sent again.
    due: BTreeSet<u64>,
}

impl Queue {
    pub(crate) fn new(first: u64) -> Queue {
        let due = BTreeSet::new();
        Queue { entries: VecDeque::new(), base: first, sent: 0, sent_bytes: 0, unsent_bytes: 0, due }
    }

    /// The number of the oldest message: everything below is settled or forgotten.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The number of the first message not yet sent.
    pub(crate) fn sent_end(&self) -> u64 {
        self.base + self.sent as u64
    }

    /// The number that the next message gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    pub(crate) fn unsent(&self) -> usize {
        self.entries.len() - self.sent
    }

    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    pub(crate) fn push(&mut self, class: u8, body: Body) -> u64 {
        self.unsent_bytes += body.len();
        self.entries.push_back(Entry::new(class, body));
        self.next_number() - 1
    }

    pub(crate) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    /// What was sent, with its numbers.
    pub(crate) fn sent_entries(&self) -> impl Iterator<Item = (&Entry, u64)> {
        self.entries.iter().take(self.sent).zip(self.base..)
    }

    /// The first message not yet sent.
    pub(crate) fn first_unsent(&self) -> Option<&Entry> {
        self.entries.get(self.sent)
    }

    /// The message to send next, if it was sent before.
    pub(crate) fn next_to_repeat(&self) -> Option<u64> {
        self.due.first().copied()
    }

    /// Messages that were sent are to be sent again.
    pub(crate) fn repeat(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.due.extend(numbers);
    }

    /// A message has been sent: one to be repeated, or the first not yet sent. True if it was the latter.
    pub(crate) fn on_sent(&mut self, now: Time, number: u64) -> bool {
        let index = (number - self.base) as usize;
        let entry = &mut self.entries[index];
        entry.sent = now;
        entry.attempts += 1;
        let is_first = index == self.sent;
        if is_first {
            self.sent += 1;
            self.sent_bytes += entry.body.len();
            self.unsent_bytes -= entry.body.len();
        } else {
            self.due.remove(&number);
        }
        is_first
    }

    /// The peer has a message that was sent, though not all before it. When it was sent, if that was news.
    pub(crate) fn on_arrived(&mut self, number: u64) -> Option<&Entry> {
        let entry = &mut self.entries[(number - self.base) as usize];
        let is_news = !std::mem::replace(&mut entry.arrived, true);
        if is_news {
            self.due.remove(&number);
        }
        is_news.then_some(&*entry)
    }

    /// Removes the oldest message, which was sent.
    pub(crate) fn pop_sent(&mut self) -> Entry {
        let entry = self.entries.pop_front().expect("something was sent");
        if !self.due.is_empty() {
            self.due.remove(&self.base);
        }
        self.base += 1;
        self.sent -= 1;
        self.sent_bytes -= entry.body.len();
        entry
    }

    /// Removes all messages, or only those that were sent; nothing is to be repeated then.
    pub(crate) fn clear(&mut self, sent_only: bool) {
        let count = if sent_only { self.sent } else { self.entries.len() };
        self.base += count as u64;
        self.entries.drain(..count);
        (self.sent, self.sent_bytes) = (0, 0);
        if !sent_only {
            self.unsent_bytes = 0;
        }
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_numbers_agree_with_what_is_there() {
        let mut queue = Queue::new(7);
        for len in [10, 20, 30] {
            queue.push(1, vec![0; len].into());
        }
        assert!(queue.on_sent(Time::ZERO, 7) && queue.on_sent(Time::ZERO, 8));
        assert_eq!((queue.base(), queue.sent_end(), queue.next_number()), (7, 9, 10));
        assert_eq!((queue.sent_bytes(), queue.unsent(), queue.unsent_bytes()), (30, 1, 30));
        queue.repeat([7, 8]);
        assert!(!queue.on_sent(Time::ZERO, 7));
        assert_eq!(queue.next_to_repeat(), Some(8));
        assert!(queue.on_arrived(8).is_some() && queue.on_arrived(8).is_none());
        assert_eq!(queue.next_to_repeat(), None);
        assert_eq!((queue.pop_sent().attempts, queue.base(), queue.sent_bytes()), (2, 8, 20));
        queue.clear(true);
        assert_eq!((queue.base(), queue.len(), queue.sent_bytes(), queue.unsent_bytes()), (9, 1, 0, 30));
        queue.clear(false);
        assert_eq!((queue.base(), queue.len(), queue.unsent_bytes()), (10, 0, 0));
    }
}
