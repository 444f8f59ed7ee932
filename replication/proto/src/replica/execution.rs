//! Execution in RSN order, replies and notifications (PROTOCOL.md 2.5 rule 5, 2.11).

use super::pending::RequestId;
use super::unheard::Question;
use super::{Refusal, Replica};
use crate::config::Rsn;
use crate::effect::Event;
use crate::keys::Digest;
use crate::machine::{Apply, NO_CLIENT, StateMachine};
use crate::message::{Batch, Message, Notify, Outcome, Reply, result_digest};
use crate::session::Known;
use cl_base::PeerId;
use std::collections::BTreeMap;

/// A result of at most this many bytes comes from every member; a longer one from the designated member only,
/// unless the client asks again.
pub(super) const SHORT_RESULT_BYTES: usize = 256;

/// Bytes of notifications in one message; the client pulls the rest.
const NOTIFY_BYTES_MAX: usize = 48 * 1024;

impl<S: StateMachine> Replica<S> {
    /// Executes what is committed, in order.
    pub(super) fn execute_ready(&mut self) {
        while self.halted.is_none() && self.has_state() {
            let rsn = self.executed + 1;
            let Some(slot) = self.log.get_mut(rsn) else { return };
            let Some(accepted) = slot.accepted.filter(|_| slot.committed) else { return };
            let body = slot.body().expect("what is committed was prepared, with its body").clone();
            slot.executed = Some(accepted.digest);
            self.executed = rsn;
            let ops = body.map_or(0, |batch| self.execute(rsn, batch));
            self.event(Event::Executed { rsn, digest: accepted.digest, time: self.time, ops });
            self.note_execution();
            if rsn.is_multiple_of(self.config.checkpoint_interval) {
                self.take_checkpoint();
            }
        }
    }

    /// Executes a batch and gives the number of operations that were new.
    fn execute(&mut self, rsn: Rsn, batch: Batch) -> usize {
        // Whatever the primary proposes, agreed time does not go backwards.
        self.time = self.time.max(batch.time);
        let mut notified = BTreeMap::new();
        let mut cx = Apply::new(NO_CLIENT, rsn, self.time, &mut self.sessions, &mut notified);
        self.machine.advance(&mut cx);
        let mut done = Vec::new();
        for request in &batch.requests {
            let id = (request.client, request.t);
            self.pending.remove(id);
            self.sessions.acknowledge(request.client, request.notified);
            if self.sessions.known(id.0, id.1) != Known::New {
                continue;
            }
            let mut cx = Apply::new(id.0, rsn, self.time, &mut self.sessions, &mut notified);
            let result = self.machine.apply(&mut cx, &request.op);
            self.sessions.executed(id.0, id.1, rsn, self.time, result);
            done.push(id);
        }
        for id in &done {
            self.reply(*id, false);
        }
        for (client, first) in notified {
            self.notify(client, first);
        }
        done.len()
    }

    /// Answers a request that was executed before, or forgotten.
    pub(super) fn reply_cached(&mut self, id: RequestId) {
        self.pending.remove(id);
        self.reply(id, true);
        self.asked_again(id.0, Question::Reply(id.1));
    }

    /// Only members of A(v), NORMAL in v, reply (rule 5).
    fn reply(&mut self, (client, t): RequestId, again: bool) {
        if !self.normal() || !self.is_active() {
            return;
        }
        let outcome = match self.sessions.known(client, t) {
            Known::New => return,
            Known::Stale(floor) => Outcome::Stale { floor },
            Known::Executed(executed) => {
                let designated = self.active[(t % self.active.len() as u64) as usize] == self.me;
                let whole = again || designated || executed.result.len() <= SHORT_RESULT_BYTES;
                Outcome::Executed {
                    rsn: executed.rsn,
                    digest: result_digest(&executed.result),
                    result: whole.then(|| executed.result.clone()),
                }
            }
        };
        let last_notification = self.sessions.last_notification(client);
        self.send(client, &Message::Reply(Reply { view: self.view, t, last_notification, outcome }));
    }

    /// Sends unacknowledged notifications of `client` from number `from` on, as many as fit.
    fn notify(&mut self, client: PeerId, from: u64) {
        if !self.normal() || !self.is_active() {
            return;
        }
        let mut bytes = 0;
        let entries = self
            .sessions
            .outbox(client, from)
            .take_while(|(_, body)| {
                let fits = bytes == 0 || bytes + body.len() + 12 <= NOTIFY_BYTES_MAX;
                bytes += body.len() + 12;
                fits
            })
            .map(|(seq, body)| (seq, body.clone()))
            .collect();
        let first = self.sessions.outbox_first(client);
        self.send(client, &Message::Notify(Notify { view: self.view, first, entries }));
    }

    /// A client asks for its notifications from number `seq` on; also answered when there are none, since a
    /// restarted client learns its position from the answers.
    pub(super) fn on_notify_pull(&mut self, client: PeerId, seq: u64) {
        if self.has_state() {
            self.notify(client, seq);
            if self.sessions.outbox(client, seq).next().is_some() {
                self.asked_again(client, Question::Notification(seq));
            }
        } else {
            self.refuse(Refusal::Unasked);
        }
    }

    /// On becoming active, and in every new view: clients may have been told by too few.
    pub(super) fn notify_all(&mut self) {
        if self.has_state() {
            for client in self.sessions.notified_clients().collect::<Vec<_>>() {
                self.notify(client, 0);
            }
        }
    }

    /// The digest of what was executed at `rsn`, while it is known.
    pub(super) fn executed_digest(&self, rsn: Rsn) -> Option<Digest> {
        self.log.get(rsn)?.executed
    }
}
