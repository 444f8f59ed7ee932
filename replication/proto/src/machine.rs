//! What is replicated: the application's state machine and the context of its operations.

use crate::config::Rsn;
use crate::epoch::Replacement;
use crate::session::Sessions;
use cl_base::{PeerId, Time};
use std::collections::BTreeMap;

/// A deterministic service. Equal sequences of calls must give equal states, results and notifications at
/// every member: no clock but [`Apply::time`], no randomness, no unordered iteration.
pub trait StateMachine {
    /// Executes one ordered operation of [`Apply::client`] and gives its result.
    ///
    /// The operation is the client's bytes, which may be anything: refuse what is malformed in the result.
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8>;

    /// The result of a read-only operation in this state, `None` if `op` is not one and has to be ordered.
    ///
    /// An operation that is ordered is first asked for here, too, and applied only if it is not a read: a read that
    /// cannot be answered in one round trip is ordered.
    fn query(&self, _client: PeerId, _op: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Whether `client` may have this done to the roster: the next epoch is the one with it (PROTOCOL.md 2.15). Nobody
    /// may, unless the machine says so. It must depend on the replicated state alone.
    fn may_replace(&self, _client: PeerId, _replacement: &Replacement) -> bool {
        false
    }

    /// Agreed time has moved to [`Apply::time`]; called once per executed batch, before its operations.
    fn advance(&mut self, _cx: &mut Apply<'_>) {}

    /// When the machine next needs [`StateMachine::advance`], in agreed time (group timer events,
    /// dissertation 7.1.4). After `advance` it must lie in the future of the agreed time, or be `None`.
    fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// The whole state in canonical bytes: equal states have equal bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes the state in `snapshot`.
    ///
    /// # Errors
    /// If the bytes are not a snapshot of this machine; then the replica stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError>;
}

/// The result of an ordered operation: of a read what the state says, of all others what applying them gives.
pub(crate) fn execute<S: StateMachine>(machine: &mut S, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
    match machine.query(cx.client(), op) {
        Some(result) => result,
        None => machine.apply(cx, op),
    }
}

/// A snapshot that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot: {0}")]
pub struct RestoreError(pub String);

impl From<cl_base::codec::DecodeError> for RestoreError {
    fn from(e: cl_base::codec::DecodeError) -> RestoreError {
        RestoreError(e.to_string())
    }
}

/// The context of an operation: who, where in the order, when; and the way to push notifications.
pub struct Apply<'a> {
    client: PeerId,
    rsn: Rsn,
    time: Time,
    sessions: &'a mut Sessions,
    notified: &'a mut BTreeMap<PeerId, u64>,
}

/// The client that [`Apply::client`] names inside [`StateMachine::advance`], where there is none.
pub const NO_CLIENT: PeerId = PeerId::new(0, 0);

impl<'a> Apply<'a> {
    pub(crate) fn new(
        client: PeerId,
        rsn: Rsn,
        time: Time,
        sessions: &'a mut Sessions,
        notified: &'a mut BTreeMap<PeerId, u64>,
    ) -> Apply<'a> {
        Apply { client, rsn, time, sessions, notified }
    }

    /// Who asked for the operation; [`NO_CLIENT`] in [`StateMachine::advance`].
    pub fn client(&self) -> PeerId {
        self.client
    }

    /// The position of the batch in the order.
    pub fn rsn(&self) -> u64 {
        self.rsn
    }

    /// The agreed time. It never goes backwards.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Puts a notification into the outbox of `client`, from where every active member sends it until the
    /// client has acknowledged it. Gives its sequence number, or `None` if the outbox is full
    /// ([`Config::outbox_max`](crate::Config::outbox_max)): the client is slow, absent or faulty.
    pub fn notify(&mut self, client: PeerId, body: Vec<u8>) -> Option<u64> {
        let seq = self.sessions.notify(client, self.rsn, self.time, body)?;
        self.notified.entry(client).or_insert(seq);
        Some(seq)
    }

    /// Drops the unacknowledged notifications of `client`.
    pub fn forget(&mut self, client: PeerId) {
        self.sessions.forget(client);
        self.notified.remove(&client);
    }
}

/// A notification pushed: to whom, its sequence number, its body.
pub type Pushed = (PeerId, u64, Vec<u8>);

/// A state machine executed by one process without replication: for tests of a machine, and as the baseline
/// to compare a group with.
pub struct Local<S> {
    machine: S,
    sessions: Sessions,
    rsn: Rsn,
    time: Time,
}

impl<S: StateMachine> Local<S> {
    /// Begins with `machine`.
    pub fn new(machine: S) -> Local<S> {
        Local { machine, sessions: Sessions::new(), rsn: 0, time: Time::ZERO }
    }

    /// Executes one batch: agreed time moves to `time` (never back), then `ops` in order. Gives the results
    /// and the notifications pushed.
    pub fn batch(&mut self, time: Time, ops: &[(PeerId, Vec<u8>)]) -> (Vec<Vec<u8>>, Vec<Pushed>) {
        self.rsn += 1;
        self.time = self.time.max(time);
        let mut notified = BTreeMap::new();
        let mut cx = Apply::new(NO_CLIENT, self.rsn, self.time, &mut self.sessions, &mut notified);
        self.machine.advance(&mut cx);
        let mut results = Vec::with_capacity(ops.len());
        for (client, op) in ops {
            let mut cx = Apply::new(*client, self.rsn, self.time, &mut self.sessions, &mut notified);
            results.push(execute(&mut self.machine, &mut cx, op));
        }
        let pushed = notified
            .into_keys()
            .flat_map(|client| {
                let entries = self.sessions.take_outbox(client);
                entries.into_iter().map(move |(seq, body)| (client, seq, body))
            })
            .collect();
        (results, pushed)
    }

    /// Executes one operation as a batch of its own.
    pub fn apply(&mut self, time: Time, client: PeerId, op: Vec<u8>) -> (Vec<u8>, Vec<Pushed>) {
        let (mut results, pushed) = self.batch(time, &[(client, op)]);
        (results.pop().expect("one operation has one result"), pushed)
    }

    /// The machine.
    pub fn machine(&self) -> &S {
        &self.machine
    }
}
