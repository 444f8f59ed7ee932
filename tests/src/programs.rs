//! Where programs are: ours in the build directory, MPI ones compiled there once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The root of the source tree.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a directory of the repository")
}

/// The directory of this build's programs: the tests themselves are in `deps` below it.
fn build_directory() -> PathBuf {
    let tests = std::env::current_exe().expect("a test knows its own file");
    tests.parent().and_then(Path::parent).expect("a test is two directories deep").to_owned()
}

/// The program `ghidrah`, with its daemons beside it.
///
/// # Panics
/// If one of them is not built.
pub fn ghidrah() -> PathBuf {
    let directory = build_directory();
    for name in ["ghidrah", "ghidrah-agent", "ghidrah-manager", "ghidrah-hardcore"] {
        let profile = if directory.ends_with("release") { " --release" } else { "" };
        assert!(
            directory.join(name).exists(),
            "{name} is not in {}; `cargo build --workspace --bins{profile}` makes it",
            directory.display()
        );
    }
    directory.join("ghidrah")
}

/// Which MPI library a program is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mpi {
    /// MPICH 5, from PyPI, in target/mpi/venv.
    Mpich5,
    /// Debian's.
    Debian,
}

/// A file that `.ci/setup` installs under target/mpi.
///
/// # Panics
/// If it has not.
fn installed(path: &str) -> PathBuf {
    let path = repository().join("target/mpi").join(path);
    assert!(path.exists(), "{} is missing; `.ci/setup` installs it", path.display());
    path
}

/// Python with mpi4py.
///
/// # Panics
/// If it is not installed.
pub fn python() -> PathBuf {
    installed("venv/bin/python")
}

/// The directory of MPICH 5's libraries.
///
/// # Panics
/// If they are not installed.
pub fn mpich5_libraries() -> PathBuf {
    installed("venv/lib")
}

/// The benchmark IMB-MPI1 from PyPI, which nobody here has built. It takes its MPI library from
/// `LD_LIBRARY_PATH`.
///
/// # Panics
/// If it is not installed.
pub fn imb() -> PathBuf {
    installed("impi/bin/IMB-MPI1")
}

/// The program `name` of tests/programs, compiled for `mpi`.
///
/// # Panics
/// If it cannot be compiled.
pub fn mpi_program(name: &str, mpi: Mpi) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let source = repository().join("tests/programs").join(name).with_extension("c");
    let directory = build_directory().join(format!("mpi-programs-{mpi:?}").to_lowercase());
    let program = directory.join(name);
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if modified(&program).is_some_and(|built| modified(&source).is_some_and(|written| built > written)) {
        return program;
    }
    std::fs::create_dir_all(&directory).expect("the build directory can be written");
    // Another process may want it at the same time: it appears complete or not at all.
    let next = directory.join(format!("{name}.{}", std::process::id()));
    let mut compiler = match mpi {
        Mpi::Mpich5 => Command::new(installed("venv/bin/mpicc")),
        Mpi::Debian => Command::new("mpicc.mpich"),
    };
    compiler.args(["-O2", "-D_DEFAULT_SOURCE"]).arg(&source).arg("-o").arg(&next).arg("-lm");
    let output = compiler.output().unwrap_or_else(|e| panic!("{compiler:?}: {e}; `.ci/setup` installs it"));
    assert!(output.status.success(), "{compiler:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&next, &program).expect("both are in one directory");
    program
}
