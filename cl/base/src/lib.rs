//! What every layer of Ghidrah shares: [`Time`], identities ([`PeerId`], [`Incarnation`]), a seeded
//! generator ([`Rng`]), the checked [`codec`], and the decisions of a bad network ([`faults`]).
//!
//! Nothing here reads a clock, a file or a source of entropy. Protocol crates depend on this crate and on
//! nothing that does, so that the same protocol code runs under the real runtime and in a simulator.

mod id;
mod rng;
mod time;

pub mod codec;
pub mod faults;

pub use id::{Incarnation, PeerId, Principal};
pub use rng::Rng;
pub use time::Time;
