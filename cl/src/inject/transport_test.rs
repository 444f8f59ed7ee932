use super::*;
use crate::pool::{PoolConfig, SizeClass};
use std::sync::{Arc, Mutex};

/// A network of one's own.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<WireState>>);

#[derive(Default)]
struct WireState {
    refuse: u32,
    sent: Vec<Vec<u8>>,
    arriving: Vec<Vec<u8>>,
}

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

impl Transport for Wire {
    fn kind(&self) -> TransportKind {
        TransportKind::Mio
    }

    fn local_addr(&self) -> SocketAddr {
        PEER
    }

    fn receive_buffer(&self) -> usize {
        0
    }

    fn send(&mut self, _: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut wire = self.0.lock().unwrap();
        if let Some(less) = wire.refuse.checked_sub(1) {
            wire.refuse = less;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.sent.push(parts.iter().flat_map(|p| p.iter().copied()).collect());
        Ok(())
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        let mut wire = self.0.lock().unwrap();
        if wire.arriving.is_empty() {
            return Recv::Empty;
        }
        let mut buf = pool.alloc(64).unwrap();
        buf.extend_from_slice(&wire.arriving.remove(0));
        Recv::Datagram(PEER, buf)
    }

    fn readable_fd(&self) -> RawFd {
        -1
    }

    fn writable_fd(&self) -> RawFd {
        -1
    }

    fn prepare_park(&mut self, _: &Pool) -> bool {
        true
    }

    fn refuse_sends(&self, count: u32) {
        self.0.lock().unwrap().refuse = count;
    }
}

impl Wire {
    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }
}

fn injected(faults: &str) -> (Injected, Wire, Pool) {
    let wire = Wire::default();
    let pool = Pool::new(&PoolConfig { classes: vec![SizeClass { capacity: 64, count: 4 }] }).unwrap();
    (Injected::new(Box::new(wire.clone()), faults.parse().unwrap(), 1, Clock::new()), wire, pool)
}

fn send(injected: &mut Injected, bytes: &[u8]) -> io::Result<()> {
    let (front, back) = bytes.split_at(bytes.len() / 2);
    injected.send(PEER, &[IoSlice::new(front), IoSlice::new(back)])
}

#[test]
fn what_a_busy_network_refuses_suffers_the_same_fault_when_it_is_sent_again() {
    let run = |refusals: u32| {
        let (mut injected, wire, _) = injected("drop=20%,corrupt=20%,duplicate=20%");
        for n in 0..200u8 {
            injected.refuse_sends(refusals);
            while let Err(error) = send(&mut injected, &[n; 8]) {
                assert!(is_transient(&error));
            }
        }
        injected.refuse_sends(0);
        std::thread::sleep(2 * RETRY);
        injected.release();
        let mut sent = wire.sent();
        sent.sort();
        (injected.faults().unwrap(), sent)
    };
    let undisturbed = run(0);
    assert!(undisturbed.0.dropped > 0 && undisturbed.0.corrupted > 0 && undisturbed.0.duplicated > 0);
    assert_eq!(undisturbed.1.len() as u64, 200 - undisturbed.0.dropped + undisturbed.0.duplicated);
    assert_eq!(run(1), undisturbed);
    assert_eq!(run(3), undisturbed);
}

#[test]
fn what_is_held_back_has_a_deadline_and_goes_on_when_it_has_come() {
    let (mut injected, wire, pool) = injected("delay=3ms@100%");
    assert_eq!(injected.deadline(), Time::MAX);
    let begin = injected.clock.now();
    send(&mut injected, b"late").unwrap();
    let deadline = injected.deadline();
    assert!(deadline >= begin + Duration::from_millis(3));
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert!(wire.sent().is_empty());
    while injected.clock.now() < deadline {}
    // The network is busy at first: not a reason to spin.
    injected.refuse_sends(1);
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert!(wire.sent().is_empty() && injected.deadline() > deadline);
    while injected.clock.now() < injected.deadline() {}
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert_eq!(wire.sent(), [b"late"]);
    assert_eq!(injected.deadline(), Time::MAX);
}

#[test]
fn arrivals_held_back_wait_for_a_buffer_and_keep_their_headroom() {
    let (mut injected, wire, pool) = injected("delay=1ms@100%,side=in");
    wire.0.lock().unwrap().arriving = vec![vec![7; 64]];
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert_eq!(pool.available(64), 4, "it is not kept in a buffer of the pool");
    while injected.clock.now() < injected.deadline() {}
    let held: Vec<_> = (0..4).map(|_| pool.alloc(64).unwrap()).collect();
    assert!(matches!(injected.recv(&pool), Recv::Starved));
    drop(held);
    let Recv::Datagram(from, buf) = injected.recv(&pool) else { panic!("it is not there") };
    assert_eq!((from, &buf[..], buf.headroom()), (PEER, &[7; 64][..], HEADROOM - HEADER_LEN));
}

#[test]
fn a_flood_that_is_all_lost_does_not_keep_the_caller() {
    let (mut injected, wire, pool) = injected("drop=100%,side=in");
    wire.0.lock().unwrap().arriving = vec![vec![1]; TAKEN_PER_RECV + 1];
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert!(!injected.prepare_park(&pool), "there may be more");
    assert!(matches!(injected.recv(&pool), Recv::Empty));
    assert!(injected.prepare_park(&pool));
    assert_eq!(injected.faults().unwrap().dropped, TAKEN_PER_RECV as u64 + 1);
}
