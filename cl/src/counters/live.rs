use super::label::{Kind, Label};
use super::page::{self, Page, Scope, Span};
use super::peers::{OTHERS, OWN, PeerTable, TRAFFIC, Traffic};
use super::place::{Directory, directories};
use super::tally::Reason;
use crate::stats::{Drops, Stats};
use cl_base::{PeerId, Time};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The page is written so often while the endpoint is polled: faster than people read, and far too rarely to
/// be felt.
const INTERVAL: Duration = Duration::from_millis(50);

/// Levels of the endpoint, in the order of [`Levels`].
const LEVELS: [Label; 4] = [
    Label::level("backlog", "Messages that wait for the network to take them."),
    Label::level("buffers_free", "Buffers of the pool that hold a datagram and are free."),
    Label::level("shared_peers", "Processes that memory is shared with."),
    Label::level("buffers_lent", "Buffers that these have from us."),
];
/// Their values.
pub(crate) type Levels = [u64; LEVELS.len()];

/// Counters of a layer above, of a whole endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Group(Option<Span>);

/// Counters of a layer above, of each peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerGroup(Option<Span>);

/// An endpoint's page of counters, as its owner sees it. See [`Endpoint::counters`](crate::Endpoint::counters).
#[derive(Debug)]
pub struct Live {
    page: Page,
    /// Holds the lock.
    _file: File,
    path: PathBuf,
    peers: PeerTable,
    /// Of the columns of the layers above.
    kinds: Vec<Kind>,
    spans: [Span; 3],
    written_at: Time,
    due: bool,
}

impl Live {
    /// Makes a page, having removed those of processes that are gone. `about`: what readers should know of
    /// the endpoint.
    pub(crate) fn open(me: PeerId, about: &[(&str, String)], now: Time) -> io::Result<Live> {
        let mut why = String::new();
        for dir in directories() {
            match Live::open_in(&dir, me, about, now) {
                Ok(live) => return Ok(live),
                Err(error) => why += &format!("{}: {error}; ", dir.display()),
            }
        }
        Err(io::Error::other(why.trim_end_matches("; ").to_owned()))
    }

    fn open_in(dir: &Path, me: PeerId, about: &[(&str, String)], now: Time) -> io::Result<Live> {
        let dir = Directory::open(dir, true)?;
        dir.visit(|word| word == page::MAGIC, |_, _| {});
        let (file, path) = dir.make_file(page::LEN)?;
        let made = Page::new(&file, me, about, now).map(|mut page| {
            let drops = [Scope::Total, Scope::Total, Scope::Total];
            let groups = [("cl", Stats::LABELS), ("cl drops", Drops::LABELS), ("cl", &LEVELS[..])];
            let mut spans = [Span { at: 0, count: 0 }; 3];
            for ((span, scope), (name, labels)) in spans.iter_mut().zip(drops).zip(groups) {
                *span = page.add_group(scope, name, labels).expect("the page has room for this layer");
            }
            for (name, labels) in [("cl", &TRAFFIC[..]), ("cl drops", &Reason::labels())] {
                page.add_group(Scope::Peer, name, labels).expect("a row has room for this layer");
            }
            page.announce();
            (page, spans)
        });
        match made {
            Ok((page, spans)) => Ok(Live {
                page,
                _file: file,
                path,
                peers: PeerTable::new(now),
                kinds: Vec::new(),
                spans,
                written_at: now,
                due: true,
            }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// The file that others read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds counters of a layer above; `group` is its name. Those that find no room are not shown, and a warning in the log
    /// says so.
    pub fn group(&mut self, group: &str, labels: &[Label]) -> Group {
        let now = self.written_at;
        let span = self.page.write(now, |page| page.add_group(Scope::Total, group, labels));
        if span.is_none() {
            tracing::warn!(group, "the page of counters has no room for these");
        }
        Group(span)
    }

    /// Adds counters of each peer. As [`Live::group`]: a row has 47, of which this layer takes 13, `rcl` 26 and `mml` 24. So
    /// of an endpoint with both of these the last group is not shown.
    pub fn peer_group(&mut self, group: &str, labels: &[Label]) -> PeerGroup {
        let now = self.written_at;
        let span = self.page.write(now, |page| page.add_group(Scope::Peer, group, labels));
        if span.is_some() {
            self.kinds.extend(labels.iter().map(|label| label.kind));
        } else {
            tracing::warn!(group, "a peer's row of counters has no room for these");
        }
        PeerGroup(span)
    }

    /// Sets the counters of a group.
    ///
    /// # Panics
    /// If there is not one value for each counter.
    pub fn set(&mut self, group: Group, values: &[u64]) {
        if let Some(span) = group.0 {
            self.page.set_totals(span, values);
        }
    }

    /// Sets the counters of a peer. They are shown if the peer has a row of its own: [`super::PEERS_MAX`] have.
    ///
    /// # Panics
    /// If there is not one value for each counter.
    pub fn set_peer(&mut self, group: PeerGroup, peer: PeerId, values: &[u64]) {
        let Some(span) = group.0 else { return };
        assert_eq!(values.len(), span.count, "a value for each counter of the group");
        let Some(row) = self.peers.index_of(peer) else { return };
        // Behind those of this layer.
        let column = span.at - OWN;
        self.peers.row_of(peer).above[column..column + values.len()].copy_from_slice(values);
        self.page.set_row(row, span.at, values);
    }

    /// True if the peer has a row of its own.
    pub fn has_row(&self, peer: PeerId) -> bool {
        self.peers.index_of(peer).is_some()
    }

    /// Sets the counters of all peers without a row.
    ///
    /// # Panics
    /// If there is not one value for each counter.
    pub fn set_others(&mut self, group: PeerGroup, values: &[u64]) {
        let Some(span) = group.0 else { return };
        assert_eq!(values.len(), span.count, "a value for each counter of the group");
        let column = span.at - OWN;
        self.peers.others().above[column..column + values.len()].copy_from_slice(values);
        self.page.set_row(OTHERS, span.at, values);
    }

    /// Counts a message sent.
    #[inline]
    pub(super) fn sent(&mut self, to: PeerId, len: usize) {
        self.peers.row_of(to).traffic.sent(len);
    }

    /// Counts a message received, by a hint whose it is.
    #[inline]
    pub(super) fn received(&mut self, from: PeerId, len: usize) {
        self.peers.row_of_sender(from).traffic.received(len);
    }

    /// Counts messages copied to be sent.
    #[inline]
    pub(super) fn copied_to(&mut self, to: PeerId, messages: usize) {
        self.peers.row_of(to).traffic.copies(messages);
    }

    /// Counts a message copied that was received.
    #[inline]
    pub(super) fn copied_from(&mut self, from: PeerId) {
        self.peers.row_of_sender(from).traffic.copied();
    }

    /// Counts something dropped, of a peer or for it.
    pub(super) fn dropped(&mut self, peer: PeerId, why: Reason) {
        self.peers.row_of_sender(peer).drops[why as usize] += 1;
    }

    /// Counts what has been counted elsewhere.
    pub(crate) fn add(&mut self, peer: PeerId, traffic: Traffic) {
        self.peers.add(peer, traffic);
    }

    pub(crate) fn written_at(&self) -> Time {
        self.written_at
    }

    pub(crate) fn is_due(&self, now: Time) -> bool {
        now.saturating_since(self.written_at) >= INTERVAL
    }

    /// True once after each publication: the layer above is to set its counters.
    pub(crate) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// Shows the counters as they are.
    pub(crate) fn publish(&mut self, now: Time, stats: &Stats, levels: Levels) {
        let Live { page, peers, kinds, spans, .. } = self;
        page.write(now, |page| {
            page.set_totals(spans[0], &stats.values());
            page.set_totals(spans[1], &stats.drops.values());
            page.set_totals(spans[2], &levels);
            peers.age(now, kinds);
            let rows = peers.rows();
            for (at, row) in rows.iter().enumerate() {
                page.name_row(at, row.peer, rows.len());
                page.set_row(at, 0, &row.traffic.values());
                page.set_row(at, TRAFFIC.len(), &row.drops);
                page.set_row(at, OWN, &row.above[..kinds.len()]);
            }
        });
        self.written_at = now;
        self.due = true;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // If it is gone already, that is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}
