use crate::keyring::Keyring;
use crate::outbox::{Outbox, Sent};
use crate::roster::Roster;
use crate::shown::Shown;
use cl::Received;
use cl_base::{Incarnation, PeerId, Principal, Time};
use mml_proto::{
    Config, Counters, Delivery, Event, Message, Mml, Outgoing, SendError, SendStatus, Sequence, SessionInfo,
    TagKey, Transmit, Verdict, peek_class,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a frame that the communication layer could not take waits before it is offered again; its
/// buffers come back within about the time that a burst takes to leave.
const STALL: Duration = Duration::from_millis(1);
/// Bundles are not longer, whatever the network takes: beyond, a byte costs no less, and more is lost at once.
const FRAME_BYTES_MAX: usize = 32 << 10;
/// Learnt addresses above which those of peers without a session are forgotten.
const LEARNT_MAX: usize = 1024;

/// Management messages of one party over a [`cl::Endpoint`] that the caller owns and lends to each call.
///
/// A daemon calls [`handle`](Endpoint::handle) for each message that arrives,
/// [`handle_timeout`](Endpoint::handle_timeout) at [`next_timeout`](Endpoint::next_timeout), and then takes
/// the events with [`poll_event`](Endpoint::poll_event). [`send`](Endpoint::send) sends at once; to bundle
/// many messages into few frames, [`queue`](Endpoint::queue) them and [`flush`](Endpoint::flush).
///
/// Addresses: members of the roster are called at their roster address. A peer without one (a user) is
/// answered where it proved, in a handshake, to be alive; nothing else teaches an address.
pub struct Endpoint {
    mml: Mml,
    addresses: BTreeMap<Principal, SocketAddr>,
    /// Peers whose address was learnt from a handshake.
    learnt: BTreeSet<PeerId>,
    /// Frames that leave together, or for which the communication layer had no room.
    outbox: Outbox,
    /// When the communication layer is asked again whether it has room.
    stalled: Option<Time>,
    /// The longest frame that the network takes in one piece, once it is known.
    frame_bytes: usize,
    /// Frames that could not be sent, and are left to be repeated.
    unsent: u64,
    /// Where others read the counters, once it is known whether they can.
    shown: Option<Shown>,
}

impl Endpoint {
    /// The party `me` in its life `incarnation`, larger than that of every earlier one of the same party.
    /// `seed` is secret, fresh from [`keys::entropy`](crate::keys::entropy).
    ///
    /// # Panics
    /// If `keyring` is not that of the principal of `me`.
    pub fn new(
        config: Config,
        me: PeerId,
        incarnation: Incarnation,
        keyring: Keyring,
        roster: &Roster,
        seed: [u8; 32],
    ) -> Endpoint {
        assert!(keyring.principal() == me.principal, "the keyring of another principal");
        Endpoint {
            mml: Mml::new(config, me, incarnation, Box::new(keyring), seed),
            addresses: addresses(roster),
            learnt: BTreeSet::new(),
            outbox: Outbox::default(),
            stalled: None,
            frame_bytes: 0,
            unsent: 0,
            shown: None,
        }
    }

    /// Takes up a changed roster: sessions that stood on keys that are no longer there end at once, see [`Mml::set_keys`].
    ///
    /// # Panics
    /// If `keyring` is not that of this party's principal.
    pub fn set_roster(&mut self, cl: &mut cl::Endpoint, now: Time, keyring: Keyring, roster: &Roster) {
        assert!(keyring.principal() == self.me().principal, "the keyring of another principal");
        let addresses = addresses(roster);
        // Who has moved, or is nobody any more, is not called where it was.
        for principal in self.addresses.iter().filter(|(p, at)| addresses.get(p) != Some(at)).map(|(p, _)| *p)
        {
            cl.forget(PeerId { principal, instance: 0 });
        }
        self.addresses = addresses;
        self.mml.set_keys(now, Box::new(keyring));
        self.flush(cl, now);
    }

    /// Establishes a session; see [`Mml::connect`].
    ///
    /// # Errors
    /// As [`Mml::connect`].
    pub fn connect(&mut self, cl: &mut cl::Endpoint, now: Time, peer: PeerId) -> Result<(), SendError> {
        self.mml.connect(now, peer)?;
        self.flush(cl, now);
        Ok(())
    }

    /// Ends the session; see [`Mml::disconnect`].
    pub fn disconnect(&mut self, cl: &mut cl::Endpoint, now: Time, peer: PeerId) {
        self.mml.disconnect(now, peer);
        self.flush(cl, now);
    }

    /// Sends a message, if there is a session and room; see [`Mml::send`]. It leaves at once; but in a stream of messages to
    /// one peer it may wait for others, at most [`Config::company_wait`] and until [`Endpoint::receive`] finds nothing.
    ///
    /// # Errors
    /// As [`Mml::send`].
    pub fn send<'b>(
        &mut self,
        cl: &mut cl::Endpoint,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
    ) -> Result<Sequence, SendError> {
        let body = body.into();
        if self.mml.may_wait(now, peer, body.len()) {
            return self.mml.send(now, peer, delivery, class, body);
        }
        let sent = match delivery {
            Delivery::Unr => self.send_at_once(cl, now, peer, class, &body),
            _ => self.mml.send(now, peer, delivery, class, body),
        };
        self.flush(cl, now);
        sent
    }

    /// As [`Endpoint::send`], but leaves the sending to the next [`Endpoint::flush`].
    ///
    /// # Errors
    /// As [`Mml::send`].
    pub fn queue<'b>(
        &mut self,
        now: Time,
        peer: PeerId,
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
    ) -> Result<Sequence, SendError> {
        self.mml.send(now, peer, delivery, class, body)
    }

    /// Sends a message to many, and tells of each what became of it; see [`Mml::send_group`].
    #[expect(clippy::too_many_arguments, reason = "the fields of one message, and who wants to know of it")]
    pub fn send_group<'b>(
        &mut self,
        cl: &mut cl::Endpoint,
        now: Time,
        peers: &[PeerId],
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
        mut told: impl FnMut(PeerId, Result<Sequence, SendError>),
    ) {
        if delivery == Delivery::Unr {
            let body = body.into().for_group(peers.len());
            for peer in peers {
                told(*peer, self.send_at_once(cl, now, *peer, class, &body));
            }
        } else {
            self.mml.send_group(now, peers, delivery, class, body, told);
        }
        self.flush(cl, now);
    }

    /// Sends an UNR message in a frame that passes no queue, unless others wait. The next flush hands it over, if nothing did
    /// before.
    fn send_at_once(
        &mut self,
        cl: &mut cl::Endpoint,
        now: Time,
        peer: PeerId,
        class: u8,
        body: &Outgoing<'_>,
    ) -> Result<Sequence, SendError> {
        if self.stalled.is_some() || self.outbox.is_full() && !self.hand_over(cl, now) {
            return self.mml.send(now, peer, Delivery::Unr, class, body.clone());
        }
        let (sequence, leaving) = self.mml.send_at_once(now, peer, class, body, self.outbox.next_frame())?;
        if let Some((transmit, rest)) = leaving {
            let addr = self.way_to(cl, transmit, None);
            self.outbox.add(peer, addr, rest);
        }
        Ok(sequence)
    }

    /// Sends a message again; see [`Mml::resend`].
    pub fn resend(&mut self, cl: &mut cl::Endpoint, now: Time, peer: PeerId, sequence: Sequence) -> bool {
        let kept = self.mml.resend(peer, sequence);
        self.flush(cl, now);
        kept
    }

    /// Tells at once what has arrived; see [`Mml::group_ack`].
    pub fn group_ack(&mut self, cl: &mut cl::Endpoint, now: Time, peer: PeerId) {
        self.mml.group_ack(peer);
        self.flush(cl, now);
    }

    /// What has become of a message; see [`Mml::status`].
    pub fn status(&self, peer: PeerId, sequence: Sequence) -> SendStatus {
        self.mml.status(peer, sequence)
    }

    /// Takes a message that has arrived.
    pub fn handle(&mut self, cl: &mut cl::Endpoint, now: Time, received: Received) {
        self.show(cl);
        let Received { from, addr, mut buf, .. } = received;
        let verdict = self.mml.handle(now, from, addr, &mut buf);
        drop(buf);
        self.after_frame(cl, now, (from, addr), verdict);
    }

    /// Takes what has arrived, up to `max` frames, and calls `each` with every message where it lies: nothing is
    /// copied or allocated (Table 7.2, `msg_receive`). Ends early when there is an event other than a message,
    /// to be taken by [`Endpoint::poll_event`] before the next call. Returns the number of frames.
    pub fn receive(
        &mut self,
        cl: &mut cl::Endpoint,
        now: Time,
        max: usize,
        mut each: impl FnMut(Message<'_>),
    ) -> usize {
        self.show(cl);
        let (mut frames, mut owed) = (0, false);
        while frames < max && !self.mml.has_event() {
            let Some(Received { from, addr, mut buf, .. }) = cl.poll() else { break };
            let in_session = peek_class(&buf).is_some();
            let verdict = self.mml.handle_each(now, from, addr, &mut buf, &mut each);
            drop(buf);
            if verdict == Verdict::Authentic && in_session && cl.address_of(from).is_some() {
                owed = true;
            } else {
                // What it calls for may have to go where it came from.
                self.after_frame(cl, now, (from, addr), verdict);
            }
            frames += 1;
        }
        // What a burst calls for leaves together; and who finds nothing has no more to send for now.
        if owed || frames == 0 && self.mml.has_waiting() {
            self.flush(cl, now);
        }
        frames
    }

    fn after_frame(
        &mut self,
        cl: &mut cl::Endpoint,
        now: Time,
        (from, addr): (PeerId, SocketAddr),
        verdict: Verdict,
    ) {
        if verdict == Verdict::Established && !self.has_roster_address(from) {
            self.learn(cl, from, addr);
        }
        self.transmit(cl, now, Some((from, addr)));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, cl: &mut cl::Endpoint, now: Time) {
        self.show(cl);
        self.mml.handle_timeout(now);
        self.flush(cl, now);
    }

    /// When [`Endpoint::handle_timeout`] is to be called.
    pub fn next_timeout(&self) -> Option<Time> {
        self.mml.next_timeout().into_iter().chain(self.stalled).min()
    }

    /// Sends what is ready.
    pub fn flush(&mut self, cl: &mut cl::Endpoint, now: Time) {
        self.transmit(cl, now, None);
    }

    /// The next thing the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.mml.poll_event()
    }

    /// A code for one peer that may travel through others; see [`Mml::tag`].
    pub fn tag(&self, peer: PeerId, domain: &str, bytes: &[u8]) -> Option<[u8; 16]> {
        self.mml.tag(peer, domain, bytes)
    }

    /// The key of such codes for `peer`; see [`Mml::tag_key_to`].
    pub fn tag_key_to(&self, peer: PeerId, domain: &str) -> Option<TagKey> {
        self.mml.tag_key_to(peer, domain)
    }

    /// The key of such codes of `peer`; see [`Mml::tag_key_from`].
    pub fn tag_key_from(&self, peer: PeerId, domain: &str) -> Option<TagKey> {
        self.mml.tag_key_from(peer, domain)
    }

    /// Checks such a code; see [`Mml::verify_tag`].
    #[must_use]
    pub fn verify_tag(&self, from: PeerId, domain: &str, bytes: &[u8], tag: &[u8; 16]) -> bool {
        self.mml.verify_tag(from, domain, bytes, tag)
    }

    /// This party.
    pub fn me(&self) -> PeerId {
        self.mml.me()
    }

    /// This party's life.
    pub fn incarnation(&self) -> Incarnation {
        self.mml.incarnation()
    }

    /// The latest life of `peer` that has proved to be alive.
    pub fn incarnation_of(&self, peer: PeerId) -> Option<Incarnation> {
        self.mml.incarnation_of(peer)
    }

    /// Whether there is a session with `peer`.
    pub fn is_up(&self, peer: PeerId) -> bool {
        self.mml.is_up(peer)
    }

    /// The peers with which there is a session.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.mml.peers_up()
    }

    /// What was agreed on with `peer`; see [`Mml::session`].
    pub fn session(&self, peer: PeerId) -> Option<SessionInfo> {
        self.mml.session(peer)
    }

    /// What has happened so far, by kind.
    pub fn counters(&self) -> Counters {
        self.mml.counters()
    }

    /// Frames that the communication layer refused for another reason than back-pressure, such as an unknown
    /// address. They are repeated like lost ones.
    pub fn frames_unsent(&self) -> u64 {
        self.unsent
    }

    /// Shows others what has been counted, if it is time for that.
    #[inline]
    fn show(&mut self, cl: &mut cl::Endpoint) {
        if let Some(live) = cl.counters_due() {
            self.shown.get_or_insert_with(|| Shown::new(live)).show(live, &self.mml);
        }
    }

    fn has_roster_address(&self, peer: PeerId) -> bool {
        peer.instance == 0 && self.addresses.contains_key(&peer.principal)
    }

    fn learn(&mut self, cl: &mut cl::Endpoint, peer: PeerId, addr: SocketAddr) {
        if self.learnt.len() >= LEARNT_MAX {
            let gone: Vec<PeerId> =
                self.learnt.iter().copied().filter(|peer| !self.mml.is_up(*peer)).collect();
            for peer in gone {
                self.learnt.remove(&peer);
                cl.forget(peer);
            }
        }
        self.learnt.insert(peer);
        cl.resolve(peer, addr);
    }

    /// Sends what is ready; answers to what was just heard go where it came from.
    fn transmit(&mut self, cl: &mut cl::Endpoint, now: Time, heard_from: Option<(PeerId, SocketAddr)>) {
        let frame_bytes = cl.unfragmented_len_max().min(FRAME_BYTES_MAX);
        if self.frame_bytes != frame_bytes {
            self.frame_bytes = frame_bytes;
            self.mml.set_frame_bytes(frame_bytes);
        }
        if self.stalled.is_some() && !self.hand_over(cl, now) {
            return;
        }
        loop {
            let mut more = true;
            while more && !self.outbox.is_full() {
                match self.mml.poll_transmit_parts(now, self.outbox.next_frame()) {
                    Some((transmit, rest)) => {
                        let addr = self.way_to(cl, transmit, heard_from);
                        self.outbox.add(transmit.to, addr, rest);
                    }
                    None => more = false,
                }
            }
            if self.outbox.is_empty() || !self.hand_over(cl, now) || !more {
                return;
            }
        }
    }

    /// Hands over what is in the outbox; false if some of it stays.
    fn hand_over(&mut self, cl: &mut cl::Endpoint, now: Time) -> bool {
        let Sent { lost, stalled } = self.outbox.send(cl);
        self.unsent += lost;
        self.stalled = stalled.then_some(now + STALL);
        !stalled
    }

    /// The address to send to, if not the one that the communication layer knows.
    fn way_to(
        &self,
        cl: &mut cl::Endpoint,
        transmit: Transmit,
        heard_from: Option<(PeerId, SocketAddr)>,
    ) -> Option<SocketAddr> {
        let to = transmit.to;
        let heard_there = heard_from.filter(|(from, _)| *from == to).map(|(_, addr)| addr);
        if cl.address_of(to).is_some() {
            return heard_there.filter(|_| transmit.answers_hello);
        }
        if self.has_roster_address(to) {
            cl.resolve(to, self.addresses[&to.principal]);
            return heard_there.filter(|_| transmit.answers_hello);
        }
        // A peer whose address nobody told us is reached where it has just written from. It may be one that
        // speaks to an earlier life of ours, and is told that this life has ended.
        heard_there
    }
}

/// Where instance 0 of each member of the roster is called.
fn addresses(roster: &Roster) -> BTreeMap<Principal, SocketAddr> {
    roster.iter().filter_map(|m| Some((m.principal, m.address?))).collect()
}
