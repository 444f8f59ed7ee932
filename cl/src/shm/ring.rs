//! The single-producer, single-consumer ring between two processes.
//!
//! A ring is a power of two of 64-bit words. A record is a header word that is not zero, and behind it its
//! contents in whole words. The producer writes records behind each other, but the header of the first one, which it holds
//! back; when it is told to, or when they fill an eighth of the ring, it clears the word behind the last, where
//! the next header will be, and publishes that first header, and all of them with it. So the consumer polls one word, which lies
//! in the cache line of the contents when these are short: a message costs one transfer of that line. What has been consumed is
//! told to the producer only every eighth of the ring, for telling costs a transfer too.
//!
//! Stores are what a message costs: each waits in the processor's store queue until those before it have got their
//! lines from the other side. So nothing is stored for a message that can be stored for many, and both sides ask for lines before
//! they need them, many at a time: the producer for those it will write next, once the consumer is done with them, and the
//! consumer for all that were published together, for the header that was held back says how many words they are.
//!
//! All words are atomics: whatever the process on the other side writes there, reading it is defined, and
//! what was read is checked before it is believed.

use crate::pool::Loan;
use crate::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// Bytes that are copied into the ring at most; longer messages are lent.
pub(crate) const INLINE_MAX: usize = 1024;

/// Records are held back until they fill this part of the ring: both sides then work at the same time.
const HELD_PART: usize = 8;

/// Words of a cache line.
const LINE: u64 = 8;

/// Set in every header, so that none is zero.
const PRESENT: u64 = 1 << 63;
const KIND: u32 = 32;
/// Above the kind: how many words were published together, this record's and those behind it; 0 in the records behind. Only a
/// hint what to fetch.
const EXTENT: u32 = 34;
const EXTENT_MAX: u64 = (1 << (63 - EXTENT)) - 1;

/// What a record is.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The rest of the ring is unused; the next record is at its beginning.
    Skip = 0,
    /// A message, copied.
    Inline = 1,
    /// A message lent: behind the header the slot's number, and where in the slot the contents begin.
    Lent = 2,
}

fn header(kind: Kind, len: usize) -> u64 {
    PRESENT | (kind as u64) << KIND | len as u64
}

/// A message copied in, as it is counted: the messages in the upper half, the bytes in the lower one.
fn counted(len: usize) -> u64 {
    1 << 32 | len as u64
}

/// The words that a record of `len` bytes of contents takes, its header included.
fn words(len: usize) -> usize {
    1 + len.div_ceil(8)
}

/// The end that writes.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    /// Words written since the beginning.
    at: u64,
    /// Words known to be consumed.
    consumed: u64,
    /// Up to here lines were asked for.
    fetched: u64,
    /// The header that is held back, and where it belongs, counted as `at` is; what is behind it cannot be seen before it is.
    held: Option<(u64, u64)>,
    /// Messages and bytes copied in, those since the last release apart: both in one word, the messages in its upper half.
    copied: (u64, u64),
    copied_lately: u64,
}

/// The end that reads.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    /// Words read since the beginning.
    at: u64,
    /// And told to the producer.
    told: u64,
}

/// What the consumer found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A message of so many bytes, to be taken with [`Consumer::copy`].
    Inline(usize),
    /// A buffer lent to us.
    Lent(Loan),
}

/// Words of a ring into which short messages can be copied one after the other with no look at anything else:
/// [`Producer::stretch`]. Whoever copies many has it in registers, and then stores the messages and nothing beside.
#[derive(Debug, Default)]
pub(crate) struct Stretch<'a> {
    free: &'a [AtomicU64],
    /// How many were free at first.
    len: usize,
    /// Messages and bytes written, the messages in the upper half.
    copied: u64,
}

impl Stretch<'_> {
    /// Writes a message of at most [`INLINE_MAX`] bytes. False if it does not fit in here.
    #[inline]
    pub(crate) fn put(&mut self, contents: &[u8]) -> bool {
        let need = words(contents.len());
        let Some((record, free)) = self.free.split_at_checked(need) else { return false };
        let Some((first, record)) = record.split_first() else { return false };
        copy_in(record, contents);
        // Seen only by those who have seen the header that is held back.
        first.store(header(Kind::Inline, contents.len()), Ordering::Relaxed);
        self.free = free;
        self.copied += counted(contents.len());
        true
    }

    /// How many were written.
    #[inline]
    pub(crate) fn messages(&self) -> usize {
        (self.copied >> 32) as usize
    }
}

/// The producer has written what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Producer {
    /// Writes a message, if there is room: a word, if given, and the bytes of `contents`.
    #[inline]
    pub(crate) fn put(
        &mut self,
        ring: &[AtomicU64],
        consumed: &AtomicU64,
        word: Option<u64>,
        contents: &[u8],
    ) -> bool {
        let len = contents.len() + if word.is_some() { 8 } else { 0 };
        debug_assert!(len <= INLINE_MAX);
        let need = words(len);
        let Some(at) = self.reserve(ring, consumed, need) else { return false };
        let record = &ring[at + 1..at + need];
        match word {
            None => copy_in(record, contents),
            Some(word) => {
                record[0].store(word, Ordering::Relaxed);
                copy_in(&record[1..], contents);
            }
        }
        // Counted first: the header may release it.
        self.copied_lately += counted(len);
        self.write_header(ring, at, need, header(Kind::Inline, len));
        true
    }

    /// The words up to the next at which something else is to be done than to write: to release what was
    /// written, to look for room or to go back to the beginning. None if nothing is held back, for what is written there
    /// shows with the header that is. [`Producer::end_stretch`] is to be called before anything else is.
    #[inline]
    pub(crate) fn stretch<'a>(&self, ring: &'a [AtomicU64]) -> Stretch<'a> {
        let Some((held, _)) = self.held else { return Stretch::default() };
        let at = self.at as usize & (ring.len() - 1);
        let to_release = (held + (ring.len() / HELD_PART) as u64 - 1).saturating_sub(self.at);
        // The word behind is for the next header.
        let room = (self.consumed + ring.len() as u64 - 1).saturating_sub(self.at);
        let free = &ring[at..ring.len() - 1];
        let len = (to_release.min(room) as usize).min(free.len());
        Stretch { free: &free[..len], len, copied: 0 }
    }

    /// Goes on behind what was written into a stretch.
    #[inline]
    pub(crate) fn end_stretch(&mut self, stretch: Stretch<'_>) {
        self.at += (stretch.len - stretch.free.len()) as u64;
        self.copied_lately += stretch.copied;
    }

    /// True if a loan can be written now.
    #[inline]
    pub(crate) fn has_room_for_loan(&mut self, ring: &[AtomicU64], consumed: &AtomicU64) -> bool {
        self.reserve(ring, consumed, 2).is_some()
    }

    /// Writes that a buffer is lent.
    ///
    /// # Panics
    /// If there is no room.
    #[inline]
    pub(crate) fn put_loan(&mut self, ring: &[AtomicU64], consumed: &AtomicU64, loan: Loan) {
        let at = self.reserve(ring, consumed, 2).expect("the caller has looked whether there is room");
        ring[at + 1].store(u64::from(loan.slot) | u64::from(loan.start) << 32, Ordering::Relaxed);
        self.write_header(ring, at, 2, header(Kind::Lent, loan.len as usize));
    }

    /// The index at which `need` words and the next header can be written, or `None` if the ring is full.
    #[inline]
    fn reserve(&mut self, ring: &[AtomicU64], consumed: &AtomicU64, need: usize) -> Option<usize> {
        let mask = ring.len() - 1;
        let at = self.at as usize & mask;
        // A record does not wrap around, and the header behind it does not either.
        let skip = if at + need < ring.len() { 0 } else { ring.len() - at };
        let end = self.at + (skip + need + 1) as u64;
        if end - self.consumed > ring.len() as u64 {
            let told = consumed.load(Ordering::Acquire);
            // What cannot be is ignored: the ring then looks full.
            if told > self.consumed && told <= self.at {
                self.consumed = told;
            }
            if end - self.consumed > ring.len() as u64 {
                return None;
            }
            // Whoever had to wait for room writes all of it next.
            self.fetch(ring);
        }
        if skip == 0 {
            return Some(at);
        }
        ring[0].store(0, Ordering::Relaxed);
        // Release, as for any header; behind one that is held back it is not seen either.
        ring[at].store(header(Kind::Skip, 0), Ordering::Release);
        self.at += skip as u64;
        Some(0)
    }

    /// Ends a record. The first since the last [`Producer::release`] is held back, and those behind it with it,
    /// so that the consumer does not fetch the lines that are being written: they would go to and fro.
    #[inline]
    fn write_header(&mut self, ring: &[AtomicU64], index: usize, need: usize, header: u64) {
        let at = self.at;
        self.at += need as u64;
        match self.held {
            None => self.held = Some((at, header)),
            Some((held, _)) => {
                // Seen only by those who have seen the header that is held.
                ring[index].store(header, Ordering::Relaxed);
                if self.at - held >= (ring.len() / HELD_PART) as u64 {
                    self.release(ring);
                    self.fetch(ring);
                }
            }
        }
    }

    /// Asks for the lines that are written next: as many as are then filled while those behind them are under way, of those that
    /// the consumer is known to be done with. Only for one who writes much, and behind what was released: it would wait for these
    /// lines.
    #[inline]
    fn fetch(&mut self, ring: &[AtomicU64]) {
        let until = (self.at + 2 * (ring.len() / HELD_PART) as u64).min(self.consumed + ring.len() as u64);
        let mut at = self.fetched.max(self.at).next_multiple_of(LINE);
        while at < until {
            prefetch::to_write(&ring[at as usize & (ring.len() - 1)]);
            at += LINE;
        }
        self.fetched = at;
    }

    /// Lets the consumer see all records.
    #[inline]
    pub(crate) fn release(&mut self, ring: &[AtomicU64]) {
        if let Some((at, header)) = self.held.take() {
            let mask = ring.len() - 1;
            ring[self.at as usize & mask].store(0, Ordering::Relaxed);
            let extent = (self.at - at).min(EXTENT_MAX) << EXTENT;
            // Release: whoever sees the header sees the contents, all records behind it, and the cleared word behind
            // these.
            ring[at as usize & mask].store(header | extent, Ordering::Release);
            self.copied.0 += self.copied_lately >> 32;
            self.copied.1 += u64::from(self.copied_lately as u32);
            self.copied_lately = 0;
        }
    }

    /// How many messages were copied into the ring and released, and of how many bytes.
    pub(crate) fn copied(&self) -> (u64, u64) {
        self.copied
    }
}

impl Consumer {
    /// What is next, if anything is; [`Consumer::done`] takes it off the ring.
    #[inline]
    pub(crate) fn peek(&mut self, ring: &[AtomicU64]) -> Result<Option<Record>, Broken> {
        let at = self.at as usize & (ring.len() - 1);
        let header = ring[at].load(Ordering::Acquire);
        if header == 0 {
            return Ok(None);
        }
        let extent = header >> EXTENT & EXTENT_MAX;
        if extent > 0 {
            fetch(ring, at, extent);
        }
        let header = header & !(EXTENT_MAX << EXTENT);
        let len = header as u32 as usize;
        if header >> KIND == self::header(Kind::Inline, 0) >> KIND {
            let fits = len <= INLINE_MAX && at + words(len) < ring.len();
            return if fits { Ok(Some(Record::Inline(len))) } else { Err(Broken) };
        }
        self.peek_rarer(ring, at, header)
    }

    #[inline(never)]
    fn peek_rarer(&mut self, ring: &[AtomicU64], at: usize, header: u64) -> Result<Option<Record>, Broken> {
        let len = header as u32 as usize;
        if header == self::header(Kind::Lent, len) && at + 2 < ring.len() {
            let place = ring[at + 1].load(Ordering::Relaxed);
            let loan = Loan { slot: place as u32, start: (place >> 32) as u32, len: len as u32 };
            return Ok(Some(Record::Lent(loan)));
        }
        if header == self::header(Kind::Skip, 0) && at != 0 {
            self.at += (ring.len() - at) as u64;
            return self.peek(ring);
        }
        Err(Broken)
    }

    /// True if nothing is next. Unlike [`Consumer::peek`] it changes nothing.
    #[inline]
    pub(crate) fn is_empty(&self, ring: &[AtomicU64]) -> bool {
        ring[self.at as usize & (ring.len() - 1)].load(Ordering::Acquire) == 0
    }

    /// Copies the message just found.
    #[inline]
    pub(crate) fn copy(&self, ring: &[AtomicU64], into: &mut [u8]) {
        let at = self.at as usize & (ring.len() - 1);
        copy_out(&ring[at + 1..at + words(into.len())], into);
    }

    /// Takes a record of `len` bytes (of a loan: 8) off the ring.
    #[inline]
    pub(crate) fn done(&mut self, ring: &[AtomicU64], consumed: &AtomicU64, len: usize) {
        self.at += words(len) as u64;
        if self.at - self.told >= ring.len() as u64 / 8 {
            // Release: what was copied out has been read before the producer writes there again.
            consumed.store(self.at, Ordering::Release);
            self.told = self.at;
        }
    }
}

/// Asks for the lines of records that were published together, as far as the end of the ring, but for the first, which is
/// there.
fn fetch(ring: &[AtomicU64], at: usize, extent: u64) {
    let len = (extent as usize).min(ring.len() / HELD_PART);
    let until = (at + len).min(ring.len());
    for line in (at..until).step_by(LINE as usize).skip(1) {
        prefetch::to_read(&ring[line]);
    }
}

/// Words that are copied without a look whether there are more: for a line of the cache, as many messages have.
const AT_ONCE: usize = 8;

#[inline]
fn copy_in(mut to: &[AtomicU64], from: &[u8]) {
    let (lines, from) = from.as_chunks::<{ 8 * AT_ONCE }>();
    for line in lines {
        let Some((these, others)) = to.split_first_chunk::<AT_ONCE>() else { return };
        let (words, _) = line.as_chunks::<8>();
        for i in 0..AT_ONCE {
            these[i].store(u64::from_le_bytes(words[i]), Ordering::Relaxed);
        }
        to = others;
    }
    let (whole, rest) = from.as_chunks::<8>();
    for (to, from) in to.iter().zip(whole) {
        to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        to[whole.len()].store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
}

#[inline]
fn copy_out(mut from: &[AtomicU64], to: &mut [u8]) {
    let (lines, to) = to.as_chunks_mut::<{ 8 * AT_ONCE }>();
    for line in lines {
        let Some((these, others)) = from.split_first_chunk::<AT_ONCE>() else { return };
        let (words, _) = line.as_chunks_mut::<8>();
        for i in 0..AT_ONCE {
            words[i] = these[i].load(Ordering::Relaxed).to_le_bytes();
        }
        from = others;
    }
    let (whole, rest) = to.as_chunks_mut::<8>();
    for (to, from) in whole.iter_mut().zip(from) {
        *to = from.load(Ordering::Relaxed).to_le_bytes();
    }
    if !rest.is_empty() {
        let last = from[whole.len()].load(Ordering::Relaxed).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
