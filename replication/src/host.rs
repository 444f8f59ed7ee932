//! A member on this machine, and a client, over [`mml`].

use crate::carrier::Carrier;
use crate::client::{self, Desk, Handle};
use crate::durable::{Durable, OpenError};
use crate::keys::GroupKeys;
use crate::member::{Member, Stopped, Thread};
use cl::runtime::{Running, RuntimeConfig, Service};
use cl::{EndpointConfig, PoolConfig, SharedMemory};
use cl_base::PeerId;
use mml::{Keyring, Roster};
use replication_proto::{Client, Config, ConfigError, MemberId, ReplicaStatus, StateMachine};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long an address may be in use by a process that has ended.
const ADDRESS_WAIT: Duration = Duration::from_secs(15);

/// Why a member or a client could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The parameters do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key does not fit the roster.
    #[error(transparent)]
    Key(#[from] mml::KeyringError),
    /// The key cannot be read.
    #[error(transparent)]
    KeyFile(#[from] mml::keys::KeyFileError),
    /// The roster has no such entry.
    #[error("the roster has no entry {0:?}")]
    Unknown(String),
    /// The party is not of the group.
    #[error("{0} is not a member of this group")]
    NotAMember(PeerId),
    /// The roster says nowhere to be found.
    #[error("the roster gives {0} no address; add `address = \"IP:PORT\"`")]
    NoAddress(PeerId),
    /// Its memory cannot be had.
    #[error("{}: {error}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Why.
        error: Box<OpenError>,
    },
    /// No randomness for the sessions' keys.
    #[error(transparent)]
    Entropy(#[from] mml::keys::NoEntropy),
    /// The address cannot be opened.
    #[error("cannot open {address}: {error}")]
    Endpoint {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: Box<cl::OpenError>,
    },
}

/// What a member needs to run.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The group's parameters, the same at all members.
    pub config: Config,
    /// Which member this is.
    pub me: MemberId,
    /// Its secret key, with those it shares with the others.
    pub keyring: Keyring,
    /// Everybody's public keys, and the members' addresses.
    pub roster: Arc<Roster>,
    /// Where it remembers what it promised. The file must be there, empty for a member that has never run: a member that
    /// has lost its memory must not vote as if it were new.
    pub journal: PathBuf,
    /// Whether each promise waits for the device. Without it the memory survives the death of the process, not that of
    /// the machine; if all machines lose power at once, results that clients have seen may be undone.
    pub sync: bool,
}

/// A member that runs in this process, on a thread of its own.
pub struct Host<S: StateMachine + Send + 'static>(Thread<S>);

impl<S: StateMachine + Send + 'static> Host<S> {
    /// Starts a member with what it remembers. `machine` is as it was at the beginning of the group; what was executed
    /// since is restored.
    ///
    /// # Errors
    /// [`StartError`], which says what to do.
    pub fn start(options: HostOptions, machine: S) -> Result<Host<S>, StartError> {
        let HostOptions { config, me, keyring, roster, journal: path, sync } = options;
        config.validate()?;
        let Some(peer) = config.members.get(usize::from(me.0)).copied() else {
            return Err(StartError::NotAMember(PeerId { principal: keyring.principal(), instance: 0 }));
        };
        if peer.principal != keyring.principal() {
            return Err(StartError::NotAMember(PeerId { principal: keyring.principal(), instance: 0 }));
        }
        let address =
            roster.get(peer.principal).and_then(|m| m.address).ok_or(StartError::NoAddress(peer))?;
        let peers = config.members.clone();
        let keys = GroupKeys { me: peer, keyring: keyring.clone(), roster: Arc::clone(&roster) };
        let now = cl::Clock::new().now();
        let replica = Durable::open(&path, sync, config, me, Box::new(keys), machine, now)
            .map_err(|error| StartError::Journal { path, error: Box::new(error) })?;
        let carrier = Carrier::mml(peer, now, keyring, &roster)?;
        let member = Member::new(replica, peers, carrier);
        Ok(Host(Thread(spawn(&format!("replication member {me}"), peer, address, member)?)))
    }

    /// Where the member stands; `None` if it has stopped.
    pub fn status(&self) -> Option<ReplicaStatus> {
        self.0.look(|replica| replica.replica().status())
    }

    /// What `look` sees of the machine as this member has executed it; `None` if it has stopped. It is one member's view,
    /// which may be old or, if the member is faulty, wrong: programs that need an answer ask by a [`Handle`].
    pub fn look<R: Send + 'static>(&self, look: impl FnOnce(&S) -> R + Send + 'static) -> Option<R> {
        self.0.look(move |replica| look(replica.replica().machine()))
    }

    /// Has the member take its leave of the others, and waits until it has stopped. What it remembers stays in the journal.
    ///
    /// # Errors
    /// [`Stopped`] if it had stopped before, and why.
    pub fn stop(self) -> Result<(), Stopped> {
        self.0.stop()
    }

    /// Waits for as long as the member runs.
    ///
    /// # Errors
    /// [`Stopped`] says why it does not any more.
    pub fn wait(self) -> Result<(), Stopped> {
        self.0.wait()
    }
}

impl Handle {
    /// A client of a group: the party whose `keyring` this is, in a life of its own, so that any number of processes may
    /// have one key. It is reached at an address that the system chooses on the interface of `bind`.
    ///
    /// # Errors
    /// [`StartError`], which says what to do. Members that do not answer are no error yet.
    pub fn connect(
        config: Config,
        keyring: Keyring,
        roster: Arc<Roster>,
        bind: SocketAddr,
    ) -> Result<Handle, StartError> {
        config.validate()?;
        let random = mml::keys::entropy()?;
        let instance = u32::from_le_bytes([random[0], random[1], random[2], random[3]]).max(1);
        let me = PeerId { principal: keyring.principal(), instance };
        let now = cl::Clock::new().now();
        let keys = GroupKeys { me, keyring: keyring.clone(), roster: Arc::clone(&roster) };
        let client = Client::new(&config, me, Box::new(keys), now.as_nanos());
        let carrier = Carrier::mml(me, now, keyring, &roster)?;
        let service = client::Service { desk: Desk::new(client), carrier };
        Ok(Handle::new(spawn("replication client", me, bind, service)?, None))
    }
}

/// Starts a service at an address.
fn spawn<S: Service + Send + 'static>(
    name: &str,
    me: PeerId,
    address: SocketAddr,
    service: S,
) -> Result<Running<S>, StartError> {
    let mut endpoint = EndpointConfig::new(me, address);
    endpoint.pool = PoolConfig::small();
    // Members are on machines of their own, and tests on one machine stand for those.
    endpoint.shared_memory = SharedMemory::Never;
    let config = RuntimeConfig { address_wait: ADDRESS_WAIT, ..RuntimeConfig::new(Some(endpoint)) };
    cl::runtime::spawn(name, config, move |_| service)
        .map_err(|error| StartError::Endpoint { address, error: Box::new(error) })
}
