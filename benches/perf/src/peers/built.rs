//! Peers measured by programs of `benches/peers`. All of them take the same arguments and print the same:
//!
//! `PROGRAM lat|stream SIZE COUNT WINDOW CORE CORE MODE`; a core of -1 leaves it to the system. Printed are
//! lines of a figure's name ([`Figures::NAMES`]) and its value. `PROGRAM version` prints a line.

use super::process::{output, show};
use super::{Peer, PeerError, iterations};
use crate::case::{Case, Workload};
use crate::stats::Figures;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A run takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn version(program: &Path) -> Option<String> {
    let text = output(Command::new(program).arg("version"), PATIENCE).ok()?;
    Some(text.trim().to_owned())
}

/// # Errors
/// As [`super::Peers::measure`].
pub(super) fn measure(
    peer: Peer,
    program: &Path,
    case: &Case,
    cores: [Option<usize>; 2],
) -> Result<Figures, PeerError> {
    let mut command = Command::new(program);
    command.arg(if case.workload == Workload::Lat { "lat" } else { "stream" });
    command.args([case.size as u64, iterations(case), u64::from(case.window)].map(|n| n.to_string()));
    command.args(cores.map(|core| core.map_or("-1".to_owned(), |core| core.to_string())));
    command.arg(peer.transport(case));
    let text = output(&mut command, PATIENCE)?;
    parse(&text).ok_or_else(|| PeerError::Failed {
        program: show(&command),
        why: format!("unknown output: {}", text.trim()),
    })
}

fn parse(text: &str) -> Option<Figures> {
    let mut figures = Figures::default();
    for line in text.lines() {
        let (name, value) = line.split_once(' ')?;
        if !figures.set(name, value.trim().parse().ok()?) {
            return None;
        }
    }
    (figures != Figures::default()).then_some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let figures = parse("p50_ns 2610.5\np99_ns 4700\n").unwrap();
        assert_eq!((figures.p50_ns, figures.p99_ns, figures.rate), (Some(2610.5), Some(4700.0), None));
    }

    #[test]
    fn other_output_is_refused() {
        for text in ["", "p50_ns", "p50_ns x", "p51_ns 3", "hello world"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
