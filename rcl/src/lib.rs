//! Reliable FIFO messages for applications.
//!
//! An [`Endpoint`] drives the protocol of `rcl-proto` over an endpoint of `cl`, in poll mode: it has no
//! thread; whoever owns it calls [`Endpoint::poll`], and sleeps in [`Endpoint::park`] if there is nothing. Services
//! of `cl`'s [runtime](cl::runtime) have [`Connections`].
//!
//! Two processes play ping-pong (`cargo run --release -p rcl --example rcl_ping_pong`, in two terminals):
//!
//! ```no_run
#![doc = include_str!("../examples/rcl_ping_pong.rs")]
//! ```
//!
//! # What is guaranteed
//!
//! - **Order and exactly once.** Messages of up to 16 MiB from one peer come out in the order in which they
//!   were accepted for sending, each once and whole, or the connection is reported closed with the reason
//!   ([`CloseReason`]). Those before the gap have come out by then; of those after it, none.
//! - **Lives are not mixed.** A peer that has restarted is a new connection; nothing of its former life comes
//!   out after [`Event::Closed`]. While a peer lives, nobody else can take its place by calling in its name; such a call ends
//!   with [`CloseReason::Refused`]. What strangers can do all the same is told in docs/SECURITY.md.
//! - **A slow reader loses nothing.** A message counts as read when [`Endpoint::poll`] has handed it out. What
//!   is not read keeps its buffers, for which the peer needs credit to send more; its sends are then refused
//!   with [`Refusal::Backpressure`].
//! - **A dead peer is noticed**, also while nothing is sent, unless [`Config::keep_alive`] is off: once
//!   [`Config::dead_after`] has passed since it was heard last, at the next call of this end. An end that calls later
//!   than an eighth of that after [`Endpoint::next_deadline`] cannot know whose silence it was, and asks a few times
//!   more. Over shared memory the kernel tells at once.
//! - **A living peer is not called dead** if it polls: every eighth of the time is often enough, and a reader that
//!   always has something to read may take a sixteenth for each message. Who does not want messages for a while calls
//!   [`Endpoint::progress`] in the meantime. Over shared memory there may be pauses of any length, except before
//!   a call is answered.
//! - **Whoever holds all buffers** still hears what its peers acknowledge and ask, for which a few are kept back. What they send
//!   is not kept until there are buffers again, and comes then.
//! - **An end is graceful** ([`CloseReason::Graceful`]) if all messages of both sides have been handed out or
//!   acknowledged. The last acknowledgement may be lost: who polls on answers a peer that asks again. An endpoint that
//!   is dropped at once leaves such a peer to find it dead, though nothing but that word is missing.
//! - **Flipped bits are found**, as far as [`Config::checksum`] covers them.
//! - **Copies.** A message alone in a datagram is sent from the buffer it is in and handed out in the buffer
//!   it was received in. Messages that share a datagram are copied into it and out of it; messages of several
//!   datagrams are put together in one buffer. [`Counters::copies`] counts. Over loopback the pieces of a message of 256 KiB or
//!   more are sent from where they lie if it does not travel alone ([`cl::Stats::datagrams_lent`]).
//! - **No thread, no allocation** once the queues have grown to the size in use.
//!
//! # Ways
//!
//! A peer that shares memory with us is called that way ([`cl::EndpointConfig::shared_memory`]), any other by
//! the network. Shared memory is reliable and ordered by itself, so there is one word in front of a message and
//! no acknowledgement, timer or checksum; a full ring refuses with back-pressure, and the death of the peer's
//! process is told by the kernel. A connection stays with the way it was made.
//!
//! # Large messages
//!
//! What does not fit a buffer, or shall land in a place of the receiver's choice, is announced:
//! [`Endpoint::send_large`] and [`Event::Announced`] at the other end, which answers with
//! [`Endpoint::accept`]. The announcement is in order with the messages; the contents flow between those that
//! follow, and [`Event::Received`] comes when all has arrived.
//!
//! # Tuning
//!
//! - **Latency.** Poll without a pause, on a processor of its own; [`Endpoint::park`] instead uses no processor time
//!   while nothing happens, and costs each message the time in which the system wakes a thread.
//! - **Small messages** are packed until the next [`Endpoint::poll`] or [`Endpoint::flush`], up to
//!   [`Config::pack_len`] bytes: send many, then poll.
//! - **Bandwidth.** The window is what the socket's receive buffer holds; a larger `net.core.rmem_max` and
//!   [`cl::EndpointConfig::socket_buffer`] let more be under way on a long path. [`Config::send_buffer`] is what may be
//!   accepted and not acknowledged.
//! - **Memory.** [`Config::window`] buffers may have to be kept for each peer that is not read from, and
//!   [`Config::window_of_all`] for all of them.
//! - **Many peers.** [`Config::connections_max`] places, of which those who call from one address get
//!   [`Config::connections_per_address`].
//! - **Deaths.** A short [`Config::dead_after`] finds them sooner and asks more often: four times in it, of every peer
//!   that is silent. On a machine where threads wait for their turn it should be ten times as long as that wait.
//! - **Checksums.** [`Config::checksum`] covers everything on a network; on a loopback address, where there is no wire,
//!   the headers only, because it would cost some of the bandwidth of large messages.
//!
//! `ghidrah stat --peers` shows what a running endpoint does: credit stalls tell of a slow reader, retransmissions
//! of losses, of which the spurious ones were only late, `waiting` of a sender that is faster than the network.
//! `ghidrah perf --layer rcl` measures.

mod connections;
mod counters;
mod endpoint;
mod memory;
mod reserve;
mod shared;

pub use cl::{Buf, Exhausted};
pub use connections::Connections;
pub use endpoint::{Endpoint, EndpointConfig, OpenError};
pub use rcl_proto::{
    CallRefusal, Checksum, CloseReason, Config, ConfigError, Counters, Refusal, Sink, Sizes, Source,
    TransferId,
};

/// What has happened, and what has arrived.
pub type Event = rcl_proto::Event<Buf>;
/// A message that was not accepted for sending, and why.
pub type SendError = rcl_proto::SendError<Buf>;
