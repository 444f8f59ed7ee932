//! Model checking of the replication protocol for f = 1, by exhaustive search with `stateright`.
//!
//! * [`real`]: the code of `replication` itself. Three correct members are real replicas; the fourth is Byzantine
//!   and not a process: whatever it can sign is at hand always, different for each receiver.
//! * [`printed`]: the protocol as the dissertation prints it, which is not safe. A checker that does not find that
//!   flaw would prove nothing.
//!
//! In both the network is the set of all that correct members ever said. Anybody may see any of it at any time or
//! never, so loss, delay, reordering and duplication need no steps of their own, and timers fire at will.

pub mod printed;
pub mod real;

/// Steps of a shortest run, printed one in a line.
pub fn numbered<A: std::fmt::Debug>(steps: &[A]) -> String {
    let line = |(i, step): (usize, &A)| format!("{:4}. {step:?}\n", i + 1);
    steps.iter().enumerate().map(line).collect()
}
