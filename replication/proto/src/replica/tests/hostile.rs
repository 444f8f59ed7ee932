use super::*;
use crate::message::ViewChange;
use cl_base::Rng;
use std::sync::Arc;

#[test]
fn a_request_with_a_wrong_signature_is_dropped() {
    let mut group = Group::new(4);
    let mut request = group.request(1, "a");
    request.op = b"b".to_vec();
    group.hand(0, CLIENT, &Message::Request(request));
    assert_eq!(group.refused(0, Refusal::Signature), 1);
    assert_eq!(group.status(0).pending, 0);
}

#[test]
fn a_proposal_with_a_forged_request_is_not_voted_for() {
    let mut group = Group::new(4);
    let mut request = group.request(1, "a");
    request.op = b"b".to_vec();
    let body = group.body(&[request]);
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &body));
    assert_eq!(group.refused(1, Refusal::Signature), 1);
    assert!(group.sent.is_empty());
}

#[test]
fn of_two_proposals_for_one_position_only_the_first_is_voted_for() {
    let mut group = Group::new(4);
    let (a, b) = (group.body(&[group.request(1, "a")]), group.body(&[group.request(2, "b")]));
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &a));
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &b));
    assert_eq!(group.refused(1, Refusal::Conflict), 1);
    assert_eq!(group.count(1, |m| matches!(m, Message::Prepare { .. })), 2);
}

#[test]
fn an_equivocating_primary_makes_nobody_execute_and_loses_the_view() {
    let mut group = Group::new(4);
    group.crash(0);
    let (a, b) = (group.body(&[group.request(1, "a")]), group.body(&[group.request(2, "b")]));
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &a));
    group.hand(2, group.config.members[0], &group.pre_prepare(1, &b));
    for i in [1, 2] {
        for body in [&a, &b] {
            group.hand(i, group.config.members[0], &Message::Commit(group.vote(1, body)));
        }
    }
    group.wait(300);
    assert!((1..4).all(|i| group.status(i).executed == 0));
    group.wait(2_000);
    assert!((1..4).all(|i| group.status(i).view == 1 && group.status(i).halted.is_none()));
}

#[test]
fn only_the_primary_proposes_and_nobody_votes_for_another() {
    let mut group = Group::new(4);
    let body = group.body(&[group.request(1, "a")]);
    group.hand(1, group.config.members[2], &group.pre_prepare(1, &body));
    assert_eq!(group.refused(1, Refusal::Sender), 1);
    let vote = group.vote(1, &body);
    if mode() == VoteAuthentication::Signed {
        // A PREPARE signed by 3 that 2 passes off as its own.
        group.hand(1, group.config.members[2], &group.prepare(3, vote));
        assert_eq!(group.refused(1, Refusal::Signature), 1);
    }
    group.hand(1, CLIENT, &Message::Commit(vote));
    assert_eq!(group.refused(1, Refusal::Sender), 2);
}

#[test]
fn a_vote_with_a_signature_in_mode_m_or_without_one_in_mode_s_is_refused() {
    let mut group = Group::new(4);
    let body = group.body(&[group.request(1, "a")]);
    let vote = group.vote(1, &body);
    let signature = match mode() {
        VoteAuthentication::Signed => None,
        VoteAuthentication::Channel => Some([0; 64]),
    };
    group.hand(1, group.config.members[0], &Message::PrePrepare { vote, signature, body });
    group.hand(1, group.config.members[2], &Message::Prepare { vote, signature });
    assert_eq!(group.refused(1, Refusal::Signature), 2);
    assert!(
        group.member(1).log.get(1).is_none_or(|slot| slot.accepted.is_none() && slot.prepares.is_empty())
    );
}

#[test]
fn a_time_too_far_ahead_is_refused_and_one_behind_does_not_turn_time_back() {
    let mut group = Group::new(4);
    let early = Some(Arc::new(Batch { time: group.now + Duration::from_secs(2), requests: vec![] }));
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &early));
    assert_eq!(group.refused(1, Refusal::Early), 1);
    group.submit(0, 1, "a");
    let before = group.status(1).time;
    let late = Some(Arc::new(Batch { time: Time::from_nanos(1), requests: vec![group.request(2, "b")] }));
    let vote = group.vote(2, &late);
    group.hand(1, group.config.members[0], &group.pre_prepare(2, &late));
    group.hand(1, group.config.members[2], &group.prepare(2, vote));
    group.hand(1, group.config.members[0], &Message::Commit(vote));
    group.hand(1, group.config.members[2], &Message::Commit(vote));
    assert_eq!(group.ops(1), ["a", "b"]);
    assert_eq!(group.status(1).time, before);
}

#[test]
fn positions_outside_the_window_are_refused() {
    let mut group = Group::new(4);
    for rsn in [0, 257, u64::MAX] {
        let body = group.body(&[group.request(1, "a")]);
        group.hand(1, group.config.members[0], &group.pre_prepare(rsn, &body));
    }
    assert_eq!(group.refused(1, Refusal::Window), 3);
    assert_eq!(group.member(1).log.iter().count(), 0);
}

#[test]
fn frames_of_other_groups_and_noise_are_counted_and_ignored() {
    let mut group = Group::new(4);
    let from = group.config.members[0];
    let foreign = Config { group: 6, ..group.config.clone() };
    let bytes = message::encode(&foreign, &Message::NotifyPull { from: 1 });
    let now = group.now;
    let replica = group.members[1].as_mut().unwrap();
    replica.on_message(now, from, &bytes);
    assert_eq!(replica.status().refused[&Refusal::Foreign], 1);
    let mut rng = Rng::new(1);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        replica.on_message(now, from, &noise);
    }
    assert_eq!(replica.status().executed, 0);
}

#[test]
fn no_damaged_message_makes_a_member_panic_or_execute_something_else() {
    // Everything that travels in a run with view changes, checkpoints and transfers, with bits flipped.
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (2, 4));
    for t in 1..=5 {
        group.submit(0, t, "tell x");
    }
    group.crash(0);
    group.submit(1, 6, "b");
    group.submit(2, 6, "b");
    group.wait(3_000);
    group.restart(0);
    group.wait(3_000);
    let ops = group.ops(1).iter().map(ToString::to_string).collect::<Vec<_>>();
    let frames: Vec<_> =
        group.sent.iter().map(|(from, to, m)| (*from, *to, message::encode(&group.config, m))).collect();
    let mut rng = Rng::new(2);
    for (from, to, frame) in frames {
        for _ in 0..4 {
            let mut bytes = frame.clone();
            for _ in 0..rng.within(1, 3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            if rng.chance(1, 8) {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            // From the one member that may be faulty, to anybody.
            let from = if group.config.member(from).is_some() { group.config.members[0] } else { from };
            let to = group.config.member(to).map_or(1, |m| usize::from(m.0)).max(1);
            let now = group.now;
            group.members[to].as_mut().unwrap().on_message(now, from, &bytes);
            group.drain(to);
        }
    }
    group.run();
    group.wait(5_000);
    for i in 1..4 {
        assert_eq!(group.status(i).halted, None);
        assert!(group.ops(i).len() <= ops.len() && ops.iter().zip(group.ops(i)).all(|(a, b)| *a == *b));
    }
}

#[test]
fn a_contradiction_to_what_was_executed_stops_the_member() {
    let mut group = Group::with(4, |c| (c.checkpoint_interval, c.log_window) = (2, 4));
    group.submit(0, 1, "a");
    group.loss = Box::new(|_, _, m| matches!(m, Message::Checkpoint(_)));
    group.submit(0, 2, "b");
    let claim = Checkpoint { rsn: 2, digest: Digest([1; 32]), ends: None };
    for i in 0..3 {
        let lie = group.sign(i, claim);
        group.hand(1, group.config.members[3], &Message::Checkpoint(lie));
    }
    // More than f members lie here; nothing can be saved, but nothing more is done either. The own signature
    // of member 1 stands in the way of one of the lies, so it takes the proof as a whole.
    let signatures = (0..3).map(|i| (MemberId(i), group.sign(i, claim).signature)).collect();
    let proof = CheckpointProof { rsn: 2, digest: claim.digest, ends: None, signatures };
    group.hand(1, group.config.members[3], &Message::Stable(proof));
    assert!(group.status(1).halted.is_some());
    assert_eq!(group.member(1).next_timeout(), None);
}

#[test]
fn one_view_change_named_q_times_justifies_no_new_view() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    // Member 2 executed "a". Primary 1 of view 1 is Byzantine and passes an empty VIEW-CHANGE of its own off as
    // those of all.
    let empty = ViewChange { view: 1, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
    let own = group.sign(1, empty);
    let digest = own.digest(&group.config);
    let active = group.config.active(1);
    let justification = (0..3).map(|i| (MemberId(i), digest)).collect();
    let lie = group.sign(1, NewView { view: 1, justification, active, stable: 0, order: vec![] });
    group.hand(2, group.config.members[1], &Message::ViewChange(own));
    group.hand(2, group.config.members[1], &Message::NewView(lie));
    assert_eq!((group.status(2).view, group.status(2).halted), (0, None));
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused_without_overflow() {
    let mut group = Group::new(4);
    let from = group.config.members[1];
    let stable = CheckpointProof { rsn: u64::MAX, digest: Digest([1; 32]), ends: None, signatures: vec![] };
    for view in [1, u64::MAX] {
        let vc = ViewChange { view, stable: stable.clone(), prepared: vec![], voted: vec![] };
        let message = Message::ViewChange(group.sign(1, vc));
        group.hand(2, from, &message);
    }
    group.hand(2, from, &Message::Stable(stable));
    let claim = group.sign(1, Checkpoint { rsn: u64::MAX - 127, digest: Digest([1; 32]), ends: None });
    group.hand(2, from, &Message::Checkpoint(claim));
    // A NEW-VIEW with a good justification and an absurd beginning.
    let empty = ViewChange { view: 1, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
    let v: Vec<_> = [0, 1, 3].map(|i| group.sign(i, empty.clone())).into();
    let justification = v.iter().map(|vc| (vc.sender, vc.digest(&group.config))).collect();
    let active = group.config.active(1);
    let order = vec![(Digest::default(), Some([0; 64]))];
    let lie = group.sign(1, NewView { view: 1, justification, active, stable: u64::MAX, order });
    for vc in v {
        group.hand(2, from, &Message::ViewChange(vc));
    }
    group.hand(2, from, &Message::NewView(lie));
    for view in [0, 1, u64::MAX] {
        let slots = vec![message::SlotStatus { proposed: true, prepares: u64::MAX, commits: u64::MAX }; 32];
        let status = message::Status {
            view,
            tag: Digest::default(),
            changing: false,
            wide: true,
            stable: u64::MAX,
            executed: u64::MAX,
            view_changes: u64::MAX,
            base: u64::MAX,
            slots,
        };
        group.wait(20);
        group.hand(2, from, &Message::Status(status));
    }
    assert_eq!(group.status(2).halted, None);
    assert_ne!(
        group.status(2).mode,
        Mode::Normal,
        "it joined 0, 1 and 3 and waits for a NEW-VIEW that follows"
    );
}

#[test]
fn a_batch_over_the_limits_is_refused_before_anything_is_verified() {
    let mut group = Group::with(4, |c| c.batch_requests_max = 2);
    let requests: Vec<_> = (1..=3).map(|t| group.request(t, "a")).collect();
    let body = group.body(&requests);
    group.hand(1, group.config.members[0], &group.pre_prepare(1, &body));
    assert_eq!(group.refused(1, Refusal::Invalid), 1);
    assert_eq!(group.status(1).verifications, 0);
}
