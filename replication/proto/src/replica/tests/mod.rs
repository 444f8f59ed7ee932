//! Rules tried one by one, on groups whose every message passes through the test's hands.

mod active_set;
mod any_f;
mod client_macs;
mod counting;
mod epochs;
mod hostile;
mod normal;
mod phases;
mod reads;
mod restart;
mod transfer;
mod view_change;

use super::*;
use crate::config::VoteAuthentication;
use crate::keys::{Domain, Mac, Signature, statement};
use crate::machine::{Apply, RestoreError};
use crate::message::{Batch, Body, Proof, Request, RequestKind, Vote, body_digest};
use cl_base::codec;
use std::sync::Arc;
use std::time::Duration;

/// These files are compiled twice, once for each mode.
fn mode() -> VoteAuthentication {
    if module_path!().ends_with("mode_m") { VoteAuthentication::Channel } else { VoteAuthentication::Signed }
}

/// Keyed hashes as signatures: each party's secret is its identity, and tests do not cheat.
struct TestKeys {
    me: PeerId,
}

impl TestKeys {
    fn signature(party: PeerId, bytes: &[u8]) -> Signature {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&party.to_u64().to_le_bytes());
        let mut signature = [0; 64];
        blake3::Hasher::new_keyed(&key).update(bytes).finalize_xof().fill(&mut signature);
        signature
    }
}

impl TestKeys {
    fn mac(client: PeerId, member: PeerId, bytes: &[u8]) -> Mac {
        let pair = [&member.to_u64().to_le_bytes()[..], bytes].concat();
        *TestKeys::signature(client, &pair).first_chunk().expect("a signature is longer")
    }
}

impl Keys for TestKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        TestKeys::signature(self.me, bytes)
    }
    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        TestKeys::signature(member, bytes) == *signature
    }
    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        TestKeys::signature(client, bytes) == *signature
    }
    fn macs(&self, members: &[PeerId], bytes: &[u8]) -> Option<Vec<Mac>> {
        Some(members.iter().map(|member| TestKeys::mac(self.me, *member, bytes)).collect())
    }
    fn verify_mac(&self, client: PeerId, bytes: &[u8], mac: &Mac) -> bool {
        TestKeys::mac(client, self.me, bytes) == *mac
    }
}

/// Remembers what was done to it. `at <ms>` sets a deadline, `grow <n>` takes n bytes of memory, `tell <text>`
/// notifies the client.
#[derive(Clone, Debug, Default, PartialEq, borsh::BorshSerialize, borsh::BorshDeserialize)]
struct Tape {
    ops: Vec<String>,
    deadline: Option<Time>,
    ballast: Vec<u8>,
}

impl StateMachine for Tape {
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        let op = String::from_utf8_lossy(op).to_string();
        if let Some(ms) = op.strip_prefix("at ").and_then(|n| n.parse().ok()) {
            self.deadline = Some(cx.time() + Duration::from_millis(ms));
        }
        if let Some(n) = op.strip_prefix("grow ").and_then(|n| n.parse::<usize>().ok()) {
            let start = self.ballast.len();
            self.ballast.extend((start..start + n).map(|i| (i / 7) as u8));
        }
        if let Some(text) = op.strip_prefix("tell ") {
            cx.notify(cx.client(), text.as_bytes().to_vec());
        }
        self.ops.push(op);
        format!("{}", self.ops.len()).into_bytes()
    }
    fn query(&self, _: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        match op {
            b"len?" => Some(self.ops.len().to_string().into_bytes()),
            b"all?" => Some(self.ballast.clone()),
            _ => None,
        }
    }
    fn advance(&mut self, cx: &mut Apply<'_>) {
        if self.deadline.is_some_and(|at| at <= cx.time()) {
            self.deadline = None;
            self.ops.push("deadline".to_string());
        }
    }
    fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }
    fn may_replace(&self, client: PeerId, _: &Replacement) -> bool {
        client == CLIENT
    }
    fn snapshot(&self) -> Vec<u8> {
        codec::encode(self)
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = codec::decode(snapshot)?;
        Ok(())
    }
}

const CLIENT: PeerId = PeerId::new(77, 0);

/// From, to, message: true if it is lost.
type Loss = Box<dyn FnMut(PeerId, PeerId, &Message) -> bool>;

struct Group {
    config: Config,
    now: Time,
    members: Vec<Option<Replica<Tape>>>,
    disks: Vec<Vec<Record>>,
    /// Everything that was ever made durable.
    history: Vec<Vec<Record>>,
    wire: VecDeque<(PeerId, PeerId, Vec<u8>)>,
    loss: Loss,
    /// Everything sent, lost or not.
    sent: Vec<(PeerId, PeerId, Message)>,
    events: Vec<(usize, Event)>,
}

impl Group {
    fn new(n: u32) -> Group {
        Group::with(n, |_| {})
    }

    fn with(n: u32, adjust: impl FnOnce(&mut Config)) -> Group {
        let mut config = Config::new(5, (0..n).map(|i| PeerId::new(1 + i, 0)).collect()).unwrap();
        config.votes = mode();
        adjust(&mut config);
        config.validate().unwrap();
        let mut group = Group {
            now: Time::from_nanos(1_000_000_000_000),
            members: Vec::new(),
            disks: vec![Vec::new(); n as usize],
            history: vec![Vec::new(); n as usize],
            wire: VecDeque::new(),
            loss: Box::new(|_, _, _| false),
            sent: Vec::new(),
            events: Vec::new(),
            config,
        };
        for i in 0..n as usize {
            let keys = group.keys(i);
            let id = MemberId(i as u8);
            let replica = Replica::new(group.config.clone(), id, keys, Tape::default(), group.now);
            group.members.push(Some(replica));
        }
        group
    }

    fn keys(&self, i: usize) -> Box<dyn Keys> {
        Box::new(TestKeys { me: self.config.members[i] })
    }

    fn member(&self, i: usize) -> &Replica<Tape> {
        self.members[i].as_ref().expect("the member is up")
    }

    fn ops(&self, i: usize) -> Vec<&str> {
        self.member(i).machine().ops.iter().map(String::as_str).collect()
    }

    fn status(&self, i: usize) -> ReplicaStatus {
        self.member(i).status()
    }

    fn refused(&self, i: usize, reason: Refusal) -> u64 {
        self.status(i).refused.get(&reason).copied().unwrap_or(0)
    }

    /// A member goes down, or comes back with its records.
    fn crash(&mut self, i: usize) {
        self.members[i] = None;
    }

    fn restart(&mut self, i: usize) {
        let (config, keys, records) = (self.config.clone(), self.keys(i), self.disks[i].clone());
        let id = MemberId(i as u8);
        // Through bytes, as from a disk.
        let records = records.iter().map(|r| codec::decode(&codec::encode(r)).unwrap());
        let replica = Replica::recover(config, id, keys, Tape::default(), self.now, records).unwrap();
        self.members[i] = Some(replica);
        self.drain(i);
    }

    fn request(&self, t: u64, op: &str) -> Request {
        request_of(&self.config, CLIENT, t, op)
    }

    /// Hands a client's request to one member and lets everything happen that needs no time.
    fn submit(&mut self, i: usize, t: u64, op: &str) {
        let message = Message::Request(self.request(t, op));
        self.hand(i, CLIENT, &message);
        self.run();
    }

    /// Hands a message to one member, past the network.
    fn hand(&mut self, i: usize, from: PeerId, message: &Message) {
        let bytes = message::encode(&self.config, message);
        let now = self.now;
        if let Some(replica) = &mut self.members[i] {
            replica.on_message(now, from, &bytes);
        }
        self.drain(i);
    }

    fn drain(&mut self, i: usize) {
        let from = self.config.members[i];
        while let Some(effect) = self.members[i].as_mut().and_then(Replica::poll_effect) {
            match effect {
                Effect::Persist(record) => {
                    self.history[i].push(record.clone());
                    if matches!(record, Record::Checkpoint(_)) {
                        self.disks[i].clear();
                    }
                    self.disks[i].push(record);
                }
                Effect::Send { to, bytes } => {
                    let message = self.decoded(&bytes);
                    if let Message::Checkpoint(claim) = &message {
                        assert!(has_state(&self.disks[i], claim.body.rsn), "member {i} lost what it signs");
                    }
                    if !(self.loss)(from, to, &message) {
                        self.wire.push_back((from, to, bytes));
                    }
                    self.sent.push((from, to, message));
                }
                Effect::Event(event) => self.events.push((i, event)),
            }
        }
    }

    /// A message of this epoch or of one before.
    fn decoded(&self, bytes: &[u8]) -> Message {
        let epochs = 0..=self.members.iter().flatten().map(|r| r.config().epoch).max().unwrap_or(0);
        let decode = |epoch| message::decode_of(self.config.group, epoch, bytes).ok();
        epochs.rev().find_map(decode).expect("members send well-formed messages")
    }

    /// Delivers until the network is empty.
    fn run(&mut self) {
        while let Some((from, to, bytes)) = self.wire.pop_front() {
            let Some(id) = self.config.member(to) else { continue };
            let (i, now) = (usize::from(id.0), self.now);
            if let Some(replica) = &mut self.members[i] {
                replica.on_message(now, from, &bytes);
            }
            self.drain(i);
        }
    }

    /// Lets time pass, timer by timer.
    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        self.run();
        loop {
            let next = (0..self.members.len())
                .filter_map(|i| Some((self.members[i].as_ref()?.next_timeout()?, i)))
                .min()
                .filter(|(at, _)| *at <= end);
            let Some((at, i)) = next else { break };
            self.now = self.now.max(at);
            let now = self.now;
            self.members[i].as_mut().expect("it has a timer").on_timeout(now);
            self.drain(i);
            self.run();
        }
        self.now = end;
    }

    /// Messages of a kind sent by one member so far.
    fn count(&self, from: usize, kind: impl Fn(&Message) -> bool) -> usize {
        let from = self.config.members[from];
        self.sent.iter().filter(|(f, _, m)| *f == from && kind(m)).count()
    }

    /// A vote in view 0.
    fn vote(&self, rsn: Rsn, body: &Body) -> Vote {
        let digest = body_digest(&self.config, rsn, body);
        Vote { view: 0, tag: Digest::default(), rsn, digest }
    }

    fn body(&self, requests: &[Request]) -> Body {
        Some(Arc::new(Batch { time: self.now, requests: requests.to_vec() }))
    }

    /// A well-formed PRE-PREPARE of view 0, as the primary would sign it.
    fn pre_prepare(&self, rsn: Rsn, body: &Body) -> Message {
        let vote = self.vote(rsn, body);
        let signed = statement(Domain::PrePrepare, &self.config, MemberId(0), &vote);
        let signature = self.vote_signature(0, &signed);
        Message::PrePrepare { vote, signature, body: body.clone() }
    }

    fn prepare(&self, member: u8, vote: Vote) -> Message {
        let signed = statement(Domain::Prepare, &self.config, MemberId(member), &vote);
        let signature = self.vote_signature(member, &signed);
        Message::Prepare { vote, signature }
    }

    fn vote_signature(&self, member: u8, signed: &Digest) -> Option<Signature> {
        (self.config.votes == VoteAuthentication::Signed)
            .then(|| TestKeys::signature(self.config.members[usize::from(member)], &signed.0))
    }

    fn sign<T: crate::message::Statement>(&self, member: u8, body: T) -> Signed<T> {
        let digest = statement(T::DOMAIN, &self.config, MemberId(member), &body);
        let signature = TestKeys::signature(self.config.members[usize::from(member)], &digest.0);
        Signed { sender: MemberId(member), body, signature }
    }
}

/// Whether the state after `rsn`, or a later stable one, is among the records.
fn has_state(records: &[Record], rsn: Rsn) -> bool {
    records.iter().any(|record| match record {
        Record::State(state) => state.rsn == rsn,
        Record::Checkpoint(kept) => kept.stable.rsn >= rsn || kept.later.iter().any(|s| s.rsn == rsn),
        _ => false,
    })
}

fn request_of(config: &Config, client: PeerId, t: u64, op: &str) -> Request {
    let op = op.as_bytes().to_vec();
    let statement = Request::statement(config.group, client, t, 0, RequestKind::Operation, &op);
    let proof = Proof::Signed(TestKeys::signature(client, &statement.0));
    Request { client, t, notified: 0, kind: RequestKind::Operation, op, proof }
}
