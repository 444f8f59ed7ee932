//! Two parties and a bad network in virtual time: one seed, one run.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::{PeerId, Rng, Time};
use cl_sim::Link;
use rcl_proto::{CloseReason, Config, Event, Refusal};
use std::time::Duration;
use world::{CLEAN, World, addr, bad, seeds};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

fn config() -> Config {
    Config { dead_after: Duration::from_secs(5), window: 64, ..Config::new(1000) }
}

fn world(seed: u64, paths: Link) -> World {
    World::new(seed, paths, config(), &[A, B])
}

fn message(number: u32, rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => rng.below(1 << 20),
        1..4 => rng.below(20_000),
        4..8 => *rng.pick(&[0, 500, 994, 995, 996, 997, 1000]).unwrap(),
        _ => rng.below(300),
    };
    let mut m = number.to_le_bytes().to_vec();
    m.extend((0..len as u32).map(|i| (i.wrapping_mul(31) ^ number) as u8));
    m
}

/// Sends `count` messages each way over `paths`, closes, and checks what arrives.
fn exchange(seed: u64, paths: Link, count: u32) {
    let mut world = world(seed, paths);
    world.connect(A, B);
    if seed.is_multiple_of(2) {
        world.connect(B, A);
    }
    let mut rng = Rng::new(seed ^ 0x5eed);
    let messages: Vec<Vec<u8>> = (0..count).map(|n| message(n, &mut rng)).collect();
    let (mut sent, mut received) = ([0; 2], [Vec::new(), Vec::new()]);
    let end = world.now() + Duration::from_secs(600);
    let mut last_progress = world.now();
    while received.iter().any(|r| r.len() < messages.len()) {
        for (side, (me, other)) in [(A, B), (B, A)].into_iter().enumerate() {
            while sent[side] < messages.len() {
                let copy = messages[sent[side]].clone();
                if world.node(me).send(other, copy).is_err() {
                    break;
                }
                sent[side] += 1;
                if world.rng().chance(1, 4) {
                    break;
                }
            }
            // Now and then a reader is slow.
            if world.rng().chance(1, 50) {
                let deaf = world.is_deaf(me);
                world.set_deaf(me, !deaf);
            }
            let new = world.messages(me);
            if !new.is_empty() {
                received[side].extend(new);
                last_progress = world.now();
            }
        }
        assert!(world.step(end), "seed {seed}: nothing more happens");
        if world.now().saturating_since(last_progress) > Duration::from_secs(1) {
            [A, B].into_iter().for_each(|side| world.set_deaf(side, false));
        }
        let stuck = world.now().saturating_since(last_progress) > Duration::from_secs(30);
        assert!(
            !stuck,
            "seed {seed}: {} and {} of {count}: {:?}",
            received[0].len(),
            received[1].len(),
            world.closed(A)
        );
    }
    for r in &received {
        assert!(r == &messages, "seed {seed}: lost, doubled or out of order");
    }
    [A, B].into_iter().for_each(|side| world.set_deaf(side, false));
    world.node(A).close(B);
    world.run_for(Duration::from_secs(20));
    for side in [A, B] {
        assert_eq!(world.closed(side), [CloseReason::Graceful], "seed {seed}, {side}");
        assert_eq!(world.node(side).next_deadline(), Time::MAX, "seed {seed}: nothing is left behind");
    }
    let counters = world.node(A).counters();
    let refused = counters.truncated + counters.version + counters.kind + counters.length + counters.checksum;
    // A corrupted frame may arrive twice.
    let corrupted = world.path_counts(B, A).faults.corrupted;
    assert!((corrupted..=2 * corrupted).contains(&refused), "{corrupted} corrupted: {counters:?}");
    assert_eq!(counters.violations, 0);
}

#[test]
fn over_a_clean_network_all_messages_arrive_in_order() {
    seeds(20).for_each(|seed| exchange(seed, CLEAN, 100));
}

#[test]
fn over_a_bad_network_all_messages_arrive_in_order_exactly_once() {
    seeds(20).for_each(|seed| exchange(seed, bad(), 100));
}

#[test]
fn under_heavy_loss_too() {
    let faults = "drop=30%,duplicate=10%,corrupt=1%";
    seeds(5).for_each(|seed| exchange(seed, bad().with_faults(faults), 30));
}

#[test]
fn a_clean_network_carries_a_large_message_without_waiting_for_timeouts() {
    let mut world = world(1, CLEAN);
    world.connect(A, B);
    let long: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
    world.node(A).send(B, long.clone()).unwrap();
    world.run_for(Duration::from_millis(20));
    assert!(world.messages(B) == [long], "it is not there, or not the same");
    assert_eq!(world.node(A).counters().retransmissions, 0);
}

#[test]
fn a_ping_pong_takes_one_frame_each_way() {
    let mut world = world(1, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    let before = world.frames();
    for n in 0..100u32 {
        for (from, to) in [(A, B), (B, A)] {
            world.node(from).send(to, n.to_le_bytes().to_vec()).unwrap();
            while world.messages(to).is_empty() {
                let end = world.now() + Duration::from_millis(1);
                assert!(world.step(end));
            }
        }
    }
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.frames() - before, 201, "and one that acknowledges the last");
}

#[test]
fn small_messages_share_frames() {
    let mut world = world(1, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    let before = world.frames();
    let messages: Vec<Vec<u8>> = (0..64u8).map(|n| vec![n; usize::from(n)]).collect();
    for m in &messages {
        world.node(A).send(B, m.clone()).unwrap();
    }
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.messages(B), messages);
    assert!(
        world.frames() - before <= 4,
        "{} frames for 2144 bytes in segments of 1000",
        world.frames() - before
    );
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    let config = Config { window: 8, send_buffer: 10_000, small_len: 0, ..config() };
    let mut world = World::new(3, CLEAN, config, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    world.set_deaf(B, true);
    let mut accepted = 0u32;
    for _ in 0..100 {
        while world.node(A).send(B, vec![accepted as u8; 1000]).is_ok() {
            accepted += 1;
        }
        let refused = world.node(A).send(B, vec![7; 4]).unwrap_err();
        assert_eq!((refused.reason, &refused.buf[..]), (Refusal::Backpressure, &[7; 4][..]));
        world.run_for(Duration::from_millis(600));
    }
    assert_eq!(accepted, 8 + 10, "a window at the receiver and a buffer at the sender");
    assert_eq!(world.node(B).sizes(A).unwrap().kept, 8);
    world.set_deaf(B, false);
    world.run_for(Duration::from_secs(1));
    let received = world.messages(B);
    assert_eq!(
        received.iter().map(|m| u32::from(m[0])).collect::<Vec<_>>(),
        (0..accepted).collect::<Vec<_>>()
    );
    assert_eq!(world.closed(A), []);
}

#[test]
fn a_window_that_opens_unheard_is_found_by_asking() {
    let mut world = World::new(4, CLEAN, Config { window: 2, small_len: 0, ..config() }, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    world.set_deaf(B, true);
    for n in 0..4 {
        world.node(A).send(B, vec![n]).unwrap();
    }
    world.run_for(Duration::from_millis(50));
    world.set_deaf(B, false);
    // The news that the window is open is lost.
    world.lose_all(true);
    world.run_for(Duration::from_millis(1));
    world.lose_all(false);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.messages(B), [[0], [1], [2], [3]]);
}

#[test]
fn a_silent_peer_is_dead_within_the_bound_and_not_before() {
    let mut world = world(5, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.closed(A), [], "an idle connection stays");
    world.lose_all(true);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.closed(A), []);
    world.run_for(Duration::from_secs(3));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Dead], vec![CloseReason::Dead]));
    assert_eq!(world.node(A).send(B, vec![1]).unwrap_err().reason, Refusal::NotConnected);
}

#[test]
fn an_idle_connection_that_need_not_be_kept_alive_is_silent_until_it_is_used() {
    let config = Config { keep_alive: false, ..config() };
    let mut world = World::new(5, CLEAN, config, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_secs(1));
    let before = world.frames();
    world.lose_all(true);
    world.run_for(Duration::from_secs(600));
    assert_eq!((world.frames(), world.closed(A)), (before, vec![]));
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(2400));
    assert_eq!(world.closed(A), [], "it has hardly been asked");
    world.run_for(Duration::from_millis(2600));
    assert_eq!(world.closed(A), [CloseReason::Dead]);
}

#[test]
fn a_party_that_did_not_listen_for_long_does_not_blame_its_peer() {
    let mut world = world(7, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_secs(1));
    // Both were stopped for a while; one of them learns of the time before it hears the other.
    world.sleep(Duration::from_secs(60));
    let now = world.now();
    world.node(A).on_deadline(now);
    world.run_for(Duration::from_secs(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![], vec![]));
}

#[test]
fn a_peer_that_never_answers_is_dead_within_the_bound() {
    let mut world = world(6, CLEAN.with_faults("drop=100%"));
    world.connect(A, B);
    world.run_for(Duration::from_millis(5100));
    assert_eq!(world.closed(A), [CloseReason::Dead]);
}

/// Frames stay on the way for long, and many are doubled.
fn late() -> Link {
    let jitter = Duration::from_millis(20);
    Link { jitter, ..CLEAN }.with_faults("drop=5%,duplicate=30%,corrupt=1%")
}

#[test]
fn a_restarted_peer_is_noticed_and_its_former_life_does_not_mix_with_the_new() {
    for seed in seeds(100) {
        let mut world = world(seed, late());
        world.connect(A, B);
        for n in 0..50 {
            world.node(A).send(B, vec![n; 300]).unwrap();
        }
        let before = world.rng().below(200_000);
        world.run_for(Duration::from_micros(before));
        world.restart(A);
        // Now the peer calls, as a new life; the frames of the old one are still on the way.
        world.connect(A, B);
        world.node(A).send(B, b"new life".to_vec()).unwrap();
        let mut received = Vec::new();
        let end = world.now() + Duration::from_secs(5);
        let mut closed = Vec::new();
        while received.last().is_none_or(|m: &Vec<u8>| m != b"new life") {
            assert!(world.step(end), "seed {seed}");
            while let Some(event) = world.event(B) {
                match event {
                    Event::Message { buf, .. } => received.push(buf),
                    Event::Closed(_, reason) => closed.push(reason),
                    other => panic!("{other:?}"),
                }
            }
        }
        for (n, m) in received[..received.len() - 1].iter().enumerate() {
            assert_eq!(m, &vec![n as u8; 300], "seed {seed}");
        }
        world.run_for(Duration::from_secs(10));
        assert!(world.messages(B).is_empty(), "seed {seed}");
        assert_eq!((world.closed(A), world.closed(B)), (vec![], vec![]), "seed {seed}: the new one stays");
        // Whichever comes first: the call of the new life, or its answer to a frame meant for the old one.
        let known = [vec![], vec![CloseReason::Restarted], vec![CloseReason::Reset]];
        assert!(known.contains(&closed), "seed {seed}: {closed:?}");
    }
}

#[test]
fn a_restarted_receiver_never_continues_a_former_life() {
    for seed in seeds(100) {
        let mut world = world(seed, late());
        world.connect(A, B);
        let before = 1 + world.rng().below(100_000);
        for n in 0..100u8 {
            world.node(A).send(B, vec![n; 800]).unwrap();
        }
        world.run_for(Duration::from_micros(before));
        world.restart(B);
        world.run_for(Duration::from_secs(20));
        let reset = world.closed(A);
        let received = world.messages(B);
        // Either B had not been reached before, and all arrives, or nothing does.
        if reset.is_empty() {
            assert_eq!(received.len(), 100, "seed {seed}");
        } else {
            assert_eq!((reset, received.len()), (vec![CloseReason::Reset], 0), "seed {seed}");
        }
    }
}

#[test]
fn a_peer_that_lost_its_memory_and_waits_to_be_called_resets_the_old_connection() {
    let mut world = world(8, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    world.restart(B);
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.closed(A), [CloseReason::Reset]);
}

#[test]
fn an_abort_is_told_to_the_peer() {
    let mut world = world(9, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    world.node(B).abort(A);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Reset], vec![CloseReason::Aborted]));
    world.connect(A, B);
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.messages(B), [[1]], "a new connection can be made");
}

#[test]
fn messages_sent_before_the_close_arrive_before_the_end() {
    let mut world = world(10, bad());
    world.connect(A, B);
    for n in 0..20 {
        world.node(A).send(B, vec![n; 500]).unwrap();
    }
    world.node(A).close(B);
    assert_eq!(world.node(A).send(B, vec![]).unwrap_err().reason, Refusal::NotConnected);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.messages(B), (0..20).map(|n| vec![n; 500]).collect::<Vec<_>>());
    assert_eq!(
        (world.closed(A), world.closed(B)),
        (vec![CloseReason::Graceful], vec![CloseReason::Graceful])
    );
}

#[test]
fn what_arrived_before_an_abort_is_read_before_the_end() {
    let mut world = world(12, CLEAN);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    world.set_deaf(B, true);
    world.node(A).send(B, vec![1]).unwrap();
    world.run_for(Duration::from_millis(10));
    world.node(A).abort(B);
    world.run_for(Duration::from_millis(10));
    world.set_deaf(B, false);
    assert_eq!(world.messages(B), [[1]]);
    assert_eq!(world.closed(B), [CloseReason::Reset]);
}

#[test]
fn hostile_frames_do_no_harm() {
    let mut rng = Rng::new(11);
    let config = Config { checksum: rcl_proto::Checksum::None, ..config() };
    let mut world = World::new(11, CLEAN, config, &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(10));
    let now = world.now();
    world.node(A).send(B, vec![]).unwrap();
    let frame = world.node(A).poll_transmit(now).expect("a message");
    let numbers: [u8; 16] = frame.head[8..24].try_into().unwrap();
    // Well-formed frames of random meaning, from strangers and as if from the peer.
    for i in 0..100_000u64 {
        let mut frame = vec![5, rng.below(20) as u8, rng.below(2) as u8, 0, 0, 0, 0, 0];
        for _ in 0..5 {
            // Often near what is in use.
            let word = if rng.chance(1, 3) { rng.next_u64() } else { 995 + rng.below(10) };
            frame.extend_from_slice(&word.to_le_bytes());
        }
        // As by somebody on the way, who reads the numbers of both ends.
        let as_peer = rng.chance(1, 2);
        if as_peer {
            frame[8..24].copy_from_slice(&numbers);
        }
        frame.extend((0..*rng.pick(&[0, 0, 1, 8, 16, 32, 100]).unwrap()).map(|_| i as u8));
        let from = if as_peer { A } else { PeerId::new(rng.below(10_000) as u32 + 1, 0) };
        let now = world.now();
        world.node(B).on_frame(now, from, addr(from), frame);
        if i % 100 == 0 {
            while world.node(B).poll_transmit(now).is_some() {}
            while world.node(B).poll_event().is_some() {}
            world.sleep(Duration::from_millis(1));
            let now = world.now();
            world.node(B).on_deadline(now);
        }
    }
    let counters = world.node(B).counters();
    assert!(counters.stale > 0 && counters.kind > 0 && counters.length > 0, "{counters:?}");
}

#[test]
fn a_peer_that_starts_anew_all_the_time_does_not_fill_the_memory_of_one_that_does_not_ask() {
    let mut world = World::new(13, CLEAN, Config { connections_max: 10, ..config() }, &[A, B]);
    world.set_deaf(B, true);
    for _ in 0..200 {
        world.restart(A);
        world.connect(A, B);
        world.run_for(Duration::from_millis(1));
    }
    let counters = world.node(B).counters();
    assert!(counters.refused > 100, "{counters:?}");
    world.set_deaf(B, false);
    let closed = world.closed(B).len();
    assert!((10..=40).contains(&closed), "{closed} ends were kept");
    world.restart(A);
    world.connect(A, B);
    world.node(A).send(B, vec![1]).unwrap();
    let mut received = 0;
    let end = world.now() + Duration::from_millis(10);
    while world.step(end) {
        while let Some(event) = world.event(B) {
            received += usize::from(matches!(event, Event::Message { .. }));
        }
    }
    assert_eq!(received, 1, "who asks again is answered again");
}
