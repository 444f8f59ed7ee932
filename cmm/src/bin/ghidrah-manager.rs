//! `ghidrah-manager`: see [`cmm::manager`].

use clap::Parser;
use cmm::daemon;
use cmm::manager::{self, ManagerOptions};
use cmm_core::identity::NodeId;
use std::path::PathBuf;
use std::process::ExitCode;

/// One replica of the cluster manager.
///
/// Started by the agent of its node.
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
    daemon::log_to_stderr("manager");
    daemon::keep_keys_out_of_dumps();
    let args = Args::parse();
    daemon::exit(manager::run(&ManagerOptions { dir: args.dir, node: NodeId(args.node) }))
}
