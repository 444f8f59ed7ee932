//! Whatever a rank of the job may say, for the fuzzer and for a test.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HEAD_LEN;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Small numbers, as those of operations, keys and offsets are, and any.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 0..5_u64, 1 => (1 << 12) - 8..(1 << 12) + 8_u64, 1 => any::<u64>()]
    }

    /// A message whose head is one, with a body of numbers or of any bytes.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let numbers = vec(number(), 0..8).prop_map(|n| n.iter().flat_map(|n| n.to_le_bytes()).collect());
        let body = prop_oneof![3 => numbers, 1 => vec(any::<u8>(), 0..40)];
        (1..9_u8, 0..16_u8, number(), number(), number(), body).prop_map(
            |(kind, flags, operation, tag, data, body): (u8, u8, u64, u64, u64, Vec<u8>)| {
                let mut bytes = vec![kind, flags, 0, 0];
                bytes.extend_from_slice(&(operation as u32).to_le_bytes());
                bytes.extend_from_slice(&tag.to_le_bytes());
                bytes.extend_from_slice(&data.to_le_bytes());
                assert_eq!(bytes.len(), HEAD_LEN);
                bytes.extend_from_slice(&body);
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn nothing_that_a_peer_says_makes_an_endpoint_panic(all in vec(message(), 0..40)) {
            let mut input = Vec::new();
            for message in all {
                input.push(message.len() as u8);
                input.extend_from_slice(&message);
            }
            messages(&input);
        }
    }
}
