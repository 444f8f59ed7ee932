//! Processes of jobs: starting a rank, and making sure that nothing of a job is left behind.
//!
//! * [`program`]: finding the program that a rank runs, and saying what is wrong with it.
//! * [`rank`]: one rank's process and the descriptors its agent holds.
//! * [`group`]: all processes of a job or a node, those included that left their process group.

mod cgroup;
pub mod group;
mod procfs;
pub mod program;
pub mod rank;

#[cfg(test)]
mod tests;

pub use group::Group;
pub use program::LaunchError;
pub use rank::{RankCommand, RankProcess};
