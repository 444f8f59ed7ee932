//! Runs seeds and prints what the judges say.

use clap::{Parser, ValueEnum};
use replication::Mutation;
use replication_sim::{Options, Report, Sabotage, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Simulates replica groups: faults by seed, judges outside.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// One seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens (with --seed).
    #[arg(long)]
    trace: bool,
    /// Break a rule on purpose; the judges must notice.
    #[arg(long)]
    sabotage: Option<Rule>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rule {
    /// Members go on in a view they have left.
    NoFreeze,
    /// COMMITs of 2f members are enough.
    #[value(name = "commit-quorum-2f")]
    CommitQuorum2f,
    /// Members restart without memory.
    Amnesia,
}

impl Rule {
    fn sabotage(self) -> Sabotage {
        match self {
            Rule::NoFreeze => Sabotage::Mutation(Mutation::NoFreeze),
            Rule::CommitQuorum2f => Sabotage::Mutation(Mutation::CommitQuorum2f),
            Rule::Amnesia => Sabotage::Amnesia,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, seeds) = arguments.seed.map_or((arguments.first, arguments.seeds), |seed| (seed, 1));
    let sabotage = arguments.sabotage.map(Rule::sabotage);
    let mut faults: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut events: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut completed, mut notified, mut bad, mut slowest) = (0, 0, 0, (Duration::ZERO, 0));
    for seed in first..first + seeds {
        let report: Report = run(Options { seed, trace: arguments.trace, sabotage });
        for violation in &report.violations {
            println!("seed {seed}: {violation}");
        }
        if !report.violations.is_empty() {
            bad += 1;
            println!("  again: cargo run -p replication-sim --release -- --seed {seed} --trace");
        }
        for (kind, count) in report.faults {
            *faults.entry(kind).or_default() += count;
        }
        for (kind, count) in report.events {
            *events.entry(kind).or_default() += count;
        }
        completed += report.completed;
        notified += report.notified;
        slowest = slowest.max((report.slowest_after, seed));
        let done = seed - first + 1;
        if done % 500 == 0 {
            println!("{done} seeds, {bad} with violations");
        }
    }
    let list = |counts: &BTreeMap<&'static str, u64>| {
        counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
    };
    println!("events: {}", list(&events));
    println!("slowest operation after the heal: {:?} (seed {})", slowest.0, slowest.1);
    println!(
        "{seeds} seeds, {completed} operations, {notified} notifications; faults: {}; {bad} seeds with violations",
        list(&faults)
    );
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
