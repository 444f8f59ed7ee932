//! The sender's side: which way each manager wants its heartbeats.

use super::HOLDS;
use crate::class::Class;
use crate::link::Link;
use cl::PolledSocket;
use cl::runtime::Core;
use cl_base::{PeerId, Time};
use cmm_core::heartbeat::datagram;
use cmm_core::identity::manager_node;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Room in the sending socket, bytes: what leaves in a period, several times over.
const SEND_ROOM: usize = 256 << 10;

/// See the module.
pub(crate) struct Ways {
    socket: Option<PolledSocket>,
    /// Where managers look for datagrams; a few, for managers alone are listened to.
    places: BTreeMap<PeerId, Place>,
    /// Of the last datagram; kept for its memory.
    datagram: Vec<u8>,
}

/// Where a manager looks for datagrams.
struct Place {
    at: SocketAddr,
    /// It has found some of ours.
    found: bool,
    until: Time,
}

impl Ways {
    /// The ways from a daemon at `ip`. If there is no socket for datagrams, all are by sessions.
    pub(crate) fn open(ip: IpAddr) -> Ways {
        let socket = PolledSocket::bind(ip, SEND_ROOM)
            .inspect_err(|error| tracing::warn!(%error, "heartbeats leave by sessions alone"));
        Ways { socket: socket.ok(), places: BTreeMap::new(), datagram: Vec::new() }
    }

    /// A manager says at which port it looks for datagrams; 0: it does not.
    pub(crate) fn on_told(&mut self, now: Time, link: &Link, from: PeerId, body: &[u8]) {
        let [low, high, found @ (0 | 1)] = *body else { return };
        let port = u16::from_le_bytes([low, high]);
        self.places.remove(&from);
        if let Some(manager) = link.roster_address(from).filter(|_| manager_node(from).is_some() && port != 0)
        {
            let (at, until) = (SocketAddr::new(manager.ip(), port), now + HOLDS);
            self.places.insert(from, Place { at, found: found == 1, until });
        }
    }

    /// The session with `peer` has ended: it may be another life that comes next, with another port.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.places.remove(&peer);
    }

    /// Sends a manager a heartbeat or a bundle of some.
    pub(crate) fn send<M: Send + 'static>(
        &mut self,
        cx: &mut Core<M>,
        link: &mut Link,
        to: PeerId,
        class: Class,
        body: &[u8],
    ) {
        if !self.send_datagram(cx.now(), link, to, class, body) {
            link.send(cx, to, class, body);
        }
    }

    /// False if it has to go by the session, too.
    fn send_datagram(&mut self, now: Time, link: &mut Link, to: PeerId, class: Class, body: &[u8]) -> bool {
        let place = self.places.get(&to).filter(|place| now < place.until);
        let (Some(place), Some(socket)) = (place, &self.socket) else { return false };
        let me = link.me();
        let Some(key) = link.datagram_key_to(to) else { return false };
        datagram::write(&mut self.datagram, class as u8, me, body, |tagged| key.tag(tagged));
        socket.send_to(place.at, &self.datagram).is_ok() && place.found
    }
}
