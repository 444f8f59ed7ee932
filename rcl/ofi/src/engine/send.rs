//! Sending.

use super::peers::{Later, SELF};
use super::rma::Remote;
use super::{Begun, Engine, Shared, transfer};
use crate::abi::{
    FI_COMPLETION, FI_DELIVERY_COMPLETE, FI_EACCES, FI_EAGAIN, FI_EINVAL, FI_EMSGSIZE, FI_INJECT, FI_MSG,
    FI_RMA, FI_SEND, FI_TAGGED,
};
use crate::memory::{Area, Pieces};
use crate::queues::{Bound, Completion};
use crate::wire::{ACK, DATA, HEAD_LEN, Head, Kind, Offer, PULL, TAGGED};
use cl::Buf;
use rcl::TransferId;
use std::ffi::c_int;

/// Operations that wait for the peer, of one endpoint: what `fi_tx_attr::size` says.
pub(crate) const SENDINGS_MAX: usize = 4096;
/// The longest message that is copied before the call returns.
pub(crate) const INJECT_MAX: usize = 4 << 10;
/// The longest message. There is no reason for any limit below what a program can have in memory.
pub(crate) const MESSAGE_MAX: usize = 1 << 40;

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) area: Area,
    /// `None` for a message without one.
    pub(crate) tag: Option<u64>,
    pub(crate) data: Option<u64>,
    pub(crate) context: usize,
    /// Of the operation: `FI_COMPLETION`, `FI_INJECT`, `FI_DELIVERY_COMPLETE`.
    pub(crate) flags: u64,
    /// Nothing is told when it is complete, save failures.
    pub(crate) is_silent: bool,
}

/// An operation that waits for its peer.
pub(super) struct Sending {
    pub(super) peer: u32,
    pub(super) area: Area,
    pub(super) asked: bool,
    pub(super) is_silent: bool,
    /// What is told when it is done.
    pub(super) completion: Completion,
    /// Where it is told.
    pub(super) bound: Bound,
    /// What it is about at the peer, if it reads there.
    pub(super) reads: Option<Remote>,
    /// Its end is that of a transfer.
    pub(super) is_announced: bool,
}

impl Engine {
    /// Begins to send.
    ///
    /// # Errors
    /// `FI_EAGAIN` if it cannot be begun now; others if it never can.
    pub(crate) fn send(&mut self, shared: &mut Shared, to: u64, message: &Outgoing) -> Begun {
        let peer = self.route(shared, to)?;
        let len = message.area.len();
        let injected = message.flags & FI_INJECT != 0;
        if len > MESSAGE_MAX {
            return Err(FI_EMSGSIZE);
        }
        if injected && len > INJECT_MAX {
            return Err(FI_EINVAL);
        }
        self.make_ready(peer)?;
        let tagged = message.tag.is_some();
        let mut head = Head::new(Kind::Message, 0);
        head.flags = if tagged { TAGGED } else { 0 } | if message.data.is_some() { DATA } else { 0 };
        head.tag = message.tag.unwrap_or(0);
        head.data = message.data.unwrap_or(0);
        let flags = FI_SEND | if tagged { FI_TAGGED } else { FI_MSG };
        let completion = Completion::new(message.context, flags);
        let asked = message.flags & FI_COMPLETION != 0;

        let at_once =
            if self.peers[peer as usize].can_pull { self.settings.eager_shared } else { self.settings.eager };
        let awaits = message.flags & FI_DELIVERY_COMPLETE != 0 && !message.is_silent;
        if len <= at_once || injected {
            let operation = match awaits {
                true => Some(self.begin(peer, message, completion, asked)?),
                false => None,
            };
            if let Some(operation) = operation {
                head.operation = operation;
                head.flags |= ACK;
            }
            let sent = self.send_now(peer, head, &message.area);
            match operation {
                Some(operation) if sent.is_err() => self.forget(operation),
                None if sent.is_ok() && !message.is_silent => {
                    shared.queues.complete(self.bindings.send, asked, completion);
                }
                _ => {}
            }
            return sent;
        }
        let operation = self.begin(peer, message, completion, asked)?;
        head.kind = Kind::Offer;
        head.operation = operation;
        self.offer(peer, head, None).inspect_err(|_| self.forget(operation))
    }

    fn begin(
        &mut self,
        peer: u32,
        message: &Outgoing,
        completion: Completion,
        asked: bool,
    ) -> Result<u32, c_int> {
        let (bound, is_silent, area) = (self.bindings.send, message.is_silent, message.area);
        self.begin_sending(Sending {
            peer,
            area,
            asked,
            is_silent,
            completion,
            bound,
            reads: None,
            is_announced: false,
        })
    }

    pub(super) fn begin_sending(&mut self, sending: Sending) -> Result<u32, c_int> {
        if self.sendings.len() >= SENDINGS_MAX {
            return Err(FI_EAGAIN);
        }
        Ok(self.sendings.insert(sending) as u32)
    }

    /// An operation that could not be begun.
    pub(super) fn forget(&mut self, operation: u32) {
        self.sendings.remove(operation as usize);
    }

    /// Sends a head and what is in `area`.
    #[inline]
    fn send_now(&mut self, peer: u32, head: Head, area: &Area) -> Begun {
        let mut buf = self.net.alloc(HEAD_LEN + area.len()).map_err(|_| FI_EAGAIN)?;
        buf.extend_from_slice(&head.to_bytes());
        self.append(peer, &mut buf, area);
        self.transmit_now(peer, buf)
    }

    /// Copies what is in `area` into a message to `peer`.
    #[inline]
    pub(super) fn append(&self, peer: u32, buf: &mut Buf, area: &Area) {
        match self.peers[peer as usize].can_pull {
            // It is on this host and reads the buffer itself, on another processor.
            true => area.slices().for_each(|slice| buf.extend_streaming(slice)),
            false => area.slices().for_each(|slice| buf.extend_from_slice(slice)),
        }
    }

    /// Sends a message that the caller begins anew if it cannot be sent now.
    #[inline]
    pub(super) fn transmit_now(&mut self, peer: u32, buf: Buf) -> Begun {
        self.transmit(peer, buf).map_err(|_| FI_EAGAIN)?;
        if peer != SELF {
            // The application may call again only after a long while.
            self.net.flush();
            self.has_said = false;
        }
        Ok(())
    }

    /// Offers the memory of the operation that `head` names, which the peer copies if it can, and otherwise is announced
    /// next. `key`: of the region it is for.
    pub(super) fn offer(&mut self, peer: u32, mut head: Head, key: Option<u64>) -> Begun {
        let area = self.sendings[head.operation as usize].area;
        let can_pull = self.peers[peer as usize].can_pull;
        self.sendings[head.operation as usize].is_announced = !can_pull;
        let pieces = if can_pull { *area.pieces() } else { Pieces::default() };
        let offer = Offer { len: area.len() as u64, pieces };
        head.flags |= if can_pull { PULL } else { 0 };
        let key = key.map(u64::to_le_bytes);
        let key = key.as_ref().map_or(&[][..], |key| &key[..]);
        let mut buf = self.net.alloc(HEAD_LEN + key.len() + offer.wire_len()).map_err(|_| FI_EAGAIN)?;
        buf.extend_from_slice(&head.to_bytes());
        buf.extend_from_slice(key);
        offer.put(|part| buf.extend_from_slice(part));
        self.transmit(peer, buf).map_err(|_| FI_EAGAIN)?;
        if !can_pull && !self.announce(peer, head.operation) {
            self.say_later(peer, Later::Announce(head.operation));
        }
        self.net.flush();
        Ok(())
    }

    /// Announces the memory of an operation; false if it must be tried again.
    pub(super) fn announce(&mut self, peer: u32, operation: u32) -> bool {
        let Some(sending) = self.sendings.get(operation as usize) else { return true };
        let source = transfer::source(&sending.area);
        let id = self.peers[peer as usize].id;
        match self.net.send_large(id, source) {
            Ok(transfer) => {
                self.peers[peer as usize].announced.insert(transfer.0, operation);
                true
            }
            Err(_) => false,
        }
    }

    /// A transfer of ours has ended. What is offered for a region is not wanted if it must not be written there; a message
    /// that is not wanted has been thrown away, which is an end like any other.
    pub(super) fn on_sent(&mut self, shared: &mut Shared, peer: u32, transfer: TransferId, wanted: bool) {
        let Some(operation) = self.peers[peer as usize].announced.remove(&transfer.0) else { return };
        let for_region = |sending: &Sending| sending.completion.flags & FI_RMA != 0;
        let refused = !wanted && self.sendings.get(operation as usize).is_some_and(for_region);
        self.on_done(shared, peer, operation, if refused { FI_EACCES } else { 0 });
    }

    /// The peer has everything of an operation, or it has failed.
    pub(super) fn on_done(&mut self, shared: &mut Shared, peer: u32, operation: u32, error: c_int) {
        let known = self.sendings.get(operation as usize).is_some_and(|sending| sending.peer == peer);
        if !known {
            self.refused.stray += 1;
            return;
        }
        let sending = self.sendings.remove(operation as usize);
        finish(shared, sending, error);
    }

    /// The operations that wait for a peer have failed.
    pub(super) fn fail_sendings(&mut self, shared: &mut Shared, peer: u32, error: c_int) {
        let failed: Vec<usize> =
            self.sendings.iter().filter(|(_, s)| s.peer == peer).map(|(operation, _)| operation).collect();
        for operation in failed {
            finish(shared, self.sendings.remove(operation), error);
        }
    }
}

fn finish(shared: &mut Shared, sending: Sending, error: c_int) {
    let completion = Completion { error, ..sending.completion };
    if !sending.is_silent || error != 0 {
        shared.queues.complete(sending.bound, sending.asked, completion);
    } else if sending.bound.counter.is_some() {
        // An operation without a completion counts all the same.
        shared.queues.complete(Bound { queue: None, ..sending.bound }, false, completion);
    }
}
