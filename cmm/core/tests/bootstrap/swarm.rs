//! Random clusters, random faults, one seed each: never two decisions, and one once the faults stop.

use crate::byzantine::{Byzantine, Habits};
use crate::world::{Weather, World, ms};
use cl_base::Rng;
use cmm_core::bootstrap::Bootstrap;
use std::ops::Range;
use std::time::Duration;

/// Faults stop after this time at the latest.
const CHAOS: Duration = ms(12_000);

/// Virtual time within which there must be a decision after that: what a view takes after all the
/// doublings of the chaos, times the views that may fail.
const PATIENCE: Duration = ms(600_000);

fn seeds(default: u64) -> Range<u64> {
    match std::env::var("BOOTSTRAP_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("BOOTSTRAP_SEEDS=first..end");
            first.parse().unwrap()..end.parse().unwrap()
        }
        Err(_) if cfg!(debug_assertions) => 0..default / 10,
        Err(_) => 0..default,
    }
}

/// Says which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BOOTSTRAP_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}

fn habits(rng: &mut Rng) -> Habits {
    let mut often = |of: u64| if rng.chance(1, 2) { rng.below(of) } else { 0 };
    let (garbage, replays, equivocates, double_votes) = (often(40), often(40), often(60), often(60));
    let (lies, view_changes, no_service) = (often(50), often(30), often(50));
    Habits {
        faces: rng.below(4) as usize,
        garbage,
        replays,
        equivocates,
        double_votes,
        lies,
        view_changes,
        no_service,
        names_the_dead: rng.chance(1, 4),
    }
}

/// Draws a cluster within the termination condition, and runs it.
fn run(seed: u64, n: usize, f: usize) -> World {
    let _seed = Seed(seed);
    let mut world = World::new(n, f, seed);
    let mut rng = Rng::new(seed ^ 0xb007);
    let quorum = world.config.quorum();
    let mut order: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut order);

    // f agents are Byzantine, dead or correct; so many more are dead or lose their memory.
    let faulty = order.split_off(n - rng.below(f as u64 + 1) as usize);
    let needed = quorum.max(world.config.members().min(n - f));
    let missing = order.split_off(order.len() - rng.below((n - f - needed) as u64 + 1) as usize);
    let mut forgetful = vec![];
    for &i in &faulty {
        if rng.chance(4, 5) {
            let byzantine = Byzantine::new(i, &world.config, habits(&mut rng), world.now, rng.next_u64());
            world.byzantine.insert(i, byzantine);
        }
    }
    forgetful.extend(missing.into_iter().filter(|_| rng.chance(1, 2)));
    let spare = order.len().saturating_sub(world.config.members().min(n - f));
    for &i in order.iter().take(rng.below(spare as u64 + 1) as usize) {
        world.nodes[i].capable = false;
    }

    world.weather =
        Weather { lost: rng.below(40), repeated: rng.below(20), delay_max: 1_000 + rng.below(800_000) };
    world.crashes_amid_effects = if rng.chance(1, 2) { rng.below(200) } else { 0 };
    if rng.chance(1, 3) {
        world.dead_groups.extend(1..=1 + rng.below(2));
    }
    let within = |rng: &mut Rng, time: Duration| Duration::from_micros(rng.below(time.as_micros() as u64));
    let up: Vec<usize> = order.iter().chain(&forgetful).copied().collect();
    for &i in &up {
        let first = if rng.chance(1, 5) { CHAOS } else { ms(2_000) };
        let first = within(&mut rng, first);
        world.start_in(first, i);
        for _ in 0..rng.below(4) {
            let at = within(&mut rng, CHAOS);
            world.crash_in(at, i, forgetful.contains(&i) && rng.chance(1, 2));
            let pause = within(&mut rng, ms(3_000));
            world.start_in(at + pause, i);
        }
    }
    world.run_for(within(&mut rng, CHAOS));

    world.weather = Weather::FAIR;
    world.crashes_amid_effects = 0;
    world.run_for(CHAOS + ms(3_000));
    for i in up {
        world.start(i);
    }
    let served = world.dead_groups.last().map_or(1, |dead| dead + 1);
    world.run_until_decided(served, PATIENCE);
    world.run_for(ms(5_000));
    assert_eq!(*world.decided.last_key_value().unwrap().0, served, "a group that serves was replaced");
    if world.byzantine.is_empty() && forgetful.is_empty() {
        world.run_for(PATIENCE);
        let timers = world.nodes.iter().filter_map(|n| n.machine.as_ref().and_then(Bootstrap::next_timeout));
        assert_eq!(timers.count(), 0, "everybody decided, yet somebody goes on talking");
    }
    world
}

#[test]
fn one_decision_and_no_other_for_four_to_seven_agents() {
    for seed in seeds(4_000) {
        run(seed, 4 + (seed % 4) as usize, 1);
    }
}

#[test]
fn one_decision_and_no_other_with_two_faults() {
    for seed in seeds(400) {
        run(seed, 7 + (seed % 5) as usize, 2);
    }
}

#[test]
fn one_decision_and_no_other_without_faults_tolerated() {
    for seed in seeds(400) {
        run(seed, 1 + (seed % 3) as usize, 0);
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..8 {
        let [a, b] = [run(seed, 6, 1), run(seed, 6, 1)];
        assert_eq!((a.now, a.sent, &a.decided), (b.now, b.sent, &b.decided));
    }
}
