use super::*;

#[test]
fn a_member_that_voted_does_not_vote_otherwise_after_a_restart() {
    let mut group = Group::new(4);
    let (a, b) = (group.body(&[group.request(1, "a")]), group.body(&[group.request(2, "b")]));
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &a));
    assert_eq!(group.count(1, |m| matches!(m, Message::Prepare { .. })), 2);
    group.crash(1);
    group.restart(1);
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &b));
    assert_eq!(group.refused(1, Refusal::Conflict), 1);
    let (a, b) = (group.vote(1, &a).digest, group.vote(1, &b).digest);
    let votes_for = |d| move |m: &Message| matches!(m, Message::Prepare { vote, .. } if vote.digest == d);
    assert_eq!(group.count(1, votes_for(b)), 0);
    assert_eq!(group.count(1, votes_for(a)), 4, "the old vote once more");
}

#[test]
fn a_member_that_left_a_view_has_still_left_it_after_a_restart() {
    let mut group = Group::new(4);
    group.crash(0);
    group.loss = Box::new(|_, _, _| true);
    group.submit(1, 1, "a");
    group.wait(600);
    assert_eq!(group.status(1).mode, Mode::Changing);
    group.crash(1);
    group.restart(1);
    assert_eq!((group.status(1).view, group.status(1).mode), (1, Mode::Changing));
}

#[test]
fn what_was_prepared_is_carried_over_although_everybody_restarts() {
    let mut group = Group::new(4);
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    group.submit(0, 1, "a");
    assert!(group.member(1).log.get(1).unwrap().prepared);
    for i in 0..4 {
        group.crash(i);
    }
    group.loss = Box::new(|_, _, _| false);
    for i in 1..4 {
        group.restart(i);
    }
    group.wait(3_000);
    for i in 1..4 {
        assert_eq!(group.ops(i), ["a"], "member {i}");
    }
}

#[test]
fn a_group_that_stops_at_any_moment_goes_on_with_what_is_on_its_disks() {
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (4, 8));
    for t in 1..=30 {
        group.submit(0, t, "a");
        if t % 3 == 0 {
            for i in 0..4 {
                group.crash(i);
                group.restart(i);
            }
            group.wait(1_000);
        }
    }
    group.wait(2_000);
    assert_eq!(group.ops(1).len(), 30);
    assert_eq!(group.status(1).view, 0);
    // Checkpoints let the host delete what is old.
    assert!(group.disks.iter().all(|disk| disk.len() < 60));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let mut group = Group::new(4);
    group.crash(0);
    group.submit(1, 1, "a");
    group.submit(2, 1, "a");
    group.wait(2_000);
    let mut records = group.disks[1].clone();
    assert!(records.iter().any(|r| matches!(r, Record::NewView(_))));
    records.reverse();
    let (config, keys) = (group.config.clone(), group.keys(1));
    let outcome =
        Replica::recover(config, MemberId(1), keys, Tape::default(), group.now, records.into_iter());
    assert!(outcome.is_err());
}

#[test]
fn a_disk_never_has_a_stable_checkpoint_without_its_state() {
    for n in [1, 4] {
        let mut group = Group::with(n, |c| (c.checkpoint_interval, c.log_window) = (2, 4));
        for t in 1..=5 {
            group.submit(0, t, "a");
        }
        assert_eq!(group.status(0).stable, 4);
        let records = &group.history[0];
        for kept in 0..=records.len() {
            let (config, keys) = (group.config.clone(), group.keys(0));
            let records = records[..kept].iter().cloned();
            let member = Replica::recover(config, MemberId(0), keys, Tape::default(), group.now, records);
            let status = member.unwrap().status();
            assert!(status.executed >= status.stable, "{kept} records of {n} members: {status:?}");
        }
    }
}

#[test]
fn a_state_that_only_a_member_without_it_knows_to_be_stable_survives_a_stop_of_all() {
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (2, 4));
    // Only the spare, which executes nothing, hears of the CHECKPOINTs.
    let spare = group.config.members[3];
    group.loss = Box::new(move |_, to, m| matches!(m, Message::Checkpoint(_)) && to != spare);
    group.submit(0, 1, "a");
    group.submit(0, 2, "b");
    assert_eq!((0..4).map(|i| group.status(i).stable).collect::<Vec<_>>(), [0, 0, 0, 2]);
    for i in 0..4 {
        group.crash(i);
    }
    for i in 0..4 {
        group.restart(i);
    }
    group.loss = Box::new(|_, _, _| false);
    group.wait(2_000);
    group.submit(0, 3, "c");
    group.wait(2_000);
    for i in 0..3 {
        assert_eq!(group.ops(i), ["a", "b", "c"], "member {i}");
    }
    assert_eq!(group.status(3).stable, 2);
}
