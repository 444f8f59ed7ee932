//! Counters that other processes can read while an endpoint works.
//!
//! An endpoint counts in plain fields of its own ([`Stats`](crate::Stats)), and now and then copies them to a
//! file that it has mapped: every 50 ms while it is polled, before it sleeps, and when it is closed. So
//! counting costs a message what it always did, and whoever looks (`ghidrah stat`, or [`list`]) reads a file
//! and asks nothing of the process. A process that stops polling leaves what it last told, at most 50 ms or
//! 64 looks at the network older than what it knows itself.
//!
//! - [`page`](Snapshot): what is in such a file. It names its counters itself, so that a reader understands
//!   those of another version.
//! - [`Live`]: the endpoint's side. Layers above add [groups](Live::group) of their own.
//! - [`list`]: the reader's side.
//!
//! The files lie in `$GHIDRAH_STAT_DIR` if that is set, else in the first of `$XDG_RUNTIME_DIR/ghidrah`,
//! `/dev/shm/ghidrah-UID` and `/tmp/ghidrah-UID` where one can be made. The directory must belong to the user
//! and be closed to all others. Where no file can be made (no room, read-only), the endpoint works without.
//! The kernel keeps a lock on the file while the process lives; a file without one is left over and is
//! removed by whoever comes across it.

pub(crate) mod label;
mod live;
mod page;
mod peers;
mod place;
mod reader;
mod tally;

pub use label::{Kind, Label};
pub use live::{Group, Live, PeerGroup};
pub use page::PEERS_MAX;
pub(crate) use peers::Traffic;
pub use place::DIRECTORY_VARIABLE;
pub use reader::{Counter, Listing, PeerCounters, Snapshot, list, list_in};
pub(crate) use tally::{Reason, Tally};

/// Whether to let other processes read an endpoint's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counters {
    /// Yes, where a file for it can be made ([`crate::counters`]).
    #[default]
    Auto,
    /// No: for an endpoint that lives for milliseconds.
    Never,
}
