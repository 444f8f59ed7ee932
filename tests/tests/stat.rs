//! `ghidrah stat` as its users type it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use system_tests::{Cluster, Finished, Options, ghidrah, run, wait_for, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

fn stat(dir: &Path, words: &str) -> Finished {
    let mut command = Command::new(ghidrah());
    command.arg("stat").args(words.split_whitespace()).env("GHIDRAH_STAT_DIR", dir.join("stat"));
    run(command)
}

fn json(finished: Finished) -> serde_json::Value {
    serde_json::from_str(&finished.succeeded().stdout).expect("JSON")
}

/// Processes that exchange messages until this is dropped.
struct Busy(Child);

impl Busy {
    fn start(dir: &Path, more: &str) -> Busy {
        let mut command = Command::new(ghidrah());
        let words = format!("perf lat --transport mio --size 64 --repeat 1 --time 60 --park --layer {more}");
        command.args(words.split_whitespace());
        command
            .env("GHIDRAH_STAT_DIR", dir.join("stat"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Busy(command.spawn().expect("ghidrah starts"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn help_has_examples_and_nothing_is_told_as_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    stat(dir.path(), "--help").succeeded().saying(&["--watch", "ghidrah stat --pid 1234 --peers"]);
    stat(dir.path(), "").succeeded().saying(&["no endpoint of this user", "ghidrah up"]);
    stat(dir.path(), "--pid 1").failed_saying(&["process 1 shows no counters", "ghidrah stat"]);
    let none = stat(dir.path(), "--pid 4194999");
    assert_eq!(none.stdout, "", "one error, and nothing that contradicts it");
    none.failed_saying(&["there is no process 4194999", "ghidrah stat"]);
    stat(dir.path(), "--watch 0").failed_saying(&["not within 0.05 to 3600 seconds"]);
    assert_eq!(json(stat(dir.path(), "--json"))["endpoints"], serde_json::json!([]));
    let place = dir.path().join("stat");
    std::fs::DirBuilder::new().mode(0o755).create(&place).expect("a directory");
    stat(dir.path(), "").succeeded().saying(&["it is open to other users; chmod 700 it"]);
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700)).expect("a directory of ours");
    std::fs::write(place.join("12-0"), "garbage").expect("a file");
    stat(dir.path(), "").succeeded().saying(&["12-0: it is no page of counters"]);
}

#[test]
fn working_processes_show_what_they_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let busy = Busy::start(dir.path(), "cl");
    let sent = |e: &serde_json::Value| e["counters"]["cl"]["messages_sent"].as_u64().expect("a number");
    let endpoints = wait_for("two endpoints that send", PATIENCE, || {
        let listing = json(stat(dir.path(), "--json --peers"));
        let endpoints = listing["endpoints"].as_array().expect("a list").clone();
        (endpoints.len() == 2 && endpoints.iter().all(|e| sent(e) > 100)).then_some(endpoints)
    });
    let [one, other] = &endpoints[..] else { panic!("two were seen") };
    let peers: Vec<_> = one["peers"].as_array().expect("a list").iter().map(|p| &p["peer"]).collect();
    assert!(peers.contains(&&other["party"]), "{one:#}");
    let pid = one["pid"].to_string();
    let rates = json(stat(dir.path(), &format!("--json --rates --pid {pid}")));
    assert!(
        rates["endpoints"][0]["rates"]["cl"]["messages_sent"].as_f64().expect("a number") > 0.0,
        "{rates:#}"
    );
    stat(dir.path(), "").succeeded().saying(&["PID", "ghidrah", &pid, "mio"]);
    let all = stat(dir.path(), &format!("--pid {pid} --peers --explain"));
    all.succeeded().saying(&[
        "messages_received",
        "Messages handed to the caller.",
        "peers of",
        "BYTES SENT",
    ]);
    drop(busy);
    // Its workers end when they notice; what they leave is removed.
    let gone = || json(stat(dir.path(), "--json"))["endpoints"] == serde_json::json!([]);
    wait_until("the end of their pages", PATIENCE, gone);
}

#[test]
fn sessions_show_their_messages_and_what_they_refuse_by_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    let _busy = Busy::start(dir.path(), "mml --faults duplicate=20%");
    let number = |counters: &serde_json::Value, group: &str, name: &str| {
        counters[group][name].as_u64().unwrap_or_else(|| panic!("no {name}: {counters:#}"))
    };
    let endpoint = wait_for("an endpoint with messages and repeated frames", PATIENCE, || {
        let listing = json(stat(dir.path(), "--json --peers"));
        let endpoints = listing["endpoints"].as_array().expect("a list").clone();
        let of = |e: &serde_json::Value, group: &str, name: &str| e["counters"][group][name].as_u64();
        endpoints.into_iter().find(|e| {
            of(e, "mml", "messages_delivered") > Some(50) && of(e, "mml drops", "replayed") > Some(0)
        })
    });
    let peers = endpoint["peers"].as_array().expect("a list");
    let of_peers = || peers.iter().map(|p| &p["counters"]);
    let peer = of_peers().find(|c| c["mml"]["messages_delivered"] != 0).expect("a peer");
    assert!(number(peer, "mml", "frames_sent") > 50 && number(peer, "mml drops", "replayed") > 0, "{peer:#}");
    assert_eq!(number(peer, "mml drops", "bad_mac"), 0);
}

#[test]
fn reliable_connections_show_their_messages_by_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    let _busy = Busy::start(dir.path(), "rcl --faults duplicate=20%");
    let endpoint = wait_for("an endpoint with messages", PATIENCE, || {
        let listing = json(stat(dir.path(), "--json --peers"));
        let endpoints = listing["endpoints"].as_array().expect("a list").clone();
        let sent = |e: &serde_json::Value| e["counters"]["rcl"]["messages_sent"].as_u64().unwrap_or(0);
        endpoints.into_iter().find(|e| sent(e) > 100)
    });
    let peers = endpoint["peers"].as_array().expect("a list");
    let peer = peers.iter().map(|p| &p["counters"]["rcl"]).find(|p| p["messages_sent"] != 0).expect("a peer");
    let number = |name: &str| peer[name].as_u64().unwrap_or_else(|| panic!("no {name}: {peer:#}"));
    // Two that throw a ball of 64 bytes to and fro, and tell each other a little more.
    assert!(
        number("messages_sent") > 50 && number("bytes_sent") >= 64 * (number("messages_sent") - 10),
        "{peer:#}"
    );
    assert!(number("messages_received") > 50 && number("bytes_received") > 64 * 50, "{peer:#}");
    assert!(number("rtt_us") > 0 && number("window") > 0, "{peer:#}");
    number("waiting");
    // What arrived twice is counted of the peer.
    let pid = &endpoint["pid"];
    wait_until("a duplicate", PATIENCE, || {
        let listing = json(stat(dir.path(), &format!("--pid {pid} --peers --json")));
        let peers = listing["endpoints"][0]["peers"].as_array().expect("a list").clone();
        peers.iter().any(|p| p["counters"]["rcl drops"]["duplicates"].as_u64().is_some_and(|n| n > 0))
    });
    let text = stat(dir.path(), &format!("--pid {} --peers", endpoint["pid"]));
    text.succeeded().saying(&[
        "by rcl",
        "CREDIT STALLS",
        "SPURIOUS",
        "WAITING",
        "COPIES",
        "REASON",
        "duplicates",
    ]);
    // Rates are rates, of what was dropped as well.
    let rates = stat(dir.path(), &format!("--pid {pid} --rates")).succeeded();
    let rates = rates.saying(&["PER SECOND, OR NOW", "/s"]);
    assert!(!rates.stdout.contains("VALUE"), "{}", rates.stdout);
}

#[test]
fn daemons_show_what_their_event_loops_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let env =
        vec![("GHIDRAH_STAT_DIR".to_owned(), dir.path().join("stat").to_str().expect("UTF-8").to_owned())];
    let cluster = Cluster::start_with(Options { env, ..Options::default() });
    let cores = stat(dir.path(), "--cores --rates").succeeded();
    cores.saying(&["CORE", "ASLEEP", "MAILBOX", "ghidrah-manager", "ghidrah-agent", "/s"]);
    // They have heard of each other, and slept in between.
    let busy = |daemon: &serde_json::Value| {
        let of = &daemon["counters"]["runtime"];
        let names = ["messages", "parks", "parked_us", "handlers_us"];
        names.iter().all(|name| of[name].as_u64().is_some_and(|n| n > 0))
    };
    wait_until("six agents and four managers that work and sleep", PATIENCE, || {
        let listing = json(stat(dir.path(), "--json"));
        listing["endpoints"].as_array().expect("a list").iter().filter(|daemon| busy(daemon)).count() >= 10
    });
    cluster.down();
}
