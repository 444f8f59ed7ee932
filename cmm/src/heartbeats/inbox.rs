//! The manager's side: heartbeats that wait to be looked for.

use super::HOLDS;
use crate::class::Class;
use crate::link::Link;
use cl::PolledSocket;
use cl::runtime::Core;
use cl_base::{PeerId, Time};
use cmm_core::heartbeat::datagram::{self, DATAGRAM_MAX};
use cmm_core::identity::Role;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// For so many periods what arrives has room; then this manager was itself held up, or somebody sends too much.
const PERIODS: usize = 4;
/// What the kernel counts for one datagram of [`DATAGRAM_MAX`], bytes.
const DATAGRAM_MEMORY: usize = 2304;
/// How long a flooded socket is left alone. It is emptied then, to see whether that goes on.
const PAUSE: Duration = Duration::from_secs(1);
/// A sender is told of the socket this often at most; by then some of its datagrams have been found.
const OFFER_PAUSE: Duration = Duration::from_millis(500);
/// The kinds of message that may come this way.
const CLASSES: [Class; 3] = [Class::Heartbeat, Class::HeartbeatBundle, Class::GroupBundle];

/// What a manager found: who has sent it, what it is, and its contents.
pub(crate) type Found = (PeerId, Class, Vec<u8>);

/// See the module.
pub(crate) struct Inbox {
    socket: Option<PolledSocket>,
    /// Datagrams that are taken at a time; more than senders send in [`PERIODS`].
    max: usize,
    /// There are more than that: when the socket is looked at again.
    flooded: Option<Time>,
    /// Who was told of the socket: agents and managers, so as many as the roster has.
    told: BTreeMap<PeerId, Told>,
    /// Since the beginning: datagrams that were genuine, those that were not, and times that there were too many.
    found: u64,
    refused: u64,
    floods: u64,
}

/// When a sender was told of the socket, and when some of it was found there last.
#[derive(Default)]
struct Told {
    at: Time,
    found: Time,
}

impl Inbox {
    /// For so many datagrams in a period, at `ip`. `None` for `ip`, or a system that refuses: all comes by sessions.
    pub(crate) fn open(ip: Option<IpAddr>, in_period: usize) -> Inbox {
        let max = PERIODS * in_period;
        let bind = |ip| {
            PolledSocket::bind(ip, max * DATAGRAM_MEMORY)
                .inspect_err(|error| tracing::warn!(%error, "heartbeats come by sessions alone"))
                .ok()
        };
        let socket = ip.and_then(bind);
        if let Some(socket) = socket.as_ref().filter(|socket| socket.room() < in_period * DATAGRAM_MEMORY) {
            // It works, but what finds no room sends heartbeats back to the sessions for a while, again and again.
            tracing::warn!(
                granted = socket.room(),
                wanted = max * DATAGRAM_MEMORY,
                "little room for heartbeats, which will often come by sessions and wake this process (net.core.rmem_max)"
            );
        }
        Inbox { socket, max, flooded: None, told: BTreeMap::new(), found: 0, refused: 0, floods: 0 }
    }

    /// Heartbeats of `from` have come by its session: it may send them as datagrams.
    pub(crate) fn offer<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link, from: PeerId) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.flooded.is_none()) else { return };
        let (now, told) = (cx.now(), self.told.entry(from).or_default());
        if now.saturating_since(told.at) >= OFFER_PAUSE {
            told.at = now;
            let found = now.saturating_since(told.found) < HOLDS;
            tell(cx, link, from, socket.local_addr().port(), found);
        }
    }

    /// The end of a period: what has arrived, if it is from whom it says.
    pub(crate) fn look<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link) -> Vec<Found> {
        let now = cx.now();
        let Some(socket) = self.socket.as_mut().filter(|_| self.flooded.is_none_or(|until| until <= now))
        else {
            return Vec::new();
        };
        // One byte more than a genuine datagram can have, so that a longer one shows.
        let mut bytes = [0; DATAGRAM_MAX + 1];
        let (mut found, mut taken) = (Vec::new(), 0);
        while taken < self.max
            && let Some(len) = socket.receive(&mut bytes)
        {
            taken += 1;
            match genuine(link, &bytes[..len]) {
                Some(one) => {
                    self.told.entry(one.0).or_default().found = now;
                    found.push(one);
                }
                None => self.refused += 1,
            }
        }
        self.found += found.len() as u64;
        if taken == self.max || socket.overflowed() > 0 {
            self.on_flood(cx, link);
        } else if self.flooded.take().is_some() && self.floods.is_power_of_two() {
            tracing::info!("heartbeats may come as datagrams again");
        }
        found
    }

    fn on_flood<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link) {
        let now = cx.now();
        if self.flooded.replace(now + PAUSE).is_none() {
            self.floods += 1;
            // Once for each power of two: who floods does not fill the log.
            if self.floods.is_power_of_two() {
                let Inbox { found, refused, floods, .. } = *self;
                tracing::warn!(
                    floods,
                    found,
                    refused,
                    "too many datagrams: heartbeats come by sessions for a while"
                );
            }
        }
        // Again after each pause, for this may be lost.
        for (peer, _) in self.told.iter().filter(|(_, told)| now.saturating_since(told.at) < HOLDS) {
            tell(cx, link, *peer, 0, false);
        }
    }
}

/// Tells a sender at which port heartbeats are looked for, and whether some of its were found.
fn tell<M: Send + 'static>(cx: &mut Core<M>, link: &mut Link, to: PeerId, port: u16, found: bool) {
    let [low, high] = port.to_le_bytes();
    link.send(cx, to, Class::HeartbeatWay, &[low, high, found.into()]);
}

/// A datagram from an agent or a manager that has the key.
fn genuine(link: &mut Link, bytes: &[u8]) -> Option<Found> {
    let datagram = datagram::read(bytes)?;
    let class = Class::of(datagram.kind).filter(|class| CLASSES.contains(class))?;
    let from = match Role::of(datagram.from.principal)? {
        role @ (Role::Agent(_) | Role::Manager(_)) => role.peer(),
        _ => return None,
    };
    let key = link.datagram_key_from(from).filter(|_| from == datagram.from)?;
    key.verify(datagram.tagged, datagram.tag).then(|| (from, class, datagram.body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keyring, entry_name};
    use crate::layout::Layout;
    use cl_base::Incarnation;
    use cmm_core::identity::NodeId;

    const AGENT: Role = Role::Agent(NodeId(1));
    const MANAGER: Role = Role::Manager(NodeId(1));

    fn link(layout: &Layout, role: Role) -> Link {
        let keyring = Keyring::load(layout, role).unwrap();
        Link::new(keyring, role.peer(), Incarnation(1), Duration::from_secs(1)).unwrap()
    }

    fn sealed(sender: &mut Link, to: Role, from: PeerId, class: Class) -> Vec<u8> {
        let (key, mut bytes) = (sender.datagram_key_to(to.peer()).unwrap(), Vec::new());
        datagram::write(&mut bytes, class as u8, from, b"beats", |tagged| key.tag(tagged));
        bytes
    }

    #[test]
    fn a_datagram_counts_as_its_sender_made_it_for_this_receiver_while_its_key_does() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("c"));
        crate::local::create(&layout, "test", 4, 1).unwrap();
        let (mut sender, mut receiver) = (link(&layout, AGENT), link(&layout, MANAGER));
        let good = sealed(&mut sender, MANAGER, AGENT.peer(), Class::Heartbeat);
        let found = Some((AGENT.peer(), Class::Heartbeat, b"beats".to_vec()));
        assert_eq!(genuine(&mut receiver, &good), found);
        assert_eq!(genuine(&mut receiver, &good), found, "what it says is old then, which others notice");

        for bit in 0..good.len() * 8 {
            let mut altered = good.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(genuine(&mut receiver, &altered), None, "bit {bit}");
        }
        let other = Role::Manager(NodeId(2));
        for (to, from, class) in [
            (other, AGENT.peer(), Class::Heartbeat),
            (MANAGER, Role::Agent(NodeId(2)).peer(), Class::Heartbeat),
            (MANAGER, PeerId { instance: 1, ..AGENT.peer() }, Class::Heartbeat),
            (MANAGER, Role::Hardcore.peer(), Class::Heartbeat),
            (MANAGER, AGENT.peer(), Class::HeartbeatWay),
            (MANAGER, AGENT.peer(), Class::Replication),
        ] {
            let bytes = sealed(&mut sender, to, from, class);
            assert_eq!(genuine(&mut receiver, &bytes), None, "{to:?} {from} {class:?}");
        }
        assert_eq!(genuine(&mut receiver, &[]), None);

        let keyring = Keyring::load(&layout, MANAGER).unwrap();
        let mut roster = (*keyring.roster()).clone();
        roster.keep_cluster(keyring.cluster());
        roster.revoke(&entry_name(AGENT)).unwrap();
        roster.save(layout.roster()).unwrap();
        assert_eq!(genuine(&mut link(&layout, MANAGER), &good), None, "revoked");
    }
}
