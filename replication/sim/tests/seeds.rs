//! The simulator as a test: clean seeds stay clean, broken rules are noticed, runs repeat themselves.

use replication_proto::{Guarantee, Mutation};
use replication_sim::{Options, Report, Sabotage, faults, kind, run, shrink};

/// Debug builds are some twenty times slower.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 1500 };

fn options(seed: u64) -> Options {
    Options { seed, ..Options::default() }
}

#[test]
fn whatever_fails_within_f_the_judges_have_nothing_to_object_to() {
    let (mut completed, mut read, mut notified, mut views, mut transfers) = (0, 0, 0, 0, 0);
    let (mut newcomers, mut undone) = (0, 0);
    for seed in 1..=SEEDS {
        let report = run(options(seed));
        assert!(report.violations.is_empty(), "seed {seed}: {:?}", report.violations);
        completed += report.completed;
        read += report.reads;
        notified += report.notified;
        views += report.events.get("views installed").unwrap_or(&0);
        newcomers += report.faults.get("newcomers").unwrap_or(&0);
        undone += report.events.get("executions undone").unwrap_or(&0);
        transfers += report.events.get("states transferred").unwrap_or(&0);
    }
    // The runs did something.
    assert!(completed > 20 * SEEDS, "{completed} operations");
    assert!(read > 5 * SEEDS, "{read} reads");
    assert!(notified > 5 * SEEDS, "{notified} notifications");
    assert!(views > SEEDS / 2, "{views} views");
    assert!(transfers > SEEDS, "{transfers} transfers");
    assert!(newcomers > SEEDS / 4, "{newcomers} newcomers");
    assert!(undone > SEEDS / 10, "{undone} executions undone");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 38, 148] {
        let (a, b) = (run(options(seed)), run(options(seed)));
        assert_eq!((a.steps, a.completed, a.events, a.faults), (b.steps, b.completed, b.events, b.faults));
    }
}

/// The first run up to seed `within` at which the judges object.
fn noticed(sabotage: Sabotage, within: u64) -> Option<(Options, Report)> {
    (1..=within).find_map(|seed| {
        let options = Options { seed, f: Some(1), sabotage: Some(sabotage), ..Options::default() };
        let report = run(options.clone());
        // A progress complaint alone would not show that safety is judged.
        report.violations.iter().any(|v| kind(v) != "progress").then_some((options, report))
    })
}

#[test]
fn members_that_forget_on_restart_are_noticed() {
    assert!(noticed(Sabotage::Amnesia, 1000).is_some());
}

/// What a failure is made into fails alike, again and again, and is smaller.
#[test]
fn a_failure_is_shrunk_to_what_matters() {
    let (options, report) = noticed(Sabotage::Amnesia, 1000).expect("amnesia is noticed");
    let (smaller, small) = shrink(&options, report.clone());
    assert_eq!(kind(&small.violations[0]), kind(&report.violations[0]));
    assert_eq!(run(smaller.clone()).violations, small.violations);
    assert!(small.steps < report.steps || faults(&smaller).len() < faults(&options).len());
    assert!(faults(&smaller).iter().any(|f| f.contains("Crash") || f.contains("power cut")), "{smaller:?}");
}

/// Two faulty members of four are beyond what is promised, and the judges see it.
#[test]
fn more_than_f_faulty_members_are_noticed() {
    let broken = (1..=300).any(|seed| {
        let options = Options { seed, f: Some(1), faulty: Some(3), ..Options::default() };
        !run(options).violations.is_empty()
    });
    assert!(broken);
}

/// Rules of the protocol itself removed one at a time; `replication-model` finds those that no seed finds soon.
#[test]
#[cfg_attr(debug_assertions, ignore = "needs over a thousand seeds")]
fn broken_rules_are_noticed() {
    for mutation in [
        Mutation::NoFreeze,
        Mutation::CheckpointQuorumWeak,
        Mutation::UnpersistedP,
        Mutation::WeakReadQuorum,
        Mutation::EpochRunsOn,
    ] {
        assert!(noticed(Sabotage::Mutation(mutation), 3000).is_some(), "{mutation:?}");
    }
}

/// The weakest guarantee is what its name says: with a member that lies, what was acknowledged gets lost.
#[test]
fn with_one_phase_members_that_lie_are_too_much() {
    let lied = |seed| {
        let guarantee = Some(Guarantee::CrashOnly);
        let options = Options { seed, f: Some(1), guarantee, beyond: true, ..Options::default() };
        run(options).violations.iter().any(|v| kind(v) != "progress")
    };
    assert!((1..=2000).any(lied));
}

/// Two phases are as good as three only because what was not committed is undone.
#[test]
fn what_is_not_undone_is_noticed() {
    let sabotage = Some(Sabotage::Mutation(Mutation::NoUndo));
    let noticed = |seed| {
        let guarantee = Some(Guarantee::ByzantineTentative);
        let options = Options { seed, f: Some(1), guarantee, sabotage, ..Options::default() };
        run(options).violations.iter().any(|v| kind(v) != "progress")
    };
    assert!((1..=2000).any(noticed));
}
