//! What the ranks write arrives complete and in order.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use system_tests::{Cluster, report};

const RANKS: usize = 4;
/// Lines of a rank, of 100 bytes: 20 MB in all.
const LINES: usize = 50_000;
const LINE_BYTES: usize = 100;

/// Options and program that make every rank write its lines, numbered.
fn writer() -> Vec<String> {
    let script = format!(
        r#"BEGIN {{ pad = sprintf("%080d", 0); for (i = 0; i < {LINES}; i++)
            printf "rank %d line %07d %s\n", ENVIRON["PMI_RANK"], i, substr(pad, 1, {LINE_BYTES} - 21) }}"#
    );
    ["-n", "4", "--per-node", "1", "awk", &script].map(str::to_owned).to_vec()
}

/// Proves that every line of every rank is there once, in the order in which the rank wrote it.
fn assert_complete(output: &str) {
    let mut next = [0; RANKS];
    for line in output.lines() {
        let mut words = line.split(' ');
        let numbers = (words.nth(1).and_then(|w| w.parse().ok()), words.nth(1).and_then(|w| w.parse().ok()));
        let (Some(rank), Some(number)): (Option<usize>, Option<usize>) = numbers else {
            panic!("a torn line: {line:?}");
        };
        assert_eq!(line.len(), LINE_BYTES - 1, "a torn line: {line:?}");
        assert_eq!(number, next[rank], "a line of rank {rank} is missing, doubled or misplaced");
        next[rank] += 1;
    }
    assert_eq!(next, [LINES; RANKS], "lines of each rank");
    assert_eq!(output.len(), RANKS * LINES * LINE_BYTES);
}

#[test]
fn twenty_megabytes_arrive_complete_and_each_rank_in_order() {
    let cluster = Cluster::start();
    let run = cluster.cli([vec!["run".to_owned()], writer()].concat()).succeeded();
    report(&format!("20 MB of output in {:.1} s", run.elapsed.as_secs_f64()));
    assert_complete(&run.stdout);
    cluster.down();
}

#[test]
fn a_slow_reader_slows_the_job_down_and_loses_nothing() {
    let cluster = Cluster::start();
    let mut command = cluster.command([vec!["run".to_owned()], writer()].concat());
    let mut run = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stream = run.stdout.take().unwrap();
    // Nothing is read at first: longer than any message is repeated for.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.job(1)["state"], "running", "the ranks wait for the reader");
    let (mut output, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let n @ 1.. = stream.read(&mut buffer).unwrap() {
        output.extend_from_slice(&buffer[..n]);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(run.wait().unwrap().success());
    assert_complete(&String::from_utf8(output).unwrap());
    cluster.down();
}

#[test]
fn a_submitted_jobs_file_is_complete() {
    let cluster = Cluster::start();
    let file = cluster.scratch().join("out-%j.txt");
    let mut args = vec!["-o", file.to_str().unwrap()];
    let writer = writer();
    args.extend(writer.iter().map(String::as_str));
    let (job, _) = cluster.submit(&args);
    let job = cluster.wait_for_job(job, Duration::from_secs(60));
    assert_eq!(job["state"], "done", "{job}");
    let written = cluster.scratch().join("out-1.txt");
    assert_eq!(job["output"].as_str().map(Path::new), Some(&*written));
    assert_complete(&std::fs::read_to_string(written).unwrap());
    cluster.down();
}

#[test]
fn standard_error_stays_apart_and_a_last_line_without_end_arrives() {
    let cluster = Cluster::start();
    let run = cluster.cli(["run", "/bin/sh", "-c", "echo out; echo err >&2; printf 'no end'"]).succeeded();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\nno end", "err\n"));
    cluster.down();
}

#[test]
fn a_reader_that_goes_away_ends_a_query_quietly() {
    let cluster = Cluster::start();
    for query in [&["nodes", "--json"][..], &["events"], &["queue", "--all", "--json"]] {
        let mut command = cluster.command(query);
        let mut query = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(query.stdout.take());
        let said = query.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(!said.contains("panicked"), "{said}");
    }
    cluster.down();
}
