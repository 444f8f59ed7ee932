//! A client asks for another roster, and follows the group from epoch to epoch (PROTOCOL.md 2.15).

use super::{Client, ClientEffect, SubmitError, Ticket};
use crate::certificate::CheckpointProof;
use crate::config::{Config, MemberId};
use crate::epoch::{Reconfiguration, Replacement};
use crate::message::RequestKind;
use cl_base::{Time, codec};

impl Client {
    /// Asks for a member to be replaced: RECONFIG (PROTOCOL.md 2.15). The result is a `Result<u64, ReplaceError>` in
    /// [`cl_base::codec`]'s encoding, with the number of the epoch that then begins. Whether this client may is up
    /// to the state machine ([`StateMachine::may_replace`](crate::StateMachine::may_replace)).
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn replace(&mut self, now: Time, replacement: Replacement) -> Result<Ticket, SubmitError> {
        let reconfiguration = Reconfiguration { epoch: self.config.epoch, replacement };
        self.ask(now, RequestKind::Replace, codec::encode(&reconfiguration))
    }

    /// A member shows how the epoch ended. What was answered in it by fewer than w members counts no more, since
    /// each roster has f faulty members of its own; all that is outstanding is asked again.
    pub(super) fn on_epoch(&mut self, now: Time, certificate: &CheckpointProof) {
        let Some(next) = self.config.believe(certificate, &*self.keys) else {
            self.refused += 1;
            return;
        };
        let same = |m: &MemberId| self.config.peer(*m) == next.peer(*m);
        self.outvoted.retain(same);
        self.views.clear();
        self.config = next;
        for outstanding in self.outstanding.values_mut() {
            outstanding.answers.clear();
            outstanding.stale.clear();
            outstanding.results.clear();
            outstanding.attempts = 0;
            outstanding.resend_at = now;
        }
        let (epoch, members) = (self.config.epoch, self.config.members.clone());
        self.effects.push_back(ClientEffect::EpochBegan { epoch, members });
        if let Some(inbox) = &mut self.inbox {
            inbox.begin_epoch();
            self.pull(now);
        }
        self.reads.give_up_all();
        self.ask_again(now);
    }

    /// The configuration of the epoch in which the group is, as far as this client knows. With it a newcomer to the
    /// roster begins.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
