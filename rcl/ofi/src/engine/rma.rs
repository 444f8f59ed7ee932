//! Reading and writing the memory of peers.

use super::receive::{Contents, Purpose};
use super::send::Sending;
use super::{Begun, Engine, Shared};
use crate::abi::{
    FI_COMPLETION, FI_EACCES, FI_EAGAIN, FI_EINVAL, FI_EIO, FI_EMSGSIZE, FI_ENOKEY, FI_INJECT, FI_READ,
    FI_RMA, FI_WRITE,
};
use crate::memory::{Area, Pieces, pull, push};
use crate::queues::{Bound, Completion};
use crate::wire::{HEAD_LEN, Head, Kind, Offer, PULL};
use std::ffi::c_int;

/// Memory that peers may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) area: Area,
    pub(crate) access: Access,
}

/// What peers may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// A place in a peer's region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) key: u64,
    pub(crate) offset: u64,
}

/// Memory of ours and of a peer, one to be copied into the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    pub(crate) area: Area,
    pub(crate) remote: Remote,
    pub(crate) context: usize,
    pub(crate) flags: u64,
    pub(crate) is_silent: bool,
}

const KEY_LEN: usize = 8;

fn key_of(body: &[u8]) -> Option<(u64, &[u8])> {
    let (key, rest) = body.split_first_chunk::<KEY_LEN>()?;
    Some((u64::from_le_bytes(*key), rest))
}

impl Shared {
    /// The part of a region that a peer asks for, or why it cannot have it.
    fn region(&self, key: u64, offset: u64, len: u64, may: impl Fn(Access) -> bool) -> Result<Area, c_int> {
        let region = self.regions.get(&key).ok_or(FI_ENOKEY)?;
        if !may(region.access) {
            return Err(FI_EACCES);
        }
        let (offset, len) = (usize::try_from(offset), usize::try_from(len));
        let (Ok(offset), Ok(len)) = (offset, len) else { return Err(FI_EINVAL) };
        let inside = offset.checked_add(len).is_some_and(|end| end <= region.area.len());
        if inside { Ok(region.area.part(offset, len)) } else { Err(FI_EINVAL) }
    }
}

impl Engine {
    /// Begins to write into a peer's memory; complete when the peer has it there.
    ///
    /// # Errors
    /// As [`Engine::send`].
    pub(crate) fn write(&mut self, shared: &mut Shared, to: u64, copying: &Copying) -> Begun {
        let len = copying.area.len();
        let injected = copying.flags & FI_INJECT != 0;
        if injected && len > super::send::INJECT_MAX {
            return Err(FI_EINVAL);
        }
        let (peer, operation) = self.begin_copying(shared, to, copying, FI_WRITE, self.bindings.write)?;
        let Remote { key, offset } = copying.remote;
        let mut head = Head::new(Kind::Write, operation);
        head.tag = offset;
        let at_once =
            if self.peers[peer as usize].can_pull { self.settings.eager_shared } else { self.settings.eager };
        let begun = if len <= at_once || injected {
            self.net.alloc(HEAD_LEN + KEY_LEN + len).map_err(|_| FI_EAGAIN).and_then(|mut buf| {
                buf.extend_from_slice(&head.to_bytes());
                buf.extend_from_slice(&key.to_le_bytes());
                self.append(peer, &mut buf, &copying.area);
                self.transmit_now(peer, buf)
            })
        } else {
            head.kind = Kind::WriteOffer;
            self.offer(peer, head, Some(key))
        };
        begun.inspect_err(|_| self.forget(operation))
    }

    /// Begins to read a peer's memory.
    ///
    /// # Errors
    /// As [`Engine::send`].
    pub(crate) fn read(&mut self, shared: &mut Shared, from: u64, copying: &Copying) -> Begun {
        let (peer, operation) = self.begin_copying(shared, from, copying, FI_READ, self.bindings.read)?;
        self.sendings[operation as usize].reads = Some(copying.remote);
        let can_pull = self.peers[peer as usize].can_pull;
        let mut head = Head::new(Kind::Read, operation);
        head.tag = copying.remote.offset;
        head.flags = if can_pull { PULL } else { 0 };
        let pieces = if can_pull { *copying.area.pieces() } else { Pieces::default() };
        let offer = Offer { len: copying.area.len() as u64, pieces };
        let buf = self.net.alloc(HEAD_LEN + KEY_LEN + offer.wire_len()).map_err(|_| FI_EAGAIN);
        let begun = buf.and_then(|mut buf| {
            buf.extend_from_slice(&head.to_bytes());
            buf.extend_from_slice(&copying.remote.key.to_le_bytes());
            offer.put(|part| buf.extend_from_slice(part));
            self.transmit_now(peer, buf)
        });
        begun.inspect_err(|_| self.forget(operation))
    }

    fn begin_copying(
        &mut self,
        shared: &Shared,
        peer: u64,
        copying: &Copying,
        kind: u64,
        bound: Bound,
    ) -> Result<(u32, u32), c_int> {
        let peer = self.route(shared, peer)?;
        if copying.area.len() > super::send::MESSAGE_MAX {
            return Err(FI_EMSGSIZE);
        }
        self.make_ready(peer)?;
        let (area, is_silent) = (copying.area, copying.is_silent);
        let completion = Completion::new(copying.context, FI_RMA | kind);
        let asked = copying.flags & FI_COMPLETION != 0;
        let sending =
            Sending { peer, area, asked, is_silent, completion, bound, reads: None, is_announced: false };
        Ok((peer, self.begin_sending(sending)?))
    }

    /// Bytes for a region of ours.
    pub(super) fn on_write(&mut self, shared: &mut Shared, peer: u32, head: Head, body: &[u8]) -> bool {
        let Some((key, bytes)) = key_of(body) else { return false };
        let error = match shared.region(key, head.tag, bytes.len() as u64, |access| access.write) {
            Ok(mut area) => {
                area.write(bytes);
                0
            }
            Err(error) => error,
        };
        self.say_done(peer, head.operation, error);
        true
    }

    /// The same, too many to have come with it.
    pub(super) fn on_write_offer(&mut self, shared: &mut Shared, peer: u32, head: Head, body: &[u8]) -> bool {
        let Some((key, body)) = key_of(body) else { return false };
        let Some(offer) = Offer::parse(body) else { return false };
        let Some(contents) = self.contents_of(peer, head, offer) else { return false };
        let area = shared.region(key, head.tag, offer.len, |access| access.write);
        match (area, contents) {
            (Ok(area), Contents::Announced(taking)) => self.take_into(taking, Purpose::Region(area)),
            (Ok(area), Contents::There(pieces)) => {
                let process = self.peers[peer as usize].process.unwrap_or(0);
                let error = pull(process, &pieces, &area).map_or(FI_EIO, |()| 0);
                self.say_done(peer, head.operation, error);
            }
            // That the transfer is not wanted tells the peer as much.
            (Err(_), Contents::Announced(taking)) => self.take_into(taking, Purpose::Nothing),
            (Err(error), _) => self.say_done(peer, head.operation, error),
            (Ok(_), _) => return false,
        }
        true
    }

    /// A peer wants what is in a region of ours.
    pub(super) fn on_read(&mut self, shared: &mut Shared, peer: u32, head: Head, body: &[u8]) -> bool {
        let Some((key, body)) = key_of(body) else { return false };
        let Some(offer) = Offer::parse(body) else { return false };
        let area = match shared.region(key, head.tag, offer.len, |access| access.read) {
            Ok(area) => area,
            Err(error) => {
                self.say_done(peer, head.operation, error);
                return true;
            }
        };
        let len = area.len();
        let process = self.peers[peer as usize].process.filter(|_| head.has(PULL));
        if len <= self.settings.eager_shared || (process.is_none() && len <= self.settings.eager) {
            let reply = Head::new(Kind::ReadReply, head.operation);
            self.say(peer, reply, len, |buf| area.slices().for_each(|slice| buf.extend_from_slice(slice)));
        } else if let Some(process) = process {
            if offer.pieces.len() != Some(offer.len) {
                return false;
            }
            let error = push(process, &offer.pieces, &area).map_or(FI_EIO, |()| 0);
            self.say_done(peer, head.operation, error);
        } else {
            // Nobody here waits for its end: the peer does.
            let completion = Completion::new(0, 0);
            let bound = Bound { selective: true, ..Bound::default() };
            let sending = Sending {
                peer,
                area,
                asked: false,
                is_silent: true,
                completion,
                bound,
                reads: None,
                is_announced: true,
            };
            let Ok(ours) = self.begin_sending(sending) else {
                self.say_done(peer, head.operation, FI_EIO);
                return true;
            };
            let mut reply = Head::new(Kind::ReadOffer, head.operation);
            reply.tag = len as u64;
            self.say(peer, reply, 0, |_| {});
            self.say_later(peer, super::peers::Later::Announce(ours));
        }
        true
    }

    /// What we have asked for.
    pub(super) fn on_read_reply(&mut self, shared: &mut Shared, peer: u32, head: Head, body: &[u8]) -> bool {
        let Some(sending) = self.reading(peer, head.operation) else { return true };
        if sending.area.len() != body.len() {
            return false;
        }
        sending.area.write(body);
        self.on_done(shared, peer, head.operation, 0);
        true
    }

    /// What we have asked for is announced next.
    pub(super) fn on_read_offer(&mut self, peer: u32, head: Head, body: &[u8]) -> bool {
        let Some(sending) = self.reading(peer, head.operation) else { return false };
        let len = sending.area.len() as u64;
        if head.tag != len || !body.is_empty() {
            return false;
        }
        self.expect(peer, len, Purpose::Read(head.operation));
        true
    }

    /// The operation of that number, if it reads at that peer.
    fn reading(&mut self, peer: u32, operation: u32) -> Option<&mut Sending> {
        let sending = self.sendings.get_mut(operation as usize);
        let sending = sending.filter(|sending| sending.peer == peer && sending.reads.is_some());
        if sending.is_none() {
            self.refused.stray += 1;
        }
        sending
    }
}
