//! A replica and whatever a Byzantine member and clients send to it. One member and all clients can sign anything,
//! nobody else signs. It must not panic, must not stop (one of four is within f), and must not hold more than its
//! bounds.
//!
//! The input is a list of: who sends and how much time passes (one byte), length (two bytes), a message without its
//! frame.
#![no_main]

use cl_base::{PeerId, Time};
use replication_proto::{
    Apply, Config, Guarantee, Keys, Mac, MemberId, Replacement, Replica, RestoreError, Signature,
    StateMachine, VoteAuthentication,
};
use std::time::Duration;

const ME: MemberId = MemberId(1);
const BYZANTINE: PeerId = PeerId::new(1, 0);

/// Every signature of the Byzantine member and of clients is good.
struct Lenient;

impl Keys for Lenient {
    fn sign(&self, _: &[u8]) -> Signature {
        [1; 64]
    }
    fn verify_member(&self, member: PeerId, _: &[u8], signature: &Signature) -> bool {
        member == BYZANTINE || (member == PeerId::new(2, 0) && *signature == [1; 64])
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        true
    }
    fn verify_mac(&self, _: PeerId, _: &[u8], _: &Mac) -> bool {
        true
    }
}

struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &mut Apply<'_>, _: &[u8]) -> Vec<u8> {
        self.0 += 1;
        self.0.to_le_bytes().to_vec()
    }
    fn query(&self, _: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        op.is_empty().then(|| self.0.to_le_bytes().to_vec())
    }
    fn advance(&mut self, _: &mut Apply<'_>) {}
    fn next_deadline(&self) -> Option<Time> {
        None
    }
    fn may_replace(&self, _: PeerId, _: &Replacement) -> bool {
        true
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((mode, mut rest)) = input.split_first() else { return };
    let members: Vec<PeerId> = (1..5).map(|i| PeerId::new(i, 0)).collect();
    let mut config = Config::new(0, members.clone()).expect("four members are a group");
    config.checkpoint_interval = 2;
    config.log_window = 4;
    if mode & 1 == 1 {
        config.votes = VoteAuthentication::Channel;
    }
    // With one phase nobody may lie.
    if mode & 2 == 2 {
        config.guarantee = Guarantee::ByzantineTentative;
    }
    let mut now = Time::from_nanos(1_000_000_000_000);
    let mut replica = Replica::new(config, ME, Box::new(Lenient), Counter(0), now);
    while let Some(([head, low, high], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (message, next) = after.split_at(len);
        rest = next;
        now = now + Duration::from_millis(u64::from(head >> 4) * 50);
        let from = match head & 3 {
            0 => PeerId::new(77, 0),
            _ => BYZANTINE,
        };
        replica.on_timeout(now);
        replica.on_message(now, from, &[&[0; 16], message].concat());
        while replica.poll_effect().is_some() {}
        assert_eq!(replica.status().halted, None);
        for holding in replica.holdings() {
            assert!(holding.held <= holding.bound, "{holding:?}");
        }
    }
});
