//! Reads in one round trip, the members' side (PROTOCOL.md 2.12).

use super::*;
use crate::message::{ReadAnswer, ViewChange, result_digest};

/// What a member answers to this question, `None` if it says nothing.
fn ask(group: &mut Group, i: usize, nonce: u64, op: &str) -> Option<message::ReadReply> {
    let before = group.sent.len();
    group.hand(i, CLIENT, &Message::Read { nonce, op: op.as_bytes().to_vec() });
    group.sent[before..].iter().find_map(|(_, to, m)| match m {
        Message::ReadReply(reply) if *to == CLIENT => Some(reply.clone()),
        _ => None,
    })
}

fn answer(group: &mut Group, i: usize, op: &str) -> Option<ReadAnswer> {
    ask(group, i, 1, op).expect("every member answers, even if it has no answer").answer
}

#[test]
fn active_members_answer_alike_and_spares_do_not() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    let first = answer(&mut group, 0, "len?").unwrap();
    assert_eq!((first.active, first.result.as_deref()), (0b0111, Some(&b"1"[..])));
    assert_eq!(first.digest, result_digest(b"1"));
    for i in [1, 2] {
        assert_eq!(answer(&mut group, i, "len?"), Some(first.clone()));
    }
    assert_eq!(answer(&mut group, 3, "len?"), None);
    assert_eq!(group.status(0).executed, 1, "nothing was ordered");
}

#[test]
fn what_is_not_read_only_is_not_answered_without_an_order() {
    let mut group = Group::new(4);
    assert_eq!(answer(&mut group, 0, "a"), None);
    assert_eq!(group.ops(0), [""; 0]);
}

#[test]
fn a_long_result_comes_from_the_designated_member_only() {
    let mut group = Group::new(4);
    group.submit(0, 1, "grow 3000");
    let whole =
        |group: &mut Group, i, nonce| ask(group, i, nonce, "all?").unwrap().answer.unwrap().result.is_some();
    for nonce in 0..3 {
        let senders: Vec<bool> = (0..3).map(|i| whole(&mut group, i, nonce)).collect();
        assert_eq!(senders.iter().filter(|s| **s).count(), 1, "{senders:?}");
        assert!(senders[nonce as usize]);
    }
}

#[test]
fn a_spare_that_executes_in_a_widened_view_stays_silent() {
    let mut group = Group::new(4);
    group.crash(2);
    group.submit(0, 1, "a");
    group.wait(300);
    assert_eq!(group.ops(3), ["a"]);
    assert_eq!(answer(&mut group, 3, "len?"), None);
    assert!(answer(&mut group, 0, "len?").is_some());
}

#[test]
fn who_has_left_the_view_does_not_answer() {
    let mut group = Group::new(4);
    group.loss = Box::new(|_, _, m| matches!(m, Message::NewView(_)));
    for i in [0, 3] {
        let body =
            ViewChange { view: 1, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
        let message = Message::ViewChange(group.sign(i, body));
        group.hand(2, group.config.members[usize::from(i)], &message);
    }
    assert_eq!(group.status(2).mode, Mode::Changing);
    assert_eq!(answer(&mut group, 2, "len?"), None);
}

#[test]
fn nobody_answers_before_it_has_executed_what_the_new_view_carried_over() {
    let mut group = Group::new(4);
    // Executed and acknowledged in view 0 by 0 and 1; 2 and 3 lack the COMMITs.
    let (two, three) = (group.config.members[2], group.config.members[3]);
    group.loss = Box::new(move |_, to, m| matches!(m, Message::Commit(_)) && (to == two || to == three));
    group.submit(0, 1, "a");
    assert_eq!((group.ops(1), group.ops(2)), (vec!["a"], vec![]));
    group.crash(0);
    // The new view comes, but no COMMIT of it: 2 and 3 know that something was decided and not what came of it.
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    for i in 1..4 {
        group.submit(i, 2, "b");
    }
    group.wait(800);
    assert_eq!((group.status(2).view, group.status(2).mode, group.status(2).executed), (1, Mode::Normal, 0));
    assert_eq!(answer(&mut group, 2, "len?"), None);
    assert_eq!(answer(&mut group, 1, "len?").and_then(|a| a.result), Some(b"1".to_vec()));
    group.loss = Box::new(|_, _, _| false);
    group.wait(1_000);
    assert_eq!(answer(&mut group, 2, "len?").and_then(|a| a.result), Some(b"2".to_vec()));
}

/// It may have acknowledged them; found by the simulator.
#[test]
fn nobody_answers_before_it_has_executed_again_what_it_had_executed_before_a_restart() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.crash(1);
    group.loss = Box::new(|_, _, m| !matches!(m, Message::ReadReply(_)));
    group.restart(1);
    assert_eq!((group.status(1).mode, group.status(1).executed), (Mode::Normal, 0));
    assert_eq!(answer(&mut group, 1, "len?"), None);
    group.loss = Box::new(|_, _, _| false);
    group.wait(1_000);
    assert_eq!(group.status(1).executed, 1);
    assert_eq!(answer(&mut group, 1, "len?"), answer(&mut group, 0, "len?"));
}

#[test]
fn an_absurdly_long_question_is_refused() {
    let mut group = Group::new(4);
    let op = "x".repeat(group.config.batch_bytes_max);
    assert_eq!(ask(&mut group, 0, 1, &op), None);
    assert_eq!(group.refused(0, Refusal::Invalid), 1);
}
