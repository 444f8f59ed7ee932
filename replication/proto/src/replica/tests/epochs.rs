//! Rosters that follow each other (PROTOCOL.md 2.15).

use super::*;
use crate::certificate::CheckpointProof;
use crate::epoch::{Reconfiguration, ReplaceError};
use crate::message::{Checkpoint, Outcome, Reply, ViewChange};

const NEW: PeerId = PeerId::new(9, 0);

/// RECONFIG: the member `out` leaves for `new`.
fn replace_by(group: &Group, client: PeerId, t: u64, epoch: u64, out: PeerId, new: PeerId) -> Request {
    let op = codec::encode(&Reconfiguration { epoch, replacement: Replacement { out, new } });
    let kind = RequestKind::Replace;
    let statement = Request::statement(group.config.group, client, t, 0, kind, &op);
    let proof = Proof::Signed(TestKeys::signature(client, &statement.0));
    Request { client, t, notified: 0, kind, op, proof }
}

fn replace(group: &Group, t: u64, out: usize) -> Message {
    let epoch = group.config.epoch;
    Message::Request(replace_by(group, CLIENT, t, epoch, group.config.members[out], NEW))
}

impl Group {
    /// What members say of request `t`.
    fn outcome(&self, t: u64) -> Vec<Result<u64, ReplaceError>> {
        let of = |m: &Message| match m {
            Message::Reply(Reply {
                t: of, outcome: Outcome::Executed { result: Some(result), .. }, ..
            }) if *of == t => codec::decode(result).ok(),
            _ => None,
        };
        self.sent.iter().filter_map(|(_, _, m)| of(m)).collect()
    }

    /// The newcomer takes the place of whom it replaces, as its host does when it has heard of the epoch.
    fn newcomer_joins(&mut self) {
        let config =
            self.members.iter().flatten().map(|r| r.config()).max_by_key(|c| c.epoch).unwrap().clone();
        let me = config.member(NEW).expect("it is in the roster");
        let keys = Box::new(TestKeys { me: NEW });
        let newcomer = Replica::new(config.clone(), me, keys, Tape::default(), self.now);
        let i = usize::from(me.0);
        self.config = config;
        self.members[i] = Some(newcomer);
        self.disks[i].clear();
        self.drain(i);
        self.run();
    }

    fn epochs(&self) -> Vec<u64> {
        self.members.iter().flatten().map(|r| r.config().epoch).collect()
    }
}

/// Four members, of which `out` was replaced after three operations.
fn replaced(out: usize) -> Group {
    let mut group = Group::new(4);
    for t in 1..=3 {
        group.submit(0, t, "a");
    }
    let request = replace(&group, 4, out);
    group.hand(0, CLIENT, &request);
    group.run();
    group.wait(3_000);
    group
}

#[test]
fn a_newcomer_takes_the_place_of_a_member_with_its_state() {
    for out in 0..4 {
        let mut group = replaced(out);
        assert_eq!(group.epochs(), [1; 4], "all are through");
        assert!(group.events.contains(&(out, Event::Retired { epoch: 1 })));
        assert!(group.outcome(4).iter().all(|result| *result == Ok(1)) && group.outcome(4).len() >= 2);
        group.newcomer_joins();
        group.wait(1_000);
        let status = group.status(out);
        assert_eq!((status.executed, status.epoch, status.retired), (4, 1, false), "member {out}");
        assert_eq!(group.ops(out), ["a"; 3]);
        assert_eq!(status.role, Role::Spare, "at first");
        assert_eq!(group.member(out).state_digest(), group.member((out + 1) % 4).state_digest());
        // It counts: without it the others would be too few.
        let dead = (out + 1) % 4;
        group.crash(dead);
        for i in (0..4).filter(|i| *i != dead) {
            group.submit(i, 5, "b");
        }
        group.wait(5_000);
        for i in (0..4).filter(|i| *i != dead) {
            assert_eq!(group.ops(i), ["a", "a", "a", "b"], "member {i}, {out} was replaced");
        }
    }
}

#[test]
fn what_does_not_fit_has_no_effect_and_the_client_is_told() {
    let mut group = Group::new(4);
    let members = group.config.members.clone();
    let stranger = PeerId::new(78, 0);
    let cases = [
        (CLIENT, 7, members[3], NEW, ReplaceError::Epoch(0)),
        (CLIENT, 0, NEW, NEW, ReplaceError::Roster),
        (CLIENT, 0, members[3], members[1], ReplaceError::Roster),
        (stranger, 0, members[3], NEW, ReplaceError::NotAllowed),
    ];
    for (t, (client, epoch, out, new, error)) in (1..).zip(cases) {
        let request = replace_by(&group, client, t, epoch, out, new);
        group.hand(0, client, &Message::Request(request));
        group.run();
        assert_eq!(group.outcome(t), [Err(error); 3]);
    }
    let mut malformed = replace_by(&group, CLIENT, 9, 0, members[3], NEW);
    malformed.op = vec![1, 2, 3];
    let Request { client, t, notified, kind, op, .. } = &malformed;
    let statement = Request::statement(group.config.group, *client, *t, *notified, *kind, op);
    malformed.proof = Proof::Signed(TestKeys::signature(CLIENT, &statement.0));
    group.hand(0, CLIENT, &Message::Request(malformed));
    group.run();
    assert_eq!(group.outcome(9), [Err(ReplaceError::Malformed); 3]);
    assert_eq!(group.epochs(), [0; 4]);
    // Who would have the state of a group of one?
    let mut alone = Group::new(1);
    let request = replace(&alone, 1, 0);
    alone.hand(0, CLIENT, &request);
    assert_eq!(alone.outcome(1), [Err(ReplaceError::Roster)]);
}

#[test]
fn what_follows_in_the_batch_is_executed_in_the_next_epoch() {
    let mut group = Group::with(4, |c| c.pipeline = 1);
    group.submit(0, 1, "a");
    // The primary is busy with one batch while the next ones come in: they share a batch.
    group.loss = Box::new(|_, _, m| matches!(m, Message::Commit(_)));
    group.submit(0, 2, "b");
    let request = replace(&group, 3, 3);
    group.hand(0, CLIENT, &request);
    for t in 4..7 {
        group.submit(0, t, "c");
    }
    group.loss = Box::new(|_, _, _| false);
    group.wait(2_000);
    assert_eq!(group.epochs(), [1; 4]);
    assert_eq!(group.ops(0), ["a", "b", "c", "c", "c"]);
    let ended = group.events.iter().find_map(|(_, e)| match e {
        Event::EpochBegan { rsn, .. } => Some(*rsn),
        _ => None,
    });
    assert_eq!(ended, Some(3), "the other requests of the batch were not executed in it");
    assert!(group.status(0).executed > 3);
}

#[test]
fn who_slept_is_shown_how_the_epoch_ended() {
    for cut in [1, 3] {
        let mut group = Group::new(4);
        group.submit(0, 1, "a");
        let asleep = group.config.members[cut];
        group.loss = Box::new(move |from, to, _| from == asleep || to == asleep);
        let request = replace(&group, 2, 2);
        for i in [0, 1, 2, 3] {
            group.hand(i, CLIENT, &request);
        }
        group.wait(3_000);
        assert_eq!(group.status(cut).epoch, 0);
        assert_eq!(group.status(0).epoch, 1);
        group.loss = Box::new(|_, _, _| false);
        group.wait(2_000);
        group.newcomer_joins();
        group.wait(2_000);
        for i in [0, 1, 3] {
            let status = group.status(i);
            // Once more or less: who slept had the request, too, and relays it.
            assert!(status.epoch == 1 && status.executed >= 2, "member {i}, {cut} slept: {status:?}");
        }
    }
}

#[test]
fn a_member_that_restarts_is_in_the_epoch_in_which_it_was() {
    let mut group = replaced(1);
    for i in [0, 2, 3] {
        group.crash(i);
    }
    // What they began with is the first epoch's configuration.
    let last = group.config.clone();
    for i in [0, 2, 3] {
        group.restart(i);
        assert_eq!((group.status(i).epoch, group.status(i).executed), (1, 4), "member {i}");
    }
    group.newcomer_joins();
    group.wait(1_000);
    group.submit(2, 5, "b");
    group.wait(1_000);
    assert_eq!(group.ops(2), ["a", "a", "a", "b"]);
    // And the one that has left is still out.
    group.config = last;
    let records = group.history[1].clone();
    let (keys, me) = (group.keys(1), MemberId(1));
    let gone =
        Replica::recover(group.config.clone(), me, keys, Tape::default(), group.now, records.into_iter())
            .unwrap();
    assert!(gone.status().retired);
    assert_eq!(gone.next_timeout(), None);
}

#[test]
fn one_epoch_follows_the_other() {
    let mut group = replaced(1);
    group.newcomer_joins();
    group.wait(1_000);
    let request =
        Message::Request(replace_by(&group, CLIENT, 5, 1, group.config.members[3], PeerId::new(3, 7)));
    for i in 0..4 {
        group.hand(i, CLIENT, &request);
    }
    group.wait(3_000);
    assert_eq!(group.epochs(), [2; 4]);
    assert!(group.status(3).retired);
    let members = group.member(0).config().members.clone();
    assert_eq!(members, [PeerId::new(1, 0), NEW, PeerId::new(3, 0), PeerId::new(3, 7)]);
}

#[test]
fn an_epoch_whose_end_is_executed_answers_no_reads() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    group.loss = Box::new(|_, _, m| matches!(m, Message::Checkpoint(_) | Message::Stable(_)));
    let request = replace(&group, 2, 3);
    group.hand(0, CLIENT, &request);
    group.run();
    assert_eq!((group.status(0).executed, group.status(0).epoch), (2, 0));
    group.hand(0, CLIENT, &Message::Read { nonce: 1, op: b"len?".to_vec() });
    let refused = |m: &Message| matches!(m, Message::ReadReply(reply) if reply.answer.is_none());
    assert_eq!(group.count(0, refused), 1);
    // Nor does it order anything more that would be executed.
    group.submit(0, 3, "b");
    assert_eq!(group.status(0).executed, 2);
}

#[test]
fn fewer_than_q_signatures_end_no_epoch() {
    let mut group = Group::new(4);
    group.submit(0, 1, "a");
    let ends = Some(Replacement { out: group.config.members[3], new: NEW });
    let claim = Checkpoint { rsn: 1, digest: Digest([1; 32]), ends };
    let signatures = |group: &Group, signers: &[u8]| {
        signers.iter().map(|m| (MemberId(*m), group.sign(*m, claim).signature)).collect::<Vec<_>>()
    };
    let proof = |signatures| CheckpointProof { rsn: 1, digest: claim.digest, ends, signatures };
    let from = group.config.members[2];
    let forged = proof(signatures(&group, &[2, 3]));
    group.hand(0, from, &Message::Stable(forged.clone()));
    assert_eq!(group.refused(0, Refusal::Signature), 1);
    // Nor does a VIEW-CHANGE, with however many.
    let whole = proof(signatures(&group, &[1, 2, 3]));
    let body = ViewChange { view: 1, stable: whole, prepared: vec![], voted: vec![] };
    let view_change = Message::ViewChange(group.sign(2, body));
    group.hand(0, from, &view_change);
    assert_eq!(group.refused(0, Refusal::Invalid), 1);
    assert_eq!(group.status(0).epoch, 0);
    // w of them are enough to believe it, for those who do not vote.
    let keys = TestKeys { me: CLIENT };
    let next = group.config.believe(&forged, &keys).expect("one of the two is correct");
    assert_eq!((next.epoch, next.members[3]), (1, NEW));
    assert!(group.config.believe(&proof(signatures(&group, &[2])), &keys).is_none());
    assert!(group.config.believe(&CheckpointProof { ends: None, ..forged.clone() }, &keys).is_none());
    assert!(next.believe(&forged, &keys).is_none(), "of the epoch before");
}

#[test]
fn votes_of_the_epoch_before_count_for_nothing() {
    let group = replaced(1);
    let vote = Vote { view: 0, tag: Digest::default(), rsn: 5, digest: Digest([3; 32]) };
    let before = Group::new(4);
    let bytes = message::encode(&before.config, &before.prepare(2, vote));
    let mut group = group;
    let (now, from) = (group.now, before.config.members[2]);
    group.members[0].as_mut().unwrap().on_message(now, from, &bytes);
    assert_eq!(group.refused(0, Refusal::Foreign), 1);
}

/// The replacement is ordered while the view changes, with every phase variant.
#[test]
fn the_primary_can_be_replaced_when_it_is_dead() {
    for guarantee in
        [crate::Guarantee::Byzantine, crate::Guarantee::ByzantineTentative, crate::Guarantee::CrashOnly]
    {
        let mut group = Group::with(4, |c| c.guarantee = guarantee);
        group.submit(0, 1, "a");
        group.crash(0);
        let request = replace(&group, 2, 0);
        for i in 1..4 {
            group.hand(i, CLIENT, &request);
        }
        group.wait(6_000);
        assert_eq!(group.epochs(), [1; 3], "{guarantee:?}");
        group.newcomer_joins();
        group.wait(1_000);
        group.submit(1, 3, "b");
        group.wait(500);
        for i in [1, 2, 3] {
            assert_eq!(group.ops(i), ["a", "b"], "member {i}, {guarantee:?}");
        }
        assert_eq!(group.status(0).executed, 2, "the newcomer has the state up to the end of the epoch");
    }
}
