//! What a member allocates for an ordered operation once it is warm, by the message that it was for. What remains, and why,
//! is in docs/PERFORMANCE.md.

use allocation_counter::measure;
use cl_base::{PeerId, Time};
use replication_proto::message::{Message, decode};
use replication_proto::{
    Apply, Client, ClientAuthentication, ClientEffect, Config, Effect, Keys, Mac, Replica, RestoreError,
    Signature, StateMachine, VoteAuthentication,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Past several checkpoints, so that logs and windows have the size they keep.
const WARM_UP: u64 = 1024;
const OPERATIONS: u64 = 1280;
const CLIENT: PeerId = PeerId::new(100, 0);

/// Allocations for an operation, checkpoints included: measured, and rounded up.
const PRIMARY_MAX: u64 = 21;
const BACKUP_MAX: u64 = 20;
/// Of a spare, which hears of checkpoints only.
const SPARE_MAX: u64 = 1;

/// Everybody is believed: what keys cost is not the protocol's.
struct Trust;

impl Keys for Trust {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; 64]
    }
    fn verify_member(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        true
    }
    fn verify_client(&self, _: PeerId, _: &[u8], _: &Signature) -> bool {
        true
    }
    fn macs(&self, members: &[PeerId], _: &[u8]) -> Option<Vec<Mac>> {
        Some(vec![[0; 16]; members.len()])
    }
    fn verify_mac(&self, _: PeerId, _: &[u8], _: &Mac) -> bool {
        true
    }
}

struct Noop;

impl StateMachine for Noop {
    fn apply(&mut self, _: &mut Apply<'_>, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Request(_) => "request",
        Message::PrePrepare { .. } => "pre-prepare",
        Message::Prepare { .. } => "prepare",
        Message::Commit(_) => "commit",
        Message::Checkpoint(_) => "checkpoint",
        _ => "other",
    }
}

/// Allocations of each member of a group by the kind of message, for [`OPERATIONS`] one after the other.
fn allocations(f: u32) -> Vec<BTreeMap<&'static str, u64>> {
    let members: Vec<PeerId> = (0..3 * f + 1).map(|i| PeerId::new(i + 1, 0)).collect();
    let mut config = Config::new(1, members.clone()).unwrap();
    config.votes = VoteAuthentication::Channel;
    config.clients = ClientAuthentication::Macs;
    let mut now = Time::from_nanos(1_000_000_000);
    let mut replicas: Vec<_> =
        config.all().map(|me| Replica::new(config.clone(), me, Box::new(Trust), Noop, now)).collect();
    let mut client = Client::new(&config, CLIENT, Box::new(Trust), 1);
    let mut counted = vec![BTreeMap::new(); members.len()];
    let mut wire: VecDeque<(PeerId, PeerId, Vec<u8>)> = VecDeque::new();
    for round in 0..WARM_UP + OPERATIONS {
        now += Duration::from_micros(100);
        client.submit(now, vec![7; 64]).unwrap();
        let mut done = false;
        loop {
            while let Some(effect) = client.poll_effect() {
                match effect {
                    ClientEffect::Send { to, bytes } => wire.push_back((CLIENT, to, bytes)),
                    ClientEffect::Completed { .. } => done = true,
                    _ => {}
                }
            }
            let Some((from, to, bytes)) = wire.pop_front() else { break };
            let Some(i) = members.iter().position(|m| *m == to) else {
                client.on_message(now, from, &bytes);
                continue;
            };
            let kind = kind(&decode(&config, &bytes).unwrap());
            let replica = &mut replicas[i];
            let cost = measure(|| replica.on_message(now, from, &bytes));
            while let Some(effect) = replica.poll_effect() {
                if let Effect::Send { to, bytes } = effect {
                    wire.push_back((members[i], to, bytes));
                }
            }
            if round >= WARM_UP {
                *counted[i].entry(kind).or_default() += cost.count_total;
            }
        }
        assert!(done, "the group did not answer");
    }
    counted
}

#[test]
fn an_ordered_operation_costs_so_many_allocations_and_no_more() {
    let counted = allocations(1);
    for (member, kinds) in counted.iter().enumerate() {
        for (kind, count) in kinds {
            println!("member {member}: {kind:12} {:.2}", *count as f64 / OPERATIONS as f64);
        }
    }
    for (member, bound) in [(0, PRIMARY_MAX), (1, BACKUP_MAX), (2, BACKUP_MAX), (3, SPARE_MAX)] {
        let total = counted[member].values().sum::<u64>();
        assert!(
            total > 0 && total <= bound * OPERATIONS,
            "member {member}: {:.2}",
            total as f64 / OPERATIONS as f64
        );
    }
}
