//! Measures the messaging layers of Ghidrah, and other systems beside them in the same run.
//!
//! A measurement ([`Case`]) has two ends, each a process of its own on a processor of its own: workers,
//! which the measuring program starts from itself (or reaches over TCP on another host) and talks to over a
//! [control channel](control). Each end is a [role](role), a state machine over the small trait [`Party`],
//! which the endpoints of the layers implement: what is measured is the interface that programs call.
//!
//! [`Plan`] says what is to be measured against which [peers](peers) how often; [`Plan::measure`] does it,
//! round by round, every variant once a round, so that whatever else the machine does hits all alike. The
//! [report] gives of each figure the median over the rounds, and of each ratio the median of the ratios of
//! the rounds.

pub mod case;
pub mod control;
pub mod drive;
pub mod faults;
pub mod machine;
pub mod party;
pub mod peers;
pub mod plan;
pub mod report;
pub mod role;
pub mod run;
pub mod sizes;
pub mod stats;
pub mod supported;
pub mod table;
pub mod veth;
pub mod worker;

pub use case::Case;
pub use party::Party;
pub use plan::Plan;
pub use stats::Figures;

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The longest message measured, in bytes: the longest that `cl` carries, less what a layer above it adds.
pub const SIZE_MAX: usize = 16 << 20;
