//! What a user does wrong is said clearly, with the next step, and leaves nothing running.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use system_tests::{Cluster, Options};

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let place = Cluster::prepare(Vec::new());
    place.cli(["frobnicate"]).ended_with(2).failed_saying(&["frobnicate", "--help"]);
    place.cli(["run"]).ended_with(2).failed_saying(&["PROGRAM", "--help"]);
    place.cli(["job", "seven"]).ended_with(2).failed_saying(&["seven", "--help"]);
    place.cli([] as [&str; 0]).ended_with(2).failed_saying(&["Usage"]);
    assert!(!place.dir().exists());
}

#[test]
fn without_a_cluster_every_command_says_how_to_start_one() {
    let place = Cluster::prepare(Vec::new());
    for command in [
        &["run", "/bin/true"][..],
        &["submit", "/bin/true"],
        &["queue"],
        &["job", "1"],
        &["cancel", "1"],
        &["nodes"],
        &["status"],
        &["events"],
        &["down"],
    ] {
        place.cli(command).failed_saying(&["cluster.toml", "ghidrah up"]);
    }
    place.cli(["up", "--nodes", "3"]).failed_saying(&["3 nodes", "4 to 200"]);
    place.cli(["up", "--cores", "0"]).failed_saying(&["cores = 0", "must be"]);
    place.cli(["up", "--name", "two words"]).failed_saying(&["two words", "must be"]);
    fs::create_dir(place.dir()).unwrap();
    fs::write(place.dir().join("precious"), "data").unwrap();
    place.cli(["up"]).failed_saying(&["no cluster's directory", "--dir"]);
    assert_eq!(fs::read(place.dir().join("precious")).unwrap(), b"data");
}

#[test]
fn a_cluster_that_is_down_says_how_to_start_it() {
    let cluster = Cluster::start();
    cluster.cli(["down"]).succeeded();
    cluster.cli(["nodes"]).failed_saying(&["no node of the cluster", "ghidrah up"]);
    cluster.cli(["run", "/bin/true"]).failed_saying(&["no node of the cluster", "ghidrah up"]);
    cluster.cli(["down"]).failed_saying(&["no cluster runs", "ghidrah up"]);
    cluster.assert_nothing_left();
}

#[test]
fn a_second_up_is_refused_and_the_first_runs_on() {
    let cluster = Cluster::start();
    cluster.cli(["up"]).failed_saying(&["runs already", "ghidrah status", "ghidrah down"]);
    cluster.cli(["run", "-n", "6", "/bin/true"]).succeeded();
    cluster.down();
}

#[test]
fn programs_that_cannot_run_are_told_apart() {
    let cluster = Cluster::start();
    let file = |name: &str, text: &str, mode| {
        let path = cluster.scratch().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("data", "data", 0o644);
    file("script", "#!/no/such/interpreter\n", 0o755);
    file("foreign", "MZ\0\x01", 0o755);
    let run = |program: &str| cluster.cli(["run", program]);
    run("./none").ended_with(127).failed_saying(&["none: no such file", "check the path"]);
    run("no-such-program").ended_with(127).failed_saying(&["not found in PATH", "give its path"]);
    run("./data").ended_with(126).failed_saying(&["data: not an executable file", "chmod +x"]);
    run("./script").ended_with(126).failed_saying(&["interpreter is missing", "install"]);
    run("./foreign").ended_with(126).failed_saying(&["exec format error", "build it"]);
    cluster.cli(["run", "--cwd", "/nowhere", "true"]).failed_saying(&["/nowhere", "--cwd"]);
    cluster.cli(["run", "--env", "NAME", "true"]).failed_saying(&["NAME=VALUE"]);
    assert!(cluster.processes().iter().all(|p| p.command.contains("ghidrah")), "{:?}", cluster.processes());
    cluster.down();
}

#[test]
fn more_ranks_than_cores_and_jobs_that_are_not_there_are_refused() {
    let cluster = Cluster::start_with(Options { nodes: 4, ..Options::default() });
    cluster.cli(["run", "-n", "9", "true"]).failed_saying(&["9 ranks", "8 cores", "fewer ranks"]);
    let args = ["run", "-n", "5", "--per-node", "1", "true"];
    cluster.cli(args).failed_saying(&["5 ranks", "1 to a node", "4 nodes", "fewer ranks"]);
    cluster.cli(["run", "-n", "0", "true"]).failed_saying(&["at least 1 rank"]);
    cluster.cli(["job", "999"]).failed_saying(&["no job 999", "ghidrah queue --all"]);
    cluster.cli(["cancel", "999"]).failed_saying(&["no job 999", "ghidrah queue --all"]);
    assert_eq!(cluster.json(&["queue", "--all"]), serde_json::json!([]));
    cluster.down();
}

/// A stopped cluster, one of whose files has been changed, says so when it is to go up, and nothing runs.
fn refuses_to_start(file: &str, change: impl Fn(&Path), words: &[&str]) {
    let cluster = Cluster::start();
    cluster.cli(["down"]).succeeded();
    let path = cluster.dir().join(file);
    change(&path);
    let refused = cluster.cli(["up", "--wait", "10"]).failed_saying(words);
    assert!(refused.elapsed < Duration::from_secs(10), "{refused:#?}");
    cluster.assert_nothing_left();
    // A running cluster's users hear it as well.
    cluster.cli(["nodes"]).failed_saying(words);
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_malformed_configuration_is_refused_with_the_place() {
    refuses_to_start(
        "cluster.toml",
        |path| replace(path, "heartbeat_ms = 100", "heartbeat_ms = often"),
        &["cluster.toml", "malformed", "heartbeat_ms"],
    );
}

#[test]
fn a_configuration_with_a_wrong_value_is_refused_with_its_name() {
    refuses_to_start(
        "cluster.toml",
        |path| replace(path, "f = 1", "f = 2"),
        &["cluster.toml", "f = 2", "f = 1"],
    );
}

#[test]
fn a_malformed_roster_is_refused_with_the_place() {
    refuses_to_start("keys/roster.toml", |path| replace(path, "key = \"", "key = \"x"), &["roster.toml"]);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    refuses_to_start(
        "keys/user-0.key",
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap(),
        &["user-0.key", "chmod 0600"],
    );
}

#[test]
fn a_full_device_for_a_jobs_output_ends_the_job_with_the_reason() {
    let cluster = Cluster::start();
    let script = "echo words; exec sleep 60";
    let (job, _) = cluster.submit(&["-o", "/dev/full", "-n", "2", "/bin/sh", "-c", script]);
    output_is_lost(&cluster, job, "/dev/full");
    cluster.down();
}

#[test]
fn a_disk_that_fills_up_under_a_job_ends_it_with_the_reason() {
    let cluster = Cluster::start();
    let Some(disk) = SmallDisk::mount(&cluster.scratch().join("disk")) else {
        eprintln!("NOT TESTED: only root can mount a small disk; /dev/full is tested instead");
        return cluster.down();
    };
    let file = disk.0.join("out.txt");
    let script = "while echo some words to fill the disk; do :; done; exec sleep 60";
    let (job, _) = cluster.submit(&["-o", file.to_str().unwrap(), "-n", "4", "/bin/sh", "-c", script]);
    output_is_lost(&cluster, job, "out.txt");
    assert!(fs::metadata(&file).unwrap().len() > 0, "what fitted was written");
    drop(disk);
    cluster.down();
}

fn output_is_lost(cluster: &Cluster, job: u64, file: &str) {
    let ended = cluster.wait_for_job(job, Duration::from_secs(20));
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_ne!(ended["exit_code"], 0, "{ended}");
    let reason = ended["reason"].as_str().unwrap();
    for word in [file, "No space left on device", "--output"] {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
    let left: Vec<_> = cluster.processes().into_iter().filter(|p| !p.command.contains("ghidrah")).collect();
    assert_eq!(left, [], "the job's processes are gone");
    // The cluster has not suffered.
    cluster.cli(["run", "-n", "6", "/bin/true"]).succeeded();
}

/// A file system of 256 KiB, for as long as this lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "ghidrah-test"]).arg(at);
        mount.output().is_ok_and(|o| o.status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

/// A stopped cluster in which something is spoilt: `up` says what, and leaves nothing running.
fn does_not_come_up(spoil: impl Fn(&Path), words: &[&str]) {
    let cluster = Cluster::start();
    cluster.cli(["down"]).succeeded();
    spoil(cluster.dir());
    cluster.cli(["up", "--wait", "3"]).failed_saying(words);
    cluster.assert_nothing_left();
}

#[test]
fn a_key_that_others_can_read_is_refused_at_once() {
    let open = |dir: &Path| {
        fs::set_permissions(dir.join("keys/agent-node6.key"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    does_not_come_up(open, &["agent-node6.key", "chmod 0600"]);
}

#[test]
fn a_hardcore_that_cannot_start_says_why() {
    let without_address = |dir: &Path| {
        let path = dir.join("keys/roster.toml");
        let roster = fs::read_to_string(&path).unwrap();
        let rest: Vec<&str> = roster.lines().filter(|l| !l.contains(":7100")).collect();
        assert_eq!(rest.len() + 1, roster.lines().count());
        fs::write(path, rest.join("\n")).unwrap();
    };
    does_not_come_up(without_address, &["hardcore ended at once", "gives hardcore no address"]);
}

#[test]
fn an_agent_that_cannot_start_is_missed() {
    let damaged = |dir: &Path| fs::write(dir.join("nodes/node6/bootstrap"), "not a journal").unwrap();
    does_not_come_up(damaged, &["only 5 of 6 nodes", "agent.log"]);
}
