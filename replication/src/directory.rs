//! The files of a group: who belongs to it, everybody's key, what each member remembers.

use crate::client::Handle;
use crate::host::{Host, HostOptions, StartError};
use cl_base::{PeerId, Principal};
use mml::roster::{Plan, RosterError};
use mml::{Keyring, Roster, SecretKey};
use replication_proto::{Config, ConfigError, MemberId, StateMachine};
use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of the group within its keys. Groups have keys of their own, so these tell them apart.
const GROUP: u64 = 1;
/// Principals of members begin here, those of clients above.
const MEMBERS: u32 = 1;
const CLIENTS: u32 = 0x1000;

/// The files of a group.
///
/// ```text
/// DIR/roster.toml          public keys and addresses, the same everywhere
/// DIR/member-0.key         secret key of member 0, on its machine only (mode 0600)
/// DIR/member-0.journal     what member 0 has promised, on its machine only
/// DIR/client-0.key         secret key of client 0
/// ```
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    roster: Arc<Roster>,
    /// The group's parameters. Change them alike for all members and clients, before the group runs for the first time.
    pub config: Config,
    /// See [`HostOptions::sync`]; true unless it is changed.
    pub sync: bool,
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The roster or a key cannot be read or written.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The roster's members are no group.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system's refusal.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Directory {
    /// Makes the files of a new group with members at these `3f+1` addresses, and of so many clients. To be distributed
    /// then: the roster to everybody, each key and journal to its owner alone. No existing file is overwritten.
    ///
    /// # Errors
    /// [`DirectoryError`]; files already written stay.
    pub fn generate(
        path: impl Into<PathBuf>,
        members: &[SocketAddr],
        clients: u32,
    ) -> Result<Directory, DirectoryError> {
        let path = path.into();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| DirectoryError::Io { path, error }
        };
        Config::new(GROUP, (0..).zip(members).map(|(i, _)| PeerId::new(MEMBERS + i, 0)).collect())?;
        std::fs::create_dir_all(&path).map_err(at(&path))?;
        let member = |(i, address): (u32, &SocketAddr)| Plan {
            principal: Principal(MEMBERS + i),
            name: format!("member-{i}"),
            role: "member".into(),
            address: Some(*address),
        };
        let client = |i| Plan {
            principal: Principal(CLIENTS + i),
            name: format!("client-{i}"),
            role: "client".into(),
            address: None,
        };
        let plans: Vec<Plan> = (0..).zip(members).map(member).chain((0..clients).map(client)).collect();
        let roster = Roster::generate(&path, &plans)?;
        let directory = Directory::new(path, roster)?;
        for member in directory.config.all() {
            let journal = directory.journal(member);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&journal)
                .map_err(at(&journal))?;
        }
        Ok(directory)
    }

    /// The files of a group that was made before.
    ///
    /// # Errors
    /// [`DirectoryError`], which names the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Directory, DirectoryError> {
        let path = path.into();
        let roster = Roster::load(path.join("roster.toml"))?;
        Directory::new(path, roster)
    }

    fn new(path: PathBuf, roster: Roster) -> Result<Directory, DirectoryError> {
        let members = roster.by_role("member").map(|m| PeerId { principal: m.principal, instance: 0 });
        let config = Config::new(GROUP, members.collect())?;
        Ok(Directory { path, roster: Arc::new(roster), config, sync: true })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a member remembers what it promised.
    pub fn journal(&self, member: MemberId) -> PathBuf {
        self.path.join(format!("member-{member}.journal"))
    }

    /// Starts a member in this process; see [`Host::start`].
    ///
    /// # Errors
    /// [`StartError`], or why its key cannot be read.
    pub fn host<S: StateMachine + Send + 'static>(
        &self,
        member: MemberId,
        machine: S,
    ) -> Result<Host<S>, StartError> {
        let options = HostOptions {
            config: self.config.clone(),
            me: member,
            keyring: self.keyring(&format!("member-{member}"))?,
            roster: Arc::clone(&self.roster),
            journal: self.journal(member),
            sync: self.sync,
        };
        Host::start(options, machine)
    }

    /// Connects as a client; see [`Handle::connect`].
    ///
    /// # Errors
    /// [`StartError`], or why its key cannot be read.
    pub fn client(&self, client: u32) -> Result<Handle, StartError> {
        let keyring = self.keyring(&format!("client-{client}"))?;
        let member = self.config.members[0];
        let first = self.roster.get(member.principal).and_then(|m| m.address);
        let bind = local_address_towards(first.ok_or(StartError::NoAddress(member))?);
        Handle::connect(self.config.clone(), keyring, Arc::clone(&self.roster), bind)
    }

    fn keyring(&self, name: &str) -> Result<Keyring, StartError> {
        let secret = SecretKey::load(self.path.join(format!("{name}.key")))?;
        let principal = self.roster.by_name(name).map(|m| m.principal);
        let principal = principal.ok_or_else(|| StartError::Unknown(name.to_owned()))?;
        Ok(Keyring::new(principal, secret, &self.roster)?)
    }
}

/// The address of this machine from which `target` is reached, with a port that the system chooses.
fn local_address_towards(target: SocketAddr) -> SocketAddr {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let local = UdpSocket::bind(any).and_then(|s| s.connect(target).and_then(|()| s.local_addr()));
    SocketAddr::new(local.map_or(target.ip(), |a| a.ip()), 0)
}
