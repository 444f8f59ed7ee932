//! A client and whatever members send to it: one of four says anything, so nothing that only it says is believed.
//!
//! The input is a list of: who sends (one byte), length (two bytes), a message without its frame.
#![no_main]

use cl_base::{PeerId, Time};
use replication_proto::{Client, ClientEffect, Config, Keys, Signature};
use std::time::Duration;

struct Silent;

impl Keys for Silent {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; 64]
    }
    fn verify_member(&self, member: PeerId, _: &[u8], _: &Signature) -> bool {
        // The one that may be alone; nobody signs for the others.
        member == PeerId::new(1, 0)
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        true
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let members: Vec<PeerId> = (1..5).map(|i| PeerId::new(i, 0)).collect();
    let config = Config::new(0, members.clone()).expect("four members are a group");
    let mut now = Time::from_nanos(1_000_000_000_000);
    let mut client = Client::new(&config, PeerId::new(77, 0), Box::new(Silent), 1);
    client.listen(now);
    client.submit(now, b"one".to_vec()).expect("there is room");
    client.submit(now, b"two".to_vec()).expect("there is room");
    client.read(now, b"three".to_vec()).expect("there is room");
    let alone = input.first().is_some_and(|first| first & 0x80 != 0);
    let mut rest = input;
    while let Some(([head, low, high], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (message, next) = after.split_at(len);
        rest = next;
        now = now + Duration::from_millis(u64::from(head >> 2 & 7) * 100);
        let from = if alone { members[0] } else { members[usize::from(head & 3)] };
        client.on_timeout(now);
        client.on_message(now, from, &[&[0; 16], message].concat());
        while let Some(effect) = client.poll_effect() {
            let believed = !matches!(effect, ClientEffect::Send { .. } | ClientEffect::Outvoted { .. });
            assert!(!(alone && believed), "{effect:?} because of one member");
        }
    }
});
