//! Reliable messages over `cl`: the protocol, without I/O.
//!
//! A [`Node`] is one party's set of connections. Frames and the time go in ([`Node::on_frame`],
//! [`Node::on_deadline`]), frames and [`Event`]s come out ([`Node::poll_transmit`],
//! [`Node::poll_event`]); there is no clock, socket or thread here. After any call that may change
//! something, drain both queues and note [`Node::next_deadline`].
//!
//! Messages arrive in order, exactly once, or the connection is reported closed with the reason. They
//! travel in segments, one to a frame, numbered from 0: several small messages in one, or a large one in
//! several.
//!
//! - **Calls.** A call is answered without a memory of it; it is believed when the caller has confirmed it with what the
//!   answer said. So a stranger who does not receive what is sent to a peer's address cannot end its connection, take
//!   a place or a share of the window, or make us send more than he does; see the module `gate`. Each end of a connection
//!   has a number of 64 bits that nobody can guess: to end it, or to have anything else done to it, takes a frame
//!   with both. Who can read the frames can do all that: nothing is authenticated here, which is the business of `mml`.
//! - **Lives.** The numbers are other ones in each life of a party, so nothing of a former one is taken for its own. If somebody
//!   calls in the name of a peer with which there is a connection, the peer is asked where it was heard last: if it lives the call is
//!   refused, if it has started anew the connection is [`CloseReason::Restarted`]; see the module `connection::doubt`.
//! - **Acknowledgements** ride on the segments of the other direction; alone they are sent after every few
//!   segments, when the sender asks as it can send no more, or after 100 microseconds. They are cumulative,
//!   with a bitmap of what came after a gap.
//! - **Loss.** A segment is sent again when one sent later has arrived and the round-trip time and a bit have
//!   passed (RACK, RFC 8985); the bit grows when segments turn out to have been late only. If no
//!   acknowledgement comes in time, the oldest segment asks for one.
//! - **Flow.** The receiver grants the sender segments (credits), each a buffer. Segments are kept as they came
//!   until they are [read](Node::poll_event), so a reader that does not read stops the sender, and nothing
//!   is dropped.
//! - **Shares.** Of the places for connections and of the window peers at one address have a part only; see the module `shares`.
//! - **Congestion.** By delay, with tolerance for loss; see the module `congestion`.
//! - **Large messages** are announced ([`Node::send_large`]) and travel once the receiver has said where to.
//! - **Death.** A peer that is silent for [`Config::dead_after`] is reported dead.
//! - **Corruption.** Every frame carries a checksum ([`Checksum`]).

mod config;
mod congestion;
mod connection;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod memory;
mod node;
mod past;
mod receiver;
mod round_trip;
mod sender;
mod shares;
mod wire;

pub use config::{Config, ConfigError};
pub use connection::CloseReason;
pub use memory::{Heap, Memory, Sink, Source};
pub use node::{Counters, Event, Node, Refusal, SendError, Sizes, TransferId, Transmit};
pub use wire::{CallRefusal, Checksum, HEADER_LEN};
