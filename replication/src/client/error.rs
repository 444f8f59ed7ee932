//! Why an operation has no result.

use replication_proto::MemberId;
use std::fmt;
use std::time::Duration;

/// What is known of an operation that has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never left this client: it was not executed, and will not be.
    NotExecuted,
    /// It was sent: it may have been executed, or be executed yet, but once at most. Ask the service what became of
    /// it before it is submitted again, unless doing it twice does no harm.
    Unknown,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::NotExecuted => "it was not executed",
            Fate::Unknown => "it may have been executed, or be executed yet, once",
        })
    }
}

/// Why a client may not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutOut {
    /// The members know a later life of this client: its clock was set back, or another process has its identity.
    Superseded,
    /// The members speak no version of the message protocol that this client does.
    Incompatible,
}

impl fmt::Display for ShutOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ShutOut::Superseded => {
                "they know a later life of it: its clock was set back, or another process has its key"
            }
            ShutOut::Incompatible => {
                "they speak no version of the protocol that it does; upgrade whichever is older"
            }
        })
    }
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not fit into a batch ([`Config::batch_bytes_max`](crate::Config::batch_bytes_max)); nothing was sent.
    #[error("an operation of {len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes of the operation.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Too many operations wait in this client already; nothing was sent.
    #[error("too many operations wait for the group already")]
    Busy,
    /// Enough members to order operations are there, but there was no result in time.
    #[error("no result within {within:?}; {fate}; members that do not answer: {}", list(silent))]
    Deadline {
        /// The time it was given.
        within: Duration,
        /// What became of the operation.
        fate: Fate,
        /// Members that did not answer this client lately, be it with a result or a sign of life.
        silent: Vec<MemberId>,
    },
    /// Fewer members answer than are needed to order operations. Either they are down or cut off, or they do not know
    /// this client's key.
    #[error(
        "no result within {within:?}: members {} do not answer, and {needed} are needed; {fate}",
        list(silent)
    )]
    NoQuorum {
        /// The time it was given.
        within: Duration,
        /// What became of the operation.
        fate: Fate,
        /// Members needed to order operations.
        needed: usize,
        /// Members that did not answer this client lately.
        silent: Vec<MemberId>,
    },
    /// The group no longer knows whether the operation was executed: this client was idle for so long that others took
    /// its place in the table of sessions.
    /// What is submitted from here on is executed again.
    #[error("the group has forgotten this session; {}", Fate::Unknown)]
    Stale,
    /// More members than can be faulty refuse this client.
    #[error("the members refuse this client: {0}")]
    ShutOut(ShutOut),
    /// The client was closed before there was a result.
    #[error("the client was closed; {}", Fate::Unknown)]
    Closed,
}

fn list(members: &[MemberId]) -> String {
    if members.is_empty() {
        return "none".to_owned();
    }
    members.iter().map(MemberId::to_string).collect::<Vec<_>>().join(", ")
}
