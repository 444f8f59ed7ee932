#[path = "../../src/runtime/doze.rs"]
mod doze;
#[allow(dead_code, unreachable_pub, reason = "of the file only the data path is measured")]
#[path = "../../src/runtime/mailbox.rs"]
mod mailbox;
#[allow(dead_code, unused_imports, unreachable_pub, reason = "as for the mailbox")]
#[path = "../../src/runtime/queue.rs"]
mod queue;
#[allow(dead_code, unused_imports, reason = "as for the mailbox")]
#[path = "../../src/runtime/wheel.rs"]
mod wheel;

pub(crate) use queue::Priority;

/// Stands in for that of `cl::runtime`, which looks the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerId(pub(crate) u64);

use cl_base::Time;
use criterion::{BenchmarkId, Criterion};
use mailbox::Mailbox;
use std::hint::black_box;
use std::time::Duration;
use wheel::{Expired, Wheel};

/// Timers that are set while one is measured.
const STANDING: [u64; 2] = [1_000, 100_000];
/// They are spread over so long.
const SPAN: Duration = Duration::from_secs(1);

/// Deadlines all over [`SPAN`], the same in every run: a Weyl sequence by the golden ratio.
fn delay(number: u64) -> Duration {
    let part = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) as f64 / 2f64.powi(64);
    SPAN.mul_f64(part).max(Duration::from_nanos(1))
}

/// A wheel on which so many timers stand, and the time.
fn wheel(standing: u64) -> (Wheel, Time) {
    let now = Time::from_nanos(1 << 40);
    let mut wheel = Wheel::new(now);
    (0..standing).for_each(|n| wheel.set(TimerId(n), now + delay(n), Priority::Normal));
    (wheel, now)
}

pub(crate) fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer wheel");
    for standing in STANDING {
        let (mut wheel, now) = self::wheel(standing);
        let mut n = standing;
        group.bench_function(BenchmarkId::new("set one, cancel it", standing), |b| {
            b.iter(|| {
                n += 1;
                wheel.set(TimerId(n), now + delay(n), Priority::Normal);
                assert!(wheel.cancel(TimerId(n)));
            });
        });
        let (mut wheel, mut now) = self::wheel(standing);
        let mut expired: Vec<Expired> = Vec::new();
        // As the event loop does it: when is the next, what is due then, and it is set again.
        group.bench_function(BenchmarkId::new("the next expires and is set again", standing), |b| {
            b.iter(|| {
                now = wheel.next_deadline();
                wheel.advance(now, &mut expired);
                for timer in expired.drain(..) {
                    n += 1;
                    wheel.set(timer.id, now + delay(n), Priority::Normal);
                }
            });
        });
    }
    group.finish();
}

pub(crate) fn mail(c: &mut Criterion) {
    let poll = mio::Poll::new().expect("a descriptor");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a descriptor");
    let mailbox = Mailbox::new(4096, waker);
    let mut group = c.benchmark_group("mailbox");
    group.bench_function("send and receive, owner awake", |b| {
        b.iter(|| {
            mailbox.send(black_box(7u64)).expect("it is emptied in between");
            mailbox.receive().expect("it is there")
        });
    });
    group.bench_function("send and receive, owner asleep and woken", |b| {
        b.iter(|| {
            assert!(mailbox.fall_asleep());
            mailbox.send(black_box(7u64)).expect("it is emptied in between");
            mailbox.receive().expect("it is there")
        });
    });
    (0..4096).for_each(|n| mailbox.send(n).expect("there is room"));
    group.bench_function("refuse: full", |b| {
        b.iter(|| mailbox.send(black_box(7)).expect_err("there is none"))
    });
    group.finish();
}
