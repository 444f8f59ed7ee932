//! Who is reached through our device, and by which hardware address.
//!
//! The kernel's routes and its neighbour table are asked. An answer holds for [`FRESH`]; then the next
//! datagram goes through the ordinary socket, so that the kernel notices that the neighbour is still in use
//! and probes it, while the answer is asked for again.
#![allow(unsafe_code)]

use super::device::Device;
use super::frame::{Mac, Template};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// How long an answer of the kernel's is believed: so long a peer whose hardware address changes may be
/// unreachable.
const FRESH: Duration = Duration::from_secs(1);
/// How long it is before a peer without an answer is asked about again: an address is resolved within
/// a round trip, and asking costs some microseconds.
const RETRY: Duration = Duration::from_millis(1);
/// Destinations remembered. Answers to strangers are destinations, too, so it must have a bound; when it is
/// reached, all are forgotten and learnt anew.
const DESTINATIONS_MAX: usize = 4096;
/// Room for the answer about a route.
const ANSWER_MAX: usize = 4096;

/// Where datagrams go, by destination.
pub(super) struct Neighbours {
    device: Device,
    local: SocketAddrV4,
    netlink: Socket,
    /// Never iterated, so its order does not matter.
    known: HashMap<SocketAddrV4, Known>,
    /// The destination of the last datagram.
    last: Option<(SocketAddrV4, Known)>,
}

#[derive(Clone, Copy)]
struct Known {
    /// `None`: to be sent through the ordinary socket.
    template: Option<Template>,
    until: Instant,
}

impl Neighbours {
    pub(super) fn new(device: Device, local: SocketAddrV4) -> io::Result<Neighbours> {
        let netlink = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), None)?;
        Ok(Neighbours { device, local, netlink, known: HashMap::new(), last: None })
    }

    /// The headers for datagrams to `to`. `None`: this one is to go through the ordinary socket, `socket`.
    pub(super) fn template(&mut self, to: SocketAddrV4, socket: RawFd) -> Option<&Template> {
        let now = Instant::now();
        let fresh = self.last.as_ref().is_some_and(|(addr, known)| *addr == to && now < known.until);
        if !fresh {
            let mut known = self.known.get(&to).copied();
            if known.is_none_or(|known| now >= known.until) {
                self.learn(to, socket, now);
                // This one goes the ordinary way.
                known = None;
            }
            self.last = known.map(|known| (to, known));
        }
        self.last.as_ref()?.1.template.as_ref()
    }

    fn learn(&mut self, to: SocketAddrV4, socket: RawFd, now: Instant) {
        let mac = match self.next_hop(*to.ip()) {
            Ok(Some(hop)) => hardware_address(socket, &self.device.name, hop),
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%to, %error, "no route is known");
                None
            }
        };
        let template = mac.map(|mac| Template::new(self.device.mac, mac, self.local, to));
        let until = now + if template.is_some() { FRESH } else { RETRY };
        if self.known.len() >= DESTINATIONS_MAX {
            self.known.clear();
        }
        self.known.insert(to, Known { template, until });
    }

    /// The neighbour to which packets for `to` go, if they go through our device.
    fn next_hop(&mut self, to: Ipv4Addr) -> io::Result<Option<Ipv4Addr>> {
        self.netlink.send(&route_request(to, *self.local.ip()))?;
        let mut answer = [0; ANSWER_MAX];
        let len = self.netlink.read(&mut answer)?;
        Ok(next_hop_in(&answer[..len], to, self.device.index))
    }
}

/// In `linux/if_arp.h` and `linux/rtnetlink.h`: the entry has a hardware address; the gateway is of
/// another address family.
const ATF_COM: libc::c_int = 2;
const RTA_VIA: u16 = 18;
/// Lengths of the headers of a netlink message, of a route, and of an attribute.
const MESSAGE_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const ATTRIBUTE_HEADER: usize = 4;

fn route_request(to: Ipv4Addr, from: Ipv4Addr) -> Vec<u8> {
    let mut request = Vec::new();
    let len = (MESSAGE_HEADER + ROUTE_HEADER + 2 * (ATTRIBUTE_HEADER + 4)) as u32;
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    request.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // sequence and port
    // struct rtmsg: family, destination and source lengths; all else zero.
    request.extend_from_slice(&[libc::AF_INET as u8, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, ip) in [(libc::RTA_DST, to), (libc::RTA_SRC, from)] {
        request.extend_from_slice(&((ATTRIBUTE_HEADER + 4) as u16).to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&ip.octets());
    }
    request
}

/// The neighbour named by the kernel's answer: the gateway, or `to` itself, if the route is an ordinary one
/// through `device`.
fn next_hop_in(answer: &[u8], to: Ipv4Addr, device: u32) -> Option<Ipv4Addr> {
    let len = u32::from_ne_bytes(*answer.first_chunk()?) as usize;
    let message = answer.get(MESSAGE_HEADER..len)?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let route = message.get(..ROUTE_HEADER)?;
    if kind != libc::RTM_NEWROUTE || route[7] != libc::RTN_UNICAST {
        return None;
    }
    let (mut through, mut hop) = (None, to);
    let mut rest = &message[ROUTE_HEADER..];
    while let Some(header) = rest.first_chunk::<ATTRIBUTE_HEADER>() {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(ATTRIBUTE_HEADER..len)?;
        match u16::from_ne_bytes([header[2], header[3]]) {
            libc::RTA_OIF => through = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            libc::RTA_GATEWAY => hop = Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?),
            // An IPv6 gateway.
            RTA_VIA => return None,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    (through == Some(device)).then_some(hop)
}

/// What the kernel knows as the hardware address of its neighbour `ip` at `device`.
fn hardware_address(socket: RawFd, device: &str, ip: Ipv4Addr) -> Option<Mac> {
    // SAFETY: a request of zeroes is valid.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: ip.to_bits().to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: an address of either kind is 16 plain bytes.
    request.arp_pa = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    let room = request.arp_dev.len() - 1;
    request.arp_dev.iter_mut().zip(device.bytes().take(room)).for_each(|(to, from)| *to = from as _);
    // SAFETY: the request reads and writes an `arpreq`.
    let rc = unsafe { libc::ioctl(socket, libc::SIOCGARP as _, &raw mut request) };
    let complete = rc >= 0 && request.arp_flags & ATF_COM != 0;
    complete.then(|| std::array::from_fn(|i| request.arp_ha.sa_data[i] as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TO: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn answer(kind: u8, attributes: &[(u16, [u8; 4])]) -> Vec<u8> {
        let mut answer = vec![0; 4];
        answer.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
        answer.resize(MESSAGE_HEADER, 0);
        answer.extend_from_slice(&[libc::AF_INET as u8, 32, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0]);
        for (attribute, value) in attributes {
            answer.extend_from_slice(&8u16.to_ne_bytes());
            answer.extend_from_slice(&attribute.to_ne_bytes());
            answer.extend_from_slice(value);
        }
        let len = answer.len() as u32;
        answer[..4].copy_from_slice(&len.to_ne_bytes());
        answer
    }

    #[test]
    fn only_a_route_through_our_device_has_a_next_hop() {
        let through = |device: u32| (libc::RTA_OIF, device.to_ne_bytes());
        let gateway = (libc::RTA_GATEWAY, GATEWAY.octets());
        let unicast = libc::RTN_UNICAST;
        assert_eq!(next_hop_in(&answer(unicast, &[through(7)]), TO, 7), Some(TO));
        assert_eq!(next_hop_in(&answer(unicast, &[through(7), gateway]), TO, 7), Some(GATEWAY));
        assert_eq!(next_hop_in(&answer(unicast, &[through(8), gateway]), TO, 7), None);
        assert_eq!(next_hop_in(&answer(unicast, &[gateway]), TO, 7), None);
        assert_eq!(next_hop_in(&answer(libc::RTN_LOCAL, &[through(7)]), TO, 7), None);
        assert_eq!(next_hop_in(&answer(unicast, &[through(7), (RTA_VIA, [0; 4])]), TO, 7), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..60,
        ) {
            let _ = next_hop_in(&bytes, TO, 7);
            let whole = answer(libc::RTN_UNICAST, &[(libc::RTA_OIF, 7u32.to_ne_bytes()); 3]);
            let _ = next_hop_in(&whole[..cut.min(whole.len())], TO, 7);
        }
    }
}
