//! One party's link to the cluster: authenticated messages to everybody, and ordered requests to the manager
//! group once it is known. Agents, managers, the hardcore and users all stand on it.

use crate::class::Class;
use crate::keys::{GroupKeys, Keyring};
use crate::layout::Layout;
use crate::tags::TagKeys;
use cl::Received;
use cl::runtime::{Core, TimerId};
use cl_base::{Incarnation, PeerId, Time, codec};
use cmm_core::api::{Answer, Notice, Op};
use cmm_core::bootstrap::Decision;
use cmm_core::heartbeat::TAG_DOMAIN;
use cmm_core::heartbeat::datagram::DATAGRAM_DOMAIN;
use cmm_core::identity::{NodeId, Role, manager_node};
use mml::{Delivery, Event, Sequence, TagKey};
use replication_proto::{Client, ClientEffect, SubmitError, Ticket};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// The timer that a daemon must hand to [`Link::on_timer`].
pub const LINK_TIMER: TimerId = TimerId(u64::MAX);

/// A peer that acknowledges nothing for this long is given up. Long: whether a node is dead is for the
/// managers to decide, by heartbeats, and a user's terminal may be stopped for a while.
const PEER_DEAD_AFTER: Duration = Duration::from_secs(20);

/// What has come over the link.
#[derive(Debug)]
pub enum Incoming {
    /// A message of another class than replication.
    Message {
        /// The authenticated sender.
        from: PeerId,
        /// What it is about.
        class: Class,
        /// Its contents.
        body: Vec<u8>,
    },
    /// A message of the replication protocol for the replica that we are.
    Replication {
        /// The authenticated sender.
        from: PeerId,
        /// Its contents.
        body: Vec<u8>,
    },
    /// The group's answer to an operation.
    Answered(Ticket, Answer),
    /// The group says something by itself: f+1 managers said the same, in order, once.
    Noticed(Notice),
    /// A manager contradicted what the group said.
    Outvoted(NodeId),
    /// A session with a peer stands.
    Up(PeerId),
    /// A peer does not answer, or has restarted and forgotten us.
    Down(PeerId),
    /// A message sent with [`Link::send_acknowledged`] has arrived.
    Delivered(PeerId, Sequence),
    /// A message sent with [`Link::send_acknowledged`] was given up.
    Failed(PeerId, Sequence),
}

/// Why an operation was not handed to the group.
#[derive(Debug, thiserror::Error)]
pub enum NotSubmitted {
    /// It is not known yet who the managers are.
    #[error("the manager group is not known yet")]
    NoGroup,
    /// The client refuses.
    #[error(transparent)]
    Client(#[from] SubmitError),
}

struct Group {
    decision: Decision,
    members: Vec<PeerId>,
    client: Client,
}

/// See the module.
pub struct Link {
    keyring: Keyring,
    me: PeerId,
    mml: mml::Endpoint,
    request_timeout: Duration,
    group: Option<Group>,
    incoming: VecDeque<Incoming>,
    /// Of the agents' heartbeats.
    heartbeat_keys: TagKeys,
    /// Of the datagrams that heartbeats travel in.
    datagram_keys: TagKeys,
}

impl Link {
    /// A link for the party `me`, whose principal `keyring` belongs to. The endpoint must be `me`'s.
    ///
    /// # Errors
    /// If the system has no randomness for the sessions' nonces.
    pub fn new(
        keyring: Keyring,
        me: PeerId,
        incarnation: Incarnation,
        request_timeout: Duration,
    ) -> Result<Link, String> {
        let seed = mml::keys::entropy().map_err(|e| e.to_string())?;
        // A terminal that was stopped for a while, or a starved machine, is not a dead peer.
        let config = mml::Config {
            dead_after: PEER_DEAD_AFTER,
            forget_after: 3 * PEER_DEAD_AFTER,
            ..mml::Config::default()
        };
        let mml = mml::Endpoint::new(config, me, incarnation, keyring.own(), &keyring.roster(), seed);
        Ok(Link {
            keyring,
            me,
            mml,
            request_timeout,
            group: None,
            incoming: VecDeque::new(),
            heartbeat_keys: TagKeys::new(TAG_DOMAIN),
            datagram_keys: TagKeys::new(DATAGRAM_DOMAIN),
        })
    }

    /// Who we are.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The manager group in force, as far as we know.
    pub fn decision(&self) -> Option<&Decision> {
        self.group.as_ref().map(|g| &g.decision)
    }

    /// The managers of the group in force, in the order of membership.
    pub fn managers(&self) -> &[PeerId] {
        self.group.as_ref().map_or(&[], |g| &g.members)
    }

    /// The managers believed active now, and the primary first among them.
    pub fn active_managers(&self) -> Vec<PeerId> {
        let Some(group) = &self.group else { return Vec::new() };
        let hint = group.client.view_hint();
        let mut active: Vec<PeerId> = hint.active.iter().map(|m| group.members[usize::from(m.0)]).collect();
        let primary = group.members[usize::from(hint.primary.0)];
        active.sort_by_key(|m| (*m != primary, *m));
        active
    }

    /// Turns to the group of a decision that has been verified, unless we know a later one. True if it did.
    pub fn adopt<M: Send + 'static>(&mut self, cx: &mut Core<M>, decision: &Decision) -> bool {
        if self.group.as_ref().is_some_and(|g| g.decision.instance() >= decision.instance()) {
            return false;
        }
        let config = group_config(decision, self.request_timeout);
        let members = config.members.clone();
        let keys = GroupKeys(self.keyring.clone());
        let mut client = Client::new(&config, client_id(self.me), Box::new(keys), cx.now().as_nanos());
        if manager_node(self.me).is_none() {
            client.listen(cx.now());
        }
        let me = self.me;
        for member in members.iter().filter(|m| **m != me) {
            self.connect(cx, *member);
        }
        self.group = Some(Group { decision: decision.clone(), members, client });
        self.settle(cx);
        true
    }

    /// Asks the group to order and execute an operation. The answer comes as [`Incoming::Answered`].
    ///
    /// # Errors
    /// If the group is not known yet, or too many operations are under way.
    pub fn submit<M: Send + 'static>(&mut self, cx: &mut Core<M>, op: &Op) -> Result<Ticket, NotSubmitted> {
        let Some(group) = &mut self.group else { return Err(NotSubmitted::NoGroup) };
        let ticket = group.client.submit(cx.now(), codec::encode(op))?;
        self.settle(cx);
        Ok(ticket)
    }

    /// Reads the roster again and takes it up: who is no longer believed in it is not spoken to from here on. The log
    /// says what came of it.
    pub fn reload<M: Send + 'static>(&mut self, cx: &mut Core<M>, layout: &Layout, role: Role) {
        match self.keyring.reload(layout, role) {
            Ok(false) => tracing::info!("the roster says what it said before"),
            Ok(true) => {
                let (now, roster) = (cx.now(), self.keyring.roster());
                self.mml.set_roster(cx.endpoint_mut(), now, self.keyring.own(), &roster);
                self.heartbeat_keys.clear();
                self.datagram_keys.clear();
                tracing::info!(principals = roster.len(), "the changed roster is taken up");
                self.settle(cx);
            }
            Err(error) => {
                tracing::error!("the roster is not taken up, and the former one stays in force: {error}")
            }
        }
    }

    /// Opens a session with a peer whose address is in the roster or was learnt from it.
    pub fn connect<M: Send + 'static>(&mut self, cx: &mut Core<M>, peer: PeerId) {
        let now = cx.now();
        if let Err(error) = self.mml.connect(cx.endpoint_mut(), now, peer) {
            tracing::debug!(%peer, %error, "cannot connect");
        }
    }

    /// Sends without asking whether it arrives.
    pub fn send<M: Send + 'static>(&mut self, cx: &mut Core<M>, to: PeerId, class: Class, body: &[u8]) {
        let now = cx.now();
        if let Err(error) = self.mml.send(cx.endpoint_mut(), now, to, Delivery::Unr, class as u8, body) {
            tracing::debug!(peer = %to, ?class, %error, "not sent");
        }
        self.arm(cx);
    }

    /// Sends reliably and in order. [`Incoming::Delivered`] or [`Incoming::Failed`] tells the outcome.
    ///
    /// # Errors
    /// If too much is under way to this peer already, or it is unknown.
    pub fn send_acknowledged<M: Send + 'static>(
        &mut self,
        cx: &mut Core<M>,
        to: PeerId,
        class: Class,
        body: &[u8],
    ) -> Result<Sequence, mml::SendError> {
        let now = cx.now();
        let sent = self.mml.send(cx.endpoint_mut(), now, to, Delivery::Ack, class as u8, body);
        self.arm(cx);
        sent
    }

    /// A tag over a heartbeat for each manager, which it can verify however the heartbeat reaches it.
    pub fn heartbeat_tags(&mut self, beat: &[u8]) -> Vec<(PeerId, [u8; 16])> {
        let managers = self.group.as_ref().map_or(&[][..], |group| &group.members);
        let (keys, mml) = (&mut self.heartbeat_keys, &self.mml);
        managers.iter().filter_map(|manager| Some((*manager, keys.to(mml, *manager)?.tag(beat)))).collect()
    }

    /// The key of the tags of `agent`'s heartbeats for us.
    pub fn heartbeat_key_from(&mut self, agent: PeerId) -> Option<&TagKey> {
        self.heartbeat_keys.from(&self.mml, agent)
    }

    /// The key of datagrams with heartbeats from us to `peer`.
    pub fn datagram_key_to(&mut self, peer: PeerId) -> Option<&TagKey> {
        self.datagram_keys.to(&self.mml, peer)
    }

    /// The key of datagrams with heartbeats from `peer` to us.
    pub fn datagram_key_from(&mut self, peer: PeerId) -> Option<&TagKey> {
        self.datagram_keys.from(&self.mml, peer)
    }

    /// Where the roster says that `peer` is, if it is a member.
    pub fn roster_address(&self, peer: PeerId) -> Option<SocketAddr> {
        self.keyring.roster().get(peer.principal)?.address
    }

    /// Takes a message from the endpoint.
    pub fn on_message<M: Send + 'static>(&mut self, cx: &mut Core<M>, received: Received) {
        let now = cx.now();
        self.mml.handle(cx.endpoint_mut(), now, received);
        self.settle(cx);
    }

    /// Takes the expiry of [`LINK_TIMER`].
    pub fn on_timer<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        let now = cx.now();
        self.mml.handle_timeout(cx.endpoint_mut(), now);
        if let Some(group) = &mut self.group
            && group.client.next_timeout().is_some_and(|t| t <= now)
        {
            group.client.on_timeout(now);
        }
        self.settle(cx);
    }

    /// Whether nothing has come that was not polled.
    pub fn is_quiet(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Ends all sessions in good order, so that the other sides need not remember us.
    pub fn close<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        let now = cx.now();
        for peer in self.mml.peers_up().collect::<Vec<_>>() {
            self.mml.disconnect(cx.endpoint_mut(), now, peer);
        }
    }

    /// What has come, oldest first.
    pub fn poll(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// Carries out what the layers below want done, until they want nothing more.
    fn settle<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        while let Some(event) = self.mml.poll_event() {
            self.on_event(cx.now(), event);
        }
        self.drain_client(cx);
        self.arm(cx);
    }

    fn on_event(&mut self, now: Time, event: Event) {
        tracing::trace!(?event, "mml");
        match event {
            Event::Message { from, class, body, .. } => match Class::of(class) {
                Some(Class::Replication) => self.incoming.push_back(Incoming::Replication { from, body }),
                Some(Class::GroupReply) => {
                    if let Some(group) = self.group.as_mut().filter(|g| g.members.contains(&from)) {
                        group.client.on_message(now, from, &body);
                    }
                }
                Some(class) => self.incoming.push_back(Incoming::Message { from, class, body }),
                None => tracing::debug!(%from, class, "a message of an unknown class was dropped"),
            },
            Event::Up { peer, .. } => self.incoming.push_back(Incoming::Up(peer)),
            Event::Restarted { peer, .. } | Event::Down { peer, .. } => {
                self.incoming.push_back(Incoming::Down(peer));
            }
            Event::Delivered { peer, seq } => self.incoming.push_back(Incoming::Delivered(peer, seq)),
            Event::Failed { peer, seq, .. } => self.incoming.push_back(Incoming::Failed(peer, seq)),
            Event::Gap { .. } => {}
            Event::Incompatible { peer, ours, theirs } => {
                tracing::error!(
                    %peer, ?ours, ?theirs,
                    "no version of the message protocol in common; upgrade whichever is older"
                );
            }
            Event::Superseded { peer, ours, known } => {
                tracing::error!(
                    %peer, ours = ours.0, known = known.0,
                    "the peer knows a later life of this party: the clock was set back (start again once it is \
                     beyond where it was), or another process has this key (end it)"
                );
            }
        }
    }

    fn drain_client<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        let now = cx.now();
        while let Some(group) = &mut self.group {
            let Some(effect) = group.client.poll_effect() else { return };
            tracing::trace!(?effect, "client");
            match effect {
                ClientEffect::Send { to, bytes } if to == self.me => {
                    // A manager asks its own group: its replica is on this very link.
                    self.incoming.push_back(Incoming::Replication { from: to, body: bytes });
                }
                ClientEffect::Send { to, bytes } => {
                    let class = Class::Replication as u8;
                    if let Err(error) =
                        self.mml.send(cx.endpoint_mut(), now, to, Delivery::Unr, class, &bytes[..])
                    {
                        tracing::debug!(peer = %to, %error, "request not sent; it will be repeated");
                    }
                }
                ClientEffect::Completed { ticket, result, .. } => match codec::decode::<Answer>(&result) {
                    Ok(answer) => self.incoming.push_back(Incoming::Answered(ticket, answer)),
                    Err(error) => tracing::error!(%error, "the group's answer makes no sense"),
                },
                ClientEffect::Notification { body, .. } => match codec::decode::<Notice>(&body) {
                    Ok(notice) => self.incoming.push_back(Incoming::Noticed(notice)),
                    Err(error) => tracing::error!(%error, "the group's notice makes no sense"),
                },
                ClientEffect::Outvoted { member } => {
                    if let Some(node) = manager_node(group.members[usize::from(member.0)]) {
                        self.incoming.push_back(Incoming::Outvoted(node));
                    }
                }
                ClientEffect::NotificationsBegin { seq } => tracing::debug!(seq, "notices begin"),
                ClientEffect::EpochBegan { epoch, .. } => {
                    // No manager allows a replacement yet, so f+1 of them would have to lie.
                    tracing::error!(epoch, "the managers have another roster, which cannot be");
                }
                ClientEffect::Read { .. } => unreachable!("nothing is read without an order here"),
                ClientEffect::Stale { ticket, floor } => {
                    // Our clock is behind that of an earlier session: the request was not executed.
                    tracing::error!(?ticket, floor, "the group has forgotten this session; start again");
                }
            }
        }
    }

    /// A manager's replica answers its own node's client: see [`Link::on_event`].
    pub fn from_own_replica<M: Send + 'static>(&mut self, cx: &mut Core<M>, bytes: &[u8]) {
        if let Some(group) = &mut self.group {
            group.client.on_message(cx.now(), self.me, bytes);
        }
        self.settle(cx);
    }

    fn arm<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        let client = self.group.as_ref().and_then(|g| g.client.next_timeout());
        match self.mml.next_timeout().into_iter().chain(client).min() {
            Some(at) => cx.set_timer(at, LINK_TIMER),
            None => {
                cx.cancel_timer(LINK_TIMER);
            }
        }
    }
}

/// The identity under which a party is a client of the manager group: its own, except that a manager, which
/// is a member as well, takes instance 1.
pub fn client_id(me: PeerId) -> PeerId {
    PeerId { instance: if manager_node(me).is_some() { 1 } else { me.instance }, ..me }
}

/// The party that a client of the group is reached at; the inverse of [`client_id`].
pub fn party_of(client: PeerId) -> PeerId {
    PeerId { instance: if manager_node(client).is_some() { 0 } else { client.instance }, ..client }
}

/// The replication parameters of a decided manager group; the same for members and clients.
pub fn group_config(decision: &Decision, request_timeout: Duration) -> replication_proto::Config {
    let members = decision.configuration.members.iter().map(|agent| match Role::of(agent.principal) {
        Some(Role::Agent(node)) => Role::Manager(node).peer(),
        _ => unreachable!("a verified decision names agents"),
    });
    let mut config = replication_proto::Config::new(decision.instance(), members.collect())
        .expect("a verified decision has 3f+1 different members");
    config.request_timeout = request_timeout;
    // Sooner than PROTOCOL.md 2.9 has it (2 T_req): management requests are few, so three more messages cost
    // nothing, and the wait for a dead primary is what a user sees of its death.
    config.client_timeout = request_timeout / 2;
    config
}
