//! Makes a deterministic service Byzantine fault-tolerant: `3f+1` members execute it together, and its clients see one
//! service that does what it should although up to f members do whatever they like.
//!
//! # From nothing to a replicated counter
//!
//! `cargo add replication`, and say what the service does. It has operations, which are bytes, and a state, which
//! has bytes too:
//!
//! ```
//! use replication::{Apply, Group, MemberId, RestoreError, StateMachine};
//!
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     fn apply(&mut self, _cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
//!         if op == b"increment" {
//!             self.0 += 1;
//!         }
//!         self.0.to_string().into_bytes()
//!     }
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!     fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
//!         let bytes = snapshot.try_into().map_err(|_| RestoreError("8 bytes expected".into()))?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Four members in this process, of which one may be faulty.
//! let mut group = Group::in_memory(1, Counter::default)?;
//! let counter = group.client();
//! assert_eq!(counter.submit("increment").wait()?, b"1");
//!
//! group.crash(MemberId(0)); // It led the others.
//! assert_eq!(counter.submit("increment").wait()?, b"2");
//! # Ok(())
//! # }
//! ```
//!
//! What `submit` gives is a future as well: `counter.submit("increment").await?` under any executor.
//!
//! # On machines
//!
//! [`Directory::generate`] makes keys for the members and the clients, and [`Directory::host`] runs a member:
//!
//! ```no_run
//! # use replication::{Apply, Directory, MemberId, RestoreError, StateMachine};
//! # #[derive(Default)]
//! # struct Counter(u64);
//! # impl StateMachine for Counter {
//! #     fn apply(&mut self, _: &mut Apply<'_>, _: &[u8]) -> Vec<u8> { Vec::new() }
//! #     fn snapshot(&self) -> Vec<u8> { Vec::new() }
//! #     fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> { Ok(()) }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Once, where the keys are made.
//! let addresses = ["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400", "10.0.0.4:7400"].map(|a| a.parse().unwrap());
//! Directory::generate("counter", &addresses, 1)?;
//!
//! // On the machine of each member, with a copy of the roster and its own key and journal.
//! Directory::open("counter")?.host(MemberId(0), Counter::default())?.wait()?;
//!
//! // Wherever a client is.
//! let counter = Directory::open("counter")?.client(0)?;
//! counter.submit("increment").wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! Three services to begin with are in `examples`: `counter`, `store` (keys and values) and `locks` (with leases by agreed
//! time, and notices to who waits); `processes` is a group of four processes, one of which is killed.
//!
//! # What is promised
//!
//! With `n = 3f+1` members of which at most f are faulty, in any way and together, and with any number of faulty clients:
//!
//! * All correct members execute the same operations in the same order, and what a client is told is what they say.
//! * An operation is executed once, however often the network or the client repeats it. An operation without a result in
//!   time may have been executed ([`Error`] says what is known), once.
//! * A read sees every operation that was completed before it began.
//! * What was completed stays, through the restart of all members, as long as their journals are there
//!   ([`Directory::sync`] says what else may be lost).
//! * While the network delivers within the time-outs, operations are completed; otherwise they may have to wait.
//!
//! All this is [`Guarantee::Byzantine`], which a group has unless its [`Config::guarantee`] names another one.
//! [`Guarantee::ByzantineTentative`] is as safe and answers earlier, while nobody is silent. [`Guarantee::CrashOnly`] is
//! *not* Byzantine fault-tolerant: members may crash, and one that lies can undo what clients were told.
//!
//! # What the service must do
//!
//! Equal operations must do equal things at every member: no clock but [`Apply::time`], no randomness, no thread, no
//! iteration over hash maps, no address of memory. Every operation comes from a client that may be faulty: it must be
//! checked, and everything that is kept needs a bound. All of [`StateMachine::snapshot`] is what a member that was away
//! starts from; members fetch from each other the pages of it that differ.
//!
//! # What is in here
//!
//! * [`StateMachine`]: the service; [`Local`] executes one alone.
//! * [`Group`] and [`Stepped`]: groups in memory, on threads and in virtual time, for tests.
//! * [`Directory`], [`Host`]: a member on its machine, over authenticated messages ([`mml`]).
//! * [`Handle`]: a client, for threads and for tasks.
//! * [`Config`]: the parameters, with usual values.
//! * [`durable`], [`journal`]: a replica with its memory, for programs with an event loop of their own.
//!
//! The protocol is in `replication-proto`, without I/O.

mod carrier;
mod client;
mod directory;
mod group;
mod host;
mod keys;
mod member;

pub mod durable;
pub mod journal;

pub use cl_base::{PeerId, Time};
pub use client::{DEADLINE, Error, Fate, Handle, Notice, Notices, Outcome, Pending, ShutOut};
pub use directory::{Directory, DirectoryError};
pub use group::{Group, Stepped};
pub use host::{Host, HostOptions, StartError};
pub use member::Stopped;
pub use replication_proto::{
    ActiveSet, Apply, ClientAuthentication, Config, ConfigError, Guarantee, Local, MemberId, NO_CLIENT,
    ReplicaStatus, RestoreError, Role, StateMachine, VoteAuthentication,
};
