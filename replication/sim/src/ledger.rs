//! The service that is simulated: it remembers everything that was done to it, so that judges can ask.

use crate::plan::ROGUE;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::codec;
use cl_base::{PeerId, Time};
use replication_proto::{Apply, Replacement, RestoreError, StateMachine};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Op {
    /// Adds to the counter, gives its value.
    Add(u32),
    /// Appends to the text, gives its length.
    Append(Vec<u8>),
    /// Sets a key, gives the value before.
    Put(u8, u32),
    /// Gives the value of a key.
    Get(u8),
    /// Sends a notification to a client.
    Tell(PeerId, u32),
    /// Asks for a notification after so many milliseconds of agreed time.
    Alarm(u16),
}

/// An operation with a number that its client uses once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Command {
    /// Unique per client.
    pub nonce: u64,
    /// What to do.
    pub op: Op,
}

/// A read: how many commands were executed, which tells what it saw of each of them. It is no [`Command`] and
/// leaves no trace.
pub(crate) const SIZE: &[u8] = b"size";

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ledger {
    /// Everything executed, in order.
    pub history: Vec<(PeerId, Command)>,
    /// Notifications ever pushed to each client, in order.
    pub pushed: BTreeMap<PeerId, Vec<Vec<u8>>>,
    /// Alarms that have not gone off.
    pub alarms: BTreeSet<(Time, PeerId, u64)>,
    counter: u64,
    text: Vec<u8>,
    map: BTreeMap<u8, u32>,
    time: Time,
}

impl Ledger {
    fn push(&mut self, cx: &mut Apply<'_>, to: PeerId, body: Vec<u8>) {
        if let Some(seq) = cx.notify(to, body.clone()) {
            let pushed = self.pushed.entry(to).or_default();
            pushed.push(body);
            assert_eq!(seq, pushed.len() as u64, "notification numbers have no gaps");
        }
    }
}

impl StateMachine for Ledger {
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        if let Some(size) = self.query(cx.client(), op) {
            return size;
        }
        let Ok(command) = codec::decode::<Command>(op) else { return b"malformed".to_vec() };
        self.history.push((cx.client(), command.clone()));
        match command.op {
            Op::Add(n) => {
                self.counter += u64::from(n);
                self.counter.to_le_bytes().to_vec()
            }
            Op::Append(bytes) => {
                self.text.extend(bytes);
                // Long on purpose, now and then: such a result comes from one designated member only.
                let mut result = (self.text.len() as u64).to_le_bytes().to_vec();
                result.resize(8 + self.text.len() % 400, b'.');
                result
            }
            Op::Put(key, value) => codec::encode(&self.map.insert(key, value)),
            Op::Get(key) => codec::encode(&self.map.get(&key)),
            Op::Tell(to, n) => {
                self.push(cx, to, codec::encode(&("tell", cx.client(), n)));
                Vec::new()
            }
            Op::Alarm(millis) => {
                let at = cx.time() + Duration::from_millis(u64::from(millis) + 1);
                self.alarms.insert((at, cx.client(), command.nonce));
                Vec::new()
            }
        }
    }

    fn query(&self, _client: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        (op == SIZE).then(|| (self.history.len() as u64).to_le_bytes().to_vec())
    }

    fn advance(&mut self, cx: &mut Apply<'_>) {
        assert!(cx.time() >= self.time, "agreed time went backwards");
        self.time = cx.time();
        while let Some((at, client, nonce)) = self.alarms.first().copied()
            && at <= cx.time()
        {
            self.alarms.pop_first();
            self.push(cx, client, codec::encode(&("alarm", nonce)));
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.alarms.first().map(|(at, ..)| *at)
    }

    fn may_replace(&self, client: PeerId, _: &Replacement) -> bool {
        client != ROGUE
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = codec::decode(snapshot)?;
        Ok(())
    }
}

/// The results that a history must have given, computed in the plainest way.
pub(crate) fn results(history: &[(PeerId, Command)]) -> Vec<Vec<u8>> {
    let (mut sum, mut length, mut map) = (0u64, 0usize, BTreeMap::<u8, u32>::new());
    let mut all = Vec::new();
    for (_, command) in history {
        all.push(match &command.op {
            Op::Add(n) => {
                sum += u64::from(*n);
                sum.to_le_bytes().to_vec()
            }
            Op::Append(bytes) => {
                length += bytes.len();
                let mut result = (length as u64).to_le_bytes().to_vec();
                result.extend(std::iter::repeat_n(b'.', length % 400));
                result
            }
            Op::Put(key, value) => {
                let before = map.get(key).copied();
                map.insert(*key, *value);
                codec::encode(&before)
            }
            Op::Get(key) => codec::encode(&map.get(key).copied()),
            Op::Tell(..) | Op::Alarm(_) => Vec::new(),
        });
    }
    all
}
