#[allow(dead_code, reason = "of the file only the data path is measured")]
#[path = "../../src/shm/ring.rs"]
mod inner;

use crate::pool::Loan;
use crate::sync::AtomicU64;
use criterion::{Criterion, Throughput};
use inner::{Consumer, Producer, Record};
use std::hint::black_box;

/// Words of a ring: 64 KiB, as by default.
const WORDS: usize = 8 << 10;
/// Messages put before they are taken, as a burst is.
const BURST: u64 = 32;

/// Both ends of a ring.
struct Pair {
    words: Vec<AtomicU64>,
    consumed: AtomicU64,
    producer: Producer,
    consumer: Consumer,
}

impl Pair {
    fn new() -> Pair {
        let words = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let (producer, consumer) = Default::default();
        Pair { words, consumed: AtomicU64::new(0), producer, consumer }
    }

    fn put(&mut self, message: &[u8]) {
        assert!(self.producer.put(&self.words, &self.consumed, None, message), "it is emptied in between");
    }

    fn lend(&mut self, loan: Loan) {
        self.producer.put_loan(&self.words, &self.consumed, loan);
    }

    fn release(&mut self) {
        self.producer.release(&self.words);
    }

    /// Takes what is next; of a copied message the bytes.
    fn take(&mut self, into: &mut [u8]) -> Option<Record> {
        let record = self.consumer.peek(&self.words).expect("it is sound")?;
        let len = match record {
            Record::Inline(len) => {
                self.consumer.copy(&self.words, &mut into[..len]);
                len
            }
            Record::Lent(_) => 8,
        };
        self.consumer.done(&self.words, &self.consumed, len);
        Some(record)
    }
}

pub(crate) fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    let mut pair = Pair::new();
    let mut into = [0; inner::INLINE_MAX];
    for len in [8, 64, 1024] {
        let message = vec![7; len];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("put and take one of {len} B"), |b| {
            b.iter(|| {
                pair.put(black_box(&message));
                pair.release();
                pair.take(&mut into).expect("it is there")
            });
        });
    }
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("put and take 32 of 64 B", |b| {
        b.iter(|| {
            (0..BURST).for_each(|_| pair.put(black_box(&[7; 64])));
            pair.release();
            (0..BURST).for_each(|_| assert!(pair.take(&mut into).is_some()));
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("lend and take one", |b| {
        b.iter(|| {
            pair.lend(black_box(Loan { slot: 7, start: 128, len: 65_536 }));
            pair.release();
            pair.take(&mut into).expect("it is there")
        });
    });
    group.bench_function("look into an empty one", |b| b.iter(|| pair.take(&mut into)));
    group.finish();
}
