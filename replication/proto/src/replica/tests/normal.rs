use super::*;
use crate::message::{Outcome, Reply};

#[test]
fn three_phases_execute_a_request_at_the_active_members_and_the_spare_hears_nothing() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    for i in 0..3 {
        assert_eq!(group.ops(i), ["a"]);
    }
    assert_eq!(group.ops(3), [""; 0]);
    let spare = group.config.members[3];
    assert!(group.sent.iter().all(|(_, to, _)| *to != spare));
    assert_eq!(group.count(0, |m| matches!(m, Message::PrePrepare { .. })), 2);
    assert_eq!(group.count(1, |m| matches!(m, Message::Prepare { .. })), 2);
    assert_eq!(group.count(2, |m| matches!(m, Message::Commit(_))), 2);
    for i in 0..3 {
        assert_eq!(group.count(i, |m| matches!(m, Message::Reply(r) if r.t == 1)), 1);
    }
}

#[test]
fn groups_of_one_and_of_seven_work_alike() {
    for n in [1, 7] {
        let mut group = Group::new(n);
        group.submit(0, 1, "a");
        group.submit(0, 2, "b");
        let active = 2 * (n as usize / 3) + 1;
        for i in 0..active {
            assert_eq!(group.ops(i), ["a", "b"], "member {i} of {n}");
        }
    }
}

#[test]
fn a_request_is_executed_once_and_answered_each_time() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.submit(0, 1, "a");
    group.submit(1, 1, "a");
    assert_eq!(group.ops(0), ["a"]);
    let replies = |m: &Message| matches!(m, Message::Reply(Reply { outcome: Outcome::Executed { result: Some(r), .. }, .. }) if r == b"1");
    assert_eq!(group.count(0, replies), 2);
    assert_eq!(group.count(1, replies), 2);
}

#[test]
fn a_backup_relays_a_request_to_the_primary_once() {
    let mut group = Group::new(4);
    group.loss = Box::new(|_, _, m| matches!(m, Message::PrePrepare { .. }));
    group.submit(3, 1, "a");
    group.submit(3, 1, "a");
    assert_eq!(group.count(3, |m| matches!(m, Message::Request(_))), 1);
    assert_eq!(group.status(0).pending, 1);
}

#[test]
fn requests_that_wait_for_the_pipeline_share_a_batch() {
    let mut group = Group::with(4, |c| c.pipeline = 1);
    let requests: Vec<_> = (1..=5).map(|t| Message::Request(group.request(t, "x"))).collect();
    for request in &requests {
        group.hand(0, CLIENT, request);
    }
    group.run();
    assert_eq!(group.ops(2).len(), 5);
    assert_eq!(group.status(2).executed, 2);
}

#[test]
fn lost_votes_are_sent_again() {
    let mut group = Group::new(4);
    let mut n = 0;
    // The first messages of every kind are lost.
    group.loss = Box::new(move |_, _, _| {
        n += 1;
        n <= 12
    });
    group.submit(0, 1, "a");
    group.wait(240);
    assert_eq!(group.ops(1), ["a"]);
    assert_eq!(group.status(1).view, 0);
}

#[test]
fn a_silent_backup_costs_a_widening_and_no_view_change() {
    let mut group = Group::new(4);
    group.crash(2);
    group.submit(0, 1, "a");
    assert_eq!(group.ops(0), [""; 0]);
    group.wait(300);
    assert_eq!(group.ops(0), ["a"]);
    assert_eq!(group.ops(3), ["a"]);
    assert_eq!(group.status(0).view, 0);
    assert!(group.status(0).wide);
    // A spare that executes in a widened view stays silent.
    assert_eq!(group.count(3, |m| matches!(m, Message::Reply(_))), 0);
}

#[test]
fn a_widened_view_narrows_after_k_batches() {
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (4, 8));
    group.crash(2);
    group.submit(0, 1, "a");
    group.wait(300);
    group.restart(2);
    group.wait(100);
    for t in 2..=6 {
        group.submit(0, t, "b");
        group.wait(10);
    }
    assert!(!group.status(0).wide);
    assert_eq!(group.ops(2).len(), 6);
}

#[test]
fn a_checkpoint_of_q_members_empties_the_log_and_the_spare_keeps_up() {
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (4, 8));
    for t in 1..=9 {
        group.submit(0, t, "a");
    }
    for i in 0..3 {
        assert_eq!(group.status(i).stable, 8);
        assert!(group.member(i).log.get(8).is_none());
    }
    group.wait(200);
    assert_eq!(group.status(3).executed, 8);
    assert_eq!(group.ops(3).len(), 8);
}

#[test]
fn the_primary_stops_at_the_end_of_the_window() {
    let mut group = Group::with(4, |c| {
        (c.checkpoint_interval, c.log_window, c.client_window) = (2, 4, 100);
    });
    group.loss = Box::new(|_, _, m| matches!(m, Message::Checkpoint(_) | Message::Stable(_)));
    for t in 1..=9 {
        group.submit(0, t, "a");
    }
    assert_eq!(group.status(0).executed, 4);
    group.loss = Box::new(|_, _, _| false);
    group.wait(1500);
    assert_eq!(group.ops(0).len(), 9);
    assert_eq!(group.status(0).view, 0);
}

#[test]
fn a_deadline_is_proposed_when_it_comes_without_any_request() {
    let mut group = Group::new(4);
    group.submit(0, 1, "at 30");
    group.wait(20);
    assert_eq!(group.ops(1), ["at 30"]);
    group.wait(20);
    assert_eq!(group.ops(1), ["at 30", "deadline"]);
    assert_eq!(group.status(1).executed, 2);
    group.wait(3000);
    assert_eq!(group.status(1).executed, 2);
}

#[test]
fn a_primary_that_withholds_a_deadline_loses_the_view() {
    let mut group = Group::new(4);
    group.submit(0, 1, "at 30");
    group.crash(0);
    group.wait(2000);
    assert_eq!(group.ops(1), ["at 30", "deadline"]);
    let withheld = |(_, e): &(usize, Event)| {
        matches!(e, Event::LeftView { reason: crate::LeaveReason::DeadlineWithheld, .. })
    };
    assert!(group.events.iter().any(withheld));
}

#[test]
fn notifications_go_out_from_every_active_member_and_again_on_request() {
    let mut group = Group::new(4);
    group.submit(0, 1, "tell x");
    let told = |m: &Message| matches!(m, Message::Notify(n) if n.entries == [(1, b"x".to_vec())]);
    for i in 0..3 {
        assert_eq!(group.count(i, told), 1);
    }
    for i in 0..4 {
        group.hand(i, CLIENT, &Message::NotifyPull { from: 1 });
    }
    assert_eq!(group.count(0, told), 2);
    assert_eq!(group.count(3, |m| matches!(m, Message::Notify(_))), 0);
    // Acknowledged by the next request.
    let op = b"y".to_vec();
    let digest = Request::statement(group.config.group, CLIENT, 2, 1, RequestKind::Operation, &op);
    let proof = Proof::Signed(TestKeys::signature(CLIENT, &digest.0));
    let request = Request { client: CLIENT, t: 2, notified: 1, kind: RequestKind::Operation, op, proof };
    group.hand(0, CLIENT, &Message::Request(request));
    group.run();
    group.hand(1, CLIENT, &Message::NotifyPull { from: 0 });
    let empty = |m: &Message| matches!(m, Message::Notify(n) if n.first == 2 && n.entries.is_empty());
    assert_eq!(group.count(1, empty), 1);
}

#[test]
fn an_idle_group_says_next_to_nothing() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.wait(5_000);
    group.sent.clear();
    group.wait(10_000);
    assert!(group.sent.iter().all(|(_, _, m)| matches!(m, Message::Status(_))));
    assert!(group.sent.len() <= 4 * 3 * 14, "{} messages in ten seconds", group.sent.len());
}
