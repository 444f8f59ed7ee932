//! Deterministic simulation of replica groups.
//!
//! One seed is one run: a group of four members (or seven) and a few clients over a network that loses, delays,
//! duplicates and reorders, with members that crash (tearing off what they had not yet done), restart, are
//! cut off or are Byzantine, never more than f at a time. Then the faults stop and everything outstanding must complete.
//! Judges outside compare what correct members execute and what clients are told; nothing inside the
//! protocol is trusted.

mod byzantine;
mod disk;
mod host;
mod judge;
mod keys;
mod ledger;
mod plan;
mod shrink;
mod world;

pub use judge::Report;
pub use keys::SimKeys;
pub use ledger::{Command, Ledger, Op};
pub use plan::{Fault, Sabotage, Span, Strategy, Trim, Trouble};
pub use shrink::{faults, kind, shrink};
pub use world::{Options, run};
