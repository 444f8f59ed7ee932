//! Clients that ask again and again for what was answered.
//!
//! A client needs f+1 equal answers from A(v). An active member that left the view alone has no way back (2.8)
//! and answers no more; if a Byzantine member of A(v) lies to clients as well, fewer than f+1 correct ones are
//! left to answer, although widening keeps the order going, so that nobody else has a reason to leave. Hence
//! one rule more than in PROTOCOL.md 2.9: when a client keeps asking for longer than T_req and an active
//! member is known, by its signature, to have left, the others follow. Neither a faulty client nor a faulty
//! member can cause that alone; both together can until the member is a spare.

use super::Replica;
use crate::effect::LeaveReason;
use crate::machine::StateMachine;
use cl_base::{PeerId, Time};
use std::collections::BTreeMap;

/// Questions remembered; beyond it all are forgotten and counted anew.
pub(super) const QUESTIONS_MAX: usize = 4096;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// The reply to this sequence number.
    Reply(u64),
    /// This notification.
    Notification(u64),
}

/// When each question that had been answered before was asked again for the first time in this view.
#[derive(Debug, Default)]
pub(super) struct Unheard(BTreeMap<(PeerId, Question), Time>);

impl Unheard {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<S: StateMachine> Replica<S> {
    /// A client asks for something that this member has answered.
    pub(super) fn asked_again(&mut self, client: PeerId, question: Question) {
        if !self.normal() || !self.is_active() {
            return;
        }
        if self.unheard.0.len() >= QUESTIONS_MAX {
            self.unheard.clear();
        }
        let first = *self.unheard.0.entry((client, question)).or_insert(self.now);
        let deserted =
            self.view_changes.values().any(|vc| vc.body.view > self.view && self.active.contains(&vc.sender));
        if deserted && self.now >= first + self.backed_off(self.config.request_timeout) {
            let next = self.view.max(self.asked_view()) + 1;
            self.leave(next, LeaveReason::ClientsUnheard);
        }
    }
}
