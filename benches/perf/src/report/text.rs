//! For people.

use super::{Report, Results};
use crate::case::{Case, Contents, Link, Pacing, Workload};
use crate::sizes;
use std::fmt::Write;

impl Report {
    /// A table of the figures, what is to be known about them, and a table of the ratios.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.results.iter().all(|result| result.runs.is_empty()) {
            return text; // the errors say it all
        }
        let Report { machine, rounds, clock_cost_ns, .. } = self;
        let _ = writeln!(text, "{machine}");
        let peers: String =
            self.versions.iter().map(|(peer, version)| format!("; {peer} {version}")).collect();
        let _ = writeln!(text, "median of {rounds}; reading the clock costs {clock_cost_ns:.0} ns{peers}");
        let mut workloads: Vec<Workload> = Vec::new();
        for result in &self.results {
            if !workloads.contains(&result.case.workload) {
                workloads.push(result.case.workload);
            }
        }
        for workload in workloads {
            text.push('\n');
            text += &self.figures(workload);
        }
        if !self.comparisons.is_empty() {
            text.push('\n');
            text += &self.ratios();
        }
        if self.results.iter().any(|result| !result.doubtful.is_empty()) {
            let _ = write!(text, "\n{DOUBT}\n");
        }
        let injected: Vec<String> = self
            .results
            .iter()
            .filter(|result| result.case.faults.is_some() && !result.runs.is_empty())
            .map(|r| format!("injected, {}, {}: {}\n", name(r), sizes::show(r.case.size), r.injected))
            .collect();
        if !injected.is_empty() {
            let _ = write!(text, "\n{}", injected.concat());
        }
        let mut vias: Vec<String> = Vec::new();
        for result in self.results.iter().filter(|r| !r.via.is_empty()) {
            let via = format!("{}, {}: {}", result.who, result.case.pacing, result.via);
            if !vias.contains(&via) {
                vias.push(via);
            }
        }
        if !vias.is_empty() {
            let _ = write!(text, "\n{}\n", vias.join("\n"));
        }
        text
    }

    fn figures(&self, workload: Workload) -> String {
        let heading: &[&str] = match workload {
            Workload::Lat => &["P50 us", "P90", "P99", "P99.9", "MAX", "MEAN", "LOST", "SAMPLES"],
            Workload::Incast => &["M/s", "GB/s", "LOST", "SLOWEST/MEAN"],
            Workload::Bw | Workload::Rate => &["M/s", "GB/s", "LOST"],
        };
        let heading: Vec<&str> = [workload_name(workload), "SIZE"].iter().chain(heading).copied().collect();
        let rows = self.results.iter().filter(|r| r.case.workload == workload).map(row).collect::<Vec<_>>();
        table(&heading, &rows)
    }

    fn ratios(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .comparisons
            .iter()
            .map(|c| {
                let (ours, rival) = (&self.results[c.ours], &self.results[c.rival]);
                let limit = |l: Option<f64>| l.map_or(String::new(), ratio);
                vec![
                    format!("{} {}", c.metric, name(ours)),
                    sizes::show(ours.case.size),
                    name(rival),
                    c.ratio.map_or("-".to_owned(), |r| ratio(r) + doubt(c.is_doubtful(&self.results))),
                    match (c.least, c.greatest) {
                        (Some(least), Some(greatest)) => format!("{least:.2} to {greatest:.2}"),
                        _ => String::new(),
                    },
                    limit(c.goal),
                    limit(c.floor),
                    c.verdict.to_string(),
                ]
            })
            .collect();
        table(&["RATIO OF", "SIZE", "TO", "RATIO", "ROUNDS", "GOAL", "FLOOR", ""], &rows)
    }
}

fn workload_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Lat => "HALF ROUND TRIP",
        Workload::Bw => "BANDWIDTH",
        Workload::Rate => "RATE",
        Workload::Incast => "INCAST",
    }
}

/// Who, and what is particular about the case.
pub(super) fn name(result: &Results) -> String {
    let Case { pacing, contents, window, senders, workload, link, faults, .. } = result.case;
    let mut name = result.who.clone();
    if result.ours {
        if link == Link::Veth {
            name += ", veth";
        }
        if pacing == Pacing::Park {
            name += ", parked";
        }
        if contents == Contents::Copied {
            name += ", copied";
        }
        if let Some(faults) = faults {
            name += &format!(", {faults}");
        }
        match workload {
            Workload::Lat => {}
            Workload::Bw | Workload::Rate => name += &format!(", window {window}"),
            Workload::Incast => name += &format!(", {senders} senders, window {window}"),
        }
    }
    name
}

/// What is said about figures that are marked by [`doubt`].
pub(super) const DOUBT: &str = "? Fewer than 10 samples a run lie beyond this percentile, or fewer than 10 credits came \
                                for the slowest sender: by chance it may be anything. A longer --time, or more --iters, \
                                gives more.";

/// The mark of a figure that rests on few samples.
pub(super) fn doubt(doubtful: bool) -> &'static str {
    if doubtful { "?" } else { "" }
}

/// A ratio with as many places as mean something.
pub(super) fn ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}x") } else { format!("{ratio:.1}x") }
}

fn row(result: &Results) -> Vec<String> {
    let mut row = vec![name(result), sizes::show(result.case.size)];
    if result.runs.is_empty() {
        row.push("not measured".to_owned());
        return row;
    }
    let figures = &result.median;
    let part = |part: Option<f64>| match part {
        None => String::new(),
        Some(0.0) => "0".to_owned(),
        Some(part) => format!("{:.3} %", part * 100.0),
    };
    match result.case.workload {
        Workload::Lat => {
            let times = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "mean_ns"];
            row.extend(times.map(|name| {
                let time = figures.get(name).map(microseconds);
                time.map_or("-".to_owned(), |time| time + doubt(result.doubtful.contains(&name)))
            }));
            row.push(part(figures.loss));
            row.push(figures.samples.map_or("-".to_owned(), |samples| format!("{samples:.0}")));
        }
        workload => {
            row.push(figures.rate.map_or("-".to_owned(), |r| format!("{:.3}", r / 1e6)));
            row.push(figures.bandwidth.map_or("-".to_owned(), |b| format!("{:.2}", b / 1e9)));
            row.push(part(figures.loss));
            if workload == Workload::Incast {
                let mark = doubt(result.doubtful.contains(&"fairness"));
                row.push(figures.fairness.map_or("-".to_owned(), |f| format!("{f:.2}{mark}")));
            }
        }
    }
    row
}

/// Nanoseconds as microseconds, three figures.
pub(super) fn microseconds(ns: f64) -> String {
    match ns / 1000.0 {
        us if us < 10.0 => format!("{us:.3}"),
        us if us < 100.0 => format!("{us:.1}"),
        us => format!("{us:.0}"),
    }
}

/// Rows of cells under a heading, as wide as they need; all but the first column to the right.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, (cell, w)) in cells.zip(&widths).enumerate() {
            let left = i == 0 || heading[i] == "TO";
            line += &if left { format!("{cell:<w$}  ") } else { format!("{cell:>w$}  ") };
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}
