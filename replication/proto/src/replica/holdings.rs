//! How much a replica holds, table by table, beside the bound of each.

use super::Replica;
use super::checkpoint::CLAIMS_MAX;
use super::epoch::CERTIFICATES_MAX;
use super::ordering::EARLY_VOTES_MAX;
use super::pending::{PENDING_MAX, SIGNATURE_ONLY_MAX};
use super::unheard::QUESTIONS_MAX;
use crate::keys::VERIFIED_MAX;
use crate::machine::StateMachine;

/// Entries of one table of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which table.
    pub name: &'static str,
    /// Entries in it.
    pub held: usize,
    /// It never has more, whatever peers and clients send.
    pub bound: usize,
}

impl<S: StateMachine> Replica<S> {
    /// What this replica holds, for judges of its memory.
    #[doc(hidden)]
    pub fn holdings(&self) -> Vec<Holding> {
        let n = self.config.n();
        let window = self.config.log_window as usize;
        let slots = || self.log.iter().map(|(_, slot)| slot);
        let checkpoints = (self.config.log_window / self.config.checkpoint_interval) as usize;
        let table = |name, held, bound| Holding { name, held, bound };
        vec![
            table("positions", slots().count(), window),
            table("prepares", slots().map(|s| s.prepares.len()).sum(), window * n),
            table("commits", slots().map(|s| s.commits.len()).sum(), window * n),
            table(
                "digests voted for",
                slots().map(|s| s.votable.len()).sum(),
                window * self.config.votes_claimed_max(),
            ),
            table("early votes", self.early.len(), EARLY_VOTES_MAX * n),
            table("view changes", self.view_changes.len(), n),
            table("claims", self.claims.values().map(|c| c.len()).sum(), CLAIMS_MAX * n),
            // The stable one and the one before it, those above it, one of them at the end of the epoch.
            table("snapshots", self.snapshots.len(), checkpoints + 3),
            table("tentative executions", self.tentative.len(), window),
            table("pending requests", self.pending.len(), PENDING_MAX),
            table("queued requests", self.pending.queued(), 2 * PENDING_MAX + 64),
            table("clients that must sign", self.signature_only.len(), SIGNATURE_ONLY_MAX),
            table("epoch certificates", self.certificates.len(), CERTIFICATES_MAX),
            table("questions", self.unheard.len(), QUESTIONS_MAX),
            table("verified signatures", self.authority.remembered(), VERIFIED_MAX),
        ]
    }
}
