//! Messages to several receivers, and messages handed up where they lie.

mod world;

use cl_base::PeerId;
use mml_proto::{Body, Config, Delivery, Event, SendError, Verdict};
use std::time::Duration;
use world::{Faults, World, address, id};

/// Party 0 with sessions with three others.
fn group() -> (World, Vec<PeerId>) {
    let mut world = World::new(3, 4, Config::default(), Faults::default());
    for to in 1..4 {
        world.send(0, to, Delivery::Ack, 10).expect("there is room");
    }
    world.run_for(Duration::from_secs(1));
    world.events.clear();
    (world, (1..4).map(id).collect())
}

/// The frames that party 0 has to send, each with what goes behind it.
fn frames(world: &mut World) -> Vec<(PeerId, Vec<u8>, Option<Body>)> {
    let (now, mut frame, mut frames) = (world.now, Vec::new(), Vec::new());
    while let Some((transmit, rest)) = world.parties[0].poll_transmit_parts(now, &mut frame) {
        frames.push((transmit.to, frame.clone(), rest));
    }
    frames
}

/// The bodies that `to` is handed of a frame of party 0.
fn bodies(world: &mut World, to: PeerId, frame: &[u8]) -> (Verdict, Vec<Vec<u8>>) {
    let (now, mut bodies, mut frame) = (world.now, Vec::new(), frame.to_vec());
    let verdict = world.party(to).handle_each(now, id(0), address(id(0)), &mut frame, &mut |message| {
        assert_eq!((message.from, message.class), (id(0), 4));
        bodies.push(message.body.to_vec());
    });
    (verdict, bodies)
}

#[test]
fn a_long_body_is_the_same_memory_behind_all_frames_and_belongs_to_them() {
    for delivery in [Delivery::Unr, Delivery::Ack, Delivery::Nack] {
        let (mut world, everybody) = group();
        let (now, contents) = (world.now, vec![7; 20_000]);
        world.parties[0].send_group(now, &everybody, delivery, 4, contents.clone(), |_, sent| {
            sent.expect("there is room");
        });
        let frames = frames(&mut world);
        assert_eq!(frames.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), everybody);
        let places = frames.iter().map(|(_, _, rest)| rest.as_ref().expect("it is long").as_ptr());
        assert_eq!(places.collect::<std::collections::BTreeSet<_>>().len(), 1, "copied");
        for (to, frame, rest) in &frames {
            assert!(frame.len() < 200, "{} bytes without the body", frame.len());
            let genuine = [frame, &rest.as_ref().unwrap()[..]].concat();
            // Another body in its place is refused, and does not keep the genuine one out.
            let mut altered = genuine.clone();
            *altered.last_mut().unwrap() ^= 1;
            assert_eq!(bodies(&mut world, *to, &altered), (Verdict::Refused, vec![]));
            assert_eq!(bodies(&mut world, *to, &genuine[..genuine.len() - 1]), (Verdict::Refused, vec![]));
            assert_eq!(bodies(&mut world, *to, &genuine), (Verdict::Authentic, vec![contents.clone()]));
            assert_eq!(bodies(&mut world, *to, &genuine), (Verdict::Refused, vec![]));
        }
    }
}

#[test]
fn short_bodies_travel_in_the_frame() {
    let (mut world, everybody) = group();
    let now = world.now;
    world.parties[0].send_group(now, &everybody, Delivery::Unr, 4, &[9; 1024], |_, sent| {
        sent.expect("there is room");
    });
    for (to, frame, rest) in frames(&mut world) {
        assert!(rest.is_none());
        assert_eq!(bodies(&mut world, to, &frame), (Verdict::Authentic, vec![vec![9; 1024]]));
    }
}

#[test]
fn what_leaves_at_once_is_in_no_queue_and_waits_behind_what_is() {
    let (mut world, _) = group();
    let (now, mut frame) = (world.now, Vec::new());
    let party = &mut world.parties[0];
    let (first, left) = party.send_at_once(now, id(1), 4, &(&[1; 30]).into(), &mut frame).unwrap();
    assert_eq!(left.expect("nothing waits").0.to, id(1));
    assert_eq!(party.poll_transmit(now, &mut Vec::new()), None);
    let left_at_once = frame.clone();
    // A frame with what waits, and behind it what came later, in one.
    party.send(now, id(1), Delivery::Ack, 4, &[2; 30]).unwrap();
    let (second, left) = party.send_at_once(now, id(1), 4, &(&[3; 30]).into(), &mut frame).unwrap();
    assert!(left.is_none() && frame == left_at_once);
    assert_eq!(second.number, first.number + 1);
    let long = vec![0; Config::default().body_bytes_max + 1];
    let refused = party.send_at_once(now, id(1), 4, &(&long).into(), &mut frame);
    assert!(matches!(refused, Err(SendError::TooLong { .. })));
    let stranger = party.send_at_once(now, id(0), 4, &(&[0; 3]).into(), &mut frame);
    assert!(matches!(stranger, Err(SendError::UnknownPeer)));
    let queued = frames(&mut world);
    let [(_, waited, None)] = &queued[..] else { panic!("one frame") };
    assert_eq!(bodies(&mut world, id(1), &left_at_once), (Verdict::Authentic, vec![vec![1; 30]]));
    let (verdict, mut later) = bodies(&mut world, id(1), waited);
    later.sort();
    assert_eq!((verdict, later), (Verdict::Authentic, vec![vec![2; 30], vec![3; 30]]));
    assert_eq!(bodies(&mut world, id(1), &left_at_once), (Verdict::Refused, vec![]));
}

#[test]
fn an_acknowledgement_that_is_owed_rides_with_what_is_sent_at_once() {
    let (mut world, _) = group();
    let (now, mut frame) = (world.now, Vec::new());
    world.party(id(1)).send(now, id(0), Delivery::Ack, 4, &[1; 30]).unwrap();
    world.party(id(1)).poll_transmit(now, &mut frame).expect("a message");
    world.parties[0].handle_each(now, id(1), address(id(1)), &mut frame, &mut |_| ());
    let (_, left) = world.parties[0].send_at_once(now, id(1), 4, &(&[2; 30]).into(), &mut frame).unwrap();
    assert!(left.is_none());
    let queued = frames(&mut world);
    let [(_, sent, None)] = &queued[..] else { panic!("one frame") };
    assert_eq!(bodies(&mut world, id(1), sent), (Verdict::Authentic, vec![vec![2; 30]]));
    assert!(matches!(world.party(id(1)).poll_event(), Some(Event::Delivered { .. })));
}

#[test]
fn messages_of_all_kinds_are_handed_up_where_they_lie_in_order() {
    let (mut world, _) = group();
    let now = world.now;
    for round in 0..5u8 {
        for delivery in [Delivery::Unr, Delivery::Ack, Delivery::Nack] {
            world.parties[0].send(now, id(1), delivery, 4, &[round; 30]).expect("there is room");
        }
    }
    let [(_, frame, None)] = &frames(&mut world)[..] else { panic!("one frame") };
    let (verdict, bodies) = bodies(&mut world, id(1), frame);
    assert_eq!((verdict, bodies.len()), (Verdict::Authentic, 15));
    for kind in bodies.chunks(5) {
        assert!(kind.iter().zip(0..).all(|(body, round): (_, u8)| *body == [round; 30]), "{kind:?}");
    }
}
