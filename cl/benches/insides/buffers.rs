use cl::{Buf, Pool, PoolConfig, SizeClass};
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Bytes asked for; what it costs does not depend on them.
const LEN: usize = 1024;
/// Buffers taken before they are given back: more than the thread keeps for itself of so small a pool.
const MANY: usize = 256;

fn buffers(count: usize) -> Pool {
    let classes = vec![SizeClass { capacity: LEN, count }];
    Pool::new(&PoolConfig { classes }).expect("memory for some buffers")
}

fn take(pool: &Pool, count: usize, into: &mut Vec<Buf>) {
    into.extend((0..count).map(|_| pool.alloc(LEN).expect("there are enough")));
}

pub(crate) fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    let pool = buffers(2 * MANY);
    group.bench_function("take one, give it back", |b| {
        b.iter(|| drop(black_box(pool.alloc(LEN).expect("there are enough"))));
    });
    group.throughput(Throughput::Elements(MANY as u64));
    let mut taken = Vec::with_capacity(MANY);
    group.bench_function("take 256, give them back", |b| {
        b.iter(|| {
            take(&pool, MANY, &mut taken);
            taken.clear();
        });
    });
    group.bench_function("take 256, another thread gives them back", |b| {
        b.iter_custom(|rounds| two_threads(&pool, rounds));
    });
    group.throughput(Throughput::Elements(1));
    let empty = buffers(1);
    let _last = empty.alloc(LEN).expect("the only one");
    group.bench_function("refuse: exhausted", |b| b.iter(|| empty.alloc(LEN).expect_err("there is none")));
    group.finish();
}

/// The time for taking and for giving back; not that for telling each other.
fn two_threads(pool: &Pool, rounds: u64) -> Duration {
    let (hand_over, handed) = sync_channel::<Vec<Buf>>(0);
    let (hand_back, emptied) = sync_channel::<Vec<Buf>>(0);
    std::thread::scope(|s| {
        let other = s.spawn(move || {
            let mut time = Duration::ZERO;
            for mut taken in handed {
                let start = Instant::now();
                taken.clear();
                time += start.elapsed();
                hand_back.send(taken).expect("it waits for it");
            }
            time
        });
        let mut time = Duration::ZERO;
        let mut taken = Vec::with_capacity(MANY);
        for _ in 0..rounds {
            let start = Instant::now();
            take(pool, MANY, &mut taken);
            time += start.elapsed();
            hand_over.send(taken).expect("it is there");
            taken = emptied.recv().expect("it hands back");
        }
        drop(hand_over);
        time + other.join().expect("it ends")
    })
}
