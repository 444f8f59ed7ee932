//! The bodies of messages on their way out.

use crate::frame::Content;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The bytes of a message to send, kept until nobody needs them. Clones share the bytes and their digest.
#[derive(Clone, Debug)]
pub struct Body(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    /// Known for bodies that go to many behind their frames.
    digest: OnceLock<blake3::Hash>,
}

/// Bodies of so many bytes, to so many receivers, are hashed once instead of sealed for each of them. By measurement
/// (docs/PERFORMANCE.md, "Primitives"): hashing 8 KiB costs one and a half times sealing it, so with three receivers
/// all of them together gain; hashing 1 KiB costs five times as much, so with 16 the sender gains, who has
/// most to do, and each receiver loses 0.8 µs.
const SHARED_MIN: [(usize, usize); 2] = [(8 << 10, 3), (1 << 10, 16)];

fn is_shared_by(len: usize, receivers: usize) -> bool {
    SHARED_MIN.iter().any(|(bytes, others)| len >= *bytes && receivers >= *others)
}

impl Body {
    /// One that goes to `receivers` parties.
    pub(crate) fn for_group(self, receivers: usize) -> Body {
        if is_shared_by(self.len(), receivers) {
            self.digest();
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn shared(bytes: Vec<u8>) -> Body {
        let body = Body::from(bytes);
        body.digest();
        body
    }

    /// Whether it goes behind its frames.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.digest.get().is_some()
    }

    pub(crate) fn content(&self) -> Content<'_> {
        if self.is_shared() { Content::Bulk(self) } else { Content::Copied(self) }
    }

    pub(crate) fn digest(&self) -> &blake3::Hash {
        self.0.digest.get_or_init(|| blake3::hash(&self.0.bytes))
    }
}

impl Deref for Body {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Body {}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(Arc::new(Shared { bytes, digest: OnceLock::new() }))
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Body {
        bytes.to_vec().into()
    }
}

/// What is handed to `send`: bytes that are copied if they must be kept, or a [`Body`].
#[derive(Clone, Debug)]
pub enum Outgoing<'a> {
    /// Bytes of the caller's, used until `send` returns.
    Slice(&'a [u8]),
    /// Bytes that are kept as they are.
    Body(Body),
}

impl Outgoing<'_> {
    /// One that goes to `receivers` parties: a body if it is to be hashed once for all of them, as it is otherwise.
    pub fn for_group(self, receivers: usize) -> Self {
        if is_shared_by(self.len(), receivers) {
            return Outgoing::Body(Body::from(self).for_group(receivers));
        }
        self
    }

    /// How it goes into a frame.
    pub(crate) fn content(&self) -> Content<'_> {
        match self {
            Outgoing::Slice(bytes) => Content::Copied(bytes),
            Outgoing::Body(body) => body.content(),
        }
    }
}

impl Deref for Outgoing<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Outgoing::Slice(bytes) => bytes,
            Outgoing::Body(body) => body,
        }
    }
}

impl From<Outgoing<'_>> for Body {
    fn from(outgoing: Outgoing<'_>) -> Body {
        match outgoing {
            Outgoing::Slice(bytes) => bytes.into(),
            Outgoing::Body(body) => body,
        }
    }
}

impl<'a> From<&'a [u8]> for Outgoing<'a> {
    fn from(bytes: &'a [u8]) -> Outgoing<'a> {
        Outgoing::Slice(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Outgoing<'a> {
    fn from(bytes: &'a Vec<u8>) -> Outgoing<'a> {
        Outgoing::Slice(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Outgoing<'a> {
    fn from(bytes: &'a [u8; N]) -> Outgoing<'a> {
        Outgoing::Slice(bytes)
    }
}

impl From<Vec<u8>> for Outgoing<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Outgoing::Body(bytes.into())
    }
}

impl From<Body> for Outgoing<'_> {
    fn from(body: Body) -> Self {
        Outgoing::Body(body)
    }
}

/// Bodies that have been used, to be filled again: in the steady state nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Body>);

/// Bodies kept at most; a window of ACK messages and a history of NACK messages are not larger.
const SPARE_MAX: usize = 1024;
/// Bodies with room for more are given back to the system, so that all spare ones together hold 2 MiB.
const SPARE_BYTES_MAX: usize = 2048;

impl Spare {
    /// A body to be kept.
    #[inline]
    pub(crate) fn keep(&mut self, outgoing: Outgoing<'_>) -> Body {
        let bytes = match outgoing {
            Outgoing::Body(body) => return body,
            Outgoing::Slice(bytes) => bytes,
        };
        if bytes.len() <= SPARE_BYTES_MAX
            && let Some(mut body) = self.0.pop()
            && let Some(shared) = Arc::get_mut(&mut body.0)
        {
            shared.bytes.clear();
            shared.bytes.extend_from_slice(bytes);
            shared.digest = OnceLock::new();
            return body;
        }
        bytes.into()
    }

    /// Takes a body that is needed no more by whom it was kept for.
    #[inline]
    pub(crate) fn give(&mut self, mut body: Body) {
        if self.0.len() < SPARE_MAX
            && Arc::get_mut(&mut body.0).is_some_and(|shared| shared.bytes.capacity() <= SPARE_BYTES_MAX)
        {
            self.0.push(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_body_is_filled_again_unless_somebody_holds_it() {
        let mut spare = Spare::default();
        let first = spare.keep(b"one"[..].into());
        let at = first.as_ptr();
        spare.give(first);
        let second = spare.keep(b"two"[..].into());
        assert_eq!((&second[..], second.as_ptr()), (&b"two"[..], at));
        let held = second.clone();
        spare.give(second);
        let third = spare.keep(b"three"[..].into());
        assert_eq!((&held[..], &third[..]), (&b"two"[..], &b"three"[..]));
        assert!(spare.0.is_empty());
    }

    #[test]
    fn long_bodies_for_several_and_shorter_ones_for_many_are_hashed() {
        let body = |len| Body::from(vec![1; len]);
        assert!(body(8 << 10).for_group(3).is_shared());
        assert!(!body(8 << 10).for_group(2).is_shared());
        assert!(body(1 << 10).for_group(16).is_shared());
        assert!(!body(1 << 10).for_group(15).is_shared());
        assert!(!body(1000).for_group(100).is_shared());
    }
}
