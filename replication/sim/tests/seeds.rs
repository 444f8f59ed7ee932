//! The simulator as a test: clean seeds stay clean, broken rules are noticed, runs repeat themselves.

use replication::Mutation;
use replication_sim::{Options, Sabotage, run};

/// Debug builds are some twenty times slower.
const SEEDS: u64 = if cfg!(debug_assertions) { 150 } else { 4000 };

fn options(seed: u64) -> Options {
    Options { seed, trace: false, sabotage: None }
}

#[test]
fn whatever_fails_within_f_the_judges_have_nothing_to_object_to() {
    let (mut completed, mut notified, mut views, mut transfers) = (0, 0, 0, 0);
    for seed in 1..=SEEDS {
        let report = run(options(seed));
        assert!(report.violations.is_empty(), "seed {seed}: {:?}", report.violations);
        completed += report.completed;
        notified += report.notified;
        views += report.events.get("views installed").unwrap_or(&0);
        transfers += report.events.get("states transferred").unwrap_or(&0);
    }
    // The runs did something.
    assert!(completed > 20 * SEEDS, "{completed} operations");
    assert!(notified > 5 * SEEDS, "{notified} notifications");
    assert!(views > SEEDS / 2, "{views} views");
    assert!(transfers > SEEDS, "{transfers} transfers");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 38, 148] {
        let (a, b) = (run(options(seed)), run(options(seed)));
        assert_eq!((a.steps, a.completed, a.events, a.faults), (b.steps, b.completed, b.events, b.faults));
    }
}

/// The first seed up to `within` at which the judges object.
fn noticed(sabotage: Sabotage, within: u64) -> Option<u64> {
    (1..=within).find(|seed| {
        let report = run(Options { seed: *seed, trace: false, sabotage: Some(sabotage) });
        // A progress complaint alone would not show that safety is judged.
        report.violations.iter().any(|v| !v.starts_with("progress"))
    })
}

#[test]
fn members_that_forget_on_restart_are_noticed() {
    assert!(noticed(Sabotage::Amnesia, 1000).is_some());
}

#[test]
fn members_that_go_on_in_a_view_they_left_are_noticed() {
    assert!(noticed(Sabotage::Mutation(Mutation::NoFreeze), 1000).is_some());
}

#[test]
#[cfg_attr(debug_assertions, ignore = "needs over a thousand seeds")]
fn a_commit_quorum_of_2f_is_noticed() {
    assert!(noticed(Sabotage::Mutation(Mutation::CommitQuorum2f), 10_000).is_some());
}
