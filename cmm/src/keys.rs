//! The roster and a party's own key, as each protocol wants them.

use crate::layout::Layout;
use cl_base::PeerId;
use cmm_core::bootstrap::Standing;
use cmm_core::identity::Role;
use mml::Roster;
use std::sync::{Arc, RwLock};

/// Separates what replicas and their clients sign from what agents sign in an election.
const REPLICATION_DOMAIN: &str = "ghidrah replication signature v1";
const BOOTSTRAP_DOMAIN: &str = "ghidrah bootstrap signature v1";

/// One party's secret key and everybody's public ones. Clones see the same roster, also when it changes
/// ([`Keyring::reload`]).
#[derive(Clone, Debug)]
pub struct Keyring(Arc<RwLock<Loaded>>);

/// What was read last.
#[derive(Clone, Debug)]
struct Loaded {
    own: mml::Keyring,
    roster: Arc<Roster>,
}

impl Loaded {
    fn read(layout: &Layout, role: Role) -> Result<Loaded, String> {
        let roster = Roster::load(layout.roster()).map_err(|e| e.to_string())?;
        let path = layout.key(&entry_name(role));
        let fits = |secret| mml::Keyring::new(role.principal(), secret, &roster);
        // A rotation puts the new key into the roster before the new file into its place.
        let own =
            match mml::SecretKey::load(layout.new_key(&entry_name(role))).ok().and_then(|s| fits(s).ok()) {
                Some(own) => own,
                None => fits(mml::SecretKey::load(&path).map_err(|e| e.to_string())?).map_err(|e| {
                    format!("{} and {} do not fit: {e}", path.display(), layout.roster().display())
                })?,
            };
        Ok(Loaded { own, roster: Arc::new(roster) })
    }
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
        Ok(Keyring(Arc::new(RwLock::new(Loaded::read(layout, role)?))))
    }

    /// Reads roster and key again, for all clones; false if the roster says what it said before.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it. What was believed before is believed on.
    pub fn reload(&self, layout: &Layout, role: Role) -> Result<bool, String> {
        let loaded = Loaded::read(layout, role)?;
        let path = layout.roster();
        if cluster(&loaded.roster) != self.cluster() {
            return Err(format!("{} is that of another cluster; restore it from a copy", path.display()));
        }
        let mut current = self.0.write().expect("nobody panics with it");
        let changed = current.roster != loaded.roster;
        *current = loaded;
        Ok(changed)
    }

    /// Everybody's public keys and addresses, now.
    pub fn roster(&self) -> Arc<Roster> {
        self.now().roster
    }

    /// This party's own key, and those it shares with each other one, now.
    pub fn own(&self) -> mml::Keyring {
        self.now().own
    }

    fn now(&self) -> Loaded {
        self.0.read().expect("nobody panics with it").clone()
    }

    /// Names this cluster in everything that is signed in an election: a hash of the keys pinned at first.
    pub fn cluster(&self) -> [u8; 32] {
        cluster(&self.roster())
    }

    fn sign(&self, domain: &str, bytes: &[u8]) -> [u8; 64] {
        self.own().secret().sign(domain, bytes)
    }

    /// Whether `who` says this, now: under its present key.
    fn verify(&self, who: PeerId, domain: &str, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let roster = self.roster();
        let key = roster.get(who.principal).map(|member| member.key).filter(|key| !roster.is_revoked(key));
        key.is_some_and(|key| mml::keys::verify(&key, domain, bytes, signature))
    }

    /// Whether `who` has said this at some time: under its present key or one that it had before.
    fn verify_recorded(&self, who: PeerId, domain: &str, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let roster = self.roster();
        roster.signing_keys(who.principal).any(|key| mml::keys::verify(key, domain, bytes, signature))
    }
}

impl cmm_core::bootstrap::Keys for Keyring {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        Keyring::sign(self, BOOTSTRAP_DOMAIN, bytes)
    }

    fn verify(&self, who: PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        Keyring::verify(self, who, BOOTSTRAP_DOMAIN, bytes, signature)
    }

    fn verify_recorded(&self, who: PeerId, bytes: &[u8], signature: &[u8; 64]) -> Option<Standing> {
        let roster = self.roster();
        let mut keys = roster.keys_of(who.principal);
        let key = keys.find(|key| mml::keys::verify(key, BOOTSTRAP_DOMAIN, bytes, signature))?;
        Some(if roster.is_revoked(key) { Standing::Revoked } else { Standing::Believed })
    }
}

/// A [`Keyring`] as the members and clients of a manager group use it.
#[derive(Clone)]
pub struct GroupKeys(pub Keyring);

/// What members and clients have signed is in each other's logs, and is shown again and again: requests in certificates,
/// checkpoints, view changes. So all of it counts as what is on record does. A message arrives in its sender's
/// session, for which the present key is needed.
impl replication_proto::Keys for GroupKeys {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(REPLICATION_DOMAIN, bytes)
    }

    fn verify_member(&self, member: PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_recorded(member, REPLICATION_DOMAIN, bytes, signature)
    }

    fn verify_client(&self, client: PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_recorded(client, REPLICATION_DOMAIN, bytes, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmm_core::bootstrap::wire::{Certificate, Statement};
    use cmm_core::bootstrap::{Configuration, Decision, InvalidDecision, Keys};
    use cmm_core::identity::NodeId;
    use mml::SecretKey;

    /// A decision of the first four of six agents, signed by four, which is enough.
    fn decision(layout: &Layout, election: &cmm_core::bootstrap::Config) -> Decision {
        let members = election.agents()[..4].to_vec();
        let configuration = Configuration { instance: 1, members };
        let commit = Statement::Commit { view: 0, configuration: configuration.clone() };
        let sign = |i: u16| {
            let keyring = Keyring::load(layout, Role::Agent(NodeId(u32::from(i) + 1))).unwrap();
            (i, Keys::sign(&keyring, &commit.to_sign(election)))
        };
        Decision { configuration, view: 0, commits: Certificate((0..4).map(sign).collect()) }
    }

    #[test]
    fn a_decision_outlives_the_keys_that_signed_it_unless_they_are_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("c"));
        let config = crate::local::create(&layout, "test", 6, 1).unwrap();
        let keyring = Keyring::load(&layout, Role::Hardcore).unwrap();
        let clone = keyring.clone();
        let mut roster = (*keyring.roster()).clone();
        roster.keep_cluster(keyring.cluster());
        let election = crate::daemon::election(&config, &keyring).unwrap();
        let decision = decision(&layout, &election);
        assert_eq!(decision.verify(&clone, &election), Ok(()));
        let agent = Role::Agent(NodeId(1));
        let said = b"said now";
        let signature = Keys::sign(&Keyring::load(&layout, agent).unwrap(), said);
        assert!(Keys::verify(&clone, agent.peer(), said, &signature));

        for node in 1..=6 {
            let new = SecretKey::from_seed([node; 32]).public();
            roster.replace_key(&entry_name(Role::Agent(NodeId(u32::from(node)))), new).unwrap();
        }
        roster.save(layout.roster()).unwrap();
        assert_eq!(keyring.reload(&layout, Role::Hardcore), Ok(true));
        assert_eq!(keyring.reload(&layout, Role::Hardcore), Ok(false), "nothing new");
        assert_eq!(decision.verify(&clone, &election), Ok(()), "all six have new keys");
        assert!(
            !Keys::verify(&clone, agent.peer(), said, &signature),
            "what is said now needs the present key"
        );

        // One that is revoked is the faulty agent that is tolerated; with a second one the proof is gone.
        for (name, expected) in [("agent-node1", Ok(())), ("agent-node2", Err(InvalidDecision::Commits))] {
            roster.revoke(name).unwrap();
            roster.save(layout.roster()).unwrap();
            keyring.reload(&layout, Role::Hardcore).unwrap();
            assert_eq!(decision.verify(&clone, &election), expected, "{name}");
        }
        assert!(!Keys::verify(&clone, agent.peer(), said, &signature));
    }

    #[test]
    fn a_roster_that_is_wrong_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("c"));
        crate::local::create(&layout, "test", 4, 1).unwrap();
        let other = Layout::new(dir.path().join("other"));
        crate::local::create(&other, "test", 4, 1).unwrap();
        let good = std::fs::read(layout.roster()).unwrap();
        let keyring = Keyring::load(&layout, Role::Hardcore).unwrap();
        let mut revoked = (*keyring.roster()).clone();
        revoked.keep_cluster(keyring.cluster());
        revoked.revoke("hardcore").unwrap();
        for (text, expected) in [
            (b"not a roster".to_vec(), "roster.toml"),
            (std::fs::read(other.roster()).unwrap(), "do not fit"),
            (revoked.to_toml().into_bytes(), "revoked"),
        ] {
            std::fs::write(layout.roster(), text).unwrap();
            let error = keyring.reload(&layout, Role::Hardcore).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        std::fs::copy(other.roster(), layout.roster()).unwrap();
        std::fs::copy(other.key("hardcore"), layout.key("hardcore")).unwrap();
        let error = keyring.reload(&layout, Role::Hardcore).unwrap_err();
        assert!(error.contains("another cluster"), "{error}");
        assert_eq!(keyring.roster().to_toml().into_bytes(), good);
    }
}
