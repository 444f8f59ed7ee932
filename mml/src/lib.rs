//! Authenticated management messages over [`cl`] (dissertation 3.5 and 7.1.7).
//!
//! - [`keys`]: what a principal keeps secret and what it shows; signatures.
//! - [`roster`]: who the principals are, with their public keys and addresses.
//! - [`Endpoint`]: the protocol of [`mml_proto`] on a [`cl::Endpoint`]. It is driven by the caller, once for
//!   each message that arrives and for its timer, and has no thread of its own.
//! - [`blocking`]: an endpoint that waits, for simple tools.
//!
//! The kinds of messages, events and errors are those of `mml_proto` and are found here too.

pub mod blocking;
pub mod keys;
pub mod roster;

mod endpoint;
mod keyring;
mod outbox;
mod shown;

pub use endpoint::Endpoint;
pub use keyring::{Keyring, KeyringError};
pub use keys::{PublicKey, SecretKey};
pub use mml_proto::{
    Body, Config, Counters, Delivery, DownReason, Event, FailReason, Message, Outgoing, Pair, PairKeys,
    SendError, SendStatus, Sequence, SessionInfo, TagKey, Verdict, peek_class,
};
pub use roster::{Member, Roster};
