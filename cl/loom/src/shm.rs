//! The ring between two processes, and the bell that wakes a sleeping reader.

#[path = "../../src/shm/bell.rs"]
mod bell;
#[path = "../../src/shm/ring.rs"]
mod ring;

use crate::check;
use crate::pool::Loan;
use crate::sync::AtomicU64;
use loom::thread;
use ring::{Consumer, Producer, Record};
use std::sync::Arc;

/// Words of a ring in these models: few, so that it is full and wraps around after some messages.
const WORDS: usize = 8;

struct Shared {
    ring: Vec<AtomicU64>,
    consumed: AtomicU64,
    asleep: AtomicU64,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Shared::of(WORDS)
    }

    fn of(words: usize) -> Arc<Shared> {
        let ring = (0..words).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Shared { ring, consumed: AtomicU64::new(0), asleep: AtomicU64::new(0) })
    }

    fn put(&self, producer: &mut Producer, message: &[u8]) -> bool {
        producer.put(&self.ring, &self.consumed, None, message)
    }

    /// The next message, if there is one.
    fn take(&self, consumer: &mut Consumer) -> Option<Vec<u8>> {
        let record = consumer.peek(&self.ring).expect("the ring is sound")?;
        let Record::Inline(len) = record else { panic!("nothing was lent: {record:?}") };
        let mut message = vec![0; len];
        consumer.copy(&self.ring, &mut message);
        consumer.done(&self.ring, &self.consumed, len);
        Some(message)
    }
}

/// Sends `messages` through a ring, of which the first few are there already and taken, so that the rest
/// begins at some word of the ring.
fn pass(before: &'static [&'static [u8]], messages: &'static [&'static [u8]]) {
    check(move || {
        let shared = Shared::new();
        let (mut producer, mut consumer) = (Producer::default(), Consumer::default());
        for message in before {
            assert!(shared.put(&mut producer, message));
            assert_eq!(shared.take(&mut consumer), None, "it is held back");
            producer.release(&shared.ring);
            assert_eq!(shared.take(&mut consumer).as_deref(), Some(*message));
        }
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for message in messages {
                    while !shared.put(&mut producer, message) {
                        producer.release(&shared.ring);
                        thread::yield_now();
                    }
                }
                producer.release(&shared.ring);
            })
        };
        for message in messages {
            let taken = loop {
                match shared.take(&mut consumer) {
                    Some(taken) => break taken,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(taken, *message);
        }
        writer.join().unwrap();
        assert_eq!(shared.take(&mut consumer), None);
        assert!(consumer.is_empty(&shared.ring));
    });
}

#[test]
fn messages_arrive_whole_and_in_order() {
    pass(&[], &[b"first", b"", b"the third"]);
}

#[test]
fn messages_arrive_whole_behind_a_skip() {
    // Two words, three words; the next three do not fit into what is left.
    pass(&[b"12345678", b"123456789"], &[b"abcdefghij", b"x"]);
}

#[test]
fn a_full_ring_stops_the_writer_and_loses_nothing() {
    pass(&[], &[b"0123456789abcdef0123456789", b"fedcba9876543210fedcba", b"end"]);
}

/// So many that beside a record that is held back there is a stretch for another.
const WORDS_WITH_STRETCHES: usize = 32;

#[test]
fn what_is_put_into_a_stretch_arrives_with_what_is_held_back() {
    check(|| {
        let shared = Shared::of(WORDS_WITH_STRETCHES);
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut producer = Producer::default();
                assert!(!producer.stretch(&shared.ring).put(b""), "nothing is held back");
                assert!(shared.put(&mut producer, b""));
                let mut stretch = producer.stretch(&shared.ring);
                assert!(stretch.put(b"in there"));
                assert!(!stretch.put(b""), "it would be time to release");
                producer.end_stretch(stretch);
                producer.release(&shared.ring);
                assert_eq!(producer.copied(), (2, 8));
            })
        };
        let mut consumer = Consumer::default();
        for expected in [&b""[..], b"in there"] {
            let taken = loop {
                match shared.take(&mut consumer) {
                    Some(taken) => break taken,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(taken, expected);
        }
        writer.join().unwrap();
        assert_eq!(shared.take(&mut consumer), None);
    });
}

#[test]
fn stretches_respect_what_has_not_been_read() {
    // One thread, so there is one order; but many steps.
    let mut model = loom::model::Builder::new();
    model.max_branches = 20_000;
    model.check(|| {
        let shared = Shared::of(WORDS_WITH_STRETCHES);
        let (mut producer, mut consumer) = (Producer::default(), Consumer::default());
        let (mut sent, mut taken) = (0u64, 0);
        // Messages of 0 to 9 bytes, until the ring is full; some are read, and so on.
        let message = |n: u64| vec![n as u8; (n * 7 % 10) as usize];
        for round in 0..40 {
            loop {
                let mut stretch = producer.stretch(&shared.ring);
                while stretch.put(&message(sent)) {
                    sent += 1;
                }
                producer.end_stretch(stretch);
                if !shared.put(&mut producer, &message(sent)) {
                    break;
                }
                sent += 1;
            }
            producer.release(&shared.ring);
            for _ in 0..=round % 9 {
                let Some(found) = shared.take(&mut consumer) else { break };
                assert_eq!(found, message(taken));
                taken += 1;
            }
        }
        while let Some(found) = shared.take(&mut consumer) {
            assert_eq!(found, message(taken));
            taken += 1;
        }
        assert_eq!(sent, taken);
        assert!(sent > 150, "only {sent} messages: the ring has hardly been full");
    });
}

#[test]
fn a_loan_arrives_with_what_was_written_to_it() {
    check(|| {
        let shared = Shared::new();
        let loan = Loan { slot: 7, start: 128, len: 5000 };
        // The contents, which are not in the ring.
        let contents = Arc::new(AtomicU64::new(0));
        let lender = {
            let (shared, contents) = (Arc::clone(&shared), Arc::clone(&contents));
            thread::spawn(move || {
                let mut producer = Producer::default();
                contents.store(42, crate::sync::Ordering::Relaxed);
                assert!(producer.has_room_for_loan(&shared.ring, &shared.consumed));
                producer.put_loan(&shared.ring, &shared.consumed, loan);
                producer.release(&shared.ring);
            })
        };
        let mut consumer = Consumer::default();
        if let Some(record) = consumer.peek(&shared.ring).expect("the ring is sound") {
            assert_eq!(record, Record::Lent(loan));
            assert_eq!(contents.load(crate::sync::Ordering::Relaxed), 42);
        }
        lender.join().unwrap();
        assert_eq!(consumer.peek(&shared.ring), Ok(Some(Record::Lent(loan))));
    });
}

#[test]
fn a_reader_that_goes_to_sleep_before_a_message_is_woken() {
    loom::model(|| {
        let shared = Shared::new();
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut producer = Producer::default();
                assert!(shared.put(&mut producer, b"wake"));
                producer.release(&shared.ring);
                bell::is_wanted(&shared.asleep)
            })
        };
        bell::set_asleep(&shared.asleep, true);
        bell::settle();
        let sleeps = Consumer::default().is_empty(&shared.ring);
        let rung = writer.join().unwrap();
        assert!(rung || !sleeps, "asleep before a message, and no bell");
    });
}
