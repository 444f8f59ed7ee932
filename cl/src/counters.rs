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

mod live;
mod page;
mod peers;
mod place;
mod reader;

pub use live::{Group, Live, PeerGroup};
pub use page::PEERS_MAX;
pub(crate) use peers::Traffic;
pub use place::DIRECTORY_VARIABLE;
pub use reader::{Counter, Listing, PeerCounters, Snapshot, list, list_in};

/// Whether to let other processes read an endpoint's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counters {
    /// Yes, where a file for it can be made ([`crate::counters`]).
    #[default]
    Auto,
    /// No: for an endpoint that lives for milliseconds.
    Never,
}

/// What a counter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A number of things that happened. It only grows, until the endpoint is closed or, of a peer, the connection
    /// ends.
    Count,
    /// How much of something there is at present.
    Level,
}

/// A counter's name and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// A word in snake case.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// A sentence for people.
    pub meaning: &'static str,
}

impl Label {
    /// The label of a count.
    pub const fn count(name: &'static str, meaning: &'static str) -> Label {
        Label { name, kind: Kind::Count, meaning }
    }

    /// The label of a level.
    pub const fn level(name: &'static str, meaning: &'static str) -> Label {
        Label { name, kind: Kind::Level, meaning }
    }
}

/// Declares a structure of counts once: the public fields, their labels, and their values in the same order.
/// A field's documentation is its meaning for those who read the counters from outside.
macro_rules! counts {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[doc = $meaning:literal])+ $field:ident,)+
            $(; $(#[$part_about:meta])* $part:ident: $Part:ty)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $field: u64,)+
            $($(#[$part_about])* pub $part: $Part,)?
        }

        impl $name {
            /// Names and meanings of these counters, in the order of their declaration.
            pub const LABELS: &'static [$crate::counters::Label] = &[
                $($crate::counters::Label::count(stringify!($field), concat!($($meaning),+)),)+
            ];

            /// Their values, in the same order.
            pub fn values(&self) -> [u64; Self::LABELS.len()] {
                [$(self.$field),+]
            }
        }
    };
}
pub(crate) use counts;
