//! Requests with a MAC for each member instead of a signature (PROTOCOL.md 2.2).

use super::*;
use crate::config::ClientAuthentication;

fn group() -> Group {
    Group::with(4, |c| c.clients = ClientAuthentication::Macs)
}

/// A request whose MACs are good for these members only.
fn good_for(group: &Group, t: u64, op: &str, members: &[usize]) -> Request {
    let request = group.request(t, op);
    let statement = Request::statement(group.config.group, CLIENT, t, 0, request.kind, &request.op);
    let keys = TestKeys { me: CLIENT };
    let mut macs = keys.macs(&group.config.members, &statement.0).unwrap();
    for (i, mac) in macs.iter_mut().enumerate().filter(|(i, _)| !members.contains(i)) {
        mac[i] ^= 1;
    }
    Request { proof: Proof::Macs(macs), ..request }
}

fn ask(group: &mut Group, i: usize, request: Request) {
    group.hand(i, CLIENT, &Message::Request(request));
    group.run();
}

#[test]
fn a_request_with_good_macs_is_ordered_without_any_signature() {
    let mut group = group();
    let request = good_for(&group, 1, "a", &[0, 1, 2, 3]);
    ask(&mut group, 0, request);
    for i in 0..3 {
        assert_eq!(group.ops(i), ["a"]);
        if mode() == VoteAuthentication::Channel {
            assert_eq!(group.status(i).verifications, 0);
        }
    }
}

#[test]
fn a_group_that_wants_signatures_takes_no_macs() {
    let mut group = Group::new(4);
    let request = good_for(&group, 1, "a", &[0, 1, 2, 3]);
    ask(&mut group, 0, request.clone());
    assert_eq!((group.refused(0, Refusal::Signature), group.status(0).pending), (1, 0));
    let body = group.body(&[request]);
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &body));
    assert_eq!(group.refused(1, Refusal::Signature), 1);
}

#[test]
fn a_vector_of_another_length_is_bad_for_everybody() {
    let mut group = group();
    let mut request = good_for(&group, 1, "a", &[0, 1, 2, 3]);
    for macs in [vec![], vec![[0; 16]; 3], vec![[0; 16]; 5]] {
        request.proof = Proof::Macs(macs);
        ask(&mut group, 0, request.clone());
        let body = group.body(&[request.clone()]);
        group.hand(1, group.config.members[0], &group.pre_prepare(1, &body));
    }
    assert_eq!((group.refused(0, Refusal::Signature), group.refused(1, Refusal::Signature)), (3, 3));
}

#[test]
fn who_doubts_a_request_follows_w_members_that_do_not() {
    let mut group = group();
    let request = good_for(&group, 1, "a", &[0, 1]);
    ask(&mut group, 0, request);
    for i in 0..3 {
        assert_eq!(group.ops(i), ["a"], "member {i}");
        assert_eq!(group.status(i).signature_only, 0, "it held up nothing");
    }
}

#[test]
fn the_primary_alone_convinces_nobody() {
    let mut group = group();
    let request = good_for(&group, 1, "a", &[0]);
    ask(&mut group, 0, request);
    assert!((0..4).all(|i| group.status(i).executed == 0));
    assert_eq!(group.count(1, |m| matches!(m, Message::Prepare { .. })), 0);
}

#[test]
fn a_client_that_holds_up_a_batch_costs_a_view_change_and_must_sign_from_then_on() {
    let mut group = group();
    let request = good_for(&group, 1, "a", &[0]);
    ask(&mut group, 0, request);
    group.wait(2_000);
    let primary = usize::from(group.status(1).primary.0);
    for i in 0..4 {
        assert_eq!((group.status(i).view, group.status(i).mode), (1, Mode::Normal), "member {i}");
    }
    assert!((0..3).all(|i| group.status(i).signature_only == 1), "all that saw it");
    // Not even good MACs are taken now, a signature is.
    let request = good_for(&group, 2, "b", &[0, 1, 2, 3]);
    ask(&mut group, primary, request);
    assert_eq!(group.refused(primary, Refusal::Signature), 1);
    group.submit(primary, 2, "b");
    assert_eq!(group.ops(primary), ["b"]);
    group.wait(3_000);
    assert_eq!(group.status(primary).view, 1, "nobody waits for what had no signature");
}

#[test]
fn a_backup_hands_on_what_has_macs_and_does_not_wait_for_it() {
    let mut group = group();
    group.loss = Box::new(|_, _, m| matches!(m, Message::Request(_)));
    let request = good_for(&group, 1, "a", &[1]);
    ask(&mut group, 1, request);
    assert_eq!(group.count(1, |m| matches!(m, Message::Request(_))), 1);
    assert_eq!(group.status(1).pending, 0);
    group.wait(3_000);
    assert!((0..4).all(|i| group.status(i).view == 0));
}

#[test]
fn a_signed_request_takes_the_place_of_one_with_macs() {
    let mut group = Group::with(4, |c| {
        (c.clients, c.pipeline) = (ClientAuthentication::Macs, 1);
    });
    // The first one fills the pipeline while nobody answers.
    group.loss = Box::new(|_, _, m| matches!(m, Message::PrePrepare { .. }));
    group.submit(0, 1, "a");
    let request = good_for(&group, 2, "b", &[0]);
    ask(&mut group, 0, request);
    group.submit(0, 2, "b");
    group.loss = Box::new(|_, _, _| false);
    group.wait(400);
    assert_eq!(group.ops(1), ["a", "b"]);
    assert_eq!(group.status(1).view, 0);
}

#[test]
fn a_held_proposal_and_another_for_its_position_conflict() {
    let mut group = group();
    let (a, b) = (good_for(&group, 1, "a", &[0]), good_for(&group, 2, "b", &[0]));
    for request in [a, b] {
        let body = group.body(&[request]);
        group.hand(1, group.config.members[0], &group.pre_prepare(1, &body));
    }
    assert_eq!(group.refused(1, Refusal::Conflict), 1);
}
