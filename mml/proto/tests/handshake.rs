//! Who may have a session, in which version, and what it costs to be refused one.

mod world;

use cl_base::{Incarnation, PeerId, Time};
use mml_proto::{Config, Delivery, DownReason, Event, FailReason, Mml, SendStatus, SessionInfo, Verdict};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::{Faults, World, address, id, pair};

const SECOND: Duration = Duration::from_secs(1);
const INIT: u8 = 1;
const COOKIE: u8 = 3;

fn pair_with(versions: [(u8, u8); 2], features: [u32; 2]) -> World {
    let config = |i: usize| Config { versions: versions[i], features: features[i], ..Config::default() };
    World::with_configs(7, vec![config(0), config(1)], Faults::default())
}

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.events.iter().filter(|(_, event)| wanted(event)).count()
}

#[test]
fn versions_1_to_2_and_2_to_3_meet_at_2_with_the_features_of_both() {
    for versions in [[(1, 2), (2, 3)], [(2, 3), (1, 2)]] {
        let mut world = pair_with(versions, [0b0110, 0b1100]);
        let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
        world.run_for(SECOND);
        assert!(world.was_delivered(name));
        let agreed = Some(SessionInfo { version: 2, features: 0b0100, epoch: 0 });
        assert_eq!((world.parties[0].session(id(1)), world.parties[1].session(id(0))), (agreed, agreed));
    }
}

#[test]
fn without_a_version_in_common_both_sides_say_so() {
    let mut world = pair_with([(1, 1), (2, 3)], [0, 0]);
    let lost = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(!world.was_delivered(lost));
    let (old, new) = ((1, 1), (2, 3));
    let events: Vec<&Event> = world.events.iter().map(|(_, event)| event).collect();
    assert!(events.contains(&&Event::Incompatible { peer: id(1), ours: old, theirs: new }));
    assert!(events.contains(&&Event::Incompatible { peer: id(0), ours: new, theirs: old }));
    assert!(events.contains(&&Event::Down { peer: id(1), reason: DownReason::Incompatible }));
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::Incompatible, .. })), 1);
    assert!(world.is_quiet());
}

#[test]
fn an_attacker_cannot_talk_two_parties_into_an_older_version() {
    let mut world = pair_with([(1, 3), (1, 3)], [7, 7]);
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    let (from, to, mut init) = world.take_next().unwrap();
    assert_eq!(init[1..4], [INIT, 1, 3]);
    init[3] = 1;
    let now = world.now;
    assert_eq!(world.party(to).handle(now, from, address(from), &mut init.clone()), Verdict::Refused);
    assert_eq!(world.party(to).counters().bad_mac, 1);
    world.run_for(SECOND);
    assert_eq!(world.parties[0].session(id(1)).unwrap().version, 3);
}

#[test]
fn a_restarted_peer_is_recognised_within_one_round_trip() {
    let one_way = Duration::from_micros(50);
    for delivery in [Delivery::Unr, Delivery::Ack, Delivery::Nack] {
        let mut world = World::new(7, 2, Config::default(), Faults::default());
        world.send(0, 1, delivery, 10).unwrap();
        world.run_for(SECOND);
        world.restart(1);
        // Whoever says something to it hears that it has restarted, ...
        world.send(0, 1, delivery, 10).unwrap();
        world.run_for(2 * one_way);
        assert_eq!(count(&world, |e| matches!(e, Event::Restarted { .. })), 1, "{delivery:?}");
        world.run_for(SECOND);
        assert!(world.parties[0].is_up(id(1)), "and has a session with its new life");
        // ... and whoever hears from it, at once.
        world.restart(1);
        world.send(1, 0, delivery, 10).unwrap();
        world.run_for(one_way);
        assert_eq!(count(&world, |e| matches!(e, Event::Restarted { .. })), 2, "{delivery:?}");
    }
}

#[test]
fn a_party_that_lost_its_memory_is_called_back_without_a_storm() {
    let parties = 10;
    let mut world = World::new(3, parties, Config::default(), Faults::default());
    for i in 1..parties {
        world.send(i, 0, Delivery::Ack, 10).unwrap();
    }
    world.run_for(SECOND);
    // It is away, and all others call it at the same moment.
    world.faults.lose = 1000;
    let (away, first) = (world.now, world.recorded.len());
    for i in 1..parties {
        let now = world.now;
        world.parties[i].disconnect(now, id(0));
        world.send(i, 0, Delivery::Ack, 10).unwrap();
    }
    world.restart(0);
    world.run_for(4 * SECOND);
    let mut calls: BTreeMap<Time, usize> = BTreeMap::new();
    for ((from, _, frame), at) in world.recorded.iter().zip(&world.recorded_at).skip(first) {
        if frame[1] == INIT && *from != id(0) && *at > away {
            *calls.entry(*at).or_default() += 1;
        }
    }
    let all: usize = calls.values().sum();
    assert!(all <= 20 * (parties - 1), "{all} calls in four seconds");
    assert!(calls.values().all(|together| *together <= 2), "they call together: {calls:?}");
    world.faults.lose = 0;
    world.run_for(SECOND);
    assert!((1..parties).all(|i| world.parties[0].is_up(id(i))), "all are back within a second");
}

#[test]
fn a_clock_that_was_set_back_is_reported() {
    let mut world = World::new(7, 2, Config::default(), Faults::default());
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let known = world.parties[1].incarnation();
    world.restart_as(1, Incarnation(known.0 - 1));
    let lost = world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let ours = Incarnation(known.0 - 1);
    assert_eq!(count(&world, |e| *e == Event::Superseded { peer: id(0), ours, known }), 1);
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::Superseded, .. })), 1);
    assert!(!world.was_delivered(lost) && world.is_quiet());
    assert!(world.parties[0].counters().stale_incarnation > 0);
    // Once the clock has passed where it was, all is well.
    world.restart_as(1, Incarnation(known.0 + 1));
    let name = world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(world.was_delivered(name));
}

/// The first frame of a handshake of a new life of party `from`.
fn init(from: usize, to: PeerId, life: u64, now: Time) -> Vec<u8> {
    first_frame(id(from), to, life, now)
}

fn first_frame(from: PeerId, to: PeerId, life: u64, now: Time) -> Vec<u8> {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&life.to_le_bytes());
    let mut mml = Mml::new(Config::default(), from, Incarnation(life), Box::new(pair), seed);
    mml.connect(now, to).unwrap();
    let mut frame = Vec::new();
    assert_eq!(mml.poll_transmit(now, &mut frame).unwrap().to, to);
    frame
}

#[test]
fn strangers_who_flood_with_handshakes_cost_a_hash_and_get_no_answer() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let now = world.now;
    let mut frame = init(2, id(0), 1000, now);
    let start = Instant::now();
    let floods = 100_000u32;
    for i in 0..floods {
        // As if from a member, whose key the stranger does not have; every frame is another one.
        frame[40..44].copy_from_slice(&i.to_le_bytes());
        assert_eq!(world.parties[0].handle(now, id(2), address(id(2)), &mut frame.clone()), Verdict::Refused);
    }
    println!("{} ns for each", start.elapsed().as_nanos() / u128::from(floods));
    let counters = world.parties[0].counters();
    assert_eq!((counters.bad_mac, counters.handshakes), (u64::from(floods), 0));
    assert_eq!(world.parties[0].poll_transmit(now, &mut frame), None);
    assert!(world.was_delivered(name) && world.parties[0].is_up(id(1)));
}

#[test]
fn a_member_that_floods_is_held_to_its_share_and_others_connect_meanwhile() {
    let config = Config { handshakes: 40, handshakes_per_principal: 10, ..Config::default() };
    let mut world = World::new(7, 3, config, Faults::default());
    let start = world.now;
    for life in 1000..1400 {
        // 400 handshakes in two seconds, each of a new life.
        let frame = init(2, id(0), life, world.now);
        let now = world.now;
        world.parties[0].handle(now, id(2), address(id(2)), &mut frame.clone());
        world.run_for(Duration::from_millis(5));
        if life == 1200 {
            world.send(1, 0, Delivery::Ack, 10).unwrap();
        }
    }
    assert_eq!(world.now.saturating_since(start), 2 * SECOND);
    let counters = world.parties[0].counters();
    // Its share of three seconds (one is given at once), and one for the other.
    assert!(counters.handshakes <= 3 * 10 + 1, "{} were computed", counters.handshakes);
    assert_eq!(counters.handshakes + counters.handshakes_refused + counters.cookies, 401);
    assert!(world.parties[0].is_up(id(1)));
}

#[test]
fn under_load_who_does_not_receive_at_his_address_gets_no_handshake() {
    // Nine handshakes a second over all; half of them are computed without a cookie.
    let config = Config { handshakes: 9, handshakes_per_principal: 9, ..Config::default() };
    let mut world = World::new(7, 3, config, Faults::default());
    let now = world.now;
    let mut verdicts = Vec::new();
    for life in 1000..1100 {
        let frame = init(2, id(0), life, now);
        verdicts.push(world.parties[0].handle(now, id(2), address(id(2)), &mut frame.clone()));
    }
    let counters = world.parties[0].counters();
    assert_eq!((counters.handshakes, counters.cookies), (5, 95));
    // Party 1 is told a cookie, comes again with it, and is served.
    let name = world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(Duration::from_millis(200));
    assert!(world.was_delivered(name));
    assert_eq!(world.parties[0].counters().cookies, 96);
    // Its cookie is of no use to another address.
    let cookied = world.recorded.iter().rfind(|(from, _, frame)| *from == id(1) && frame[1] == INIT);
    let (from, _, frame) = cookied.unwrap().clone();
    world.restart(0);
    let now = world.now;
    for life in 1000..1010 {
        let init = init(2, id(0), life, now);
        world.parties[0].handle(now, id(2), address(id(2)), &mut init.clone());
    }
    let before = world.parties[0].counters().handshakes;
    world.parties[0].handle(now, from, address(id(9)), &mut frame.clone());
    assert_eq!(world.parties[0].counters().handshakes, before);
}

/// The first frames of as many handshakes of as many instances of party 2's principal, as a stranger has recorded them.
fn recordings(count: u32, now: Time) -> Vec<(PeerId, Vec<u8>)> {
    let record = |instance| {
        let from = PeerId::new(id(2).principal.0, 1000 + instance);
        (from, first_frame(from, id(0), u64::from(instance), now))
    };
    (0..count).map(record).collect()
}

#[test]
fn cycling_through_more_recordings_than_there_are_places_keeps_no_new_client_out_and_ends_no_session() {
    let (config, mut world) = (Config::default(), World::new(7, 3, Config::default(), Faults::default()));
    // More than an instance each can be remembered of, so each is forgotten before its turn comes again.
    let recorded = recordings(400, world.now);
    assert!(recorded.len() > config.instances_max);
    // The same principal has a session, which is to go on.
    world.send(2, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let (server, nobody) = (id(0), address(id(9)));
    let client_at = |client: u32| std::net::SocketAddr::from(([10, 1, 0, client as u8], 7400));
    let (start, before) = (world.now, world.parties[0].counters());
    let mut clients = Vec::new();
    let (mut names, mut frame, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
    for step in 0..6000u32 {
        world.run_for(Duration::from_millis(1));
        let now = world.now;
        let (from, init) = &recorded[step as usize % recorded.len()];
        world.parties[0].handle(now, *from, nobody, &mut init.clone());
        // A command after another, from two seconds on; each is a new instance with a life of its own.
        if step >= 2000 && step % 500 == 0 {
            let (number, mut seed) = (clients.len() as u32, [9; 32]);
            seed[0] = number as u8;
            let me = PeerId::new(id(2).principal.0, 1_000_000 + number);
            let mut mml = Mml::new(config.clone(), me, Incarnation(1), Box::new(pair), seed);
            mml.connect(now, server).unwrap();
            clients.push((mml, now, false));
        }
        for (number, (mml, _, _)) in clients.iter_mut().enumerate() {
            mml.handle_timeout(now);
            while mml.poll_transmit(now, &mut frame).is_some() {
                world.parties[0].handle(now, mml.me(), client_at(number as u32), &mut frame);
            }
        }
        while let Some(transmit) = world.parties[0].poll_transmit(now, &mut frame) {
            if let Some((mml, _, _)) = clients.iter_mut().find(|(mml, _, _)| mml.me() == transmit.to) {
                mml.handle(now, server, address(server), &mut frame);
            } else if transmit.to == id(2) {
                world.parties[2].handle(now, server, address(server), &mut frame);
            }
        }
        for (mml, since, is_up) in clients.iter_mut().filter(|(mml, _, is_up)| !is_up && mml.is_up(server)) {
            slowest = slowest.max(now.saturating_since(*since));
            *is_up = world.parties[0].is_up(mml.me());
        }
        if step % 100 == 0 {
            names.push(world.send(2, 0, Delivery::Ack, 10).unwrap());
        }
    }
    assert_eq!(clients.iter().filter(|(_, _, is_up)| *is_up).count(), 8, "all of them are in");
    // Asked for a cookie, they come again after the first retransmission time-out.
    assert!(slowest <= config.rto_initial * 3, "{slowest:?}");
    let seconds = world.now.saturating_since(start).as_secs() + 1;
    let counters = world.parties[0].counters();
    let computed = counters.handshakes - before.handshakes;
    assert!(computed <= u64::from(config.handshakes_per_principal) * seconds, "{computed} were computed");
    assert!(counters.cookies > 1000, "{}", counters.cookies);
    world.run_for(SECOND);
    assert!(names.iter().all(|name| world.was_delivered(*name)));
    assert_eq!(count(&world, |event| matches!(event, Event::Down { .. } | Event::Failed { .. })), 0);
}

#[test]
fn a_stranger_who_hears_the_cookie_cannot_sign_recordings_with_it() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    let (now, mut frame, mut cookies) = (world.now, Vec::new(), Vec::new());
    for (from, init) in recordings(300, now) {
        world.parties[0].handle(now, from, address(id(9)), &mut init.clone());
        while world.parties[0].poll_transmit(now, &mut frame).is_some() {
            if frame[1] == COOKIE {
                cookies.push((from, init.clone(), frame.clone()));
            }
        }
    }
    let before = world.parties[0].counters().handshakes;
    assert!(before <= u64::from(Config::default().handshakes_per_principal) && cookies.len() > 200);
    // He knows the cookie, as it was sent to where he listens, but not the pair's key.
    for (from, init, notice) in &cookies {
        let (text, cookie) = (&init[..init.len() - 16], &notice[20..36]);
        // A MAC under a key that only the cookie makes.
        let key = blake3::derive_key("ghidrah mml 1 cookie", &[cookie, &[0; 16]].concat());
        let said = [&from.to_u64().to_le_bytes()[..], &id(0).to_u64().to_le_bytes(), text].concat();
        let signatures = [
            blake3::keyed_hash(&key, &said).as_bytes()[..16].to_vec(),
            init[init.len() - 32..init.len() - 16].to_vec(),
        ];
        for signature in signatures {
            let mut forged = [text, &signature].concat();
            world.parties[0].handle(now, *from, address(id(9)), &mut forged);
            while world.parties[0].poll_transmit(now, &mut frame).is_some() {}
        }
    }
    assert_eq!(world.parties[0].counters().handshakes, before);
}

#[test]
fn answers_to_frames_of_unknown_sessions_take_no_cookie_from_members() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    let (now, mut frame) = (world.now, Vec::new());
    let mut answer = |world: &mut World, from, bytes: &[u8]| {
        world.parties[0].handle(now, from, address(from), &mut bytes.to_vec());
        let mut kinds = Vec::new();
        while world.parties[0].poll_transmit(now, &mut frame).is_some() {
            kinds.push(frame[1]);
        }
        kinds
    };
    let mut invented = [9; 60];
    invented[..8].copy_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    for instance in 0..2 * Config::default().replies {
        answer(&mut world, PeerId::new(id(1).principal.0, instance), &invented);
    }
    assert_eq!(answer(&mut world, id(1), &invented), [0; 0], "all of these answers are spent");
    let asked = recordings(100, now)
        .iter()
        .filter(|(from, init)| answer(&mut world, *from, init) == [COOKIE])
        .count();
    assert!(asked >= 36, "{asked} of 100 were told a cookie");
}

#[test]
fn frames_of_unknown_sessions_are_answered_up_to_a_bound_and_nothing_is_remembered() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    let (now, mut sent, mut frame) = (world.now, 0u32, vec![0; 60]);
    for instance in 0..5000 {
        frame.clear();
        frame.resize(60, 9);
        frame[..4].copy_from_slice(&[1, 4, 0, 0]);
        frame[4..8].fill(0);
        world.parties[0].handle(now, PeerId::new(102, instance), address(id(2)), &mut frame.clone());
        while let Some(transmit) = world.parties[0].poll_transmit(now, &mut frame) {
            assert!(
                transmit.answers_hello && frame.len() < 60,
                "nobody is made to receive more than was sent"
            );
            sent += 1;
        }
    }
    assert_eq!(sent, Config::default().replies);
    assert_eq!(world.parties[0].counters().unknown_session, 5000);
    assert_eq!(world.parties[0].next_timeout(), None);
}

#[test]
fn sessions_of_the_same_static_keys_have_nothing_in_common() {
    // Two worlds alike but for the entropy of their parties: the same keys, lives and messages.
    let run = |seed| {
        let mut world = World::new(seed, 2, Config::default(), Faults::default());
        let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
        world.run_for(SECOND);
        assert!(world.was_delivered(name));
        world
    };
    let (world, mut other) = (run(1), run(2));
    // Nothing that was authentic in the one world is in the other.
    let now = other.now;
    for (from, to, frame) in &world.recorded {
        let verdict = other.party(*to).handle(now, *from, address(*from), &mut frame.clone());
        assert!(frame[1] == INIT || verdict == Verdict::Refused);
    }
    let sequence = mml_proto::Sequence { delivery: Delivery::Ack, number: 0 };
    assert_eq!(other.parties[0].status(id(1), sequence), SendStatus::Delivered);
}

#[test]
fn a_recorded_init_is_answered_a_few_times_and_its_sender_still_connects() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    // Its sender is gone before it hears the answer.
    let frame = init(1, id(0), 1000, world.now);
    let (mut answers, mut answer) = (0, Vec::new());
    for _ in 0..10_000 {
        let now = world.now;
        world.parties[0].handle(now, id(1), address(id(9)), &mut frame.clone());
        while world.parties[0].poll_transmit(now, &mut answer).is_some() {
            answers += 1;
        }
        world.run_for(Duration::from_millis(1));
    }
    assert!((1..=8).contains(&answers), "{answers} answers in ten seconds");
    let counters = world.parties[0].counters();
    assert_eq!((counters.handshakes, counters.stale_handshake), (1, 10_000 - 8));
    world.restart_as(1, Incarnation(1001));
    let name = world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(world.was_delivered(name));
}

#[test]
fn a_session_ends_at_once_with_the_key_it_stands_on_and_others_go_on() {
    let mut world = World::new(7, 3, Config::default(), Faults::default());
    for other in 1..3 {
        world.send(0, other, Delivery::Ack, 10).unwrap();
        world.send(other, 0, Delivery::Ack, 10).unwrap();
    }
    world.run_for(SECOND);
    let before = world.parties[0].counters().messages_delivered;
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    let revoked = id(1);
    let keys = move |me, peer| if peer == revoked { None } else { pair(me, peer) };
    let now = world.now;
    world.parties[0].set_keys(now, Box::new(keys));
    assert!(!world.parties[0].is_up(id(1)) && world.parties[0].is_up(id(2)));
    let name = world.send(0, 2, Delivery::Ack, 10).unwrap();
    world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.send(1, 0, Delivery::Unr, 10).unwrap();
    world.run_for(Config::default().dead_after + SECOND);
    let withdrawn = Event::Down { peer: id(1), reason: DownReason::KeyWithdrawn };
    assert_eq!(count(&world, |event| *event == withdrawn), 1);
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::KeyWithdrawn, .. })), 1);
    assert!(world.was_delivered(name));
    assert_eq!(world.parties[0].counters().messages_delivered, before, "nothing of the revoked one is heard");
    assert!(world.parties[0].counters().unknown_peer > 0);
    // The same keys again, as after a roster that changed for others: nothing ends.
    let now = world.now;
    world.parties[0].set_keys(now, Box::new(pair));
    assert!(world.parties[0].is_up(id(2)));
    let name = world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(world.was_delivered(name), "and who is believed again gets in");
}

#[test]
fn a_new_static_key_ends_the_session_and_loses_nothing_that_is_under_way() {
    // Party 1 has another key from now on; pairs as of a roster before and after.
    let rotated = |me: PeerId, peer: PeerId| {
        let secret = |id: PeerId| [if id == self::id(1) { 77 } else { id.principal.0 as u8 }; 32];
        let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret(peer)));
        let secret = x25519_dalek::StaticSecret::from(secret(me));
        mml_proto::Pair::agree(me.principal, &secret, peer.principal, public.to_bytes()).map(Into::into)
    };
    for first in [0, 1] {
        let faults = Faults { lose: 100, ..Faults::default() };
        let mut world = World::new(7, 2, Config::default(), faults);
        world.send(0, 1, Delivery::Ack, 10).unwrap();
        world.run_for(SECOND);
        let (mut names, mut before) = (Vec::new(), 0);
        for step in 0..100 {
            for (from, to) in [(0, 1), (1, 0)] {
                names.push(world.send(from, to, Delivery::Ack, 10).unwrap());
                world.send(from, to, Delivery::Unr, 10).unwrap();
            }
            let now = world.now;
            match step {
                40 => {
                    before = world.recorded.len();
                    world.parties[first].set_keys(now, Box::new(rotated));
                }
                // The other one hears of it later.
                60 => world.parties[1 - first].set_keys(now, Box::new(rotated)),
                _ => {}
            }
            world.run_for(Duration::from_millis(2));
        }
        world.run_for(2 * SECOND);
        assert!(names.iter().all(|name| world.was_delivered(*name)), "and none twice: the world's judge");
        assert_eq!(count(&world, |e| matches!(e, Event::Failed { .. } | Event::Down { .. })), 0);
        // What was recorded under the former key is nothing now.
        let (now, delivered) = (world.now, world.parties[0].counters().messages_delivered);
        for (from, to, frame) in world.recorded.clone().into_iter().take(before) {
            if to == id(0) {
                world.parties[0].handle(now, from, address(from), &mut frame.clone());
            }
        }
        assert_eq!(world.parties[0].counters().messages_delivered, delivered);
        assert!(world.parties[0].is_up(id(1)));
    }
}
