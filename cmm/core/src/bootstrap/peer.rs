use super::wire::{Alive, Prepared, ViewChange};
use super::{Configuration, Signature};
use cl_base::Time;

/// A vote: the view, the configuration and the signature.
pub(super) type Vote = (u64, Configuration, Signature);

/// What is known of one agent: of each kind only the newest, so a talkative one costs no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// In the current instance: all below.
    pub(super) alive: Option<(Alive, Signature)>,
    /// Its VIEW-CHANGE for the highest view, with the certificate it speaks of.
    pub(super) view_change: Option<(ViewChange, Signature, Option<Prepared>)>,
    pub(super) prepare: Option<Vote>,
    pub(super) commit: Option<Vote>,

    /// In any instance: something properly signed or proven came from it.
    pub(super) heard: bool,
    /// The highest instance to which it said NO-SERVICE.
    pub(super) no_service: Option<(u64, Signature)>,
    /// The instance of its last VOUCH for this life.
    pub(super) vouch: Option<u64>,
    /// The highest instance of which it knows the decision.
    pub(super) decided: u64,
    /// When it was last answered, and vouched for.
    pub(super) answered: Option<Time>,
    pub(super) vouched: Option<Time>,
}

impl Peer {
    /// The highest view in which it is known to be.
    pub(super) fn view(&self) -> u64 {
        let asked = self.view_change.as_ref().map_or(0, |(change, ..)| change.view);
        let voted = self.prepare.as_ref().map_or(0, |(view, ..)| *view);
        asked.max(voted)
    }

    /// Whether it can lead a view.
    pub(super) fn leads(&self) -> bool {
        self.alive.is_some_and(|(alive, _)| alive.votes)
    }

    /// Forgets what belongs to the instance that ends.
    pub(super) fn next_instance(&mut self) {
        self.alive = None;
        self.view_change = None;
        self.prepare = None;
        self.commit = None;
    }
}
