//! An endpoint: `rcl`'s connections below, tag matching, and the operations of the application under way.
//!
//! Nothing here runs by itself: whoever reads completions drives it ([`Engine::progress`]).

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod peers;
mod receive;
mod rma;
mod send;
mod transfer;

use crate::abi::FI_ECONNRESET;
use crate::address::{Address, random};
use crate::matching::Matching;
use crate::queues::{Bound, Queues};
use crate::settings::Settings;
use crate::wire::{Head, Kind, PROBE_LEN};
use cl::{Buf, SharedMemory, SharedMemoryConfig};
use cl_base::PeerId;
use peers::Peer;
use rcl::{CloseReason, EndpointConfig, Event};
use receive::{Multi, Taking};
use rustc_hash::FxHashMap;
use send::Sending;
use slab::Slab;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) use receive::{Incoming, Probe};
pub(crate) use rma::{Access, Copying, Region, Remote};
pub(crate) use send::{INJECT_MAX, MESSAGE_MAX, Outgoing, SENDINGS_MAX};

/// Events taken in by one call: enough for a burst, few enough that the caller gets its completions.
const EVENTS_PER_CALL: usize = 64;
/// A message that comes alone is handed on before the network is looked at again, which takes longer than to handle it.
/// When so many calls in a row have found something, there is probably more.
const CALLS_IN_A_BURST: u32 = 3;
/// Between two looks at peers that do not answer while an endpoint is closed.
const LINGER_STEP: Duration = Duration::from_millis(1);

/// The result of an operation that was begun: `Err` has libfabric's number of the error, positive.
pub(crate) type Begun = Result<(), c_int>;

/// Addresses by number, as the application knows its peers.
#[derive(Debug, Default)]
pub(crate) struct AddressVector {
    entries: Vec<Option<Address>>,
    numbers: FxHashMap<PeerId, u64>,
}

impl AddressVector {
    /// Adds an address; the same one again gets another number.
    pub(crate) fn insert(&mut self, address: Address) -> u64 {
        let number = self.entries.len() as u64;
        self.entries.push(Some(address));
        self.numbers.entry(address.peer).or_insert(number);
        number
    }

    /// True if there was such a number.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let entry = usize::try_from(number).ok().and_then(|number| self.entries.get_mut(number));
        let Some(address) = entry.and_then(Option::take) else { return false };
        if self.numbers.get(&address.peer) == Some(&number) {
            self.numbers.remove(&address.peer);
        }
        true
    }

    pub(crate) fn get(&self, number: u64) -> Option<Address> {
        *self.entries.get(usize::try_from(number).ok()?)?
    }

    /// The first number of a peer.
    pub(crate) fn number_of(&self, peer: PeerId) -> Option<u64> {
        self.numbers.get(&peer).copied()
    }
}

/// What the endpoints of a domain share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) queues: Queues,
    pub(crate) vectors: Slab<AddressVector>,
    /// By the keys that the application has chosen.
    pub(crate) regions: FxHashMap<u64, Region>,
}

/// Where an endpoint's operations complete, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bindings {
    pub(crate) send: Bound,
    pub(crate) receive: Bound,
    pub(crate) read: Bound,
    pub(crate) write: Bound,
}

/// Messages of peers that make no sense, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refused {
    /// No head of ours.
    pub(crate) malformed: u64,
    /// From parties that have not shown that they know our address.
    pub(crate) strangers: u64,
    /// Answers to nothing, or of the wrong peer.
    pub(crate) stray: u64,
}

/// One endpoint. See the module.
pub(crate) struct Engine {
    net: rcl::Endpoint,
    me: Address,
    settings: Settings,
    /// What others read out of our memory to find out whether they can.
    probe: Box<[u8; PROBE_LEN]>,
    peers: Slab<Peer>,
    by_id: FxHashMap<PeerId, u32>,
    /// The peer of each address that was used.
    routes: Vec<Option<u32>>,
    /// Peers for which something waits.
    busy: Vec<u32>,
    /// What was sent to ourselves.
    loopback: VecDeque<Buf>,
    /// Receives and messages without a tag, and with one.
    matching: [Matching<Incoming, receive::Waiting>; 2],
    /// Waiting messages that hold a buffer of the pool.
    buffers_kept: usize,
    /// Messages that a receive with `FI_CLAIM` will ask for, by its context.
    claimed: FxHashMap<usize, receive::Waiting>,
    sendings: Slab<Sending>,
    takings: Slab<Taking>,
    multis: Slab<Multi>,
    refused: Refused,
    /// Something was sent that may wait for company below.
    has_said: bool,
    /// Calls in a row that found something.
    calls_with_events: u32,
    pub(crate) vector: Option<usize>,
    pub(crate) bindings: Bindings,
    pub(crate) min_multi_recv: usize,
    /// Whether receives may name their source.
    pub(crate) directed: bool,
    pub(crate) enabled: bool,
    /// Driven since the watch last looked.
    driven: bool,
}

impl Engine {
    /// Opens the endpoint below.
    ///
    /// # Errors
    /// As [`cl::Endpoint::open`].
    pub(crate) fn open(settings: Settings) -> Result<Engine, rcl::OpenError> {
        let id = PeerId::from_u64(u64::from_le_bytes(random()));
        let mut config = EndpointConfig::new(id, SocketAddr::new(settings.ip, 0));
        config.cl.shared_memory = match settings.shared_memory {
            true => SharedMemory::Auto(SharedMemoryConfig::default()),
            false => SharedMemory::Never,
        };
        config.protocol.dead_after = settings.dead_after;
        let net = rcl::Endpoint::open(config)?;
        let me = Address::new(id, net.local_addr());
        let mut engine = Engine {
            net,
            me,
            settings,
            probe: Box::new(random()),
            peers: Slab::new(),
            by_id: FxHashMap::default(),
            routes: Vec::new(),
            busy: Vec::new(),
            loopback: VecDeque::new(),
            matching: [Matching::new(), Matching::new()],
            buffers_kept: 0,
            claimed: FxHashMap::default(),
            sendings: Slab::new(),
            takings: Slab::new(),
            multis: Slab::new(),
            refused: Refused::default(),
            has_said: false,
            calls_with_events: 0,
            vector: None,
            bindings: Bindings::default(),
            min_multi_recv: receive::MIN_MULTI_RECV_DEFAULT,
            directed: true,
            enabled: false,
            driven: true,
        };
        engine.add_self();
        Ok(engine)
    }

    pub(crate) fn address(&self) -> Address {
        self.me
    }

    /// Takes in what has arrived and sends what waits.
    pub(crate) fn progress(&mut self, shared: &mut Shared) {
        self.driven = true;
        for taken in 0..EVENTS_PER_CALL {
            if let Some(buf) = self.loopback.pop_front() {
                self.on_message(shared, peers::SELF, buf);
                continue;
            }
            let Some(event) = self.net.poll() else {
                self.calls_with_events = 0;
                break;
            };
            self.on_event(shared, event);
            if taken == 0 {
                self.calls_with_events = self.calls_with_events.saturating_add(1);
                if self.calls_with_events < CALLS_IN_A_BURST {
                    break;
                }
            }
        }
        if !self.busy.is_empty() {
            self.pump();
        }
        if std::mem::take(&mut self.has_said) {
            self.net.flush();
        }
    }

    /// Answers peers that ask whether this process lives, if the application has not called for a while.
    pub(crate) fn watch(&mut self) {
        if !std::mem::take(&mut self.driven) {
            self.net.progress();
        }
    }

    fn on_event(&mut self, shared: &mut Shared, event: Event) {
        match event {
            Event::Message { from, buf } => {
                let peer = self.peer_of(from);
                self.on_message(shared, peer, buf);
            }
            Event::Connected(id) => {
                let peer = self.peer_of(id);
                self.on_connected(peer);
            }
            Event::Announced { from, id, len } => {
                let peer = self.peer_of(from);
                self.on_announced(peer, id, len);
            }
            Event::Received { from, id, sink } => {
                let peer = self.peer_of(from);
                self.on_transferred(shared, peer, id, sink);
            }
            Event::Sent { to, id } => {
                let peer = self.peer_of(to);
                self.on_sent(shared, peer, id, true);
            }
            Event::Rejected { by, id } => {
                let peer = self.peer_of(by);
                self.on_sent(shared, peer, id, false);
            }
            Event::Closed(id, reason) => {
                let peer = self.peer_of(id);
                self.on_closed(shared, peer, reason);
            }
        }
    }

    fn on_message(&mut self, shared: &mut Shared, peer: u32, mut buf: Buf) {
        let Some((head, body)) = Head::parse(&buf) else {
            self.refused.malformed += 1;
            return self.give_up(peer);
        };
        if head.kind == Kind::Greeting {
            return self.on_greeting(peer, &buf);
        }
        if !self.peers[peer as usize].has_greeted {
            self.refused.strangers += 1;
            return self.give_up(peer);
        }
        let made_sense = match head.kind {
            Kind::Message => {
                buf.advance(crate::wire::HEAD_LEN);
                self.on_arrival(shared, peer, head, buf);
                true
            }
            Kind::Offer => self.on_offer(shared, peer, head, body),
            Kind::Done => {
                let sending = self.sendings.get(head.operation as usize);
                let expected = sending.is_some_and(|sending| !sending.is_announced);
                if expected {
                    self.on_done(shared, peer, head.operation, head.tag as c_int);
                }
                expected
            }
            Kind::Write => self.on_write(shared, peer, head, body),
            Kind::WriteOffer => self.on_write_offer(shared, peer, head, body),
            Kind::Read => self.on_read(shared, peer, head, body),
            Kind::ReadReply => self.on_read_reply(shared, peer, head, body),
            Kind::ReadOffer => self.on_read_offer(peer, head, body),
            Kind::Greeting => unreachable!("handled above"),
        };
        if !made_sense {
            self.refused.malformed += 1;
            self.give_up(peer);
        }
    }

    /// The operations with a peer that is gone have failed; with an end that both wanted there are none.
    fn on_closed(&mut self, shared: &mut Shared, peer: u32, reason: CloseReason) {
        tracing::debug!(peer = %self.peers[peer as usize].id, %reason, "a connection has ended");
        let graceful = reason == CloseReason::Graceful;
        self.peers[peer as usize].disconnect(!graceful);
        self.fail_sendings(shared, peer, FI_ECONNRESET);
        self.fail_receives(shared, peer, FI_ECONNRESET, !graceful);
        self.forget_stranger(peer);
    }

    /// Waits until the peers have everything that was accepted for sending, or for as long as the settings say.
    pub(crate) fn close(mut self, shared: &mut Shared) {
        // Nobody is told of what completes now.
        self.bindings = Bindings::default();
        let give_up = Instant::now() + self.settings.linger;
        let mut closing = Vec::new();
        loop {
            for (_, peer) in &self.peers {
                if peer.is_connected && peer.backlog.is_empty() && !closing.contains(&peer.id) {
                    closing.push(peer.id);
                    self.net.close(peer.id);
                }
            }
            self.progress(shared);
            let open = self.peers.iter().filter(|(_, peer)| peer.is_connected).count();
            if open == 0 || Instant::now() >= give_up {
                if open > 0 {
                    tracing::warn!(
                        open,
                        "peers that have not taken in everything when the endpoint was closed"
                    );
                }
                return;
            }
            if self.net.park(Some(LINGER_STEP)).is_err() {
                std::thread::sleep(LINGER_STEP);
            }
        }
    }
}
