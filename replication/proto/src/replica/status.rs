//! Retransmission: STATUS and its answers (PROTOCOL.md 2.4). Everyone resends only its own messages.

use super::{Refusal, Replica, Role};
use crate::config::{MemberId, Rsn};
use crate::machine::StateMachine;
use crate::message::{Message, SlotStatus, Status, Vote};

/// Positions in one STATUS: more than a pipeline, few enough for a small message.
const STATUS_SLOTS_MAX: usize = 32;

/// Batches resent for one STATUS; the next one asks for more.
const RESEND_BATCHES_MAX: usize = 4;

pub(super) fn bit(member: MemberId) -> u64 {
    1 << member.0
}

impl<S: StateMachine> Replica<S> {
    pub(super) fn send_status(&mut self) {
        let base = self.log.first_uncommitted();
        let known = self.log.iter().next_back().map_or(0, |(rsn, _)| rsn);
        let slots = (base..=known).take(STATUS_SLOTS_MAX).map(|rsn| self.slot_status(rsn)).collect();
        let status = Status {
            view: self.view,
            tag: self.tag,
            changing: !self.normal(),
            wide: self.wide.is_some(),
            stable: self.stable.rsn,
            executed: self.executed,
            view_changes: self
                .view_changes
                .values()
                .filter(|vc| vc.body.view == self.view)
                .fold(0, |bits, vc| bits | bit(vc.sender)),
            base,
            slots,
        };
        self.broadcast(&Message::Status(status));
    }

    fn slot_status(&self, rsn: Rsn) -> SlotStatus {
        let Some(slot) = self.log.get(rsn) else { return SlotStatus::default() };
        SlotStatus {
            proposed: slot.body().is_some(),
            prepares: slot.prepares.keys().fold(0, |bits, m| bits | bit(*m)),
            commits: slot.commits.keys().fold(0, |bits, m| bits | bit(*m)),
        }
    }

    pub(super) fn on_status(&mut self, from: MemberId, status: &Status) {
        if status.slots.len() > STATUS_SLOTS_MAX {
            return self.refuse(Refusal::Invalid);
        }
        if !self.timers.may_answer(from, self.now, self.config.status_active / 4) {
            return;
        }
        if status.stable < self.stable.rsn {
            self.send_member(from, &Message::Stable(self.stable.clone()));
        }
        let own: Vec<_> = self
            .claims
            .get(&self.me)
            .into_iter()
            .flat_map(|claims| claims.range(status.stable.saturating_add(1)..).map(|(_, c)| c.clone()))
            .filter(|claim| claim.body.rsn > self.stable.rsn)
            .collect();
        for claim in own {
            self.send_member(from, &Message::Checkpoint(claim));
        }
        self.help_into_view(from, status);
        if self.is_behind(status) {
            self.hasten_status();
        }
        let asked = self.active.contains(&from) || self.wide.is_some();
        if self.normal() && !status.changing && status.view == self.view && status.tag == self.tag && asked {
            self.resend(from, status.base, &status.slots);
        }
    }

    /// Whether the sender has something that this member should ask for.
    fn is_behind(&self, status: &Status) -> bool {
        if status.view > self.view || status.stable > self.stable.rsn {
            return true;
        }
        if status.view < self.view || status.changing {
            return false;
        }
        if !self.normal() {
            return true;
        }
        let proposed = status.slots.iter().rposition(|slot| slot.proposed).map_or(0, |i| i as u64 + 1);
        let known = status.base.saturating_add(proposed).saturating_sub(1);
        let base = self.log.first_uncommitted();
        let has_body = |rsn| self.log.get(rsn).is_some_and(|slot| slot.body().is_some());
        self.may_vote() && known >= base && (base < status.base || (base..=known).any(|rsn| !has_body(rsn)))
    }

    /// Sends a member that is behind what it needs to install this view, or to join it.
    fn help_into_view(&mut self, from: MemberId, status: &Status) {
        let behind = status.view < self.view || (status.view == self.view && status.changing);
        if !behind {
            return;
        }
        if self.normal() {
            if self.role() == Role::Primary
                && let Some(new_view) = self.new_view_message().cloned()
            {
                self.send_member(from, &Message::NewView(new_view));
            }
        } else if status.view == self.view && status.view_changes & bit(self.me) != 0 {
            return; // has it
        }
        if self.asked_view() == self.view
            && let Some(vc) = self.view_change.clone()
        {
            self.send_member(from, &Message::ViewChange(vc));
        }
    }

    /// Sends own votes for positions from `base` on that `slots` lacks.
    fn resend(&mut self, to: MemberId, base: Rsn, slots: &[SlotStatus]) {
        let mut batches = 0;
        for i in 0..STATUS_SLOTS_MAX {
            let rsn = base.saturating_add(i as u64);
            let has = slots.get(i).copied().unwrap_or_default();
            let primary = self.role() == Role::Primary;
            let Some(slot) = self.log.get(rsn) else { continue };
            let Some(accepted) = slot.accepted else { continue };
            let vote = Vote { view: self.view, tag: self.tag, rsn, digest: accepted.digest };
            let mut messages = Vec::new();
            if primary
                && !has.proposed
                && batches < RESEND_BATCHES_MAX
                && let Some(body) = slot.body()
            {
                batches += 1;
                messages.push(Message::PrePrepare { vote, signature: accepted.proposal, body: body.clone() });
            }
            if has.prepares & bit(self.me) == 0
                && let Some((_, signature)) = slot.prepares.get(&self.me)
            {
                messages.push(Message::Prepare { vote, signature: *signature });
            }
            if has.commits & bit(self.me) == 0 && slot.prepared {
                messages.push(Message::Commit(vote));
            }
            for message in messages {
                self.send_member(to, &message);
            }
        }
    }

    /// Sends a member that has been asked to vote only now what is under way.
    pub(super) fn resend_uncommitted(&mut self, to: MemberId) {
        self.resend(to, self.log.first_uncommitted(), &[]);
    }
}
