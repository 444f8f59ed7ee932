//! Connectionless, unreliable, zero-copy messages and the thread-per-core runtime.
//!
//! The lowest layer of Ghidrah (dissertation 3.5 and 7.1.7). An [`Endpoint`] sends messages of up to 16 MiB
//! to other parties and receives theirs; they may be lost, doubled or overtaken, and nothing about them is
//! authenticated. Reliability and authentication are the business of the layers above. What this layer
//! gives them is speed and bounds:
//!
//! - **Buffers are part of the interface.** A message is written once, into a [`Buf`] from the endpoint's
//!   [`Pool`], with room in front for every lower layer's header, and received into one. Sending passes it
//!   down, dropping it gives it back. A used-up pool is an error the caller sees.
//! - **No threads of its own.** [`Endpoint::poll`] is called by whoever owns the endpoint: a daemon's
//!   [`runtime`], one thread per core with timers, priorities and mailboxes; or an MPI library in its
//!   progress calls.
//! - **Transports are chosen**, by the endpoint at start and for each peer, and say why
//!   ([`Endpoint::transport_reason`], [`Endpoint::path`]).
//! - **Hostile bytes cost a counter** ([`Stats`]), never memory without bound, never a panic.
//! - **Counters can be read from outside** ([`counters`]), at no cost to the process.
//! - **Faults can be asked for**, on any transport and in shipped programs ([`Injection`]).
//!
//! Two processes play ping-pong (`cargo run --release -p cl --example cl_ping_pong`, in two terminals):
//!
//! ```no_run
#![doc = include_str!("../examples/cl_ping_pong.rs")]
//! ```
//!
//! # Which transport
//!
//! | where the peer is | what carries the messages | how to have it |
//! | --- | --- | --- |
//! | this host, same user | shared memory | by itself; [`SharedMemory::Never`] turns it off |
//! | a network | UDP: direct calls while the caller spins, io_uring when it sleeps | by itself |
//! | the same, where io_uring is forbidden | UDP with non-blocking calls and epoll | by itself, with one line in the log |
//! | an Ethernet, latency counts, root | AF_XDP | [`TransportChoice::Xdp`] |
//! | InfiniBand, EFA, Slingshot, Omni-Path | libfabric | [`TransportChoice::Ofi`], cargo feature `ofi` |
//!
//! `GHIDRAH_CL_TRANSPORT` overrides the choice of a program as it is shipped. A peer has one name on all of
//! them: its UDP address.
//!
//! # What is guaranteed
//!
//! - A message arrives whole or not at all. It may be lost, doubled or overtaken; over shared memory it is not
//!   while both processes live and share it.
//! - A message that is not accepted comes back with the reason ([`SendError`]). A full ring, socket or
//!   backlog is [`Refusal::Backpressure`], a used-up pool is [`Exhausted`].
//! - A message accepted by [`Endpoint::send`] is on its way; one accepted by [`Endpoint::queue`],
//!   [`Endpoint::queue_copy`] or [`Endpoint::queue_copies`] is so after the next [`Endpoint::flush`], [`Endpoint::poll`] or [`Endpoint::drain`].
//! - Who sent a message is its own word. A process of the same user shares our memory if it speaks the
//!   protocol; one of another user never does.
//! - What a process had of ours comes back when it ends, in whatever way; a peer that starts anew is another.
//!
//! # Tuning
//!
//! - Many small messages: [`Endpoint::queue_copies`] for those to one peer, [`Endpoint::queue_copy`], and
//!   [`Endpoint::drain`], which need no buffers.
//! - Long messages between processes of a host: write them in buffers from [`Endpoint::alloc`]; they are lent.
//! - Latency: poll without pause on a processor of one's own. Everything else: [`Endpoint::park`] or the
//!   [`runtime`].
//! - `net.core.rmem_max` bounds the bursts that a socket holds; [`EndpointConfig::socket_buffer`] asks for more.
//! - Bulk over Ethernet: [`EndpointConfig::join_datagrams`].

mod clock;
mod config;
mod endpoint;
mod inject;
mod message;
mod polled;
mod pool;
mod prefetch;
mod reassembly;
mod region;
mod shm;
mod stats;
mod streaming;
mod sync;
mod sys;
mod transport;

pub mod counters;
pub mod for_rcl;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod runtime;

pub use clock::Clock;
pub use config::{
    EndpointConfig, OpenError, SharedMemory, SharedMemoryConfig, TRANSPORT_VARIABLE, TransportChoice,
    XDP_MODE_VARIABLE, XdpMode,
};
pub use counters::Counters;
pub use endpoint::{Endpoint, Parcel, Path};
pub use header::{HEADER_LEN, MESSAGE_LEN_MAX};
pub use inject::{FAULTS_VARIABLE, Injection, InjectionError, Side};
pub use message::{Message, Received, Refusal, SendError};
pub use polled::PolledSocket;
pub use pool::{Buf, Exhausted, HEADROOM, Pages, Pool, PoolConfig, SizeClass};
pub use stats::{Drops, Stats};
pub use transport::TransportKind;
pub use transport::provider::{NotAProvider, OfiProvider};
