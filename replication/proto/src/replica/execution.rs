//! Execution in RSN order, replies and notifications (PROTOCOL.md 2.5 rule 5, 2.11).

use super::pending::RequestId;
use super::tentative::{Done, Notified};
use super::unheard::Question;
use super::{Refusal, Replica};
use crate::config::Rsn;
use crate::effect::Event;
use crate::keys::{Digest, Domain, digest_of};
use crate::machine::{self, Apply, NO_CLIENT, StateMachine};
use crate::message::{Batch, Body, Message, Notify, Outcome, Reply, RequestKind, Tentative, result_digest};
use crate::session::Known;
use cl_base::PeerId;

/// A result of at most this many bytes comes from every member; a longer one from the designated member only,
/// unless the client asks again.
pub(super) const SHORT_RESULT_BYTES: usize = 256;

/// Bytes of notifications in one message; the client pulls the rest.
const NOTIFY_BYTES_MAX: usize = 48 * 1024;

impl<S: StateMachine> Replica<S> {
    /// Executes what is committed, in order, and what may be executed before that.
    pub(super) fn execute_ready(&mut self) {
        while self.halted.is_none() && self.has_state() && !self.at_end() {
            self.settle_tentative();
            let rsn = self.executed + 1;
            let Some(slot) = self.log.get(rsn) else { return };
            let Some(accepted) = slot.accepted.filter(|_| slot.prepared) else { return };
            let body = slot.body().expect("what is prepared has its body").clone();
            let for_good = slot.committed && self.tentative.len() == 0;
            if !for_good && !self.may_run_ahead(rsn, &body) {
                return;
            }
            let done = self.execute(rsn, accepted.digest, body);
            if for_good {
                self.answer_all(&done.requests);
                self.executed_for_good(rsn, done);
            } else {
                let requests = done.requests.clone();
                self.tentative.push(rsn, done);
                self.answer_all(&requests);
            }
        }
    }

    pub(super) fn answer_all(&mut self, requests: &[RequestId]) {
        for id in requests {
            self.reply(*id, false);
        }
    }

    /// A batch is executed and committed.
    pub(super) fn executed_for_good(&mut self, rsn: Rsn, done: Done) {
        let slot = self.log.get(rsn).expect("committed above the checkpoint");
        let digest = slot.executed.expect("it was executed");
        let requests = slot.body().into_iter().flatten().flat_map(|batch| &batch.requests);
        for id in requests.map(|r| (r.client, r.t)).collect::<Vec<_>>() {
            if self.sessions.known(id.0, id.1) != Known::New {
                self.pending.remove(id);
            }
        }
        for (client, first) in done.notified {
            self.notify(client, first);
        }
        let (time, ops) = (done.time, done.requests.len());
        self.event(Event::Executed { rsn, digest, time, ops });
        self.note_execution();
        if self.ended.is_some() || rsn.is_multiple_of(self.config.checkpoint_interval) {
            self.take_checkpoint();
        }
    }

    /// Executes a batch; nobody hears of it here.
    pub(super) fn execute(&mut self, rsn: Rsn, digest: Digest, body: Body) -> Done {
        self.executed = rsn;
        self.history = digest_of(Domain::History, &(self.history, digest));
        self.log.get_mut(rsn).expect("what is executed is in the log").executed = Some(digest);
        let (mut notified, mut requests) = (Notified::new(), Vec::new());
        if let Some(batch) = body {
            self.execute_batch(rsn, &batch, &mut notified, &mut requests);
        }
        Done { requests, notified, time: self.time, history: self.history }
    }

    fn execute_batch(&mut self, rsn: Rsn, batch: &Batch, notified: &mut Notified, done: &mut Vec<RequestId>) {
        // Whatever the primary proposes, agreed time does not go backwards.
        self.time = self.time.max(batch.time);
        let mut cx = Apply::new(NO_CLIENT, rsn, self.time, &mut self.sessions, notified);
        self.machine.advance(&mut cx);
        for request in &batch.requests {
            let id = (request.client, request.t);
            self.sessions.acknowledge(request.client, request.notified);
            if self.sessions.known(id.0, id.1) != Known::New {
                continue;
            }
            let mut cx = Apply::new(id.0, rsn, self.time, &mut self.sessions, notified);
            let result = match request.kind {
                RequestKind::Operation => machine::execute(&mut self.machine, &mut cx, &request.op),
                RequestKind::Replace => self.reconfigure(request),
            };
            self.sessions.executed(id.0, id.1, rsn, self.time, result);
            done.push(id);
            if self.ended.is_some() {
                return; // what follows in the batch is proposed again in the next epoch
            }
        }
    }

    /// Answers a request that was executed before, or forgotten.
    pub(super) fn reply_cached(&mut self, id: RequestId) {
        if self.tentative.len() == 0 {
            self.pending.remove(id);
        }
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
            // One that can still be undone is not told of: the client asks again.
            Known::Stale(_) if self.tentative.len() > 0 => return,
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
        let history = match outcome {
            Outcome::Executed { rsn, .. } => self.tentative.history(rsn),
            Outcome::Stale { .. } => None,
        };
        let tentative = history.map(|history| Tentative { tag: self.tag, history });
        let last_notification =
            self.sessions.last_notification(client).min(self.tentative.withheld(client).saturating_sub(1));
        let reply = Reply { view: self.view, t, last_notification, tentative, outcome };
        self.send(client, &Message::Reply(reply));
    }

    /// Sends unacknowledged notifications of `client` from number `from` on, as many as fit.
    fn notify(&mut self, client: PeerId, from: u64) {
        if !self.normal() || !self.is_active() {
            return;
        }
        let mut bytes = 0;
        let withheld = self.tentative.withheld(client);
        let entries = self
            .sessions
            .outbox(client, from)
            .take_while(|(seq, _)| *seq < withheld)
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
