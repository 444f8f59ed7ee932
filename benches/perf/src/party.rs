//! What the workloads ask of a layer: [`Party`]. Each layer's endpoint is one.

use cl::Buf;
use cl_base::PeerId;

/// Why a message was not accepted.
#[derive(Debug)]
pub enum Refused {
    /// It may be a little later; here it is back.
    Later(Buf),
    /// It never will be.
    Never(String),
}

/// One end of a layer: sends, polls, flushes.
pub trait Party {
    /// Whether what is accepted arrives, once and in order, unless the peer dies.
    const RELIABLE: bool;

    /// An empty buffer for `len` bytes, or `None` if there is none now.
    fn alloc(&mut self, len: usize) -> Option<Buf>;

    /// Hands over a message.
    ///
    /// # Errors
    /// [`Refused`].
    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused>;

    /// Lets go of what was held back to be sent together.
    fn flush(&mut self);

    /// The next message that has arrived.
    ///
    /// # Errors
    /// If none will any more: the peer is gone.
    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String>;
}

impl Party for cl::Endpoint {
    const RELIABLE: bool = false;

    fn alloc(&mut self, len: usize) -> Option<Buf> {
        cl::Endpoint::alloc(self, len).ok()
    }

    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        cl::Endpoint::send(self, to, buf).map_err(|error| {
            if error.is_backpressure() {
                Refused::Later(error.buf)
            } else {
                Refused::Never(format!("message of {} bytes not sent: {}", error.buf.len(), error.reason))
            }
        })
    }

    fn flush(&mut self) {
        cl::Endpoint::flush(self);
    }

    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String> {
        Ok(cl::Endpoint::poll(self).map(|received| (received.from, received.buf)))
    }
}
