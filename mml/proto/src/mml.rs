use crate::handshake::{NonceSource, StaticKeys};
use crate::mac::{MAC_BYTES, Mac, MacKey};
use crate::peer::{Context, Peer};
use crate::wire::{self, Kind, SessionFrame};
use crate::{
    Body, Config, Counters, Delivery, Event, PairKeys, SendError, SendStatus, Sequence, Transmit, Verdict,
};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How much longer than the longest body a frame may be: a peer may bundle more than we do.
const FRAME_SLACK: usize = 1 << 16;

/// The message layer of one party: sessions with many peers, without I/O.
///
/// Four kinds of methods, after which the caller drains [`Mml::poll_transmit`] and [`Mml::poll_event`] and
/// sets its timer to [`Mml::next_timeout`]:
/// - what the application wants: [`connect`](Mml::connect), [`send`](Mml::send), ...;
/// - what the network brings: [`handle`](Mml::handle);
/// - that time has passed: [`handle_timeout`](Mml::handle_timeout);
/// - questions, which change nothing: [`status`](Mml::status), [`counters`](Mml::counters), ...
pub struct Mml {
    cx: Context,
    keys: Box<dyn PairKeys>,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers created by the frames of others, oldest first; some of them have proved themselves since.
    half_open: VecDeque<PeerId>,
    timers: BTreeSet<(Time, PeerId)>,
    ready: VecDeque<PeerId>,
    /// Messages to a peer that has been forgotten are numbered from here when it comes back, so that it does
    /// not take them for old ones.
    first_number: u64,
}

impl Mml {
    /// The party `me` in its life `incarnation`, larger than that of every earlier one. `seed` is secret,
    /// from the system's entropy (or repeatable, in a simulation), and never used twice.
    pub fn new(
        config: Config,
        me: PeerId,
        incarnation: Incarnation,
        keys: Box<dyn PairKeys>,
        seed: [u8; 32],
    ) -> Mml {
        config.check();
        Mml {
            cx: Context {
                config,
                me,
                incarnation,
                nonces: NonceSource::new(seed),
                counters: Counters::default(),
                events: VecDeque::new(),
            },
            keys,
            peers: BTreeMap::new(),
            half_open: VecDeque::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            first_number: 0,
        }
    }

    /// Begins to establish a session, unless there is one (Table 7.2, `msg_connect`). [`Event::Up`] or
    /// [`Event::Down`] follows.
    ///
    /// # Errors
    /// [`SendError::UnknownPeer`] and [`SendError::TooManyPeers`].
    pub fn connect(&mut self, now: Time, peer: PeerId) -> Result<(), SendError> {
        self.open(now, peer)?;
        self.with_peer(peer, |peer, cx| peer.connect(now, cx));
        Ok(())
    }

    /// Ends the session with `peer`, if there is one (`msg_disconnect`). What is still on its way fails.
    pub fn disconnect(&mut self, now: Time, peer: PeerId) {
        self.with_peer(peer, |peer, cx| peer.disconnect(now, cx));
    }

    /// Sends `body` to `peer`, connecting first where needed (`msg_async_send`). `class` is the
    /// application's; it travels in the clear, see [`peek_class`](crate::peek_class).
    ///
    /// # Errors
    /// [`SendError`]; the message was not taken.
    pub fn send(
        &mut self,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: impl Into<Body>,
    ) -> Result<Sequence, SendError> {
        self.send_body(now, peer, delivery, class, body.into())
    }

    /// Sends `body` to each of `peers`; it is stored and, if long, hashed only once.
    pub fn send_group(
        &mut self,
        now: Time,
        peers: &[PeerId],
        delivery: Delivery,
        class: u8,
        body: impl Into<Body>,
    ) -> Vec<(PeerId, Result<Sequence, SendError>)> {
        let body = body.into();
        peers.iter().map(|&peer| (peer, self.send_body(now, peer, delivery, class, body.clone()))).collect()
    }

    fn send_body(
        &mut self,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: Body,
    ) -> Result<Sequence, SendError> {
        let (len, max) = (body.len(), self.cx.config.body_bytes_max);
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        self.open(now, peer)?;
        self.with_peer(peer, |peer, cx| peer.send(now, cx, delivery, class, body)).expect("opened above")
    }

    /// What has become of a message (`msg_check_status`).
    pub fn status(&self, peer: PeerId, seq: Sequence) -> SendStatus {
        self.peers.get(&peer).map_or(SendStatus::Unknown, |peer| peer.status(seq))
    }

    /// Sends a message again at once (`msg_resend`); false if it is no longer kept, or not yet sent, or the
    /// session is down.
    pub fn resend(&mut self, peer: PeerId, seq: Sequence) -> bool {
        self.with_peer(peer, |peer, _| peer.resend(seq)).unwrap_or(false)
    }

    /// Tells `peer` at once what has arrived of its ACK and NACK messages (`msg_group_ack`): a receiver of a
    /// multicast spares the sender the adverts.
    pub fn group_ack(&mut self, peer: PeerId) {
        self.with_peer(peer, |peer, _| peer.group_ack());
    }

    /// A frame has arrived that claims to come from `from`.
    pub fn handle(&mut self, now: Time, from: PeerId, frame: &[u8]) -> Verdict {
        if self.cx.events.len() >= self.cx.config.events_max {
            self.cx.counters.overload += 1;
            return Verdict::Refused;
        }
        match wire::peek_kind(frame) {
            None => {
                self.cx.counters.malformed += 1;
                Verdict::Refused
            }
            Some(Kind::Session) => self.handle_session(now, from, frame),
            Some(kind) => self.handle_handshake(now, from, kind, frame),
        }
    }

    fn handle_session(&mut self, now: Time, from: PeerId, frame: &[u8]) -> Verdict {
        let longest = self.cx.config.body_bytes_max + FRAME_SLACK;
        let Some(frame) = SessionFrame::split(frame).filter(|_| frame.len() <= longest) else {
            self.cx.counters.malformed += 1;
            return Verdict::Refused;
        };
        // Not authenticated yet: it may take a free place, nobody's.
        if !self.admit(now, from, false) {
            return Verdict::Refused;
        }
        self.with_peer(from, |peer, cx| peer.on_session_frame(now, cx, &frame)).expect("admitted above")
    }

    fn handle_handshake(&mut self, now: Time, from: PeerId, kind: Kind, frame: &[u8]) -> Verdict {
        let key = match self.peers.get(&from) {
            Some(peer) => peer.handshake_key().clone(),
            None => match self.pair_key(from) {
                Some(pair_key) => StaticKeys::new(pair_key).handshake,
                None => {
                    self.cx.counters.unknown_peer += 1;
                    return Verdict::Refused;
                }
            },
        };
        let (text, mac) = frame.split_at(frame.len() - MAC_BYTES);
        if !key.verify(from, self.cx.me, &[text], mac) {
            self.cx.counters.bad_mac += 1;
            return Verdict::Refused;
        }
        let (theirs, echo) = wire::read_handshake(frame);
        if kind != Kind::Hello && !self.peers.contains_key(&from) {
            self.cx.counters.stale_handshake += 1;
            return Verdict::Refused;
        }
        if !self.admit(now, from, true) {
            return Verdict::Refused;
        }
        self.with_peer(from, |peer, cx| peer.on_handshake(now, cx, kind, theirs, echo))
            .expect("admitted above")
    }

    /// Time has passed; to be called when [`Mml::next_timeout`] is reached, harmless at other times.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, peer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.with_peer(peer, |peer, cx| peer.on_timeout(now, cx));
            let armed = self.peers[&peer].armed;
            assert!(
                armed.is_none_or(|next| next > now),
                "a timer that is not moved would be handled for ever"
            );
        }
    }

    /// When [`Mml::handle_timeout`] is to be called; `None` if nothing is waited for.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Writes the next frame to be sent into `frame`, replacing what is there, and returns its destination;
    /// `None` when there is nothing to send. Peers take turns.
    pub fn poll_transmit(&mut self, now: Time, frame: &mut Vec<u8>) -> Option<Transmit> {
        while let Some(id) = self.ready.pop_front() {
            // A peer that was forgotten may still be in the queue.
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.queued = false;
            let filled = peer.poll_transmit(now, &mut self.cx, frame);
            self.settle(id);
            if filled.is_some() {
                return filled;
            }
        }
        None
    }

    /// The next thing the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// A code by which `peer`, and nobody else, can tell that `me` has said `bytes`: independent of sessions,
    /// so that it may travel through third parties, as in bundled heartbeats (dissertation 7.1.5). It does
    /// not keep anybody from repeating it: `bytes` must say when they were said. `None` without a key.
    pub fn tag(&self, peer: PeerId, domain: &str, bytes: &[u8]) -> Option<Mac> {
        let key = tag_key(&self.pair_key(peer)?);
        Some(key.mac(self.cx.me, peer, &[&domain_length(domain), domain.as_bytes(), bytes]))
    }

    /// Whether `tag` is what [`Mml::tag`] has returned at `from`, for this party.
    #[must_use]
    pub fn verify_tag(&self, from: PeerId, domain: &str, bytes: &[u8], tag: &[u8; 16]) -> bool {
        self.pair_key(from).is_some_and(|pair_key| {
            let text: [&[u8]; 3] = [&domain_length(domain), domain.as_bytes(), bytes];
            tag_key(&pair_key).verify(from, self.cx.me, &text, tag)
        })
    }

    /// This party.
    pub fn me(&self) -> PeerId {
        self.cx.me
    }

    /// This party's life.
    pub fn incarnation(&self) -> Incarnation {
        self.cx.incarnation
    }

    /// The latest life of `peer` that has proved to be alive.
    pub fn incarnation_of(&self, peer: PeerId) -> Option<Incarnation> {
        self.peers.get(&peer)?.known
    }

    /// Whether there is a session with `peer`.
    pub fn is_up(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(Peer::is_up)
    }

    /// The peers with which there is a session.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.values().filter(|peer| peer.is_up()).map(|peer| peer.id)
    }

    /// What has happened so far, by kind.
    pub fn counters(&self) -> &Counters {
        &self.cx.counters
    }

    fn pair_key(&self, peer: PeerId) -> Option<[u8; 32]> {
        if peer == self.cx.me { None } else { self.keys.pair_key(self.cx.me, peer) }
    }

    /// Does something with a peer, and then sees to its timer and its place in the queue of senders.
    fn with_peer<R>(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context) -> R) -> Option<R> {
        let result = act(self.peers.get_mut(&id)?, &mut self.cx);
        self.settle(id);
        Some(result)
    }

    fn settle(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(&id).expect("settled right after use");
        let next = peer.next_timeout(&self.cx.config);
        if next != peer.armed {
            if let Some(old) = peer.armed {
                self.timers.remove(&(old, id));
            }
            self.timers.extend(next.map(|at| (at, id)));
            peer.armed = next;
        }
        if !peer.queued && peer.wants_to_send() {
            peer.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Makes sure that `peer` is remembered, because the application wants it.
    fn open(&mut self, now: Time, peer: PeerId) -> Result<(), SendError> {
        if self.peers.contains_key(&peer) {
            return Ok(());
        }
        let pair_key = self.pair_key(peer).ok_or(SendError::UnknownPeer)?;
        if !self.make_room(now, peer) {
            return Err(SendError::TooManyPeers);
        }
        self.peers.insert(peer, Peer::new(now, peer, pair_key, self.first_number));
        Ok(())
    }

    /// Makes sure that `peer` is remembered, because of a frame; false, counted, if it cannot be. Others may
    /// be forgotten for it only if `may_displace`.
    fn admit(&mut self, now: Time, peer: PeerId, may_displace: bool) -> bool {
        if self.peers.contains_key(&peer) {
            return true;
        }
        let Some(pair_key) = self.pair_key(peer) else {
            self.cx.counters.unknown_peer += 1;
            return false;
        };
        if self.half_open.len() >= self.cx.config.half_open_max && may_displace {
            self.forget_half_open();
        }
        let full = self.half_open.len() >= self.cx.config.half_open_max;
        if full || !(self.has_room(peer) || may_displace && self.make_room(now, peer)) {
            self.cx.counters.peers_full += 1;
            return false;
        }
        self.half_open.push_back(peer);
        self.peers.insert(peer, Peer::new(now, peer, pair_key, self.first_number));
        true
    }

    fn has_room(&self, peer: PeerId) -> bool {
        let config = &self.cx.config;
        self.peers.len() < config.peers_max && self.instances(peer).count() < config.instances_max
    }

    /// The peers of the same principal.
    fn instances(&self, peer: PeerId) -> impl Iterator<Item = &Peer> {
        let number = peer.principal.0;
        self.peers.range(PeerId::new(number, 0)..=PeerId::new(number, u32::MAX)).map(|(_, peer)| peer)
    }

    /// Forgets whom nobody will miss until there is room for `peer`.
    fn make_room(&mut self, now: Time, peer: PeerId) -> bool {
        let forget_after = self.cx.config.forget_after;
        // Who has said goodbye repeats nothing, so nothing of it can be taken for new.
        let idle = |p: &&Peer| {
            p.is_half_open() || p.is_drained() && (p.is_closed() || p.last_used + forget_after <= now)
        };
        while !self.has_room(peer) {
            let crowded = self.instances(peer).count() >= self.cx.config.instances_max;
            let oldest = match crowded {
                true => self.instances(peer).filter(idle).min_by_key(|p| p.last_used),
                false => self.peers.values().filter(idle).min_by_key(|p| p.last_used),
            };
            let Some(id) = oldest.map(|p| p.id) else { return false };
            self.forget(id);
        }
        true
    }

    /// Forgets the oldest peer that came by a frame, unless it has proved itself since.
    fn forget_half_open(&mut self) {
        let Some(id) = self.half_open.pop_front() else { return };
        if self.peers.get(&id).is_some_and(Peer::is_half_open) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: PeerId) {
        let peer = self.peers.remove(&id).expect("a remembered peer is chosen");
        self.first_number = self.first_number.max(peer.numbers_end());
        if let Some(at) = peer.armed {
            self.timers.remove(&(at, id));
        }
        if peer.queued {
            self.ready.retain(|ready| *ready != id);
        }
    }
}

fn tag_key(pair_key: &[u8; 32]) -> MacKey {
    MacKey::derive("ghidrah mml 1 tag", pair_key)
}

/// Before the domain, so that no domain and text look like another domain and text.
fn domain_length(domain: &str) -> [u8; 8] {
    (domain.len() as u64).to_le_bytes()
}
