//! UNR messages that wait for a frame.

use crate::body::Spare;
use crate::frame::Content;
use crate::{Body, Outgoing};
use std::collections::VecDeque;

/// What the queue keeps of its memory when it runs empty.
const KEPT_BYTES: usize = 1 << 16;

/// Messages in the order of sending. Contents are copied one behind the other, so that a message costs no
/// allocation; what is handed over as a body is kept as it is.
#[derive(Debug)]
pub(crate) struct UnrQueue {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that have left.
    gone: usize,
    waiting: VecDeque<Waiting>,
    body_bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    class: u8,
    body: Place,
}

#[derive(Debug)]
enum Place {
    /// So many bytes of [`UnrQueue::bytes`].
    Copied(usize),
    Shared(Body),
}

impl UnrQueue {
    pub(crate) fn new(first: u64) -> UnrQueue {
        UnrQueue { bytes: Vec::new(), gone: 0, waiting: VecDeque::new(), body_bytes: 0, next: first }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Body bytes that wait.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Whether message `number` is still waiting.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.waiting.front().is_some_and(|front| front.number <= number) && number < self.next
    }

    /// A number for a message that is not even queued.
    pub(crate) fn skip(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    #[inline]
    pub(crate) fn push(&mut self, class: u8, body: Outgoing<'_>) -> u64 {
        self.body_bytes += body.len();
        let body = match body {
            Outgoing::Body(body) => Place::Shared(body),
            Outgoing::Slice(bytes) => {
                self.bytes.extend_from_slice(bytes);
                Place::Copied(bytes.len())
            }
        };
        self.waiting.push_back(Waiting { number: self.next, class, body });
        self.skip()
    }

    /// The oldest: number, class, body.
    #[inline]
    pub(crate) fn front(&self) -> Option<(u64, u8, Content<'_>)> {
        let Waiting { number, class, body } = self.waiting.front()?;
        let content = match body {
            Place::Copied(len) => Content::Copied(&self.bytes[self.gone..self.gone + len]),
            Place::Shared(body) => body.content(),
        };
        Some((*number, *class, content))
    }

    /// The oldest has left.
    #[inline]
    pub(crate) fn pop(&mut self, spare: &mut Spare) {
        let Some(front) = self.waiting.pop_front() else { return };
        match front.body {
            Place::Copied(len) => {
                self.gone += len;
                self.body_bytes -= len;
            }
            Place::Shared(body) => {
                self.body_bytes -= body.len();
                spare.give(body);
            }
        }
        if self.gone == self.bytes.len() {
            self.gone = 0;
            self.bytes.clear();
            if self.waiting.is_empty() && self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        } else if self.gone > KEPT_BYTES && self.gone > self.bytes.len() / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
    }

    /// Drops all; returns how many.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.waiting.len();
        (self.bytes, self.gone, self.body_bytes) = (Vec::new(), 0, 0);
        self.waiting.clear();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_as_they_came() {
        let mut queue = UnrQueue::new(5);
        let shared = Body::shared(vec![9; 20_000]);
        for round in 0..2000u64 {
            let body = round.to_le_bytes();
            assert_eq!(queue.push(1, body[..].into()), 5 + 3 * round);
            assert_eq!(queue.push(2, (&[7; 300]).into()), 6 + 3 * round);
            queue.push(3, shared.clone().into());
            if round % 3 == 2 {
                // A queue that is never empty.
                while queue.len() > 4 {
                    check_front(&queue);
                    queue.pop(&mut Spare::default());
                }
            }
        }
        let waiting = queue.len();
        assert!(waiting > 0 && queue.has(5 + 3 * 2000 - 1) && !queue.has(5) && !queue.has(5 + 3 * 2000));
        assert_eq!(queue.clear(), waiting);
        assert_eq!((queue.body_bytes(), queue.is_empty(), queue.next_number()), (0, true, 5 + 6000));
    }

    fn check_front(queue: &UnrQueue) {
        let (number, class, content) = queue.front().expect("it is not empty");
        let (round, kind) = ((number - 5) / 3, (number - 5) % 3);
        assert_eq!(u64::from(class), kind + 1);
        match (kind, content) {
            (0, Content::Copied(body)) => assert_eq!(body, round.to_le_bytes()),
            (1, Content::Copied(body)) => assert_eq!(body, [7; 300]),
            (2, Content::Bulk(body)) => assert_eq!(body.len(), 20_000),
            _ => panic!("kind {kind}"),
        }
    }
}
