//! What the tests of endpoints have in common.

// Each test takes of it what it needs.
#![allow(dead_code)]

use cl::{Endpoint, EndpointConfig, Received, SharedMemory, TransportChoice};
use cl_base::PeerId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const ALICE: PeerId = PeerId::new(1, 0);
pub(crate) const BOB: PeerId = PeerId::new(2, 0);

/// What happens at all happens within this time, however busy the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Any port of the loopback device.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An endpoint that shares memory with its like.
pub(crate) fn sharing(me: PeerId) -> EndpointConfig {
    EndpointConfig::new(me, loopback())
}

/// An endpoint whose messages all go over the network, by `transport`.
pub(crate) fn over(me: PeerId, transport: TransportChoice) -> EndpointConfig {
    EndpointConfig { transport, shared_memory: SharedMemory::Never, ..EndpointConfig::new(me, loopback()) }
}

/// The transports to be had here: io_uring may be forbidden, in a container say.
pub(crate) fn each_transport() -> Vec<TransportChoice> {
    let mut each = vec![TransportChoice::Mio];
    match Endpoint::open(over(ALICE, TransportChoice::Uring)) {
        Ok(_) => each.push(TransportChoice::Uring),
        Err(error) => eprintln!("without io_uring: {error}"),
    }
    each
}

/// Alice and Bob, who know each other's address.
pub(crate) fn pair(a: EndpointConfig, b: EndpointConfig) -> (Endpoint, Endpoint) {
    let (mut a, mut b) = (Endpoint::open(a).unwrap(), Endpoint::open(b).unwrap());
    a.resolve(b.me(), b.local_addr());
    b.resolve(a.me(), a.local_addr());
    (a, b)
}

/// The next message, if it comes within `limit`.
pub(crate) fn poll_within(endpoint: &mut Endpoint, limit: Duration) -> Option<Received> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(received) = endpoint.poll() {
            return Some(received);
        }
    }
    None
}

/// The next message.
pub(crate) fn receive(endpoint: &mut Endpoint) -> Received {
    poll_within(endpoint, LIMIT)
        .unwrap_or_else(|| panic!("nothing arrives: {endpoint:?} {:?}", endpoint.stats()))
}

/// Waits until something is so, which is asked again and again.
pub(crate) fn wait(mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < LIMIT, "waited in vain");
    }
}
