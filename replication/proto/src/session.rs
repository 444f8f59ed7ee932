//! The client table: exactly-once execution, cached replies and outboxes (PROTOCOL.md 2.11).
//!
//! It is replicated state: every member has the same one after the same batch, and it is part of the
//! checkpoint digest.

use crate::config::{Config, Rsn};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{PeerId, Time};
use std::collections::{BTreeMap, VecDeque};

/// A cached reply.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Executed {
    pub(crate) rsn: Rsn,
    pub(crate) result: Vec<u8>,
}

/// What is known about a sequence number of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// Not executed yet.
    New,
    /// Executed, reply at hand.
    Executed(&'a Executed),
    /// At or below the floor: executed or given up, nobody knows any more.
    Stale(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Session {
    /// Sequence numbers up to here are stale.
    floor: u64,
    /// The W highest executed above it.
    executed: BTreeMap<u64, Executed>,
    /// Sequence number of the first entry of the outbox, or of the next one if it is empty.
    outbox_first: u64,
    outbox: VecDeque<Vec<u8>>,
    /// When it was last touched, for eviction.
    used: Rsn,
}

/// Sessions of all clients.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Sessions {
    sessions: BTreeMap<PeerId, Session>,
    /// Floor of clients without a session: the highest of the evicted ones.
    evicted_floor: u64,
    /// Where outboxes of clients without a session begin, so that numbers never repeat.
    evicted_outbox: u64,
    window: u64,
    sessions_max: u64,
    outbox_max: u64,
}

impl Sessions {
    /// A table with the usual limits.
    pub(crate) fn new() -> Sessions {
        Sessions {
            sessions: BTreeMap::new(),
            evicted_floor: 0,
            evicted_outbox: 1,
            window: 32,
            sessions_max: 4096,
            outbox_max: 1024,
        }
    }

    pub(crate) fn with_limits(config: &Config) -> Sessions {
        Sessions {
            window: config.client_window,
            sessions_max: config.sessions_max as u64,
            outbox_max: config.outbox_max as u64,
            ..Sessions::new()
        }
    }

    pub(crate) fn known(&self, client: PeerId, t: u64) -> Known<'_> {
        match self.sessions.get(&client) {
            None if t <= self.evicted_floor => Known::Stale(self.evicted_floor),
            None => Known::New,
            Some(s) if t <= s.floor => Known::Stale(s.floor),
            Some(s) => s.executed.get(&t).map_or(Known::New, Known::Executed),
        }
    }

    /// Enters the result of (client, t), which must be new.
    pub(crate) fn executed(&mut self, client: PeerId, t: u64, rsn: Rsn, time: Time, result: Vec<u8>) {
        let window = self.window as usize;
        let session = self.session(client, rsn, time);
        let before = session.executed.insert(t, Executed { rsn, result });
        assert!(before.is_none() && t > session.floor, "a request was executed twice");
        while session.executed.len() > window {
            if let Some((t, _)) = session.executed.pop_first() {
                session.floor = t;
            }
        }
    }

    /// The client has received all notifications up to `seq`.
    pub(crate) fn acknowledge(&mut self, client: PeerId, seq: u64) {
        if let Some(s) = self.sessions.get_mut(&client) {
            while s.outbox_first <= seq && s.outbox.pop_front().is_some() {
                s.outbox_first += 1;
            }
        }
    }

    pub(crate) fn notify(&mut self, client: PeerId, rsn: Rsn, time: Time, body: Vec<u8>) -> Option<u64> {
        let outbox_max = self.outbox_max;
        let session = self.session(client, rsn, time);
        if session.outbox.len() as u64 >= outbox_max {
            return None;
        }
        session.outbox.push_back(body);
        Some(session.outbox_first + session.outbox.len() as u64 - 1)
    }

    pub(crate) fn forget(&mut self, client: PeerId) {
        self.take_outbox(client);
    }

    pub(crate) fn take_outbox(&mut self, client: PeerId) -> Vec<(u64, Vec<u8>)> {
        let Some(s) = self.sessions.get_mut(&client) else { return Vec::new() };
        let first = s.outbox_first;
        s.outbox_first += s.outbox.len() as u64;
        (first..).zip(s.outbox.drain(..)).collect()
    }

    /// Where the outbox of `client` begins.
    pub(crate) fn outbox_first(&self, client: PeerId) -> u64 {
        self.sessions.get(&client).map_or(self.evicted_outbox, |s| s.outbox_first)
    }

    /// The number of the last notification of `client`.
    pub(crate) fn last_notification(&self, client: PeerId) -> u64 {
        self.sessions
            .get(&client)
            .map_or(self.evicted_outbox, |s| s.outbox_first + s.outbox.len() as u64)
            .saturating_sub(1)
    }

    /// Unacknowledged notifications from sequence number `from` on.
    pub(crate) fn outbox(&self, client: PeerId, from: u64) -> impl Iterator<Item = (u64, &Vec<u8>)> {
        self.sessions
            .get(&client)
            .into_iter()
            .flat_map(|s| (s.outbox_first..).zip(&s.outbox))
            .skip_while(move |(seq, _)| *seq < from)
    }

    /// Clients with unacknowledged notifications.
    pub(crate) fn notified_clients(&self) -> impl Iterator<Item = PeerId> {
        self.sessions.iter().filter(|(_, s)| !s.outbox.is_empty()).map(|(client, _)| *client)
    }

    fn session(&mut self, client: PeerId, rsn: Rsn, time: Time) -> &mut Session {
        if !self.sessions.contains_key(&client) {
            // Made before the eviction, which may lift the common floor above the request being executed.
            let session = Session {
                floor: self.evicted_floor,
                executed: BTreeMap::new(),
                outbox_first: self.evicted_outbox,
                outbox: VecDeque::new(),
                used: rsn,
            };
            if self.sessions.len() as u64 >= self.sessions_max {
                self.evict(time);
            }
            self.sessions.insert(client, session);
        }
        let session = self.sessions.get_mut(&client).expect("present or just inserted");
        session.used = rsn;
        session
    }

    /// Gives up the session used least recently, one without notifications if there is any.
    ///
    /// The common floor rises only to the agreed time: sequence numbers usually are wall-clock nanoseconds,
    /// and a faulty client with an absurd one must not lock out all newcomers.
    fn evict(&mut self, time: Time) {
        let victim =
            self.sessions.iter().min_by_key(|(_, s)| (!s.outbox.is_empty(), s.used)).map(|(c, _)| *c);
        if let Some(s) = victim.and_then(|client| self.sessions.remove(&client)) {
            let last = s.executed.last_key_value().map_or(s.floor, |(t, _)| *t);
            self.evicted_floor = self.evicted_floor.max(last.min(time.as_nanos()));
            self.evicted_outbox = self.evicted_outbox.max(s.outbox_first + s.outbox.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sessions: u64, window: u64) -> Sessions {
        Sessions { sessions_max: sessions, window, outbox_max: 3, ..Sessions::new() }
    }

    const NOW: Time = Time::from_nanos(1_000);

    #[test]
    fn a_reply_is_cached_until_it_leaves_the_window() {
        let mut table = table(10, 2);
        let c = PeerId::new(9, 0);
        for t in [5, 7, 6] {
            assert_eq!(table.known(c, t), Known::New);
            table.executed(c, t, t, NOW, vec![t as u8]);
        }
        assert_eq!(table.known(c, 5), Known::Stale(5));
        assert!(matches!(table.known(c, 6), Known::Executed(e) if e.result == [6]));
        assert!(matches!(table.known(c, 7), Known::Executed(e) if e.rsn == 7));
        assert_eq!(table.known(c, 8), Known::New);
    }

    #[test]
    fn an_evicted_client_is_told_that_it_is_stale_and_newcomers_are_not_locked_out() {
        let mut table = table(2, 4);
        let [a, b, c] = [1, 2, 3].map(|i| PeerId::new(i, 0));
        table.executed(a, 10, 1, NOW, vec![]);
        table.executed(b, u64::MAX, 2, NOW, vec![]);
        table.executed(c, 20, 3, NOW, vec![]);
        assert_eq!(table.known(a, 10), Known::Stale(10));
        assert_eq!(table.known(a, 11), Known::New);
        table.executed(a, 11, 4, NOW, vec![]); // b is evicted, its floor is the agreed time
        assert_eq!(table.known(b, 1_000), Known::Stale(1_000));
        assert_eq!(table.known(b, 1_001), Known::New);
    }

    #[test]
    fn an_outbox_is_bounded_acknowledged_in_order_and_never_reuses_a_number() {
        let mut table = table(10, 2);
        let c = PeerId::new(9, 0);
        let sent: Vec<_> = (0..4).map(|i| table.notify(c, 1, NOW, vec![i])).collect();
        assert_eq!(sent, [Some(1), Some(2), Some(3), None]);
        table.acknowledge(c, 2);
        assert_eq!(table.outbox(c, 0).map(|e| e.0).collect::<Vec<_>>(), [3]);
        table.acknowledge(c, 99);
        assert_eq!(table.outbox_first(c), 4);
        assert_eq!(table.notify(c, 1, NOW, vec![]), Some(4));
        table.forget(c);
        assert_eq!(table.notify(c, 1, NOW, vec![]), Some(5));
    }
}
