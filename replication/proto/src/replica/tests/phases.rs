//! Answers before the commit: two phases and one (PROTOCOL.md 2.13).

use super::*;
use crate::config::Guarantee;
use crate::message::{Notify, Outcome, Reply};

fn group(guarantee: Guarantee) -> Group {
    Group::with(4, |c| c.guarantee = guarantee)
}

/// The replies to request `t` and whether each can be undone.
fn replies(group: &Group, t: u64) -> Vec<bool> {
    let of = |m: &Message| match m {
        Message::Reply(Reply { t: of, tentative, .. }) if *of == t => Some(tentative.is_some()),
        _ => None,
    };
    group.sent.iter().filter_map(|(_, _, m)| of(m)).collect()
}

fn notified(group: &Group) -> usize {
    let is = |m: &Message| matches!(m, Message::Notify(Notify { entries, .. }) if !entries.is_empty());
    group.sent.iter().filter(|(_, to, m)| *to == CLIENT && is(m)).count()
}

fn executed(group: &Group) -> usize {
    group.events.iter().filter(|(_, e)| matches!(e, Event::Executed { .. })).count()
}

const EARLY: [Guarantee; 2] = [Guarantee::ByzantineTentative, Guarantee::CrashOnly];

#[test]
fn three_phases_are_what_one_gets_without_asking() {
    let group = Group::new(4);
    assert_eq!(group.config.guarantee, Guarantee::Byzantine);
}

#[test]
fn answers_come_before_the_commit_and_say_so_and_nobody_is_notified_until_then() {
    for guarantee in EARLY {
        let mut group = group(guarantee);
        group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
        group.submit(0, 1, "tell me");
        assert_eq!(replies(&group, 1), [true; 3], "{guarantee:?}");
        let prepares = group.sent.iter().filter(|(_, _, m)| matches!(m, Message::Prepare { .. })).count();
        assert_eq!(prepares > 0, guarantee == Guarantee::ByzantineTentative);
        assert_eq!((executed(&group), notified(&group)), (0, 0));
        let status = group.status(1);
        assert_eq!((status.executed, status.committed, status.pending), (1, 0, 0));
        // Asked again it is still not certain; once the COMMITs have come it is.
        group.submit(1, 1, "tell me");
        assert_eq!(replies(&group, 1), [true; 4]);
        group.loss = Box::new(|_, _, _| false);
        group.wait(200);
        assert_eq!((executed(&group), notified(&group)), (3, 3), "{guarantee:?}");
        group.submit(1, 1, "tell me");
        assert_eq!(replies(&group, 1).last(), Some(&false));
        assert_eq!(group.status(1).committed, 1);
    }
}

#[test]
fn with_three_phases_nothing_is_executed_without_commits() {
    let mut group = group(Guarantee::Byzantine);
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    group.submit(0, 1, "a");
    assert_eq!((replies(&group, 1).len(), group.status(0).executed), (0, 0));
}

#[test]
fn what_one_member_alone_prepared_is_undone_when_the_view_changes_without_it() {
    let mut group = group(Guarantee::ByzantineTentative);
    group.submit(0, 1, "a");
    assert_eq!(group.ops(1), ["a"]);
    // Only member 1 gets the PREPAREs for the next batch, and its VIEW-CHANGE is lost.
    let members = group.config.members.clone();
    let lonely = members[1];
    group.loss = Box::new(move |from, to, m| match m {
        Message::Prepare { .. } => to != lonely,
        Message::ViewChange(_) => from == lonely,
        _ => false,
    });
    group.submit(0, 2, "tell b");
    assert_eq!((group.ops(1), group.ops(0)), (vec!["a", "tell b"], vec!["a"]));
    assert_eq!(group.status(1).committed, 1);
    for i in [0, 2, 3] {
        group.members[i].as_mut().unwrap().time_out();
        group.drain(i);
    }
    // The others have no use for the batch in view 1; member 1 leads it, so the one after opens.
    group.wait(3_000);
    let undone: Vec<_> = group.events.iter().filter(|(_, e)| matches!(e, Event::Undone { .. })).collect();
    assert!(undone.contains(&&(1, Event::Undone { from: 2, to: 1 })), "{undone:?}");
    group.loss = Box::new(|_, _, _| false);
    // The request was never lost: the members that knew of it had it ordered again.
    group.submit(2, 2, "tell b");
    group.wait(2_000);
    let digests: Vec<_> = (0..4).filter(|i| group.status(*i).executed >= 2).map(|i| group.ops(i)).collect();
    assert!(digests.len() >= 3 && digests.iter().all(|ops| *ops == ["a", "tell b"]), "{digests:?}");
    assert!(group.events.iter().all(|(_, e)| !matches!(e, Event::Halted { .. })));
}

/// Undoing goes through the last checkpoint and what was committed after it, time and sessions included.
#[test]
fn what_was_committed_before_stays_when_the_rest_is_undone() {
    for guarantee in EARLY {
        let mut group = Group::with(4, |c| {
            c.guarantee = guarantee;
            (c.checkpoint_interval, c.log_window) = (4, 8);
        });
        for t in 1..=6 {
            group.submit(0, t, &format!("tell {t}"));
        }
        let (before, notices) = (group.member(1).state_digest(), notified(&group));
        group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
        group.submit(0, 7, "tell 7");
        assert_eq!((group.status(1).executed, group.status(1).committed), (7, 6));
        assert_ne!(group.member(1).state_digest(), before);
        group.members[1].as_mut().unwrap().time_out();
        group.drain(1);
        assert_eq!(group.member(1).state_digest(), before, "{guarantee:?}");
        assert_eq!(notified(&group), notices, "nothing more");
    }
}

#[test]
fn what_a_checkpoint_holds_is_executed_when_it_is_committed() {
    for guarantee in EARLY {
        let mut group = Group::with(4, |c| {
            c.guarantee = guarantee;
            (c.checkpoint_interval, c.log_window) = (2, 4);
        });
        group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
        for t in 1..=2 {
            group.submit(0, t, "a");
        }
        assert_eq!(group.status(1).executed, 1, "{guarantee:?}");
        group.loss = Box::new(|_, _, _| false);
        group.wait(500);
        assert_eq!((group.status(1).executed, group.status(1).stable), (2, 2));
    }
}

#[test]
fn with_a_silent_member_answers_wait_for_commits_in_a_widened_view() {
    for guarantee in EARLY {
        let mut group = group(guarantee);
        group.crash(2);
        group.submit(0, 1, "a");
        group.wait(400);
        assert!(group.status(0).wide);
        group.submit(0, 2, "b");
        assert_eq!(replies(&group, 2), [false, false], "{guarantee:?}");
        // What had been answered as uncertain is answered again.
        assert_eq!(replies(&group, 1).iter().filter(|tentative| !**tentative).count(), 2, "{guarantee:?}");
        assert_eq!(group.status(0).view, 0);
    }
}

#[test]
fn with_one_phase_what_all_active_members_accepted_survives_the_primary() {
    let mut group = group(Guarantee::CrashOnly);
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    group.submit(0, 1, "a");
    assert_eq!(replies(&group, 1), [true; 3]);
    group.crash(0);
    group.loss = Box::new(|_, _, _| false);
    for i in 1..4 {
        group.submit(i, 2, "b");
    }
    group.wait(5_000);
    for i in [1, 2] {
        assert_eq!(group.ops(i), ["a", "b"], "member {i}");
    }
    assert!(group.status(1).view > 0);
}

/// The name is honest: a primary that lies makes members execute different batches, and the view change keeps one.
#[test]
fn with_one_phase_a_lying_primary_makes_members_differ() {
    let mut group = group(Guarantee::CrashOnly);
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    for (i, op) in [(1, "a"), (2, "b")] {
        let body = group.body(&[group.request(1, op)]);
        let proposal = group.pre_prepare(1, &body);
        group.hand(i, group.config.members[0], &proposal);
    }
    assert_eq!((group.ops(1), group.ops(2)), (vec!["a"], vec!["b"]));
    let histories: Vec<_> = group
        .sent
        .iter()
        .filter_map(|(_, _, m)| match m {
            Message::Reply(Reply { tentative, outcome: Outcome::Executed { .. }, .. }) => *tentative,
            _ => None,
        })
        .collect();
    assert_eq!(histories.len(), 2);
    assert_ne!(histories[0], histories[1], "which a client that compares them sees");
}

#[test]
fn a_member_that_restarts_executes_tentatively_what_it_had() {
    for guarantee in EARLY {
        let mut group = group(guarantee);
        group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
        group.submit(0, 1, "a");
        group.crash(1);
        group.restart(1);
        assert_eq!((group.status(1).executed, group.status(1).committed), (1, 0), "{guarantee:?}");
    }
}
