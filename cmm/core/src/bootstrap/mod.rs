//! Bootstrapping: the agents of a starting cluster elect the nodes that run the manager group
//! (dissertation 6.2 with the repaired rules of PROTOCOL.md 5).
//!
//! [`Bootstrap`] is one agent's part in the election, a state machine without I/O. Bytes from other
//! agents go in by [`Bootstrap::on_message`], the clock by [`Bootstrap::on_timeout`]; what to write, send
//! and do comes out of [`Bootstrap::poll_effect`], in the order in which it must be done.
//!
//! The election is one slot of PBFT (PROTOCOL.md 2.8, mode S) over all N agents. The four phases of the
//! dissertation are its steps:
//!
//! 1. *ALIVE*: everybody says that it is there and whether it can run a manager.
//! 2. *Proposal supported*: the leader of the view names the lowest 3f+1 capable agents and shows the
//!    Q = ⌈(N+f+1)/2⌉ signed ALIVEs this follows from. Who finds that it follows signs a PREPARE.
//! 3. *Accepted*: Q PREPAREs are a certificate; who holds one signs a COMMIT.
//! 4. *Committed*: Q COMMITs are a [`Decision`]. It convinces whoever holds the agents' keys, so it is
//!    also the answer to everything a latecomer says.
//!
//! A timeout never restarts anything: it leaves the view for the next one with a leader that was heard.
//! An agent without its memory does not vote ([`Bootstrap::recover`]). If the decided group gives no
//! service, Q signed NO-SERVICE open the next *instance*; the highest decided instance counts.
//!
//! Where things are: `config` has the sizes and times and derives members from ALIVEs; [`wire`] what
//! agents sign and send; `record` what an agent must remember; `machine` the state machine, its rules in
//! `ordering`, `view_change`, `instance` and `resend`.

mod config;
mod decision;
mod instance;
mod machine;
mod ordering;
mod peer;
mod record;
mod resend;
mod view_change;
pub mod wire;

pub use config::{Config, ConfigError, Configuration};
pub use decision::{Decision, InvalidDecision};
pub use machine::{Bootstrap, Effect, Event, Refusal};
pub use record::Record;

use cl_base::PeerId;

/// Bytes of a signature.
pub type Signature = [u8; 64];

/// The key of this agent and the public keys of all.
///
/// Every implementation in a cluster must use the same verification equation (PROTOCOL.md 2.2).
pub trait Keys: Send {
    /// Signs `bytes` with the key of this agent.
    fn sign(&self, bytes: &[u8]) -> Signature;
    /// Whether `signature` is `who`'s signature of `bytes`. False if `who` is not known.
    fn verify(&self, who: PeerId, bytes: &[u8], signature: &Signature) -> bool;
    /// As [`Keys::verify`], for what is on record: whether it is a signature under a key that `who` has or had, and what
    /// has become of that key. So a new key ends no manager group.
    fn verify_recorded(&self, who: PeerId, bytes: &[u8], signature: &Signature) -> Option<Standing> {
        self.verify(who, bytes, signature).then_some(Standing::Believed)
    }
}

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in use, or was replaced.
    Believed,
    /// It may be in other hands: its owner is as good as faulty.
    Revoked,
}
