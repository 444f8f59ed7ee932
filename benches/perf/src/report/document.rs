//! For a document: a table in Markdown, put between two markers.

use super::text::{DOUBT, doubt, microseconds, name, ratio};
use super::{Report, Results};
use crate::plan::Metric;
use crate::sizes;
use std::fmt::Write;

/// What the table stands between in a document.
const BEGIN: &str = "<!-- comparison: written by `ghidrah perf table --into` -->";
const END: &str = "<!-- end of comparison -->";

impl Report {
    /// The ratios with their goals, and how they were got, in Markdown.
    pub fn markdown(&self) -> String {
        let peers: Vec<String> =
            self.versions.iter().map(|(peer, version)| format!("{peer} {version}")).collect();
        let mut text = format!(
            "Machine: {}.\nPeers: {}.\nCommand: `{}`; median of {} rounds, all measured in turn in each; reading \
             the clock costs {:.0} ns.\n\n",
            self.machine,
            if peers.is_empty() { "none".to_owned() } else { peers.join(", ") },
            self.command,
            self.rounds,
            self.clock_cost_ns
        );
        text += "| | size | ours | rival | | ratio | rounds | goal | floor | |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for c in &self.comparisons {
            let (ours, rival) = (&self.results[c.ours], &self.results[c.rival]);
            let limit = |l: Option<f64>| l.map_or(String::new(), ratio);
            let _ = writeln!(
                text,
                "| {} {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                name(ours),
                c.metric,
                sizes::show(ours.case.size),
                figure(ours, c.metric),
                name(rival),
                figure(rival, c.metric),
                c.ratio.map_or("-".to_owned(), |r| format!(
                    "**{}**{}",
                    ratio(r),
                    doubt(c.is_doubtful(&self.results))
                )),
                match (c.least, c.greatest) {
                    (Some(least), Some(greatest)) => format!("{least:.2} to {greatest:.2}"),
                    _ => String::new(),
                },
                limit(c.goal),
                limit(c.floor),
                c.verdict
            );
        }
        if self.comparisons.iter().any(|c| c.is_doubtful(&self.results)) {
            let _ = write!(text, "\n{DOUBT}\n");
        }
        for why in self.errors() {
            let _ = write!(text, "\nNot measured: {why}.\n");
        }
        text
    }

    /// `document` with the table in place of what stands between the markers.
    ///
    /// # Errors
    /// If it has not both markers, in order.
    pub fn insert_into(&self, document: &str) -> Result<String, String> {
        let [before, after] = around(document)?;
        Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", self.markdown()))
    }
}

/// Whether a table can be put into `document`.
///
/// # Errors
/// As [`Report::insert_into`].
pub fn check(document: &str) -> Result<(), String> {
    around(document).map(drop)
}

/// What stands before and behind the table in `document`.
fn around(document: &str) -> Result<[&str; 2], String> {
    let missing = || format!("the document has no lines {BEGIN:?} and {END:?} to put the table between");
    let (before, rest) = document.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok([before, after])
}

fn figure(result: &Results, metric: Metric) -> String {
    match (metric, metric.get(&result.median)) {
        (_, None) => "-".to_owned(),
        (Metric::P50 | Metric::P99, Some(ns)) => format!("{} µs", microseconds(ns)),
        (Metric::Rate, Some(rate)) => format!("{:.2} M/s", rate / 1e6),
        (Metric::Bandwidth, Some(bytes)) => format!("{:.2} GB/s", bytes / 1e9),
    }
}
