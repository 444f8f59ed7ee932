//! Reliable messages over `cl`: the protocol, without I/O.
//!
//! A [`Node`] is one party's set of connections. Frames and the time go in ([`Node::on_frame`],
//! [`Node::on_deadline`]), frames and [`Event`]s come out ([`Node::poll_transmit`],
//! [`Node::poll_event`]); there is no clock, socket or thread here. After any call that may change
//! something, drain both queues and note [`Node::next_deadline`].
//!
//! Messages of any size (up to a configured limit) arrive in order, exactly once, or the connection is
//! reported closed with the reason. They are cut into segments, one to a datagram, numbered from 0.
//!
//! - **Incarnations.** Each end of a connection has a number larger than that of any earlier connection of
//!   the same party, so frames of a former life are told apart, and a restarted peer is noticed.
//! - **Loss.** Acknowledgements are cumulative with a bitmap of what came after a gap. A segment is sent
//!   again when three later ones have arrived, or when the retransmission time-out passes, which follows
//!   the measured round-trip time and doubles each time in vain.
//! - **Flow.** The receiver grants the sender segment numbers (credits); what its application has not read
//!   yet is counted against them, so a slow reader stops the sender and nothing is dropped. A congestion
//!   window does the same for the network.
//! - **Death.** A peer that is silent for [`Config::dead_after`] is reported dead.

mod config;
mod congestion;
mod connection;
mod node;
mod receiver;
mod sender;
mod wire;

pub use config::Config;
pub use connection::{CloseReason, Segment};
pub use node::{Counters, Event, Node, SendError, Transmit};
pub use wire::HEADER_LEN;
