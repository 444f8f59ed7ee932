//! Real processes: what they inherit, how they end, and that nothing of them is left.

use super::*;
use cmm_core::api::{Attempt, ExitStatus, JobId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod mpi;

const ATTEMPT: Attempt = Attempt { job: JobId(1), number: 0 };

/// A cluster that no other test has.
fn cluster() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("test{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn job_group() -> Group {
    Group::job(&cluster(), "n1", ATTEMPT)
}

/// Removes the group's control group and those above it.
fn discard(group: &Group) {
    let (_, marker) = group.environment().next().unwrap();
    let (cluster, node) = marker.split_once(':').unwrap();
    group.remove().unwrap();
    Group::node(cluster, node).remove().unwrap();
}

/// `argv` in `/` with a plain environment and the group's marks.
fn command(group: &Group, argv: &[&str]) -> RankCommand {
    let mut env: std::collections::BTreeMap<_, _> = group.environment().collect();
    env.insert("PATH".into(), "/usr/bin:/bin".into());
    let argv = argv.iter().map(|a| (*a).to_owned()).collect();
    RankCommand { argv, cwd: "/".into(), env, cpus: Vec::new() }
}

/// Waits for the end of a rank by its descriptor.
fn wait(rank: &mut RankProcess) -> ExitStatus {
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&rank.exit, PollFlags::IN)], Some(&timeout)), Ok(1), "it goes on");
    rank.try_wait().unwrap().expect("its descriptor said that it has ended")
}

/// All that a rank wrote, once it has ended and left no child with its output.
fn output(rank: &mut RankProcess) -> (String, String) {
    let mut texts = [String::new(), String::new()];
    rank.stdout.read_to_string(&mut texts[0]).unwrap();
    rank.stderr.read_to_string(&mut texts[1]).unwrap();
    texts.into()
}

fn run(group: &Group, argv: &[&str]) -> (ExitStatus, String, String) {
    let mut rank = command(group, argv).spawn(group).unwrap();
    let status = wait(&mut rank);
    let (stdout, stderr) = output(&mut rank);
    (status, stdout, stderr)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_rank_has_exactly_the_environment_it_was_given() {
    let group = job_group();
    let (status, stdout, _) = run(&group, &["env"]);
    assert_eq!(status, ExitStatus::Code(0));
    let names: BTreeSet<&str> = stdout.lines().map(|l| l.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["GHIDRAH_JOB", "GHIDRAH_NODE", "PATH", "PMI_FD"].into());
    for (name, value) in group.environment() {
        assert!(stdout.contains(&format!("{name}={value}\n")), "{stdout}");
    }
    discard(&group);
}

#[test]
fn a_rank_inherits_its_standard_streams_and_the_pmi_socket_and_nothing_else() {
    let group = job_group();
    let mut rank = command(&group, &["sleep", "1000"]).spawn(&group).unwrap();
    let environ = std::fs::read_to_string(format!("/proc/{}/environ", rank.pid())).unwrap();
    let pmi_fd = environ.split('\0').find_map(|v| v.strip_prefix("PMI_FD=")).unwrap();
    let mut open = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", rank.pid())).unwrap() {
        let path = entry.unwrap().path();
        let target = std::fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
        open.insert(format!(
            "{} {}",
            path.file_name().unwrap().to_str().unwrap(),
            target.split(':').next().unwrap()
        ));
    }
    let expected = ["0 /dev/null", "1 pipe", "2 pipe", &format!("{pmi_fd} socket")].map(str::to_owned);
    assert_eq!(open, expected.into());
    group.kill().unwrap();
    wait(&mut rank);
    discard(&group);
}

#[test]
fn the_pmi_socket_carries_both_ways_and_closes_with_the_rank() {
    let group = job_group();
    let script = "echo question >&$PMI_FD; read -u $PMI_FD answer; echo got $answer";
    let mut rank = command(&group, &["bash", "-c", script]).spawn(&group).unwrap();
    let mut question = Vec::new();
    until("the rank asks", || {
        let mut bytes = [0; 64];
        let count = rank.pmi.read(&mut bytes).unwrap_or(0);
        question.extend_from_slice(&bytes[..count]);
        question.ends_with(b"\n")
    });
    assert_eq!(question, b"question\n");
    rank.pmi.write_all(b"answer\n").unwrap();
    assert_eq!(wait(&mut rank), ExitStatus::Code(0));
    assert_eq!(output(&mut rank).0, "got answer\n");
    assert_eq!(rank.pmi.read(&mut [0; 1]).unwrap(), 0, "the other end is still open somewhere");
    discard(&group);
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let group = job_group();
    assert_eq!(run(&group, &["sh", "-c", "exit 3"]).0, ExitStatus::Code(3));
    assert_eq!(run(&group, &["sh", "-c", "kill -9 $$"]).0, ExitStatus::Signal(9));
    assert_eq!(run(&group, &["sh", "-c", "echo to err >&2; exit 0"]).2, "to err\n");
    discard(&group);
}

#[test]
fn what_cannot_be_started_is_explained() {
    use std::os::unix::fs::PermissionsExt;
    let group = job_group();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let error = |argv: &[&str], cwd: &str| {
        let error = RankCommand { cwd: cwd.into(), ..command(&group, argv) }.spawn(&group).unwrap_err();
        // What is wrong; the advice follows.
        let text = error.to_string().replace(dir.path().to_str().unwrap(), "DIR");
        text.split("; ").next().unwrap().to_owned()
    };
    let garbage = file("garbage", "MZ\0\x01");
    let script = file("script", "#!/no/such/interpreter\n");
    assert_eq!(error(&["none"], "/"), "none: not found in PATH (/usr/bin:/bin)");
    assert_eq!(
        error(&["true"], "/no/dir"),
        "working directory /no/dir: No such file or directory (os error 2)"
    );
    assert_eq!(error(&["true"], &garbage), "working directory DIR/garbage: not a directory");
    let format = "DIR/garbage: exec format error (neither a binary of this machine nor a script)";
    assert_eq!(error(&[&garbage], "/"), format);
    assert_eq!(error(&[&script], "/"), "DIR/script: its interpreter is missing");
    assert_eq!(error(&[], "/"), "no program given");
    assert!(error(&["true", "a\0b"], "/").starts_with("/usr/bin/true: "));
    discard(&group);
}

#[test]
fn a_rank_runs_on_the_cpus_it_was_given_and_the_agent_where_it_was() {
    let group = job_group();
    let ours = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1024).find(|c| ours.is_set(*c)).unwrap();
    let mut on_one = command(&group, &["grep", "Cpus_allowed_list", "/proc/self/status"]);
    on_one.cpus = vec![cpu];
    let mut rank = on_one.spawn(&group).unwrap();
    wait(&mut rank);
    assert_eq!(output(&mut rank).0, format!("Cpus_allowed_list:\t{cpu}\n"));
    let after = rustix::thread::sched_getaffinity(None).unwrap();
    assert!((0..1024).all(|c| after.is_set(c) == ours.is_set(c)));
    on_one.cpus = vec![1 << 20];
    assert_eq!(on_one.spawn(&group).unwrap_err().to_string(), "/usr/bin/grep: there is no CPU 1048576");
    discard(&group);
}

#[test]
fn a_signal_reaches_the_process_group_and_only_it() {
    let group = job_group();
    let mut rank = command(&group, &["sh", "-c", "sleep 1000 & sleep 1000"]).spawn(&group).unwrap();
    until("both sleep", || group.pids().len() == 3);
    rank.signal(Signal::TERM);
    assert_eq!(wait(&mut rank), ExitStatus::Signal(15));
    until("all have gone", || group.is_empty());
    rank.signal(Signal::TERM); // Reaped: nobody is hit.
    discard(&group);
}

/// Starts a rank whose descendants leave its process group and session and lose their parents, with and
/// without clean environments, and kills the job.
fn escaped_children_die(group: Group, members: usize, script: &str) {
    let mut rank = command(&group, &["sh", "-c", script]).spawn(&group).unwrap();
    until("all have escaped", || group.pids().len() == members);
    let escaped: Vec<u32> = group.pids().into_iter().collect();
    group.kill().unwrap();
    assert_eq!(wait(&mut rank), ExitStatus::Signal(9));
    for pid in escaped {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "process {pid} survived: {stat}");
    }
    discard(&group);
}

const DOUBLE_FORK: &str = "(setsid sh -c 'sleep 1001 & sleep 1002 & exec sleep 1003' &) ; exec sleep 1004";

#[test]
fn daemons_of_a_killed_job_die_found_by_their_environment() {
    escaped_children_die(job_group(), 4, DOUBLE_FORK);
}

#[test]
fn daemons_of_a_killed_node_die_in_its_control_group_even_with_an_empty_environment() {
    let group = Group::node("test-launch", "escaped");
    if !group.has_cgroup() {
        return eprintln!("skipped: no cgroup v2 to write to");
    }
    let in_time = "sleep 0.2; (setsid env -i sleep 1001 &) ; exec sleep 1002";
    escaped_children_die(group, 2, in_time);
}

#[test]
fn a_program_that_forks_without_end_dies() {
    let group = job_group();
    let script = "while :; do setsid sleep 1000 & sleep 0.01; done";
    let mut rank = command(&group, &["sh", "-c", script]).spawn(&group).unwrap();
    until("it has many children", || group.pids().len() > 20);
    group.kill().unwrap();
    assert_eq!(wait(&mut rank), ExitStatus::Signal(9));
    assert!(group.pids().is_empty());
    discard(&group);
}

#[test]
fn pulling_the_plug_of_one_node_spares_the_other() {
    let cluster = cluster();
    let nodes = ["n1", "n2"].map(|n| (Group::node(&cluster, n), Group::job(&cluster, n, ATTEMPT)));
    let mut ranks = nodes.each_ref().map(|(_, job)| command(job, &["sleep", "1000"]).spawn(job).unwrap());
    let mut daemon = command(&nodes[0].0, &["sleep", "1000"]).spawn(&nodes[0].0).unwrap();
    assert_eq!(nodes[0].0.pids().len(), 2, "a node has its jobs' processes and its own");

    group::kill_tree(&cluster, "n1").unwrap();
    assert_eq!(wait(&mut ranks[0]), ExitStatus::Signal(9));
    assert_eq!(wait(&mut daemon), ExitStatus::Signal(9));
    assert_eq!(ranks[1].try_wait().unwrap(), None);
    group::kill_tree(&cluster, "n2").unwrap();
    assert_eq!(wait(&mut ranks[1]), ExitStatus::Signal(9));
    group::kill_tree(&cluster, "n3").unwrap();
    for (node, _) in &nodes {
        node.remove().unwrap();
    }
}
