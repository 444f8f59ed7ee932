//! Whole sessions: transcripts of real libraries, simulated jobs over a bad network, hostile input.

use super::exchange::{Direction, NODE_MESSAGE_BYTES_MAX, PUT_BYTES_PER_RANK_MAX};
use super::*;
use crate::api::{Attempt, JobId, Part};
use crate::identity::NodeId;
use cl_base::Rng;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ATTEMPT: Attempt = Attempt { job: JobId(7), number: 2 };
const KVSNAME: &str = "ghidrah_test_7_2";

/// A placement with `ranks[i]` ranks on node i.
pub(super) fn placement(ranks: &[u32]) -> Vec<Part> {
    let mut first_rank = 0;
    let part = |(node, ranks): (u32, &u32)| {
        let part = Part { node: NodeId(node), first_rank, ranks: *ranks };
        first_rank += ranks;
        part
    };
    (0..).zip(ranks).map(part).collect()
}

fn node(ranks: &[u32], index: usize) -> NodePmi {
    NodePmi::new("test", ATTEMPT, &placement(ranks), index)
}

/// Says `line` as `rank` and returns what is to be done.
fn say(pmi: &mut NodePmi, rank: u32, line: &str) -> Vec<Action> {
    pmi.on_bytes(rank, format!("{line}\n").as_bytes());
    std::iter::from_fn(|| pmi.poll_action()).collect()
}

fn reply(rank: u32, line: &str) -> Action {
    Action::Reply { rank, bytes: format!("{line}\n").into_bytes() }
}

/// The requests (`> `) of a recorded session, and what each was answered (`< `).
fn transcript(text: &str) -> Vec<(String, String)> {
    let text = text.replace("KVSNAME", KVSNAME);
    let lines: Vec<&str> = text.lines().collect();
    let exchange = |pair: &[&str]| {
        (pair[0].strip_prefix("> ").unwrap().to_owned(), pair[1].strip_prefix("< ").unwrap().to_owned())
    };
    lines.chunks(2).map(exchange).collect()
}

/// Plays recorded sessions, `sessions[rank]`, against the nodes of a job, and demands the recorded answers.
fn replay(ranks_per_node: &[u32], sessions: &[&str]) {
    let parts = placement(ranks_per_node);
    let node_of = |rank: u32| parts.iter().rposition(|p| p.first_rank <= rank).unwrap();
    let mut nodes: Vec<NodePmi> = (0..parts.len()).map(|i| node(ranks_per_node, i)).collect();
    let mut sessions: Vec<_> = sessions.iter().map(|s| transcript(s).into_iter()).collect();
    let mut awaited: BTreeMap<u32, String> = BTreeMap::new();
    let mut finalized = 0;
    loop {
        let mut idle = true;
        for (rank, session) in (0..).zip(&mut sessions) {
            if awaited.contains_key(&rank) {
                continue;
            }
            let Some((request, answer)) = session.next() else { continue };
            idle = false;
            awaited.insert(rank, answer);
            nodes[node_of(rank)].on_bytes(rank, format!("{request}\n").as_bytes());
        }
        for from in 0..nodes.len() {
            while let Some(action) = nodes[from].poll_action() {
                idle = false;
                match action {
                    Action::Reply { rank, bytes } => {
                        let answer = awaited.remove(&rank).expect("nobody asked");
                        assert_eq!(String::from_utf8(bytes).unwrap().trim_end(), answer, "rank {rank}");
                    }
                    Action::Send { to, message } => nodes[to].on_message(from, message),
                    Action::Finalized { .. } => finalized += 1,
                    Action::Initialized { .. } => {}
                    Action::Abort { message, .. } => panic!("{message}"),
                }
            }
        }
        if idle {
            break;
        }
    }
    assert_eq!((awaited.len(), finalized), (0, sessions.len()));
}

#[test]
fn mpich_5_over_libfabric_is_answered_as_recorded() {
    replay(&[1, 1], &[include_str!("tests/mpich5_ofi.0.txt"), include_str!("tests/mpich5_ofi.1.txt")]);
}

#[test]
fn mpich_4_over_ucx_is_answered_as_recorded() {
    replay(&[2], &[include_str!("tests/mpich4_ucx.0.txt"), include_str!("tests/mpich4_ucx.1.txt")]);
}

#[test]
fn a_put_is_seen_by_local_ranks_at_once_and_by_others_after_the_barrier() {
    let mut a = node(&[2, 1], 0);
    let mut b = node(&[2, 1], 1);
    let get = format!("cmd=get kvsname={KVSNAME} key=k");
    let found = "cmd=get_result rc=0 found=TRUE value=v";
    let missing = "cmd=get_result rc=-1 msg=key_not_found";
    assert_eq!(
        say(&mut a, 0, &format!("cmd=put kvsname={KVSNAME} key=k value=v")),
        [reply(0, "cmd=put_result rc=0")]
    );
    assert_eq!(say(&mut a, 1, &get), [reply(1, found)]);
    assert_eq!(say(&mut b, 2, &get), [reply(2, missing)]);

    assert_eq!(say(&mut a, 0, "cmd=barrier_in"), []);
    let contribution = say(&mut b, 2, "cmd=barrier_in");
    let [Action::Send { to: 0, message }] = &contribution[..] else { panic!("{contribution:?}") };
    a.on_message(1, message.clone());
    assert_eq!(a.poll_action(), None, "rank 1 is not in yet");
    let release = say(&mut a, 1, "cmd=barrier_in");
    let [Action::Send { to: 1, message }, out0, out1] = &release[..] else { panic!("{release:?}") };
    assert_eq!([out0, out1], [&reply(0, "cmd=barrier_out rc=0"), &reply(1, "cmd=barrier_out rc=0")]);
    b.on_message(0, message.clone());
    assert_eq!(b.poll_action(), Some(reply(2, "cmd=barrier_out rc=0")));
    assert_eq!(say(&mut b, 2, &get), [reply(2, found)]);
}

#[test]
fn an_abort_reaches_the_agent_and_silences_the_rank() {
    let mut pmi = node(&[1], 0);
    let abort = Action::Abort { rank: 0, code: 7, message: "called MPI_Abort".into() };
    assert_eq!(say(&mut pmi, 0, "cmd=abort exitcode=7 message=called MPI_Abort\ncmd=finalize"), [abort]);
    assert_eq!(say(&mut pmi, 0, "cmd=finalize"), []);
}

#[test]
fn a_broken_protocol_ends_the_job_and_says_why() {
    let broken = |lines: &str| match &say(&mut node(&[2], 0), 1, lines)[..] {
        [Action::Abort { rank: 1, code: 1, message }] => message.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(broken("hello"), "broke the PMI protocol: not of the form cmd=NAME key=value");
    assert_eq!(
        broken("cmd=barrier_in\ncmd=barrier_in"),
        "broke the PMI protocol: entered a barrier while in one"
    );
}

#[test]
fn what_is_not_offered_is_refused_in_the_words_the_client_waits_for() {
    let mut pmi = node(&[1], 0);
    for (request, answer) in [
        (
            "cmd=init pmi_version=2 pmi_subversion=0",
            "cmd=response_to_init rc=-1 msg=only_version_1_is_spoken",
        ),
        ("cmd=barrier_in group=NODE:1", "cmd=barrier_out rc=-1 msg=no_group_barriers"),
        ("cmd=publish_name service=a port=b", "cmd=publish_result rc=-1 msg=not_supported"),
        ("mcmd=spawn\ntotspawns=1\nspawnssofar=1\nendcmd", "cmd=spawn_result rc=-1 msg=not_supported"),
        ("cmd=put kvsname=other key=k value=v", "cmd=put_result rc=-1 msg=kvs_unknown"),
        ("cmd=get kvsname=other key=k", "cmd=get_result rc=-1 msg=kvs_unknown"),
        ("cmd=dance", "cmd=dance_result rc=-1 msg=unknown_command"),
        ("cmd=get_universe_size", "cmd=universe_size rc=0 size=1"),
    ] {
        assert_eq!(say(&mut pmi, 0, request), [reply(0, answer)]);
    }
}

#[test]
fn a_rank_cannot_put_without_bound() {
    let mut pmi = node(&[1], 0);
    let put = |i: u64| format!("cmd=put kvsname={KVSNAME} key={i:04} value={}", "x".repeat(1024));
    let fit = PUT_BYTES_PER_RANK_MAX / (4 + 1024 + 8);
    for i in 0..fit {
        assert_eq!(say(&mut pmi, 0, &put(i)), [reply(0, "cmd=put_result rc=0")]);
    }
    assert_eq!(say(&mut pmi, 0, &put(fit)), [reply(0, "cmd=put_result rc=-1 msg=store_full")]);
    // And what fitted goes out in messages that fit.
    let mut other = node(&[1, 1], 1);
    for i in 0..fit {
        say(&mut other, 1, &put(i));
    }
    let messages = say(&mut other, 1, "cmd=barrier_in");
    assert_eq!(messages.len(), 3);
    for action in messages {
        let Action::Send { message, .. } = action else { panic!("{action:?}") };
        assert!(message.encode().len() <= NODE_MESSAGE_BYTES_MAX);
        assert_eq!(NodeMessage::decode(&message.encode()).unwrap(), message);
    }
}

#[test]
fn messages_of_the_wrong_attempt_sender_barrier_or_size_are_counted_and_dropped() {
    let mut root = node(&[1, 1], 0);
    let good = NodeMessage {
        attempt: ATTEMPT,
        barrier: 1,
        direction: Direction::Contribution,
        chunk: 0,
        chunks: 1,
        puts: vec![("k".into(), "v".into())],
    };
    let older = Attempt { number: 1, ..ATTEMPT };
    root.on_message(1, NodeMessage { attempt: older, ..good.clone() });
    root.on_message(0, good.clone());
    root.on_message(9, good.clone());
    root.on_message(1, NodeMessage { direction: Direction::Release, ..good.clone() });
    root.on_message(1, NodeMessage { barrier: 2, ..good.clone() });
    root.on_message(1, NodeMessage { chunk: 1, ..good.clone() });
    let line_break = vec![("k".into(), "v\ncmd=abort".into())];
    root.on_message(1, NodeMessage { puts: line_break, ..good.clone() });
    let flood = (0..200).map(|i| (format!("{i}"), "x".repeat(1024))).collect();
    root.on_message(1, NodeMessage { puts: flood, ..good.clone() });
    let refusals = root.refusals();
    assert_eq!((refusals.attempt, refusals.sender, refusals.barrier), (1, 3, 1));
    assert_eq!((refusals.malformed, refusals.allowance), (2, 1));
    assert_eq!(root.poll_action(), None);
    // None of it is in the way of the good one.
    root.on_message(1, good);
    assert_eq!(say(&mut root, 0, "cmd=barrier_in").len(), 2);
}

/// A job on nodes that talk over a network which loses, repeats and reorders.
struct World {
    rng: Rng,
    nodes: Vec<NodePmi>,
    network: Vec<(usize, usize, Vec<u8>)>,
    released: BTreeMap<u32, u32>,
}

impl World {
    fn new(seed: u64, ranks: &[u32]) -> World {
        World {
            rng: Rng::new(seed),
            nodes: (0..ranks.len()).map(|i| node(ranks, i)).collect(),
            network: Vec::new(),
            released: BTreeMap::new(),
        }
    }

    fn collect(&mut self, from: usize) {
        while let Some(action) = self.nodes[from].poll_action() {
            match action {
                Action::Send { to, message } => {
                    if self.rng.chance(4, 5) {
                        self.network.push((from, to, message.encode()));
                    }
                    if self.rng.chance(1, 5) {
                        self.network.push((from, to, message.encode()));
                    }
                }
                Action::Reply { rank, bytes } if bytes.starts_with(b"cmd=barrier_out") => {
                    *self.released.entry(rank).or_default() += 1;
                }
                Action::Reply { bytes, .. } => assert!(bytes.starts_with(b"cmd=put_result rc=0")),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Delivers a random message, or lets the nodes repeat theirs.
    fn step(&mut self) {
        if self.network.is_empty() || self.rng.chance(1, 50) {
            for i in 0..self.nodes.len() {
                self.nodes[i].resend();
                self.collect(i);
            }
            return;
        }
        let at = self.rng.below(self.network.len() as u64) as usize;
        let (from, to, bytes) = self.network.swap_remove(at);
        self.nodes[to].on_message(from, NodeMessage::decode(&bytes).unwrap());
        self.collect(to);
    }
}

fn run_job(seed: u64, ranks: &[u32], barriers: u32, value_bytes: usize) {
    let parts = placement(ranks);
    let size: u32 = ranks.iter().sum();
    let mut world = World::new(seed, ranks);
    for barrier in 1..=barriers {
        let value = |rank: u32| format!("{barrier}.{rank}.{}", "v".repeat(value_bytes));
        let mut order: Vec<(usize, u32)> = (0..)
            .zip(&parts)
            .flat_map(|(node, p)| (p.first_rank..p.first_rank + p.ranks).map(move |r| (node, r)))
            .collect();
        world.rng.shuffle(&mut order);
        for &(node, rank) in &order {
            let put = format!("cmd=put kvsname={KVSNAME} key=k-{rank} value={}\n", value(rank));
            world.nodes[node].on_bytes(rank, put.as_bytes());
            world.nodes[node].on_bytes(rank, b"cmd=barrier_in\n");
            world.collect(node);
            let is_last = rank == order[order.len() - 1].1;
            assert!(is_last || world.released.values().all(|n| *n < barrier), "released too early");
            for _ in 0..world.rng.below(4) {
                world.step();
            }
        }
        let mut steps = 0;
        while world.released.len() < size as usize || world.released.values().any(|n| *n < barrier) {
            world.step();
            steps += 1;
            assert!(steps < 100_000, "seed {seed}: barrier {barrier} hangs");
        }
        for &(node, reader) in &order {
            for rank in 0..size {
                let get = format!("cmd=get kvsname={KVSNAME} key=k-{rank}");
                let got = format!("cmd=get_result rc=0 found=TRUE value={}", value(rank));
                assert_eq!(say(&mut world.nodes[node], reader, &get), [reply(reader, &got)]);
            }
        }
    }
    assert!(world.released.values().all(|n| *n == barriers), "a barrier was left twice");
}

#[test]
fn jobs_on_one_to_eight_nodes_exchange_all_keys_over_a_bad_network() {
    for seed in 0..100 {
        run_job(seed, &[3], 3, 10);
        run_job(seed, &[1, 2], 3, 10);
        run_job(seed, &[2, 1, 1], 3, 500);
        run_job(seed, &[1, 2, 1, 1, 3, 1, 1, 1], 3, 10);
    }
    // Releases in several chunks.
    run_job(7, &[40, 40, 40], 2, 1000);
}

#[test]
fn the_shared_memory_that_killed_ranks_leave_is_known_by_name() {
    // As seen with MPICH 5.0.2.
    assert_eq!(server::mpich_shared_memory("kvs_1_0", 1), "/dev/shm/mpich_shm_500dccb2_1");
}

proptest! {
    #[test]
    fn hostile_bytes_of_a_rank_never_panic(pieces in prop::collection::vec(hostile_piece(), 0..40)) {
        let mut pmi = node(&[2, 1], 0);
        let mut aborts = 0;
        for piece in pieces {
            pmi.on_bytes(1, &piece);
            while let Some(action) = pmi.poll_action() {
                match action {
                    Action::Reply { bytes, .. } => {
                        prop_assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
                        prop_assert!(bytes.ends_with(b"\n"));
                    }
                    Action::Abort { .. } => aborts += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(aborts <= 1);
    }

    #[test]
    fn hostile_messages_of_a_node_never_panic(
        me in 0..3usize, inside in any::<bool>(), messages in prop::collection::vec(hostile_message(), 0..30),
    ) {
        let mut pmi = node(&[1, 1, 1], me);
        if inside {
            say(&mut pmi, me as u32, "cmd=barrier_in");
        }
        for (from, message) in messages {
            pmi.on_message(from, NodeMessage::decode(&message.encode()).unwrap());
            pmi.resend();
            while pmi.poll_action().is_some() {}
        }
    }

    #[test]
    fn hostile_bytes_of_a_node_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = NodeMessage::decode(&bytes);
    }
}

/// Noise, and lines that are nearly right.
fn hostile_piece() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "cmd=",
        "mcmd=spawn",
        "endcmd",
        "init",
        "put",
        "get",
        "barrier_in",
        "abort",
        "finalize",
        "kvsname=",
        KVSNAME,
        "key=",
        "value=",
        "exitcode=",
        "message=",
        "pmi_version=1",
        "pmi_subversion=",
        "totspawns=9",
        " ",
        " ",
        "\n",
        "\n",
        "=",
        "7",
        "x y",
        "\r\n",
        "\0",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(word, 0..12).prop_map(|words| words.concat().into_bytes()),
        Just(vec![b'a'; 5000]),
        Just(b"cmd=barrier_in\n".to_vec()),
        Just(format!("cmd=put kvsname={KVSNAME} key=k value=v\n").into_bytes()),
    ]
}

fn hostile_message() -> impl Strategy<Value = (usize, NodeMessage)> {
    let pair = ("[a-z \n=]{0,3}", "[a-z \n]{0,5}");
    let direction = prop_oneof![Just(Direction::Contribution), Just(Direction::Release)];
    (0..5usize, 0..4u64, direction, 0..3u32, 0..3u32, prop::collection::vec(pair, 0..3)).prop_map(
        |(from, barrier, direction, chunk, chunks, puts)| {
            (from, NodeMessage { attempt: ATTEMPT, barrier, direction, chunk, chunks, puts })
        },
    )
}
