//! The command line `ghidrah`: what users and administrators type.

pub mod args;
mod demo;
pub mod keys;
pub mod perf;
mod query;
pub mod render;
mod run;
pub mod stat;
pub mod transport;
mod updown;

use crate::layout::Layout;
use crate::user::{Unanswered, User};
use args::{Cli, Command};
use clap::Parser;
use cmm_core::api::{Op, Refusal, Reply};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How long a command waits for an answer. Longer than a view change, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a command failed: a sentence for standard error, with the next step, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code, not 0.
    pub code: u8,
    /// The sentence; empty if everything has been said.
    pub text: String,
}

impl Failure {
    /// The command line is wrong: the code is that of what the parser of the command line refuses.
    fn usage(text: impl Into<String>) -> Failure {
        Failure { code: 2, text: text.into() }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure { code: 1, text }
    }
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Failure {
        error.to_string().into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        refusal.to_string().into()
    }
}

/// What a command comes to.
pub type Outcome = Result<(), Failure>;

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    end_when_nobody_reads();
    let cli = Cli::parse();
    let level = ["warn", "info", "debug"][usize::from(cli.verbose.min(2))];
    // Faults that are measured are in the report; a worker need not warn of them as well.
    let level = if matches!(&cli.command, Command::Perf(args) if args.is_worker()) {
        &format!("{level},cl::inject=error")
    } else {
        level
    };
    let filter = EnvFilter::try_from_env("GHIDRAH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let layout = Layout::new(absolute(cli.dir.unwrap_or_else(Layout::default_root)));
    let outcome = match cli.command {
        Command::Demo(args) => demo::demo(layout, &args),
        Command::Up(args) => updown::up(&layout, &args),
        Command::Down(args) => updown::down(&layout, &args),
        Command::Run(args) => run::run(&layout, args),
        Command::Submit(args) => run::submit(&layout, args),
        Command::Queue(args) => query::queue(&layout, &args),
        Command::Job(args) => query::job(&layout, &args),
        Command::Cancel(args) => query::cancel(&layout, &args),
        Command::Nodes(args) => query::nodes(&layout, &args),
        Command::Status(args) => query::status(&layout, &args),
        Command::Events(args) => query::events(&layout, &args),
        Command::Stat(args) => stat::stat(&args, cli.verbose > 0),
        Command::Keys(args) => keys::keys(&layout, &args),
        Command::Perf(args) => perf::perf(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("ghidrah: {}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// A reader that went away (`ghidrah queue | head`) ends us as it ends other programs; that the answer cannot
/// be written for another reason is an error and no panic. `println!` tells us of neither but by a panic.
fn end_when_nobody_reads() {
    let panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        match info.payload_as_str().and_then(|text| text.strip_prefix("failed printing to stdout: ")) {
            Some(error) if error.starts_with("Broken pipe") => std::process::exit(128 + 13), // SIGPIPE
            Some(error) => {
                eprintln!("ghidrah: cannot write the answer: {error}; send it elsewhere or free space");
                std::process::exit(74);
            }
            None => panic(info),
        }
    }));
}

/// Asks the group, and turns a refusal into a failure.
fn ask(user: &User, op: Op) -> Result<Reply, Failure> {
    Ok(user.ask(op, PATIENCE)??)
}

fn absolute(path: std::path::PathBuf) -> std::path::PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
