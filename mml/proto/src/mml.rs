use crate::body::Spare;
use crate::entropy::Entropy;
use crate::gate::{self, Admission, Gate};
use crate::mac::Mac;
use crate::peer::handshake::{open_notice, seal_notice};
use crate::peer::{Context, Deliver, Peer};
use crate::peers::Peers;
use crate::wire::handshake::{InitFrame, Notice};
use crate::wire::{self, Kind, SessionFrame};
use crate::{
    Body, Config, Counters, Delivery, DownReason, Event, Message, Outgoing, Pair, PairKeys, SendError,
    SendStatus, Sequence, SessionInfo, TagKey, Transmit, Verdict,
};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// How much longer than the longest body a frame may be: a peer may bundle more than we do.
const FRAME_SLACK: usize = 1 << 16;
/// Answers to parties that are not remembered, which wait to be sent. The caller sends after each frame it hands in,
/// so there is rarely more than one.
const REPLIES_MAX: usize = 64;

/// The message layer of one party: sessions with many peers, without I/O.
///
/// Four kinds of methods, after which the caller drains [`Mml::poll_transmit`] and [`Mml::poll_event`] and
/// sets its timer to [`Mml::next_timeout`]:
/// - what the application wants: [`connect`](Mml::connect), [`send`](Mml::send), ...;
/// - what the network brings: [`handle`](Mml::handle);
/// - that time has passed: [`handle_timeout`](Mml::handle_timeout);
/// - questions, which change nothing: [`status`](Mml::status), [`counters`](Mml::counters), ...
pub struct Mml {
    pub(crate) cx: Context,
    keys: Box<dyn PairKeys>,
    pub(crate) peers: Peers,
    /// Peers created by the frames of others, oldest first; some of them have proved themselves since.
    half_open: VecDeque<PeerId>,
    timers: BTreeSet<(Time, PeerId)>,
    ready: VecDeque<PeerId>,
    /// What waits for company leaves then at the latest.
    pub(crate) company_until: Option<Time>,
    /// Frames to parties that are not remembered.
    replies: VecDeque<(PeerId, Vec<u8>)>,
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
        let mut entropy = Entropy::new(seed);
        let gate = Gate::new(&entropy.draw());
        Mml {
            cx: Context {
                config,
                me,
                incarnation,
                entropy,
                gate,
                attempts: 0,
                counters: Counters::default(),
                events: VecDeque::new(),
                spare: Spare::default(),
            },
            keys,
            peers: Peers::default(),
            half_open: VecDeque::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            company_until: None,
            replies: VecDeque::new(),
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
    pub fn send<'b>(
        &mut self,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
    ) -> Result<Sequence, SendError> {
        self.send_body(now, peer, delivery, class, body.into())
    }

    pub(crate) fn send_body(
        &mut self,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: Outgoing<'_>,
    ) -> Result<Sequence, SendError> {
        let (len, max) = (body.len(), self.cx.config.body_bytes_max);
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        let Some(known) = self.peers.get_mut(&peer) else {
            self.open(now, peer)?;
            return self.send_body(now, peer, delivery, class, body);
        };
        // Then the message leaves with the next frame, and no timer has to do with it.
        let only_sent = delivery == Delivery::Unr && known.is_up();
        let result = known.send(now, &mut self.cx, delivery, class, body);
        if !only_sent {
            self.settle(peer);
        } else if !known.queued && known.wants_to_send(&self.cx.config) {
            known.queued = true;
            self.ready.push_back(peer);
        }
        result
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

    /// A frame has arrived that claims to come from `from`, and came from the address `source`. It is decrypted
    /// where it lies.
    pub fn handle(&mut self, now: Time, from: PeerId, source: SocketAddr, frame: &mut [u8]) -> Verdict {
        self.handle_frame(now, from, source, frame, Deliver::AsEvents)
    }

    /// As [`Mml::handle`], but hands messages to `each` at once, where they lie, instead of as events. Whoever
    /// wants to see everything in order drains the events before each call.
    pub fn handle_each(
        &mut self,
        now: Time,
        from: PeerId,
        source: SocketAddr,
        frame: &mut [u8],
        each: &mut dyn FnMut(Message<'_>),
    ) -> Verdict {
        self.handle_frame(now, from, source, frame, Deliver::To(each))
    }

    fn handle_frame(
        &mut self,
        now: Time,
        from: PeerId,
        source: SocketAddr,
        frame: &mut [u8],
        deliver: Deliver<'_>,
    ) -> Verdict {
        if self.cx.events.len() >= self.cx.config.events_max {
            self.cx.counters.overload += 1;
            return Verdict::Refused;
        }
        match wire::peek_kind(frame) {
            None => {
                self.cx.counters.malformed += 1;
                Verdict::Refused
            }
            Some(Kind::Session) => self.handle_session(now, from, frame, deliver),
            Some(Kind::Init) => self.handle_init(now, from, source, frame),
            Some(kind) => self.handle_notice(now, from, kind, frame),
        }
    }

    fn handle_session(&mut self, now: Time, from: PeerId, frame: &mut [u8], deliver: Deliver<'_>) -> Verdict {
        let short_enough = frame.len() <= self.cx.config.body_bytes_max + FRAME_SLACK;
        let Some(frame) = SessionFrame::split(frame).filter(|_| short_enough) else {
            self.cx.counters.malformed += 1;
            return Verdict::Refused;
        };
        let session = frame.header.session;
        match self.with_peer(from, |peer, cx| peer.on_session_frame(now, cx, frame, deliver)) {
            Some(verdict) => verdict,
            None => {
                self.tell_stranger(now, from, session);
                Verdict::Refused
            }
        }
    }

    /// Somebody of whom nothing is remembered sends frames of a session. If it is a party with a key, it has missed
    /// our restart. It may be anybody, so nothing is remembered of it now, either.
    fn tell_stranger(&mut self, now: Time, from: PeerId, session: u64) {
        let Some(pair) = self.pair(from) else {
            self.cx.counters.unknown_peer += 1;
            return;
        };
        self.cx.counters.unknown_session += 1;
        if self.replies.len() < REPLIES_MAX && self.cx.gate.may_reply(now, &self.cx.config) {
            let notice = Notice::Unknown { session, incarnation: self.cx.incarnation };
            self.reply(from, &pair, notice);
        }
    }

    /// Says something to a party of which nothing is remembered.
    fn reply(&mut self, to: PeerId, pair: &Pair, notice: Notice<'_>) {
        let mut frame = Vec::new();
        seal_notice(pair, self.cx.me, to, &mut frame, notice);
        self.replies.push_back((to, frame));
    }

    fn handle_init(&mut self, now: Time, from: PeerId, source: SocketAddr, frame: &[u8]) -> Verdict {
        let Some(pair) = self.pair(from) else {
            self.cx.counters.unknown_peer += 1;
            return Verdict::Refused;
        };
        let frame = InitFrame::split(frame);
        let signed = &frame.text[..frame.text.len() - frame.mac.len()];
        if !pair.notices.verify(from, self.cx.me, &[signed], &frame.mac) {
            self.cx.counters.bad_mac += 1;
            return Verdict::Refused;
        }
        let is_new = !self.peers.contains_key(&from);
        if is_new && !self.admit(now, from, source, pair, &frame) {
            return Verdict::Refused;
        }
        self.with_peer(from, |peer, cx| peer.on_init(now, cx, source, &frame, is_new))
            .expect("admitted above")
    }

    fn handle_notice(&mut self, now: Time, from: PeerId, kind: Kind, frame: &[u8]) -> Verdict {
        let Some(pair) = self.pair(from) else {
            self.cx.counters.unknown_peer += 1;
            return Verdict::Refused;
        };
        let me = self.cx.me;
        let Ok(notice) = open_notice(&pair, from, me, kind, frame) else {
            self.cx.counters.bad_mac += 1;
            return Verdict::Refused;
        };
        let Some(notice) = notice else {
            self.cx.counters.malformed += 1;
            return Verdict::Refused;
        };
        self.with_peer(from, |peer, cx| peer.on_notice(now, cx, notice)).unwrap_or_else(|| {
            self.cx.counters.stale_handshake += 1;
            Verdict::Refused
        })
    }

    /// Time has passed; to be called when [`Mml::next_timeout`] is reached, harmless at other times.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, peer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.peers.get_mut(&peer).expect("timers are of peers that are remembered").armed = None;
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
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.company_until).min()
    }

    /// Writes the next frame to be sent into `frame`, replacing what is there, and returns its destination;
    /// `None` when there is nothing to send. Peers take turns.
    pub fn poll_transmit(&mut self, now: Time, frame: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, rest) = self.poll_transmit_parts(now, frame)?;
        frame.extend_from_slice(rest.as_deref().unwrap_or_default());
        Some(transmit)
    }

    /// As [`Mml::poll_transmit`], but does not copy the long body of a group's message behind its frame, where
    /// it belongs: it is returned.
    pub fn poll_transmit_parts(
        &mut self,
        now: Time,
        frame: &mut Vec<u8>,
    ) -> Option<(Transmit, Option<Body>)> {
        if let Some((to, reply)) = self.replies.pop_front() {
            *frame = reply;
            self.cx.counters.frames_sent += 1;
            return Some((Transmit { to, answers_hello: true }, None));
        }
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
        self.company_until = None;
        None
    }

    /// The next thing the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// Whether [`Mml::poll_event`] would return something.
    pub fn has_event(&self) -> bool {
        !self.cx.events.is_empty()
    }

    /// A code by which `peer`, and nobody else, can tell that `me` has said `bytes`: independent of sessions,
    /// so that it may travel through third parties, as in bundled heartbeats (dissertation 7.1.5). It does
    /// not keep anybody from repeating it: `bytes` must say when they were said. `None` without a key.
    pub fn tag(&self, peer: PeerId, domain: &str, bytes: &[u8]) -> Option<Mac> {
        Some(self.tag_key_to(peer, domain)?.tag(bytes))
    }

    /// Whether `tag` is what [`Mml::tag`] has returned at `from`, for this party.
    #[must_use]
    pub fn verify_tag(&self, from: PeerId, domain: &str, bytes: &[u8], tag: &[u8; 16]) -> bool {
        self.tag_key_from(from, domain).is_some_and(|key| key.verify(bytes, tag))
    }

    /// The key of the tags of this party for `peer` in `domain`, for who makes many.
    pub fn tag_key_to(&self, peer: PeerId, domain: &str) -> Option<TagKey> {
        Some(TagKey::new(self.pair(peer)?.key(), domain, self.cx.me, peer))
    }

    /// The key of the tags of `peer` for this party in `domain`, for who checks many.
    pub fn tag_key_from(&self, peer: PeerId, domain: &str) -> Option<TagKey> {
        Some(TagKey::new(self.pair(peer)?.key(), domain, peer, self.cx.me))
    }

    /// From now on `keys` are the static keys. Sessions that stand on others end at once: no frame under them counts
    /// from here on. With a peer that has a new key (or if ours is new) there will be a new session, in which what was
    /// under way goes on; of a peer that has none any more nothing is remembered ([`Event::Down`], if there was something
    /// to end).
    pub fn set_keys(&mut self, now: Time, keys: Box<dyn PairKeys>) {
        self.keys = keys;
        for id in self.peers.values().map(|peer| peer.id).collect::<Vec<_>>() {
            match self.keys.pair(self.cx.me, id) {
                Some(pair) if pair.key() == self.peers[&id].pair.key() => {}
                Some(pair) => {
                    self.with_peer(id, |peer, cx| peer.take_pair(now, cx, pair));
                }
                None => {
                    let peer = self.peers.get_mut(&id).expect("just found");
                    if !peer.is_half_open() && !peer.is_closed() {
                        peer.go_down(&mut self.cx, DownReason::KeyWithdrawn);
                    }
                    self.forget(id);
                }
            }
        }
        let peers = &self.peers;
        self.half_open.retain(|id| peers.contains_key(id));
    }

    /// From now on bundles are as long as the network takes in one piece, `bytes`.
    pub fn set_frame_bytes(&mut self, bytes: usize) {
        self.cx.config.frame_bytes = bytes;
        self.cx.config.check();
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

    /// What was agreed on with `peer`, if there is a session.
    pub fn session(&self, peer: PeerId) -> Option<SessionInfo> {
        self.peers.get(&peer)?.session_info()
    }

    /// What has happened so far, by kind.
    pub fn counters(&self) -> Counters {
        let mut all = self.cx.counters.clone();
        self.peers.values().for_each(|peer| all.add(&peer.counters));
        all
    }

    /// The same for each peer that is remembered: what was done for it, and frames that claimed to be its.
    pub fn counters_of_peers(&self) -> impl Iterator<Item = (PeerId, &Counters)> {
        self.peers.values().map(|peer| (peer.id, &peer.counters))
    }

    fn pair(&self, peer: PeerId) -> Option<Arc<Pair>> {
        match self.peers.get(&peer) {
            Some(peer) => Some(peer.pair.clone()),
            None if peer == self.cx.me => None,
            None => self.keys.pair(self.cx.me, peer),
        }
    }

    /// Does something with a peer, and then sees to its timer and its place in the queue of senders.
    fn with_peer<R>(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context) -> R) -> Option<R> {
        let result = act(self.peers.get_mut(&id)?, &mut self.cx);
        self.settle(id);
        Some(result)
    }

    fn settle(&mut self, id: PeerId) {
        let peer = self.peers.get_mut(&id).expect("settled right after use");
        // A timer that turns out to be too early does no harm; moving it on with every message would cost more
        // than the message.
        if let Some(next) = peer.next_timeout(&self.cx.config)
            && peer.armed.is_none_or(|armed| next < armed)
        {
            if let Some(old) = peer.armed {
                self.timers.remove(&(old, id));
            }
            self.timers.insert((next, id));
            peer.armed = Some(next);
        }
        if !peer.queued && peer.wants_to_send(&self.cx.config) {
            peer.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Makes sure that `peer` is remembered, because the application wants it.
    fn open(&mut self, now: Time, peer: PeerId) -> Result<(), SendError> {
        if self.peers.contains_key(&peer) {
            return Ok(());
        }
        let pair = self.pair(peer).ok_or(SendError::UnknownPeer)?;
        if !self.make_room(now, peer) {
            return Err(SendError::TooManyPeers);
        }
        self.peers.insert(peer, Peer::new(now, peer, pair, self.first_number));
        Ok(())
    }

    /// Makes a place for `peer`, who is not remembered, because of its `init` with the right MAC; false, counted, if it
    /// does not get one. `init` may be a recording, so the gate is asked before anybody loses a place.
    fn admit(
        &mut self,
        now: Time,
        peer: PeerId,
        source: SocketAddr,
        pair: Arc<Pair>,
        init: &InitFrame<'_>,
    ) -> bool {
        let Context { gate, config, counters, me, .. } = &mut self.cx;
        let is_signed = |cookie: &_| gate::is_signed(&pair, cookie, peer, *me, init);
        match gate.admit(now, config, peer, source, is_signed) {
            Admission::Welcome => {}
            Admission::Cookie(cookie) => {
                if self.replies.len() < REPLIES_MAX && gate.may_give_cookie(now, config) {
                    counters.cookies += 1;
                    self.reply(peer, &pair, Notice::Cookie { echo: init.mac, cookie });
                }
                return false;
            }
            Admission::Refused => {
                counters.handshakes_refused += 1;
                return false;
            }
        }
        if self.half_open.len() >= self.cx.config.half_open_max {
            self.forget_half_open();
        }
        if !self.make_room(now, peer) {
            self.cx.counters.peers_full += 1;
            return false;
        }
        self.half_open.push_back(peer);
        self.peers.insert(peer, Peer::new(now, peer, pair, self.first_number));
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
        self.cx.counters.add(&peer.counters);
        if let Some(at) = peer.armed {
            self.timers.remove(&(at, id));
        }
        if peer.queued {
            self.ready.retain(|ready| *ready != id);
        }
    }
}
