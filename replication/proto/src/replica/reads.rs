//! Reads in one round trip (PROTOCOL.md 2.12).

use super::execution::SHORT_RESULT_BYTES;
use super::status::bit;
use super::{Mutation, Refusal, Replica};
use crate::machine::StateMachine;
use crate::message::{Message, ReadAnswer, ReadReply, result_digest};
use cl_base::PeerId;

impl<S: StateMachine> Replica<S> {
    /// A client asks for a result without an order. The transport authenticates it; nothing is kept.
    pub(super) fn on_read(&mut self, client: PeerId, nonce: u64, op: &[u8]) {
        if op.len() > self.config.op_bytes_max() {
            return self.refuse(Refusal::Invalid);
        }
        let answer = if self.may_answer_reads() { self.answer(client, nonce, op) } else { None };
        self.send(client, &Message::ReadReply(ReadReply { view: self.view, nonce, answer }));
    }

    /// NORMAL in v, in A(v), and everything executed that may have been acknowledged in an earlier view, or in this
    /// one before a restart. When its end is signed, an epoch answers no more.
    fn may_answer_reads(&self) -> bool {
        let decided = if self.mutated(Mutation::ReadBeforeOrder) { 0 } else { self.max_o };
        self.normal()
            && self.ended.is_none()
            && self.is_active()
            && self.executed >= self.stable.rsn.max(decided).max(self.prepared_before)
    }

    fn answer(&self, client: PeerId, nonce: u64, op: &[u8]) -> Option<ReadAnswer> {
        let result = self.machine.query(client, op)?;
        let designated = self.active[(nonce % self.active.len() as u64) as usize] == self.me;
        Some(ReadAnswer {
            tag: self.tag,
            active: self.active.iter().fold(0, |bits, m| bits | bit(*m)),
            digest: result_digest(&result),
            result: (designated || result.len() <= SHORT_RESULT_BYTES).then_some(result),
        })
    }
}
