//! `ghidrah perf` as its users type it.

use std::process::Command;
use system_tests::{Finished, ghidrah, run};

fn perf(words: &str) -> Finished {
    let mut command = Command::new(ghidrah());
    command.arg("perf").args(words.split_whitespace());
    run(command)
}

#[test]
fn help_has_examples() {
    let help = perf("--help").succeeded();
    help.saying(&[
        "lat",
        "rate",
        "incast",
        "ghidrah perf lat --size 8-8K --against udp,ucx",
        "--listen",
        "--svg",
    ]);
}

#[test]
fn a_tiny_ping_pong_gives_every_kind_of_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let (csv, svg) = (dir.path().join("lat.csv"), dir.path().join("lat.svg"));
    let files = format!("--csv {} --svg {}", csv.display(), svg.display());
    let tiny = "lat --transport mio --size 8,1K --repeat 1 --time 0.05";
    let json = perf(&format!("{tiny} --json {files}")).succeeded();
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let sizes: Vec<_> = report["results"].as_array().unwrap().iter().map(|r| &r["case"]["size"]).collect();
    assert_eq!(sizes, [8, 1024]);
    assert!(report["results"][0]["median"]["p99_ns"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["command"].as_str().unwrap().starts_with("ghidrah perf lat"), "{report}");
    assert_eq!(std::fs::read_to_string(csv).expect("a file").lines().count(), 3);
    assert!(std::fs::read_to_string(svg).expect("a file").starts_with("<svg"));
    perf(tiny).succeeded().saying(&["P99.9", "cl mio", "reading the clock costs"]);
}

#[test]
fn mistakes_are_told_with_the_next_step() {
    perf("").failed_saying(&["<WHAT>"]);
    perf("latency").failed_saying(&["lat, bw, rate, incast, table"]);
    perf("lat --size 8,x").failed_saying(&["\"x\" is no size", "1K-64K"]);
    perf("lat --layer mml").failed_saying(&["mml cannot be measured yet"]);
    perf("incast --against ucx --size 8").failed_saying(&["ucx has nothing to compare with incast"]);
    let mut without = Command::new(ghidrah());
    without.args(["perf", "lat", "--against", "ucx"]).env("PATH", "/nonexistent");
    run(without).failed_saying(&["ucx_perftest is missing", "apt-get install ucx-utils"]);
    let mut without = Command::new(ghidrah());
    without.args(["perf", "lat", "--against", "udp"]).env("GHIDRAH_PEERS", "/nonexistent");
    run(without).failed_saying(&["/nonexistent/udp is missing", "benches/peers/setup"]);
}
