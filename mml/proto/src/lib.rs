//! Authenticated management messages (dissertation 3.5 and 7.1.7): the protocol, without I/O.
//!
//! [`Mml`] is one party. It is handed frames, messages to send and the time, and hands back frames to send,
//! events, and the time at which it wants to be called. It has no socket, clock, thread or entropy.
//!
//! A message is sent as one of three kinds ([`Delivery`]): UNR, ACK, NACK. Messages travel in sessions. A
//! session is established by a handshake under the static keys of the pair ([`PairKeys`]), has a key for each
//! direction, renewed from time to time, and belongs to one incarnation of each side: see `handshake.rs`. `wire.rs` shows the bytes.
//!
//! What is promised to the application:
//! - nothing is handed up that the peer has not sent to this party, and nothing twice, whatever is lost,
//!   delayed, repeated, recorded, altered or invented on the way;
//! - ACK messages arrive in order, or are reported as failed;
//! - a restarted peer is noticed ([`Event::Restarted`]); what was sent to its former life is reported;
//! - every queue is bounded ([`Config`]); idle sessions send nothing;
//! - whoever holds a valid key and misuses it harms its own sessions only.
//!
//! Not promised: secrecy. What is sealed for one receiver happens to be encrypted, a long body to many is not.

mod ack;
mod api;
mod body;
mod company;
mod config;
mod counters;
mod direct;
mod entropy;
mod entry;
mod frame;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handshake;
mod mac;
mod mml;
mod nack;
mod noise;
mod outcome;
mod pair;
mod peer;
mod peers;
mod queue;
mod rtt;
mod seal;
mod session;
mod tag;
mod unr;
mod window;
mod wire;

pub use api::{
    Delivery, DownReason, Event, FailReason, Message, SendError, SendStatus, Sequence, Transmit, Verdict,
};
pub use body::{Body, Outgoing};
pub use config::Config;
pub use counters::Counters;
pub use direct::Leaving;
pub use mml::Mml;
pub use pair::{Pair, PairKeys};
pub use session::SessionInfo;
pub use tag::TagKey;
pub use wire::{peek_class, peek_number};
