//! `keys`: whose keys a cluster believes, and new ones.

use super::{Failure, Outcome, render};
use crate::daemon;
use crate::keys::{cluster, entry_name};
use crate::layout::Layout;
use clap::{Args, Subcommand};
use cmm_core::identity::Role;
use mml::{Member, PublicKey, Roster, SecretKey};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::fs::File;
use std::path::PathBuf;

/// What follows the options in `ghidrah keys --help`.
pub const HELP: &str = "Examples:
  ghidrah keys show                     whose keys there are, with fingerprints to compare
  ghidrah keys generate user-1          a key for one more user, who sets GHIDRAH_USER=1
  ghidrah keys rotate agent-node3       a new key for agent-node3 in place of its old one
  ghidrah keys revoke user-1 --dry-run  what would be done to believe user-1 no longer

The daemons of a running cluster take up the change at once; jobs go on. On a site with several machines, copy
keys/roster.toml to all of them and send their hardcore SIGHUP, and a new key file to the machine of its owner only.
What was signed with a key that was replaced (`rotate`) still counts; with one that was revoked it does not: when the
keys of many agents are revoked, they may have to elect managers again, and those do not remember earlier jobs.
A key that may be in other hands is revoked first and then rotated. It is of no use once every machine has the roster
in which it is revoked.";

/// `keys`
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List the roster: names, fingerprints, whether the key file is here and fits.
    #[command(after_help = "Examples:\n  ghidrah keys show\n  ghidrah keys show user-0 --json")]
    Show {
        /// Only these.
        names: Vec<String>,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the key of one more user.
    #[command(after_help = "Example:\n  ghidrah keys generate user-1")]
    Generate(ChangeArgs),
    /// Make a new key for somebody. The old one opens no session any more; what was signed with it still counts.
    #[command(
        after_help = "Examples:\n  ghidrah keys rotate agent-node3\n  ghidrah keys rotate user-0 --dry-run --json\n\nA key that may be in other hands is revoked first: `ghidrah keys revoke`."
    )]
    Rotate(ChangeArgs),
    /// Believe somebody's key no longer.
    #[command(
        after_help = "Example:\n  ghidrah keys revoke user-1\n\nWhoever it is gets in again with a new key: `ghidrah keys rotate`."
    )]
    Revoke(ChangeArgs),
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// The name in the roster.
    name: String,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// A line of `keys show`.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    role: String,
    principal: u32,
    fingerprint: String,
    revoked: bool,
    /// Whether the key file is in this directory, and what is wrong with it.
    key_file: String,
}

/// What a change came to.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    name: String,
    /// What was done.
    action: &'static str,
    /// False for a dry run.
    done: bool,
    /// Whether the daemons of a running cluster were told.
    told: bool,
    /// The fingerprint of the key that was replaced or revoked.
    old: Option<String>,
    /// The fingerprint of the new key, if one was made.
    new: Option<String>,
    /// The file of the new key.
    key_file: Option<PathBuf>,
}

pub(super) fn keys(layout: &Layout, args: &KeysArgs) -> Outcome {
    let (changed, json) = match &args.command {
        KeysCommand::Show { names, json } => return show(layout, names, *json),
        KeysCommand::Generate(args) => (change(layout, args, generate)?, args.json),
        KeysCommand::Rotate(args) => (change(layout, args, rotate)?, args.json),
        KeysCommand::Revoke(args) => (change(layout, args, revoke)?, args.json),
    };
    if json {
        render::json(&changed);
    } else {
        print!("{}", changed.text());
    }
    Ok(())
}

fn load(layout: &Layout) -> Result<Roster, Failure> {
    Ok(Roster::load(layout.roster()).map_err(|e| e.to_string())?)
}

fn show(layout: &Layout, names: &[String], json: bool) -> Outcome {
    let roster = load(layout)?;
    if let Some(name) = names.iter().find(|name| roster.by_name(name).is_none()) {
        return Err(unknown(name));
    }
    let wanted = |member: &&Member| names.is_empty() || names.contains(&member.name);
    let shown: Vec<Shown> = roster.iter().filter(wanted).map(|m| shown(layout, &roster, m)).collect();
    if json {
        render::json(&shown);
        return Ok(());
    }
    let state = |s: &Shown| if s.revoked { "revoked" } else { "believed" }.to_owned();
    let row = |s: Shown| vec![s.name.clone(), s.fingerprint.clone(), state(&s), s.key_file];
    let rows: Vec<Vec<String>> = shown.into_iter().map(row).collect();
    print!("{}", render::table(&["NAME", "FINGERPRINT", "KEY", "KEY FILE"], &rows));
    Ok(())
}

fn shown(layout: &Layout, roster: &Roster, member: &Member) -> Shown {
    let path = layout.key(&member.name);
    let key_file = match SecretKey::load(&path) {
        Ok(secret) if secret.public() == member.key => "here".to_owned(),
        Ok(secret) => format!("another key: {}", secret.public().fingerprint()),
        Err(_) if !path.exists() => "not here".to_owned(),
        Err(error) => error.kind.to_string(),
    };
    Shown {
        name: member.name.clone(),
        role: member.role.clone(),
        principal: member.principal.0,
        fingerprint: member.key.fingerprint(),
        revoked: roster.is_revoked(&member.key),
        key_file,
    }
}

/// Reads the roster, changes it, and unless it is a dry run puts the change on disk and tells a running cluster.
fn change(
    layout: &Layout,
    args: &ChangeArgs,
    act: fn(&Layout, &mut Roster, &ChangeArgs) -> Result<Changed, Failure>,
) -> Result<Changed, Failure> {
    // Held to the end: one change at a time.
    let keys = layout.keys();
    let at = |e: std::io::Error| Failure::from(format!("{}: {e}", keys.display()));
    let directory = File::open(&keys).map_err(at)?;
    directory.lock().map_err(at)?;
    let mut roster = load(layout)?;
    roster.keep_cluster(cluster(&roster));
    let mut changed = act(layout, &mut roster, args)?;
    if changed.done
        && let Some(hardcore) = daemon::running(layout).and_then(Pid::from_raw)
    {
        // It tells the agents, and they their managers.
        kill_process(hardcore, Signal::HUP)
            .map_err(|e| format!("the roster has changed, but the hardcore cannot be told: {e}"))?;
        changed.told = true;
    }
    Ok(changed)
}

fn generate(layout: &Layout, roster: &mut Roster, args: &ChangeArgs) -> Result<Changed, Failure> {
    let name = &args.name;
    let number = name.strip_prefix("user-").and_then(|number| number.parse().ok());
    let Some(role) = number.and_then(Role::of_user).filter(|role| entry_name(*role) == *name) else {
        let text = "keys are made for users, who are named user-0, user-1, ... user-16777215; those of nodes are made with the \
                    cluster, and renewed by `ghidrah keys rotate`";
        return Err(format!("{name}: {text}").into());
    };
    if roster.by_name(name).is_some() {
        return Err(format!("{name} has a key already; `ghidrah keys rotate {name}` makes a new one").into());
    }
    let secret = SecretKey::generate().map_err(|e| e.to_string())?;
    let member = Member {
        principal: role.principal(),
        name: name.clone(),
        role: "user".into(),
        key: secret.public(),
        address: None,
    };
    roster.add(member).map_err(|e| e.to_string())?;
    let path = layout.key(name);
    if !args.dry_run {
        secret.create(&path).map_err(|e| e.to_string())?;
        save(layout, roster)?;
    }
    Ok(Changed::new(args, "generate", None, Some((secret.public(), path))))
}

fn rotate(layout: &Layout, roster: &mut Roster, args: &ChangeArgs) -> Result<Changed, Failure> {
    let old = roster.by_name(&args.name).ok_or_else(|| unknown(&args.name))?.key;
    let (path, new) = (layout.key(&args.name), layout.new_key(&args.name));
    // A rotation that was interrupted after the roster was written is only to be finished.
    let begun = SecretKey::load(&new).ok().filter(|secret| secret.public() == old);
    let secret = match &begun {
        Some(secret) => secret.clone(),
        None => SecretKey::generate().map_err(|e| e.to_string())?,
    };
    if !args.dry_run {
        let at = |e: std::io::Error| Failure::from(format!("{}: {e}", new.display()));
        if begun.is_none() {
            match std::fs::remove_file(&new) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
                _ => secret.create(&new).map_err(|e| e.to_string())?,
            }
            roster.replace_key(&args.name, secret.public()).map_err(|e| e.to_string())?;
            save(layout, roster)?;
        }
        std::fs::rename(&new, &path).map_err(at)?;
    }
    let old = begun.is_none().then_some(old);
    Ok(Changed::new(args, "rotate", old, Some((secret.public(), path))))
}

fn revoke(layout: &Layout, roster: &mut Roster, args: &ChangeArgs) -> Result<Changed, Failure> {
    let old = roster.revoke(&args.name).map_err(|e| match e {
        mml::roster::ChangeError::Unknown(name) => unknown(&name),
        other => other.to_string().into(),
    })?;
    if !args.dry_run {
        save(layout, roster)?;
    }
    Ok(Changed::new(args, "revoke", Some(old), None))
}

fn save(layout: &Layout, roster: &Roster) -> Outcome {
    let path = layout.roster();
    Ok(roster.save(&path).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn unknown(name: &str) -> Failure {
    format!("the roster has no {name:?}; `ghidrah keys show` lists the names").into()
}

impl Changed {
    fn new(
        args: &ChangeArgs,
        action: &'static str,
        old: Option<PublicKey>,
        new: Option<(PublicKey, PathBuf)>,
    ) -> Changed {
        let (key, key_file) = new.unzip();
        Changed {
            name: args.name.clone(),
            action,
            done: !args.dry_run,
            told: false,
            old: old.map(|key| key.fingerprint()),
            // A dry run's key is not the one that will be made.
            new: key.filter(|_| !args.dry_run).map(|key| key.fingerprint()),
            key_file,
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        match (&self.new, &self.key_file) {
            (Some(new), Some(path)) => {
                lines.push(format!("{}: the new key is {new}, in {}", self.name, path.display()));
            }
            (None, Some(path)) => {
                lines.push(format!("{}: a new key would be made, in {}", self.name, path.display()));
            }
            _ => {}
        }
        if let Some(old) = &self.old {
            let is = if self.done { "is" } else { "would be" };
            let what = if self.action == "revoke" { "revoked" } else { "replaced" };
            lines.push(format!("{}: the key {old} {is} {what}", self.name));
        }
        if self.done {
            let news = if self.told {
                "the roster has changed, and the running daemons have been told; their logs say that they took it up"
            } else {
                "the roster has changed; every machine of the cluster needs it before the next start"
            };
            lines.push(news.into());
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cluster_in(dir: &tempfile::TempDir) -> Layout {
        let layout = Layout::new(dir.path().join("c"));
        crate::local::create(&layout, "test", 4, 1).unwrap();
        layout
    }

    fn args(name: &str, dry_run: bool) -> ChangeArgs {
        ChangeArgs { name: name.into(), dry_run, json: false }
    }

    fn load_keyring(layout: &Layout, role: Role) -> Result<crate::keys::Keyring, String> {
        crate::keys::Keyring::load(layout, role)
    }

    #[test]
    fn a_rotated_key_fits_and_its_predecessor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = cluster_in(&dir);
        let before = load_keyring(&layout, Role::User(0)).unwrap();
        let old = std::fs::read(layout.key("user-0")).unwrap();
        let dry = change(&layout, &args("user-0", true), rotate).unwrap();
        assert!(!dry.done && dry.new.is_none());
        assert_eq!(std::fs::read(layout.key("user-0")).unwrap(), old, "a dry run does nothing");
        assert_eq!(std::fs::read_dir(layout.keys()).unwrap().count(), 2 * 4 + 2 + 1);

        let done = change(&layout, &args("user-0", false), rotate).unwrap();
        assert_eq!(done.old, dry.old);
        let after = load_keyring(&layout, Role::User(0)).unwrap();
        assert_eq!(Some(after.own().secret().public().fingerprint()), done.new);
        assert_eq!(after.cluster(), before.cluster(), "it is the same cluster");
        let mode = std::fs::metadata(layout.key("user-0")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        std::fs::write(layout.key("user-0"), &old).unwrap();
        let refusal = load_keyring(&layout, Role::User(0)).unwrap_err();
        assert!(refusal.contains("another key") && refusal.contains("user-0"), "{refusal}");
    }

    #[test]
    fn an_interrupted_rotation_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let layout = cluster_in(&dir);
        let old = std::fs::read(layout.key("agent-node1")).unwrap();
        let first = change(&layout, &args("agent-node1", false), rotate).unwrap();
        // As if the crash came before the last step.
        std::fs::rename(layout.key("agent-node1"), layout.keys().join("agent-node1.new")).unwrap();
        std::fs::write(layout.key("agent-node1"), old).unwrap();
        std::fs::set_permissions(layout.key("agent-node1"), std::fs::Permissions::from_mode(0o600)).unwrap();
        load_keyring(&layout, Role::Agent(cmm_core::identity::NodeId(1))).expect("the new key is in force");
        let again = change(&layout, &args("agent-node1", false), rotate).unwrap();
        assert_eq!((again.new, again.old), (first.new, None));
        load_keyring(&layout, Role::Agent(cmm_core::identity::NodeId(1))).unwrap();
    }

    #[test]
    fn a_revoked_member_is_refused_and_gets_in_again_with_a_new_key() {
        let dir = tempfile::tempdir().unwrap();
        let layout = cluster_in(&dir);
        change(&layout, &args("user-0", false), revoke).unwrap();
        assert!(load_keyring(&layout, Role::User(0)).unwrap_err().contains("revoked"));
        assert!(change(&layout, &args("user-0", false), revoke).unwrap_err().text.contains("already"));
        change(&layout, &args("user-0", false), rotate).unwrap();
        load_keyring(&layout, Role::User(0)).unwrap();
    }

    #[test]
    fn a_user_is_added_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let layout = cluster_in(&dir);
        assert!(!change(&layout, &args("user-1", true), generate).unwrap().done);
        assert!(load_keyring(&layout, Role::User(1)).is_err());
        change(&layout, &args("user-1", false), generate).unwrap();
        load_keyring(&layout, Role::User(1)).unwrap();
        for (name, expected) in [
            ("user-1", "rotate user-1"),
            ("user-01", "user-0, user-1"),
            ("user-16777216", "user-16777215"),
            ("agent-node1", "users"),
        ] {
            let refusal = change(&layout, &args(name, false), generate).unwrap_err().text;
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn mistakes_are_answered_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let layout = cluster_in(&dir);
        for act in [rotate, revoke] {
            let refusal = change(&layout, &args("nobody", false), act).unwrap_err().text;
            assert!(refusal.contains("ghidrah keys show"), "{refusal}");
        }
        // A lost, an open and a foreign key file, as `up` and `show` see them.
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(layout.key("user-0"), open).unwrap();
        let refusal = load_keyring(&layout, Role::User(0)).unwrap_err();
        assert!(refusal.contains(&format!("chmod 0600 {}", layout.key("user-0").display())), "{refusal}");
        std::fs::remove_file(layout.key("user-0")).unwrap();
        let refusal = load_keyring(&layout, Role::User(0)).unwrap_err();
        assert!(refusal.contains("not found") && refusal.contains("ghidrah keys rotate"), "{refusal}");
        std::fs::copy(layout.key("hardcore"), layout.key("user-0")).unwrap();
        let refusal = load_keyring(&layout, Role::User(0)).unwrap_err();
        assert!(refusal.contains("another key"), "{refusal}");
        let roster = load(&layout).unwrap();
        let shown = shown(&layout, &roster, roster.by_name("user-0").unwrap());
        assert!(shown.key_file.starts_with("another key"), "{shown:?}");
    }
}
