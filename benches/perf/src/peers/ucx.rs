//! UCX, by `ucx_perftest`.

use super::process::{free_port, output, start_server};
use super::{Medium, Peer, PeerError, iterations, medium};
use crate::case::{Case, Workload};
use crate::stats::Figures;
use std::process::Command;
use std::time::Duration;

const PROGRAM: &str = "ucx_perftest";
/// A server is up much sooner even on a loaded machine; a run takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// # Errors
/// If the program is missing.
pub(super) fn check() -> Result<(), PeerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(PROGRAM).is_file()) {
        return Ok(());
    }
    Err(PeerError::Missing {
        peer: Peer::Ucx,
        program: PROGRAM.to_owned(),
        remedy: "apt-get install ucx-utils",
    })
}

pub(super) fn version() -> Option<String> {
    let text = output(Command::new("ucx_info").arg("-v"), PATIENCE).ok()?;
    // "# Version 1.13.1", before that "# UCT version=1.9.0 revision 0000000", since "# Library version: 1.14.0"
    let rest = text.lines().next()?.split_once("ersion")?.1;
    let rest = rest.trim_start_matches([' ', ':', '=']);
    rest.split_whitespace().next().map(str::to_owned)
}

/// # Errors
/// As [`super::Peers::measure`].
pub(super) fn measure(case: &Case, cores: [Option<usize>; 2]) -> Result<Figures, PeerError> {
    let median = once(case, cores, 50)?;
    if case.workload != Workload::Lat {
        return Ok(Figures { p50_ns: None, p99_ns: None, mean_ns: None, ..median });
    }
    // It tells one percentile a run.
    let tail = once(case, cores, 99)?;
    Ok(Figures { p99_ns: tail.p50_ns, rate: None, bandwidth: None, ..median })
}

/// One run; the percentile asked for is what is called `p50_ns` here.
fn once(case: &Case, cores: [Option<usize>; 2], percentile: u32) -> Result<Figures, PeerError> {
    let port = free_port().unwrap_or(13_337);
    let command = |core: Option<usize>| {
        let mut command = Command::new(PROGRAM);
        match medium(case) {
            Medium::Network => command.env("UCX_TLS", "tcp,self").env("UCX_NET_DEVICES", "lo"),
            Medium::Memory => command.env("UCX_TLS", "posix,self"),
        };
        command.env("UCX_WARN_UNUSED_ENV_VARS", "n").args(["-p", &port.to_string()]);
        if let Some(core) = core {
            command.args(["-c", &core.to_string()]);
        }
        command
    };
    let _server = start_server(&mut command(cores[1]), port, PATIENCE)?;
    let count = iterations(case);
    let mut client = command(cores[0]);
    client.arg("127.0.0.1").args(["-f", "-v"]);
    client.args(["-s", &case.size.to_string(), "-n", &count.to_string()]);
    client.args(["-w", &(count / 10).max(1).to_string()]);
    match case.workload {
        Workload::Lat => client.args(["-t", "tag_lat", "-R", &percentile.to_string()]),
        _ => client.args(["-t", "tag_bw", "-O", &case.window.to_string()]),
    };
    let text = output(&mut client, PATIENCE)?;
    parse(&text, case.size).ok_or_else(|| PeerError::Failed {
        program: super::process::show(&client),
        why: format!("unknown output: {}", text.trim()),
    })
}

/// Reads the table with a heading that `-v` prints. Times in it are microseconds of half a round trip.
fn parse(text: &str, size: usize) -> Option<Figures> {
    let mut lines = text.lines().skip_while(|l| !l.starts_with("iterations,"));
    let heading = lines.next()?.split(',');
    // With several lines the last is that of the whole run.
    let values =
        lines.filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit())).last()?.split(',');
    let mut figures = Figures::default();
    for (name, value) in heading.zip(values) {
        let value: f64 = value.trim().parse().ok()?;
        match name {
            name if name.ends_with("percentile_lat") => figures.p50_ns = Some(value * 1000.0),
            "overall_lat" => figures.mean_ns = Some(value * 1000.0),
            "overall_mr" => figures.rate = Some(value),
            _ => {}
        }
    }
    figures.bandwidth = figures.rate.map(|rate| rate * size as f64);
    figures.p50_ns.and(figures.rate).map(|_| figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_version_1_13() {
        let text = "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n\
                     200000,0.030,0.064,0.065,957.40,957.40,15686091,15686090\n";
        let figures = parse(text, 64).unwrap();
        assert_eq!((figures.p50_ns, figures.mean_ns), (Some(30.0), Some(65.0)));
        assert_eq!((figures.rate, figures.bandwidth), (Some(15_686_090.0), Some(15_686_090.0 * 64.0)));
    }

    #[test]
    fn other_output_is_refused() {
        assert_eq!(parse("", 64), None);
        assert_eq!(parse("iterations,50.0_percentile_lat\n", 64), None);
        assert_eq!(parse("iterations,50.0_percentile_lat,overall_mr\nx,y,z\n", 64), None);
        assert_eq!(parse("iterations,50.0_percentile_lat,overall_mr\n1,y,z\n", 64), None);
    }
}
