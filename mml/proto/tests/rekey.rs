//! New keys for running sessions, numbers under keys, and crashes.

mod world;

use cl_base::Rng;
use mml_proto::{Config, Delivery, Event, peek_number};
use std::collections::BTreeSet;
use std::time::Duration;
use world::{Faults, World, id};

const SECOND: Duration = Duration::from_secs(1);
const KINDS: [Delivery; 3] = [Delivery::Unr, Delivery::Ack, Delivery::Nack];
/// The second byte of the first frame of a handshake.
const INIT: u8 = 1;

fn epochs(world: &World) -> (u64, u64) {
    let epoch = |a: usize, b| world.parties[a].session(id(b)).expect("there is a session").epoch;
    (epoch(0, 1), epoch(1, 0))
}

#[test]
fn keys_are_renewed_by_count_and_nothing_in_flight_is_lost() {
    // Frames overtake each other by up to 3 ms, across the changes of keys.
    let faults = Faults { delay_max: Duration::from_millis(3), ..Faults::default() };
    let config = Config { rekey_frames: 20, key_frames_max: 100, ..Config::default() };
    let mut world = World::new(5, 2, config.clone(), faults);
    let mut names = Vec::new();
    for i in 0..600 {
        names.extend(world.send(i % 2, 1 - i % 2, KINDS[i % 3], 100));
        world.run_for(Duration::from_micros(300));
    }
    world.run_for(SECOND);
    assert_eq!(names.len(), 600);
    assert!(names.iter().all(|name| world.was_delivered(*name)), "UNR messages, too: no frame was refused");
    let (a, b) = epochs(&world);
    assert!(a == b && a >= 8, "{a} and {b} renewals");
    for party in &world.parties {
        let c = party.counters();
        assert_eq!((c.unknown_session, c.bad_mac, c.replayed, c.malformed), (0, 0, 0, 0), "{c:?}");
    }
    assert!(world.events.iter().all(|(_, e)| !matches!(e, Event::Down { .. } | Event::Failed { .. })));
    world.run_for(config.dead_after);
    assert!(world.is_quiet(), "the former keys are dropped in time");
}

#[test]
fn keys_are_renewed_by_time_once_there_is_something_to_send() {
    let config = Config { rekey_after: SECOND, ..Config::default() };
    let mut world = World::new(5, 2, config, Faults::default());
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND / 2);
    let frames = world.recorded.len();
    world.run_for(100 * SECOND);
    assert_eq!((world.recorded.len(), epochs(&world)), (frames, (0, 0)), "idle sessions send nothing");
    let name = world.send(0, 1, Delivery::Unr, 10).unwrap();
    world.run_for(SECOND / 10);
    assert!(world.was_delivered(name));
    assert_eq!(epochs(&world), (1, 1));
    assert!(world.parties[0].counters().rekeyed == 1 && world.parties[1].counters().rekeyed == 1);
}

#[test]
fn an_epoch_cannot_be_rolled_back() {
    let config = Config { rekey_frames: 10, key_frames_max: 100, ..Config::default() };
    let dead_after = config.dead_after;
    let mut world = World::new(5, 2, config, Faults::default());
    for _ in 0..50 {
        world.send(0, 1, Delivery::Ack, 10).unwrap();
        world.run_for(Duration::from_millis(1));
    }
    let (before, events) = (epochs(&world), world.events.len());
    assert!(before.0 >= 3);
    for _ in 0..3 {
        // Within the overlap every frame was seen before; after it, its key is gone.
        world.replay_everything();
        world.run_for(dead_after * 2);
        assert_eq!((epochs(&world), world.events.len()), (before, events));
    }
    let counters = world.parties[1].counters();
    assert!(counters.replayed > 0 && counters.stale_handshake > 0 && counters.unknown_session > 0);
    let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(world.was_delivered(name) && epochs(&world).0 >= before.0);
}

#[test]
fn a_key_is_not_used_beyond_its_end_if_there_is_no_new_one() {
    let config = Config { rekey_frames: 5, key_frames_max: 10, ..Config::default() };
    let mut world = World::new(5, 2, config, Faults::default());
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    world.lose_kind = Some(INIT);
    let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND / 10);
    assert!(world.was_delivered(name), "the old key serves until then");
    let names: Vec<u64> = (0..30)
        .filter_map(|_| {
            world.run_for(Duration::from_millis(1));
            world.send(0, 1, Delivery::Unr, 10)
        })
        .collect();
    let numbers = |world: &World| {
        let sent = world.recorded.iter().filter(|(from, ..)| *from == id(0));
        sent.filter_map(|(.., frame)| peek_number(frame)).collect::<BTreeSet<_>>()
    };
    assert_eq!(numbers(&world).iter().map(|(_, number)| *number).max(), Some(10));
    assert_eq!(numbers(&world).iter().map(|(session, _)| session).collect::<BTreeSet<_>>().len(), 1);
    world.lose_kind = None;
    world.run_for(SECOND);
    assert!(names.iter().all(|name| world.was_delivered(*name)), "they waited for the new key");
    assert_eq!(epochs(&world).0, epochs(&world).1);
}

/// The world refuses any two frames with the same session and number (`World::transmit`). Here the sender crashes
/// after every single frame that it hands out or takes in, in a life with handshakes, changes of keys, losses and
/// an orderly end, and goes on in its next life.
#[test]
fn no_two_messages_are_sealed_under_one_nonce_over_crash_and_restart_at_every_step() {
    let config = Config { rekey_frames: 4, key_frames_max: 20, ..Config::default() };
    let script = |crash: Option<(usize, u64)>, lose| {
        let mut world = World::new(11, 2, config.clone(), Faults { lose, ..Faults::default() });
        world.crash = crash;
        for i in 0..24 {
            let _ = world.send(i % 2, 1 - i % 2, KINDS[i % 3], 50);
            world.run_for(Duration::from_millis(2));
            if i == 16 {
                let now = world.now;
                world.parties[0].disconnect(now, id(1));
            }
        }
        world.faults = Faults::default();
        world.run_for(10 * SECOND);
        world.check_settled();
        let name = world.send(0, 1, Delivery::Ack, 50).unwrap();
        world.run_for(SECOND);
        // The first message may have found out that the peer has restarted.
        let again = world.send(0, 1, Delivery::Ack, 50).unwrap();
        world.run_for(SECOND);
        assert!(world.was_delivered(name) || world.was_delivered(again));
        world
    };
    for lose in [0, 150] {
        let calm = script(None, lose);
        assert!(calm.parties[0].counters().rekeyed >= 2, "the script has several keys");
        let mut steps = 0;
        while script(Some((0, steps)), lose).crash.is_none() {
            steps += 1;
        }
        assert!(steps > 40, "{steps} steps");
    }
}

/// `RESTARTS=n` for more.
#[test]
fn restarts_at_random_instants_lose_or_duplicate_nothing_that_was_acknowledged() {
    let wanted = std::env::var("RESTARTS").map_or(10_000, |n| n.parse().expect("RESTARTS is a number"));
    let (mut restarts, mut delivered, mut seed) = (0, 0, 0);
    while restarts < wanted {
        seed += 1;
        let mut rng = Rng::new(seed);
        let delay_max = Duration::from_micros(*rng.pick(&[0, 200, 2000]).unwrap());
        let faults = Faults { lose: rng.below(100), duplicate: 50, delay_max, ..Faults::default() };
        let config = Config { rekey_frames: 30, key_frames_max: 60, ..Config::default() };
        let mut world = World::new(seed, 2, config, faults);
        for _ in 0..100 {
            for _ in 0..rng.below(4) {
                let from = rng.below(2) as usize;
                let _ = world.send(from, 1 - from, Delivery::Ack, 20);
                let pause = *rng.pick(&[400, 8000]).unwrap();
                world.run_for(Duration::from_micros(rng.below(pause)));
            }
            // The judge of the world sees that what is acknowledged was handed up, once, to one life, in order.
            world.restart(rng.below(2) as usize);
            restarts += 1;
            world.run_for(Duration::from_micros(rng.below(8000)));
        }
        world.faults = Faults::default();
        world.run_for(20 * SECOND);
        world.check_settled();
        delivered += world.settled_as_delivered();
    }
    println!("{restarts} restarts, {delivered} messages acknowledged");
    assert!(delivered as u64 > wanted / 10, "{delivered}");
}
