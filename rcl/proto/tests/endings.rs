//! How connections end when the network is bad, or when there is none: gracefully as long as anything gets through,
//! and within the bound if nothing does.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::{PeerId, Rng, Time};
use cl_sim::Link;
use rcl_proto::{CloseReason, Config, Event, Heap, Node};
use std::collections::VecDeque;
use std::time::Duration;
use world::{CLEAN, World, addr, seeds};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// After this, an end that has heard nothing more forgets the connection: 8 times the longest time-out.
const LINGERING: Duration = Duration::from_secs(4);

fn config() -> Config {
    Config { dead_after: DEAD_AFTER, window: 64, ..Config::new(1000) }
}

fn connected(seed: u64) -> World {
    let mut world = World::new(seed, CLEAN, config(), &[A, B]);
    world.connect(A, B);
    world.run_for(Duration::from_millis(1));
    world
}

/// Connects over a clean network, loses `percent` of all frames from then on, closes, and tells how it has ended
/// for both sides.
fn close_under_loss(seed: u64, percent: u32) -> [CloseReason; 2] {
    let mut world = connected(seed);
    world.set_faults(format!("drop={percent}%").parse().expect("faults"));
    if world.rng().chance(1, 2) {
        world.node(A).send(B, vec![1; 100]).unwrap();
    }
    world.node(A).close(B);
    if world.rng().chance(1, 3) {
        world.node(B).close(A);
    }
    world.run_for(Duration::from_secs(120));
    world.messages(B);
    [A, B].map(|side| {
        let reasons = world.closed(side);
        assert_eq!(world.node(side).next_deadline(), Time::MAX, "seed {seed}: nothing is left behind");
        let [reason] = reasons[..] else { panic!("seed {seed}: {reasons:?}") };
        reason
    })
}

/// Who has to repeat itself does so after 4, 8, … 256 ms, and then every 500 ms; beside that it asks three times in the
/// five seconds after which it gives up. It dies if of so many questions and their answers none comes through.
const ATTEMPTS: i32 = 7 + 9 + 3;

#[test]
fn closings_fail_no_more_often_than_all_attempts_within_the_bound_are_lost() {
    for percent in [30, 50, 60, 70] {
        let (count, mut dead) = (1000, 0);
        for seed in 0..count {
            for reason in close_under_loss(seed, percent) {
                match reason {
                    CloseReason::Graceful => {}
                    CloseReason::Dead => dead += 1,
                    other => panic!("{percent} %, seed {seed}: {other}"),
                }
            }
        }
        let through = (1.0 - f64::from(percent) / 100.0).powi(2);
        // One side waits for the last word in most runs, now and then both.
        let expected = count as f64 * (1.0 - through).powi(ATTEMPTS);
        println!("{percent} %: {dead} dead of {count}, {expected:.2} expected");
        assert!(f64::from(dead) <= 2.0 * expected + 3.0, "{percent} %: {dead} dead, {expected:.2} expected");
        assert!(f64::from(dead) >= expected / 3.0 - 1.0, "{percent} %: the calculation is wrong");
    }
}

/// A has closed and read the end; B has not heard that its own end has arrived.
fn half_closed(seed: u64) -> World {
    let mut world = connected(seed);
    world.node(A).close(B);
    // A's end arrives after 10 microseconds, B's after 20; what A says to that is lost.
    world.run_for(Duration::from_micros(15));
    world.cut(A, B);
    world.run_for(Duration::from_millis(1));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Graceful], vec![]));
    world
}

#[test]
fn who_is_still_asked_lingers() {
    let mut world = half_closed(1);
    // B asks all the time. A must not forget, although it has waited long enough since its own end.
    world.run_for(LINGERING + Duration::from_millis(500));
    assert_eq!(world.closed(B), []);
    world.heal();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.closed(B), [CloseReason::Graceful]);
    assert_eq!(world.node(A).counters().stale, 0, "it was answered by the connection itself");
    world.run_for(LINGERING);
    assert!(world.node(A).sizes(B).is_none(), "and forgotten in the end");
}

#[test]
fn who_has_forgotten_still_tells_of_the_graceful_end() {
    let mut world = half_closed(2);
    world.cut(B, A);
    world.run_for(LINGERING + Duration::from_millis(100));
    assert!(world.node(A).sizes(B).is_none(), "it has forgotten");
    world.heal();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.closed(B), [CloseReason::Graceful]);
    assert!(world.node(A).counters().stale > 0);
}

#[test]
fn an_end_that_is_not_read_for_long_is_a_graceful_one_all_the_same() {
    let mut world = connected(3);
    world.set_deaf(B, true);
    world.node(A).send(B, vec![7]).unwrap();
    world.node(A).close(B);
    world.node(B).close(A);
    // A has read B's end. B, which is polled but does not read, asks now and then whether A lives, and is answered.
    world.run_for(DEAD_AFTER * 3);
    assert_eq!(world.closed(A), [CloseReason::Graceful]);
    world.set_deaf(B, false);
    assert_eq!(world.messages(B), [[7]]);
    assert_eq!(world.closed(B), [CloseReason::Graceful]);
}

#[test]
fn who_does_not_listen_to_its_own_end_still_answers_the_peer() {
    let mut world = connected(4);
    world.node(A).close(B);
    world.node(B).close(A);
    world.run_for(Duration::from_micros(5));
    world.cut(A, B);
    // A reads B's end, and then looks elsewhere, when B's acknowledgement of its own arrives. B waits for one.
    world.run_for(Duration::from_micros(7));
    world.set_deaf(A, true);
    world.run_for(LINGERING + Duration::from_millis(500));
    world.heal();
    world.run_for(LINGERING * 3);
    assert_eq!(world.closed(B), [CloseReason::Graceful]);
    world.set_deaf(A, false);
    assert_eq!(world.closed(A), [CloseReason::Graceful]);
}

#[test]
fn an_abort_after_the_last_word_is_no_graceful_end() {
    let mut world = connected(5);
    world.set_deaf(A, true);
    world.node(B).send(A, vec![7]).unwrap();
    world.node(B).close(A);
    world.run_for(Duration::from_millis(10));
    // All of B's has arrived, and was not read.
    world.node(A).abort(B);
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.closed(B), [CloseReason::Reset]);
}

/// What both were doing when the network went away.
fn busy_world(seed: u64) -> World {
    let jitter = Duration::from_micros(200);
    let mut world = World::new(seed, Link { jitter, ..CLEAN }, config(), &[A, B]);
    world.connect(A, B);
    if seed.is_multiple_of(3) {
        world.connect(B, A);
    }
    let messages = world.rng().below(3) * 100;
    for n in 0..messages {
        let (from, to) = if world.rng().chance(1, 2) { (A, B) } else { (B, A) };
        let _ = world.node(from).send(to, vec![n as u8; 1 + n as usize * 50]);
    }
    if seed.is_multiple_of(5) {
        world.node(A).send_large(B, Box::new(vec![1; 1 << 20])).unwrap();
    }
    if seed.is_multiple_of(4) {
        world.set_deaf(B, true);
    }
    if seed.is_multiple_of(7) {
        world.node(A).close(B);
    }
    world
}

#[test]
fn a_death_is_told_within_the_bound_whatever_was_going_on() {
    // What was on its way when the network went away is heard a little later.
    const ON_THE_WAY: Duration = Duration::from_millis(1);
    let mut told = 0;
    for seed in seeds(400) {
        let mut world = busy_world(seed);
        // From the first call to long after the last message.
        let longest = *world.rng().pick(&[100, 1000, 20_000, 10_000_000]).unwrap();
        let before = world.rng().below(longest);
        world.run_for(Duration::from_micros(before));
        let closed = [A, B].map(|side| world.node(side).sizes(if side == A { B } else { A }).is_none());
        world.lose_all(true);
        world.run_for(DEAD_AFTER * 3 / 4);
        let early = [A, B].map(|side| {
            world.messages(side);
            world.closed(side)
        });
        assert!(!early.concat().contains(&CloseReason::Dead), "seed {seed}: too early");
        world.run_for(DEAD_AFTER / 4 + ON_THE_WAY);
        world.set_deaf(B, false);
        for (side, closed) in [A, B].into_iter().zip(closed) {
            world.messages(side);
            let reasons = world.closed(side);
            let over = world.node(side).sizes(if side == A { B } else { A }).is_none();
            if closed {
                continue; // never called, or over before
            }
            // Who was done already lingers for a while.
            told += usize::from(reasons == [CloseReason::Dead]);
            assert!(over || reasons.is_empty(), "seed {seed}, {side}: {reasons:?} and not over");
            let lingers = world.node(side).next_deadline() != Time::MAX;
            assert!(over || lingers, "seed {seed}, {side}: neither dead nor done after {before} us");
        }
        world.run_for(DEAD_AFTER);
        for side in [A, B] {
            assert_eq!(world.node(side).next_deadline(), Time::MAX, "seed {seed}");
        }
    }
    assert!(told > 300, "{told} deaths in 400 runs");
}

/// Two parties of which A is polled at random instants only; the frames between them take no time.
struct Late {
    nodes: [Node<Heap>; 2],
    /// Frames to each of them.
    arriving: [VecDeque<Vec<u8>>; 2],
    now: Time,
}

impl Late {
    fn new(dead_after: Duration) -> Late {
        let config = Config { dead_after, ..config() };
        let nodes = [1, 2].map(|secret| Node::new(config.clone(), &[secret; 32], Heap));
        let now = Time::ZERO + Duration::from_secs(1);
        let mut late = Late { nodes, arriving: Default::default(), now };
        late.nodes[0].connect(now, B, addr(B));
        for _ in 0..4 {
            late.poll(0, true);
            late.poll(1, true);
        }
        late
    }

    /// What an endpoint does when it is polled: takes in what has arrived, then looks at the time. The reason, if
    /// the connection has ended.
    fn poll(&mut self, who: usize, other_lives: bool) -> Option<CloseReason> {
        let (peers, now) = ([A, B], self.now);
        while let Some(frame) = self.arriving[who].pop_front() {
            self.nodes[who].on_frame(now, peers[1 - who], addr(peers[1 - who]), frame);
        }
        self.nodes[who].on_deadline(now);
        let mut reason = None;
        while let Some(event) = self.nodes[who].poll_event() {
            if let Event::Closed(_, why) = event {
                reason = Some(why);
            }
        }
        while let Some(t) = self.nodes[who].poll_transmit(now) {
            if other_lives {
                self.arriving[1 - who].push_back([t.head, t.body].concat());
            }
        }
        reason
    }
}

#[test]
fn delays_of_ones_own_do_not_add_up_while_they_are_short() {
    let dead_after = Duration::from_millis(300);
    for seed in seeds(200) {
        let (mut rng, mut late) = (Rng::new(seed), Late::new(dead_after));
        let gap_max = dead_after / 8;
        let vanished = late.now;
        loop {
            late.now += Duration::from_nanos(rng.below(gap_max.as_nanos() as u64));
            if let Some(reason) = late.poll(0, false) {
                assert_eq!(reason, CloseReason::Dead);
                break;
            }
        }
        let took = late.now.saturating_since(vanished);
        assert!((dead_after..dead_after + gap_max).contains(&took), "seed {seed}: {took:?}");
    }
}

#[test]
fn who_is_polled_too_rarely_blames_nobody_who_answers_and_still_notices_a_death() {
    let dead_after = Duration::from_millis(300);
    for seed in seeds(200) {
        let (mut rng, mut late) = (Rng::new(seed), Late::new(dead_after));
        let gap_max = dead_after * 3;
        for _ in 0..50 {
            late.now += Duration::from_nanos(rng.below(gap_max.as_nanos() as u64));
            assert_eq!(late.poll(0, true), None, "seed {seed}");
            assert_eq!(late.poll(1, true), None, "seed {seed}");
        }
        let vanished = late.now;
        let mut polls = 0;
        while late.poll(0, false).is_none() {
            late.now += Duration::from_nanos(rng.below(gap_max.as_nanos() as u64));
            polls += 1;
        }
        let took = late.now.saturating_since(vanished);
        assert!(
            took >= dead_after && took <= dead_after + gap_max * 6,
            "seed {seed}: {took:?}, {polls} polls"
        );
    }
}
