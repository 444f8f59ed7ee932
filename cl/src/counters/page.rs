//! What is in a file of counters, and its writer.
//!
//! Everything is a word of 8 bytes in the byte order of the machine; texts lie in words, too.
//!
//! | word | |
//! | --- | --- |
//! | 0 | "GHIDSTAT", written last: a page without it is being made |
//! | 1 | version of this layout |
//! | 2 | length of the page in words |
//! | 3 | how often it was written, times two; odd while it is being written |
//! | 4 | process |
//! | 5 | when that started, in the kernel's ticks since boot: tells it from another of the same number |
//! | 6 | the endpoint's [`PeerId`] |
//! | 7, 8 | wall clock when it was opened and when this was written, nanoseconds |
//! | 9 | bytes of text |
//! | 10 | rows of peers |
//! | from [`TEXT_AT`] | lines: `endpoint KEY VALUE`, `total GROUP NAME KIND MEANING`, `peer GROUP NAME KIND MEANING`, separated by tabs |
//! | from [`TOTALS_AT`] | values of the totals, in the order of their lines |
//! | from [`ROWS_AT`] | rows: the peer's [`PeerId`], then the values in the order of the `peer` lines. The first row is of all the others |

use super::Label;
use crate::region::{Region, Words};
use cl_base::{PeerId, Time};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"GHIDSTAT");
pub(super) const VERSION: u64 = 2;

pub(super) const GENERATION: usize = 3;
pub(super) const PID: usize = 4;
pub(super) const STARTED: usize = 5;
pub(super) const ME: usize = 6;
pub(super) const OPENED_AT: usize = 7;
pub(super) const WRITTEN_AT: usize = 8;
pub(super) const TEXT_LEN: usize = 9;
pub(super) const ROWS: usize = 10;

/// Peers counted one by one: as many as a person looks at, and as fit a page of about 115 KiB. The rest is one
/// row.
pub const PEERS_MAX: usize = 256;
/// Room for the lines: about 120 counters with their meanings.
const TEXT_WORDS: usize = 2048;
/// Room for the values of an endpoint.
const TOTALS_MAX: usize = 128;
/// Words of a row: the peer and up to 47 values.
pub(super) const ROW_WORDS: usize = 48;

pub(super) const TEXT_AT: usize = 16;
pub(super) const TEXT_LEN_MAX: usize = TEXT_WORDS * 8;
pub(super) const TOTALS_AT: usize = TEXT_AT + TEXT_WORDS;
pub(super) const ROWS_AT: usize = TOTALS_AT + TOTALS_MAX;
pub(super) const WORDS: usize = ROWS_AT + (1 + PEERS_MAX) * ROW_WORDS;
pub(super) const LEN: usize = WORDS * 8;

/// Which table a counter is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Total,
    Peer,
}

/// Values next to each other, of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) count: usize,
}

/// A mapped page, which this process alone writes.
#[derive(Debug)]
pub(super) struct Page {
    words: Words<AtomicU64>,
    text: String,
    totals: usize,
    columns: usize,
}

impl Page {
    /// A page over a file of [`LEN`] zero bytes.
    pub(super) fn new(file: &File, me: PeerId, about: &[(&str, String)], now: Time) -> io::Result<Page> {
        let region = Arc::new(Region::over(file, LEN)?);
        let mut page = Page { words: region.words(0..LEN), text: String::new(), totals: 0, columns: 0 };
        page.put(1, VERSION);
        page.put(2, WORDS as u64);
        page.put(PID, u64::from(std::process::id()));
        page.put(STARTED, started_ticks().unwrap_or(0));
        page.put(ME, me.to_u64());
        page.put(OPENED_AT, now.as_nanos());
        page.put(WRITTEN_AT, now.as_nanos());
        for (key, value) in about {
            page.add_line(&["endpoint", key, value]);
        }
        Ok(page)
    }

    /// Lets others read it.
    pub(super) fn announce(&self) {
        self.words[0].store(MAGIC, Ordering::Release);
    }

    fn put(&self, at: usize, value: u64) {
        self.words[at].store(value, Ordering::Relaxed);
    }

    /// Has `write` change the page in such a way that no reader takes the half of it for the whole.
    pub(super) fn write<T>(&mut self, now: Time, write: impl FnOnce(&mut Page) -> T) -> T {
        let generation = self.words[GENERATION].load(Ordering::Relaxed);
        self.put(GENERATION, generation + 1);
        fence(Ordering::Release);
        self.put(WRITTEN_AT, now.as_nanos());
        let result = write(self);
        self.words[GENERATION].store(generation + 2, Ordering::Release);
        result
    }

    /// Adds a group of counters to a table; `None` if there is no room for it.
    pub(super) fn add_group(&mut self, scope: Scope, group: &str, labels: &[Label]) -> Option<Span> {
        let (used, max, word) = match scope {
            Scope::Total => (&mut self.totals, TOTALS_MAX, "total"),
            Scope::Peer => (&mut self.columns, ROW_WORDS - 1, "peer"),
        };
        let span = Span { at: *used, count: labels.len() };
        if span.at + span.count > max {
            return None;
        }
        let before = self.text.len();
        let add = |label: &Label| {
            let kind = match label.kind {
                super::Kind::Count => "count",
                super::Kind::Level => "level",
            };
            [word, group, label.name, kind, label.meaning.trim()].join("\t") + "\n"
        };
        let lines: String = labels.iter().map(add).collect();
        if before + lines.len() > TEXT_LEN_MAX {
            return None;
        }
        *used += span.count;
        self.append(&lines);
        Some(span)
    }

    fn add_line(&mut self, cells: &[&str]) {
        let line = cells.join("\t").replace('\n', " ") + "\n";
        if self.text.len() + line.len() <= TEXT_LEN_MAX {
            self.append(&line);
        }
    }

    fn append(&mut self, lines: &str) {
        let first = self.text.len() / 8;
        self.text += lines;
        for (at, bytes) in self.text.as_bytes().chunks(8).enumerate().skip(first) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.put(TEXT_AT + at, u64::from_ne_bytes(word));
        }
        self.put(TEXT_LEN, self.text.len() as u64);
    }

    /// Sets the values of a group.
    pub(super) fn set_totals(&self, span: Span, values: &[u64]) {
        assert_eq!(values.len(), span.count, "a value for each counter of the group");
        (TOTALS_AT + span.at..).zip(values).for_each(|(at, value)| self.put(at, *value));
    }

    /// Sets values of a row.
    pub(super) fn set_row(&self, row: usize, at: usize, values: &[u64]) {
        assert!(row <= PEERS_MAX && at + values.len() < ROW_WORDS, "row {row}, column {at}");
        let first = ROWS_AT + row * ROW_WORDS + 1 + at;
        (first..).zip(values).for_each(|(at, value)| self.put(at, *value));
    }

    /// Says whose a row is, and how many rows there are.
    pub(super) fn name_row(&self, row: usize, peer: PeerId, rows: usize) {
        assert!(row <= PEERS_MAX && rows <= PEERS_MAX + 1, "row {row} of {rows}");
        self.put(ROWS_AT + row * ROW_WORDS, peer.to_u64());
        self.put(ROWS, rows as u64);
    }
}

/// When this process started, in the kernel's ticks since boot.
fn started_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}
