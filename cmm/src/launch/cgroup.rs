//! A control group (cgroup v2): processes cannot leave it, whatever they do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory of the cgroup v2 hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// The group `names` below the root, created with its parents; `None` if there is no cgroup v2 in which
    /// we may create and fill groups.
    pub(super) fn create(names: &[&str]) -> Option<Cgroup> {
        let cgroup = Cgroup::at(names)?;
        fs::create_dir_all(&cgroup.0).ok()?;
        // A read-only or foreign hierarchy shows here at the latest.
        fs::OpenOptions::new().write(true).open(cgroup.0.join("cgroup.procs")).ok()?;
        Some(cgroup)
    }

    /// The group `names` below the root, if it exists.
    pub(super) fn find(names: &[&str]) -> Option<Cgroup> {
        Cgroup::at(names).filter(|c| c.0.is_dir())
    }

    fn at(names: &[&str]) -> Option<Cgroup> {
        Some(Cgroup(names.iter().fold(root()?, |path, name| path.join(name))))
    }

    /// Moves a process in. That it has ended is no error.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        match fs::write(self.0.join("cgroup.procs"), pid.to_string()) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// The members, those of groups below included; neither zombies nor
    /// those that are about to end count.
    pub(super) fn pids(&self) -> Vec<u32> {
        let own = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let mut pids: Vec<u32> = own.lines().filter_map(|l| l.parse().ok()).collect();
        for child in self.children() {
            pids.extend(child.pids());
        }
        pids
    }

    /// Whether there are members, those of groups below included, and such that are about to end.
    pub(super) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|l| l == "populated 1")
    }

    /// Kills all members at once, those of groups below included. `false` if the kernel (before 5.14) cannot.
    pub(super) fn kill(&self) -> bool {
        fs::write(self.0.join("cgroup.kill"), "1").is_ok()
    }

    /// Removes the group and those below.
    pub(super) fn remove(&self) -> io::Result<()> {
        for child in self.children() {
            child.remove()?;
        }
        match fs::remove_dir(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes the parent, if this was its last child.
    pub(super) fn remove_empty_parent(&self) {
        let _ = self.0.parent().map(fs::remove_dir);
    }

    fn children(&self) -> Vec<Cgroup> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).map(Cgroup).collect()
    }
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or a directory below it beside version 1.
fn root() -> Option<PathBuf> {
    mount_point(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn mount_point(mounts: &str) -> Option<PathBuf> {
    let mut fields = mounts.lines().map(|l| l.split(' '));
    fields.find_map(|mut f| match (f.next(), f.next(), f.next()) {
        (_, Some(directory), Some("cgroup2")) => Some(Path::new(directory).to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_alone_and_beside_the_first() {
        let alone = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(mount_point(alone).unwrap(), Path::new("/sys/fs/cgroup"));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }
}
