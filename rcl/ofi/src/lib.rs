//! RCL as a libfabric provider: `librcl-fi.so`, which MPICH, Open MPI and Intel MPI load at run time, so that MPI programs
//! run over `rcl` without being changed or linked anew (dissertation 3.5, 7.1.7). docs/MPI.md says how it is switched on.
//!
//! - `abi`: libfabric's structures and tables, compared with its headers by a test.
//! - `entry`: the functions that C calls. They take apart what they are given, lock the domain, and call
//! - `engine`: an endpoint. `matching` says which message goes into which receive, `wire` what endpoints say to each
//!   other, `address` what they are called and who may call them.
//! - `queues`: completions and counters. `memory`: memory that is handed over by address.
//!
//! **Ways of a message.** A short one is copied into a buffer of the pool and sent; the receiver copies it out. A long one is
//! offered: between processes of one host that may read each other's memory the receiver copies it from there into its
//! place by one system call; otherwise it is announced and flows into its place when there is one.
//!
//! **Who may send.** An endpoint's address holds a secret and is known to those whom the launcher gives it. A party that
//! does not show that it knows it is shown out, and nothing that it says is looked at.

mod abi;
mod address;
mod domain;
mod engine;
mod entry;
mod matching;
mod memory;
mod offer;
mod queues;
mod settings;
mod wire;

#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing {
    //! What others say, arbitrary.
    pub use crate::engine::fuzzing::messages;
}
