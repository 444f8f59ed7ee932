//! A local cluster of its own for a test, in a temporary directory.

use crate::command::{Finished, Started, run};
use crate::processes::{Process, control_groups, of_cluster};
use crate::programs::{Mpi, ghidrah, mpi_program};
use crate::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One cluster at a time in a test program: the tests measure times, and MPI ranks spin.
static TURN: Mutex<()> = Mutex::new(());

/// How the cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes.
    pub nodes: u32,
    /// Cores of each.
    pub cores: u32,
    /// Environment of the hardcore, and of all that it starts.
    pub env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options { nodes: 6, cores: 2, env: Vec::new() }
    }
}

/// What a manager says of itself in `status --json`.
#[derive(Clone, Debug)]
pub struct Manager {
    /// Its node.
    pub node: u32,
    /// `primary`, `backup` or `spare`; empty if it does not answer.
    pub role: String,
    /// Whether it answers and works normally, that is, changes no view.
    pub normal: bool,
    /// Its process.
    pub pid: u32,
    /// The view that it works in.
    pub view: u64,
    /// The last batch of operations that it has executed.
    pub executed: u64,
    /// The last batch that is part of a stable checkpoint.
    pub stable: u64,
}

impl Manager {
    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        Process { pid: self.pid, command: String::new(), node: Some(self.node) }.signal(signal);
    }
}

/// The answer of `status --json`.
#[derive(Clone, Debug)]
pub struct Status {
    /// The view on which the managers agree.
    pub view: Option<u64>,
    /// The node of its primary.
    pub primary: Option<u32>,
    /// All managers of the group.
    pub managers: Vec<Manager>,
}

impl Status {
    /// The manager on `node`.
    ///
    /// # Panics
    /// If there is none.
    pub fn manager(&self, node: u32) -> &Manager {
        self.managers.iter().find(|m| m.node == node).expect("the node is one of the managers'")
    }

    /// The primary.
    ///
    /// # Panics
    /// If the managers do not agree on one.
    pub fn primary(&self) -> &Manager {
        self.manager(self.primary.unwrap_or_else(|| panic!("no primary: {self:?}")))
    }

    /// The first manager that has the role `role`.
    ///
    /// # Panics
    /// If there is none.
    pub fn first(&self, role: &str) -> &Manager {
        let found = self.managers.iter().find(|m| m.role == role);
        found.unwrap_or_else(|| panic!("no {role}: {self:?}"))
    }
}

/// A running cluster. Everything of it is ended when this is dropped, whatever happened; the end of a good
/// test is [`Cluster::down`], which also proves that nothing is left.
pub struct Cluster {
    dir: Option<TempDir>,
    root: PathBuf,
    group: String,
    env: Vec<(String, String)>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Six nodes with two cores each.
    ///
    /// # Panics
    /// If they do not come up.
    #[track_caller]
    pub fn start() -> Cluster {
        Cluster::start_with(Options::default())
    }

    /// A cluster of the caller's choice.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start_with(options: Options) -> Cluster {
        let mut cluster = Cluster::prepare(options.env);
        let (nodes, cores) = (options.nodes.to_string(), options.cores.to_string());
        cluster.cli(["up", "--nodes", &nodes, "--cores", &cores]).succeeded();
        cluster.group = group_name(&cluster.root);
        cluster
    }

    /// A place for a cluster that is not there yet.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn prepare(env: Vec<(String, String)>) -> Cluster {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("ghidrah-test-").tempdir().expect("a temporary directory");
        let root = dir.path().join("cluster");
        Cluster { dir: Some(dir), root, group: String::new(), env, _turn: turn }
    }

    /// The cluster's directory.
    pub fn dir(&self) -> &Path {
        &self.root
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.root.parent().expect("the cluster's directory is in ours")
    }

    /// `ghidrah --dir DIR ARGS…`, ready to be started in the scratch directory.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(ghidrah());
        command.arg("--dir").arg(&self.root).args(args).current_dir(self.scratch());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs `ghidrah --dir DIR ARGS…`, for a minute at most.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn cli(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
        run(self.command(args))
    }

    /// Starts `ghidrah --dir DIR ARGS…`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Started {
        Started::new(self.command(args))
    }

    /// Starts pi of tests/programs on four ranks on four nodes, with these options, for so many seconds;
    /// returns when it computes.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn compute_pi(&self, options: &[&str], seconds: u32) -> Started {
        let program = mpi_program("pi", Mpi::Mpich5);
        let (program, seconds) = (program.to_str().expect("UTF-8"), seconds.to_string());
        let mut args = vec!["run", "-n", "4", "--per-node", "1"];
        args.extend(options);
        args.extend([program, &seconds]);
        let mut pi = self.spawn(args);
        pi.wait_for_output("pi = ", Duration::from_secs(30));
        pi
    }

    /// The answer of a query, with `--json`.
    ///
    /// # Panics
    /// If it fails or is no JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.cli(args.iter().copied().chain(["--json"])).succeeded().stdout;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e} in {text}"))
    }

    /// `status`, or nothing if the managers cannot be asked now.
    pub fn try_status(&self) -> Option<Status> {
        let answer = self.cli(["status", "--json"]);
        let answer: Value = serde_json::from_str(&answer.stdout).ok().filter(|_| answer.code == 0)?;
        let managers = answer["managers"].as_array()?.iter().map(|pair| {
            let said = &pair[1];
            Manager {
                node: number(&pair[0]) as u32,
                role: said["role"].as_str().unwrap_or_default().to_owned(),
                normal: said["normal"] == true,
                pid: said["pid"].as_u64().unwrap_or_default() as u32,
                view: said["view"].as_u64().unwrap_or_default(),
                executed: said["executed"].as_u64().unwrap_or_default(),
                stable: said["stable"].as_u64().unwrap_or_default(),
            }
        });
        Some(Status {
            view: answer["view"].as_u64(),
            primary: answer["primary"].as_u64().map(|n| n as u32),
            managers: managers.collect(),
        })
    }

    /// `status`.
    ///
    /// # Panics
    /// If the managers do not answer.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_status().expect("the managers answer")
    }

    /// `job ID`.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn job(&self, id: u64) -> Value {
        self.json(&["job", &id.to_string()])
    }

    /// Waits until a job has ended, and shows it.
    ///
    /// # Panics
    /// If it has not within `patience`.
    #[track_caller]
    pub fn wait_for_job(&self, id: u64, patience: Duration) -> Value {
        crate::wait_for(&format!("the end of job {id}"), patience, || {
            let job = self.job(id);
            matches!(job["state"].as_str(), Some("done" | "failed" | "cancelled")).then_some(job)
        })
    }

    /// `submit ARGS…`: the job's number and how long it took until that was known.
    ///
    /// # Panics
    /// If it is not accepted.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> (u64, Duration) {
        let args = ["submit", "--json"].iter().chain(args);
        let submitted = self.cli(args).succeeded();
        let answer: Value = serde_json::from_str(&submitted.stdout).expect("JSON");
        (number(&answer["job"]), submitted.elapsed)
    }

    /// `nodes`: the entry of one node.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn node(&self, node: u32) -> Value {
        let nodes = self.json(&["nodes"]);
        let found = nodes.as_array().and_then(|all| all.iter().find(|n| n["node"] == node));
        found.unwrap_or_else(|| panic!("no node {node} in {nodes}")).clone()
    }

    /// `events`: kinds and texts.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn events(&self) -> Vec<(String, String)> {
        let lines = self.cli(["events", "--json"]).succeeded().stdout;
        let events = lines.lines().map(|l| serde_json::from_str::<Value>(l).expect("one JSON object a line"));
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        events.map(|e| (text(&e["kind"]), text(&e["text"]))).collect()
    }

    /// How many events of a kind there were.
    ///
    /// # Panics
    /// If they cannot be asked for.
    #[track_caller]
    pub fn count_events(&self, kind: &str) -> usize {
        self.events().iter().filter(|(k, _)| k == kind).count()
    }

    /// All of the cluster's processes.
    pub fn processes(&self) -> Vec<Process> {
        of_cluster(&self.group, &self.root)
    }

    /// What a node's `agent` or `manager` has logged.
    ///
    /// # Panics
    /// If it has not logged anything.
    pub fn log(&self, node: u32, daemon: &str) -> String {
        let path = self.root.join(format!("nodes/node{node}/{daemon}.log"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The hardcore's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn hardcore(&self) -> Process {
        let found = self.processes().into_iter().find(|p| p.command.contains("ghidrah-hardcore"));
        found.expect("the hardcore runs")
    }

    /// Ends every process of a node with SIGKILL, as a loss of power would; returns how many there were.
    pub fn kill_node(&self, node: u32) -> usize {
        let victims: Vec<Process> = self.processes().into_iter().filter(|p| p.node == Some(node)).collect();
        victims.iter().for_each(|p| p.signal(Signal::KILL));
        victims.len()
    }

    /// Waits until a node is up again after `resets` resets.
    ///
    /// # Panics
    /// If it is not within half a minute.
    #[track_caller]
    pub fn wait_for_rejoin(&self, node: u32, resets: u64) {
        wait_until(&format!("node {node} rejoins"), Duration::from_secs(30), || {
            let seen = self.node(node);
            seen["state"] == "up" && seen["resets"] == resets
        });
    }

    /// Stops the cluster and removes its directory, and proves that nothing of it is left.
    ///
    /// # Panics
    /// If something is.
    #[track_caller]
    pub fn down(self) {
        self.cli(["down", "--purge"]).succeeded();
        assert!(!self.root.exists(), "{} is left", self.root.display());
        self.assert_nothing_left();
    }

    /// Proves that nothing of the cluster runs, and that it has no control groups.
    ///
    /// # Panics
    /// If something is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), [], "processes that are left");
        assert_eq!(control_groups(&self.group), [] as [PathBuf; 0], "control groups that are left");
    }

    /// Takes note of the cluster's name, if the test has started it by itself.
    ///
    /// # Panics
    /// If there is no configuration.
    pub fn started(&mut self) {
        self.group = group_name(&self.root);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.group.is_empty() && self.root.join("cluster.toml").exists() {
            // It did not come up, or the test has made its files by itself.
            self.group = std::fs::read_to_string(self.root.join("cluster.toml"))
                .map(|text| group_of(&text))
                .unwrap_or_default();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        if !self.group.is_empty() && !self.processes().is_empty() {
            let _ = self.command(["down"]).output();
            while !self.processes().is_empty() && Instant::now() < deadline {
                self.processes().iter().for_each(|p| p.signal(Signal::KILL));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("the cluster's logs are kept in {}", dir.keep().display());
        }
    }
}

/// The name of the cluster's process groups: its name and id.
fn group_name(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join("cluster.toml")).expect("the cluster has a configuration");
    group_of(&text)
}

fn group_of(config: &str) -> String {
    let value = |key: &str| {
        let found = config.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_prefix('='));
        found.unwrap_or_default().trim().trim_matches('"').to_owned()
    };
    format!("{}-{}", value("name"), value("id"))
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
