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
//! - **Transports are chosen at start**, io_uring where there is one, and say why ([`Endpoint::transport_reason`]).
//! - **Hostile bytes cost a counter** ([`Stats`]), never memory without bound, never a panic.
//! - **Counters can be read from outside** ([`counters`]), at no cost to the process.
//! - **Faults can be asked for**, on any transport and in shipped programs ([`Injection`]).
//!
//! Two parties play ping-pong:
//!
//! ```
//! use cl::{Endpoint, EndpointConfig};
//! use cl_base::PeerId;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (alice, bob) = (PeerId::new(1, 0), PeerId::new(2, 0));
//!     let mut a = Endpoint::open(EndpointConfig::new(alice, "127.0.0.1:0".parse()?))?;
//!     let mut b = Endpoint::open(EndpointConfig::new(bob, "127.0.0.1:0".parse()?))?;
//!     a.resolve(bob, b.local_addr());
//!
//!     let ping = a.alloc_copy(b"ping")?;
//!     a.send(bob, ping)?;
//!     for _ in 0..3 {
//!         let mut ball = loop {
//!             if let Some(received) = b.poll() {
//!                 break received;
//!             }
//!         };
//!         assert_eq!((ball.from, &ball.buf[..]), (alice, &b"ping"[..]));
//!         ball.buf[1] = b'o';
//!         b.send_to(ball.from, ball.addr, ball.buf)?;
//!         let mut ball = loop {
//!             if let Some(received) = a.poll() {
//!                 break received;
//!             }
//!         };
//!         assert_eq!((ball.from, &ball.buf[..]), (bob, &b"pong"[..]));
//!         ball.buf[1] = b'i';
//!         a.send(bob, ball.buf)?;
//!     }
//!     Ok(())
//! }
//! ```

mod clock;
mod endpoint;
mod inject;
mod pool;
mod reassembly;
mod region;
mod shm;
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
pub use counters::Counters;
pub use endpoint::{
    Drops, Endpoint, EndpointConfig, Message, OpenError, Path, Received, Refusal, SendError, SharedMemory,
    SharedMemoryConfig, Stats, TRANSPORT_VARIABLE, TransportChoice, XDP_MODE_VARIABLE, XdpMode,
};
pub use header::{HEADER_LEN, MESSAGE_LEN_MAX};
pub use inject::{FAULTS_VARIABLE, Injection, InjectionError, Side};
pub use pool::{Buf, Exhausted, HEADROOM, Pages, Pool, PoolConfig, SizeClass};
pub use transport::{NotAProvider, OfiProvider, TransportKind};
