//! Whatever bytes arrive: refused and counted, and the session goes on.

mod world;

use cl_base::{Incarnation, Time};
use mml_proto::{Config, Delivery, Event, Mml, Verdict, peek_class};
use proptest::prelude::*;
use world::{Faults, World, address, id, pair};

fn refused(mml: &Mml) -> u64 {
    let c = mml.counters();
    c.malformed
        + c.unknown_peer
        + c.bad_mac
        + c.replayed
        + c.stale_incarnation
        + c.stale_handshake
        + c.unknown_session
        + c.peers_full
}

proptest! {
    #[test]
    fn no_bytes_panic_and_all_are_counted(
        frames in prop::collection::vec((0u32..12, prop::collection::vec(any::<u8>(), 0..120), 0u8..8), 1..40),
    ) {
        let mut mml = Mml::new(Config::default(), id(0), Incarnation(1), Box::new(pair), [0; 32]);
        for (count, (from, mut frame, kind)) in frames.into_iter().enumerate() {
            // Most begin like a frame, or all would end at the first byte.
            if let (Some(start), 1..) = (frame.get_mut(..4), kind) {
                start.copy_from_slice(&[1, kind, start[2] & 1, 0]);
            }
            peek_class(&frame);
            let verdict = mml.handle(Time::from_nanos(1 << 40), cl_base::PeerId::new(98 + from, from % 2), address(id(0)), &mut frame);
            prop_assert_eq!(verdict, Verdict::Refused);
            prop_assert_eq!(refused(&mml), count as u64 + 1);
        }
        prop_assert_eq!(mml.poll_event(), None);
    }
}

#[test]
fn every_flipped_bit_of_every_frame_is_refused() {
    let mut world = World::new(1, 2, Config::default(), Faults::default());
    for (i, delivery) in [Delivery::Ack, Delivery::Nack, Delivery::Unr].into_iter().enumerate() {
        world.send(0, 1, delivery, 2000 * i + 10);
    }
    let mut session_frames = 0;
    while let Some((from, to, mut frame)) = world.take_next() {
        // The last 16 bytes of the first frame of a handshake are the MAC under a cookie, which nobody asked for.
        let protected = frame.len() - if frame[1] == 1 { 16 } else { 0 };
        for bit in 0..protected * 8 {
            let mut wrong = frame.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let now = world.now;
            assert_eq!(
                world.party(to).handle(now, from, address(from), &mut wrong),
                Verdict::Refused,
                "bit {bit}"
            );
            assert_eq!(world.party(to).poll_event(), None);
        }
        // Nor is it accepted from or by another party.
        let now = world.now;
        assert_eq!(world.party(from).handle(now, to, address(to), &mut frame.clone()), Verdict::Refused);
        session_frames += u32::from(peek_class(&frame).is_some());
        // What is said of an unknown session is about one that an altered frame has named.
        let unknown_session = frame[1] == 5;
        let verdict = world.party(to).handle(now, from, address(from), &mut frame);
        assert_eq!(verdict == Verdict::Refused, unknown_session);
        world.pump();
    }
    assert!(session_frames >= 4, "{session_frames}");
    let messages = world.events.iter().filter(|(_, e)| matches!(e, Event::Message { .. })).count();
    assert_eq!(messages, 3);
}
