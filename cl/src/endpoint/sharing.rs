//! Shared memory beside the network: with whom, and what becomes of the channels.

use super::Endpoint;
use crate::shm::ChannelEvent;
use cl_base::PeerId;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Peers that do not share memory are asked again so often.
const SHARE_INTERVAL: Duration = Duration::from_millis(250);
/// And so many of them at once.
const SHARES_AT_ONCE: usize = 16;

impl Endpoint {
    pub(super) fn tend_if_due(&mut self) {
        if let Some(shm) = &mut self.shm {
            shm.unpark();
        }
        if let Some(now) = self.rhythm.tend_is_due(&self.clock) {
            if self.tally.live.as_ref().is_some_and(|live| live.is_due(now)) {
                self.publish(now);
            }
            if let Some(shm) = &mut self.shm {
                shm.tend();
                if now >= self.share_at {
                    self.share_at = now + SHARE_INTERVAL;
                    self.share_again();
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
