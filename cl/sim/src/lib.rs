//! A simulation kernel for protocols without I/O: virtual time, and a network as bad as one likes.
//!
//! It knows no protocol. A [`Party`] is what sends and receives datagrams; a [`World`] holds the parties, the
//! clock and the network between them, and lets one thing happen after another. Nothing here reads a clock,
//! takes a number from anywhere but the seed, or depends on the order of a hash map, so one seed is one run:
//! two runs of it have equal [digests](World::digest).
//!
//! A datagram crosses up to three [`Link`]s: the sender's uplink, the path between the two, and the
//! receiver's downlink. Each has a propagation delay, jitter, a bandwidth with a finite queue in front of
//! it (what does not fit is lost), and the faults of [`cl_base::faults`]. What many send to one meets at its
//! downlink, so incast is what it is on a real switch. By default links are perfect and take no time.
//!
//! A party that repeats what it has to say until it is answered, over a network that loses half of it:
//!
//! ```
//! use cl_base::{PeerId, Time};
//! use cl_sim::{Link, Outbox, Party, World};
//! use std::time::Duration;
//!
//! struct Talker { peer: PeerId, say: u8, heard: Option<u8>, again: Time }
//!
//! impl Party for Talker {
//!     fn on_datagram(&mut self, _: Time, _: PeerId, bytes: Vec<u8>) {
//!         self.heard = Some(bytes[0]);
//!     }
//!     fn on_deadline(&mut self, _: Time) {}
//!     fn next_deadline(&self) -> Time {
//!         self.again
//!     }
//!     fn drain(&mut self, now: Time, out: &mut Outbox) {
//!         if now >= self.again {
//!             out.send(self.peer, [self.say]);
//!             self.again = now + Duration::from_millis(10);
//!         }
//!     }
//! }
//!
//! let (alice, bob) = (PeerId::new(1, 0), PeerId::new(2, 0));
//! let mut world = World::new(7);
//! world.set_paths(Link { delay: Duration::from_micros(50), ..Link::PERFECT }.with_faults("drop=50%"));
//! let start = world.now();
//! world.insert(alice, Talker { peer: bob, say: 1, heard: None, again: start });
//! world.insert(bob, Talker { peer: alice, say: 2, heard: None, again: start });
//! let both = |w: &mut World<Talker>| w.parties().all(|(_, talker)| talker.heard.is_some());
//! assert!(world.run_until(Duration::from_secs(1), both));
//! assert_eq!(world.party(bob).heard, Some(1));
//! ```

mod link;
mod network;
mod party;
mod trace;
mod world;

pub use link::{Link, LinkCounts};
pub use network::{Losses, NetworkCounts};
pub use party::{Outbox, Party};
pub use trace::{Happening, TRACE_LEN, TraceEntry};
pub use world::{STANDSTILL_MAX, World};
