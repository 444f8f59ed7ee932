use super::*;
use crate::header::MESSAGE_LEN_MAX;
use crate::pool::{PoolConfig, SizeClass};
use cl_base::Rng;
use proptest::prelude::*;

const T0: Time = Time::from_nanos(1_000_000_000);

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 9))
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31) >> 3) as u8).collect()
}

/// The fragments of `contents`: headers and bodies.
fn fragments(source: u32, id: u32, contents: &[u8], max: usize) -> Vec<(Repr, Vec<u8>)> {
    let geometry = Geometry::for_message(contents.len(), max).unwrap();
    let (source, destination) = (PeerId::new(source, 0), PeerId::new(99, 0));
    (0..geometry.count())
        .map(|index| {
            let repr =
                Repr { source, destination, message: id, geometry, form: crate::header::Form::Plain, index };
            (repr, contents[geometry.range(index)].to_vec())
        })
        .collect()
}

struct World {
    pool: Pool,
    reassembly: Reassembly,
    tally: Tally,
}

impl World {
    fn new() -> World {
        World {
            pool: Pool::new(&PoolConfig::default()).unwrap(),
            reassembly: Reassembly::default(),
            tally: Tally::default(),
        }
    }

    fn evicted_and_expired(&self) -> (u64, u64) {
        let drops = &self.tally.stats.drops;
        (drops.reassembly_evicted, drops.reassembly_expired)
    }

    fn insert(&mut self, now: Time, (repr, contents): &(Repr, Vec<u8>)) -> Outcome {
        self.reassembly.insert(now, addr(1), repr, contents, &self.pool, &mut self.tally)
    }
}

proptest! {
    #[test]
    fn shuffled_doubled_and_interleaved_fragments_come_together(
        seed in any::<u64>(), lens in proptest::collection::vec(2usize..40_000, 1..5), max in 100usize..2000,
    ) {
        let mut world = World::new();
        let messages: Vec<Vec<u8>> = lens.iter().map(|&len| message(len)).collect();
        let mut all: Vec<_> =
            messages.iter().enumerate().flat_map(|(i, m)| fragments(1, i as u32, m, max)).collect();
        let mut rng = Rng::new(seed);
        rng.shuffle(&mut all);
        let mut complete = vec![false; messages.len()];
        let mut seen: Vec<(u32, u16)> = Vec::new();
        for fragment in &all {
            let id = fragment.0.message as usize;
            match world.insert(T0, fragment) {
                Outcome::Complete(buf) => {
                    prop_assert_eq!(&buf[..], &messages[id][..]);
                    complete[id] = true;
                }
                Outcome::Incomplete => seen.push((fragment.0.message, fragment.0.index)),
                other => prop_assert!(false, "{:?}", other),
            }
            // A fragment of an unfinished message comes again.
            if let Some(&(m, i)) = rng.pick(&seen) && !complete[m as usize] {
                let again = all.iter().find(|f| (f.0.message, f.0.index) == (m, i)).unwrap();
                prop_assert!(matches!(world.insert(T0, again), Outcome::Duplicate));
            }
        }
        prop_assert!(complete.iter().all(|&c| c));
        prop_assert!(world.reassembly.is_empty() && world.reassembly.bytes == 0);
        prop_assert!(world.reassembly.held.is_empty());
    }
}

#[test]
fn a_message_with_a_lost_fragment_is_given_up_and_its_buffer_returns() {
    let mut world = World::new();
    let free = world.pool.available(3000);
    for fragment in &fragments(1, 7, &message(3000), 1000)[..2] {
        assert!(matches!(world.insert(T0, fragment), Outcome::Incomplete));
    }
    assert_eq!(world.pool.available(3000), free - 1);
    world.reassembly.expire(T0 + TIMEOUT / 2, &mut world.tally);
    assert!(!world.reassembly.is_empty());
    world.reassembly.expire(T0 + TIMEOUT, &mut world.tally);
    assert_eq!((world.evicted_and_expired(), world.pool.available(3000)), ((0, 1), free));
}

#[test]
fn fragments_of_contradictory_geometry_do_not_mix() {
    let mut world = World::new();
    let (one, other) = (fragments(1, 7, &message(3000), 1000), fragments(1, 7, &message(3000), 500));
    assert!(matches!(world.insert(T0, &one[0]), Outcome::Incomplete));
    assert!(matches!(world.insert(T0, &other[1]), Outcome::Inconsistent));
    assert!(matches!(world.insert(T0, &one[1]), Outcome::Incomplete));
    assert!(matches!(world.insert(T0, &one[2]), Outcome::Complete(_)));
}

#[test]
fn equal_message_numbers_from_different_addresses_are_different_messages() {
    let mut world = World::new();
    let f = fragments(1, 7, &message(1500), 1000);
    let World { pool, reassembly, tally } = &mut world;
    assert!(matches!(reassembly.insert(T0, addr(1), &f[0].0, &f[0].1, pool, tally), Outcome::Incomplete));
    assert!(matches!(reassembly.insert(T0, addr(2), &f[1].0, &f[1].1, pool, tally), Outcome::Incomplete));
}

#[test]
fn huge_claims_of_one_sender_cost_it_its_own_older_messages_only() {
    let mut world = World::new();
    let innocent = fragments(2, 1, &message(100_000), 60_000);
    assert!(matches!(world.insert(T0, &innocent[0]), Outcome::Incomplete));
    let whole = vec![0; MESSAGE_LEN_MAX];
    for id in 0..100 {
        let claim = &fragments(1, id, &whole, 60_000)[0];
        assert!(matches!(world.insert(T0, claim), Outcome::Incomplete), "claim {id}");
        assert!(world.reassembly.bytes <= PEER_BYTES_MAX + 100_000);
    }
    assert_eq!(world.evicted_and_expired(), (98, 0));
    assert!(matches!(world.insert(T0, &innocent[1]), Outcome::Complete(_)));
}

#[test]
fn first_fragments_forged_in_a_senders_name_do_not_end_its_message() {
    let mut world = World::new();
    let genuine = fragments(1, 1, &message(300_000), 1400);
    let (last, others) = genuine.split_last().unwrap();
    let whole = vec![0; MESSAGE_LEN_MAX];
    for (id, fragment) in (2..).zip(others) {
        assert!(matches!(world.insert(T0, fragment), Outcome::Incomplete), "fragment {}", fragment.0.index);
        // The first comes before there is any forged one, as a burst's does.
        world.insert(T0, &fragments(1, id, &whole, 60_000)[279]);
    }
    assert!(matches!(world.insert(T0, last), Outcome::Complete(_)));
}

#[test]
fn many_senders_together_stay_within_the_total_and_the_small_ones_survive() {
    let mut world = World::new();
    let innocent = fragments(1000, 1, &message(100_000), 60_000);
    assert!(matches!(world.insert(T0, &innocent[0]), Outcome::Incomplete));
    let whole = vec![0; MESSAGE_LEN_MAX];
    for source in 0..50 {
        world.insert(T0, &fragments(source, 1, &whole, 60_000)[0]);
        assert!(world.reassembly.bytes <= TOTAL_BYTES_MAX);
    }
    assert!(matches!(world.insert(T0, &innocent[1]), Outcome::Complete(_)));
}

#[test]
fn the_number_of_messages_is_bounded_however_short_they_are() {
    let mut world = World::new();
    let classes = vec![SizeClass { capacity: 64, count: 2 * MESSAGES_MAX }];
    world.pool = Pool::new(&PoolConfig { classes }).unwrap();
    for id in 0..2 * MESSAGES_MAX as u32 {
        let fragment = &fragments(id % 7, id, &[1, 2], 1)[0];
        assert!(matches!(world.insert(T0, fragment), Outcome::Incomplete));
    }
    assert_eq!(world.reassembly.partial.len(), MESSAGES_MAX);
}

#[test]
fn without_a_buffer_the_fragment_is_refused_and_nothing_is_held() {
    let mut world = World::new();
    world.pool = Pool::new(&PoolConfig { classes: vec![SizeClass { capacity: 64, count: 1 }] }).unwrap();
    assert!(matches!(world.insert(T0, &fragments(1, 1, &[0; 65], 60)[0]), Outcome::Exhausted));
    assert!(world.reassembly.is_empty());
}
