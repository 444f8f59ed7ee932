use crate::shm::id::ChannelId;
use crate::transport::TransportKind;
use cl_base::PeerId;
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Addresses remembered for one peer: as many as it plausibly has network interfaces.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// How messages get to a peer, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What carries them.
    pub kind: TransportKind,
    /// The address they go to; over shared memory, the one that names the peer.
    pub addr: SocketAddr,
    /// Why it is that way, as a sentence for people.
    pub reason: String,
}

/// What is known of the peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: FxHashMap<PeerId, Peer>,
    /// The peer last asked for and the channel to it: most messages go where the one before went.
    last: Cell<Option<(PeerId, ChannelId)>>,
}

/// What is known of one.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The one used first.
    pub(super) addresses: VecDeque<SocketAddr>,
    /// The channel to the endpoint at that address.
    pub(super) shared: Option<(ChannelId, SocketAddr)>,
    /// The address to use first is not the channel's.
    elsewhere: bool,
    /// Why messages go the way they go.
    pub(super) reason: String,
}

impl Peer {
    fn compare(&mut self) {
        let first = self.addresses.front();
        self.elsewhere = self.shared.is_some_and(|(_, addr)| first.is_some_and(|first| *first != addr));
    }
}

impl Peers {
    #[inline]
    pub(super) fn get(&self, peer: PeerId) -> Option<&Peer> {
        self.known.get(&peer)
    }

    pub(super) fn entry(&mut self, peer: PeerId) -> &mut Peer {
        self.last.set(None);
        self.known.entry(peer).or_default()
    }

    /// Learns an address, the one to use from now on.
    pub(super) fn learn(&mut self, peer: PeerId, addr: SocketAddr) {
        let known = self.entry(peer);
        known.addresses.retain(|a| *a != addr);
        known.addresses.push_front(addr);
        known.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        known.compare();
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.last.set(None);
        if let Some(known) = self.known.get_mut(&peer) {
            known.addresses.clear();
            known.compare();
            if known.shared.is_none() {
                self.known.remove(&peer);
            }
        }
    }

    pub(super) fn address_of(&self, peer: PeerId) -> Option<SocketAddr> {
        self.known.get(&peer)?.addresses.front().copied()
    }

    pub(super) fn addresses_of(&self, peer: PeerId) -> impl Iterator<Item = SocketAddr> + '_ {
        self.known.get(&peer).into_iter().flat_map(|known| known.addresses.iter().copied())
    }

    /// The channel to `peer`, unless its messages are to go to another address than the channel's.
    #[inline]
    pub(super) fn channel_to(&self, peer: PeerId, addr: Option<SocketAddr>) -> Option<ChannelId> {
        match (self.last.get(), addr) {
            (Some((last, id)), None) if last == peer => Some(id),
            _ => self.look_up_channel(peer, addr),
        }
    }

    fn look_up_channel(&self, peer: PeerId, addr: Option<SocketAddr>) -> Option<ChannelId> {
        let known = self.known.get(&peer)?;
        let (id, shared_addr) = known.shared?;
        let elsewhere = match addr {
            Some(addr) => addr != shared_addr,
            None => known.elsewhere,
        };
        if elsewhere {
            return None;
        }
        if addr.is_none() {
            self.last.set(Some((peer, id)));
        }
        Some(id)
    }

    /// A channel is there.
    pub(super) fn share(&mut self, peer: PeerId, id: ChannelId, addr: SocketAddr, reason: &str) {
        let known = self.entry(peer);
        known.shared = Some((id, addr));
        known.compare();
        known.reason = reason.to_owned();
    }

    /// A channel is there no more.
    pub(super) fn unshare(&mut self, peer: PeerId, id: ChannelId, reason: String) {
        self.last.set(None);
        let Some(known) = self.known.get_mut(&peer) else { return };
        if known.shared.is_some_and(|(shared, _)| shared == id) {
            known.shared = None;
            known.reason = reason;
            if known.addresses.is_empty() {
                self.known.remove(&peer);
            }
        }
    }

    /// Peers with an address that no channel leads to.
    pub(super) fn unshared(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> + '_ {
        self.known.iter().filter_map(|(&peer, known)| {
            let addr = *known.addresses.front()?;
            known.shared.is_none_or(|(_, shared)| shared != addr).then_some((peer, addr))
        })
    }
}
