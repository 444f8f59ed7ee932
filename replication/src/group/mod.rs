//! Whole groups in one process, for tests of a service: [`Group`] on threads, [`Stepped`] in one thread and virtual time.

mod stepped;
mod threads;

pub use stepped::Stepped;
pub use threads::Group;

use crate::durable::{Durable, Memory, OpenError};
use crate::keys::GroupKeys;
use cl_base::{PeerId, Principal, Time};
use mml::{Keyring, Roster, SecretKey};
use replication_proto::{Client, Config, ConfigError, MemberId, StateMachine};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of groups in memory; nobody else hears them.
const GROUP: u64 = 1;
/// Principals of members begin here, those of clients above.
const MEMBERS: u32 = 1;
const CLIENTS: u32 = 0x1000;
/// Clients of a group in memory.
const CLIENTS_MAX: u32 = 64;

/// What the parties of a group in memory have in common.
struct World {
    config: Config,
    secrets: BTreeMap<Principal, SecretKey>,
    roster: Arc<Roster>,
    disks: Vec<Memory>,
}

impl World {
    /// Keys follow from the parties' numbers: nothing is secret here, and runs repeat.
    fn new(f: u8, tune: impl FnOnce(&mut Config)) -> Result<World, ConfigError> {
        let members: Vec<PeerId> = (0..3 * u32::from(f) + 1).map(|i| PeerId::new(MEMBERS + i, 0)).collect();
        let mut config = Config::new(GROUP, members)?;
        tune(&mut config);
        config.validate()?;
        let parties = config.members.iter().map(|m| m.principal.0).chain(CLIENTS..CLIENTS + CLIENTS_MAX);
        let secrets: BTreeMap<Principal, SecretKey> = parties
            .map(|number| {
                (Principal(number), SecretKey::from_seed(*blake3::hash(&number.to_le_bytes()).as_bytes()))
            })
            .collect();
        let entries = secrets.iter().map(|(principal, secret)| mml::Member {
            principal: *principal,
            name: format!("party-{}", principal.0),
            role: if principal.0 < CLIENTS { "member" } else { "client" }.into(),
            key: secret.public(),
            address: None,
        });
        let roster = Roster::from_members(entries.collect(), "in memory").expect("all entries differ");
        let disks = (0..config.n()).map(|_| Memory::default()).collect();
        Ok(World { config, secrets, roster: Arc::new(roster), disks })
    }

    fn keys(&self, me: PeerId) -> Box<GroupKeys> {
        let secret = self.secrets[&me.principal].clone();
        let keyring = Keyring::new(me.principal, secret, &self.roster).expect("the roster was made of it");
        Box::new(GroupKeys { me, keyring, roster: Arc::clone(&self.roster) })
    }

    /// A member with what is on its disk.
    fn member<S: StateMachine>(&self, id: MemberId, machine: S, now: Time) -> Result<Durable<S>, OpenError> {
        let disk = &self.disks[usize::from(id.0)];
        let (config, keys) = (self.config.clone(), self.keys(self.config.peer(id)));
        Durable::recover(Box::new(disk.clone()), &disk.records(), config, id, keys, machine, now)
    }

    fn client_id(number: u32) -> PeerId {
        assert!(number < CLIENTS_MAX, "a group in memory has {CLIENTS_MAX} clients at most");
        PeerId::new(CLIENTS + number, 0)
    }

    fn client(&self, number: u32, now: Time) -> Client {
        let me = World::client_id(number);
        Client::new(&self.config, me, self.keys(me), now.as_nanos())
    }
}
