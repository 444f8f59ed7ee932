//! A replica group and a client in one thread: messages are handed over in memory, in order, without loss. What
//! it costs is what the protocol computes, nothing else.

use cl_base::{PeerId, Time};
use mml::{SecretKey, keys};
use replication_proto::{
    Apply, Client, ClientAuthentication, ClientEffect, Config, Effect, Guarantee, Keys, Mac, Replica,
    RestoreError, Signature, StateMachine, VoteAuthentication,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const DOMAIN: &str = "ghidrah bench signature v1";
const CLIENT: PeerId = PeerId::new(100, 0);

/// A state machine that does nothing, so that only the ordering costs.
#[derive(Default)]
struct Noop;

impl StateMachine for Noop {
    fn apply(&mut self, _: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        op[..op.len().min(8)].to_vec()
    }
    fn advance(&mut self, _: &mut Apply<'_>) {}
    fn next_deadline(&self) -> Option<Time> {
        None
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// Real Ed25519 signatures, the same as in a cluster, and MACs as good as those of sessions: BLAKE3 under a key
/// of each pair.
struct BenchKeys {
    own: SecretKey,
    /// This party's number among the members; the client has none.
    me: Option<usize>,
    members: Arc<Vec<keys::PublicKey>>,
    client: keys::PublicKey,
}

impl Keys for BenchKeys {
    fn sign(&self, bytes: &[u8]) -> Signature {
        self.own.sign(DOMAIN, bytes)
    }
    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        keys::verify(&self.members[member.principal.0 as usize - 1], DOMAIN, bytes, signature)
    }
    fn verify_client(&self, _: PeerId, bytes: &[u8], signature: &Signature) -> bool {
        keys::verify(&self.client, DOMAIN, bytes, signature)
    }
    fn macs(&self, members: &[PeerId], bytes: &[u8]) -> Option<Vec<Mac>> {
        Some((0..members.len()).map(|member| mac(member, bytes)).collect())
    }
    fn verify_mac(&self, _: PeerId, bytes: &[u8], found: &Mac) -> bool {
        self.me.is_some_and(|me| mac(me, bytes) == *found)
    }
}

/// What the client sends this member.
fn mac(member: usize, bytes: &[u8]) -> Mac {
    let key = [member as u8; 32];
    *blake3::keyed_hash(&key, bytes).as_bytes().first_chunk().expect("a hash is longer than a MAC")
}

/// What is signed and what has a MAC only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Requests and votes are signed.
    Signed,
    /// Votes have MACs, requests are signed.
    MacVotes,
    /// Neither is signed.
    Macs,
}

/// A group of `3f+1` members and one client.
pub struct Group {
    now: Time,
    members: Vec<PeerId>,
    replicas: Vec<Replica<Noop>>,
    client: Client,
    wire: VecDeque<(PeerId, PeerId, Vec<u8>)>,
    messages: u64,
}

impl Group {
    /// A group of `n` members, of which `active` take part: 4 tolerate one fault, 1 is the unreplicated baseline. MACs of messages between
    /// members are the transport's and cost nothing here.
    ///
    /// # Panics
    /// If `n` is not 3f+1, or `active` less than 2f+1.
    pub fn new(n: u32, active: usize, authentication: Authentication) -> Group {
        Group::with(n, active, authentication, Guarantee::Byzantine)
    }

    /// As [`Group::new`], with three phases, two or one.
    ///
    /// # Panics
    /// As [`Group::new`].
    pub fn with(n: u32, active: usize, authentication: Authentication, guarantee: Guarantee) -> Group {
        let secrets: Vec<SecretKey> = (0..n).map(|i| SecretKey::from_seed([i as u8 + 1; 32])).collect();
        let client = SecretKey::from_seed([200; 32]);
        let members: Vec<PeerId> = (0..n).map(|i| PeerId::new(i + 1, 0)).collect();
        let public = Arc::new(secrets.iter().map(SecretKey::public).collect::<Vec<_>>());
        let keys = |own: &SecretKey, me| {
            Box::new(BenchKeys { own: own.clone(), me, members: public.clone(), client: client.public() })
        };
        let mut config = Config::new(1, members.clone()).expect("3f+1 members");
        config.active_members = active;
        config.guarantee = guarantee;
        if authentication != Authentication::Signed {
            config.votes = VoteAuthentication::Channel;
        }
        if authentication == Authentication::Macs {
            config.clients = ClientAuthentication::Macs;
        }
        let now = Time::from_nanos(1_000_000_000);
        let replicas = secrets
            .iter()
            .zip(config.all())
            .map(|(secret, me)| {
                Replica::new(config.clone(), me, keys(secret, Some(usize::from(me.0))), Noop, now)
            })
            .collect();
        let client = Client::new(&config, CLIENT, keys(&client, None), now.as_nanos());
        Group { now, members, replicas, client, wire: VecDeque::new(), messages: 0 }
    }

    /// Orders and executes as many operations at once as a client may have outstanding: what waits while the
    /// first batches are under way shares the next ones.
    ///
    /// # Panics
    /// As [`Group::order`].
    pub fn order_window(&mut self, op: &[u8]) -> u64 {
        self.now += Duration::from_micros(100);
        let mut submitted = 0;
        while self.client.has_room() {
            self.client.submit(self.now, op.to_vec()).expect("there is room");
            submitted += 1;
        }
        assert_eq!(self.run(), submitted, "the group did not answer");
        submitted
    }

    /// Orders and executes one operation: from the client's request to f+1 equal replies at the client.
    ///
    /// # Panics
    /// If the group does not answer, which without faults it must.
    pub fn order(&mut self, op: Vec<u8>) {
        self.now += Duration::from_micros(100);
        self.client.submit(self.now, op).expect("nothing is outstanding");
        assert_eq!(self.run(), 1, "the group did not answer");
    }

    /// Hands messages over until there are none; gives the number of operations completed.
    fn run(&mut self) -> u64 {
        let mut done = 0;
        loop {
            while let Some(effect) = self.client.poll_effect() {
                match effect {
                    ClientEffect::Send { to, bytes } => self.wire.push_back((CLIENT, to, bytes)),
                    ClientEffect::Completed { .. } => done += 1,
                    _ => {}
                }
            }
            for (replica, me) in self.replicas.iter_mut().zip(&self.members) {
                while let Some(effect) = replica.poll_effect() {
                    if let Effect::Send { to, bytes } = effect {
                        self.wire.push_back((*me, to, bytes));
                    }
                }
            }
            let Some((from, to, bytes)) = self.wire.pop_front() else { break };
            self.messages += 1;
            match self.members.iter().position(|m| *m == to) {
                Some(i) => self.replicas[i].on_message(self.now, from, &bytes),
                None => self.client.on_message(self.now, from, &bytes),
            }
        }
        done
    }

    /// Messages handed over so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_one_and_four_order_operations_past_a_checkpoint() {
        for (n, active, authentication) in [
            (1, 1, Authentication::Signed),
            (4, 3, Authentication::Signed),
            (4, 3, Authentication::Macs),
            (4, 4, Authentication::Macs),
        ] {
            let mut group = Group::new(n, active, authentication);
            for i in 0..300u32 {
                group.order(i.to_le_bytes().to_vec());
            }
            assert!(
                group.replicas[0].status().stable >= 128,
                "{n} members: {:?}",
                group.replicas[0].status()
            );
        }
    }
}
