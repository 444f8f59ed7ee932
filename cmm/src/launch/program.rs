//! Finding the program that a rank runs, and saying what is wrong with it.
//!
//! The kernel answers "no such file or directory" alike to a missing program, a missing interpreter and a
//! missing working directory. A user who reads it from a job on another machine needs to know which.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for if the job's environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why a rank's process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The command line has no program.
    #[error("no program given")]
    NoProgram,
    /// The working directory is not there, or cannot be entered.
    #[error("working directory {path}: {source}; choose one that every node has with --cwd", path = path.display())]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name without a slash, and no directory of `PATH` has it.
    #[error("{program}: not found in PATH ({path}); give its path, or a PATH that has it (--env PATH=…)")]
    NotInPath {
        /// The program's name.
        program: String,
        /// Where was looked.
        path: String,
    },
    /// A path at which there is nothing.
    #[error("{}: no such file; check the path, and that every node sees it", .0.display())]
    NoSuchFile(PathBuf),
    /// A directory, or a file without the permission to execute it.
    #[error("{}: not an executable file; name a program (`chmod +x` makes a script one)", .0.display())]
    NotExecutable(PathBuf),
    /// Neither a binary of this machine nor a script.
    #[error("{}: exec format error (neither a binary of this machine nor a script); build it for the nodes", .0.display())]
    ExecFormat(PathBuf),
    /// The file is there, but what its `#!` line or its ELF header names is not.
    #[error("{}: its interpreter is missing; install on every node what its first line or its ELF header names", .0.display())]
    NoInterpreter(PathBuf),
    /// Anything else.
    #[error("{}: {source}", path.display())]
    Other {
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl LaunchError {
    /// The code a shell would leave with: 127 if the program was not found, 126 if it could not be run.
    pub fn shell_code(&self) -> i32 {
        match self {
            LaunchError::NotInPath { .. } | LaunchError::NoSuchFile(_) => 127,
            _ => 126,
        }
    }

    /// What the kernel's error for `program`, which was there a moment ago, means.
    pub(super) fn from_exec(program: PathBuf, source: io::Error) -> LaunchError {
        match rustix::io::Errno::from_io_error(&source) {
            Some(rustix::io::Errno::NOEXEC) => LaunchError::ExecFormat(program),
            Some(rustix::io::Errno::ACCESS) => LaunchError::NotExecutable(program),
            Some(rustix::io::Errno::NOENT) => LaunchError::NoInterpreter(program),
            _ => LaunchError::Other { path: program, source },
        }
    }
}

/// The file to execute for `program`, as a shell in `cwd` with this `PATH` would find it.
///
/// # Errors
/// If there is none, or it is no program; see [`LaunchError`].
pub fn resolve(program: &str, cwd: &Path, path: Option<&str>) -> Result<PathBuf, LaunchError> {
    let file = find(program, cwd, path)?;
    // Whoever may execute a file need not be able to read it.
    match is_foreign_binary(&file).unwrap_or(false) {
        true => Err(LaunchError::ExecFormat(file)),
        false => Ok(file),
    }
}

fn find(program: &str, cwd: &Path, path: Option<&str>) -> Result<PathBuf, LaunchError> {
    if program.is_empty() {
        return Err(LaunchError::NoProgram);
    }
    if program.contains('/') {
        let file = cwd.join(program);
        return match executable(&file) {
            Ok(true) => Ok(file),
            Ok(false) => Err(LaunchError::NotExecutable(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(LaunchError::NoSuchFile(file)),
            Err(source) => Err(LaunchError::Other { path: file, source }),
        };
    }
    let path = path.unwrap_or(PATH_DEFAULT);
    let candidates: Vec<PathBuf> = path.split(':').map(|d| cwd.join(d).join(program)).collect();
    match candidates.iter().find(|c| matches!(executable(c), Ok(true))) {
        Some(file) => Ok(file.clone()),
        None => match candidates.into_iter().find(|c| c.is_file()) {
            Some(file) => Err(LaunchError::NotExecutable(file)),
            None => Err(LaunchError::NotInPath { program: program.to_owned(), path: path.to_owned() }),
        },
    }
}

fn executable(file: &Path) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether a file is neither a binary of this machine nor a text.
///
/// The kernel's own answer does not reach us: the C library gives what the kernel refuses to a shell, so that
/// scripts without a `#!` line run, and the shell tries its best with binaries too. (Binaries of another
/// machine that an emulator is registered for are refused.)
fn is_foreign_binary(file: &Path) -> io::Result<bool> {
    let start = |file: &Path| {
        let mut bytes = Vec::new();
        File::open(file)?.take(256).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = start(file)?;
    if bytes.starts_with(b"#!") {
        return Ok(false);
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(bytes.contains(&0));
    }
    let ours = elf_machine(&start(Path::new("/proc/self/exe"))?);
    let theirs = elf_machine(&bytes);
    let older_sibling = [(EM_X86_64, EM_386), (EM_AARCH64, EM_ARM)].map(|(o, t)| (Some(o), Some(t)));
    Ok(theirs != ours && !older_sibling.contains(&(ours, theirs)))
}

/// Field `e_machine` of an ELF header, in the byte order of this machine.
fn elf_machine(header: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(header.get(18..20)?.try_into().ok()?))
}

/// Machines whose kernels run the programs of an older one too.
const EM_X86_64: u16 = 62;
const EM_386: u16 = 3;
const EM_AARCH64: u16 = 183;
const EM_ARM: u16 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let file = dir.path().join("bin/prog");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("prog"), "data").unwrap();

        let cwd = dir.path();
        assert_eq!(resolve("bin/prog", cwd, None).unwrap(), file);
        assert_eq!(resolve(file.to_str().unwrap(), Path::new("/"), None).unwrap(), file);
        assert_eq!(resolve("prog", cwd, Some("/nowhere:bin")).unwrap(), file);
        assert_eq!(resolve("prog", cwd, Some(":bin")).unwrap(), file, "the unexecutable one is passed over");
        assert_eq!(resolve("sh", cwd, None).unwrap().file_name().unwrap(), "sh");
    }

    #[test]
    fn binaries_of_other_machines_are_told_from_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let is_foreign = |bytes: &[u8]| {
            let file = dir.path().join("file");
            fs::write(&file, bytes).unwrap();
            is_foreign_binary(&file).unwrap()
        };
        let mut ours = fs::read("/proc/self/exe").unwrap();
        ours.truncate(64);
        assert!(!is_foreign(&ours));
        ours[18] = 0xee;
        assert!(is_foreign(&ours));
        assert!(is_foreign(b"\x7fELF\x02"), "cut short");
        assert!(is_foreign(b"MZ\0\x01"));
        assert!(!is_foreign(b"#!/bin/sh\n\0"));
        assert!(!is_foreign(b"echo no shebang\n"));
        assert!(!is_foreign(b""));
    }

    #[test]
    fn what_is_wrong_is_said_in_full() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("data"), "data").unwrap();
        let error = |program: &str, path| {
            let error = resolve(program, dir.path(), path).unwrap_err();
            let text = error.to_string().replace(dir.path().to_str().unwrap(), "CWD");
            // What is wrong; the advice follows.
            (text.split("; ").next().unwrap().to_owned(), error.shell_code())
        };
        assert_eq!(error("none", Some("/a:/b")), ("none: not found in PATH (/a:/b)".into(), 127));
        assert_eq!(error("./none", None), ("CWD/./none: no such file".into(), 127));
        assert_eq!(error("./data", None), ("CWD/./data: not an executable file".into(), 126));
        assert_eq!(error("data", Some(".")), ("CWD/./data: not an executable file".into(), 126));
        assert_eq!(error("/", None), ("/: not an executable file".into(), 126));
        assert_eq!(error("", None), ("no program given".into(), 126));
    }
}
