//! Seeded runs through a hostile network. `SEEDS=n` runs so many of them, `SEED=s` one.

mod world;

use cl_base::Rng;
use mml_proto::{Config, Counters, Delivery, Event, FailReason};
use std::sync::Mutex;
use std::time::Duration;
use world::{Faults, World, id};

const KINDS: [Delivery; 3] = [Delivery::Unr, Delivery::Ack, Delivery::Nack];

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|v: String| v.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(400),
    }
}

fn draw_faults(rng: &mut Rng) -> Faults {
    Faults {
        lose: rng.below(300),
        duplicate: rng.below(200),
        corrupt: rng.below(200),
        replay: rng.below(300),
        delay_max: Duration::from_micros(*rng.pick(&[0, 100, 3_000, 30_000]).unwrap()),
    }
}

fn draw_config(rng: &mut Rng) -> Config {
    let mut config = Config { dead_after: Duration::from_millis(400), ..Config::default() };
    if rng.chance(1, 2) {
        config.queue_messages = 20;
        config.queue_bytes = 40_000;
        config.history_messages = 8;
        config.reorder_bytes = 5_000;
    }
    if rng.chance(1, 2) {
        config.rekey_frames = rng.within(2, 40);
        config.key_frames_max = config.rekey_frames + rng.within(1, 40);
        config.rekey_after = Duration::from_millis(rng.within(10, 2000));
    }
    config
}

/// Faults, restarts and disconnections, then peace: safety throughout, progress in the end.
fn run(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let parties = 2 + rng.below(2) as usize;
    let (config, faults) = (draw_config(&mut rng), draw_faults(&mut rng));
    let mut world = World::new(seed, parties, config, faults);
    let pair = |rng: &mut Rng| {
        let from = rng.below(parties as u64) as usize;
        (from, (from + 1 + rng.below(parties as u64 - 1) as usize) % parties)
    };
    for _ in 0..rng.within(20, 300) {
        let (from, to) = pair(&mut rng);
        match rng.below(100) {
            0..=1 => world.restart(from),
            2 => {
                let now = world.now;
                world.parties[from].disconnect(now, id(to));
            }
            3 => world.run_for(Duration::from_millis(rng.below(1500))),
            4 => world.parties[from].group_ack(id(to)),
            _ => {
                let len = *rng.pick(&[8, 30, 900, 1100, 9000]).unwrap();
                world.send(from, to, *rng.pick(&KINDS).unwrap(), len);
            }
        }
        world.run_for(Duration::from_micros(rng.below(4000)));
    }
    // Peace, but everything ever sent arrives once more.
    world.faults = Faults::default();
    world.replay_everything();
    world.run_for(Duration::from_secs(20));
    world.check_settled();
    // The first messages may still find out that their receiver has restarted; the next may not fail.
    everybody_to_everybody(&mut world);
    for name in everybody_to_everybody(&mut world) {
        assert!(world.was_delivered(name), "no progress after the faults stopped: message {name}");
    }
    assert!(world.is_quiet(), "idle sessions must send nothing");
    world
}

fn everybody_to_everybody(world: &mut World) -> Vec<u64> {
    let parties = world.parties.len();
    let mut names = Vec::new();
    for from in 0..parties {
        for to in (0..parties).filter(|to| *to != from) {
            for delivery in KINDS {
                names.push(world.send(from, to, delivery, 100).expect("queues are empty in peace"));
            }
        }
    }
    world.run_for(Duration::from_secs(20));
    world.check_settled();
    names
}

#[test]
fn authentic_exactly_once_in_order_and_live_after_faults() {
    let seeds = Mutex::new(seeds());
    let next = || seeds.lock().expect("nobody panics with it").next();
    let work = || {
        while let Some(seed) = next() {
            if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
                eprintln!("seed {seed} fails; run it alone with SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// A run that meets no trouble proves nothing: together they meet every kind.
#[test]
fn the_runs_meet_every_kind_of_trouble() {
    type Trouble = (&'static str, fn(&Counters) -> u64);
    let troubles: [Trouble; 15] = [
        ("retransmitted", |c| c.retransmitted),
        ("duplicates", |c| c.duplicates),
        ("malformed", |c| c.malformed),
        ("unknown_peer", |c| c.unknown_peer),
        ("bad_mac", |c| c.bad_mac),
        ("replayed", |c| c.replayed),
        ("stale_incarnation", |c| c.stale_incarnation),
        ("stale_handshake", |c| c.stale_handshake),
        ("unknown_session", |c| c.unknown_session),
        ("reorder_full", |c| c.reorder_full),
        ("unr_dropped", |c| c.unr_dropped),
        ("backpressure", |c| c.backpressure),
        ("gaps", |c| c.gaps),
        ("handshakes", |c| c.handshakes),
        ("rekeyed", |c| c.rekeyed),
    ];
    let worlds: Vec<World> = (1000..1060).map(run).collect();
    for (name, count) in troubles {
        assert!(
            worlds.iter().flat_map(World::counters).map(|c| count(&c)).sum::<u64>() > 0,
            "{name} never happens"
        );
    }
    let events = || worlds.iter().flat_map(|w| &w.events).map(|(_, event)| event);
    assert!(events().any(|e| matches!(e, Event::Restarted { .. })));
    for reason in [FailReason::Silent, FailReason::Restarted, FailReason::Closed, FailReason::Disconnected] {
        assert!(
            events().any(|e| matches!(e, Event::Failed { reason: r, .. } if *r == reason)),
            "{reason:?} never happens"
        );
    }
}

#[test]
fn without_faults_everything_is_delivered_once_and_nothing_is_repeated() {
    let mut world = World::new(1, 3, Config::default(), Faults::default());
    let mut names = Vec::new();
    for i in 0..300 {
        names.extend(world.send(i % 3, (i + 1) % 3, KINDS[i % 2 + 1], 8 + i * 10));
        world.run_for(Duration::from_micros(200));
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(names.len(), 300);
    assert!(names.iter().all(|name| world.was_delivered(*name)));
    assert_eq!(world.settled_as_delivered(), 150);
    for party in &world.parties {
        let c = party.counters();
        assert_eq!((c.retransmitted, c.duplicates, c.bad_mac, c.malformed, c.gaps), (0, 0, 0, 0, 0), "{c:?}");
    }
    assert!(world.events.iter().all(|(_, e)| !matches!(e, Event::Down { .. } | Event::Restarted { .. })));
    assert!(world.is_quiet());
}
