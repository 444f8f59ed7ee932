//! The process management interface: what MPI ranks and their agents say to each other.
//!
//! An MPI library that was started by no launcher of its own asks the process behind the socket `PMI_FD`
//! who it is (rank, size, which ranks share a node) and exchanges addresses with the other ranks through a
//! key-value store with barriers. This is PMI-1, the wire protocol of MPICH and its descendants.
//!
//! * [`wire`]: requests and replies, one line each.
//! * [`mapping`]: which ranks share a node, in the form MPICH reads.
//! * [`exchange`]: the barrier among the nodes of a job, which carries the keys from each node to all.
//! * [`server`]: [`NodePmi`], the ranks of one attempt on one node.
//!
//! Every agent of a job keeps a [`NodePmi`]. It hands in what arrives from local ranks and from the other
//! agents of the job, and carries out the [`Action`]s that come out.

pub mod exchange;
pub mod mapping;
pub mod server;
pub mod wire;

#[cfg(test)]
mod tests;

pub use exchange::NodeMessage;
pub use server::{Action, NodePmi};
