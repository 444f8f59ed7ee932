//! Bytes on the wire. All integers are little-endian.
//!
//! ```text
//! init        format 1 | kind 1 | lowest and highest version 2 | features 4 | incarnation 8 | attempt 8
//!             | continued session 8 | Noise message 48 | mac 16 | cookie mac 16
//! response    format 1 | kind 1 | 0 2 | mac of the init 16 | Noise message 64 | mac 16
//! cookie      format 1 | kind 1 | 0 2 | mac of the init 16 | cookie 16 | mac 16
//! refusal     format 1 | kind 1 | reason 1 | 0 1 | mac of the init 16 | value 8 | mac 16
//! unknown     format 1 | kind 1 | 0 2 | session 8 | incarnation 8 | mac 16
//! session     format 1 | kind 1 | class 1 | 0 1 | bulk length 4 | session 8 | frame number 8
//!             | items | bulk | mac 16
//! item        tag 1 | ...
//!   message   tag UNR, ACK or NACK | number 8 | behind 4 | length 4 | body
//!   ack       next 8 | words 1 | bitmap of what has arrived beyond `next`, words x 8
//!   report    next 8 | ranges 1 | ranges x (first 8 | count 4): what is missing
//!   advert    base 8 | next 8
//!   close
//!   confirm   the sender wants to hear the receiver under the same keys
//! ```
//! The format is that of these first bytes. The version of the protocol is negotiated in the handshake, and is
//! a property of the session; so `init`, `refusal` and the first four bytes of all frames keep their form
//! as long as the format stays.
//!
//! `behind` is the distance from the number of the message back to the oldest one that its sender would
//! still repeat. A message with the tag's [`BULK`] bit has its body in the bulk part; there is at most one.
//! The MAC of a session frame covers the digest of the bulk in its place, so that a long body sent to
//! many is hashed once.

use crate::mac::MAC_BYTES;

pub(crate) mod handshake;

/// The first byte of every frame.
pub(crate) const FORMAT: u8 = 1;
pub(crate) const SESSION_HEADER_BYTES: usize = 24;
/// Bytes of a message item before its body.
pub(crate) const MESSAGE_HEADER_BYTES: usize = 17;
/// Bodies longer than this travel as bulk. Below, one more hash costs more than it saves.
pub(crate) const BULK_MIN: usize = 1024;
/// Words of an acknowledgement bitmap; with 64 messages each, the window of ACK messages.
pub(crate) const ACK_WORDS_MAX: usize = 4;
/// Ranges asked for at once; what does not fit is asked for next time.
pub(crate) const RANGES_MAX: usize = 32;
/// Sequence numbers end here, so that arithmetic on what a peer claims cannot overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Init = 1,
    Response = 2,
    Cookie = 3,
    Session = 4,
    Unknown = 5,
    Refusal = 6,
}

pub(crate) const UNR: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const NACK: u8 = 3;
const ACK_REPORT: u8 = 4;
const NACK_REPORT: u8 = 5;
const NACK_ADVERT: u8 = 6;
const CLOSE: u8 = 7;
const CONFIRM: u8 = 8;
pub(crate) const BULK: u8 = 0x80;

/// The application's class byte of a frame, before and without authentication: good for choosing which
/// frame to handle first, for nothing else. `None` for handshakes and for what is no frame.
pub fn peek_class(frame: &[u8]) -> Option<u8> {
    match peek_kind(frame)? {
        Kind::Session => Some(frame[2]),
        _ => None,
    }
}

/// The session and the frame number in the clear in a frame of a session: for who watches the wire, such as a test
/// that no number is used twice under one key.
pub fn peek_number(frame: &[u8]) -> Option<(u64, u64)> {
    match peek_kind(frame)? {
        Kind::Session => SessionFrame::split(frame).map(|frame| (frame.header.session, frame.header.number)),
        _ => None,
    }
}

pub(crate) fn peek_kind(frame: &[u8]) -> Option<Kind> {
    use handshake as h;
    let (kind, long_enough) = match frame {
        [FORMAT, 1, ..] => (Kind::Init, frame.len() == h::INIT_BYTES),
        [FORMAT, 2, 0, 0, ..] => (Kind::Response, frame.len() == h::RESPONSE_BYTES),
        [FORMAT, 3, 0, 0, ..] => (Kind::Cookie, frame.len() == h::COOKIE_BYTES),
        [FORMAT, 4, _, 0, ..] => (Kind::Session, frame.len() >= SESSION_HEADER_BYTES + MAC_BYTES),
        [FORMAT, 5, 0, 0, ..] => (Kind::Unknown, frame.len() == h::UNKNOWN_BYTES),
        [FORMAT, 6, _, 0, ..] => (Kind::Refusal, frame.len() == h::REFUSAL_BYTES),
        _ => return None,
    };
    long_enough.then_some(kind)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionHeader {
    pub(crate) class: u8,
    pub(crate) bulk_len: u32,
    pub(crate) session: u64,
    pub(crate) number: u64,
}

impl SessionHeader {
    pub(crate) fn to_bytes(self) -> [u8; SESSION_HEADER_BYTES] {
        let mut bytes = [0; SESSION_HEADER_BYTES];
        bytes[..4].copy_from_slice(&[FORMAT, Kind::Session as u8, self.class, 0]);
        bytes[4..8].copy_from_slice(&self.bulk_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

/// A session frame cut into its parts; nothing but the header has been looked at.
#[derive(Debug)]
pub(crate) struct SessionFrame<'a> {
    pub(crate) header: SessionHeader,
    pub(crate) head: &'a [u8],
    pub(crate) items: &'a [u8],
    pub(crate) bulk: &'a [u8],
    pub(crate) mac: &'a [u8],
}

impl<'a> SessionFrame<'a> {
    /// Cuts a frame that [`peek_kind`] has called a session frame; `None` if the lengths contradict each other.
    pub(crate) fn split(frame: &'a [u8]) -> Option<SessionFrame<'a>> {
        let mut reader = Reader(&frame[4..]);
        let header = SessionHeader {
            class: frame[2],
            bulk_len: reader.u32()?,
            session: reader.u64()?,
            number: reader.u64()?,
        };
        let (head, rest) = frame.split_at(SESSION_HEADER_BYTES);
        let (rest, mac) = rest.split_at(rest.len() - MAC_BYTES);
        let items_len = rest.len().checked_sub(header.bulk_len as usize)?;
        let (items, bulk) = rest.split_at(items_len);
        Some(SessionFrame { header, head, items, bulk, mac })
    }
}

/// What the MAC covers in place of the bulk.
pub(crate) fn bulk_digest(bulk: &[u8]) -> Option<blake3::Hash> {
    (!bulk.is_empty()).then(|| blake3::hash(bulk))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Message { kind: u8, number: u64, base: u64, body: &'a [u8] },
    Ack { next: u64, beyond: [u64; ACK_WORDS_MAX] },
    Report { next: u64, missing: Vec<(u64, u32)> },
    Advert { base: u64, next: u64 },
    Close,
    Confirm,
}

/// All items of an authentic frame, or `None` if it breaks a rule anywhere.
pub(crate) fn read_items<'a>(frame: &SessionFrame<'a>) -> Option<Vec<Item<'a>>> {
    let mut reader = Reader(frame.items);
    let mut bulk = Some(frame.bulk).filter(|bulk| !bulk.is_empty());
    let mut items = Vec::new();
    while !reader.0.is_empty() {
        items.push(read_item(&mut reader, &mut bulk)?);
    }
    bulk.is_none().then_some(items)
}

fn read_item<'a>(reader: &mut Reader<'a>, bulk: &mut Option<&'a [u8]>) -> Option<Item<'a>> {
    match reader.u8()? {
        tag if matches!(tag & !BULK, UNR | ACK | NACK) => {
            let number = reader.number()?;
            let base = number.checked_sub(u64::from(reader.u32()?))?;
            let len = reader.u32()? as usize;
            let body =
                if tag & BULK == 0 { reader.take(len)? } else { bulk.take().filter(|b| b.len() == len)? };
            Some(Item::Message { kind: tag & !BULK, number, base, body })
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
            let missing =
                (0..ranges).map(|_| Some((reader.number()?, reader.u32()?))).collect::<Option<_>>()?;
            Some(Item::Report { next, missing })
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

pub(crate) fn put_message(frame: &mut Vec<u8>, tag: u8, number: u64, base: u64, len: usize) {
    frame.push(tag);
    frame.extend_from_slice(&number.to_le_bytes());
    let behind = u32::try_from(number - base).expect("queues are bounded far below u32::MAX messages");
    frame.extend_from_slice(&behind.to_le_bytes());
    frame.extend_from_slice(&u32::try_from(len).expect("a body is at most u32::MAX bytes").to_le_bytes());
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

/// A cursor that never reads past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")))
    }

    /// A sequence number: within the range in which arithmetic is safe.
    fn number(&mut self) -> Option<u64> {
        self.u64().filter(|n| *n < NUMBER_MAX)
    }
}
