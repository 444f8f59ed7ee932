//! Every workload for a moment, with real processes.

use ghidrah_perf::case::{Contents, Effort, Layer, Link, Pacing, Transport, Workload, default_window};
use ghidrah_perf::peers::{Peer, PeerError, Peers};
use ghidrah_perf::plan::{Metric, Plan, Subject};
use ghidrah_perf::report::{Report, Results};
use ghidrah_perf::run::{Launcher, Place};
use ghidrah_perf::{Case, Figures, worker};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

/// Round trips in a test.
const TRIPS: u64 = 60;
/// Windows of messages in a test. Those whose receiver is not run for a moment are taken for lost, one window each 20
/// ms; some must be left then.
const WINDOWS: u64 = 50;

/// By count, not by time: another process may have the processor for all of a short time.
fn case(workload: Workload, size: usize) -> Case {
    let window = default_window(size);
    let count = if workload == Workload::Lat { TRIPS } else { WINDOWS * u64::from(window) };
    Case {
        workload,
        layer: Layer::Cl,
        transport: Transport::Mio,
        link: Link::Host,
        size,
        window,
        pacing: Pacing::Spin,
        contents: Contents::Loaned,
        senders: 1,
        effort: Effort::Iterations(count),
        faults: None,
    }
}

fn place() -> Place {
    Place::here(Launcher { program: env!("CARGO_BIN_EXE_ghidrah-perf-worker").into(), args: Vec::new() })
}

fn no_peers() -> Peers {
    Peers { built: PathBuf::from("/nonexistent") }
}

fn measure(cases: &[Case], place: &Place) -> serde_json::Value {
    let mut plan = Plan::new(2);
    for case in cases {
        plan.add(Subject::Ours(*case));
    }
    let mut shown = 0;
    let report = plan.measure("a test", place, &no_peers(), |_| shown += 1);
    assert_eq!(report.errors(), Vec::<String>::new());
    assert_eq!(shown, 2 * cases.len(), "progress is told of every run");
    assert!(report.text().contains("median of 2"), "{}", report.text());
    assert_eq!(report.csv().lines().count(), 1 + 2 * cases.len());
    assert!(report.svg().expect("figures above zero").ends_with("</svg>\n"));
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["results"].as_array().map(Vec::len), Some(cases.len()));
    json
}

fn figure(json: &serde_json::Value, result: usize, name: &str) -> f64 {
    assert!(Figures::NAMES.contains(&name));
    let median = &json["results"][result]["median"];
    median[name].as_f64().unwrap_or_else(|| panic!("no {name} in {median}"))
}

#[test]
fn latency_of_every_kind() {
    let small = case(Workload::Lat, 8);
    let cases = [
        small,
        case(Workload::Lat, 0),
        Case { contents: Contents::Copied, ..case(Workload::Lat, 100_000) },
        Case { pacing: Pacing::Park, ..case(Workload::Lat, 64) },
        Case { effort: Effort::Time(Duration::from_millis(300)), ..small },
    ];
    let json = measure(&cases, &place());
    for i in 0..cases.len() {
        let percentiles =
            ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"].map(|name| figure(&json, i, name));
        assert!(percentiles[0] > 100.0 && percentiles.is_sorted(), "{i}: {percentiles:?}");
    }
    assert_eq!(json["results"][0]["who"], "cl mio");
    assert_eq!(json["results"][2]["case"]["size"], 100_000);
    assert!(json["results"][0]["via"].as_str().unwrap().contains("mio"));
    assert!(json["clock_cost_ns"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_layer_and_transport() {
    let mut cases = Vec::new();
    for layer in [Layer::Cl, Layer::Rcl] {
        for transport in [Transport::Udp, Transport::Mio, Transport::Shm] {
            if (layer, transport) == (Layer::Rcl, Transport::Shm) {
                continue; // below
            }
            cases.push(Case { layer, transport, ..case(Workload::Lat, 64) });
            cases.push(Case { layer, transport, ..case(Workload::Rate, 64) });
            cases.push(Case { layer, transport, contents: Contents::Copied, ..case(Workload::Bw, 64 << 10) });
        }
    }
    let json = measure(&cases, &place());
    for (i, case) in cases.iter().enumerate() {
        let name = if case.workload == Workload::Lat { "p50_ns" } else { "rate" };
        assert!(figure(&json, i, name) > 0.0);
        let via = json["results"][i]["via"].as_str().expect("it says");
        assert_eq!(via.starts_with("shared memory"), case.transport == Transport::Shm, "{case:?}: {via}");
    }
}

#[test]
fn parties_of_every_layer_may_sleep_between_messages() {
    let cases: Vec<Case> = [Layer::Cl, Layer::Rcl]
        .into_iter()
        .flat_map(|layer| [Workload::Lat, Workload::Rate].map(|workload| (layer, workload)))
        .map(|(layer, workload)| Case { layer, pacing: Pacing::Park, ..case(workload, 64) })
        .collect();
    let json = measure(&cases, &place());
    for (i, case) in cases.iter().enumerate() {
        let name = if case.workload == Workload::Lat { "p50_ns" } else { "rate" };
        assert!(figure(&json, i, name) > 0.0);
    }
}

#[test]
fn shared_memory_is_claimed_only_where_it_carries_the_messages() {
    let case = Case { layer: Layer::Rcl, transport: Transport::Shm, ..case(Workload::Rate, 64) };
    match ghidrah_perf::run::measure(&case, &place()) {
        Ok(outcome) => assert!(outcome.via.starts_with("shared memory"), "{}", outcome.via),
        Err(why) => assert!(why.contains("did not go through shared memory"), "{why}"),
    }
}

/// Needs root and iproute2.
#[test]
fn between_namespaces() {
    let veth = Case { link: Link::Veth, ..case(Workload::Lat, 64) };
    let xdp = Case { transport: Transport::Xdp, ..veth };
    let json = measure(&[veth, xdp, Case { workload: Workload::Rate, ..xdp }], &place());
    assert!(figure(&json, 0, "p50_ns") > 0.0 && figure(&json, 1, "p50_ns") > 0.0);
    assert!(json["results"][1]["via"].as_str().unwrap().starts_with("xdp"), "{}", json["results"][1]["via"]);
}

#[test]
fn one_way() {
    let cases = [
        case(Workload::Rate, 64),
        case(Workload::Rate, 3),
        Case { contents: Contents::Copied, ..case(Workload::Bw, 64 << 10) },
        Case { pacing: Pacing::Park, ..case(Workload::Bw, 1 << 20) },
    ];
    let json = measure(&cases, &place());
    for (i, case) in cases.iter().enumerate() {
        let (rate, bandwidth) = (figure(&json, i, "rate"), figure(&json, i, "bandwidth"));
        assert!(rate > 0.0 && (bandwidth / rate - case.size as f64).abs() < 1e-3, "{i}: {rate} {bandwidth}");
        let loss = figure(&json, i, "loss");
        assert!((0.0..=1.0).contains(&loss), "{i}: {loss}");
    }
}

#[test]
fn injected_faults_are_in_every_report_and_the_run_goes_on() {
    let faults = Some("drop=0.05,seed=7,side=out".parse().expect("faults"));
    let cases = [
        Case { faults, ..case(Workload::Lat, 64) },
        // A datagram each, so that there are enough of them to lose some.
        Case { faults, ..case(Workload::Rate, 8 << 10) },
        Case { faults, layer: Layer::Rcl, ..case(Workload::Bw, 8 << 10) },
    ];
    let mut plan = Plan::new(1);
    for case in cases {
        plan.add(Subject::Ours(case));
    }
    let report = plan.measure("a test", &place(), &no_peers(), |_| {});
    assert_eq!(report.errors(), Vec::<String>::new());
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert!(figure(&json, 0, "loss") > 0.0 && figure(&json, 0, "p50_ns") > 0.0);
    assert!(figure(&json, 1, "loss") > 0.005, "{}", figure(&json, 1, "loss"));
    assert_eq!(figure(&json, 2, "loss"), 0.0, "rcl loses nothing");
    for (i, line) in report.csv().lines().skip(1).enumerate() {
        assert!(line.contains(",\"drop=0.05,seed=7,side=out\",1,"), "{line}");
        let result = &json["results"][i];
        assert_eq!(result["case"]["faults"], "drop=0.05,seed=7,side=out");
        let dropped = result["injected"]["dropped"].as_f64().expect("a number");
        assert!(dropped > 0.0 && dropped < result["injected"]["datagrams"].as_f64().unwrap(), "{result}");
        assert_eq!(figure(&json, i, "injected"), dropped, "nothing else was asked for");
    }
    let told = format!("injected, cl mio, drop=0.05,seed=7,side=out, 64: {}", report.results[0].injected);
    assert!(report.text().contains(&told), "{told}\n{}", report.text());
}

#[test]
fn percentiles_of_few_samples_are_marked() {
    let mut plan = Plan::new(1);
    let few = Case { effort: Effort::Iterations(300), ..case(Workload::Lat, 8) };
    plan.compare(Subject::Ours(few), Subject::Ours(few), Metric::P99, Some(1.0), None);
    let report = plan.measure("a test", &place(), &no_peers(), |_| {});
    assert_eq!(report.errors(), Vec::<String>::new());
    let result = &report.results[0];
    // Two thirds of the round trips are timed one by one.
    assert_eq!((result.median.samples, &result.doubtful[..]), (Some(200.0), &["p99_ns", "p999_ns"][..]));
    assert!(report.text().contains("1.00x?") && report.text().contains("? Fewer than 10 samples"));
    assert!(
        report.markdown().contains("**1.00x**?") && report.markdown().contains("? Fewer than 10 samples")
    );
    let enough = Report { results: vec![Results { doubtful: Vec::new(), ..result.clone() }], ..report };
    assert!(!enough.text().contains('?') && !enough.markdown().contains('?'), "{}", enough.text());
}

/// With the feature `ofi` it needs Debian's libfabric1.
#[test]
fn libfabric_is_a_transport_like_the_others_or_says_how_to_get_it() {
    let ofi = Case { transport: Transport::Ofi, ..case(Workload::Lat, 64) };
    if cfg!(feature = "ofi") {
        let json = measure(
            &[ofi, Case { layer: Layer::Rcl, transport: ofi.transport, ..case(Workload::Rate, 64) }],
            &place(),
        );
        assert!(figure(&json, 0, "p50_ns") > 0.0 && figure(&json, 1, "rate") > 0.0, "{json}");
        assert!(json["results"][0]["via"].as_str().unwrap().contains("ofi"), "{}", json["results"][0]["via"]);
    } else {
        let why = ghidrah_perf::run::measure(&ofi, &place()).expect_err("it is not built in");
        assert!(why.contains("--features ofi"), "{why}");
    }
}

#[test]
fn incast_tells_how_fair_it_was() {
    let json = measure(&[Case { senders: 5, ..case(Workload::Incast, 512) }], &place());
    let fairness = figure(&json, 0, "fairness");
    assert!(fairness > 0.0 && fairness <= 1.0, "{fairness}");
    assert!(figure(&json, 0, "bandwidth") > 0.0);
}

#[test]
fn the_receiver_may_be_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || worker::on_listener(&listener));
    let json = measure(&[case(Workload::Lat, 8)], &Place { remote: Some(addr), ..place() });
    assert!(figure(&json, 0, "p50_ns") > 0.0);
}

#[test]
fn nobody_listening_is_said_with_the_next_step() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
    let place = Place { remote: Some(free), ..place() };
    let why = ghidrah_perf::run::measure(&case(Workload::Lat, 8), &place).expect_err("nobody listens");
    assert!(why.contains("ghidrah perf --listen"), "{why}");
}

#[test]
fn what_cannot_be_measured_is_an_error_of_that_subject_only() {
    let mut plan = Plan::new(2);
    let good = case(Workload::Lat, 8);
    let parked_incast = Case { senders: 2, pacing: Pacing::Park, ..case(Workload::Incast, 8) };
    plan.compare(Subject::Ours(good), Subject::Ours(parked_incast), Metric::P50, Some(1.0), None);
    let report = plan.measure("a test", &place(), &no_peers(), |_| {});
    assert_eq!((report.results[0].runs.len(), report.results[1].runs.len()), (2, 0));
    assert!(report.errors()[0].contains("leave --park out"), "{:?}", report.errors());
    assert_eq!(report.comparisons[0].ratio, None);
    assert!(report.text().contains("not measured"), "{}", report.text());
    let document = "before\n<!-- comparison: written by `ghidrah perf table --into` -->\nold\n<!-- end of comparison -->\nafter\n";
    let document = report.insert_into(document).expect("it has the markers");
    assert!(
        document.starts_with("before\n") && document.ends_with("\nafter\n") && !document.contains("\nold\n")
    );
    assert!(report.insert_into("no markers").is_err());
}

#[test]
fn a_missing_peer_is_named_with_what_installs_it() {
    let udp = no_peers().check(Peer::Udp, &case(Workload::Lat, 8)).expect_err("it is not there");
    assert!(udp.to_string().contains("benches/peers/setup"), "{udp}");
    let shm = no_peers().check(Peer::Iceoryx2, &case(Workload::Lat, 8)).expect_err("no shared memory");
    assert!(matches!(shm, PeerError::Incomparable { .. }), "{shm}");
    let long =
        no_peers().check(Peer::Udp, &case(Workload::Lat, 64 << 10)).expect_err("no datagram is so long");
    assert!(long.to_string().contains("65507 are the most"), "{long}");
    let lossy = Case { faults: "drop=1%".parse().ok(), ..case(Workload::Lat, 8) };
    let faults = no_peers().check(Peer::Ucx, &lossy).expect_err("nothing happens to its messages");
    assert!(faults.to_string().contains("faults"), "{faults}");
}

#[cfg(unix)]
#[test]
fn a_peer_is_measured_in_the_same_rounds_and_compared() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("udp");
    let script = "#!/bin/sh\n[ \"$1\" = version ] && { echo 7.8; exit; }\necho p50_ns 1; echo p99_ns 1\n";
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
    let peers = Peers { built: dir.path().to_owned() };
    let mut plan = Plan::new(3);
    let ours = case(Workload::Lat, 8);
    plan.compare(Subject::Ours(ours), Subject::Peer(Peer::Udp, ours), Metric::P50, Some(1.1), Some(1.25));
    let report = plan.measure("a test", &place(), &peers, |_| {});
    assert_eq!(report.errors(), Vec::<String>::new());
    assert_eq!(report.versions, [("udp".to_owned(), "7.8".to_owned())]);
    let compared = &report.comparisons[0];
    assert_eq!(compared.ratio, report.results[0].median.p50_ns, "the peer's figure is 1");
    assert_eq!(compared.verdict, ghidrah_perf::report::Verdict::Missed);
    // A peer that fails says how.
    std::fs::write(&program, "#!/bin/sh\necho no route >&2; exit 3\n").expect("a script");
    let report = plan.measure("a test", &place(), &peers, |_| {});
    assert!(report.errors()[0].contains("no route"), "{:?}", report.errors());
}

#[test]
fn a_receiving_side_that_is_killed_is_noticed_while_the_sender_still_waits() {
    let mark = std::env::temp_dir().join(format!("ghidrah-perf-killed-{}", std::process::id()));
    let script =
        r#"if mkdir "$1"; then exec timeout --foreground -s KILL 1 "$2"; else exec "$2"; fi 2>/dev/null"#;
    let args = ["-c", script, "sh", mark.to_str().unwrap(), env!("CARGO_BIN_EXE_ghidrah-perf-worker")];
    let args = args.iter().map(Into::into).collect();
    let place = Place::here(Launcher { program: "/bin/sh".into(), args });
    let mut plan = Plan::new(1);
    plan.add(Subject::Ours(Case { effort: Effort::Time(Duration::from_secs(20)), ..case(Workload::Lat, 8) }));
    // The first to make the mark is killed: nearly always the receiving side, which is started first.
    let ended = |side: &str| format!("{side} side: it ended without an answer");
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let errors = plan.measure("a test", &place, &no_peers(), |_| {}).errors().join("; ");
        let _ = std::fs::remove_dir(&mark);
        assert!(start.elapsed() < Duration::from_secs(10), "noticed after {:?}", start.elapsed());
        if errors.contains(&ended("receiving")) {
            return;
        }
        assert!(errors.contains(&ended("sending")), "{errors}");
    }
    panic!("always the sending side was killed");
}
