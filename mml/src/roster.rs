//! The roster: the principals of a cluster, with their pinned public keys and addresses.
//!
//! ```toml
//! revoked = ["…128 hexadecimal digits…"]   # keys that are no longer believed
//!
//! [[principal]]
//! principal = 0x01000007
//! name = "n7.agent"
//! role = "agent"
//! key = "…128 hexadecimal digits…"
//! former = ["…"]                 # keys it had before, whose signatures still count (`keys rotate`)
//! address = "10.0.0.7:7400"      # none for those who call and are not called, such as users
//! ```

use crate::keys::{self, KeyFileError, NoEntropy, PublicKey, SecretKey};
use cl_base::Principal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

mod change;

pub use change::ChangeError;

/// One principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, the upper half of a [`cl_base::PeerId`].
    pub principal: Principal,
    /// Its name, for people and file names: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// What it is, in the words of the application (agent, manager, hardcore, user).
    pub role: String,
    /// Its keys.
    pub key: PublicKey,
    /// Where instance 0 of it is found, if it can be called.
    pub address: Option<SocketAddr>,
}

/// Former keys kept for each member. What was signed with older ones has been replaced long since by what was signed
/// with younger ones.
pub const FORMER_MAX: usize = 4;

/// All principals, each with its own number, name, key and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: BTreeMap<Principal, Member>,
    revoked: BTreeSet<PublicKey>,
    /// Keys that members had before, youngest first, up to [`FORMER_MAX`] of each: they open no session, but signatures under
    /// those that nobody has revoked count in what is on record.
    former: BTreeMap<Principal, Vec<PublicKey>>,
    /// What names the cluster, if its keys have changed since it was made.
    cluster: Option<[u8; 32]>,
}

/// Why a roster was refused.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The file cannot be read or written.
    #[error("roster {}: {error}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Not TOML, an unknown or a missing field, or a value of the wrong type.
    #[error("roster {}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        error: Box<toml::de::Error>,
    },
    /// An entry that makes no sense.
    #[error("roster {}: entry {entry} ({name}): {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        entry: usize,
        /// Its name.
        name: String,
        /// What is wrong, and the remedy.
        problem: EntryProblem,
    },
    /// A line before the entries that makes no sense.
    #[error("roster {}: {field}: {text:?} is not {digits} hexadecimal digits; restore it from another copy", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// `revoked` or `cluster`.
        field: &'static str,
        /// What is there.
        text: String,
        /// How many there should be.
        digits: usize,
    },
    /// A key file of a new principal cannot be written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No key can be made.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

/// What is wrong with an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// The name is empty or has other characters.
    #[error(
        "a name consists of letters, digits, '.', '_' and '-', and begins with a letter or digit; rename it"
    )]
    Name,
    /// The role is empty.
    #[error("the role is empty; say what it is, for example \"agent\"")]
    Role,
    /// More former keys than are kept.
    #[error("there are more than {FORMER_MAX} former keys; leave out the last ones")]
    Former,
    /// Not a public key.
    #[error("the key is not 128 hexadecimal digits; copy it again from where it was generated")]
    Key,
    /// Not an address.
    #[error("{0:?} is not an address; write IP:port, for example 10.0.0.7:7400 or [fd00::7]:7400")]
    Address(String),
    /// Something that must be unique is not.
    #[error("the same {field} as entry {first}; give each its own")]
    Duplicate {
        /// Principal, name, key or address.
        field: &'static str,
        /// The earlier entry.
        first: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<String>,
    #[serde(default)]
    principal: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    principal: u32,
    name: String,
    role: String,
    key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// A principal to be made by [`Roster::generate`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// As in [`Member`].
    pub principal: Principal,
    /// As in [`Member`]; its key file is named after it.
    pub name: String,
    /// As in [`Member`].
    pub role: String,
    /// As in [`Member`].
    pub address: Option<SocketAddr>,
}

impl Roster {
    /// Reads a roster file.
    ///
    /// # Errors
    /// [`RosterError`], which names the file, the entry and the remedy.
    pub fn load(path: impl AsRef<Path>) -> Result<Roster, RosterError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|error| RosterError::Io { path: path.into(), error })?;
        Roster::parse(&text, path)
    }

    /// Reads the text of a roster; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Roster::load`].
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Roster, RosterError> {
        let path = path.as_ref();
        let syntax = |error| RosterError::Syntax { path: path.into(), error: Box::new(error) };
        let file: File = toml::from_str(text).map_err(syntax)?;
        let field = |field, digits, text: &str| RosterError::Field {
            path: path.into(),
            field,
            text: text.chars().take(140).collect(),
            digits,
        };
        let revoked = file.revoked.iter().map(|text| text.parse().map_err(|_| field("revoked", 128, text)));
        let revoked = revoked.collect::<Result<_, _>>()?;
        let cluster = file.cluster.as_deref();
        let cluster = cluster.map(|text| keys::from_hex(text).ok_or_else(|| field("cluster", 64, text)));
        let cluster = cluster.transpose()?;
        let (mut members, mut former) = (Vec::new(), BTreeMap::new());
        for (index, entry) in file.principal.into_iter().enumerate() {
            let name = entry.name.clone();
            let wrong = |problem| RosterError::Entry { path: path.into(), entry: index + 1, name, problem };
            let (keys, member) = entry.former().and_then(|keys| Ok((keys, entry.check()?))).map_err(wrong)?;
            if !keys.is_empty() {
                former.insert(member.principal, keys);
            }
            members.push(member);
        }
        Ok(Roster { revoked, former, cluster, ..Roster::from_members(members, path)? })
    }

    /// A roster of these members.
    ///
    /// # Errors
    /// [`RosterError::Entry`]; `path` is named in it.
    pub fn from_members(members: Vec<Member>, path: impl AsRef<Path>) -> Result<Roster, RosterError> {
        let mut seen = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            member.check(index + 1, &mut seen).map_err(|problem| RosterError::Entry {
                path: path.as_ref().into(),
                entry: index + 1,
                name: member.name.clone(),
                problem,
            })?;
        }
        let members = members.into_iter().map(|m| (m.principal, m)).collect();
        Ok(Roster { members, ..Roster::default() })
    }

    /// Makes the keys of a new cluster: `roster.toml` and one `<name>.key` for each principal, in `dir`. No
    /// existing file is overwritten.
    ///
    /// # Errors
    /// [`RosterError`]; files already written stay.
    pub fn generate(dir: impl AsRef<Path>, plans: &[Plan]) -> Result<Roster, RosterError> {
        let dir = dir.as_ref();
        let path = dir.join("roster.toml");
        let secrets = plans.iter().map(|_| SecretKey::generate()).collect::<Result<Vec<_>, _>>()?;
        let member = |(plan, secret): (&Plan, &SecretKey)| Member {
            principal: plan.principal,
            name: plan.name.clone(),
            role: plan.role.clone(),
            key: secret.public(),
            address: plan.address,
        };
        let roster = Roster::from_members(plans.iter().zip(&secrets).map(member).collect(), &path)?;
        for (plan, secret) in plans.iter().zip(&secrets) {
            secret.create(dir.join(format!("{}.key", plan.name)))?;
        }
        let write = std::fs::File::create_new(&path).and_then(|mut file| {
            io::Write::write_all(&mut file, roster.to_toml().as_bytes())?;
            file.sync_all()
        });
        write.map_err(|error| RosterError::Io { path, error })?;
        Ok(roster)
    }

    /// The text of a roster file.
    pub fn to_toml(&self) -> String {
        let entry = |member: &Member| Entry {
            principal: member.principal.0,
            name: member.name.clone(),
            role: member.role.clone(),
            key: member.key.to_string(),
            former: self.former_of(member.principal).iter().map(PublicKey::to_string).collect(),
            address: member.address.map(|a| a.to_string()),
        };
        let file = File {
            cluster: self.cluster.map(|id| keys::hex(&id)),
            revoked: self.revoked.iter().map(PublicKey::to_string).collect(),
            principal: self.members.values().map(entry).collect(),
        };
        toml::to_string(&file).expect("a roster is numbers and strings")
    }

    /// The member of this number.
    pub fn get(&self, principal: Principal) -> Option<&Member> {
        self.members.get(&principal)
    }

    /// The member of this name.
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.members.values().find(|member| member.name == name)
    }

    /// The members of this role, by number.
    pub fn by_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Member> + 'a {
        self.members.values().filter(move |member| member.role == role)
    }

    /// All members, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Entry {
    fn former(&self) -> Result<Vec<PublicKey>, EntryProblem> {
        if self.former.len() > FORMER_MAX {
            return Err(EntryProblem::Former);
        }
        self.former.iter().map(|key| key.parse().map_err(|_| EntryProblem::Key)).collect()
    }

    fn check(self) -> Result<Member, EntryProblem> {
        Ok(Member {
            principal: Principal(self.principal),
            name: self.name,
            role: self.role,
            key: self.key.parse().map_err(|_| EntryProblem::Key)?,
            address: match self.address {
                Some(text) => Some(text.parse().map_err(|_| EntryProblem::Address(text))?),
                None => None,
            },
        })
    }
}

impl Member {
    /// Checks entry number `entry` against itself and the ones before it.
    fn check(
        &self,
        entry: usize,
        seen: &mut BTreeMap<(&'static str, String), usize>,
    ) -> Result<(), EntryProblem> {
        let ordinary = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.name.chars().all(ordinary) {
            return Err(EntryProblem::Name);
        }
        if self.role.is_empty() {
            return Err(EntryProblem::Role);
        }
        let unique = [
            ("principal", Some(self.principal.0.to_string())),
            ("name", Some(self.name.clone())),
            ("X25519 key", Some(self.key.to_string()[..64].to_string())),
            ("Ed25519 key", Some(self.key.to_string()[64..].to_string())),
            ("address", self.address.map(|a| a.to_string())),
        ];
        for (field, value) in unique {
            if let Some(first) = value.and_then(|value| seen.insert((field, value), entry)) {
                return Err(EntryProblem::Duplicate { field, first });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: u32, name: &str) -> Plan {
        let address = (number < 10).then(|| SocketAddr::from(([127, 0, 0, 1], 7400 + number as u16)));
        Plan { principal: Principal(number), name: name.into(), role: "agent".into(), address }
    }

    #[test]
    fn a_generated_roster_is_read_back_and_fits_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let roster =
            Roster::generate(dir.path(), &[plan(1, "n1"), plan(2, "n2.agent"), plan(100, "alice")]).unwrap();
        assert_eq!(Roster::load(dir.path().join("roster.toml")).unwrap(), roster);
        for member in roster.iter() {
            let secret = SecretKey::load(dir.path().join(format!("{}.key", member.name))).unwrap();
            assert_eq!(secret.public(), member.key);
        }
        assert_eq!(roster.by_name("alice").unwrap().address, None);
        assert_eq!(roster.by_role("agent").count(), 3);
        assert!(matches!(Roster::generate(dir.path(), &[plan(1, "n1")]), Err(RosterError::Key(_))));
    }

    #[test]
    fn a_bad_roster_is_refused_with_file_entry_and_remedy() {
        let key = |seed| SecretKey::from_seed([seed; 32]).public().to_string();
        let entry = |number: u32, name: &str, key: &str, rest: &str| {
            format!(
                "[[principal]]\nprincipal = {number}\nname = {name:?}\nrole = \"agent\"\nkey = {key:?}\n{rest}\n"
            )
        };
        let first = entry(0x10, "n1", &key(1), "address = \"10.0.0.1:7400\"");
        for (second, expected) in [
            (entry(2, "n2", &key(2)[1..], ""), "entry 2 (n2): the key is not 128"),
            (
                entry(2, "n2", &key(2), "address = \"10.0.0.1\""),
                "entry 2 (n2): \"10.0.0.1\" is not an address",
            ),
            (
                entry(2, "n2", &key(2), "address = \"10.0.0.1:7400\""),
                "entry 2 (n2): the same address as entry 1",
            ),
            (entry(16, "n2", &key(2), ""), "entry 2 (n2): the same principal as entry 1"),
            (entry(2, "n1", &key(2), ""), "entry 2 (n1): the same name as entry 1"),
            (entry(2, "n2", &key(1), ""), "entry 2 (n2): the same X25519 key as entry 1"),
            (entry(2, "../n2", &key(2), ""), "entry 2 (../n2): a name consists of"),
            (entry(2, "n2", &key(2), "adress = \"10.0.0.2:7400\""), "unknown field `adress`"),
            (entry(2, "n2", &key(2), "").replace("role = \"agent\"", ""), "missing field `role`"),
            (entry(2, "n2", &key(2), "").replace("agent", ""), "entry 2 (n2): the role is empty"),
            (entry(2, "n2", &key(2), "").replace("= 2", "= 4294967296"), "line"),
            ("principal".into(), "line"),
            ("revoked = 3".into(), "line"),
        ] {
            let error =
                Roster::parse(&format!("{first}{second}"), "etc/roster.toml").unwrap_err().to_string();
            assert!(error.starts_with("roster etc/roster.toml: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let missing = Roster::load("/nonexistent/roster.toml").unwrap_err().to_string();
        assert!(
            missing.contains("/nonexistent/roster.toml") && missing.contains("check the path"),
            "{missing}"
        );
    }
}
