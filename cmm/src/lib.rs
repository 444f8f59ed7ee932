//! Ghidrah's daemons and command line: everything that acts, around the deterministic core in `cmm-core`.
//!
//! * [`agent`], [`manager`]: the daemons. (The hardcore is a crate of its own.)
//! * [`user`], [`cli`]: the user's side. [`local`]: making, starting and stopping a local cluster.
//! * [`link`]: what they all stand on: authenticated messages ([`class`]) and ordered requests to the group.
//! * [`launch`]: processes of jobs. [`output`]: where what they write goes.
//! * [`config`], [`keys`], [`layout`], [`daemon`], [`cores`]: files, and how a daemon starts.

pub mod agent;
pub mod class;
pub mod cli;
pub mod config;
pub mod cores;
pub mod daemon;
mod heartbeats;
pub mod keys;
pub mod launch;
pub mod layout;
pub mod link;
pub mod local;
pub mod manager;
pub mod output;
mod tags;
pub mod user;
