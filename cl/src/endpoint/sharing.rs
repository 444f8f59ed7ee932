//! Shared memory beside the network: when to look where, and what becomes of the channels.

use super::{Endpoint, Received};
use crate::shm::{ChannelEvent, Shm};
use cl_base::{PeerId, Time};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// While messages come through shared memory, the network is looked at so often only: a look costs more
/// than a message.
const NETWORK_INTERVAL: Duration = Duration::from_micros(200);
/// Looks into shared memory in vain between two at the clock.
const LOOKS_PER_CLOCK: u32 = 32;
/// Looks at the network in vain, after a message came from there, before it is looked at less often.
const NETWORK_CREDIT: u32 = 64;
/// Messages from shared memory in a row before the network has its turn.
pub(super) const SHARED_IN_A_ROW: u32 = 256;
/// What happens rarely with shared memory is looked after so often.
const TEND_INTERVAL: Duration = Duration::from_millis(1);
/// Looks at the network between two at the clock for that.
const LOOKS_PER_TEND: u32 = 64;
/// Peers that do not share memory are asked again so often.
const SHARE_INTERVAL: Duration = Duration::from_millis(250);
/// And so many of them at once.
const SHARES_AT_ONCE: usize = 16;

/// When to look where: between shared memory, the network and what happens rarely.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    /// A message went through shared memory since the last look at the network.
    pub(super) shared_is_used: bool,
    /// Looks at the network in vain to go, since a message came from there, until it is looked at less often.
    pub(super) network_credit: u32,
    pub(super) in_a_row: u32,
    pub(super) looks: u32,
    pub(super) network_at: Time,
    pub(super) tend_looks: u32,
    pub(super) tend_at: Time,
    pub(super) share_at: Time,
}

impl Rhythm {
    #[inline]
    pub(super) fn looked_at_network(&mut self, found: bool) {
        self.network_credit = if found { NETWORK_CREDIT } else { self.network_credit.saturating_sub(1) };
    }

    #[inline]
    pub(super) fn is_shared_hot(&self) -> bool {
        self.shared_is_used && self.network_credit == 0
    }
}

impl Endpoint {
    #[inline]
    pub(super) fn poll_shared(&mut self) -> Option<Received> {
        let (channel, from, addr, buf) = self.shm.as_mut()?.recv(&mut self.stats)?;
        self.rhythm.shared_is_used = true;
        Some(Received { from, addr, buf, channel: Some(channel) })
    }

    pub(crate) fn poll_network(&mut self) -> Option<Received> {
        self.tend_if_due();
        let received = self.network.recv(&mut self.stats)?;
        self.stats.messages_received += 1;
        self.stats.bytes_received += received.buf.len() as u64;
        if let Some(live) = &mut self.live {
            live.received(received.from, received.buf.len());
        }
        Some(received)
    }

    #[inline]
    pub(super) fn poll_network_if_due(&mut self) -> Option<Received> {
        if self.network_can_wait() {
            return None;
        }
        let received = self.poll_network();
        self.rhythm.looked_at_network(received.is_some());
        received
    }

    /// True if memory is busy and the network was looked at lately. Not after a sleep, for then the bell that
    /// may have ended it must be silenced, or it would end the next one.
    #[inline]
    pub(super) fn network_can_wait(&mut self) -> bool {
        self.sharing
            && self.rhythm.is_shared_hot()
            && !self.shm.as_ref().is_some_and(Shm::is_asleep)
            && !self.network_is_due()
    }

    #[inline]
    pub(super) fn network_is_due(&mut self) -> bool {
        let rhythm = &mut self.rhythm;
        rhythm.looks += 1;
        if !rhythm.looks.is_multiple_of(LOOKS_PER_CLOCK) {
            return false;
        }
        let now = self.clock.now();
        let due = now >= rhythm.network_at;
        if due {
            // Without a message until the next time, both are looked at by turns again.
            rhythm.shared_is_used = false;
            rhythm.network_at = now + NETWORK_INTERVAL;
            // And what happens rarely has its turn with it.
            rhythm.tend_looks = LOOKS_PER_TEND - 1;
        }
        due
    }

    pub(super) fn tend_if_due(&mut self) {
        if let Some(shm) = &mut self.shm {
            shm.unpark();
        }
        self.rhythm.tend_looks += 1;
        if self.rhythm.tend_looks.is_multiple_of(LOOKS_PER_TEND) {
            let now = self.clock.now();
            if now >= self.rhythm.tend_at {
                self.rhythm.tend_at = now + TEND_INTERVAL;
                if self.live.as_ref().is_some_and(|live| live.is_due(now)) {
                    self.publish(now);
                }
                if let Some(shm) = &mut self.shm {
                    shm.tend();
                    if now >= self.rhythm.share_at {
                        self.rhythm.share_at = now + SHARE_INTERVAL;
                        self.share_again();
                    }
                }
            }
        }
        self.take_channel_events();
    }

    /// What has become of the channels.
    pub(super) fn take_channel_events(&mut self) {
        let Some(shm) = &mut self.shm else { return };
        let mut changed = false;
        while let Some(event) = shm.next_event() {
            changed = true;
            match event {
                ChannelEvent::Accepted(id, peer, addr) => {
                    tracing::info!(%peer, %addr, "memory is shared, as the peer wished");
                    let before = self.peers.channel_to(peer, Some(addr));
                    // If both have called at once, each goes on with the channel it has.
                    if before.is_none_or(|before| !shm.is_alive(before)) {
                        self.peers.share(peer, id, addr, "the peer is on this host and has connected to us");
                    }
                }
                ChannelEvent::Opened(peer) => tracing::info!(%peer, "memory is shared"),
                ChannelEvent::Closed(id, peer, addr, why) => {
                    tracing::info!(%peer, %addr, %why, "memory is shared no more");
                    self.peers.unshare(peer, id, format!("shared memory was given up: {why}"));
                    if let Some(closed) = &mut self.closed {
                        closed.push_back((id, peer));
                    }
                }
            }
        }
        if changed {
            self.sharing = shm.counts().0 > 0;
        }
    }

    pub(super) fn share_with(&mut self, peer: PeerId, addr: SocketAddr) {
        let Some(shm) = &mut self.shm else { return };
        match shm.connect(peer, addr) {
            Ok(id) => {
                self.sharing = true;
                self.peers.share(peer, id, addr, "the peer is on this host");
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        "no endpoint of this host shares memory at that address".to_owned()
                    }
                    _ => format!("no memory is shared: {error}"),
                };
                let known = self.peers.entry(peer);
                if known.reason != reason {
                    tracing::info!(%peer, %addr, %reason, "messages go by the network");
                    known.reason = reason;
                }
            }
        }
    }

    /// Asks peers again that do not share memory: they may have started meanwhile.
    pub(super) fn share_again(&mut self) {
        let mine = self.local_addr().ip();
        let unshared: Vec<_> = self
            .peers
            .unshared()
            .filter(|(_, addr)| addr.ip().is_loopback() || addr.ip() == mine)
            .take(SHARES_AT_ONCE)
            .collect();
        unshared.into_iter().for_each(|(peer, addr)| self.share_with(peer, addr));
    }
}
