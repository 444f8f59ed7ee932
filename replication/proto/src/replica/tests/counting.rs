//! The counting rule of mode M (PROTOCOL.md 2.8, rule 4): claims without signatures.

use super::*;
use crate::certificate::{Certificate, VoteClaim};
use crate::message::ViewChange;
use crate::replica::decision::decide;

fn group() -> Group {
    Group::with(4, |c| c.votes = VoteAuthentication::Channel)
}

/// A batch at position 1, told apart by its number.
fn batch(n: u8) -> Digest {
    Digest([n; 32])
}

/// A VIEW-CHANGE for view 9 with these (view, digest) of P and (digest, view) of Q at position 1.
fn view_change(prepared: Option<(View, Digest)>, voted: &[(Digest, View)]) -> ViewChange {
    let certificate = |(view, digest)| Certificate {
        vote: Vote { view, tag: Digest::default(), rsn: 1, digest },
        proposal: None,
        prepares: vec![],
    };
    let mut voted: Vec<_> =
        voted.iter().map(|(digest, view)| VoteClaim { rsn: 1, digest: *digest, view: *view }).collect();
    voted.sort_unstable();
    let prepared = prepared.map(certificate).into_iter().collect();
    ViewChange { view: 9, stable: CheckpointProof::default(), prepared, voted }
}

fn decided(v: &[ViewChange]) -> Option<Vec<Digest>> {
    let config = group().config;
    let forward = decide(&config, &v.iter().collect::<Vec<_>>()).map(|d| d.order);
    let backward = decide(&config, &v.iter().rev().collect::<Vec<_>>()).map(|d| d.order);
    assert_eq!(forward, backward, "the order in which VIEW-CHANGEs come does not matter");
    forward
}

#[test]
fn what_one_member_prepared_and_w_members_accepted_is_chosen() {
    let a = batch(1);
    let v = [view_change(Some((3, a)), &[(a, 3)]), view_change(None, &[(a, 3)]), view_change(None, &[])];
    assert_eq!(decided(&v), Some(vec![a]));
    // Accepted in a later view is as good, in an earlier one is not.
    let v = [view_change(Some((3, a)), &[(a, 3)]), view_change(None, &[(a, 5)]), view_change(None, &[])];
    assert_eq!(decided(&v), Some(vec![a]));
    let v = [view_change(Some((3, a)), &[(a, 3)]), view_change(None, &[(a, 2)]), view_change(None, &[])];
    assert_eq!(decided(&v), None);
}

#[test]
fn a_claim_that_nobody_backs_up_waits_for_the_last_correct_member_and_then_loses() {
    let a = batch(1);
    let mut v = vec![view_change(Some((3, a)), &[(a, 3)]), view_change(None, &[]), view_change(None, &[])];
    assert_eq!(decided(&v), None, "it may be true: the third correct member is not heard yet");
    v.push(view_change(None, &[]));
    assert_eq!(decided(&v), Some(vec![]), "q members know nothing of it");
}

#[test]
fn a_later_claim_beats_an_earlier_one_and_two_that_exclude_each_other_wait() {
    let (a, b) = (batch(1), batch(2));
    let both = [(a, 1), (b, 4)];
    let v = [view_change(Some((1, a)), &both), view_change(Some((4, b)), &both), view_change(None, &[])];
    assert_eq!(decided(&v), Some(vec![b]));
    // Of one view only one can have been prepared: whoever claims the other lies, and who that is V does not say.
    let v = [view_change(Some((4, a)), &both), view_change(Some((4, b)), &both), view_change(None, &[])];
    assert_eq!(decided(&v), None);
}

#[test]
fn a_null_that_was_prepared_stays_and_one_that_was_not_is_dropped_at_the_end() {
    let config = group().config;
    let null = body_digest(&config, 1, &None);
    let v =
        [view_change(Some((2, null)), &[(null, 2)]), view_change(None, &[(null, 2)]), view_change(None, &[])];
    assert_eq!(decided(&v), Some(vec![null]));
    let v = [view_change(None, &[(null, 2)]), view_change(None, &[(null, 2)]), view_change(None, &[])];
    assert_eq!(decided(&v), Some(vec![]));
}

#[test]
fn a_view_change_with_claims_out_of_order_out_of_range_or_too_many_is_refused() {
    let config = group().config;
    let max = config.votes_claimed_max() as u8;
    let claim = |rsn, n, view| VoteClaim { rsn, digest: batch(n), view };
    let bad = [
        vec![claim(1, 2, 0), claim(1, 1, 0)],
        vec![claim(1, 1, 0), claim(1, 1, 0)],
        vec![claim(0, 1, 0)],
        vec![claim(config.log_window + 1, 1, 0)],
        vec![claim(1, 1, 9)],
        (0..=max).map(|n| claim(1, n, 0)).collect(),
    ];
    for voted in bad {
        let mut group = group();
        let message = Message::ViewChange(group.sign(3, ViewChange { voted, ..view_change(None, &[]) }));
        group.hand(1, group.config.members[3], &message);
        assert_eq!(group.refused(1, Refusal::Invalid), 1, "{message:?}");
    }
    let mut group = group();
    let voted = (0..max).map(|n| claim(1, n, 0)).collect();
    let message = Message::ViewChange(group.sign(3, ViewChange { voted, ..view_change(None, &[]) }));
    group.hand(1, group.config.members[3], &message);
    assert_eq!(group.refused(1, Refusal::Invalid), 0);
}

#[test]
fn in_mode_s_nobody_claims_votes() {
    let mut group = Group::with(4, |c| c.votes = VoteAuthentication::Signed);
    let message = Message::ViewChange(group.sign(3, view_change(None, &[(batch(1), 2)])));
    group.hand(1, group.config.members[3], &message);
    assert_eq!(group.refused(1, Refusal::Invalid), 1);
}

/// The last VIEW-CHANGE that a member sent.
fn sent_by(group: &Group, member: usize) -> ViewChange {
    let from = group.config.members[member];
    let of = |(f, _, m): &(PeerId, PeerId, Message)| match m {
        Message::ViewChange(vc) if *f == from => Some(vc.body.clone()),
        _ => None,
    };
    group.sent.iter().rev().find_map(of).expect("it has left")
}

#[test]
fn what_was_accepted_is_remembered_over_views_and_restarts() {
    let mut group = group();
    let one = group.config.members[1];
    // Member 1 accepts the proposal and nobody hears of it.
    group.loss =
        Box::new(move |from, to, m| from == one || to != one || !matches!(m, Message::PrePrepare { .. }));
    group.submit(0, 1, "a");
    let digest = group.member(1).log.get(1).unwrap().accepted.unwrap().digest;
    let claim = VoteClaim { rsn: 1, digest, view: 0 };
    group.wait(700);
    assert_eq!(sent_by(&group, 1).voted, [claim]);
    group.crash(1);
    group.restart(1);
    for view in [4, 7] {
        for i in [2, 3] {
            let body = ViewChange { view, ..view_change(None, &[]) };
            let message = Message::ViewChange(group.sign(i, body));
            group.hand(1, group.config.members[usize::from(i)], &message);
        }
        assert_eq!((sent_by(&group, 1).view, sent_by(&group, 1).voted), (view, vec![claim]));
        group.crash(1);
        group.restart(1);
    }
}

#[test]
fn digests_of_failed_views_do_not_pile_up_and_what_is_prepared_is_kept() {
    let mut slot = crate::log::Slot::default();
    let vote = Vote { view: 0, tag: Digest::default(), rsn: 1, digest: batch(0) };
    slot.certificate = Some(Certificate { vote, proposal: None, prepares: vec![] });
    for n in 0..100 {
        slot.enter_votable(batch(n), View::from(n), 4);
    }
    let kept: Vec<Digest> = slot.votable.into_keys().collect();
    assert_eq!(kept, [0, 97, 98, 99].map(batch));
}

#[test]
fn a_false_claim_of_a_faulty_member_does_not_stop_the_group() {
    let mut group = group();
    group.submit(0, 1, "a");
    group.crash(0);
    // Member 0 tells everybody that it had prepared something else at the next position.
    let lie = Certificate {
        vote: Vote { view: 0, tag: Digest::default(), rsn: 2, digest: batch(9) },
        proposal: None,
        prepares: vec![],
    };
    let body = ViewChange {
        view: 1,
        stable: CheckpointProof::default(),
        prepared: vec![lie],
        voted: vec![VoteClaim { rsn: 2, digest: batch(9), view: 0 }],
    };
    let message = Message::ViewChange(group.sign(0, body));
    for i in 1..4 {
        group.hand(i, group.config.members[0], &message);
        group.submit(i, 2, "b");
    }
    group.wait(2_000);
    for i in 1..4 {
        assert_eq!((group.ops(i), group.status(i).view), (vec!["a", "b"], 1), "member {i}");
    }
}
