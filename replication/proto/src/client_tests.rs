use super::*;
use crate::certificate::CheckpointProof;
use crate::epoch::Replacement;
use crate::keys::Signature;
use crate::message::Tentative;
use std::time::Duration;

struct NoKeys;

impl Keys for NoKeys {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; 64]
    }
    fn verify_member(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        unreachable!("a client believes f+1 members, not signatures")
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        unreachable!("a client believes f+1 members, not signatures")
    }
}

const NOW: Time = Time::from_nanos(1_000_000_000);
const ME: PeerId = PeerId::new(77, 0);

fn client() -> (Config, Client) {
    let config = Config::new(1, (0..4).map(|i| PeerId::new(1 + i, 0)).collect()).unwrap();
    let client = Client::new(&config, ME, Box::new(NoKeys), 100);
    (config, client)
}

/// With MACs for all members that are all zero.
struct ZeroMacs;

impl Keys for ZeroMacs {
    fn sign(&self, _: &[u8]) -> Signature {
        [1; 64]
    }
    fn verify_member(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        unreachable!("a client believes f+1 members, not signatures")
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        unreachable!("a client believes f+1 members, not signatures")
    }
    fn macs(&self, _: &[PeerId], _: &[u8]) -> Option<Vec<crate::keys::Mac>> {
        Some(vec![[0; 16]; 4])
    }
}

#[test]
fn what_was_not_answered_in_time_is_signed_and_what_follows_for_a_while() {
    let config = Config { clients: ClientAuthentication::Macs, ..client().0 };
    let mut client = Client::new(&config, ME, Box::new(ZeroMacs), 1);
    let proofs = |client: &mut Client| {
        let proof = |effect| match effect {
            ClientEffect::Send { bytes, .. } => match message::decode(&config, &bytes) {
                Ok(Message::Request(request)) => Some(request.is_signed()),
                _ => None,
            },
            _ => None,
        };
        effects(client).into_iter().filter_map(proof).collect::<Vec<_>>()
    };
    client.submit(NOW, b"a".to_vec()).unwrap();
    assert_eq!(proofs(&mut client), [false]);
    client.on_timeout(NOW + config.client_timeout);
    assert_eq!(proofs(&mut client), [true; 4], "to all");
    for from in [0, 1] {
        reply(&config, &mut client, from, 0, 1, 1, b"r");
    }
    effects(&mut client);
    for t in 2..=SIGNED_AFTER_TIMEOUT + 2 {
        client.submit(NOW, b"b".to_vec()).unwrap();
        assert_eq!(proofs(&mut client), [t < SIGNED_AFTER_TIMEOUT + 2]);
        for from in [0, 1] {
            reply(&config, &mut client, from, 0, t, t, b"r");
        }
        effects(&mut client);
    }
}

fn effects(client: &mut Client) -> Vec<ClientEffect> {
    std::iter::from_fn(|| client.poll_effect()).collect()
}

fn reply(config: &Config, client: &mut Client, from: u8, view: View, t: u64, rsn: Rsn, result: &[u8]) {
    let outcome = Outcome::Executed { rsn, digest: result_digest(result), result: Some(result.to_vec()) };
    tell(config, client, from, view, t, outcome);
}

fn tell(config: &Config, client: &mut Client, from: u8, view: View, t: u64, outcome: Outcome) {
    let message = Message::Reply(Reply { view, t, last_notification: 0, tentative: None, outcome });
    client.on_message(NOW, config.peer(MemberId(from)), &message::encode(config, &message));
}

#[test]
fn a_result_counts_when_f_plus_1_members_say_it_and_a_liar_is_named_once() {
    let (config, mut client) = client();
    let ticket = client.submit(NOW, b"op".to_vec()).unwrap();
    assert_eq!(effects(&mut client).len(), 1, "to the primary only");
    reply(&config, &mut client, 0, 0, 100, 7, b"wrong");
    reply(&config, &mut client, 0, 0, 100, 7, b"right");
    reply(&config, &mut client, 1, 0, 100, 8, b"wrong");
    assert_eq!(effects(&mut client), []);
    reply(&config, &mut client, 2, 0, 100, 7, b"right");
    let completed = ClientEffect::Completed { ticket, result: b"right".to_vec(), rsn: 7 };
    assert_eq!(effects(&mut client), [completed, ClientEffect::Outvoted { member: MemberId(1) }]);
    // Later contradictions are noticed, too; agreement and repetition are not news.
    reply(&config, &mut client, 1, 0, 100, 8, b"wrong");
    reply(&config, &mut client, 3, 0, 100, 7, b"right");
    assert_eq!(effects(&mut client), []);
    reply(&config, &mut client, 3, 0, 100, 7, b"other");
    assert_eq!(effects(&mut client), [ClientEffect::Outvoted { member: MemberId(3) }]);
}

#[test]
fn a_result_may_come_from_one_member_if_f_plus_1_vouch_for_its_digest() {
    let (config, mut client) = client();
    client.submit(NOW, b"op".to_vec()).unwrap();
    effects(&mut client);
    let digest = result_digest(b"long");
    for from in [0, 1] {
        let outcome = Outcome::Executed { rsn: 1, digest, result: None };
        tell(&config, &mut client, from, 0, 100, outcome);
    }
    assert_eq!(effects(&mut client), []);
    // A result that does not match its own digest.
    let outcome = Outcome::Executed { rsn: 1, digest, result: Some(b"fake".to_vec()) };
    tell(&config, &mut client, 3, 0, 100, outcome);
    assert_eq!(effects(&mut client), [ClientEffect::Outvoted { member: MemberId(3) }]);
    reply(&config, &mut client, 2, 0, 100, 1, b"long");
    assert!(
        matches!(&effects(&mut client)[..], [ClientEffect::Completed { result, .. }] if result == b"long")
    );
}

#[test]
fn a_faulty_member_cannot_crowd_out_the_result() {
    let (config, mut client) = client();
    client.submit(NOW, b"op".to_vec()).unwrap();
    for i in 0..50 {
        reply(&config, &mut client, 3, 0, 100, 1, &[i]);
    }
    effects(&mut client);
    for from in [0, 1] {
        reply(&config, &mut client, from, 0, 100, 1, b"right");
    }
    assert!(matches!(
        &effects(&mut client)[..],
        [ClientEffect::Completed { .. }, ClientEffect::Outvoted { .. }]
    ));
}

#[test]
fn an_unanswered_request_goes_to_all_and_less_and_less_often() {
    let (config, mut client) = client();
    client.submit(NOW, b"op".to_vec()).unwrap();
    effects(&mut client);
    let mut at = Vec::new();
    for _ in 0..6 {
        let now = client.next_timeout().unwrap();
        client.on_timeout(now);
        assert_eq!(effects(&mut client).len(), config.n());
        at.push(now.saturating_since(NOW).as_secs());
    }
    assert_eq!(at, [1, 2, 4, 8, 16, 24]);
    assert_eq!(client.next_timeout().unwrap().saturating_since(NOW), Duration::from_secs(32));
}

#[test]
fn the_window_counts_from_the_oldest_request() {
    let (config, mut client) = client();
    for _ in 0..config.client_window {
        client.submit(NOW, vec![]).unwrap();
    }
    assert_eq!(client.submit(NOW, vec![]), Err(SubmitError::Window));
    for t in 101..110 {
        for from in [0, 1] {
            reply(&config, &mut client, from, 0, t, 1, b"");
        }
    }
    assert_eq!(client.submit(NOW, vec![]), Err(SubmitError::Window), "the oldest is still out");
    for from in [0, 1] {
        reply(&config, &mut client, from, 0, 100, 1, b"");
    }
    assert_eq!(client.submit(NOW, vec![]), Ok(Ticket(100 + config.client_window)));
    assert!(matches!(client.submit(NOW, vec![0; 1 << 20]), Err(SubmitError::TooLong { .. })));
}

#[test]
fn one_member_alone_cannot_make_a_client_believe_in_a_view_or_give_up() {
    let (config, mut client) = client();
    let ticket = client.submit(NOW, b"op".to_vec()).unwrap();
    effects(&mut client);
    tell(&config, &mut client, 3, 1_000, 100, Outcome::Stale { floor: 500 });
    assert_eq!(client.view_hint().view, 0);
    assert_eq!(effects(&mut client), []);
    tell(&config, &mut client, 1, 6, 100, Outcome::Stale { floor: 200 });
    assert_eq!(client.view_hint().view, 6);
    assert_eq!(client.view_hint().primary, MemberId(2));
    assert_eq!(effects(&mut client), [ClientEffect::Stale { ticket, floor: 200 }]);
}

#[test]
fn strangers_and_noise_are_counted() {
    let (config, mut client) = client();
    client.on_message(NOW, PeerId::new(99, 0), &[]);
    client.on_message(NOW, config.peer(MemberId(0)), &[1, 2, 3]);
    client.on_message(
        NOW,
        config.peer(MemberId(0)),
        &message::encode(&config, &Message::NotifyPull { from: 1 }),
    );
    assert_eq!(client.refused(), 3);
}

/// View, active members and result in a READ-REPLY, or that there is no answer.
type Said<'a> = Option<(View, u64, &'a [u8])>;

fn read_reply(
    config: &Config,
    client: &mut Client,
    from: u8,
    nonce: u64,
    answer: Option<(View, u64, &[u8])>,
) {
    let view = answer.map_or(0, |(view, ..)| view);
    let answer = answer.map(|(_, active, result)| message::ReadAnswer {
        tag: Digest::default(),
        active,
        digest: result_digest(result),
        result: Some(result.to_vec()),
    });
    let reply = message::ReadReply { view, nonce, answer };
    let bytes = message::encode(config, &Message::ReadReply(reply));
    client.on_message(NOW, config.peer(MemberId(from)), &bytes);
}

/// How many requests are among the effects, and what reads gave.
fn reads_of(config: &Config, client: &mut Client) -> (usize, Vec<Option<Vec<u8>>>) {
    let (mut requests, mut results) = (0, Vec::new());
    for effect in effects(client) {
        match effect {
            ClientEffect::Send { bytes, .. } => {
                requests += usize::from(matches!(message::decode(config, &bytes), Ok(Message::Request(_))));
            }
            ClientEffect::Read { result, .. } => results.push(result),
            _ => {}
        }
    }
    (requests, results)
}

#[test]
fn a_read_needs_all_active_members_and_no_order() {
    let (config, mut client) = client();
    client.read(NOW, b"q".to_vec()).unwrap();
    assert_eq!(effects(&mut client).len(), 3, "to the active members");
    for from in [0, 1] {
        read_reply(&config, &mut client, from, 101, Some((0, 0b0111, b"r")));
        read_reply(&config, &mut client, from, 101, Some((0, 0b0111, b"r")));
    }
    assert_eq!(reads_of(&config, &mut client), (0, vec![]), "w are not enough");
    // A spare that passes itself off as active does not stand for the one that is missing.
    read_reply(&config, &mut client, 3, 101, Some((0, 0b0111, b"r")));
    assert_eq!(reads_of(&config, &mut client), (0, vec![]));
    read_reply(&config, &mut client, 2, 101, Some((0, 0b0111, b"r")));
    assert_eq!(reads_of(&config, &mut client), (0, vec![Some(b"r".to_vec())]));
}

#[test]
fn a_read_with_different_answers_or_none_is_ordered() {
    let (config, mut client) = client();
    let answers: [[Said<'_>; 2]; 4] = [
        [Some((0, 0b0111, b"r")), Some((0, 0b0111, b"s"))],
        [Some((0, 0b0111, b"r")), Some((1, 0b0111, b"r"))],
        [Some((0, 0b0111, b"r")), Some((0, 0b1111, b"r"))],
        [Some((0, 0b0111, b"r")), None],
    ];
    for (i, [first, second]) in answers.into_iter().enumerate() {
        let (nonce, t) = (i as u64 + 101, i as u64 + 100);
        client.read(NOW, b"q".to_vec()).unwrap();
        effects(&mut client);
        read_reply(&config, &mut client, 0, nonce, first);
        assert_eq!(reads_of(&config, &mut client), (0, vec![]));
        read_reply(&config, &mut client, 1, nonce, second);
        assert_eq!(reads_of(&config, &mut client), (1, vec![]), "ordered once");
        read_reply(&config, &mut client, 2, nonce, first);
        for from in [0, 1] {
            reply(&config, &mut client, from, 0, t, 7, b"ordered");
        }
        assert_eq!(reads_of(&config, &mut client), (0, vec![Some(b"ordered".to_vec())]));
    }
}

#[test]
fn a_read_that_is_not_answered_in_time_is_ordered_when_there_is_room() {
    let (config, mut client) = client();
    let window = config.client_window;
    for _ in 0..window {
        client.submit(NOW, b"op".to_vec()).unwrap();
    }
    client.read(NOW, b"q".to_vec()).unwrap();
    effects(&mut client);
    let later = NOW + config.client_timeout;
    assert_eq!(client.next_timeout(), Some(later));
    client.on_timeout(later);
    let (again, _) = reads_of(&config, &mut client);
    assert_eq!(again as u64, 4 * window, "what is outstanding is sent again, the read waits");
    for from in [0, 1] {
        reply(&config, &mut client, from, 0, 100, 7, b"r");
    }
    assert_eq!(reads_of(&config, &mut client).0, 1);
    for from in [0, 1] {
        reply(&config, &mut client, from, 0, 100 + window, 8, b"s");
    }
    assert_eq!(reads_of(&config, &mut client), (0, vec![Some(b"s".to_vec())]));
}

#[test]
fn reads_are_bounded() {
    let (config, mut client) = client();
    for _ in 0..config.client_window {
        client.read(NOW, b"q".to_vec()).unwrap();
    }
    assert_eq!(client.read(NOW, b"q".to_vec()), Err(SubmitError::Window));
}

/// An answer that can be undone: in which view, after which history.
fn reply_early(config: &Config, client: &mut Client, from: u8, view: View, history: u8) {
    let outcome = Outcome::Executed { rsn: 7, digest: result_digest(b"r"), result: Some(b"r".to_vec()) };
    let tentative = Some(Tentative { tag: Digest::default(), history: Digest([history; 32]) });
    let message = Message::Reply(Reply { view, t: 100, last_notification: 0, tentative, outcome });
    client.on_message(NOW, config.peer(MemberId(from)), &message::encode(config, &message));
}

fn completed(client: &mut Client) -> bool {
    effects(client).iter().any(|effect| matches!(effect, ClientEffect::Completed { .. }))
}

#[test]
fn answers_that_can_be_undone_count_when_2f_plus_1_are_of_one_view_and_history() {
    for guarantee in [crate::Guarantee::ByzantineTentative, crate::Guarantee::CrashOnly] {
        let config = Config { guarantee, ..client().0 };
        let submitted = || {
            let mut client = Client::new(&config, ME, Box::new(NoKeys), 100);
            client.submit(NOW, b"op".to_vec()).unwrap();
            client
        };
        for (from_others, good) in
            [([(1, 0), (1, 0)], true), ([(1, 0), (1, 1)], false), ([(1, 0), (2, 0)], false)]
        {
            let mut client = submitted();
            reply_early(&config, &mut client, 0, 1, 0);
            for (from, (view, history)) in (1..).zip(from_others) {
                assert!(!completed(&mut client));
                reply_early(&config, &mut client, from, view, history);
            }
            assert_eq!(completed(&mut client), good, "{guarantee:?} {from_others:?}");
        }
        // Some may be certain already, and f+1 of those are enough by themselves.
        let mut client = submitted();
        reply_early(&config, &mut client, 0, 1, 0);
        reply_early(&config, &mut client, 1, 1, 0);
        assert!(!completed(&mut client));
        reply(&config, &mut client, 2, 5, 100, 7, b"r");
        assert!(completed(&mut client));
        let mut client = submitted();
        reply(&config, &mut client, 0, 1, 100, 7, b"r");
        reply_early(&config, &mut client, 0, 1, 0);
        reply(&config, &mut client, 2, 5, 100, 7, b"r");
        assert!(completed(&mut client), "an overtaken answer takes nothing back");
    }
}

#[test]
fn who_did_not_ask_for_answers_that_can_be_undone_does_not_believe_them() {
    let (config, mut client) = client();
    client.submit(NOW, b"op".to_vec()).unwrap();
    for from in 0..4 {
        reply_early(&config, &mut client, from, 0, 0);
    }
    assert!(!completed(&mut client));
}

#[test]
fn an_answer_that_was_undone_is_no_lie() {
    let config = Config { guarantee: crate::Guarantee::ByzantineTentative, ..client().0 };
    let mut client = Client::new(&config, ME, Box::new(NoKeys), 100);
    client.submit(NOW, b"op".to_vec()).unwrap();
    reply_early(&config, &mut client, 0, 0, 0);
    effects(&mut client);
    for from in [1, 2] {
        reply(&config, &mut client, from, 1, 100, 8, b"r");
    }
    reply_early(&config, &mut client, 3, 0, 0);
    assert!(effects(&mut client).iter().all(|e| !matches!(e, ClientEffect::Outvoted { .. })));
}

/// Signatures are the signer's name and the beginning of what is signed.
struct NamedKeys;

impl NamedKeys {
    fn signature(who: PeerId, bytes: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature[..8].copy_from_slice(&who.to_u64().to_le_bytes());
        signature[8..40].copy_from_slice(&bytes[..32]);
        signature
    }
}

impl Keys for NamedKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        NamedKeys::signature(ME, bytes)
    }
    fn verify_member(&self, who: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        NamedKeys::signature(who, bytes) == *signature
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        unreachable!("a client verifies no requests")
    }
}

/// How the epoch of `config` ends, as these members sign it.
fn end_of(config: &Config, signers: &[u8]) -> CheckpointProof {
    let ends = Some(Replacement { out: config.members[0], new: PeerId::new(9, 0) });
    let claim = message::Checkpoint { rsn: 7, digest: Digest([1; 32]), ends };
    let sign = |m: u8| {
        let statement = message::forge::signed_statement(config, MemberId(m), &claim);
        (MemberId(m), NamedKeys::signature(config.peer(MemberId(m)), &statement.0))
    };
    CheckpointProof {
        rsn: 7,
        digest: claim.digest,
        ends,
        signatures: signers.iter().map(|m| sign(*m)).collect(),
    }
}

#[test]
fn a_client_follows_the_group_into_the_next_epoch_and_asks_again() {
    let config = client().0;
    let mut client = Client::new(&config, ME, Box::new(NamedKeys), 100);
    client.listen(NOW);
    client.submit(NOW, b"op".to_vec()).unwrap();
    client.read(NOW, b"read".to_vec()).unwrap();
    reply(&config, &mut client, 0, 0, 100, 7, b"r");
    effects(&mut client);
    let show = |client: &mut Client, from: PeerId, proof: CheckpointProof| {
        client.on_message(NOW, from, &message::encode(&config, &Message::Stable(proof)));
    };
    // One member alone is not believed, nor one that signs twice.
    for signers in [&[0][..], &[0, 0], &[]] {
        show(&mut client, config.members[1], end_of(&config, signers));
    }
    assert_eq!((client.config().epoch, client.refused()), (0, 3));
    show(&mut client, config.members[1], end_of(&config, &[0, 1]));
    let next = client.config().clone();
    assert_eq!((next.epoch, next.members[0]), (1, PeerId::new(9, 0)));
    let told = effects(&mut client);
    assert!(told.contains(&ClientEffect::EpochBegan { epoch: 1, members: next.members.clone() }));
    let asked = |to: PeerId| {
        told.iter().any(|effect| match effect {
            ClientEffect::Send { to: whom, bytes } if *whom == to => {
                matches!(message::decode(&next, bytes), Ok(Message::Request(Request { t: 100, .. })))
            }
            _ => false,
        })
    };
    assert!(next.members.iter().all(|member| asked(*member)));
    // What the roster before said of it counts no more: each has a faulty member of its own.
    reply(&next, &mut client, 1, 0, 100, 7, b"r");
    assert!(!completed(&mut client));
    reply(&next, &mut client, 2, 0, 100, 7, b"r");
    assert!(completed(&mut client));
    // There is no way back.
    show(&mut client, config.members[1], end_of(&config, &[0, 1]));
    assert_eq!(client.config().epoch, 1);
}
