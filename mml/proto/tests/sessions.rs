//! Sessions, one story per test, on a network without faults unless the story has one.

mod world;

use cl_base::PeerId;
use mml_proto::{
    Config, Counters, Delivery, DownReason, Event, FailReason, SendError, SendStatus, Verdict, peek_class,
};
use std::time::Duration;
use world::{Faults, World, address, id};

const SECOND: Duration = Duration::from_secs(1);

fn pair() -> World {
    pair_with(Config::default())
}

fn pair_with(config: Config) -> World {
    World::new(7, 2, config, Faults::default())
}

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.events.iter().filter(|(_, event)| wanted(event)).count()
}

#[test]
fn both_may_connect_at_once_and_get_one_session() {
    let mut world = pair();
    let now = world.now;
    world.parties[0].connect(now, id(1)).unwrap();
    world.parties[1].connect(now, id(0)).unwrap();
    world.run_for(SECOND);
    assert_eq!(count(&world, |e| matches!(e, Event::Up { .. })), 2);
    for kind in [Delivery::Unr, Delivery::Ack, Delivery::Nack] {
        let there = world.send(0, 1, kind, 10).unwrap();
        let back = world.send(1, 0, kind, 10).unwrap();
        world.run_for(SECOND);
        assert!(world.was_delivered(there) && world.was_delivered(back));
    }
    assert!(world.parties.iter().all(|p| p.counters().unknown_session == 0));
    assert!(world.is_quiet());
}

#[test]
fn a_lost_handshake_is_repeated_whichever_frame_is_lost() {
    for lost in 0..6 {
        let mut world = pair();
        let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
        for _ in 0..lost {
            world.run_for(Duration::from_micros(50));
        }
        world.take_next();
        world.run_for(SECOND);
        assert!(world.was_delivered(name), "frame {lost} lost");
        world.check_settled();
    }
}

#[test]
fn recorded_frames_of_a_session_neither_replace_nor_revive_it() {
    let mut world = pair();
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let events = world.events.len();
    world.replay_everything();
    world.run_for(SECOND);
    assert_eq!(world.events.len(), events, "a replay was noticed by the application");
    let c = world.parties[1].counters();
    assert!(c.replayed > 0, "{c:?}");
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert_eq!(world.parties[1].counters().unknown_session, c.unknown_session, "the session was replaced");
    // After an orderly end the recording does not bring it back either.
    let now = world.now;
    world.parties[0].disconnect(now, id(1));
    world.run_for(SECOND);
    world.replay_everything();
    world.run_for(10 * SECOND);
    assert!(!world.parties[0].is_up(id(1)) && !world.parties[1].is_up(id(0)));
    assert_eq!(count(&world, |e| matches!(e, Event::Down { reason: DownReason::Closed, .. })), 1);
}

#[test]
fn a_restart_fails_what_was_pending_and_frames_of_the_former_life_are_refused() {
    let mut world = pair();
    world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let old_life = world.parties[1].incarnation();
    let lost = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.take_next().expect("the message");
    world.restart(1);
    world.send(1, 0, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let new_life = world.parties[1].incarnation();
    let restarted = Event::Restarted { peer: id(1), old: old_life, new: new_life };
    assert_eq!(count(&world, |e| *e == restarted), 1);
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::Restarted, .. })), 1);
    assert!(!world.was_delivered(lost));
    world.check_settled();
    world.replay_everything();
    world.run_for(SECOND);
    assert!(world.parties[0].counters().stale_incarnation > 0);
    assert_eq!(world.parties[0].incarnation_of(id(1)), Some(new_life));
}

#[test]
fn a_silent_peer_is_down_after_the_configured_time_and_reached_again_by_the_next_message() {
    let mut world = pair();
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    world.faults.lose = 1000;
    let start = world.now;
    let lost = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(10 * SECOND);
    assert!(world.is_quiet(), "nothing is sent to a peer that is down");
    assert!(!world.was_delivered(lost));
    assert_eq!(count(&world, |e| matches!(e, Event::Down { reason: DownReason::Silent, .. })), 1);
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::Silent, .. })), 1);
    assert!(world.now.saturating_since(start) >= Config::default().dead_after);
    world.faults.lose = 0;
    let found = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    assert!(world.was_delivered(found));
}

#[test]
fn an_unreachable_peer_is_reported_and_messages_to_strangers_are_refused() {
    let mut world = pair();
    world.faults.lose = 1000;
    world.send(0, 1, Delivery::Nack, 10).unwrap();
    world.run_for(10 * SECOND);
    assert_eq!(count(&world, |e| matches!(e, Event::Failed { reason: FailReason::Unreachable, .. })), 1);
    assert_eq!(count(&world, |e| matches!(e, Event::Down { reason: DownReason::Unreachable, .. })), 1);
    let now = world.now;
    for stranger in [PeerId::new(5, 0), id(0)] {
        let refused = world.parties[0].send(now, stranger, Delivery::Ack, 0, b"hello");
        assert_eq!(refused, Err(SendError::UnknownPeer));
    }
}

#[test]
fn a_full_queue_hands_the_message_back() {
    let mut world = pair_with(Config {
        queue_messages: 3,
        queue_bytes: 1000,
        unr_while_connecting: 1,
        ..Config::default()
    });
    let now = world.now;
    let party = &mut world.parties[0];
    for _ in 0..3 {
        party.send(now, id(1), Delivery::Ack, 0, b"x").unwrap();
    }
    let body = vec![9; 20];
    assert_eq!(party.send(now, id(1), Delivery::Ack, 0, &body), Err(SendError::Backpressure(body.into())));
    let party = &mut world.parties[1];
    party.send(now, id(0), Delivery::Ack, 0, vec![0; 900]).unwrap();
    assert!(matches!(
        party.send(now, id(0), Delivery::Nack, 0, vec![0; 200]),
        Err(SendError::Backpressure(_))
    ));
    let too_long = vec![0; (1 << 20) + 1];
    assert!(matches!(party.send(now, id(0), Delivery::Unr, 0, too_long), Err(SendError::TooLong { .. })));
    for _ in 0..100 {
        party.send(now, id(0), Delivery::Unr, 0, b"").unwrap();
    }
    assert!(party.counters().unr_dropped > 0, "UNR messages before the session is up are bounded");
}

#[test]
fn a_lost_nack_message_is_asked_for_and_a_lost_tail_is_found() {
    for lost in 0..5 {
        let mut world = pair();
        world.send(0, 1, Delivery::Nack, 10).unwrap();
        world.run_for(SECOND);
        let names: Vec<u64> = (0..5)
            .map(|i| {
                world.faults.lose = if i == lost { 1000 } else { 0 };
                world.send(0, 1, Delivery::Nack, 10).unwrap()
            })
            .collect();
        world.faults.lose = 0;
        world.run_for(SECOND);
        assert!(names.iter().all(|name| world.was_delivered(*name)), "message {lost} lost");
        assert_eq!(world.parties[0].counters().retransmitted, 1);
        assert!(world.is_quiet());
    }
}

/// Virtual time until ACK messages that were sent at once have all arrived, where so many of 1000 frames are lost either way.
fn recovery(seed: u64, lose: u64) -> Duration {
    let mut world = World::new(seed, 2, Config::default(), Faults::default());
    let mut last = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(Duration::from_secs(1));
    world.faults.lose = lose;
    for _ in 0..200 {
        last = world.send(0, 1, Delivery::Ack, 20).unwrap();
    }
    let start = world.now;
    while !world.was_delivered(last) {
        world.run_for(Duration::from_millis(10));
        assert!(!world.events.iter().any(|(_, event)| matches!(event, Event::Down { .. })), "seed {seed}");
        assert!(world.now.saturating_since(start) < Duration::from_secs(60), "seed {seed}");
    }
    world.now.saturating_since(start)
}

#[test]
fn ack_messages_arrive_though_most_frames_are_lost() {
    for (lose, median_max_ms) in [(100, 50), (500, 100), (750, 300)] {
        let mut times: Vec<Duration> = (0..15).map(|seed| recovery(seed, lose)).collect();
        times.sort();
        println!("{lose} of 1000 lost: {:?}, {:?}, {:?}", times[0], times[7], times[14]);
        assert!(times[7] < Duration::from_millis(median_max_ms), "{lose} of 1000 lost: {times:?}");
    }
}

#[test]
fn nack_messages_older_than_the_history_are_reported_as_a_gap() {
    let mut world = pair_with(Config { history_messages: 4, ..Config::default() });
    world.send(0, 1, Delivery::Nack, 10).unwrap();
    world.run_for(SECOND);
    world.faults.lose = 1000;
    for _ in 0..10 {
        world.send(0, 1, Delivery::Nack, 10).unwrap();
    }
    world.faults.lose = 0;
    world.run_for(SECOND);
    assert_eq!(count(&world, |e| matches!(e, Event::Gap { count: 6, .. })), 1);
    assert_eq!(world.parties[1].counters().messages_delivered, 1 + 4);
}

#[test]
fn a_message_is_sent_again_at_once_when_it_is_asked_for_by_number() {
    for delivery in [Delivery::Ack, Delivery::Nack] {
        let mut world = pair();
        world.send(0, 1, delivery, 10).unwrap();
        world.run_for(SECOND);
        world.faults.lose = 1000;
        let name = world.send(0, 1, delivery, 10).unwrap();
        world.faults.lose = 0;
        let seq = |number| mml_proto::Sequence { delivery, number };
        assert!(world.parties[0].resend(id(1), seq(1)));
        assert!(!world.parties[0].resend(id(1), seq(2)), "never sent");
        // One way takes 50 µs, sooner than any timer.
        world.run_for(Duration::from_micros(60));
        assert!(world.was_delivered(name), "{delivery:?}");
        world.parties[0].resend(id(1), seq(1));
        world.run_for(SECOND);
        assert_eq!(world.parties[1].counters().messages_delivered, 2, "and handed up once");
    }
    let mut world = pair();
    world.send(0, 1, Delivery::Unr, 10).unwrap();
    world.run_for(SECOND);
    let unr = mml_proto::Sequence { delivery: Delivery::Unr, number: 0 };
    assert!(!world.parties[0].resend(id(1), unr), "not kept");
}

#[test]
fn a_group_ack_settles_nack_messages_without_an_advert() {
    let mut world = pair();
    world.send(0, 1, Delivery::Nack, 10).unwrap();
    world.run_for(Duration::from_micros(300));
    let frames = world.parties[0].counters().frames_sent;
    world.parties[1].group_ack(id(0));
    world.run_for(SECOND);
    assert_eq!(world.parties[0].counters().frames_sent, frames);
    let seq = mml_proto::Sequence { delivery: Delivery::Nack, number: 0 };
    assert_eq!(world.parties[0].status(id(1), seq), SendStatus::Delivered);
}

#[test]
fn messages_ready_together_share_a_frame_with_others_of_their_class() {
    let mut world = pair();
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let now = world.now;
    for class in [1, 1, 1, 2, 2, 1] {
        world.parties[0].send(now, id(1), Delivery::Ack, class, &[7; 100]).unwrap();
    }
    let (mut frame, mut classes) = (Vec::new(), Vec::new());
    while world.parties[0].poll_transmit(now, &mut frame).is_some() {
        classes.push(peek_class(&frame).unwrap());
        assert_ne!(world.parties[1].handle(now, id(0), address(id(0)), &mut frame), Verdict::Refused);
    }
    assert_eq!(classes, [1, 2, 1]);
    let received = std::iter::from_fn(|| world.parties[1].poll_event()).count();
    assert_eq!(received, 6);
}

#[test]
fn acknowledgements_ride_on_answers() {
    let mut world = pair();
    world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    let frames = |world: &World| world.parties.iter().map(|p| p.counters().frames_sent).sum::<u64>();
    let before = frames(&world);
    for _ in 0..10 {
        world.send(0, 1, Delivery::Ack, 10).unwrap();
        world.run_for(Duration::from_micros(100));
        world.send(1, 0, Delivery::Ack, 10).unwrap();
        world.run_for(Duration::from_micros(100));
    }
    world.run_for(SECOND);
    assert!(frames(&world) - before <= 21, "{} frames for 20 messages", frames(&world) - before);
}

#[test]
fn tags_hold_for_one_pair_direction_domain_and_text() {
    let world = World::new(1, 3, Config::default(), Faults::default());
    let [a, b, c] = &world.parties[..] else { panic!("three parties") };
    let tag = a.tag(id(1), "heartbeat", b"42").unwrap();
    assert!(b.verify_tag(id(0), "heartbeat", b"42", &tag));
    assert!(!b.verify_tag(id(0), "heartbeat", b"43", &tag));
    assert!(!b.verify_tag(id(0), "heartbea", b"t42", &tag));
    assert!(!b.verify_tag(id(2), "heartbeat", b"42", &tag));
    assert!(!c.verify_tag(id(0), "heartbeat", b"42", &tag));
    assert!(!a.verify_tag(id(1), "heartbeat", b"42", &tag), "reflected");
    assert_eq!(a.tag(id(0), "heartbeat", b"42"), None);
}

#[test]
fn strangers_and_crowds_cannot_fill_the_table_of_peers() {
    let config = Config { instances_max: 8, half_open_max: 4, ..Config::default() };
    let mut world = pair_with(config);
    let name = world.send(0, 1, Delivery::Ack, 10).unwrap();
    world.run_for(SECOND);
    // Frames of sessions that nobody has, as if from many instances of party 0.
    let mut frame = vec![0; 60];
    frame[..4].copy_from_slice(&[1, 4, 0, 0]);
    let now = world.now;
    for instance in 0..1000 {
        world.parties[1].handle(now, PeerId::new(100, 1000 + instance), address(id(0)), &mut frame);
    }
    let c = world.parties[1].counters();
    assert_eq!((c.unknown_session, c.peers_full), (1000, 0), "nothing is remembered of them");
    assert!(world.was_delivered(name) && world.parties[1].is_up(id(0)));
}

#[test]
fn a_forgotten_peer_does_not_take_new_messages_for_old_ones() {
    let config = Config { peers_max: 1, ..Config::default() };
    let mut world = World::new(3, 3, config.clone(), Faults::default());
    let mut names = vec![];
    for to in [1, 2, 1] {
        for delivery in [Delivery::Ack, Delivery::Nack] {
            for _ in 0..3 {
                names.push(world.send(0, to, delivery, 10).unwrap());
            }
        }
        world.run_for(SECOND);
        let now = world.now;
        let other = id(3 - to);
        assert_eq!(world.parties[0].send(now, other, Delivery::Ack, 0, b""), Err(SendError::TooManyPeers));
        world.run_for(config.forget_after);
    }
    assert!(names.iter().all(|name| world.was_delivered(*name)));
}

#[test]
fn what_is_refused_is_counted_by_peer_and_reason() {
    let mut world = World::new(5, 3, Config::default(), Faults::default());
    for from in [0, 2] {
        world.send(from, 1, Delivery::Ack, 10).unwrap();
    }
    world.run_for(SECOND);
    world.replay_everything();
    world.run_for(SECOND);
    let party = &world.parties[1];
    let peers: Vec<_> = party.counters_of_peers().collect();
    assert_eq!(peers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [id(0), id(2)]);
    for (peer, counters) in &peers {
        assert!(counters.messages_delivered == 1 && counters.replayed > 0, "{peer}: {counters:?}");
    }
    let place = Counters::NAMES.iter().position(|(name, _)| *name == "replayed").unwrap();
    let sum: u64 = peers.iter().map(|(_, counters)| counters.values()[place]).sum();
    assert_eq!(party.counters().values()[place], sum, "all of them, and nobody else's");
}
