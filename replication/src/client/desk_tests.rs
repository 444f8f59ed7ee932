use super::*;
use crate::client::Pending;
use replication_proto::message::{Message, ReadReply, encode};
use replication_proto::{Keys, Mac, Signature};

/// Nobody verifies here.
struct NoKeys;

impl Keys for NoKeys {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; 64]
    }
    fn verify_member(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        false
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        false
    }
    fn macs(&self, _: &[PeerId], _: &[u8]) -> Option<Vec<Mac>> {
        None
    }
}

const WITHIN: Duration = Duration::from_secs(10);
const BEGIN: Time = Time::from_nanos(1 << 60);

fn desk() -> Desk {
    let config = Config::new(1, (1..5).map(|i| PeerId::new(i, 0)).collect()).unwrap();
    let client = Client::new(&config, PeerId::new(100, 0), Box::new(NoKeys), 7);
    Desk::new(client)
}

fn ask(desk: &mut Desk, now: Time, op: &[u8]) -> Pending {
    let (promise, pending) = Promise::new();
    desk.ask(now, Question { kind: Kind::Submit, op: op.to_vec(), within: WITHIN, promise });
    pending
}

/// Lets time pass until `until`, while `alive` members answer reads.
fn pass(desk: &mut Desk, until: Time, alive: &[MemberId]) {
    while let Some(at) = desk.next_timeout().filter(|at| *at <= until) {
        desk.on_timeout(at);
        while let Some((to, _)) = desk.poll_send() {
            if let Some(member) = desk.config().member(to).filter(|m| alive.contains(m)) {
                let reply = ReadReply { view: 0, nonce: 0, answer: None };
                let frame = encode(desk.config(), &Message::ReadReply(reply));
                desk.on_message(at, desk.config().peer(member), &frame);
            }
        }
    }
}

#[test]
fn with_too_few_members_the_silent_ones_are_named() {
    let mut desk = desk();
    let pending = ask(&mut desk, BEGIN, b"x");
    let dead = [MemberId(0), MemberId(2)];
    pass(&mut desk, BEGIN + WITHIN - Duration::from_nanos(1), &[MemberId(1), MemberId(3)]);
    assert_eq!(pending.take(), None, "there is time left");
    pass(&mut desk, BEGIN + WITHIN, &[MemberId(1), MemberId(3)]);
    let error = pending.wait().unwrap_err();
    assert_eq!(
        error,
        Error::NoQuorum { within: WITHIN, fate: Fate::Unknown, needed: 3, silent: dead.to_vec() }
    );
    assert!(error.to_string().contains("members 0, 2 do not answer, and 3 are needed"), "{error}");
}

#[test]
fn with_enough_members_it_is_the_deadline_alone() {
    let mut desk = desk();
    let pending = ask(&mut desk, BEGIN, b"x");
    pass(&mut desk, BEGIN + WITHIN, &[MemberId(0), MemberId(1), MemberId(3)]);
    let silent = vec![MemberId(2)];
    assert_eq!(pending.wait(), Err(Error::Deadline { within: WITHIN, fate: Fate::Unknown, silent }));
}

#[test]
fn what_never_left_is_known_not_to_be_executed_and_what_is_too_much_is_refused() {
    let mut desk = desk();
    let window = desk.config().client_window as usize;
    let pending: Vec<Pending> = (0..window + WAITING_MAX).map(|_| ask(&mut desk, BEGIN, b"x")).collect();
    assert_eq!(ask(&mut desk, BEGIN, b"x").wait(), Err(Error::Busy));
    let long = vec![0; desk.config().batch_bytes_max];
    assert!(matches!(ask(&mut desk, BEGIN, &long).wait(), Err(Error::TooLong { .. })));
    pass(&mut desk, BEGIN + WITHIN, &[]);
    for (i, pending) in pending.into_iter().enumerate() {
        let Err(Error::NoQuorum { fate, .. }) = pending.wait() else { panic!("nobody answered") };
        assert_eq!(fate == Fate::Unknown, i < window, "operation {i}");
    }
    // Everything was given up: the next one waits for room again and is given up alike.
    let pending = ask(&mut desk, BEGIN + WITHIN, b"x");
    pass(&mut desk, BEGIN + 2 * WITHIN, &[]);
    assert!(matches!(pending.wait(), Err(Error::NoQuorum { fate: Fate::NotExecuted, .. })));
}

#[test]
fn one_member_cannot_shut_a_client_out() {
    let mut desk = desk();
    let pending = ask(&mut desk, BEGIN, b"x");
    desk.on_refusal(PeerId::new(1, 0), ShutOut::Superseded);
    desk.on_refusal(PeerId::new(1, 0), ShutOut::Superseded);
    desk.on_refusal(PeerId::new(2, 0), ShutOut::Incompatible);
    desk.on_refusal(PeerId::new(77, 0), ShutOut::Superseded);
    assert_eq!(pending.take(), None);
    desk.on_refusal(PeerId::new(3, 0), ShutOut::Superseded);
    assert_eq!(pending.wait(), Err(Error::ShutOut(ShutOut::Superseded)));
}

#[test]
fn a_client_that_goes_away_leaves_nobody_waiting() {
    let mut desk = desk();
    let pending = ask(&mut desk, BEGIN, b"x");
    drop(desk);
    assert_eq!(pending.wait(), Err(Error::Closed));
}
