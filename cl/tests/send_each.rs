//! Messages to several peers, sent together.

mod common;

use cl::{Endpoint, Parcel, Refusal};
use cl_base::PeerId;
use common::{ALICE, each_transport, over, poll_within, sharing};
use std::io::IoSlice;

/// More than leave in one system call.
const PEERS: u32 = 40;
const STRANGER: PeerId = PeerId::new(999, 0);

fn peer(number: u32) -> PeerId {
    PeerId::new(100 + number, 0)
}

fn parcel<'a>(to: PeerId, head: &'a [u8], rest: &'a [u8]) -> Parcel<'a> {
    Parcel { to, addr: None, parts: [IoSlice::new(head), IoSlice::new(rest)] }
}

/// One message to each of `peers`, of lengths that grow to several datagrams, with one to a stranger among them; twice, so
/// that a peer's second one leaves while the first may still be under way.
fn send_and_check(a: &mut Endpoint, peers: &mut [Endpoint]) {
    for round in 0..2u8 {
        let bodies: Vec<Vec<u8>> = (0..peers.len())
            .map(|i| vec![i as u8 ^ round; 500 * (i % 8) + if i == 17 { 70_000 } else { 0 }])
            .collect();
        let heads: Vec<[u8; 2]> = (0..peers.len()).map(|i| [i as u8, round]).collect();
        let mut parcels: Vec<Parcel<'_>> = peers
            .iter()
            .zip(&heads)
            .zip(&bodies)
            .map(|((to, head), body)| parcel(to.me(), head, body))
            .collect();
        parcels.insert(20, parcel(STRANGER, b"nobody", b"knows"));
        let mut told = Vec::new();
        a.send_each(&parcels, |place, sent| told.push((place, sent)));
        assert_eq!(
            told.iter().map(|(place, _)| *place).collect::<Vec<_>>(),
            Vec::from_iter(0..parcels.len())
        );
        let failed: Vec<_> = told.into_iter().filter(|(_, sent)| sent.is_err()).collect();
        assert_eq!(failed, [(20, Err(Refusal::Unresolved))]);
        for ((to, head), body) in peers.iter_mut().zip(&heads).zip(&bodies) {
            let received = poll_within(to, common::LIMIT).unwrap_or_else(|| panic!("nothing at {}", to.me()));
            assert_eq!(
                (received.from, &received.buf[..2], &received.buf[2..]),
                (ALICE, &head[..], &body[..])
            );
            a.flush();
        }
    }
    assert_eq!(a.stats().messages_sent, 2 * peers.len() as u64);
}

#[test]
fn every_peer_gets_its_own_over_the_network() {
    for transport in each_transport() {
        let mut a = Endpoint::open(over(ALICE, transport)).unwrap();
        let mut peers: Vec<Endpoint> =
            (0..PEERS).map(|n| Endpoint::open(over(peer(n), transport)).unwrap()).collect();
        peers.iter().for_each(|peer| a.resolve(peer.me(), peer.local_addr()));
        send_and_check(&mut a, &mut peers);
    }
}

#[test]
fn peers_that_share_memory_are_reached_there_and_the_others_beside_them() {
    let mut a = Endpoint::open(sharing(ALICE)).unwrap();
    let mut peers: Vec<Endpoint> = (0..6)
        .map(|n| {
            let config = if n % 3 == 2 { over(peer(n), cl::TransportChoice::Mio) } else { sharing(peer(n)) };
            Endpoint::open(config).unwrap()
        })
        .collect();
    for peer in &mut peers {
        a.resolve(peer.me(), peer.local_addr());
        // Until it is known whether it shares memory.
        a.send_parts(peer.me(), None, &[IoSlice::new(b"hello")]).unwrap();
        poll_within(peer, common::LIMIT).expect("it arrives");
    }
    let bodies: Vec<[u8; 3]> = (0..6).map(|i| [i; 3]).collect();
    let parcels: Vec<Parcel<'_>> =
        peers.iter().zip(&bodies).map(|(peer, body)| parcel(peer.me(), b"x", body)).collect();
    a.send_each(&parcels, |place, sent| assert_eq!(sent, Ok(()), "{place}"));
    drop(parcels);
    for (peer, body) in peers.iter_mut().zip(&bodies) {
        let received = poll_within(peer, common::LIMIT).expect("it arrives");
        assert_eq!((&received.buf[..1], &received.buf[1..]), (&b"x"[..], &body[..]));
    }
}
