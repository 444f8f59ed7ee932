//! Figures: of one run, and of several runs together.

use crate::case::Case;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Significant figures kept of a time: 0.1 %.
const FIGURES: u8 = 3;
/// The percentiles, and the part of the samples that lies beyond each.
const PERCENTILES: [(&str, f64); 4] =
    [("p50_ns", 0.5), ("p90_ns", 0.1), ("p99_ns", 0.01), ("p999_ns", 0.001)];
/// So many samples must lie beyond a percentile for it to mean something: of 10 rare events the number is known
/// to a third (its standard deviation is the root of it).
const BEYOND_MIN: f64 = 10.0;
/// The longest time told apart from longer ones: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What one run came to. `None` where the workload has no such figure, or the tool that ran does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Half round trip, median, nanoseconds.
    pub p50_ns: Option<f64>,
    /// 90th percentile of it.
    pub p90_ns: Option<f64>,
    /// 99th percentile.
    pub p99_ns: Option<f64>,
    /// 99.9th percentile.
    pub p999_ns: Option<f64>,
    /// The longest.
    pub max_ns: Option<f64>,
    /// Mean half round trip over a batch in which no single round was timed.
    pub mean_ns: Option<f64>,
    /// Messages per second that arrived.
    pub rate: Option<f64>,
    /// Bytes of contents per second that arrived.
    pub bandwidth: Option<f64>,
    /// Messages lost, as a part of those sent.
    pub loss: Option<f64>,
    /// Rate of the slowest sender, as a part of the mean.
    pub fairness: Option<f64>,
    /// Round trips timed one by one, or messages that arrived while rates were measured.
    pub samples: Option<f64>,
    /// Faults injected on purpose, on both sides, if any were asked for.
    pub injected: Option<f64>,
}

/// How many: of [`Figures`].
const COUNT: usize = 12;

impl Figures {
    /// The figures by name, for everything that treats all alike.
    pub const NAMES: [&'static str; COUNT] = [
        "p50_ns",
        "p90_ns",
        "p99_ns",
        "p999_ns",
        "max_ns",
        "mean_ns",
        "rate",
        "bandwidth",
        "loss",
        "fairness",
        "samples",
        "injected",
    ];

    /// The figures in the order of [`Figures::NAMES`].
    pub fn values(&self) -> [Option<f64>; COUNT] {
        let Figures { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, mean_ns, .. } = *self;
        let Figures { rate, bandwidth, loss, fairness, samples, injected, .. } = *self;
        [p50_ns, p90_ns, p99_ns, p999_ns, max_ns, mean_ns, rate, bandwidth, loss, fairness, samples, injected]
    }

    fn from_values(values: [Option<f64>; COUNT]) -> Figures {
        let [
            p50_ns,
            p90_ns,
            p99_ns,
            p999_ns,
            max_ns,
            mean_ns,
            rate,
            bandwidth,
            loss,
            fairness,
            samples,
            injected,
        ] = values;
        let times = Figures { p50_ns, p90_ns, p99_ns, p999_ns, max_ns, mean_ns, ..Figures::default() };
        Figures { rate, bandwidth, loss, fairness, samples, injected, ..times }
    }

    /// Sets the figure called `name`. False if there is none.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let Some(at) = Figures::NAMES.iter().position(|n| *n == name) else { return false };
        let mut values = self.values();
        values[at] = Some(value);
        *self = Figures::from_values(values);
        true
    }

    /// The figure called `name`, if it is known.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values()[Figures::NAMES.iter().position(|n| *n == name)?]
    }

    /// Those among them, of `case`, that rest on few samples: by chance they may be anything.
    pub fn doubtful(&self, case: &Case) -> Vec<&'static str> {
        let few = |(name, beyond): &(&'static str, f64)| {
            self.get(name).is_some() && self.samples.is_some_and(|samples| samples * beyond < BEYOND_MIN)
        };
        let percentiles = PERCENTILES.iter().filter(|percentile| few(percentile)).map(|(name, _)| *name);
        // Rates are known by credits, so that of the slowest sender to one of these.
        let of_slowest =
            self.fairness.zip(self.samples).map(|(part, all)| all / f64::from(case.senders) * part);
        let rough = of_slowest.is_some_and(|n| n / f64::from(case.messages_per_credit()) < BEYOND_MIN);
        percentiles.chain(rough.then_some("fairness")).collect()
    }

    /// Of every figure the median over the runs that have it.
    pub fn median(runs: &[Figures]) -> Figures {
        let all: Vec<_> = runs.iter().map(Figures::values).collect();
        Figures::from_values(std::array::from_fn(|i| median(all.iter().filter_map(|values| values[i]))))
    }
}

/// The median; of an even number the mean of the two in the middle. `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Round trips, one by one.
#[derive(Debug)]
pub struct RoundTrips {
    histogram: Histogram<u64>,
}

impl Default for RoundTrips {
    fn default() -> RoundTrips {
        let histogram = Histogram::new_with_bounds(1, LONGEST, FIGURES).expect("sound bounds");
        RoundTrips { histogram }
    }
}

impl RoundTrips {
    /// Counts a round trip.
    pub fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(took.as_nanos() as u64);
    }

    /// Writes the percentiles of half of them into `figures`.
    pub fn write_halves(&self, figures: &mut Figures) {
        if self.histogram.is_empty() {
            return;
        }
        let half = |quantile| Some(self.histogram.value_at_quantile(quantile) as f64 / 2.0);
        figures.p50_ns = half(0.5);
        figures.p90_ns = half(0.9);
        figures.p99_ns = half(0.99);
        figures.p999_ns = half(0.999);
        figures.max_ns = half(1.0);
        figures.samples = Some(self.histogram.len() as f64);
    }
}

/// What reading the clock costs here, nanoseconds: about that much of every round trip timed by itself is the
/// clock's.
pub fn clock_cost_ns() -> f64 {
    /// Enough to make one reading in thousands that is interrupted count for nothing.
    const READINGS: u32 = 20_000;
    let cost = || {
        let start = Instant::now();
        for _ in 1..READINGS {
            std::hint::black_box(Instant::now());
        }
        start.elapsed().as_nanos() as f64 / f64::from(READINGS)
    };
    median([cost(), cost(), cost()]).expect("three")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn the_median_of_runs_is_that_of_each_figure() {
        let run = |p50, p99| Figures { p50_ns: Some(p50), p99_ns: p99, ..Figures::default() };
        let median = Figures::median(&[run(1.0, Some(50.0)), run(3.0, None), run(2.0, Some(40.0))]);
        assert_eq!(median, run(2.0, Some(45.0)));
    }

    #[test]
    fn figures_by_name() {
        let mut figures = Figures::default();
        for (i, name) in Figures::NAMES.into_iter().enumerate() {
            assert!(figures.set(name, i as f64));
            assert_eq!(figures.get(name), Some(i as f64));
        }
        assert!(!figures.set("p12", 1.0));
        assert_eq!((figures.p50_ns, figures.fairness, figures.injected), (Some(0.0), Some(9.0), Some(11.0)));
    }

    #[test]
    fn percentiles_of_few_samples_are_doubtful() {
        let of = |samples| {
            let [p50_ns, p99_ns, p999_ns] = [Some(1.0); 3];
            Figures { p50_ns, p99_ns, p999_ns, samples, ..Figures::default() }.doubtful(&incast())
        };
        assert_eq!(of(Some(10_000.0)), Vec::<&str>::new());
        assert_eq!(of(Some(9_999.0)), ["p999_ns"]);
        assert_eq!(of(Some(999.0)), ["p99_ns", "p999_ns"]);
        assert_eq!(of(Some(19.0)), ["p50_ns", "p99_ns", "p999_ns"]);
        assert_eq!(of(None), Vec::<&str>::new(), "nobody knows");
    }

    /// Of 4 senders, with a credit for every 8 messages.
    fn incast() -> Case {
        let mut subjects = crate::table::quick().subjects.into_iter();
        let any = *subjects.next().expect("there are some").case();
        Case { workload: crate::case::Workload::Incast, senders: 4, window: 32, ..any }
    }

    #[test]
    fn fairness_is_doubtful_if_the_slowest_sender_got_few_credits() {
        let of = |samples, fairness| {
            Figures { samples: Some(samples), fairness: Some(fairness), ..Figures::default() }
                .doubtful(&incast())
        };
        assert_eq!(of(320.0, 1.0), Vec::<&str>::new());
        assert_eq!(of(640.0, 0.5), Vec::<&str>::new());
        assert_eq!(of(640.0, 0.4), ["fairness"]);
        assert_eq!(of(300.0, 1.0), ["fairness"]);
        assert_eq!(of(1e9, 0.0), ["fairness"], "one got nothing through");
    }

    #[test]
    fn half_round_trips() {
        let mut trips = RoundTrips::default();
        let mut figures = Figures::default();
        trips.write_halves(&mut figures);
        assert_eq!(figures, Figures::default());
        for us in 1..=1000 {
            trips.record(Duration::from_micros(us));
        }
        trips.write_halves(&mut figures);
        let near = |figure: Option<f64>, ns: f64| (figure.unwrap() / ns - 1.0).abs() < 0.002;
        assert!(near(figures.p50_ns, 250_000.0) && near(figures.p99_ns, 495_000.0), "{figures:?}");
        assert!(near(figures.max_ns, 500_000.0), "{figures:?}");
        assert_eq!(figures.samples, Some(1000.0));
    }
}
