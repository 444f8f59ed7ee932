//! What has happened between two looks.

use super::Sample;
use cl::counters::{Counter, Kind, PeerCounters, Snapshot};
use std::time::Duration;

impl Sample<'_> {
    /// The same endpoint at the last look, and the seconds since.
    pub(super) fn before(&self, endpoint: &Snapshot) -> Option<(&Snapshot, f64)> {
        let same = |e: &&Snapshot| {
            (&e.path, e.pid, e.started_ticks) == (&endpoint.path, endpoint.pid, endpoint.started_ticks)
        };
        let before = self.before?.endpoints.iter().find(same)?;
        // Exactly between the two times of writing; but a sleeper writes when it wakes.
        let between = endpoint.written.saturating_since(before.written);
        let elapsed = if between > self.interval * 2 { self.interval } else { between };
        Some((before, elapsed.max(Duration::from_millis(1)).as_secs_f64()))
    }
}

/// The value of a counter of an endpoint, 0 if it has none.
pub(super) fn total_of(endpoint: &Snapshot, counter: &Counter) -> u64 {
    endpoint.totals.iter().find(|(c, _)| c == counter).map_or(0, |(_, value)| *value)
}

/// The value of a counter of a peer of an endpoint, 0 if it has none.
pub(super) fn peer_of(endpoint: &Snapshot, peer: &PeerCounters, counter: &Counter) -> u64 {
    let column = endpoint.peer_counters.iter().position(|c| c == counter);
    let row = endpoint.peers.iter().find(|p| p.peer == peer.peer);
    row.zip(column).and_then(|(row, column)| row.values.get(column).copied()).unwrap_or(0)
}

/// What it has grown by in a second.
pub(super) fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

/// What the counts among the counters have grown by in a second.
pub(super) fn rates<'a>(
    values: impl Iterator<Item = (&'a Counter, u64)>,
    before: impl Fn(&Counter) -> u64,
    seconds: f64,
) -> impl Iterator<Item = (&'a Counter, f64)> {
    let counts = values.filter(|(counter, _)| counter.kind == Kind::Count);
    counts.map(move |(counter, value)| (counter, rate(value, before(counter), seconds)))
}
