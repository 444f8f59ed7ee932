//! Explores the models from the command line.

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use replication_model::printed::Printed;
use replication_model::real::{Bounds, Real};
use replication_proto::{Mutation, VoteAuthentication};
use stateright::{Checker, HasDiscoveries, Model};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Explores every run of the replication protocol for f = 1 within bounds.
///
/// Exits with 0 if every run keeps the rules, with 1 and the shortest run that breaks one otherwise.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    model: Which,
    /// Stop after so many seconds
    #[arg(long, global = true, default_value_t = 3600)]
    seconds: u64,
}

const EXAMPLES: &str = "\
Examples:
  The code, each Byzantine member in turn:   replication-model real --views 3
  Asking the spares, too; no signed votes:   replication-model real --views 3 --wide --mode m
  A rule broken on purpose:                  replication-model real --mutation lowest-view
  The flaw of the printed protocol:          replication-model printed --byzantine 2";

#[derive(Subcommand)]
enum Which {
    /// The code of `replication`
    Real {
        /// The Byzantine member; each in turn without it
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..4))]
        byzantine: Option<u8>,
        /// Views
        #[arg(long, default_value_t = 3)]
        views: u64,
        /// Positions of the order
        #[arg(long, default_value_t = 1)]
        rsns: u64,
        /// Spares may be asked to vote
        #[arg(long)]
        wide: bool,
        /// S: votes are signed, M: the channel authenticates them
        #[arg(long, value_enum, default_value_t = Mode::S)]
        mode: Mode,
        /// Members may restart with their records, once each
        #[arg(long)]
        restarts: bool,
        /// Break a rule
        #[arg(long, value_parser = rules())]
        mutation: Option<String>,
    },
    /// The protocol as the dissertation prints it
    Printed {
        /// The Byzantine replica; each in turn without it
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..4))]
        byzantine: Option<u8>,
        /// Views
        #[arg(long, default_value_t = 3)]
        views: usize,
        /// With the repair that who has signed for the next view does nothing more in this one
        #[arg(long)]
        stop: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    S,
    M,
}

fn rules() -> PossibleValuesParser {
    PossibleValuesParser::new(Mutation::ALL.iter().map(|(name, _)| *name))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.seconds);
    let each = |only: Option<u8>| only.map_or(0..4, |b| usize::from(b)..usize::from(b) + 1);
    let mut clean = true;
    match arguments.model {
        Which::Real { byzantine, views, rsns, wide, mode, restarts, mutation } => {
            for byzantine in each(byzantine) {
                let votes = match mode {
                    Mode::S => VoteAuthentication::Signed,
                    Mode::M => VoteAuthentication::Channel,
                };
                let named = |name: &String| Mutation::ALL.iter().find(|(known, _)| known == name);
                let mutation = mutation.as_ref().and_then(named).map(|(_, mutation)| *mutation);
                let bounds = Bounds { byzantine, views, rsns, wide, votes, restarts, mutation };
                let describe = |m: &Real, step: &_| m.describe(step);
                let last = |m: &Real, state: &_| m.biography(state);
                clean &= explore(&format!("{bounds:?}"), Real::new(bounds), limit, describe, last);
            }
        }
        Which::Printed { byzantine, views, stop } => {
            for byzantine in each(byzantine) {
                let model = Printed { byzantine, views, stop };
                clean &= explore(
                    &format!("{model:?}"),
                    model,
                    limit,
                    |_, step| format!("{step:?}"),
                    |_, _| String::new(),
                );
            }
        }
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore<M>(
    name: &str,
    model: M,
    limit: Duration,
    describe: impl Fn(&M, &M::Action) -> String,
    last: impl Fn(&M, &M::State) -> String,
) -> bool
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static,
{
    let started = Instant::now();
    let checker = model.checker().timeout(limit).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let properties = checker.model().properties();
    let broken = properties
        .iter()
        .filter(|p| p.expectation.discovery_is_failure())
        .find_map(|p| Some((p.name, checker.discovery(p.name)?)));
    let missed = properties
        .iter()
        .filter(|p| !p.expectation.discovery_is_failure())
        .any(|p| checker.discovery(p.name).is_none());
    let effort = format!(
        "{} states, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    match &broken {
        Some((rule, path)) => {
            let steps = path.clone().into_actions();
            println!("{name}: BROKEN in {} steps: {rule}; {effort}", steps.len());
            for (i, step) in steps.iter().enumerate() {
                println!("{:4}. {}", i + 1, describe(checker.model(), step));
            }
            print!("{}", last(checker.model(), path.last_state()));
        }
        None if started.elapsed() >= limit => {
            println!("{name}: nothing found so far, not exhausted; {effort}")
        }
        None if missed => println!("{name}: kept, exhausted, but the last view was not reached; {effort}"),
        None => println!("{name}: kept, exhausted; {effort}"),
    }
    broken.is_none()
}
