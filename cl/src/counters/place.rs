//! Where the files of counters are, and which of them belong to nobody any more.

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// The environment variable that names the directory of the counters.
pub const DIRECTORY_VARIABLE: &str = "GHIDRAH_STAT_DIR";

/// Names tried for a new file, should a process of the same number have left some behind.
const NAMES_MAX: u32 = 16;
/// Files looked at in one directory: more endpoints than a host has processors by far.
const FILES_MAX: usize = 4096;
/// An empty file is one that is just being made, or was never finished if it is older than this.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// The directories for this user's files, the one to use first.
pub(super) fn directories() -> Vec<PathBuf> {
    if let Some(only) = std::env::var_os(DIRECTORY_VARIABLE) {
        return vec![only.into()];
    }
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|dir| dir.is_absolute()).map(|dir| dir.join("ghidrah"));
    // Memory before disk: a write to a mapped page may have to wait for the disk.
    let others = [format!("/dev/shm/ghidrah-{uid}"), format!("/tmp/ghidrah-{uid}")];
    runtime.into_iter().chain(others.map(PathBuf::from)).collect()
}

/// The directories of everybody's files that may exist, for root.
pub(super) fn directories_of_all() -> Vec<PathBuf> {
    if std::env::var_os(DIRECTORY_VARIABLE).is_some() {
        return directories();
    }
    let mut all = directories();
    let mut add = |parent: &str, pick: &dyn Fn(PathBuf, &OsStr) -> Option<PathBuf>| {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        all.extend(entries.filter_map(|entry| pick(entry.path(), &entry.file_name())).take(FILES_MAX));
    };
    // `ghidrah-UID`: what others call by similar names is no business of ours.
    let named = |path: PathBuf, name: &OsStr| {
        let uid = name.as_bytes().strip_prefix(b"ghidrah-")?;
        (!uid.is_empty() && uid.iter().all(u8::is_ascii_digit)).then_some(path)
    };
    add("/dev/shm", &named);
    add("/tmp", &named);
    add("/run/user", &|path, _| Some(path.join("ghidrah")));
    all.sort();
    all.dedup();
    all
}

/// A directory that is closed to all but its owner.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

/// What a file in the directory is.
#[derive(Debug)]
pub(super) enum Found {
    /// Of a process that lives.
    Alive(File),
    /// Left over; it has been removed.
    Removed,
    /// Nothing to read, for this reason.
    Skipped(String),
}

impl Directory {
    /// Opens it, and makes it if asked to.
    ///
    /// # Errors
    /// If it is not there; if it is a symbolic link, belongs to another user or is open to others.
    pub(super) fn open(path: &Path, make: bool) -> io::Result<Directory> {
        if make {
            match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let me = rustix::process::geteuid();
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if stat.st_uid != me.as_raw() && (make || !me.is_root()) {
            return refused(format!("it belongs to user {}", stat.st_uid));
        }
        if stat.st_mode & 0o077 != 0 {
            return refused("it is open to other users; chmod 700 it".to_owned());
        }
        Ok(Directory { fd, path: path.to_owned(), owner: stat.st_uid })
    }

    /// Makes a file of `len` zero bytes, locked as long as the process lives and keeps it open.
    pub(super) fn make_file(&self, len: usize) -> io::Result<(File, PathBuf)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for _ in 0..NAMES_MAX {
            let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&self.fd, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => fd,
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut file = File::from(fd);
            // Locked before it has a length: others leave empty files alone. Written and not only made long, so
            // that there is room for certain: to touch a page that has none would kill this process.
            let made = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(io::Error::from)
                .and_then(|()| file.write_all(&vec![0; len]));
            match made {
                Ok(()) => return Ok((file, self.path.join(name))),
                Err(error) => {
                    let _ = rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty());
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("files of former processes are in the way"))
    }

    /// Looks at every file of counters, and removes those of processes that are gone. `is_page` says of the
    /// first word of one whether it is of ours.
    pub(super) fn visit(&self, is_page: impl Fn(u64) -> bool, mut visit: impl FnMut(PathBuf, Found)) {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => return visit(self.path.clone(), Found::Skipped(error.to_string())),
        };
        let mut names: Vec<OsString> =
            entries.flatten().map(|e| e.file_name()).filter(|name| is_ours(name)).take(FILES_MAX).collect();
        names.sort();
        for name in names {
            let found = match self.look(&name, &is_page) {
                Ok(Some(found)) => found,
                // Gone meanwhile, or just being made.
                Ok(None) => continue,
                Err(error) => Found::Skipped(error.to_string()),
            };
            visit(self.path.join(&name), found);
        }
    }

    fn look(&self, name: &OsStr, is_page: &impl Fn(u64) -> bool) -> io::Result<Option<Found>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Ok(Some(Found::Skipped("it is a symbolic link".to_owned()))),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != self.owner {
            return Ok(Some(Found::Skipped("it is no file of the directory's owner".to_owned())));
        }
        let file = File::from(fd);
        if stat.st_size == 0 {
            let made = file.metadata()?.modified()?;
            let age = SystemTime::now().duration_since(made).unwrap_or_default();
            return if age > MAKING_MAX { self.remove(name, &stat).map(Some) } else { Ok(None) };
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => return Ok(Some(Found::Alive(file))),
            Err(error) => return Err(error.into()),
            Ok(()) => {}
        }
        let mut word = [0; 8];
        let len = rustix::io::pread(&file, &mut word, 0)?;
        let word = u64::from_ne_bytes(word);
        // Of a process that ended while it made the page, the first word is zero.
        if len == 8 && (is_page(word) || word == 0) {
            return self.remove(name, &stat).map(Some);
        }
        Ok(Some(Found::Skipped("it is no page of counters".to_owned())))
    }

    fn remove(&self, name: &OsStr, seen: &Stat) -> io::Result<Found> {
        // Somebody else may have removed it, and a new process have taken the name.
        let now = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino) {
            rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        }
        Ok(Found::Removed)
    }
}

/// `PROCESS-NUMBER`
fn is_ours(name: &OsStr) -> bool {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.to_str().and_then(|n| n.split_once('-')).is_some_and(|(a, b)| is_number(a) && is_number(b))
}
