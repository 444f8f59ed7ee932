//! New keys for old names, keys that are no longer believed, new members.

use super::{EntryProblem, FORMER_MAX, Member, Roster, RosterError};
use crate::keys::PublicKey;
use cl_base::Principal;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Why a roster was not changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The roster has no such name.
    #[error("the roster has no {0:?}")]
    Unknown(String),
    /// The key was revoked, or replaced, before.
    #[error("the key of {0} is revoked already")]
    Revoked(String),
    /// The entry would be wrong.
    #[error("{0}")]
    Entry(EntryProblem),
}

impl Roster {
    /// Whether `key` is no longer believed.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.contains(key)
    }

    /// What names the cluster whatever becomes of its keys, if that was written down.
    pub fn cluster(&self) -> Option<&[u8; 32]> {
        self.cluster.as_ref()
    }

    /// Writes down what names the cluster, unless it was before.
    pub fn keep_cluster(&mut self, id: [u8; 32]) {
        self.cluster.get_or_insert(id);
    }

    /// No longer believes the key of `name`, nor the ones it had before. Nobody talks to its holder from then on,
    /// until it has another key.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn revoke(&mut self, name: &str) -> Result<PublicKey, ChangeError> {
        let member = self.by_name(name).ok_or_else(|| ChangeError::Unknown(name.into()))?;
        let (key, former) = (member.key, self.former_of(member.principal).to_vec());
        self.revoked.extend(former);
        if self.revoked.insert(key) { Ok(key) } else { Err(ChangeError::Revoked(name.into())) }
    }

    /// Gives `name` another key, and returns the one it had. That one opens no session any more; what was signed
    /// with it counts as before, unless it is revoked: see [`Roster::signing_keys`].
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn replace_key(&mut self, name: &str, key: PublicKey) -> Result<PublicKey, ChangeError> {
        let member = self.members.values_mut().find(|member| member.name == name);
        let member = member.ok_or_else(|| ChangeError::Unknown(name.into()))?;
        let used = self.former.get(&member.principal).is_some_and(|former| former.contains(&key));
        if self.revoked.contains(&key) || member.key == key || used {
            return Err(ChangeError::Revoked(name.into()));
        }
        let old = std::mem::replace(&mut member.key, key);
        let former = self.former.entry(member.principal).or_default();
        former.insert(0, old);
        former.truncate(FORMER_MAX);
        Ok(old)
    }

    /// The keys whose signatures count as those of `principal` in what is on record: its present key and former
    /// ones, less those that are revoked.
    pub fn signing_keys(&self, principal: Principal) -> impl Iterator<Item = &PublicKey> {
        self.keys_of(principal).filter(|key| !self.is_revoked(key))
    }

    /// All keys that `principal` has or had, also the revoked ones.
    pub fn keys_of(&self, principal: Principal) -> impl Iterator<Item = &PublicKey> {
        let present = self.members.get(&principal).map(|member| &member.key);
        present.into_iter().chain(self.former_of(principal))
    }

    /// The keys that `principal` had before, youngest first.
    pub(super) fn former_of(&self, principal: Principal) -> &[PublicKey] {
        self.former.get(&principal).map_or(&[], Vec::as_slice)
    }

    /// Takes in a new member.
    ///
    /// # Errors
    /// [`ChangeError::Entry`], if it lacks something or shares it with another.
    pub fn add(&mut self, member: Member) -> Result<(), ChangeError> {
        let all = self.members.values().cloned().chain([member.clone()]).collect();
        match Roster::from_members(all, "") {
            Ok(_) => {
                self.members.insert(member.principal, member);
                Ok(())
            }
            Err(RosterError::Entry { problem, .. }) => Err(ChangeError::Entry(problem)),
            Err(_) => unreachable!("no file is read"),
        }
    }

    /// Writes the roster in place of the one in `path`: after a crash the file is the old one or the new one.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let new = path.with_extension("toml.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        file.write_all(self.to_toml().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;
    use cl_base::Principal;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed([seed; 32]).public()
    }

    fn member(number: u32, key: PublicKey) -> Member {
        let name = format!("p{number}");
        Member { principal: Principal(number), name, role: "test".into(), key, address: None }
    }

    fn roster() -> Roster {
        Roster::from_members(vec![member(1, key(1)), member(2, key(2))], "test").unwrap()
    }

    #[test]
    fn changes_survive_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster.toml");
        let mut roster = roster();
        roster.keep_cluster([7; 32]);
        roster.keep_cluster([8; 32]);
        assert_eq!(roster.replace_key("p1", key(11)), Ok(key(1)));
        assert_eq!(roster.revoke("p2"), Ok(key(2)));
        roster.add(member(3, key(3))).unwrap();
        roster.save(&path).unwrap();
        let read = Roster::load(&path).unwrap();
        assert_eq!(read, roster);
        assert_eq!(read.signing_keys(Principal(1)).collect::<Vec<_>>(), [&key(11), &key(1)]);
        assert_eq!(read.signing_keys(Principal(2)).count(), 0, "revoked");
        assert_eq!(read.cluster(), Some(&[7; 32]));
        assert!(read.is_revoked(&key(2)) && ![1, 11].iter().any(|i| read.is_revoked(&key(*i))));
        assert_eq!(read.by_name("p1").unwrap().key, key(11));
    }

    #[test]
    fn impossible_changes_are_refused() {
        let mut roster = roster();
        assert_eq!(roster.revoke("nobody"), Err(ChangeError::Unknown("nobody".into())));
        assert_eq!(roster.replace_key("nobody", key(9)), Err(ChangeError::Unknown("nobody".into())));
        roster.replace_key("p1", key(11)).unwrap();
        assert_eq!(
            roster.replace_key("p1", key(1)),
            Err(ChangeError::Revoked("p1".into())),
            "back to the old one"
        );
        roster.revoke("p2").unwrap();
        assert_eq!(roster.revoke("p2"), Err(ChangeError::Revoked("p2".into())));
        assert!(matches!(roster.add(member(3, key(11))), Err(ChangeError::Entry(_))));
        assert_eq!(roster.len(), 2);
    }

    #[test]
    fn former_keys_are_kept_up_to_a_bound_and_go_when_their_owner_is_revoked() {
        let mut roster = roster();
        for seed in 11..18 {
            roster.replace_key("p1", key(seed)).unwrap();
        }
        let counted: Vec<_> = roster.signing_keys(Principal(1)).copied().collect();
        assert_eq!(counted, [17, 16, 15, 14, 13].map(key), "one and four former ones");
        roster.revoke("p1").unwrap();
        assert_eq!(roster.signing_keys(Principal(1)).count(), 0);
        assert!([17, 16, 15, 14, 13].iter().all(|i| roster.is_revoked(&key(*i))));
        // A key that was revoked is not on record when it is replaced.
        roster.replace_key("p1", key(20)).unwrap();
        assert_eq!(roster.signing_keys(Principal(1)).collect::<Vec<_>>(), [&key(20)]);
        let text = roster.to_toml().replace("role = \"test\"", "role = \"test\"\nformer = [\"ab\"]");
        assert!(Roster::parse(&text, "roster.toml").is_err());
    }

    #[test]
    fn a_damaged_list_of_revoked_keys_is_refused() {
        for (text, field) in [("revoked = [\"ab\"]", "revoked"), ("cluster = \"xy\"", "cluster")] {
            let error = Roster::parse(text, "roster.toml").unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("hexadecimal digits"), "{error}");
        }
    }
}
