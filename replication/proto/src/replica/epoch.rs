//! From one epoch to the next (PROTOCOL.md 2.15).

use super::{Mode, Mutation, Refusal, Replica};
use crate::certificate::CheckpointProof;
use crate::effect::{Effect, Event};
use crate::epoch::{Reconfiguration, ReplaceError};
use crate::log::Log;
use crate::machine::StateMachine;
use crate::message::{self, Message, Request};
use crate::storage::Record;
use cl_base::{PeerId, codec};

/// Epochs of which a member keeps the certificates, for those who have slept. Who has slept longer must be told
/// the roster. Some 300 bytes each for f = 1.
pub(super) const CERTIFICATES_MAX: usize = 4096;

impl<S: StateMachine> Replica<S> {
    /// The configuration of the epoch in which this member is.
    pub fn config(&self) -> &crate::Config {
        &self.config
    }

    /// Executes RECONFIG. If it is valid the epoch ends after it.
    pub(super) fn reconfigure(&mut self, request: &Request) -> Vec<u8> {
        let outcome = self.judge_reconfiguration(request);
        if let Ok(reconfiguration) = &outcome {
            self.ended = Some(reconfiguration.replacement);
        }
        codec::encode(&outcome.map(|reconfiguration| reconfiguration.epoch + 1))
    }

    fn judge_reconfiguration(&self, request: &Request) -> Result<Reconfiguration, ReplaceError> {
        let asked: Reconfiguration = codec::decode(&request.op).map_err(|_| ReplaceError::Malformed)?;
        if asked.epoch != self.config.epoch {
            return Err(ReplaceError::Epoch(self.config.epoch));
        }
        self.config.place_of(&asked.replacement).ok_or(ReplaceError::Roster)?;
        if !self.machine.may_replace(request.client, &asked.replacement) {
            return Err(ReplaceError::NotAllowed);
        }
        Ok(asked)
    }

    /// Whether nothing more is executed in this epoch.
    pub(super) fn at_end(&self) -> bool {
        self.ended.is_some() && !self.mutated(Mutation::EpochRunsOn)
    }

    /// The next epoch begins: q members of this one have signed its end. What this one ordered beyond is void, and
    /// its requests are proposed again.
    pub(super) fn begin_epoch(&mut self, certificate: CheckpointProof) {
        let Some(next) = self.config.after(&certificate) else { return self.refuse(Refusal::Invalid) };
        let rsn = certificate.rsn;
        if self.snapshots.get(&rsn).is_some_and(|own| own.digest != certificate.digest) || self.executed > rsn
        {
            return self.halt("the end of an epoch contradicts what was executed here");
        }
        self.undo();
        self.persist(Record::Epoch(certificate.clone()));
        self.enter_epoch(next, certificate);
        if self.retired {
            self.event(Event::Retired { epoch: self.config.epoch });
            return;
        }
        self.event(Event::EpochBegan { epoch: self.config.epoch, rsn, members: self.config.members.clone() });
        self.persist_checkpoint();
        self.pending.drop_unsigned();
        self.pending.requeue();
        self.relay_all();
        self.notify_all();
        self.installed_view();
        self.hasten_status();
        self.consider_transfer();
    }

    /// View 0 of the next epoch, with nothing voted for and nothing prepared.
    pub(super) fn enter_epoch(&mut self, next: crate::Config, certificate: CheckpointProof) {
        let me = self.config.peer(self.me);
        let rsn = certificate.rsn;
        self.certificates.push(certificate);
        if self.certificates.len() > CERTIFICATES_MAX {
            self.certificates.remove(0);
        }
        self.config = next;
        match self.config.member(me) {
            Some(member) => self.me = member,
            None => self.retired = true,
        }
        self.ended = None;
        self.view = 0;
        self.mode = Mode::Normal;
        self.tag = Default::default();
        self.active = self.config.active(0);
        self.wide = None;
        self.max_o = rsn;
        self.prepared_before = 0;
        self.installed = None;
        self.view_change = None;
        self.view_changes.clear();
        self.unjustified = None;
        self.fruitless = 0;
        self.executed_in_view = 0;
        self.early.clear();
        self.log = Log::new(rsn, self.config.log_window);
        self.stable = CheckpointProof::beginning(&self.config);
        self.last_assigned = rsn;
        self.last_proposed_time = self.time;
        self.claims.clear();
        self.transfer = None;
        self.forget_snapshots();
    }

    /// A frame of another epoch. Who is behind and wants something is shown how his epoch ended; who is ahead will
    /// show it to this member, if asked.
    pub(super) fn on_foreign(&mut self, from: PeerId, epoch: u64, bytes: &[u8]) {
        self.refuse(Refusal::Foreign);
        if epoch > self.config.epoch {
            if self.config.member(from).is_some() && !self.retired {
                self.hasten_status();
            }
            return;
        }
        let wants = |message: &Message| {
            matches!(
                message,
                Message::Request(_)
                    | Message::Read { .. }
                    | Message::NotifyPull { .. }
                    | Message::Status(_)
                    | Message::ViewChange(_)
            )
        };
        if !message::decode_of(self.config.group, epoch, bytes).is_ok_and(|message| wants(&message)) {
            return;
        }
        let back = usize::try_from(self.config.epoch - epoch).unwrap_or(usize::MAX);
        let certificate = self.certificates.len().checked_sub(back).and_then(|at| self.certificates.get(at));
        if let Some(certificate) = certificate.cloned() {
            let bytes = message::encode_of(self.config.group, epoch, &Message::Stable(certificate));
            self.effects.push_back(Effect::Send { to: from, bytes });
        }
    }
}
