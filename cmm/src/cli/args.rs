//! The command line of `ghidrah`.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs MPI jobs on a cluster whose manager is replicated and tolerates Byzantine faults.
#[derive(Debug, Parser)]
#[command(
    name = "ghidrah",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  ghidrah demo                          watch a cluster survive the death of its primary manager
  ghidrah up --nodes 6                  start a local cluster of six nodes
  ghidrah run -n 4 ./app                run an MPI program on four ranks, output here
  ghidrah submit -n 4 -o out.txt ./app  the same in the background
  ghidrah queue; ghidrah nodes; ghidrah status
  ghidrah down                          stop it

`ghidrah COMMAND --help` explains each. The cluster's directory is --dir, else $GHIDRAH_DIR, else
~/.local/state/ghidrah. Commands use the key of user-0, or that of the user whose number $GHIDRAH_USER is."
)]
pub struct Cli {
    /// The cluster's directory.
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Say on standard error what goes on underneath (repeat for more).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster, run an MPI job on it, kill the primary manager meanwhile, and show what happens.
    #[command(
        after_help = "Examples:\n  ghidrah demo\n  ghidrah demo --kill node --seconds 8\n  ghidrah demo --keep --dir /tmp/demo"
    )]
    Demo(DemoArgs),
    /// Start a local cluster: every node a process tree of its own.
    #[command(
        after_help = "Examples:\n  ghidrah up\n  ghidrah --dir /tmp/c up --nodes 8 --cores 4\n\nOn a directory that holds a cluster, it is started again with its jobs and queue."
    )]
    Up(UpArgs),
    /// Stop the local cluster and everything that runs on it.
    #[command(after_help = "Examples:\n  ghidrah down\n  ghidrah --dir /tmp/c down --purge")]
    Down(DownArgs),
    /// Run an MPI program and show its output here; the exit code is the job's.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Queue an MPI program; its output goes to a file.
    #[command(after_help = SUBMIT_HELP)]
    Submit(SubmitArgs),
    /// List jobs.
    #[command(after_help = "Examples:\n  ghidrah queue\n  ghidrah queue --all --json")]
    Queue(QueueArgs),
    /// Show one job.
    #[command(after_help = "Examples:\n  ghidrah job 7\n  ghidrah job 7 --wait && echo good")]
    Job(JobArgs),
    /// End jobs.
    #[command(after_help = "Example:\n  ghidrah cancel 7 8")]
    Cancel(CancelArgs),
    /// List nodes.
    #[command(after_help = "Example:\n  ghidrah nodes --json")]
    Nodes(JsonArgs),
    /// Show the managers: who is primary, in which view, who is silent.
    #[command(
        after_help = "Example:\n  ghidrah status\n\nEach line is that manager's own word; a silent one is shown as such."
    )]
    Status(JsonArgs),
    /// Show what happened in the cluster.
    #[command(after_help = "Examples:\n  ghidrah events --last 20\n  ghidrah events --follow --json")]
    Events(EventsArgs),
    /// Show the counters of running processes' endpoints, without disturbing them.
    #[command(after_help = super::stat::HELP)]
    Stat(super::stat::StatArgs),
    /// Show and change the keys by which the members of a cluster know each other.
    #[command(after_help = super::keys::HELP)]
    Keys(super::keys::KeysArgs),
    /// Measure the messaging layers: latency, bandwidth, message rate; beside other systems if asked.
    #[command(after_help = super::perf::HELP)]
    Perf(Box<super::perf::PerfArgs>),
}

const RUN_HELP: &str = "Examples:
  ghidrah run -n 4 ./pi 10                  four ranks on the first free cores
  ghidrah run -n 4 --per-node 1 ./pi 10     on four different nodes
  ghidrah run -n 2 python3 script.py        mpi4py; no mpiexec is needed
  ghidrah run -n 4 --requeue ./app          again from the start if a node dies
  ghidrah run -n 4 --transport rcl ./app    MPICH's messages travel by RCL

The ranks get this shell's environment (UTF-8 variables; with the arguments up to 48 KiB) and working
directory, and nothing on standard input. Ctrl-C cancels the job; so does a terminal that takes no output
for 20 s (Ctrl-Z).
Exit code: the program's; 128 plus the signal if it was killed by one; 130 if cancelled.";

const SUBMIT_HELP: &str = "Examples:
  ghidrah submit -n 4 ./app                 output to ghidrah-JOB.out in this directory
  ghidrah submit -n 4 -o /tmp/%j.txt ./app  %j is the job's number
  ghidrah submit -n 8 --requeue --name long ./app";

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Nodes to start.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(5..=32))]
    pub nodes: u32,
    /// How long the MPI job computes, seconds.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=600))]
    pub seconds: u32,
    /// Whom to kill while the job runs.
    #[arg(long, value_enum, default_value_t = Victim::Primary)]
    pub kill: Victim,
    /// Leave the cluster running afterwards.
    #[arg(long)]
    pub keep: bool,
    /// The MPI program to run instead of the built-in demonstration; it must take the number of seconds as
    /// its argument.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// Whom the demonstration kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    /// The primary manager's process.
    Primary,
    /// A backup manager's process.
    Backup,
    /// Every process of a node with a rank on it.
    Node,
}

/// `up`
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Nodes to start; at least 4 (three active managers and a spare).
    #[arg(long, default_value_t = 6)]
    pub nodes: u32,
    /// Cores that each node offers to jobs.
    #[arg(long, default_value_t = 2)]
    pub cores: u32,
    /// The cluster's name.
    #[arg(long, default_value = "local")]
    pub name: String,
    /// How long to wait until all nodes have joined, seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub wait: u64,
}

/// `down`
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Also forget the cluster: remove its directory.
    #[arg(long)]
    pub purge: bool,
}

/// What `run` and `submit` have in common.
#[derive(Debug, Args)]
pub struct JobOptions {
    /// How many ranks to start.
    #[arg(short = 'n', long = "ranks", default_value_t = 1, value_name = "N")]
    pub ranks: u32,
    /// At most this many ranks on one node.
    #[arg(long, value_name = "N")]
    pub per_node: Option<u32>,
    /// The job's name; by default the program's.
    #[arg(long)]
    pub name: Option<String>,
    /// Working directory of the ranks; by default this one.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Put the job back into the queue if a node dies under it, instead of failing it.
    #[arg(long)]
    pub requeue: bool,
    /// What carries the messages of an MPI job.
    #[arg(long, value_enum, default_value_t)]
    pub transport: super::transport::Transport,
    /// An environment variable for the ranks, besides this shell's (repeatable).
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub argv: Vec<String>,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Say on standard error when the job is queued, starts and ends.
    #[arg(long)]
    pub progress: bool,
    /// The job.
    #[command(flatten)]
    pub job: JobOptions,
}

/// `submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// File for the ranks' output; %j stands for the job's number.
    #[arg(short, long, default_value = "ghidrah-%j.out", value_name = "FILE")]
    pub output: PathBuf,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The job.
    #[command(flatten)]
    pub job: JobOptions,
}

/// `queue`
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Finished jobs too.
    #[arg(short, long)]
    pub all: bool,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `job`
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's number.
    pub job: u64,
    /// Wait until the job has ended; the exit code is then the job's.
    #[arg(long)]
    pub wait: bool,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The jobs' numbers.
    #[arg(required = true)]
    pub jobs: Vec<u64>,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands with nothing but `--json`.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as more happens, until Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N.
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}
