//! What was measured, and how it compares: as text, JSON, CSV, a plot and a table for a document.

mod csv;
pub mod document;
mod svg;
mod text;

use crate::case::Case;
use crate::faults::Injected;
use crate::machine::Machine;
use crate::plan::{Comparison, Metric, Subject};
use crate::stats::{Figures, median};
use serde::Serialize;

/// Everything a measurement came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command that gives it.
    pub command: String,
    /// Ghidrah's version.
    pub version: String,
    /// Where.
    pub machine: Machine,
    /// What reading the clock costs, nanoseconds; about that much of every single round trip is the clock's.
    pub clock_cost_ns: f64,
    /// How often each subject was measured.
    pub rounds: u32,
    /// The peers, and their versions.
    pub versions: Vec<(String, String)>,
    /// Of each subject.
    pub results: Vec<Results>,
    /// The ratios.
    pub comparisons: Vec<Compared>,
}

/// What was measured of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Who, over what.
    pub who: String,
    /// Whether it is ours, not a peer's.
    pub ours: bool,
    /// What it did; a peer did what comes closest.
    pub case: Case,
    /// What carried the messages and why, as our layer says.
    pub via: String,
    /// The figures of each round.
    pub runs: Vec<Figures>,
    /// Their medians.
    pub median: Figures,
    /// What was done on purpose to the datagrams of both sides, in all rounds.
    pub injected: Injected,
    /// The figures that rest on few samples, by their names in [`Figures::NAMES`].
    pub doubtful: Vec<&'static str>,
    /// Why it was not measured, or not to the end.
    pub error: Option<String>,
}

impl Results {
    /// Whether the figure that `metric` is about rests on few samples.
    pub fn doubts(&self, metric: Metric) -> bool {
        let name = match metric {
            Metric::P50 => "p50_ns",
            Metric::P99 => "p99_ns",
            Metric::Rate | Metric::Bandwidth => return false,
        };
        self.doubtful.contains(&name)
    }

    /// None yet.
    pub fn new(subject: &Subject) -> Results {
        Results {
            who: subject.name(),
            ours: matches!(subject, Subject::Ours(_)),
            case: *subject.case(),
            via: String::new(),
            runs: Vec::new(),
            median: Figures::default(),
            injected: Injected::default(),
            doubtful: Vec::new(),
            error: None,
        }
    }
}

/// How a ratio stands to its goal and floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The goal is met, or there is only a floor, and that is.
    Goal,
    /// The floor is, the goal is not.
    Floor,
    /// Not even the floor is; or the goal is not, and there is no floor.
    Missed,
    /// There is no goal.
    None,
    /// There is no ratio: one of the two was not measured.
    Unknown,
}

impl Verdict {
    /// Of `ratio` by the direction of `metric`.
    pub fn of(metric: Metric, ratio: Option<f64>, goal: Option<f64>, floor: Option<f64>) -> Verdict {
        let Some(ratio) = ratio else { return Verdict::Unknown };
        let meets = |limit: f64| if metric.less_is_better() { ratio <= limit } else { ratio >= limit };
        match (goal.or(floor), floor) {
            (None, _) => Verdict::None,
            (Some(goal), _) if meets(goal) => Verdict::Goal,
            (_, Some(floor)) if meets(floor) => Verdict::Floor,
            _ => Verdict::Missed,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verdict::Goal => "goal met",
            Verdict::Floor => "floor met",
            Verdict::Missed => "missed",
            Verdict::None => "",
            Verdict::Unknown => "not measured",
        })
    }
}

/// A ratio, ours by the rival's.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Index into [`Report::results`].
    pub ours: usize,
    /// Index into [`Report::results`].
    pub rival: usize,
    /// Of which figure.
    pub metric: Metric,
    /// The median of the ratios of the rounds.
    pub ratio: Option<f64>,
    /// The least of them.
    pub least: Option<f64>,
    /// The greatest.
    pub greatest: Option<f64>,
    /// The ratio we want.
    pub goal: Option<f64>,
    /// The ratio that must be.
    pub floor: Option<f64>,
    /// Whether it is so.
    pub verdict: Verdict,
}

impl Compared {
    /// Whether one of the two figures rests on few samples.
    pub fn is_doubtful(&self, results: &[Results]) -> bool {
        [self.ours, self.rival].iter().any(|i| results[*i].doubts(self.metric))
    }

    /// Works out the ratios of `comparison`.
    pub fn new(comparison: &Comparison, results: &[Results]) -> Compared {
        let Comparison { ours, rival, metric, goal, floor } = *comparison;
        let ratios: Vec<f64> = results[ours]
            .runs
            .iter()
            .zip(&results[rival].runs)
            .filter_map(|(ours, theirs)| Some(metric.get(ours)? / metric.get(theirs)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        let ratio = median(ratios.iter().copied());
        Compared {
            ours,
            rival,
            metric,
            ratio,
            least: ratios.iter().copied().reduce(f64::min),
            greatest: ratios.iter().copied().reduce(f64::max),
            goal,
            floor,
            verdict: Verdict::of(metric, ratio, goal, floor),
        }
    }
}

impl Report {
    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("reports can be written as JSON")
    }

    /// Who was not measured, and why; each reason once.
    pub fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = Vec::new();
        for result in &self.results {
            if let Some(why) = &result.error {
                let text = format!("{}: {why}", result.who);
                if !errors.contains(&text) {
                    errors.push(text);
                }
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_time_is_better() {
        let of = |ratio| Verdict::of(Metric::P50, Some(ratio), Some(0.7), Some(1.0));
        assert_eq!(
            [of(0.5), of(0.7), of(0.9), of(1.0)].map(|v| v == Verdict::Goal),
            [true, true, false, false]
        );
        assert_eq!((of(1.0), of(1.01)), (Verdict::Floor, Verdict::Missed));
    }

    #[test]
    fn more_rate_is_better() {
        let of = |ratio| Verdict::of(Metric::Rate, Some(ratio), Some(8.0), Some(3.0));
        assert_eq!([of(9.0), of(5.0), of(2.0)], [Verdict::Goal, Verdict::Floor, Verdict::Missed]);
    }

    #[test]
    fn goals_and_floors_may_be_absent() {
        let of = |ratio, goal, floor| Verdict::of(Metric::Rate, ratio, goal, floor);
        assert_eq!(of(Some(1.0), None, None), Verdict::None);
        assert_eq!(of(Some(1.0), Some(2.0), None), Verdict::Missed);
        assert_eq!(of(Some(1.0), None, Some(0.8)), Verdict::Goal);
        assert_eq!(of(None, Some(2.0), None), Verdict::Unknown);
    }
}
