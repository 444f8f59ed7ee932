//! Whatever a rank of the job may say, for the fuzzer.

use super::{Access, Engine, Region, Shared};
use crate::abi::{FI_ADDR_UNSPEC, Iovec};
use crate::address::Address;
use crate::engine::Incoming;
use crate::memory::Area;
use crate::settings::Settings;
use crate::wire::{Greeting, Head, Offer};
use cl_base::PeerId;

/// The parsers, and then an endpoint that takes the input apart into messages of a peer, each behind its length.
pub fn messages(input: &[u8]) {
    if let Some((head, body)) = Head::parse(input) {
        assert_eq!([&head.to_bytes(), body].concat(), input);
    }
    if let Some(greeting) = Greeting::parse(input) {
        assert_eq!(greeting.to_bytes()[..], *input);
    }
    if let Some(offer) = Offer::parse(input) {
        let mut bytes = Vec::new();
        offer.put(|part| bytes.extend_from_slice(part));
        assert_eq!(bytes, input);
    }
    if let Some(address) = input.try_into().ok().and_then(Address::from_bytes) {
        assert_eq!(Address::from_bytes(&address.to_bytes()), Some(address));
    }

    let settings = Settings { shared_memory: false, ip: [127, 0, 0, 1].into(), ..Settings::default() };
    let mut engine = Engine::open(settings).expect("there are sockets");
    let mut shared = Shared::default();
    let mut memory = vec![0_u8; 1 << 12];
    let iovec = Iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the memory outlives the endpoint, and nothing else uses it.
    #[expect(unsafe_code, reason = "it is made of an address")]
    let area = unsafe { Area::new(&iovec, 1) }.expect("it is one");
    for key in 0..4 {
        let access = Access { read: key & 1 != 0, write: key & 2 != 0 };
        shared.regions.insert(key, Region { area, access });
    }
    engine.receive(&mut shared, FI_ADDR_UNSPEC, Some((0, 1)), Incoming::new(area, 1, 0)).expect("posted");
    engine.receive(&mut shared, FI_ADDR_UNSPEC, None, Incoming::new(area, 2, 0)).expect("posted");
    let peer = engine.peer_of(PeerId::new(7, 7));
    let address = Address::new(PeerId::new(7, 7), engine.me.socket);
    engine.peers[peer as usize].address = Some(address);
    engine.peers[peer as usize].has_greeted = true;
    let mut rest = input;
    while let Some((&len, after)) = rest.split_first() {
        let (message, after) = after.split_at(after.len().min(len.into()));
        rest = after;
        let buf = engine.net.alloc_copy(message).expect("the pool has more than that");
        engine.on_message(&mut shared, peer, buf);
    }
    engine.on_closed(&mut shared, peer, rcl::CloseReason::Violation);
    assert_eq!(
        (engine.sendings.len(), engine.takings.len()),
        (0, 0),
        "nothing is left of a peer that is gone"
    );
}
