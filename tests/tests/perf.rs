//! `ghidrah perf` as its users type it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
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
    perf("").failed_saying(&["<lat|bw|rate|incast|table>"]);
    perf("latency").failed_saying(&["lat, bw, rate, incast, table"]);
    perf("lat --size 8,x").failed_saying(&["\"x\" is no size", "1K-64K"]);
    for bad in [
        "lat --size 8,x",
        "lat --size 8-",
        "lat --cores 0",
        "lat --cores 0,100000",
        "lat --window 0",
        "lat --window 7",
        "lat --senders 7",
        "lat --transport shm --veth",
        "incast --park",
        "incast --against ucx --size 8",
        "table --size 8",
    ] {
        assert_eq!(perf(bad).code, 2, "{bad}: as for any command line that is wrong");
    }
    perf("lat --layer mmm").failed_saying(&["\"mmm\" is none of cl, rcl, mml, mml-unr"]);
    perf("incast --against ucx --size 8").failed_saying(&["ucx has nothing to compare with incast"]);
    perf("incast --transport xdp").failed_saying(&["AF_XDP gives a device's queue to one"]);
    perf("lat --transport ofi").failed_saying(&["--features ofi"]);
    perf("lat --transport shm --faults drop=1%").failed_saying(&["leave --faults"]);
    perf("lat --faults drop=2").failed_saying(&["a rate is 1%"]);
    perf("lat --cores 0,100000").failed_saying(&["processor 100000"]);
    perf("lat --window 7").failed_saying(&["leave --window out"]);
    perf("lat --senders 7").failed_saying(&["--senders is for incast"]);
    perf("table --size 8").failed_saying(&["leave --size out"]);
    let mut overridden = Command::new(ghidrah());
    overridden.args(["perf", "lat"]).env("GHIDRAH_CL_TRANSPORT", "mio");
    run(overridden).failed_saying(&["GHIDRAH_CL_TRANSPORT=mio would override --transport udp"]);
    let mut without = Command::new(ghidrah());
    without.args(["perf", "lat", "--against", "ucx"]).env("PATH", "/nonexistent");
    run(without).failed_saying(&["ucx_perftest is missing", "apt-get install ucx-utils"]);
    let mut without = Command::new(ghidrah());
    without.args(["perf", "lat", "--against", "udp"]).env("GHIDRAH_PEERS", "/nonexistent");
    run(without).failed_saying(&["/nonexistent/udp is missing", "benches/peers/setup"]);
}

/// Measuring for an hour, unless the file that it cannot write is noticed before.
#[test]
fn files_are_looked_at_before_anything_is_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let long =
        |option: &str, file: &str| perf(&format!("lat --time 3600 {option} {}/{file}", dir.path().display()));
    long("--csv", "none/lat.csv").failed_saying(&["cannot write", "none/lat.csv"]);
    long("--svg", "").failed_saying(&["is a directory"]);
    let plain = dir.path().join("plain.md");
    std::fs::write(&plain, "no markers").expect("a file");
    let table = format!("table --time 3600 --into {}", plain.display());
    perf(&table).failed_saying(&["plain.md: the document has no lines"]);
    assert_eq!(std::fs::read_to_string(plain).expect("a file"), "no markers");
    assert!(!dir.path().join("none").exists());
}

/// What it was measuring ends as well: its own processes, and a peer's program, which knows nothing of it.
#[test]
fn nothing_survives_a_measurement_that_is_interrupted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (peer, started) = (dir.path().join("udp"), dir.path().join("started"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = version ] && {{ echo 1; exit; }}\necho $$ >{0}.new\nmv {0}.new {0}\nexec sleep 600\n",
        started.display()
    );
    std::fs::write(&peer, script).expect("a script");
    std::fs::set_permissions(&peer, Permissions::from_mode(0o755)).expect("executable");
    let start = |words: &str| {
        let mut command = Command::new(ghidrah());
        command.arg("perf").args(words.split_whitespace()).env("GHIDRAH_PEERS", dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let children = |of: u32| {
        let path = format!("/proc/{of}/task/{of}/children");
        let all = std::fs::read_to_string(path).unwrap_or_default();
        all.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let gone = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };

    let mut measuring = start("lat --transport mio --size 8 --time 600");
    eventually("both workers have started", || children(measuring.id()).len() == 2);
    let workers = children(measuring.id());
    let interrupt = |pid: u32| Command::new("kill").args(["-INT", &pid.to_string()]).status().expect("kill");
    assert!(interrupt(measuring.id()).success());
    assert_eq!(measuring.wait().expect("it ends").signal(), Some(2), "a shell makes 130 of it");
    eventually("its workers have ended", || workers.iter().all(|pid| gone(pid)));

    let mut measuring = start("lat --transport mio --size 8 --iters 10 --against udp");
    eventually("the peer runs", || started.exists());
    let peer = std::fs::read_to_string(&started).expect("its number");
    assert!(!gone(peer.trim()));
    measuring.kill().expect("it runs");
    measuring.wait().expect("it ends");
    eventually("the peer has ended", || gone(peer.trim()));
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
