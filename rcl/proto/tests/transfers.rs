//! Large messages that are announced.

#[allow(dead_code, reason = "each test uses its part")]
mod world;

use cl_base::{PeerId, Rng};
use rcl_proto::{CloseReason, Config, Event, Sink, Source, TransferId};
use std::any::Any;
use std::time::Duration;
use world::{CLEAN, World, bad};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const TEBIBYTE: u64 = 1 << 40;

/// A tebibyte whose byte `n` is `n mod 251`, or the place for one, of which only the newest piece is kept.
struct Endless {
    pattern: Vec<u8>,
    placed: u64,
}

impl Endless {
    fn new() -> Endless {
        Endless { pattern: (0..4096u32).map(|n| (n % 251) as u8).collect(), placed: 0 }
    }
}

impl Source for Endless {
    fn len(&self) -> u64 {
        TEBIBYTE
    }
    fn chunk(&self, at: u64, len: usize) -> &[u8] {
        &self.pattern[(at % 251) as usize..][..len]
    }
}

impl Sink for Endless {
    fn place(&mut self, at: u64, len: usize) -> &mut [u8] {
        assert_eq!(at, self.placed, "pieces come in order");
        self.placed += len as u64;
        &mut self.pattern[..len]
    }
}

fn world(seed: u64, paths: cl_sim::Link) -> World {
    let mut world = World::new(seed, paths, Config::new(1000), &[A, B]);
    world.connect(A, B);
    world
}

/// Runs until there is an event at `peer`.
fn event(world: &mut World, peer: PeerId) -> Event<Vec<u8>> {
    let end = world.now() + Duration::from_secs(60);
    loop {
        if let Some(event) = world.event(peer) {
            return event;
        }
        assert!(world.step(end), "nothing happens");
    }
}

#[test]
fn a_tebibyte_is_announced_begun_and_aborted() {
    let mut world = world(1, CLEAN);
    let id = world.node(A).send_large(B, Box::new(Endless::new())).unwrap();
    let Event::Announced { from: A, id: announced, len: TEBIBYTE } = event(&mut world, B) else { panic!() };
    assert_eq!(id, announced);
    let before = world.frames();
    world.run_for(Duration::from_millis(100));
    assert!(world.frames() - before < 10, "nothing flows before it is accepted");
    world.node(B).accept(A, id, Box::new(Endless::new()));
    world.run_for(Duration::from_millis(10));
    assert!(world.frames() - before > 1000);
    let sizes = world.node(A).sizes(B).unwrap();
    assert!(sizes.held == 0 && sizes.under_way <= 4096, "{sizes:?}");
    world.node(A).abort(B);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.closed(A), world.closed(B)), (vec![CloseReason::Aborted], vec![CloseReason::Reset]));
}

#[test]
fn announced_messages_arrive_whole_over_a_bad_network_between_others() {
    for seed in world::seeds(5) {
        let mut world = world(seed, bad());
        let mut rng = Rng::new(seed);
        let contents: Vec<Vec<u8>> = [0, 1, 999, 50_000, 200_000]
            .into_iter()
            .map(|len| (0..len).map(|_| rng.next_u64() as u8).collect())
            .collect();
        for (n, c) in contents.iter().enumerate() {
            assert_eq!(world.node(A).send_large(B, Box::new(c.clone())).unwrap(), TransferId(n as u64));
            world.node(A).send(B, vec![n as u8; 100]).unwrap();
        }
        world.node(A).close(B);
        let (mut in_order, mut received) = (Vec::new(), 0);
        loop {
            match event(&mut world, B) {
                Event::Announced { from, id, len } => {
                    assert_eq!(len, contents[id.0 as usize].len() as u64);
                    in_order.push(id.0);
                    world.node(B).accept(from, id, Box::new(Vec::new()));
                }
                Event::Message { buf, .. } => in_order.push(100 + u64::from(buf[0])),
                Event::Received { id, sink, .. } => {
                    let sink = (sink as Box<dyn Any>).downcast::<Vec<u8>>().unwrap();
                    assert!(*sink == contents[id.0 as usize], "seed {seed}: {id:?} is not what was sent");
                    received += 1;
                }
                Event::Closed(A, reason) => {
                    assert_eq!(reason, CloseReason::Graceful);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((received, in_order), (5, vec![0, 100, 1, 101, 2, 102, 3, 103, 4, 104]));
        let mut sent = 0;
        while let Event::Sent { to: B, .. } = event(&mut world, A) {
            sent += 1;
        }
        assert_eq!(sent, 5, "seed {seed}");
    }
}

#[test]
fn one_that_is_rejected_is_forgotten() {
    let mut world = world(1, CLEAN);
    let id = world.node(A).send_large(B, Box::new(Endless::new())).unwrap();
    let Event::Announced { .. } = event(&mut world, B) else { panic!() };
    world.node(B).reject(A, id);
    world.node(B).accept(A, id, Box::new(Vec::new()));
    let Event::Rejected { by: B, id: rejected } = event(&mut world, A) else { panic!() };
    assert_eq!(rejected, id);
    world.node(A).close(B);
    let Event::Closed(B, CloseReason::Graceful) = event(&mut world, A) else { panic!() };
}
