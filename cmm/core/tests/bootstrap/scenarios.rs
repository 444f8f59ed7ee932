//! Named runs: what each phase and each fault must come to.

use crate::byzantine::{Byzantine, Habits};
use crate::keys::{TestKeys, agent, garbage};
use crate::world::{World, ms};
use cl_base::{Incarnation, PeerId, Rng, Time, codec};
use cmm_core::bootstrap::wire::{
    Alive, Certificate, Claim, Grounds, Message, Proposal, Statement, ViewChange,
};
use cmm_core::bootstrap::{
    Bootstrap, Config, ConfigError, Configuration, Decision, Effect, Event, InvalidDecision, Keys, Record,
    Refusal,
};

const OBSERVER: TestKeys = TestKeys(PeerId::new(1, 0));

fn phases(world: &World, i: usize) -> Vec<u8> {
    let phase = |event: &Event| match event {
        Event::Phase { n, .. } => Some(*n),
        _ => None,
    };
    world.nodes[i].events.iter().filter_map(phase).collect()
}

fn views_left(world: &World, i: usize) -> usize {
    world.nodes[i].events.iter().filter(|e| matches!(e, Event::ViewChange { .. })).count()
}

fn refused(world: &World, i: usize, why: Refusal) -> u64 {
    world.nodes[i].machine.as_ref().unwrap().refused().get(&why).copied().unwrap_or(0)
}

fn is_vote(bytes: &[u8]) -> bool {
    matches!(
        codec::decode(bytes),
        Ok(Message::Says(Statement::Prepare { .. } | Statement::Commit { .. }, _)
            | Message::ViewChange(..)
            | Message::Propose(_))
    )
}

fn is_commit(bytes: &[u8]) -> bool {
    matches!(codec::decode(bytes), Ok(Message::Says(Statement::Commit { .. }, _)))
}

#[test]
fn six_agents_up_together_decide_in_four_phases_without_waiting() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4, 5]);
    world.run_until_decided(1, ms(100));
    assert_eq!(world.members(1), [0, 1, 2, 3]);
    assert_eq!(phases(&world, 1), [1, 2, 3, 4]);
    assert!((0..6).all(|i| views_left(&world, i) == 0));
}

#[test]
fn a_dead_leader_costs_the_settling_time_and_one_view() {
    let mut world = World::with(6, 1, 1, &[1, 2, 3, 4, 5]);
    world.run_until_decided(1, ms(400));
    assert_eq!(world.members(1), [1, 2, 3, 4]);
    assert_eq!(views_left(&world, 2), 1);
}

#[test]
fn views_of_leaders_nobody_heard_are_skipped() {
    let mut world = World::with(7, 1, 1, &[2, 3, 4, 5, 6]);
    world.run_until_decided(1, ms(400));
    assert_eq!(world.members(1), [2, 3, 4, 5]);
    assert_eq!(views_left(&world, 3), 1, "from view 0 straight to 2");
}

#[test]
fn a_leader_that_dies_after_its_alive_costs_one_timeout() {
    let mut world = World::new(6, 1, 1);
    world.cut = Box::new(|from, _, bytes| from == 0 && is_vote(bytes));
    (0..6).for_each(|i| world.start(i));
    world.run_until_decided(1, ms(1_000));
    assert_eq!(world.members(1), [0, 1, 2, 3]);
}

#[test]
fn fewer_than_a_quorum_wait_as_long_as_it_takes_and_leave_no_view() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2]);
    world.run_for(ms(3_600_000));
    assert!(world.decided.is_empty());
    assert!((0..3).all(|i| views_left(&world, i) == 0));
    world.start(5);
    world.run_until_decided(1, ms(400));
    assert_eq!(world.members(1), [0, 1, 2, 5]);
}

#[test]
fn who_cannot_run_a_manager_is_not_a_member_and_votes_all_the_same() {
    let mut world = World::new(6, 1, 1);
    world.nodes[0].capable = false;
    world.nodes[2].capable = false;
    (0..6).for_each(|i| world.start(i));
    world.run_until_decided(1, ms(200));
    assert_eq!(world.members(1), [1, 3, 4, 5]);
    assert!(phases(&world, 0).contains(&3));
}

#[test]
fn one_decided_agent_convinces_a_latecomer() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4]);
    world.run_until_decided(1, ms(500));
    (0..4).for_each(|i| world.crash(i, false));
    world.start(5);
    world.run_until_decided(1, ms(50));
    assert_eq!(phases(&world, 5), [1, 4]);
}

#[test]
fn after_the_decision_everybody_falls_silent() {
    let mut world = World::with(7, 1, 1, &[0, 1, 2, 3, 4, 5, 6]);
    world.run_until_decided(1, ms(100));
    world.run_for(ms(500));
    let timers = world.nodes.iter().filter_map(|n| n.machine.as_ref().unwrap().next_timeout());
    assert_eq!(timers.count(), 0);
    assert!(world.sent < 7 * 6 * 12, "{} messages", world.sent);
}

#[test]
fn an_agent_that_restarts_obeys_what_it_had_decided() {
    let mut world = World::with(4, 1, 1, &[0, 1, 2, 3]);
    world.run_until_decided(1, ms(100));
    let decision = world.nodes[2].decided.clone();
    (0..4).for_each(|i| world.crash(i, false));
    world.nodes[2].decided = None;
    world.start(2);
    assert!(decision.is_some() && world.nodes[2].decided == decision);
}

/// PROTOCOL.md 5, 11 steps of the printed protocol: 0 and 1 accept, 1 commits with the help of the
/// Byzantine agent, 0 times out, restarts the procedure, and with 2 and the Byzantine agent commits another
/// group. With five agents, as four have only one group to choose.
fn timeout_restart(forgets: bool) {
    let mut world = World::new(5, 1, 1);
    world.cut = Box::new(|_, to, bytes| to != 1 && is_commit(bytes) || to == 3);
    [0, 1, 2, 4].into_iter().for_each(|i| world.start(i));
    let end = world.now + ms(2_000);
    while world.nodes[1].decided.is_none() {
        assert!(world.step(end));
    }
    assert_eq!(world.members(1), [0, 1, 2, 4]);
    assert!([0, 2, 4].iter().all(|&i| phases(&world, i) == [1, 2, 3]), "the others accepted");

    // 1 is slow from now on; the Byzantine agent 4 knows nothing of all this any more; 3 comes up.
    world.cut = Box::new(|from, to, _| from == 1 || to == 1);
    world.crash(4, false);
    let habits = Habits { faces: 1, ..Habits::default() };
    let byzantine = Byzantine::new(4, &world.config, habits, world.now, 5);
    world.byzantine.insert(4, byzantine);
    for i in [0, 2] {
        world.crash(i, false);
        if forgets {
            world.nodes[i].disk = None;
            world.nodes[i].lives = 0;
        }
    }
    [0, 2, 3].into_iter().for_each(|i| world.start(i));
    world.run_until_decided(1, ms(120_000));
}

#[test]
fn the_timeout_restart_counterexample_ends_in_one_decision() {
    timeout_restart(false);
}

/// The same run splits agents that forget and vote all the same, so the run above shows something.
#[test]
#[should_panic(expected = "decided differently")]
fn the_timeout_restart_counterexample_splits_agents_that_forget_their_votes() {
    timeout_restart(true);
}

#[test]
fn a_byzantine_leader_that_names_dead_nodes_is_not_believed() {
    for seed in 0..20 {
        let mut world = World::new(7, 1, seed);
        let habits = Habits { equivocates: 100, names_the_dead: true, lies: 50, ..Habits::default() };
        let byzantine = Byzantine::new(0, &world.config, habits, world.now, seed);
        world.byzantine.insert(0, byzantine);
        [2, 3, 4, 5, 6].into_iter().for_each(|i| world.start(i));
        world.run_until_decided(1, ms(10_000));
        assert!(!world.members(1).contains(&1), "1 was never up");
        let unjustified: u64 = (2..7).map(|i| refused(&world, i, Refusal::Unjustified)).sum();
        assert!(unjustified > 0, "seed {seed}: nothing was tried");
    }
}

#[test]
fn a_leader_that_proposes_differently_to_each_splits_nobody() {
    for seed in 0..50 {
        let mut world = World::new(6, 1, seed);
        let habits = Habits { equivocates: 100, double_votes: 100, lies: 30, ..Habits::default() };
        let byzantine = Byzantine::new(0, &world.config, habits, world.now, seed);
        world.byzantine.insert(0, byzantine);
        (1..6).for_each(|i| world.start(i));
        world.run_until_decided(1, ms(30_000));
    }
}

#[test]
fn a_group_without_service_is_replaced_by_one_of_those_that_are_up() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4, 5]);
    world.dead_groups.insert(1);
    world.run_until_decided(1, ms(100));
    world.crash(0, false);
    world.crash(2, false);
    world.run_until_decided(2, ms(5_000));
    assert_eq!(world.members(2), [1, 3, 4, 5]);
    for i in [0, 2] {
        world.start(i);
    }
    world.run_until_decided(2, ms(200));
    assert_eq!(world.decided.len(), 2);
}

#[test]
fn a_served_majority_keeps_its_group_whatever_the_others_say() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4, 5]);
    world.run_until_decided(1, ms(100));
    // Each in turn misses the group for a while, so that in the end all have signed NO-SERVICE.
    for i in 0..6 {
        world.with_machine(i, Bootstrap::no_service);
        world.run_for(ms(1_000));
        world.with_machine(i, Bootstrap::admitted);
    }
    for i in 0..3 {
        world.with_machine(i, Bootstrap::no_service);
    }
    world.run_for(ms(60_000));
    assert_eq!(world.decided.len(), 1, "three are served");
    world.with_machine(3, Bootstrap::no_service);
    world.run_until_decided(2, ms(60_000));
}

#[test]
fn a_liar_does_not_keep_an_agent_out_of_the_next_instance_by_a_no_service_of_its_own() {
    let mut world = World::with(5, 1, 1, &[0, 1, 2, 3]);
    world.dead_groups.insert(1);
    world.run_until_decided(1, ms(500));
    world.nodes[2].impatient_at = None;
    // 4 completes the quorum for 0, 1 and 3, and tells 2 of an instance far ahead.
    for (i, instance) in [(0, 1), (1, 1), (2, 7), (3, 1)] {
        let statement = Statement::NoService { instance };
        let signature = TestKeys(agent(4)).sign(&statement.to_sign(&world.config));
        let bytes = codec::encode(&Message::Says(statement, signature));
        world.with_machine(i, |machine, now| machine.on_message(now, agent(4), &bytes));
    }
    world.run_until_decided(2, ms(5_000));
}

#[test]
fn an_agent_without_its_memory_abstains_until_it_is_vouched_for() {
    let mut world = World::new(6, 1, 1);
    world.cut = Box::new(|_, _, bytes| is_vote(bytes));
    (0..6).for_each(|i| world.start(i));
    world.run_for(ms(50));
    world.crash(5, true);
    world.crash(4, false);
    world.cut = Box::new(|from, _, bytes| {
        assert!(from != 5 || !is_vote(bytes), "5 votes");
        false
    });
    world.start(5);
    world.run_until_decided(1, ms(10_000));
    world.start(4);
    world.run_for(ms(1_000));
    assert!(world.nodes[5].events.contains(&Event::VotesFrom(2)));
    assert_eq!(world.nodes[5].machine.as_ref().unwrap().next_timeout(), None);

    // In the second instance its vote counts: without it there is no quorum.
    world.cut = Box::new(|_, _, _| false);
    world.crash(0, false);
    world.crash(1, false);
    (2..6).for_each(|i| world.with_machine(i, Bootstrap::no_service));
    world.run_until_decided(2, ms(10_000));
    assert_eq!(world.members(2), [2, 3, 4, 5]);
}

#[test]
fn an_agent_that_may_have_voted_in_the_open_instance_is_not_vouched_for() {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4, 5]);
    world.run_until_decided(1, ms(100));
    // Instance 2 opens, 5 votes in it and forgets.
    world.cut = Box::new(|_, _, bytes| is_commit(bytes));
    (0..6).for_each(|i| world.with_machine(i, Bootstrap::no_service));
    world.run_for(ms(500));
    world.crash(5, true);
    world.cut = Box::new(|from, _, bytes| {
        assert!(from != 5 || !is_vote(bytes), "5 votes");
        false
    });
    world.start(5);
    world.run_until_decided(2, ms(60_000));
    world.run_for(ms(60_000));
    let events = &world.nodes[5].events;
    assert!(!events.contains(&Event::VotesFrom(2)) && events.contains(&Event::VotesFrom(3)));
}

fn a_decision() -> (Config, Decision) {
    let mut world = World::with(6, 1, 1, &[0, 1, 2, 3, 4, 5]);
    world.run_until_decided(1, ms(100));
    let decision = world.nodes[0].decided.clone().unwrap();
    (world.config, decision)
}

#[test]
fn a_decision_convinces_an_observer_and_nothing_else_does() {
    let (config, decision) = a_decision();
    let bytes = codec::encode(&decision);
    assert_eq!(codec::decode::<Decision>(&bytes).unwrap(), decision);
    assert_eq!(decision.verify(&OBSERVER, &config), Ok(()));
    let changed = |change: &dyn Fn(&mut Decision)| {
        let mut changed = decision.clone();
        change(&mut changed);
        changed.verify(&OBSERVER, &config).unwrap_err()
    };
    assert_eq!(changed(&|d| d.view += 1), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.configuration.instance += 1), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.configuration.members[3] = agent(5)), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.configuration.members[3] = agent(9)), InvalidDecision::Configuration);
    assert_eq!(changed(&|d| d.configuration.members.truncate(3)), InvalidDecision::Configuration);
    assert_eq!(changed(&|d| d.commits.0.truncate(3)), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.commits.0[1] = d.commits.0[0]), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.commits.0[3].0 = 77), InvalidDecision::Commits);
    assert_eq!(changed(&|d| d.commits.0[3].1[5] ^= 1), InvalidDecision::Commits);
    let elsewhere = Config::new([4; 32], config.agents().to_vec(), 1).unwrap();
    assert_eq!(decision.verify(&OBSERVER, &elsewhere), Err(InvalidDecision::Commits));
}

#[test]
fn hostile_bytes_cost_a_counter() {
    let (config, decision) = a_decision();
    let new = |position| {
        let (keys, boot) = (Box::new(TestKeys(agent(0))), Incarnation(1));
        Bootstrap::new(config.clone(), position, keys, boot, true, Time::ZERO, 1)
    };
    let mut machine = new(agent(0)).unwrap();
    assert_eq!(new(agent(8)).err(), Some(ConfigError::NotAnAgent(agent(8))));

    let decided = codec::encode(&Message::Decision(decision.clone()));
    machine.on_message(Time::ZERO, agent(8), &decided);
    machine.on_message(Time::ZERO, agent(0), &decided);
    machine.on_message(Time::ZERO, agent(1), &[]);
    machine.on_message(Time::ZERO, agent(1), &vec![0; 1 << 20]);
    let alive = Alive { instance: 1, boot: Incarnation(1), capable: true, votes: true };
    let as_another = TestKeys(agent(2)).sign(&Statement::Alive(alive).to_sign(&config));
    machine.on_message(
        Time::ZERO,
        agent(1),
        &codec::encode(&Message::Says(Statement::Alive(alive), as_another)),
    );
    let mut forged = decision.clone();
    forged.view += 1;
    machine.on_message(Time::ZERO, agent(1), &codec::encode(&Message::Decision(forged)));
    let counts = [(Refusal::Sender, 2), (Refusal::Malformed, 2), (Refusal::Signature, 2)];
    assert_eq!(machine.refused().iter().map(|(&r, &n)| (r, n)).collect::<Vec<_>>(), counts);
    assert_eq!(machine.decision(), None);

    let mut rng = Rng::new(9);
    for _ in 0..20_000 {
        machine.on_message(Time::ZERO, agent(1), &garbage(&mut rng, std::slice::from_ref(&decided)));
        while machine.poll_effect().is_some() {}
    }
    machine.on_message(Time::ZERO, agent(1), &decided);
    assert_eq!(machine.decision(), Some(&decision));
}

/// At every vote that leaves an agent, one recovered from what was stored by then says the same.
#[test]
fn a_vote_is_stored_before_it_is_said() {
    let mut world = World::new(6, 1, 1);
    world.nodes.truncate(0);
    let config = &world.config;
    let (mut now, mut votes) = (world.now, 0);
    let new = |i: usize, records: Option<Record>| {
        let (keys, boot) = (Box::new(TestKeys(agent(i))), Incarnation(1));
        Bootstrap::recover(config.clone(), agent(i), keys, boot, true, world.now, 1, records, false).unwrap()
    };
    // Agent 0 hears and says nothing, so there is a view change, and later the decision.
    let mut machines: Vec<_> = (0..6).map(|i| (new(i, None), None)).collect();
    let mut under_way: Vec<(usize, PeerId, Vec<u8>)> = vec![];
    while now < world.now + ms(3_000) {
        now += ms(10);
        for (from, to, bytes) in std::mem::take(&mut under_way) {
            let to = (0..6).find(|&i| agent(i) == to).unwrap();
            if from != 0 && to != 0 {
                machines[to].0.on_message(now, agent(from), &bytes);
            }
        }
        for (i, (machine, stored)) in machines.iter_mut().enumerate() {
            machine.on_timeout(now);
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::Persist(record) => {
                        let bytes = codec::encode(&record);
                        *stored = Some(codec::decode::<Record>(&bytes).unwrap());
                    }
                    Effect::Send { to, bytes } => {
                        let proposal = matches!(codec::decode(&bytes), Ok(Message::Propose(_)));
                        if is_vote(&bytes) && !proposal && machine.decision().is_none() {
                            votes += 1;
                            let mut recovered = new(i, stored.clone());
                            let same =
                                |e| matches!(e, Effect::Send { to: t, bytes: b } if t == to && b == bytes);
                            let again = std::iter::from_fn(|| recovered.poll_effect()).any(same);
                            assert!(again, "{i} forgets {:?}", codec::decode::<Message>(&bytes));
                        }
                        under_way.push((i, to, bytes));
                    }
                    Effect::Event(_) | Effect::Decided(_) => {}
                }
            }
        }
    }
    assert!(votes > 50 && machines[1..].iter().all(|(m, _)| m.decision().is_some()));
}

/// What a leader may not do, one thing at a time, from a proposal that is accepted otherwise.
#[test]
fn a_proposal_must_follow_from_what_it_shows() {
    let config = Config::new([3; 32], (0..6).map(agent).collect(), 1).unwrap();
    let sign = |i: usize, s: &Statement| TestKeys(agent(i)).sign(&s.to_sign(&config));
    let configuration = |m: [usize; 4]| Configuration { instance: 1, members: m.map(agent).to_vec() };
    let refusals = |view: u64, members: [usize; 4], claim: Claim, forged: bool| {
        let alive = Alive { instance: 1, boot: Incarnation(1), capable: true, votes: true };
        let signer = |i: usize| if forged && i == 2 { 0 } else { i };
        let alive =
            [0, 2, 3, 4].map(|i| (i as u16, alive, sign(signer(i), &Statement::Alive(alive)))).to_vec();
        let change = |i: usize| {
            let prepared = claim.clone().filter(|_| i == 2);
            let change = ViewChange { instance: 1, view, prepared: prepared.clone() };
            (i as u16, prepared, sign(i, &Statement::ViewChange(change)))
        };
        let view_changes = if view == 0 { vec![] } else { [0, 2, 3, 4].map(change).to_vec() };
        let configuration = configuration(members);
        let signature = sign(0, &Statement::Prepare { view, configuration: configuration.clone() });
        let grounds = Grounds::Chosen { alive, no_service: Certificate::default() };
        let proposal = Proposal { view, configuration, signature, view_changes, grounds };
        let (keys, boot) = (Box::new(TestKeys(agent(1))), Incarnation(1));
        let mut machine = Bootstrap::new(config.clone(), agent(1), keys, boot, true, Time::ZERO, 1).unwrap();
        let bytes = codec::encode(&Message::Propose(Box::new(proposal)));
        machine.on_message(Time::ZERO, agent(0), &bytes);
        machine.refused().keys().copied().collect::<Vec<_>>()
    };
    let seen = Some((0, configuration([0, 1, 2, 3])));
    assert_eq!(refusals(0, [0, 2, 3, 4], None, false), []);
    assert_eq!(refusals(6, [0, 2, 3, 4], None, false), []);
    assert_eq!(refusals(0, [0, 1, 2, 3], None, false), [Refusal::Unjustified], "1 was not heard");
    assert_eq!(refusals(0, [0, 2, 3, 4], None, true), [Refusal::Signature], "an ALIVE is forged");
    assert_eq!(refusals(6, [0, 2, 3, 4], seen, false), [Refusal::Unjustified], "there is a certificate");
    assert_eq!(refusals(1, [0, 2, 3, 4], None, false), [Refusal::Unjustified], "not its view");
}
