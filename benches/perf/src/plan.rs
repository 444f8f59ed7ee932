//! What is to be measured and compared, and how often: a [`Plan`].

use crate::case::{Case, Workload, names};
use crate::machine::Machine;
use crate::peers::{Peer, Peers};
use crate::report::{Compared, Report, Results};
use crate::run::{self, Place};
use crate::stats::{self, Figures};
use serde::{Deserialize, Serialize};

/// Somebody who is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject {
    /// We.
    Ours(Case),
    /// A peer, doing what comes closest to our case.
    Peer(Peer, Case),
}

impl Subject {
    /// The case.
    pub fn case(&self) -> &Case {
        match self {
            Subject::Ours(case) | Subject::Peer(_, case) => case,
        }
    }

    /// Who, over what: `cl udp`, `ucx tcp`.
    pub fn name(&self) -> String {
        match self {
            Subject::Ours(case) => format!("{} {}", case.layer, case.transport),
            Subject::Peer(peer, case) => format!("{peer} {}", peer.transport(case)),
        }
    }
}

/// The figure that a comparison is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Half round trip, median.
    P50,
    /// Its 99th percentile.
    P99,
    /// Messages per second.
    Rate,
    /// Bytes per second.
    Bandwidth,
}

names! {
    Metric { P50 "p50", P99 "p99", Rate "rate", Bandwidth "bandwidth" }
}

impl Metric {
    /// Those that a workload is compared by.
    pub fn of(workload: Workload) -> &'static [Metric] {
        match workload {
            Workload::Lat => &[Metric::P50, Metric::P99],
            Workload::Rate => &[Metric::Rate],
            Workload::Bw | Workload::Incast => &[Metric::Bandwidth],
        }
    }

    /// Whether less is better.
    pub fn less_is_better(self) -> bool {
        matches!(self, Metric::P50 | Metric::P99)
    }

    /// The figure.
    pub fn get(self, figures: &Figures) -> Option<f64> {
        match self {
            Metric::P50 => figures.p50_ns,
            Metric::P99 => figures.p99_ns,
            Metric::Rate => figures.rate,
            Metric::Bandwidth => figures.bandwidth,
        }
    }
}

/// A ratio to be told, ours by the rival's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Index into [`Plan::subjects`].
    pub ours: usize,
    /// Index into [`Plan::subjects`].
    pub rival: usize,
    /// Of which figure.
    pub metric: Metric,
    /// The ratio we want.
    pub goal: Option<f64>,
    /// The ratio that must be.
    pub floor: Option<f64>,
}

/// What is to be measured, and compared with what.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Everybody to be measured, each once a round, in this order.
    pub subjects: Vec<Subject>,
    /// The ratios to be told.
    pub comparisons: Vec<Comparison>,
    /// How often each is measured; the figures are medians.
    pub rounds: u32,
}

/// How far a measurement has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Runs done.
    pub done: usize,
    /// Of so many.
    pub all: usize,
    /// What runs now.
    pub now: String,
}

impl Plan {
    /// Nothing yet, to be measured so often.
    pub fn new(rounds: u32) -> Plan {
        Plan { rounds, ..Plan::default() }
    }

    /// Measures `subject`, too: its index. One that is measured already is not measured twice.
    pub fn add(&mut self, subject: Subject) -> usize {
        self.subjects.iter().position(|s| *s == subject).unwrap_or_else(|| {
            self.subjects.push(subject);
            self.subjects.len() - 1
        })
    }

    /// Compares two subjects, and measures them if they are not yet to be.
    pub fn compare(
        &mut self,
        ours: Subject,
        rival: Subject,
        metric: Metric,
        goal: Option<f64>,
        floor: Option<f64>,
    ) {
        let (ours, rival) = (self.add(ours), self.add(rival));
        self.comparisons.push(Comparison { ours, rival, metric, goal, floor });
    }

    /// Measures everybody, round by round. A subject that fails is not tried again; its result says why.
    pub fn measure(
        &self,
        command: &str,
        place: &Place,
        peers: &Peers,
        mut progress: impl FnMut(&Progress),
    ) -> Report {
        let machine = Machine::this();
        let mut results: Vec<Results> = self.subjects.iter().map(Results::new).collect();
        let all = self.subjects.len() * self.rounds as usize;
        for round in 0..self.rounds as usize {
            for (i, (subject, result)) in self.subjects.iter().zip(&mut results).enumerate() {
                if result.error.is_some() {
                    continue;
                }
                let now = format!(
                    "{} {} {}",
                    subject.case().workload,
                    subject.name(),
                    crate::sizes::show(subject.case().size)
                );
                progress(&Progress { done: round * self.subjects.len() + i, all, now });
                let measured = match subject {
                    Subject::Ours(case) => run::measure(case, place).map(|outcome| {
                        result.via = outcome.via;
                        result.injected += outcome.injected;
                        outcome.figures
                    }),
                    Subject::Peer(peer, case) => {
                        peers.measure(*peer, case, place.cores).map_err(|error| error.to_string())
                    }
                };
                match measured {
                    Ok(figures) => result.runs.push(figures),
                    Err(why) => result.error = Some(why),
                }
            }
        }
        for result in &mut results {
            result.median = Figures::median(&result.runs);
            result.doubtful = result.median.doubtful(&result.case);
        }
        let versions = self.versions(peers);
        let compared = self.comparisons.iter().map(|c| Compared::new(c, &results)).collect();
        Report {
            command: command.to_owned(),
            version: crate::VERSION.to_owned(),
            machine,
            clock_cost_ns: stats::clock_cost_ns(),
            rounds: self.rounds,
            versions,
            results,
            comparisons: compared,
        }
    }

    fn versions(&self, peers: &Peers) -> Vec<(String, String)> {
        let mut versions: Vec<(String, String)> = Vec::new();
        for subject in &self.subjects {
            if let Subject::Peer(peer, _) = subject
                && !versions.iter().any(|(name, _)| *name == peer.to_string())
            {
                versions.push((peer.to_string(), peers.version(*peer)));
            }
        }
        versions
    }
}
