//! The manager as the replication layer sees it: bytes in, bytes out.

use crate::api::{Answer, OP_BYTES_MAX, Op, Refusal};
use crate::manager::{Manager, ManagerConfig, Notices};
use cl_base::{Time, codec};
use replication_proto::{Apply, RestoreError, StateMachine};

/// A [`Manager`] under replication. Operations, answers and notices travel encoded.
#[derive(Debug)]
pub struct ReplicatedManager {
    manager: Manager,
}

impl ReplicatedManager {
    /// A manager that has heard of nothing yet.
    pub fn new(config: ManagerConfig) -> ReplicatedManager {
        ReplicatedManager { manager: Manager::new(config) }
    }

    /// The manager's state as this replica has executed it.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }
}

fn send(cx: &mut Apply<'_>, notices: Notices) {
    for (to, notice) in notices {
        cx.notify(to, codec::encode(&notice));
    }
}

impl StateMachine for ReplicatedManager {
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        let mut notices = Notices::new();
        let answer: Answer = match codec::decode_bounded::<Op>(op, OP_BYTES_MAX) {
            Ok(op) => self.manager.apply(cx.time(), cx.client(), op, &mut notices),
            Err(_) => Err(Refusal::Malformed),
        };
        send(cx, notices);
        codec::encode(&answer)
    }

    fn advance(&mut self, cx: &mut Apply<'_>) {
        let mut notices = Notices::new();
        self.manager.advance(cx.time(), &mut notices);
        send(cx, notices);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.manager.next_deadline()
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.manager)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.manager = codec::decode(snapshot)?;
        Ok(())
    }
}
