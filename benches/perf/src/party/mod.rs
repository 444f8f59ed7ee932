//! What the workloads ask of a layer: [`Party`]. Each layer's endpoint is one.

mod of_cl;
mod of_mml;
mod of_rcl;

pub use of_mml::{Acknowledged, Unreliable};

use crate::case::{Case, Link, Transport};
use crate::veth;
use cl::{
    Buf, EndpointConfig, OfiProvider, SharedMemory, SharedMemoryConfig, TransportChoice, TransportKind,
};
use cl_base::PeerId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a message was not accepted.
#[derive(Debug)]
pub enum Refused {
    /// It may be a little later; here it is back.
    Later(Buf),
    /// It never will be.
    Never(String),
}

/// One end of a layer.
pub trait Party: Sized {
    /// Whether what is accepted arrives, once and in order, unless the peer dies.
    const RELIABLE: bool;

    /// Opens an end for `case` at a free port of `bind`.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn open(case: &Case, me: PeerId, bind: IpAddr) -> Result<Self, String>;

    /// The address it is bound to.
    fn addr(&self) -> SocketAddr;

    /// Learns where `peer` is; `calling`, so as to send to it first.
    fn meet(&mut self, peer: PeerId, addr: SocketAddr, calling: bool);

    /// Whether messages can be sent to `peer` now.
    fn is_ready(&self, peer: PeerId) -> bool {
        let _ = peer;
        true
    }

    /// `cl`'s endpoint, here or below.
    fn below(&self) -> &cl::Endpoint;

    /// An empty buffer for `len` bytes, or `None` if there is none now.
    fn alloc(&mut self, len: usize) -> Option<Buf>;

    /// Hands over a message to be sent at once.
    ///
    /// # Errors
    /// [`Refused`].
    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused>;

    /// Hands over a message that may wait for others until [`Party::flush`].
    ///
    /// # Errors
    /// [`Refused`].
    fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused>;

    /// As [`Party::queue`], for a copy of `contents`. False if it may be accepted a little later.
    ///
    /// # Errors
    /// A sentence, if it never will be.
    #[inline]
    fn queue_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<bool, String> {
        let Some(mut buf) = self.alloc(contents.len()) else { return Ok(false) };
        buf.extend_from_slice(contents);
        match self.queue(to, buf) {
            Ok(()) => Ok(true),
            Err(Refused::Later(_)) => Ok(false),
            Err(Refused::Never(why)) => Err(why),
        }
    }

    /// As [`Party::queue_copy`] for each of `messages`. Tells how many were accepted, and whether all were.
    ///
    /// # Errors
    /// As [`Party::queue_copy`].
    #[inline]
    fn queue_copies<'m>(
        &mut self,
        to: PeerId,
        messages: impl Iterator<Item = &'m [u8]>,
    ) -> Result<(u64, bool), String> {
        let mut accepted = 0;
        for contents in messages {
            if !self.queue_copy(to, contents)? {
                return Ok((accepted, false));
            }
            accepted += 1;
        }
        Ok((accepted, true))
    }

    /// As [`Party::queue_copy`], to be sent at once.
    ///
    /// # Errors
    /// As [`Party::queue_copy`].
    #[inline]
    fn send_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<bool, String> {
        let queued = self.queue_copy(to, contents)?;
        self.flush();
        Ok(queued)
    }

    /// Calls `each` with up to `max` messages where they lie, and tells how many there were.
    ///
    /// # Errors
    /// As [`Party::poll`].
    #[inline]
    fn drain(&mut self, max: usize, mut each: impl FnMut(PeerId, &[u8])) -> Result<usize, String> {
        for count in 0..max {
            let Some((from, buf)) = self.poll()? else { return Ok(count) };
            each(from, &buf);
        }
        Ok(max)
    }

    /// Lets go of what was held back to be sent together.
    fn flush(&mut self);

    /// The next message that has arrived.
    ///
    /// # Errors
    /// If none will any more: the peer is gone.
    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String>;

    /// Sleeps until there may be something to poll, or for `limit`.
    ///
    /// # Errors
    /// If it cannot sleep.
    fn park(&mut self, limit: Duration) -> Result<(), String>;
}

/// Whether messages to `peer` travel as `case` wants them to.
pub fn is_met(party: &impl Party, case: &Case, peer: PeerId) -> bool {
    let shares = case.transport != Transport::Shm
        || party.below().path(peer).is_some_and(|path| path.kind == TransportKind::SharedMemory);
    shares && party.is_ready(peer)
}

/// How messages to `peer` have travelled, and why.
///
/// # Errors
/// If they should have gone through shared memory, and have not.
pub fn via(party: &impl Party, case: &Case, peer: PeerId) -> Result<String, String> {
    let below = party.below();
    let via = match below.path(peer) {
        Some(path) => format!("{}: {}", path.kind, path.reason),
        None => format!("{}: {}", below.transport(), below.transport_reason()),
    };
    let stats = below.stats();
    if case.transport == Transport::Shm && stats.datagrams_sent > stats.messages_sent / 2 {
        let why =
            format!("{} datagrams were sent for {} messages", stats.datagrams_sent, stats.messages_sent);
        return Err(format!("messages did not go through shared memory ({via}): {why}"));
    }
    Ok(via)
}

/// The configuration of `cl` for `case`.
fn cl_config(case: &Case, me: PeerId, bind: IpAddr) -> Result<EndpointConfig, String> {
    let (transport, shared_memory) = match case.transport {
        Transport::Udp => (TransportChoice::Auto, SharedMemory::Never),
        Transport::Mio => (TransportChoice::Mio, SharedMemory::Never),
        Transport::Uring => (TransportChoice::Uring, SharedMemory::Never),
        Transport::Shm => (TransportChoice::Auto, SharedMemory::Auto(SharedMemoryConfig::default())),
        Transport::Xdp => (TransportChoice::Xdp, SharedMemory::Never),
        Transport::Ofi => (TransportChoice::Ofi(OfiProvider::BEST), SharedMemory::Never),
    };
    let mtu = (case.link == Link::Veth).then_some(veth::MTU);
    let defaults = EndpointConfig::new(me, SocketAddr::new(bind, 0));
    Ok(EndpointConfig { transport, shared_memory, mtu, faults: case.faults, ..defaults })
}
