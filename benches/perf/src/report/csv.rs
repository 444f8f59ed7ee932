//! For spreadsheets.

use super::Report;
use crate::stats::Figures;
use std::fmt::Write;

impl Report {
    /// A line for every run: who, the case, the round (from 1), the figures. Numbers are plain, times in
    /// nanoseconds, rates per second; what is not known is empty.
    pub fn csv(&self) -> String {
        let mut text = format!(
            "who,link,workload,size,window,pacing,contents,senders,faults,round,{}\n",
            Figures::NAMES.join(",")
        );
        for result in &self.results {
            let case = &result.case;
            for (round, figures) in result.runs.iter().enumerate() {
                let _ = write!(
                    text,
                    "{},{},{},{},{},{},{},{},{},{}",
                    result.who,
                    case.link,
                    case.workload,
                    case.size,
                    case.window,
                    case.pacing,
                    case.contents,
                    case.senders,
                    // Quoted, for faults are a list with commas.
                    case.faults.map_or(String::new(), |faults| format!("\"{faults}\"")),
                    round + 1
                );
                for value in figures.values() {
                    let _ = match value {
                        Some(value) => write!(text, ",{value}"),
                        None => write!(text, ","),
                    };
                }
                text.push('\n');
            }
        }
        text
    }
}
