//! The deterministic core of the cluster management middleware: everything that decides, nothing that acts.
//!
//! * [`identity`]: who is who in a cluster's roster.
//! * [`api`]: what users, agents and the hardcore say to the manager group, and what it commands.
//! * [`manager`]: NodeDB, TaskDB, resource allocator and queue as one replicated state machine
//!   (dissertation 7.1.2.1).
//! * [`heartbeat`]: agents' heartbeats and the managers' record of them (7.1.5).
//! * [`part`]: what an agent reports of a job's ranks on its node.
//! * [`bootstrap`]: the election of the first manager group (dissertation 6.2, repaired).
//! * [`pmi`]: the process management interface that MPI ranks speak.
//!
//! No sockets, clocks, threads or files: time and messages come in, effects go out.

pub mod api;
pub mod bootstrap;
pub mod heartbeat;
pub mod identity;
pub mod manager;
pub mod part;
pub mod pmi;
pub mod replicated;
