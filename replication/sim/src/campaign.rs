//! Many seeds, and what came of them.

use crate::arguments::Arguments;
use replication_sim::{Report, faults, run, shrink};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);

/// Failures that are made smaller and printed; the rest are counted. So many say that something is wrong.
const SHOWN_MAX: usize = 20;

type Counts = BTreeMap<&'static str, u64>;

/// A seed at which a judge objected.
pub(crate) struct Failure {
    seed: u64,
    violations: Vec<String>,
    again: String,
}

/// The sum of all runs.
#[derive(Default)]
pub(crate) struct Total {
    seeds: u64,
    operations: u64,
    reads: u64,
    notifications: u64,
    faults: Counts,
    events: Counts,
    slowest: (Duration, u64),
    seconds: f64,
    /// Seeds that failed.
    pub(crate) failures: Vec<Failure>,
}

/// Runs one seed, and if it fails, smaller ones.
fn run_one(arguments: &Arguments, seed: u64, total: &Mutex<Total>) {
    let options = arguments.options(seed);
    let report = run(options.clone());
    if report.violations.is_empty() {
        return lock(total).add(&report);
    }
    let shown = lock(total).failures.len() < SHOWN_MAX;
    let (smaller, small) = if shown && !arguments.no_shrink {
        shrink(&options, report.clone())
    } else {
        (options, report.clone())
    };
    let again = arguments.again(&smaller);
    let mut total = lock(total);
    if shown {
        println!("seed {seed}: {}", small.violations.join("\n  "));
        for line in faults(&smaller) {
            println!("  {line}");
        }
        println!("  again: {again}");
    }
    total.add(&report);
    total.failures.push(Failure { seed, violations: small.violations, again });
}

fn lock(total: &Mutex<Total>) -> std::sync::MutexGuard<'_, Total> {
    total.lock().expect("no thread panics with the total in its hands")
}

/// Runs all seeds and tells now and then how far it is.
pub(crate) fn run_seeds(arguments: &Arguments) -> Total {
    let (first, seeds) = arguments.seeds();
    let total = Mutex::new(Total::default());
    let next = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.clamp(1, 64) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= seeds {
                        return;
                    }
                    run_one(arguments, first + i, &total);
                }
            });
        }
        let mut told = started;
        while lock(&total).seeds < seeds {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let done = lock(&total).seeds;
                let bad = lock(&total).failures.len();
                let rate = done as f64 / started.elapsed().as_secs_f64();
                let left = (seeds - done) as f64 / rate.max(0.001) / 60.0;
                eprintln!(
                    "{done} of {seeds} seeds, {rate:.0}/s, {left:.0} minutes left, {bad} with violations"
                );
            }
        }
    });
    let mut total = total.into_inner().expect("no thread panicked with the total in its hands");
    total.seconds = started.elapsed().as_secs_f64();
    total.failures.sort_by_key(|failure| failure.seed);
    total
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.completed;
        self.reads += report.reads;
        self.notifications += report.notified;
        self.slowest = self.slowest.max((report.slowest_after, report.seed));
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &report.events {
            *self.events.entry(kind).or_default() += count;
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let list = |counts: &Counts| {
            counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
        };
        format!(
            "events: {}\nslowest operation after the heal: {:?} (seed {})\n\
             {} seeds in {:.0} s, {} operations, {} reads, {} notifications; faults: {}; {} seeds with violations",
            list(&self.events),
            self.slowest.0,
            self.slowest.1,
            self.seeds,
            self.seconds,
            self.operations,
            self.reads,
            self.notifications,
            list(&self.faults),
            self.failures.len()
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|f| json!({ "seed": f.seed, "violations": f.violations, "again": f.again }))
            .collect();
        json!({
            "seeds": self.seeds,
            "seconds": self.seconds,
            "operations": self.operations,
            "reads": self.reads,
            "notifications": self.notifications,
            "faults": self.faults,
            "events": self.events,
            "slowest_after_heal_ms": self.slowest.0.as_millis() as u64,
            "violations": self.failures.len(),
            "failures": failures,
        })
        .to_string()
    }
}
