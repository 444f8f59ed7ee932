//! `ghidrah-agent`: see [`cmm::agent`].

use clap::Parser;
use cmm::agent::{self, AgentOptions};
use cmm::daemon;
use cmm_core::identity::NodeId;
use std::path::PathBuf;
use std::process::ExitCode;

/// The agent of a node: joins it to the cluster, starts and controls the ranks of jobs there.
///
/// Started by the hardcore when the node is powered on.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The number of the node that this is.
    #[arg(long)]
    node: u32,
}

fn main() -> ExitCode {
    daemon::log_to_stderr("agent");
    daemon::keep_keys_out_of_dumps();
    let args = Args::parse();
    daemon::exit(agent::run(&AgentOptions { dir: args.dir, node: NodeId(args.node) }))
}
