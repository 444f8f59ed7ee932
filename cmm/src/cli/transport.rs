//! What carries the messages of MPI jobs: variables that make MPI libraries load RCL's provider (docs/MPI.md).

use super::Failure;
use std::path::{Path, PathBuf};

/// What carries the messages of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Whatever the MPI library chooses.
    #[default]
    Stock,
    /// RCL, also between ranks of one node: MPICH with its netmod `ofi`.
    Rcl,
}

/// The provider's library under its own name, and as cargo builds it.
const LIBRARIES: [&str; 2] = ["librcl-fi.so", "librcl_fi.so"];
/// Where it may be, seen from the directory of this program.
const PLACES: [&str; 2] = [".", "../lib/ghidrah"];

impl Transport {
    /// The variables for the ranks.
    pub(super) fn variables(self) -> Result<Vec<(String, String)>, Failure> {
        if self == Transport::Stock {
            return Ok(Vec::new());
        }
        let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
        let here = program.parent().unwrap_or(Path::new("/"));
        let Some(dir) = provider(here) else {
            let expected = here.join(LIBRARIES[0]);
            let text = format!(
                "RCL's provider is not there ({}); build it with: cargo build --release -p rcl-ofi",
                expected.display()
            );
            return Err(text.into());
        };
        let dir = dir.to_str().ok_or_else(|| format!("{} is not UTF-8", dir.display()))?;
        let variables = [
            ("FI_PROVIDER", "rcl"),
            ("FI_PROVIDER_PATH", dir),
            ("MPIR_CVAR_CH4_NETMOD", "ofi"),
            ("MPIR_CVAR_NOLOCAL", "1"),
        ];
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// The directory of the provider's library, for a program in `here`.
fn provider(here: &Path) -> Option<PathBuf> {
    let places = PLACES.map(|place| here.join(place));
    let found = places.into_iter().find(|dir| LIBRARIES.iter().any(|library| dir.join(library).is_file()));
    found.map(|dir| dir.canonicalize().unwrap_or(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_library_is_found_beside_the_program_and_where_it_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let (bin, lib) = (root.path().join("bin"), root.path().join("lib/ghidrah"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lib).unwrap();
        assert_eq!(provider(&bin), None);
        fs::write(lib.join(LIBRARIES[0]), "").unwrap();
        assert_eq!(provider(&bin), Some(lib.canonicalize().unwrap()));
        fs::write(bin.join(LIBRARIES[1]), "").unwrap();
        assert_eq!(provider(&bin), Some(bin.canonicalize().unwrap()));
    }
}
