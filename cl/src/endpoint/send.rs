//! Sending: to a peer's address or through the memory shared with it.

use super::Endpoint;
use crate::message::{Refusal, SendError};
use crate::pool::Buf;
use crate::shm::Stop;
use crate::shm::id::ChannelId;
use cl_base::PeerId;
use std::io::IoSlice;
use std::net::SocketAddr;

impl Endpoint {
    /// Sends a message to the address of `to`. It may be lost, doubled or overtaken on the way.
    ///
    /// # Errors
    /// [`SendError`] hands the message back.
    #[inline]
    pub fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, None) {
            let sent = self.send_shared(channel, to, None, buf);
            self.ring_bells();
            return sent;
        }
        self.send_by_network(to, None, buf)
    }

    /// Sends a message to `to` at `addr`, whatever addresses are known.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    #[inline]
    pub fn send_to(&mut self, to: PeerId, addr: SocketAddr, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, Some(addr)) {
            let sent = self.send_shared(channel, to, Some(addr), buf);
            self.ring_bells();
            return sent;
        }
        self.send_by_network(to, Some(addr), buf)
    }

    /// Sends the concatenation of `parts`, at most three, to `to` (at `addr`, if given). They are the caller's
    /// again on return: for whoever makes its messages in memory of its own, or sends one part to many. What
    /// fits into a datagram is gathered by the system and not copied before; what goes through shared memory is copied past the
    /// caches of this processor ([`Buf::extend_streaming`]).
    ///
    /// # Errors
    /// [`Refusal`] says why not; with [`Refusal::Backpressure`] it may succeed later.
    ///
    /// # Panics
    /// If there are more than three parts.
    pub fn send_parts(
        &mut self,
        to: PeerId,
        addr: Option<SocketAddr>,
        parts: &[IoSlice<'_>],
    ) -> Result<(), Refusal> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let shared = self.shared_way(to, addr).is_some();
        if !shared && len <= self.unfragmented_len_max() && !self.has_backlog() {
            let to_addr = addr.or_else(|| self.peers.address_of(to)).ok_or(Refusal::Unresolved)?;
            match self.transmit_parts(to, to_addr, parts, false) {
                // Kept until the network takes it.
                Err(Refusal::Backpressure) => {}
                sent => return sent,
            }
        }
        if len > self.pool.capacity_max() {
            return Err(Refusal::TooLong);
        }
        let mut buf = self.pool.alloc(len).map_err(|_| Refusal::Backpressure)?;
        for part in parts {
            buf.extend_from_slice(part);
        }
        self.tally.copied_to(to, 1);
        let sent = match addr {
            Some(addr) => self.send_to(to, addr, buf),
            None => self.send(to, buf),
        };
        sent.map_err(|error| error.reason)
    }

    /// As [`Endpoint::send`], but the message may wait until the next [`Endpoint::flush`] or
    /// [`Endpoint::poll`], so that small messages to one destination travel together: a datagram costs far
    /// more than a message in it.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    #[inline]
    pub fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), SendError> {
        if let Some(channel) = self.shared_way(to, None) {
            return self.send_shared(channel, to, None, buf);
        }
        let Some(addr) = self.peers.address_of(to) else {
            return self.count_sent(to, 0, Err(SendError { buf, reason: Refusal::Unresolved }));
        };
        let len = buf.len();
        let sent = self.network.queue(to, addr, buf, &mut self.tally);
        self.count_sent(to, len, sent)
    }

    /// As [`Endpoint::queue`], for a copy of `contents`: the fastest way for messages of some hundred bytes,
    /// which are copied anyway.
    ///
    /// # Errors
    /// [`Refusal`] says why not; with [`Refusal::Backpressure`] it may succeed later.
    #[inline]
    pub fn queue_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<(), Refusal> {
        if contents.len() <= self.copy_max
            && let Some(channel) = self.shared_way(to, None)
        {
            match self.send_copy_on(channel, None, contents) {
                // The peer is gone from there. Whether it is elsewhere, the network will know.
                Err(Refusal::Unresolved) => {}
                queued => return queued,
            }
        }
        self.queue_copy_slowly(to, contents)
    }

    /// As [`Endpoint::queue_copy`] for each of `messages` in turn, until one is refused: the fastest way for many, for what
    /// can be done once for all of them is not done for each. Tells how many were accepted, and why the one after these was not.
    ///
    /// ```
    /// # use cl::{Endpoint, EndpointConfig};
    /// # use cl_base::PeerId;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (alice, bob) = (PeerId::new(1, 0), PeerId::new(2, 0));
    /// # let mut a = Endpoint::open(EndpointConfig::new(alice, "127.0.0.1:0".parse()?))?;
    /// # let mut b = Endpoint::open(EndpointConfig::new(bob, "127.0.0.1:0".parse()?))?;
    /// # a.resolve(bob, b.local_addr());
    /// let (accepted, refused) = a.queue_copies(bob, ["one", "two", "three"]);
    /// assert_eq!((accepted, refused), (3, None));
    /// a.flush();
    /// # let mut seen = vec![];
    /// # while seen.len() < 3 {
    /// #     b.drain(3, |message| seen.push(String::from_utf8_lossy(message.contents).into_owned()));
    /// # }
    /// # assert_eq!(seen, ["one", "two", "three"]);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn queue_copies<M: AsRef<[u8]>>(
        &mut self,
        to: PeerId,
        messages: impl IntoIterator<Item = M>,
    ) -> (usize, Option<Refusal>) {
        let mut messages = messages.into_iter();
        let mut accepted = 0;
        loop {
            let (count, stop);
            (count, stop, messages) = self.copy_into_shared(to, messages);
            accepted += count;
            match stop {
                Stop::Done => return (accepted, None),
                Stop::Full => return (accepted, Some(Refusal::Backpressure)),
                Stop::Other(message) => match self.queue_copy(to, message.as_ref()) {
                    Ok(()) => accepted += 1,
                    Err(refusal) => return (accepted, Some(refusal)),
                },
            }
        }
    }

    /// Sends what waits: queued messages, and what the network did not take at once. [`Endpoint::poll`] does
    /// it as well.
    #[inline]
    pub fn flush(&mut self) {
        if self.network.has_backlog() {
            self.network.flush(&mut self.tally);
        }
        self.ring_bells();
    }

    /// True if a message waits for the network to take it.
    pub fn has_backlog(&self) -> bool {
        self.network.has_backlog()
    }

    #[inline]
    fn copy_into_shared<M: AsRef<[u8]>, I: Iterator<Item = M>>(
        &mut self,
        to: PeerId,
        mut messages: I,
    ) -> (usize, Stop<M>, I) {
        if let Some(channel) = self.shared_way(to, None)
            && let Some(shm) = &mut self.shm
        {
            self.rhythm.shared_is_used = true;
            let (count, stop, messages) = shm.send_copies(channel, messages);
            self.tally.stats.sends_refused += u64::from(matches!(stop, Stop::Full));
            return (count, stop, messages);
        }
        let stop = messages.next().map_or(Stop::Done, Stop::Other);
        (0, stop, messages)
    }

    fn queue_copy_slowly(&mut self, to: PeerId, contents: &[u8]) -> Result<(), Refusal> {
        if self.shared_way(to, None).is_some() {
            let buf = self.alloc_copy(contents).map_err(|_| Refusal::Backpressure)?;
            self.tally.copied_to(to, 1);
            return self.queue(to, buf).map_err(|error| error.reason);
        }
        let queued = match self.peers.address_of(to) {
            Some(addr) => self.network.queue_copy(to, addr, contents, &mut self.tally),
            None => Err(Refusal::Unresolved),
        };
        self.count_sent(to, contents.len(), queued)
    }

    fn send_by_network(&mut self, to: PeerId, addr: Option<SocketAddr>, buf: Buf) -> Result<(), SendError> {
        let len = buf.len();
        let sent = match addr.or_else(|| self.peers.address_of(to)) {
            Some(addr) => self.network.send(to, addr, buf, &mut self.tally),
            None => Err(SendError { buf, reason: Refusal::Unresolved }),
        };
        self.count_sent(to, len, sent)
    }

    /// The channel to `to` (at `addr`, if given), if messages go that way.
    #[inline]
    pub(super) fn shared_way(&self, to: PeerId, addr: Option<SocketAddr>) -> Option<ChannelId> {
        if self.sharing { self.peers.channel_to(to, addr) } else { None }
    }

    #[inline]
    fn send_shared(
        &mut self,
        channel: ChannelId,
        to: PeerId,
        addr: Option<SocketAddr>,
        buf: Buf,
    ) -> Result<(), SendError> {
        match self.send_on(channel, buf) {
            // The peer is gone from there. Whether it is elsewhere, the network will know.
            Err(SendError { buf, reason: Refusal::Unresolved }) => self.send_by_network(to, addr, buf),
            sent => sent,
        }
    }

    #[inline]
    fn ring_bells(&mut self) {
        if self.sharing
            && let Some(shm) = &mut self.shm
        {
            shm.flush();
        }
    }

    #[inline]
    pub(super) fn count_sent<E>(&mut self, to: PeerId, len: usize, sent: Result<(), E>) -> Result<(), E> {
        if sent.is_err() {
            self.tally.stats.sends_refused += 1;
            return sent;
        }
        self.tally.sent(to, len);
        sent
    }

    /// See [`crate::for_rcl::transmit`].
    pub(crate) fn transmit_parts(
        &mut self,
        to: PeerId,
        addr: SocketAddr,
        parts: &[IoSlice<'_>],
        lasting: bool,
    ) -> Result<(), Refusal> {
        let sent = self.network.transmit_parts(to, addr, parts, lasting, &mut self.tally);
        let len = parts.iter().map(|part| part.len()).sum();
        self.count_sent(to, len, sent)
    }

    /// See [`crate::for_rcl::channel`].
    pub(crate) fn channel_to(&self, peer: PeerId) -> Option<ChannelId> {
        self.peers.channel_to(peer, None)
    }

    /// See [`crate::for_rcl::send`].
    #[inline]
    pub(crate) fn send_on(&mut self, channel: ChannelId, buf: Buf) -> Result<(), SendError> {
        let Some(shm) = &mut self.shm else {
            return Err(SendError { buf, reason: Refusal::Unresolved });
        };
        let sent = shm.send(channel, buf);
        self.rhythm.shared_is_used = true;
        self.tally.stats.sends_refused += u64::from(sent.is_err());
        sent
    }

    /// See [`crate::for_rcl::send_copy`].
    #[inline]
    pub(crate) fn send_copy_on(
        &mut self,
        channel: ChannelId,
        word: Option<u64>,
        contents: &[u8],
    ) -> Result<(), Refusal> {
        let Some(shm) = &mut self.shm else { return Err(Refusal::Unresolved) };
        if !self.rhythm.shared_is_used {
            self.rhythm.shared_is_used = true;
        }
        let sent = shm.send_copy(channel, word, contents);
        if sent.is_err() {
            self.tally.stats.sends_refused += 1;
        }
        sent
    }
}
