use crate::config::WINDOW_MAX;
use crate::wire::{Bitmap, Kind};
use std::collections::{BTreeMap, VecDeque};

/// The receiving half of a connection: puts segments in order and messages together.
#[derive(Debug)]
pub(crate) struct Receiver {
    window: u64,
    message_len_max: usize,
    /// All segments below this have arrived.
    next: u64,
    /// Those after a gap. All of them lie within the limit granted, hence at most `window`.
    early: BTreeMap<u64, (Kind, Vec<u8>)>,
    /// The message whose segments are arriving, and how many it has.
    partial: Vec<u8>,
    partial_segments: u64,
    /// Complete messages not read yet, each with its number of segments.
    ready: VecDeque<(Vec<u8>, u64)>,
    /// Segments of these.
    unread: u64,
    /// The highest limit granted; never taken back.
    limit: u64,
    finished: bool,
}

/// A peer broke the rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation;

impl Receiver {
    pub(crate) fn new(window: u64, message_len_max: usize) -> Receiver {
        let window = window.clamp(1, WINDOW_MAX);
        Receiver {
            window,
            message_len_max,
            next: 0,
            early: BTreeMap::new(),
            partial: Vec::new(),
            partial_segments: 0,
            ready: VecDeque::new(),
            unread: 0,
            limit: window,
            finished: false,
        }
    }

    /// Takes in a segment. True if it is new.
    pub(crate) fn insert(&mut self, sequence: u64, kind: Kind, body: &[u8]) -> Result<bool, Violation> {
        if sequence >= self.limit {
            return Err(Violation);
        }
        if sequence < self.next || self.early.contains_key(&sequence) {
            return Ok(false);
        }
        if sequence > self.next {
            self.early.insert(sequence, (kind, body.to_vec()));
            return Ok(true);
        }
        self.take(kind, body)?;
        while let Some((kind, body)) = self.early.remove(&self.next) {
            self.take(kind, &body)?;
        }
        Ok(true)
    }

    /// The next segment in order.
    fn take(&mut self, kind: Kind, body: &[u8]) -> Result<(), Violation> {
        if self.finished || self.partial.len() + body.len() > self.message_len_max {
            return Err(Violation);
        }
        self.next += 1;
        match kind {
            Kind::Fin if self.partial_segments == 0 => self.finished = true,
            Kind::Part | Kind::Last => {
                self.partial.extend_from_slice(body);
                self.partial_segments += 1;
                if kind == Kind::Last {
                    let segments = std::mem::take(&mut self.partial_segments);
                    self.unread += segments;
                    self.ready.push_back((std::mem::take(&mut self.partial), segments));
                }
            }
            _ => return Err(Violation),
        }
        Ok(())
    }

    /// The oldest message not read yet.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        let (message, segments) = self.ready.pop_front()?;
        self.unread -= segments;
        Some(message)
    }

    /// Messages not read yet.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// All segments below this have arrived.
    pub(crate) fn ack(&self) -> u64 {
        self.next
    }

    /// The segments the peer may send lie below this. What is unread counts against the window.
    pub(crate) fn grant(&mut self) -> u64 {
        self.limit = self.limit.max(self.next + self.window.saturating_sub(self.unread));
        self.limit
    }

    /// True if a grant now would tell the peer something worth a frame of its own.
    pub(crate) fn grant_is_due(&self) -> bool {
        let could = self.next + self.window.saturating_sub(self.unread);
        could >= self.limit + self.window.div_ceil(4)
    }

    /// What has arrived after the first gap.
    pub(crate) fn bitmap(&self) -> Bitmap {
        let mut bitmap = Bitmap::default();
        self.early.keys().for_each(|&s| bitmap.set(s - self.next - 1));
        bitmap
    }

    /// True once the peer's last segment has arrived, and with it all others.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_in_any_order_make_messages_in_order() {
        let mut r = Receiver::new(8, 100);
        assert_eq!(r.insert(2, Kind::Last, b"c"), Ok(true));
        assert_eq!(r.insert(1, Kind::Last, b"b"), Ok(true));
        assert_eq!(r.bitmap().offsets().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(r.insert(1, Kind::Last, b"b"), Ok(false));
        assert_eq!((r.ready(), r.ack()), (0, 0));
        assert_eq!(r.insert(0, Kind::Part, b"a"), Ok(true));
        assert_eq!((r.read().unwrap(), r.read().unwrap()), (b"ab".to_vec(), b"c".to_vec()));
        assert_eq!(r.insert(0, Kind::Part, b"a"), Ok(false));
    }

    #[test]
    fn what_is_unread_counts_against_the_grant_and_reading_renews_it() {
        let mut r = Receiver::new(4, 100);
        (0..4).for_each(|s| assert_eq!(r.insert(s, Kind::Last, b"x"), Ok(true)));
        assert_eq!((r.grant(), r.grant_is_due()), (4, false));
        assert_eq!(r.insert(4, Kind::Last, b"x"), Err(Violation));
        r.read();
        assert!(r.grant_is_due());
        assert_eq!(r.grant(), 5);
    }

    #[test]
    fn a_message_longer_than_the_window_passes_and_one_beyond_the_limit_does_not() {
        let mut r = Receiver::new(2, 10);
        for s in 0..10 {
            assert_eq!(r.insert(s, Kind::Part, b"x"), Ok(true));
            r.grant();
        }
        assert_eq!(r.insert(10, Kind::Last, b"x"), Err(Violation));
    }

    #[test]
    fn an_end_within_a_message_and_a_segment_after_the_end_are_violations() {
        let mut r = Receiver::new(8, 10);
        assert_eq!(r.insert(0, Kind::Part, b"x"), Ok(true));
        assert_eq!(r.insert(1, Kind::Fin, b""), Err(Violation));
        let mut r = Receiver::new(8, 10);
        assert_eq!(r.insert(0, Kind::Fin, b""), Ok(true));
        assert!(r.is_finished());
        assert_eq!(r.insert(1, Kind::Last, b""), Err(Violation));
    }
}
