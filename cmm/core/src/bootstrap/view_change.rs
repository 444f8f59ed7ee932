//! Leaving a view for the next one (PROTOCOL.md 2.8, 2.9). There is no way back and no restart.

use super::Signature;
use super::machine::{Bootstrap, Event, Refusal, Settling};
use super::wire::{Message, Prepared, Statement, ViewChange};
use cl_base::Time;
use std::time::Duration;

impl Bootstrap {
    /// Kept if it is for a higher view than the last one and its certificate is what it says.
    pub(super) fn on_view_change(
        &mut self,
        now: Time,
        from: usize,
        change: ViewChange,
        signature: Signature,
        prepared: Option<Prepared>,
    ) -> Result<(), Refusal> {
        let claimed = prepared.as_ref().map(|p| (p.view, p.configuration.clone()));
        if claimed != change.prepared
            || claimed.is_some_and(|(view, c)| view >= change.view || c.instance != change.instance)
        {
            return Err(Refusal::Malformed);
        }
        let known = self.peers[from].view_change.as_ref();
        let known = known.is_some_and(|(known, s, _)| *known == change && *s == signature);
        if !known {
            self.check_signature(from, &Statement::ViewChange(change.clone()), &signature)?;
        }
        if !self.is_of_this_instance(now, from, change.instance) || known {
            return Ok(());
        }
        match &self.peers[from].view_change {
            Some((kept, ..)) if kept.view > change.view => return Err(Refusal::Stale),
            Some((kept, ..)) if kept.view == change.view => return Err(Refusal::Conflicting),
            _ => {}
        }
        let prepared = match prepared {
            Some(prepared) => Some(self.certified(prepared).ok_or(Refusal::Signature)?),
            None => None,
        };
        self.peers[from].view_change = Some((change, signature, prepared));
        Ok(())
    }

    /// The certificate if it is valid, or one already checked for the same.
    fn certified(&self, prepared: Prepared) -> Option<Prepared> {
        let known = self.peers.iter().filter_map(|p| p.view_change.as_ref().and_then(|(_, _, p)| p.as_ref()));
        let mut known = known.chain(&self.state.prepared);
        let same = |k: &&Prepared| k.view == prepared.view && k.configuration == prepared.configuration;
        match known.find(same) {
            Some(known) => Some(known.clone()),
            None => prepared.is_valid(&*self.keys, &self.config).then_some(prepared),
        }
    }

    /// The first Q VIEW-CHANGEs for this view: who sent them and which certificate they carry.
    pub(super) fn view_changes(&self) -> Vec<(usize, Option<Prepared>)> {
        let all = self.peers.iter().enumerate().filter_map(|(i, peer)| {
            let (change, _, prepared) = peer.view_change.as_ref()?;
            (change.view == self.state.view).then(|| (i, prepared.clone()))
        });
        all.take(self.config.quorum()).collect()
    }

    /// f+1 others are in higher views, so a correct one is: leave for the (f+1)-th highest of them.
    pub(super) fn join_view(&mut self, now: Time) -> bool {
        let mut views: Vec<u64> = self.others().map(|i| self.peers[i].view()).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        match views.get(self.config.f()) {
            Some(&view) if view > self.state.view => {
                self.leave_for(now, view, "f+1 others left");
                true
            }
            _ => false,
        }
    }

    /// Leaves the view if its time is over or, before anything was proposed, if its leader is not there.
    pub(super) fn leave_late_view(&mut self, now: Time) -> bool {
        let view = self.state.view;
        let waits = match self.state.changing {
            true => self.peers.iter().filter(|p| p.view() >= view).count() >= self.config.quorum(),
            false => self.has_begun() || self.settling != Settling::Gathering,
        };
        if !waits {
            self.deadline = None;
            return false;
        }
        if !self.state.changing
            && !self.has_begun()
            && self.settling == Settling::Done
            && !self.peers[self.config.leader(view)].leads()
        {
            self.leave_for(now, self.next_view(), "the leader was not heard");
            return true;
        }
        let from = match self.settling {
            Settling::Until(time) if !self.has_begun() => time,
            _ => now,
        };
        let patience = self.patience();
        if now < *self.deadline.get_or_insert(from + patience) {
            return false;
        }
        self.leave_for(now, self.next_view(), "the view is late");
        true
    }

    /// How long a view may take after so many were left.
    fn patience(&self) -> Duration {
        let doubled =
            self.config.view_timeout.saturating_mul(1u32.checked_shl(self.views_left).unwrap_or(u32::MAX));
        doubled.min(self.config.view_timeout_max)
    }

    /// The next view with a leader that was heard.
    fn next_view(&self) -> u64 {
        let next = self.state.view + 1;
        let heard = (next..).take(self.peers.len()).find(|&v| self.peers[self.config.leader(v)].leads());
        heard.expect("this agent hears itself")
    }

    fn leave_for(&mut self, now: Time, view: u64, reason: &'static str) {
        assert!(view > self.state.view && self.takes_part(), "views are left upwards");
        self.state.view = view;
        self.state.changing = true;
        self.state.supported = None;
        self.persist();
        self.proposal = None;
        self.deadline = None;
        self.views_left = self.views_left.saturating_add(1);
        let leader = self.config.agents()[self.config.leader(view)];
        self.event(Event::ViewChange { instance: self.state.instance, view, leader, reason });
        self.ask_for_view();
        let message = self.own_view_change().expect("the view was just left");
        self.broadcast(&message);
        self.resend_soon(now);
    }

    /// Signs the VIEW-CHANGE for the current view.
    pub(super) fn ask_for_view(&mut self) {
        let prepared = self.state.prepared.clone();
        let change = ViewChange {
            instance: self.state.instance,
            view: self.state.view,
            prepared: prepared.as_ref().map(|p| (p.view, p.configuration.clone())),
        };
        let signature = self.sign(&Statement::ViewChange(change.clone()));
        self.peers[self.me].view_change = Some((change, signature, prepared));
    }

    /// This agent's VIEW-CHANGE, while it waits for the view to begin.
    pub(super) fn own_view_change(&self) -> Option<Message> {
        let (change, signature, prepared) = self.peers[self.me].view_change.clone()?;
        self.state.changing.then_some(Message::ViewChange(change, signature, prepared))
    }
}
