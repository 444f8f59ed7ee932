//! The roster and a party's own key, as each protocol wants them.

use crate::layout::Layout;
use cl_base::PeerId;
use cmm_core::identity::Role;
use mml::Roster;
use replication::MemberId;
use std::sync::Arc;

/// Separates what replicas and their clients sign from what agents sign in an election.
const REPLICATION_DOMAIN: &str = "ghidrah replication signature v1";
const BOOTSTRAP_DOMAIN: &str = "ghidrah bootstrap signature v1";

/// One party's secret key and everybody's public ones.
#[derive(Clone, Debug)]
pub struct Keyring {
    own: mml::Keyring,
    roster: Arc<Roster>,
}

/// The name of a role's roster entry and key file.
pub fn entry_name(role: Role) -> String {
    match role {
        Role::Agent(n) => format!("agent-{n}"),
        Role::Manager(n) => format!("manager-{n}"),
        Role::Hardcore => "hardcore".to_owned(),
        Role::User(u) => format!("user-{u}"),
    }
}

/// See [`Keyring::cluster`].
pub(crate) fn cluster(roster: &Roster) -> [u8; 32] {
    if let Some(id) = roster.cluster() {
        return *id;
    }
    let mut hasher = blake3::Hasher::new_derive_key("ghidrah cluster identity v1");
    for member in roster.iter() {
        hasher.update(&member.principal.0.to_le_bytes());
        hasher.update(member.key.to_string().as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Keyring {
    /// Reads the roster and `role`'s secret key.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn load(layout: &Layout, role: Role) -> Result<Keyring, String> {
        let roster = Roster::load(layout.roster()).map_err(|e| e.to_string())?;
        let path = layout.key(&entry_name(role));
        let secret = mml::SecretKey::load(&path).map_err(|e| e.to_string())?;
        let own = mml::Keyring::new(role.principal(), secret, &roster)
            .map_err(|e| format!("{} and {} do not fit: {e}", path.display(), layout.roster().display()))?;
        Ok(Keyring { own, roster: Arc::new(roster) })
    }

    /// Everybody's public keys and addresses.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// This party's own key, and those it shares with each other one.
    pub fn own(&self) -> &mml::Keyring {
        &self.own
    }

    /// Names this cluster in everything that is signed in an election: a hash of the keys pinned at first.
    pub fn cluster(&self) -> [u8; 32] {
        cluster(&self.roster)
    }

    fn sign(&self, domain: &str, bytes: &[u8]) -> [u8; 64] {
        self.own.secret().sign(domain, bytes)
    }

    fn verify(&self, who: PeerId, domain: &str, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let member = self.roster.get(who.principal).filter(|m| !self.roster.is_revoked(&m.key));
        member.is_some_and(|m| mml::keys::verify(&m.key, domain, bytes, signature))
    }
}

impl cmm_core::bootstrap::Keys for Keyring {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        Keyring::sign(self, BOOTSTRAP_DOMAIN, bytes)
    }

    fn verify(&self, who: PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        Keyring::verify(self, who, BOOTSTRAP_DOMAIN, bytes, signature)
    }
}

/// A [`Keyring`] for one manager group, whose members are known by number.
#[derive(Clone)]
pub struct GroupKeys {
    keyring: Keyring,
    members: Vec<PeerId>,
}

impl GroupKeys {
    /// The keys for the group of these managers.
    pub fn new(keyring: Keyring, members: Vec<PeerId>) -> GroupKeys {
        GroupKeys { keyring, members }
    }
}

impl replication::Keys for GroupKeys {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.keyring.sign(REPLICATION_DOMAIN, bytes)
    }

    fn verify_member(&self, member: MemberId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.members
            .get(usize::from(member.0))
            .is_some_and(|who| self.keyring.verify(*who, REPLICATION_DOMAIN, bytes, signature))
    }

    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.keyring.verify(client, REPLICATION_DOMAIN, bytes, signature)
    }
}
