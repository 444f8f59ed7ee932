//! Ghidrah's daemons and command line: everything that acts, around the deterministic core in `cmm-core`.

pub mod config;
pub mod journal;
pub mod launch;
pub mod layout;
