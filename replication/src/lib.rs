//! Replicas with their stable storage, around the protocol without I/O in [`replication_proto`].

pub mod durable;
pub mod journal;

pub use replication_proto::*;
