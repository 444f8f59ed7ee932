use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Where the buffers come from in which messages are kept, packed and put together. The runtime has a pool;
/// a simulator may have the [`Heap`].
pub trait Memory {
    /// A buffer, its contents readable as a slice. Dropping it gives it back.
    type Buf: Deref<Target = [u8]>;

    /// An empty buffer with room for `capacity` bytes, or `None` if there is none at present.
    fn alloc(&self, capacity: usize) -> Option<Self::Buf>;

    /// The largest capacity that [`Memory::alloc`] may ever grant, in bytes.
    fn capacity_max(&self) -> usize;

    /// True if half of the buffers that [`Memory::alloc`] tries first for `capacity` are taken, or more. Of those, peers at
    /// one address get no more than one for what they have begun to send.
    fn is_scarce(&self, capacity: usize) -> bool {
        let _ = capacity;
        false
    }

    /// Puts `bytes` behind the contents; the buffer was allocated with room for them.
    fn append(buf: &mut Self::Buf, bytes: &[u8]);

    /// Takes `n` bytes off the front of the contents, which has as many.
    fn advance(buf: &mut Self::Buf, n: usize);

    /// Gives back a buffer with contents that were sent as [lasting](crate::Transmit::lasting) and of which it will
    /// never be known whether they have arrived.
    fn renounce(buf: Self::Buf) {
        drop(buf);
    }
}

/// Buffers from the allocator of the process, without bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

impl Memory for Heap {
    type Buf = Vec<u8>;

    fn alloc(&self, capacity: usize) -> Option<Vec<u8>> {
        Some(Vec::with_capacity(capacity))
    }

    fn capacity_max(&self) -> usize {
        usize::MAX
    }

    fn append(buf: &mut Vec<u8>, bytes: &[u8]) {
        buf.extend_from_slice(bytes);
    }

    fn advance(buf: &mut Vec<u8>, n: usize) {
        buf.drain(..n);
    }
}

/// The contents of a large message, read piece by piece as they are sent, and again if a piece was lost.
/// They must not change before the message has been sent.
pub trait Source: Send {
    /// The length of the message in bytes.
    fn len(&self) -> u64;

    /// True if the message has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `len` bytes that begin at `at`; never asked beyond the end.
    fn chunk(&self, at: u64, len: usize) -> &[u8];
}

fn slice(bytes: &[u8], at: u64, len: usize) -> &[u8] {
    let at = usize::try_from(at).expect("a place within memory");
    &bytes[at..at + len]
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }
    fn chunk(&self, at: u64, len: usize) -> &[u8] {
        slice(self, at, len)
    }
}

impl Source for Arc<[u8]> {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
    fn chunk(&self, at: u64, len: usize) -> &[u8] {
        slice(self, at, len)
    }
}

/// Where a large message lands, piece by piece, in ascending order without gaps.
///
/// It comes back with [`Event::Received`](crate::Event::Received); as it is [`Any`], what it was can be had
/// again: `(sink as Box<dyn Any>).downcast::<Vec<u8>>()`.
pub trait Sink: Any + Send {
    /// The place for the `len` bytes that begin at `at`; never asked beyond the announced length.
    fn place(&mut self, at: u64, len: usize) -> &mut [u8];
}

impl Sink for Vec<u8> {
    /// Grows as the message arrives.
    fn place(&mut self, at: u64, len: usize) -> &mut [u8] {
        let at = usize::try_from(at).expect("a place within memory");
        if self.len() < at + len {
            self.resize(at + len, 0);
        }
        &mut self[at..at + len]
    }
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a source of {} bytes", self.len())
    }
}

impl fmt::Debug for dyn Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sink")
    }
}
