//! The command line.

use clap::Parser;
use clap::builder::PossibleValuesParser;
use replication_proto::{Guarantee, Mutation};
use replication_sim::{Options, Sabotage, Trim};

/// Simulates groups of replicas: one seed is one run, in which the network, the members, their disks and clients
/// fail as the seed says, never more than f members at a time, and judges outside watch.
///
/// Exits with 0 if no judge objected. The last line of the output says how many seeds were run, which faults were
/// injected how often, and how many seeds failed. A failure is made smaller and printed with the command that
/// repeats it.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(crate) first: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    pub(crate) seeds: u64,
    /// One seed only
    #[arg(long, conflicts_with_all = ["first", "seeds"])]
    pub(crate) seed: Option<u64>,
    /// Print everything that happens (with --seed)
    #[arg(long, requires = "seed")]
    pub(crate) trace: bool,
    /// Seeds run at the same time
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// The last line as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Tolerated faults of every group; without it each seed draws 0, 1, 2 or 3
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) f: Option<u8>,
    /// Faulty members of every group; without it each seed draws at most f. With more than f, objections are due
    #[arg(long)]
    pub(crate) faulty: Option<usize>,
    /// What answers are worth, in every run; without it each seed draws
    #[arg(long, value_parser = PossibleValuesParser::new(GUARANTEES.map(|(name, _)| name)))]
    pub(crate) guarantee: Option<String>,
    /// Members lie even where only crashes are tolerated; objections are due
    #[arg(long, requires = "guarantee")]
    pub(crate) beyond: bool,
    /// Print failures as they are found, without making them smaller
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// Break a rule on purpose; the judges must notice
    #[arg(long, value_parser = rules())]
    pub(crate) sabotage: Option<String>,
    /// Leave out the faults with these numbers (with --seed)
    #[arg(long, value_delimiter = ',', requires = "seed")]
    pub(crate) without: Vec<usize>,
    /// At most so many clients (with --seed)
    #[arg(long, requires = "seed")]
    pub(crate) clients: Option<usize>,
    /// At most so many operations of each client before the heal (with --seed)
    #[arg(long, requires = "seed")]
    pub(crate) ops: Option<u64>,
    /// The heal comes after so many milliseconds at the latest (with --seed)
    #[arg(long, requires = "seed", value_name = "MS")]
    pub(crate) heal: Option<u64>,
    /// Nothing is lost, duplicated or delayed (with --seed)
    #[arg(long, requires = "seed")]
    pub(crate) calm: bool,
}

const EXAMPLES: &str = "\
Examples:
  A thousand seeds:         replication-sim
  A million, two at a time: replication-sim --first 1 --seeds 1000000 --threads 2
  One seed, step by step:   replication-sim --seed 17 --trace
  Do the judges see it?     replication-sim --sabotage no-freeze --seeds 2000
  Beyond the promise:       replication-sim --f 1 --faulty 2
  Liars where crashes only: replication-sim --guarantee crash-only --beyond";

/// The names of rules that can be broken.
fn rules() -> PossibleValuesParser {
    let names = Mutation::ALL.iter().map(|(name, _)| *name);
    PossibleValuesParser::new(names.chain([AMNESIA]))
}

/// The names of guarantees.
const GUARANTEES: [(&str, Guarantee); 3] = [
    ("byzantine", Guarantee::Byzantine),
    ("byzantine-tentative", Guarantee::ByzantineTentative),
    ("crash-only", Guarantee::CrashOnly),
];

/// Members restart without their records.
const AMNESIA: &str = "amnesia";

fn sabotage(name: &str) -> Sabotage {
    let known = Mutation::ALL.iter().find(|(known, _)| *known == name);
    known.map_or(Sabotage::Amnesia, |(_, mutation)| Sabotage::Mutation(*mutation))
}

impl Arguments {
    /// The first seed and how many.
    pub(crate) fn seeds(&self) -> (u64, u64) {
        self.seed.map_or((self.first, self.seeds), |seed| (seed, 1))
    }

    /// How a seed is run.
    pub(crate) fn options(&self, seed: u64) -> Options {
        Options {
            seed,
            trace: self.trace,
            sabotage: self.sabotage.as_deref().map(sabotage),
            f: self.f.map(usize::from),
            faulty: self.faulty,
            guarantee: self.guarantee(),
            beyond: self.beyond,
            trim: Trim {
                without: self.without.iter().copied().collect(),
                clients: self.clients,
                ops: self.ops,
                heal_ms: self.heal,
                calm: self.calm,
            },
        }
    }

    fn guarantee(&self) -> Option<Guarantee> {
        let named = self.guarantee.as_deref()?;
        GUARANTEES.iter().find(|(name, _)| *name == named).map(|(_, guarantee)| *guarantee)
    }

    /// The command that repeats a run.
    pub(crate) fn again(&self, options: &Options) -> String {
        let mut command =
            format!("cargo run -p replication-sim --release -- --seed {}{}", options.seed, options.trim);
        if let Some(f) = self.f {
            command += &format!(" --f {f}");
        }
        if let Some(faulty) = self.faulty {
            command += &format!(" --faulty {faulty}");
        }
        if let Some(guarantee) = &self.guarantee {
            command += &format!(" --guarantee {guarantee}");
        }
        if self.beyond {
            command += " --beyond";
        }
        if let Some(rule) = &self.sabotage {
            command += &format!(" --sabotage {rule}");
        }
        command + " --trace"
    }
}
