//! Reliable FIFO messages for applications.
//!
//! An [`Endpoint`] drives the protocol of `rcl-proto` over an endpoint of `cl`, in poll mode: it has no
//! thread; whoever owns it calls [`Endpoint::poll`]. Messages are sent from where they lie, without copies
//! in between, and kept until they are acknowledged.
//!
//! ```
//! use cl_base::PeerId;
//! use rcl::{Endpoint, EndpointConfig, Event};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (alice, bob) = (PeerId::new(1, 0), PeerId::new(2, 0));
//!     let mut a = Endpoint::open(EndpointConfig::new(alice, "127.0.0.1:0".parse()?))?;
//!     let mut b = Endpoint::open(EndpointConfig::new(bob, "127.0.0.1:0".parse()?))?;
//!
//!     a.connect(bob, b.local_addr());
//!     a.send(bob, b"any size, in order, once".to_vec())?;
//!     a.close(bob);
//!     loop {
//!         a.poll();
//!         match b.poll() {
//!             Some(Event::Readable(peer)) => {
//!                 let message = b.receive(peer).expect("it is readable");
//!                 assert_eq!(message, b"any size, in order, once");
//!             }
//!             Some(Event::Closed(_, reason)) => break println!("{reason}"),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```

mod endpoint;

pub use endpoint::{Endpoint, EndpointConfig};
pub use rcl_proto::{CloseReason, Config, Counters, Event, SendError};
