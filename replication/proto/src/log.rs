//! The ordering log between the stable checkpoint and the end of the window.

use crate::certificate::Certificate;
use crate::config::{MemberId, Rsn, View};
use crate::keys::{Digest, Signature};
use crate::message::{Body, Vote};
use std::collections::BTreeMap;

/// A PRE-PREPARE accepted in the current view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) digest: Digest,
    /// The primary's signature; none in mode M.
    pub(crate) proposal: Option<Signature>,
}

/// A PRE-PREPARE that waits for the votes of others.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) vote: Vote,
    pub(crate) proposal: Option<Signature>,
    pub(crate) body: Body,
}

/// One position of the order.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The PRE-PREPARE accepted in the current view.
    pub(crate) accepted: Option<Accepted>,
    /// A PRE-PREPARE of the current view with a request whose MAC for this member is wrong. It is accepted when
    /// w members, the primary among them, voted for it.
    pub(crate) held: Option<Box<Held>>,
    /// PREPAREs of the current view and tag, the first of each member.
    pub(crate) prepares: BTreeMap<MemberId, (Digest, Option<Signature>)>,
    /// COMMITs of the current view and tag, the first of each member.
    pub(crate) commits: BTreeMap<MemberId, Digest>,
    /// The own vote (PRE-PREPARE or PREPARE) of the current view is out.
    pub(crate) voted: bool,
    /// Prepared in the current view, own COMMIT out.
    pub(crate) prepared: bool,
    /// Committed in the current view.
    pub(crate) committed: bool,
    /// P[s]: the certificate of the highest view in which the position was prepared.
    pub(crate) certificate: Option<Certificate>,
    /// Q[s]: the highest view in which each digest was accepted with its body, whether the vote was sent or
    /// not. A correct member accepts only what the view's VIEW-CHANGEs allow, which is all that the counting
    /// rule of mode M relies on.
    pub(crate) votable: BTreeMap<Digest, View>,
    /// Every body this member voted for, kept until the position is stable: if a certificate with its vote
    /// comes to light in a later view, somebody correct must be able to supply the body.
    pub(crate) bodies: BTreeMap<Digest, Body>,
    /// What was executed here.
    pub(crate) executed: Option<Digest>,
}

impl Slot {
    /// The body of what is accepted, if it is at hand.
    pub(crate) fn body(&self) -> Option<&Body> {
        self.bodies.get(&self.accepted?.digest)
    }

    /// Enters what is accepted into Q if its body is here. Of more than `max` digests the one whose view is the
    /// longest past is forgotten, but never what is prepared.
    pub(crate) fn note_votable(&mut self, view: View, max: usize) {
        if let Some(Accepted { digest, .. }) = self.accepted
            && self.bodies.contains_key(&digest)
        {
            self.enter_votable(digest, view, max);
        }
    }

    /// As [`Slot::note_votable`], for what is remembered of an earlier life.
    pub(crate) fn enter_votable(&mut self, digest: Digest, view: View, max: usize) {
        let known = self.votable.entry(digest).or_insert(view);
        *known = (*known).max(view);
        let prepared = self.certificate.as_ref().map(|c| c.vote.digest);
        if self.votable.len() > max
            && let Some((oldest, _)) = self
                .votable
                .iter()
                .filter(|(d, _)| Some(**d) != prepared)
                .min_by_key(|(_, view)| **view)
                .map(|(d, v)| (*d, *v))
        {
            self.votable.remove(&oldest);
        }
    }

    /// Forgets what belongs to the current view only. P, bodies and what was executed survive every view
    /// (PROTOCOL.md 2.3).
    fn leave_view(&mut self) {
        self.accepted = None;
        self.held = None;
        self.prepares.clear();
        self.commits.clear();
        (self.voted, self.prepared, self.committed) = (false, false, false);
    }
}

/// Positions h < s <= h+L.
#[derive(Debug)]
pub(crate) struct Log {
    stable: Rsn,
    /// Everything up to here is committed in the current view, or stable.
    committed: Rsn,
    window: u64,
    slots: BTreeMap<Rsn, Slot>,
}

impl Log {
    pub(crate) fn new(stable: Rsn, window: u64) -> Log {
        Log { stable, committed: stable, window, slots: BTreeMap::new() }
    }

    pub(crate) fn in_window(&self, rsn: Rsn) -> bool {
        rsn > self.stable && rsn <= self.stable + self.window
    }

    pub(crate) fn get(&self, rsn: Rsn) -> Option<&Slot> {
        self.slots.get(&rsn)
    }

    pub(crate) fn get_mut(&mut self, rsn: Rsn) -> Option<&mut Slot> {
        self.slots.get_mut(&rsn)
    }

    /// The slot of a position of the window, made if need be; `None` outside.
    pub(crate) fn slot(&mut self, rsn: Rsn) -> Option<&mut Slot> {
        self.in_window(rsn).then(|| self.slots.entry(rsn).or_default())
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Rsn, &Slot)> {
        self.slots.iter().map(|(rsn, slot)| (*rsn, slot))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Rsn, &mut Slot)> {
        self.slots.iter_mut().map(|(rsn, slot)| (*rsn, slot))
    }

    /// A position is committed in the current view.
    pub(crate) fn commit(&mut self, rsn: Rsn) {
        if let Some(slot) = self.slots.get_mut(&rsn) {
            slot.committed = true;
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.slots.get(&(self.committed + 1)).is_some_and(|slot| slot.committed) {
            self.committed += 1;
        }
    }

    /// The first position above h that is not committed in the current view.
    pub(crate) fn first_uncommitted(&self) -> Rsn {
        self.committed + 1
    }

    /// Positions from the first that is not committed in the current view.
    pub(crate) fn uncommitted(&self) -> impl Iterator<Item = &Slot> {
        self.slots.range(self.committed + 1..).map(|(_, slot)| slot).filter(|slot| !slot.committed)
    }

    /// What belongs to the current view only is forgotten.
    pub(crate) fn leave_view(&mut self) {
        self.committed = self.stable;
        self.slots.values_mut().for_each(Slot::leave_view);
    }

    /// The stable checkpoint has moved to `stable`: everything at or below is gone.
    pub(crate) fn truncate(&mut self, stable: Rsn) {
        assert!(stable >= self.stable, "the stable checkpoint never goes back");
        self.stable = stable;
        self.committed = self.committed.max(stable);
        self.slots = self.slots.split_off(&(stable + 1));
        self.advance();
    }
}
