use super::*;
use crate::certificate::Certificate;
use crate::message::ViewChange;
use crate::replica::decision::decide;

const NORMAL: Mode = Mode::Normal;

#[test]
fn a_crashed_primary_is_replaced_and_the_request_executed_in_the_next_view() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.crash(0);
    for i in 1..4 {
        group.submit(i, 2, "b");
    }
    group.wait(1_500);
    assert_eq!(group.ops(1), ["a", "b"]);
    assert_eq!(group.ops(2), ["a", "b"]);
    assert_eq!(group.status(1).view, 1);
    assert_eq!(group.status(3).role, Role::Backup);
    assert_eq!(group.ops(3), ["a", "b"]);
}

#[test]
fn who_has_left_a_view_takes_no_part_in_it_any_more() {
    let mut group = Group::new(4);
    // Members 2 and 3 ask for view 1; by the join rule 1 follows. Nobody hears of the new view.
    group.loss = Box::new(|_, _, m| matches!(m, Message::NewView(_)));
    let vc = |group: &Group, i| {
        let body =
            ViewChange { view: 1, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
        Message::ViewChange(group.sign(i, body))
    };
    for i in [0, 3] {
        let message = vc(&group, i);
        group.hand(2, group.config.members[usize::from(i)], &message);
    }
    assert_eq!(group.status(2).mode, Mode::Changing);
    group.wire.clear();
    let body = group.body(&[group.request(1, "a")]);
    let vote = group.vote(1, &body);
    let before = group.sent.len();
    group.hand(2, group.config.members[0], &group.pre_prepare(1, &body));
    group.hand(2, group.config.members[1], &group.prepare(1, vote));
    group.hand(2, group.config.members[1], &Message::Commit(vote));
    assert_eq!(group.sent.len(), before, "it answers nothing of view 0");
    assert_eq!(group.status(2).executed, 0);
    assert!(group.refused(2, Refusal::View) == 3);
}

#[test]
fn what_was_prepared_by_one_correct_member_alone_is_carried_over() {
    let mut group = Group::new(4);
    // All PREPAREs reach member 2 only, COMMITs nobody: the batch is prepared at 2 alone.
    let two = group.config.members[2];
    group.loss = Box::new(move |_, to, m| match m {
        Message::Prepare { .. } => to != two,
        Message::Commit(_) | Message::Status(_) | Message::Widen { .. } => true,
        _ => false,
    });
    group.submit(0, 1, "a");
    assert!(group.member(2).log.get(1).unwrap().prepared);
    assert!(!group.member(1).log.get(1).unwrap().prepared);
    group.loss = Box::new(|_, _, _| false);
    group.crash(0);
    group.wait(2_000);
    assert_eq!(group.status(1).view, 1);
    for i in 1..4 {
        assert_eq!(group.ops(i), ["a"], "member {i}");
        assert_eq!(group.status(i).executed, 1);
    }
}

#[test]
fn the_highest_certificate_wins_and_holes_are_filled_with_null() {
    let group = Group::with(4, |c| c.votes = VoteAuthentication::Signed);
    let certificate = |view, rsn, text: &str| {
        let body = group.body(&[group.request(1, text)]);
        let vote = Vote { view, ..group.vote(rsn, &body) };
        Certificate { vote, proposal: Some([0; 64]), prepares: vec![] }
    };
    let of = |prepared: Vec<Certificate>| ViewChange {
        view: 9,
        stable: CheckpointProof::default(),
        prepared,
        voted: vec![],
    };
    let (old, new, far) = (certificate(1, 1, "old"), certificate(3, 1, "new"), certificate(2, 3, "far"));
    let order = [new.vote.digest, body_digest(&group.config, 2, &None), far.vote.digest];
    let v = [of(vec![old]), of(vec![new, far]), of(vec![])];
    for turn in 0..3 {
        let v: Vec<&ViewChange> = (0..3).map(|i| &v[(i + turn) % 3]).collect();
        assert_eq!(decide(&group.config, &v).unwrap().order, order);
    }
}

#[test]
fn a_new_view_that_does_not_follow_from_its_justification_is_refused() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.loss = Box::new(|_, _, m| matches!(m, Message::NewView(_)));
    group.crash(0);
    for i in 1..4 {
        group.submit(i, 2, "b");
    }
    group.wait(900);
    let (_, _, message) =
        group.sent.iter().find(|(_, _, m)| matches!(m, Message::NewView(_))).expect("member 1 opens view 1");
    let Message::NewView(honest) = message.clone() else { unreachable!() };
    assert_eq!(honest.body.order.len(), 1);
    let mut forged = Vec::new();
    let mut tamper = |change: &dyn Fn(&mut NewView)| {
        let mut body = honest.body.clone();
        change(&mut body);
        forged.push(Message::NewView(group.sign(1, body)));
    };
    tamper(&|nv| nv.order.clear());
    tamper(&|nv| nv.active = vec![MemberId(0), MemberId(1), MemberId(2)]);
    tamper(&|nv| nv.stable = 128);
    tamper(&|nv| nv.justification.truncate(2));
    tamper(&|nv| nv.order[0].0 = Digest([9; 32]));
    assert_eq!(group.status(2).mode, Mode::Changing);
    for message in forged {
        group.hand(2, group.config.members[1], &message);
        assert_eq!(group.status(2).mode, Mode::Changing, "{message:?}");
    }
    group.hand(2, group.config.members[1], &Message::NewView(honest));
    assert_eq!((group.status(2).view, group.status(2).mode), (1, NORMAL));
}

#[test]
fn one_member_alone_starts_no_view_change_and_f_plus_1_do() {
    let mut group = Group::new(4);
    let vc = |group: &Group, i, view| {
        let body = ViewChange { view, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
        Message::ViewChange(group.sign(i, body))
    };
    let message = vc(&group, 3, 9);
    group.hand(0, group.config.members[3], &message);
    assert_eq!(group.status(0).mode, NORMAL);
    let message = vc(&group, 2, 5);
    group.hand(0, group.config.members[2], &message);
    // The w-th largest: one correct member is there.
    assert_eq!((group.status(0).view, group.status(0).mode), (5, Mode::Changing));
}

#[test]
fn a_latecomer_learns_of_a_view_from_its_primary_and_fetches_the_justification() {
    let mut group = Group::new(4);
    let late = group.config.members[3];
    group.loss = Box::new(move |from, to, _| from == late || to == late);
    group.crash(0);
    for i in 1..3 {
        group.submit(i, 1, "a");
    }
    group.wait(700);
    // Two members alone cannot open a view.
    for i in 1..3 {
        assert_eq!((group.status(i).view, group.status(i).mode), (1, Mode::Changing));
    }
    group.loss = Box::new(|_, _, _| false);
    group.wait(3_000);
    for i in 1..4 {
        assert_eq!(group.ops(i), ["a"], "member {i}");
    }
}

#[test]
fn when_an_active_member_left_alone_and_clients_ask_in_vain_the_others_follow() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    let one = group.config.members[1];
    group.loss = Box::new(move |from, to, _| from == one || to == one);
    group.submit(1, 2, "b");
    group.wait(600);
    group.loss = Box::new(|_, _, _| false);
    assert_eq!(group.status(1).mode, Mode::Changing);
    // The order goes on without it, so there is no reason to leave as long as clients are content.
    group.submit(0, 3, "c");
    group.wait(2_000);
    assert_eq!(group.ops(2).last(), Some(&"c"));
    assert_eq!((group.status(0).view, group.status(2).view), (0, 0));
    for _ in 0..3 {
        group.submit(0, 3, "c");
        group.submit(2, 3, "c");
        group.wait(600);
    }
    assert!((0..4).all(|i| group.status(i).view == 1 && group.status(i).mode == NORMAL));
    assert!(group.ops(1).contains(&"b"));
}

#[test]
fn who_waits_for_a_view_that_others_have_given_up_follows_them() {
    let mut group = Group::new(4);
    // Member 1 saw VIEW-CHANGEs of q members for view 5, waited in vain and went on to 6. Member 0 was shown only
    // two of them: the third came from a faulty member and to 1 alone.
    for i in 1..4 {
        group.crash(i);
    }
    for (i, view) in [(2, 5), (1, 6)] {
        let body = ViewChange { view, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
        let message = Message::ViewChange(group.sign(i, body));
        group.hand(0, group.config.members[usize::from(i)], &message);
    }
    assert_eq!(group.status(0).view, 5);
    group.wait(1_500);
    assert_eq!(group.status(0).view, 6);
}

#[test]
fn primaries_that_die_one_after_the_other_are_replaced_equally_fast() {
    let mut group = Group::new(4);
    for round in 0..6 {
        let primary = usize::from(group.config.primary(round).0);
        group.submit(primary, 2 * round + 1, "before");
        group.wait(1_000);
        group.crash(primary);
        for i in (0..4).filter(|i| *i != primary) {
            group.submit(i, 2 * round + 2, "after");
        }
        // T_req = 500 ms, and the view change itself takes no time here.
        group.wait(600);
        for i in (0..4).filter(|i| *i != primary) {
            assert_eq!(group.status(i).view, round + 1, "member {i} in round {round}");
        }
        // It comes back as a spare, which executes nothing, and is needed in the next round.
        group.restart(primary);
        group.wait(1_000);
    }
}

#[test]
fn an_old_view_change_is_resent_word_for_word() {
    let mut group = Group::new(4);
    group.loss = Box::new(|_, _, m| matches!(m, Message::ViewChange(_)));
    group.crash(0);
    group.submit(1, 1, "a");
    group.wait(3_000);
    let sent: Vec<_> = group
        .sent
        .iter()
        .filter_map(|(from, _, m)| match m {
            Message::ViewChange(vc) if *from == group.config.members[1] => Some(vc),
            _ => None,
        })
        .collect();
    assert!(sent.len() > 5);
    assert!(sent.iter().all(|vc| *vc == sent[0]));
}

/// The shortest run in which the printed protocol executes two batches as RSN 1 (PROTOCOL.md 1.1): one Byzantine
/// member (2), two view changes, a primary that signs a new view and goes on in the old one, a spare that drops
/// its state. Here the same schedule of losses and lies is harmless.
#[test]
fn the_run_that_breaks_the_printed_protocol_is_harmless() {
    let mut group = Group::new(4);
    let p = group.config.members.clone();
    // View 0: 0 proposes A; 1 prepares, and 0 and 1 are prepared. Member 2 is played by hand.
    group.crash(2);
    group.loss = Box::new(|_, _, m| matches!(m, Message::Status(_) | Message::Widen { .. }));
    group.submit(0, 1, "A");
    let body = group.member(0).log.get(1).unwrap().body().unwrap().clone();
    let vote = group.vote(1, &body);
    for i in [0, 1] {
        let message = group.prepare(2, vote);
        group.hand(i, p[2], &message);
    }
    // All three COMMIT, but 0 alone hears of it and executes A.
    group.loss = Box::new(|_, _, _| true);
    group.wire.clear();
    group.hand(0, p[1], &Message::Commit(vote));
    group.hand(0, p[2], &Message::Commit(vote));
    assert_eq!(group.ops(0), ["A"]);
    // 0's timer fires, and 2 helps with an empty VIEW-CHANGE; 0 may not go on in view 0 from here on, so it
    // cannot execute after signing. Member 3, the spare, asks, too.
    let empty = |group: &Group, i, view| {
        let body = ViewChange { view, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] };
        Message::ViewChange(group.sign(i, body))
    };
    // 1 is slow: views 1 is opened by nobody, all go to view 2, led by the Byzantine 2 from empty states of
    // 2, 3 and, the third that is needed, one of 0 and 1: there A is.
    for i in [0, 3] {
        for from in [2, 1] {
            let message = empty(&group, from, 2);
            if usize::from(from) != i {
                group.hand(i, p[usize::from(from)], &message);
            }
        }
        assert_eq!(group.status(i).view, 2);
    }
    let own = |group: &Group, i: usize| {
        let from = p[i];
        let of = |(f, _, m): &(PeerId, PeerId, Message)| match m {
            Message::ViewChange(vc) if *f == from => Some(vc.clone()),
            _ => None,
        };
        group.sent.iter().rev().find_map(of).expect("it has left")
    };
    let (zero, three) = (own(&group, 0), own(&group, 3));
    assert_eq!(zero.body.prepared.len(), 1, "0 takes A along");
    let two = group
        .sign(2, ViewChange { view: 2, stable: CheckpointProof::default(), prepared: vec![], voted: vec![] });
    let v = [zero, two, three];
    // The lie: B, or nothing, in place of A.
    for order in [vec![], vec![group.vote(1, &group.body(&[group.request(2, "B")])).digest]] {
        let active = group.config.active(2);
        let tag = crate::message::tag_of(&group.config, 2, &active, 0, order.iter().copied());
        let order = order
            .into_iter()
            .map(|digest| {
                let vote = Vote { view: 2, tag, rsn: 1, digest };
                let signed = statement(Domain::PrePrepare, &group.config, MemberId(2), &vote);
                (digest, Some(TestKeys::signature(p[2], &signed.0)))
            })
            .collect();
        let justification = v.iter().map(|vc| (vc.sender, vc.digest(&group.config))).collect();
        let lie = group.sign(2, NewView { view: 2, justification, active, stable: 0, order });
        for i in [0, 3] {
            for vc in &v {
                group.hand(i, p[usize::from(vc.sender.0)], &Message::ViewChange(vc.clone()));
            }
            group.hand(i, p[2], &Message::NewView(lie.clone()));
            assert_eq!(group.status(i).mode, Mode::Changing, "member {i} does not install the lie");
        }
    }
    // Left to themselves the correct members agree on A.
    group.loss = Box::new(|_, _, _| false);
    group.wait(6_000);
    for i in [0, 1, 3] {
        assert_eq!(group.ops(i), ["A"], "member {i}");
        assert_eq!(group.status(i).halted, None);
    }
}
