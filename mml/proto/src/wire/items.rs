//! What a session frame says, item by item.
//!
//! ```text
//! item        tag 1 | ...
//!   message   tag UNR, ACK or NACK | step | [behind] | length | body
//!   ack       next 8 | words 1 | bitmap of what has arrived beyond `next`, words x 8
//!   report    next 8 | ranges 1 | ranges x (first 8 | count 4): what is missing
//!   advert    base 8 | next 8
//!   close
//!   confirm   the sender wants to hear the receiver under the same keys
//!   padding   tag 0 and what follows: at most 15 bytes, which say nothing
//! ```
//! `step`, `behind` and `length` take one byte when they are small (LEB128). `step` is how far the number of the
//! message is from the one after the last message of its kind in the frame (from 0 for the first), zigzag: so
//! messages that follow each other have the step 0. `behind` (not of UNR) is the distance from the number
//! back to the oldest message that the sender would still repeat. A message with the tag's [`BULK`] bit has its
//! body in the bulk of the frame; there is at most one.

use super::BLOCK_BYTES;

/// Bytes of a message item before its body, at most: tag and three varints.
pub(crate) const MESSAGE_HEADER_MAX: usize = 1 + 10 + 5 + 5;
/// Words of an acknowledgement bitmap; with 64 messages each, the window of ACK messages.
pub(crate) const ACK_WORDS_MAX: usize = 4;
/// Ranges asked for at once; what does not fit is asked for next time.
pub(crate) const RANGES_MAX: usize = 32;
/// Sequence numbers end here, so that arithmetic on what a peer claims cannot overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

const PADDING: u8 = 0;
pub(crate) const UNR: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const NACK: u8 = 3;
const ACK_REPORT: u8 = 4;
const NACK_REPORT: u8 = 5;
const NACK_ADVERT: u8 = 6;
const CLOSE: u8 = 7;
const CONFIRM: u8 = 8;
pub(crate) const BULK: u8 = 0x80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Message { kind: u8, number: u64, base: u64, body: &'a [u8] },
    Ack { next: u64, beyond: [u64; ACK_WORDS_MAX] },
    Report { next: u64, missing: Ranges<'a> },
    Advert { base: u64, next: u64 },
    Close,
    Confirm,
}

/// Ranges of numbers as they lie in the frame: first and count of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranges<'a>(&'a [u8]);

const RANGE_BYTES: usize = 12;

impl Ranges<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.0.chunks_exact(RANGE_BYTES).map(|range| {
            let (first, count) = range.split_at(8);
            let first = u64::from_le_bytes(first.try_into().expect("8 bytes"));
            (first, u32::from_le_bytes(count.try_into().expect("4 bytes")))
        })
    }
}

/// The items of an authentic frame, one after the other. To be walked through twice: the first time to see that
/// the frame breaks no rule anywhere ([`Items::are_sound`]), the second time to do what it says.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a> {
    reader: Reader<'a>,
    bulk: Option<&'a [u8]>,
    /// The next number of each kind of message, if it follows the last.
    next: [u64; 3],
    broken: bool,
}

impl<'a> Items<'a> {
    pub(crate) fn new(items: &'a [u8], bulk: &'a [u8]) -> Items<'a> {
        let bulk = Some(bulk).filter(|bulk| !bulk.is_empty());
        Items { reader: Reader(items), bulk, next: [0; 3], broken: false }
    }

    /// Whether all of them can be read, and the bulk belongs to one of them.
    pub(crate) fn are_sound(&self) -> bool {
        let mut items = self.clone();
        while items.next().is_some() {}
        !items.broken && items.bulk.is_none()
    }

    #[inline]
    fn read(&mut self) -> Option<Item<'a>> {
        let reader = &mut self.reader;
        match reader.u8()? {
            tag if matches!(tag & !BULK, UNR | ACK | NACK) => {
                let kind = tag & !BULK;
                let next = &mut self.next[usize::from(kind - UNR)];
                let number = next.wrapping_add(unzigzag(reader.varint()?));
                if number >= NUMBER_MAX {
                    return None;
                }
                *next = number + 1;
                let behind = if kind == UNR { 0 } else { reader.varint()? };
                let base = number.checked_sub(behind)?;
                let len = usize::try_from(reader.varint()?).ok()?;
                let body = match tag & BULK {
                    0 => reader.take(len)?,
                    _ => self.bulk.take().filter(|bulk| bulk.len() == len)?,
                };
                Some(Item::Message { kind, number, base, body })
            }
            ACK_REPORT => {
                let next = reader.number()?;
                let words = usize::from(reader.u8()?);
                let mut beyond = [0; ACK_WORDS_MAX];
                for word in beyond.get_mut(..words)? {
                    *word = reader.u64()?;
                }
                Some(Item::Ack { next, beyond })
            }
            NACK_REPORT => {
                let next = reader.number()?;
                let ranges = usize::from(reader.u8()?);
                if ranges > RANGES_MAX {
                    return None;
                }
                let missing = Ranges(reader.take(ranges * RANGE_BYTES)?);
                missing.iter().all(|(first, _)| first < NUMBER_MAX).then_some(Item::Report { next, missing })
            }
            NACK_ADVERT => {
                let (base, next) = (reader.number()?, reader.number()?);
                (base <= next).then_some(Item::Advert { base, next })
            }
            CLOSE => Some(Item::Close),
            CONFIRM => Some(Item::Confirm),
            _ => None,
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        match self.reader.0 {
            _ if self.broken => return None,
            [] => return None,
            [PADDING, rest @ ..] if rest.len() < BLOCK_BYTES - 1 => return None,
            _ => {}
        }
        let item = self.read();
        self.broken = item.is_none();
        item
    }
}

/// Writes message items, each relative to the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageWriter {
    next: [u64; 3],
}

impl MessageWriter {
    /// All of a message item but the body.
    #[inline]
    pub(crate) fn put(&mut self, frame: &mut Vec<u8>, tag: u8, number: u64, base: u64, len: usize) {
        let kind = tag & !BULK;
        let next = &mut self.next[usize::from(kind - UNR)];
        frame.push(tag);
        put_varint(frame, zigzag(number.wrapping_sub(*next)));
        *next = number + 1;
        if kind != UNR {
            put_varint(frame, number - base);
        }
        put_varint(frame, len as u64);
    }
}

pub(crate) fn put_ack(frame: &mut Vec<u8>, next: u64, beyond: &[u64; ACK_WORDS_MAX]) {
    let words = ACK_WORDS_MAX - beyond.iter().rev().take_while(|word| **word == 0).count();
    frame.push(ACK_REPORT);
    frame.extend_from_slice(&next.to_le_bytes());
    frame.push(words as u8);
    for word in &beyond[..words] {
        frame.extend_from_slice(&word.to_le_bytes());
    }
}

pub(crate) fn put_report(frame: &mut Vec<u8>, next: u64, missing: &[(u64, u32)]) {
    debug_assert!(missing.len() <= RANGES_MAX);
    frame.push(NACK_REPORT);
    frame.extend_from_slice(&next.to_le_bytes());
    frame.push(missing.len() as u8);
    for (first, count) in missing {
        frame.extend_from_slice(&first.to_le_bytes());
        frame.extend_from_slice(&count.to_le_bytes());
    }
}

pub(crate) fn put_advert(frame: &mut Vec<u8>, base: u64, next: u64) {
    frame.push(NACK_ADVERT);
    frame.extend_from_slice(&base.to_le_bytes());
    frame.extend_from_slice(&next.to_le_bytes());
}

pub(crate) fn put_close(frame: &mut Vec<u8>) {
    frame.push(CLOSE);
}

pub(crate) fn put_confirm(frame: &mut Vec<u8>) {
    frame.push(CONFIRM);
}

/// Fills the last block of what is sealed.
pub(crate) fn put_padding(frame: &mut Vec<u8>, text_at: usize) {
    let text_len = (frame.len() - text_at).next_multiple_of(BLOCK_BYTES);
    frame.resize(text_at + text_len, PADDING);
}

/// A difference modulo 2^64 as a number that is small if the difference is, whatever its sign.
fn zigzag(step: u64) -> u64 {
    (step << 1) ^ ((step as i64 >> 63) as u64)
}

fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

#[inline]
fn put_varint(frame: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        frame.push(value as u8 | 0x80);
        value >>= 7;
    }
    frame.push(value as u8);
}

/// A cursor that never reads past the end.
#[derive(Clone, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")))
    }

    /// A sequence number: within the range in which arithmetic is safe.
    fn number(&mut self) -> Option<u64> {
        self.u64().filter(|n| *n < NUMBER_MAX)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        self.long_varint(u64::from(first & 0x7f))
    }

    /// The rest of a number of more than seven bits; `None` if it exceeds 64.
    fn long_varint(&mut self, mut value: u64) -> Option<u64> {
        for shift in (7..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cl_base::Rng;

    #[test]
    fn messages_are_read_as_they_were_written() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut frame, mut writer, mut written) = (Vec::new(), MessageWriter::default(), Vec::new());
            for _ in 0..rng.below(20) {
                let kind = UNR + rng.below(3) as u8;
                let number = if rng.chance(1, 2) { rng.below(50) } else { rng.next_u64() % NUMBER_MAX };
                let base = if kind == UNR { number } else { number - rng.below(number.min(1 << 31) + 1) };
                let body = vec![kind; rng.below(300) as usize];
                writer.put(&mut frame, kind, number, base, body.len());
                frame.extend_from_slice(&body);
                written.push((kind, number, base, body));
            }
            let items = Items::new(&frame, &[]);
            assert!(items.are_sound());
            let read: Vec<_> = items
                .map(|item| match item {
                    Item::Message { kind, number, base, body } => (kind, number, base, body.to_vec()),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(read, written, "seed {seed}");
        }
    }

    #[test]
    fn small_messages_in_a_row_have_three_bytes_more() {
        let (mut frame, mut writer) = (Vec::new(), MessageWriter::default());
        writer.put(&mut frame, UNR, 1 << 40, 1 << 40, 64);
        let first = frame.len();
        writer.put(&mut frame, UNR, (1 << 40) + 1, (1 << 40) + 1, 64);
        assert_eq!(frame.len() - first, 3);
    }

    #[test]
    fn padding_says_nothing_and_is_shorter_than_a_block() {
        for len in 0..40 {
            let (mut frame, mut writer) = (vec![9; 24], MessageWriter::default());
            writer.put(&mut frame, UNR, 0, 0, len);
            frame.resize(frame.len() + len, 7);
            put_padding(&mut frame, 24);
            assert!((frame.len() - 24).is_multiple_of(BLOCK_BYTES));
            let items = Items::new(&frame[24..], &[]);
            assert!(items.are_sound());
            assert_eq!(items.count(), 1);
        }
        assert!(Items::new(&[0; 15], &[]).are_sound());
        assert!(!Items::new(&[0; 16], &[]).are_sound());
    }

    #[test]
    fn steps_of_either_sign_are_small() {
        for step in [0, 1, -1, 2, -300, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(step as u64)), step as u64);
        }
        assert_eq!(zigzag(u64::MAX), 1);
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let read = |bytes: &[u8]| Reader(bytes).varint();
        assert_eq!(read(&[0xff; 9]), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Some(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
        assert_eq!(read(&[0x80, 0x80, 1]), Some(1 << 14));
    }
}
