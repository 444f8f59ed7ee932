//! Messages and bytes by peer.

use super::label::{Kind, Label};
use super::page::PEERS_MAX;
use super::tally::Reason;
use crate::stats::Stats;
use cl_base::{PeerId, Time};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::time::Duration;

/// When all rows are taken, those of peers that have been silent for so long are given to others.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Room for so many peers is made at once, for they may first be met when nothing else needs memory any more.
const ROWS_AT_FIRST: usize = 16;
/// Columns that a row has at the most.
pub(super) const COLUMNS_MAX: usize = super::page::ROW_WORDS - 1;
/// The first columns, those of this layer.
pub(super) const TRAFFIC: [Label; 5] = [
    Label::count("messages_sent", "Messages to the peer accepted for sending."),
    Label::count("bytes_sent", "Bytes of contents in these."),
    Label::count("messages_received", "Messages from the peer handed to the caller."),
    Label::count("bytes_received", "Bytes of contents in these."),
    Label::count("copies", "Messages from and to the peer that were copied on their way by us."),
];
/// Those and the drops of this layer, which come behind them.
pub(super) const OWN: usize = TRAFFIC.len() + Reason::COUNT;

/// What went to a peer and came from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    messages_sent: u64,
    bytes_sent: u64,
    messages_received: u64,
    bytes_received: u64,
    /// Copies of ours on the way.
    copies: u64,
}

impl Traffic {
    pub(crate) fn messages_sent(&self) -> u64 {
        self.messages_sent
    }

    #[inline]
    pub(crate) fn sent(&mut self, len: usize) {
        self.messages_sent += 1;
        self.bytes_sent += len as u64;
    }

    #[inline]
    pub(crate) fn received(&mut self, len: usize) {
        self.messages_received += 1;
        self.bytes_received += len as u64;
    }

    #[inline]
    pub(crate) fn received_copies(&mut self, messages: usize, bytes: usize) {
        self.messages_received += messages as u64;
        self.bytes_received += bytes as u64;
        self.copies += messages as u64;
    }

    #[inline]
    pub(crate) fn copied(&mut self) {
        self.copies += 1;
    }

    #[inline]
    pub(super) fn copies(&mut self, messages: usize) {
        self.copies += messages as u64;
    }

    /// This, and `messages` that were copied to be sent, of `bytes` in all.
    pub(crate) fn and_sent_copies(mut self, messages: u64, bytes: u64) -> Traffic {
        self.messages_sent += messages;
        self.bytes_sent += bytes;
        self.copies += messages;
        self
    }

    /// What has come to it since it was `earlier`.
    pub(crate) fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            messages_sent: self.messages_sent - earlier.messages_sent,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            messages_received: self.messages_received - earlier.messages_received,
            bytes_received: self.bytes_received - earlier.bytes_received,
            copies: self.copies - earlier.copies,
        }
    }

    /// Adds what went through shared memory to the endpoint's counters.
    pub(crate) fn count_shared(&self, stats: &mut Stats) {
        stats.messages_sent += self.messages_sent;
        stats.shared_sent += self.messages_sent;
        stats.bytes_sent += self.bytes_sent;
        stats.messages_received += self.messages_received;
        stats.shared_received += self.messages_received;
        stats.bytes_received += self.bytes_received;
        stats.copies += self.copies;
    }

    pub(crate) fn add(&mut self, other: Traffic) {
        self.messages_sent += other.messages_sent;
        self.bytes_sent += other.bytes_sent;
        self.messages_received += other.messages_received;
        self.bytes_received += other.bytes_received;
        self.copies += other.copies;
    }

    pub(super) fn values(&self) -> [u64; TRAFFIC.len()] {
        [self.messages_sent, self.bytes_sent, self.messages_received, self.bytes_received, self.copies]
    }
}

/// One peer's counters.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) peer: PeerId,
    pub(super) traffic: Traffic,
    /// By [`Reason`].
    pub(super) drops: [u64; Reason::COUNT],
    /// What the layers above count, by column.
    pub(super) above: [u64; COLUMNS_MAX],
    /// As it was at the last look, and since when.
    seen: Traffic,
    silent_since: Time,
}

impl Row {
    fn new(peer: PeerId, now: Time) -> Row {
        let (traffic, seen) = (Traffic::default(), Traffic::default());
        Row { peer, traffic, drops: [0; Reason::COUNT], above: [0; COLUMNS_MAX], seen, silent_since: now }
    }
}

/// A row for each peer that something was sent to, as far as there is room. The first row is of all others: so
/// whoever invents senders cannot fill the table.
#[derive(Debug)]
pub(super) struct PeerTable {
    rows: Vec<Row>,
    index: FxHashMap<PeerId, usize>,
    last: (PeerId, usize),
    /// Rows are as old as this.
    now: Time,
}

/// The row of all the others.
pub(super) const OTHERS: usize = 0;
const NOBODY: PeerId = PeerId::from_u64(u64::MAX);

impl PeerTable {
    pub(super) fn new(now: Time) -> PeerTable {
        let mut rows = Vec::with_capacity(1 + ROWS_AT_FIRST);
        rows.push(Row::new(NOBODY, now));
        let index = FxHashMap::with_capacity_and_hasher(ROWS_AT_FIRST, FxBuildHasher);
        PeerTable { rows, index, last: (NOBODY, OTHERS), now }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of a peer that we send to.
    #[inline]
    pub(super) fn row_of(&mut self, peer: PeerId) -> &mut Row {
        let index = if self.last.0 == peer { self.last.1 } else { self.find_or_make(peer) };
        &mut self.rows[index]
    }

    /// The row of a peer that claims to have sent us something.
    #[inline]
    pub(super) fn row_of_sender(&mut self, peer: PeerId) -> &mut Row {
        let index = if self.last.0 == peer { self.last.1 } else { self.find(peer) };
        &mut self.rows[index]
    }

    pub(super) fn others(&mut self) -> &mut Row {
        &mut self.rows[OTHERS]
    }

    pub(super) fn index_of(&self, peer: PeerId) -> Option<usize> {
        self.index.get(&peer).copied()
    }

    pub(super) fn add(&mut self, peer: PeerId, traffic: Traffic) {
        self.row_of(peer).traffic.add(traffic);
    }

    fn find(&mut self, peer: PeerId) -> usize {
        let Some(index) = self.index_of(peer) else { return OTHERS };
        self.last = (peer, index);
        index
    }

    fn find_or_make(&mut self, peer: PeerId) -> usize {
        if !self.index.contains_key(&peer) && self.rows.len() <= PEERS_MAX {
            self.index.insert(peer, self.rows.len());
            self.rows.push(Row::new(peer, self.now));
        }
        self.find(peer)
    }

    /// Notes who is silent, and makes room if there is none: to be called now and then. `kinds`: those of the
    /// columns of the layers above.
    pub(super) fn age(&mut self, now: Time, kinds: &[Kind]) {
        self.now = now;
        for row in &mut self.rows[1..] {
            if row.traffic != row.seen {
                (row.seen, row.silent_since) = (row.traffic, now);
            }
        }
        if self.rows.len() > PEERS_MAX {
            let (others, rows) = self.rows.split_first_mut().expect("the first row is always there");
            for row in rows.iter().filter(|row| now.saturating_since(row.silent_since) >= SILENT_AFTER) {
                others.traffic.add(row.traffic);
                others.drops.iter_mut().zip(row.drops).for_each(|(all, of_row)| *all += of_row);
                for (column, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Count) {
                    others.above[column] += row.above[column];
                }
            }
            let mut first = true;
            self.rows.retain(|row| {
                let others = std::mem::take(&mut first);
                others || now.saturating_since(row.silent_since) < SILENT_AFTER
            });
            self.index = self.rows.iter().enumerate().skip(1).map(|(at, row)| (row.peer, at)).collect();
            self.last = (NOBODY, OTHERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_no_row_and_the_silent_make_room() {
        let start = Time::ZERO + Duration::from_secs(1000);
        let mut table = PeerTable::new(start);
        table.row_of_sender(PeerId::new(7, 7)).traffic.received(5);
        assert_eq!((table.rows().len(), table.rows()[OTHERS].traffic.values()), (1, [0, 0, 1, 5, 0]));
        for n in 0..PEERS_MAX as u32 + 10 {
            table.row_of(PeerId::new(1, n)).traffic.sent(10);
        }
        assert_eq!(table.rows().len(), PEERS_MAX + 1);
        assert_eq!(table.rows()[OTHERS].traffic.values(), [10, 100, 1, 5, 0]);
        table.row_of(PeerId::new(1, 3)).above[..2].copy_from_slice(&[4, 9]);
        table.row_of(PeerId::new(1, 3)).drops[Reason::Evicted as usize] = 7;
        table.row_of(PeerId::new(1, 3)).traffic.copies(6);
        let kinds = [Kind::Count, Kind::Level];
        table.age(start, &kinds);
        assert_eq!(table.rows().len(), PEERS_MAX + 1, "nobody has been silent for long");
        let later = start + SILENT_AFTER;
        table.row_of(PeerId::new(1, 8)).traffic.sent(1);
        table.age(later, &kinds);
        assert_eq!(table.rows().len(), 2);
        assert_eq!(
            (table.rows()[1].peer, table.rows()[1].traffic.values()),
            (PeerId::new(1, 8), [2, 11, 0, 0, 0])
        );
        assert_eq!(table.rows()[OTHERS].traffic.values(), [10 + 255, 100 + 2550, 1, 5, 6]);
        assert_eq!(table.rows()[OTHERS].drops[Reason::Evicted as usize], 7);
        assert_eq!(table.rows()[OTHERS].above[..2], [4, 0], "counts are kept, levels are not");
        table.row_of(PeerId::new(1, 3)).traffic.sent(1);
        assert_eq!(table.index_of(PeerId::new(1, 3)), Some(2), "it comes back with a row of its own");
    }
}
