//! The parties an endpoint talks to: calling them, who they are, and what waits for them.

use super::{Begun, Engine, Shared};
use crate::abi::{FI_EADDRNOTAVAIL, FI_EAGAIN, FI_ECONNRESET};
use crate::address::Address;
use crate::memory;
use crate::wire::{Greeting, HEAD_LEN, Head, Kind};
use cl::Buf;
use cl_base::PeerId;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// The number of this endpoint among its peers.
pub(super) const SELF: u32 = 0;
/// Parties that have connected and not said who they are; more than this at once are shown out.
const STRANGERS_MAX: usize = 64;
/// Answers that wait for one peer, which has asked for them: as many operations as it can have under way, twice.
const BACKLOG_MAX: usize = 2 * super::send::SENDINGS_MAX;

/// What is to be sent, in its order.
pub(super) enum Later {
    Say(Buf),
    /// The announcement of this operation, whose offer was sent.
    Announce(u32),
}

pub(super) struct Peer {
    pub(super) id: PeerId,
    /// `None` for one that has called and not said who it is.
    pub(super) address: Option<Address>,
    pub(super) is_connected: bool,
    /// The connection has failed, and with it what was under way. There will be no other.
    pub(super) has_failed: bool,
    /// It has shown that it knows our address.
    pub(super) has_greeted: bool,
    was_greeted: bool,
    /// The process whose memory we can read, if it can be read.
    pub(super) process: Option<i32>,
    /// What we have last told it of that.
    told_can_pull: bool,
    /// It can read ours.
    pub(super) can_pull: bool,
    pub(super) backlog: VecDeque<Later>,
    /// Our operations that were announced, by the number of the transfer.
    pub(super) announced: FxHashMap<u64, u32>,
    /// Its offers whose announcements come next.
    pub(super) awaited: VecDeque<usize>,
    /// Its offers that were announced, by the number of the transfer.
    pub(super) takings: FxHashMap<u64, usize>,
}

impl Peer {
    fn new(id: PeerId, address: Option<Address>) -> Peer {
        Peer {
            id,
            address,
            is_connected: false,
            has_failed: false,
            has_greeted: false,
            was_greeted: false,
            process: None,
            told_can_pull: false,
            can_pull: false,
            backlog: VecDeque::new(),
            announced: FxHashMap::default(),
            awaited: VecDeque::new(),
            takings: FxHashMap::default(),
        }
    }

    pub(super) fn disconnect(&mut self, failed: bool) {
        let address = self.address.take();
        let has_failed = self.has_failed || (failed && address.is_some());
        *self = Peer { has_failed, ..Peer::new(self.id, address) };
    }
}

impl Engine {
    /// The first of the peers is this endpoint itself, which can of course read its own memory.
    pub(super) fn add_self(&mut self) {
        let process = Some(std::process::id() as i32);
        let itself = Peer {
            has_greeted: true,
            was_greeted: true,
            can_pull: true,
            process,
            ..Peer::new(self.me.peer, Some(self.me))
        };
        let number = self.peers.insert(itself) as u32;
        assert_eq!(number, SELF, "nobody was there before");
        self.by_id.insert(self.me.peer, number);
    }

    /// The peer of that name, a new one if it has none yet.
    pub(super) fn peer_of(&mut self, id: PeerId) -> u32 {
        if let Some(&peer) = self.by_id.get(&id) {
            return peer;
        }
        let peer = self.peers.insert(Peer::new(id, None)) as u32;
        self.by_id.insert(id, peer);
        peer
    }

    /// The peer at an address of the application's, which need not be connected.
    #[inline]
    pub(super) fn route(&mut self, shared: &Shared, number: u64) -> Result<u32, i32> {
        if let Some(&Some(peer)) = usize::try_from(number).ok().and_then(|number| self.routes.get(number)) {
            return Ok(peer);
        }
        self.find_route(shared, number)
    }

    #[cold]
    fn find_route(&mut self, shared: &Shared, number: u64) -> Result<u32, i32> {
        let vector = self.vector.and_then(|vector| shared.vectors.get(vector));
        let address = vector.and_then(|vector| vector.get(number)).ok_or(FI_EADDRNOTAVAIL)?;
        let peer = self.peer_of(address.peer);
        self.peers[peer as usize].address.get_or_insert(address);
        // There is such an entry, so the number is one of an index.
        let index = number as usize;
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        self.routes[index] = Some(peer);
        Ok(peer)
    }

    /// The numbers of addresses may mean others from now on.
    pub(crate) fn forget_routes(&mut self) {
        self.routes.clear();
    }

    /// Makes sure that messages can be sent to a peer, in order.
    #[inline]
    pub(super) fn make_ready(&mut self, peer: u32) -> Begun {
        let known = &self.peers[peer as usize];
        if known.was_greeted && known.backlog.is_empty() {
            return Ok(());
        }
        self.call(peer)
    }

    #[cold]
    fn call(&mut self, peer: u32) -> Begun {
        let known = &mut self.peers[peer as usize];
        if known.has_failed {
            return Err(FI_ECONNRESET);
        }
        if !known.is_connected {
            let address = known.address.ok_or(FI_EADDRNOTAVAIL)?;
            known.is_connected = true;
            self.net.connect(known.id, address.socket);
        }
        if !self.peers[peer as usize].was_greeted {
            self.greet(peer);
        }
        self.pump_peer(peer);
        if self.peers[peer as usize].backlog.is_empty() { Ok(()) } else { Err(FI_EAGAIN) }
    }

    /// Says who we are, and whether we can read the peer's memory.
    fn greet(&mut self, peer: u32) {
        let known = &mut self.peers[peer as usize];
        let Some(address) = known.address else { return };
        known.was_greeted = true;
        known.told_can_pull = known.process.is_some();
        let greeting = Greeting {
            address: self.me.to_bytes(),
            proof: address.proof(&self.me),
            process: std::process::id() as i32,
            probe_at: memory::address_of(&self.probe[..]),
            probe: *self.probe,
            can_pull: known.told_can_pull,
        };
        let bytes = greeting.to_bytes();
        self.say(peer, Head::new(Kind::Greeting, 0), bytes.len(), |buf| buf.extend_from_slice(&bytes));
    }

    pub(super) fn on_greeting(&mut self, peer: u32, bytes: &[u8]) {
        let greeting = Greeting::parse(&bytes[HEAD_LEN..]);
        let known = &self.peers[peer as usize];
        let address = greeting.and_then(|greeting| Address::from_bytes(&greeting.address));
        let (Some(greeting), Some(address)) = (greeting, address) else {
            self.refused.malformed += 1;
            return self.give_up(peer);
        };
        let is_the_one = address.peer == known.id && known.address.is_none_or(|known| known == address);
        if peer == SELF || !is_the_one || greeting.proof != self.me.proof(&address) {
            self.refused.strangers += 1;
            return self.give_up(peer);
        }
        let process = self.settings.shared_memory.then_some(greeting.process).filter(|&process| {
            memory::peek(process, greeting.probe_at).is_ok_and(|probe| probe == greeting.probe)
        });
        let known = &mut self.peers[peer as usize];
        known.address = Some(address);
        known.is_connected = true;
        known.has_greeted = true;
        known.process = process;
        known.can_pull = greeting.can_pull && self.settings.shared_memory;
        if !known.was_greeted || known.told_can_pull != process.is_some() {
            self.greet(peer);
        }
    }

    pub(super) fn on_connected(&mut self, peer: u32) {
        self.peers[peer as usize].is_connected = true;
        let strangers = self.peers.iter().filter(|(_, peer)| peer.address.is_none()).count();
        if strangers > STRANGERS_MAX && self.peers[peer as usize].address.is_none() {
            self.refused.strangers += 1;
            self.give_up(peer);
        }
    }

    /// Ends the connection with who does not keep to the rules; what follows from that comes as an event.
    pub(super) fn give_up(&mut self, peer: u32) {
        tracing::warn!(peer = %self.peers[peer as usize].id, "a party that does not keep to the rules");
        if peer != SELF {
            self.net.abort(self.peers[peer as usize].id);
        }
    }

    /// Nothing is kept of who has never said who it is.
    pub(super) fn forget_stranger(&mut self, peer: u32) {
        if self.peers[peer as usize].address.is_none() {
            let known = self.peers.remove(peer as usize);
            self.by_id.remove(&known.id);
        }
    }

    /// Sends a message of our own making; it waits if it must.
    pub(super) fn say(&mut self, peer: u32, head: Head, body_len: usize, body: impl FnOnce(&mut Buf)) {
        let Ok(mut buf) = self.net.alloc(HEAD_LEN + body_len) else {
            // The pool has more than an endpoint can have under way; a peer that uses all of it up has broken the rules.
            return self.give_up(peer);
        };
        buf.extend_from_slice(&head.to_bytes());
        body(&mut buf);
        if self.peers[peer as usize].backlog.is_empty() {
            match self.transmit(peer, buf) {
                Ok(()) => return,
                Err(refused) => buf = refused,
            }
        }
        self.say_later(peer, Later::Say(buf));
    }

    pub(super) fn say_later(&mut self, peer: u32, later: Later) {
        let backlog = &mut self.peers[peer as usize].backlog;
        if backlog.len() >= BACKLOG_MAX {
            return self.give_up(peer);
        }
        backlog.push_back(later);
        if !self.busy.contains(&peer) {
            self.busy.push(peer);
        }
    }

    /// Hands a message to the connection, or back.
    #[inline]
    pub(super) fn transmit(&mut self, peer: u32, buf: Buf) -> Result<(), Buf> {
        if peer == SELF {
            self.loopback.push_back(buf);
            return Ok(());
        }
        self.has_said = true;
        let id = self.peers[peer as usize].id;
        self.net.send(id, buf).map_err(|error| error.buf)
    }

    /// Sends what waits, as far as it goes.
    pub(super) fn pump(&mut self) {
        for peer in std::mem::take(&mut self.busy) {
            if self.peers.contains(peer as usize) {
                self.pump_peer(peer);
                if !self.peers[peer as usize].backlog.is_empty() {
                    self.busy.push(peer);
                }
            }
        }
    }

    fn pump_peer(&mut self, peer: u32) {
        while let Some(later) = self.peers[peer as usize].backlog.pop_front() {
            let again = match later {
                Later::Say(buf) => self.transmit(peer, buf).err().map(Later::Say),
                Later::Announce(sending) => {
                    (!self.announce(peer, sending)).then_some(Later::Announce(sending))
                }
            };
            if let Some(again) = again {
                self.peers[peer as usize].backlog.push_front(again);
                break;
            }
        }
    }
}
