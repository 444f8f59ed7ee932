//! A peer whose process answers the call to share memory, and then does not want to: what was accepted for it
//! before that was known goes by the network, in order, all of it.

use cl::SharedMemory;
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);
/// As many as may wait for an answer, and more than a packet or two.
const MESSAGES: u32 = 250;
const LARGE: usize = 300_000;

fn open(me: PeerId, shares: bool) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if !shares {
        config.cl.shared_memory = SharedMemory::Never;
    }
    Endpoint::open(config).unwrap()
}

/// The door to shared memory of the endpoint at `addr`, which has none of its own.
fn door(addr: SocketAddr) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let name = SocketAddrUnix::new_abstract_name(format!("ghidrah-cl/{addr}").as_bytes()).unwrap();
    rustix::net::bind(&door, &name).unwrap();
    rustix::net::listen(&door, 8).unwrap();
    door
}

fn message(n: u32) -> Vec<u8> {
    let mut message = n.to_le_bytes().to_vec();
    message.resize(4 + (n as usize * 97) % 20_000, n as u8);
    message
}

/// Calls over the door, which is slammed after `patience`, and says everything before.
fn refuse(patience: Duration) {
    let mut b = open(B, false);
    let door = door(b.local_addr());
    let mut a = open(A, true);
    a.connect(B, b.local_addr());
    assert_eq!(a.cl().shared().0, 1, "memory will be shared, as far as A knows");
    for n in 0..MESSAGES {
        a.send(B, a.alloc_copy(&message(n)).unwrap()).unwrap();
        if n == MESSAGES / 2 {
            a.send_large(B, Box::new(vec![7u8; LARGE])).unwrap();
        }
    }
    a.close(B);
    let (start, mut received, mut large) = (Instant::now(), 0, false);
    let (mut sent, mut closed) = (false, [false; 2]);
    while closed != [true; 2] {
        assert!(start.elapsed() < LIMIT, "{received} received, {closed:?}");
        if start.elapsed() >= patience {
            // Whoever knocks is sent away; it knocks again from time to time.
            let _ = rustix::net::accept(&door);
        }
        match a.poll() {
            Some(Event::Closed(B, CloseReason::Graceful)) => closed[0] = true,
            Some(Event::Sent { to: B, .. }) => sent = true,
            Some(Event::Connected(B)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        match b.poll() {
            Some(Event::Message { from: A, buf }) => {
                assert!(buf[..] == message(received), "message {received} is not what was sent");
                received += 1;
            }
            Some(Event::Announced { from: A, id, len }) => {
                assert_eq!((received, len), (MESSAGES / 2 + 1, LARGE as u64), "in its place");
                b.accept(A, id, Box::new(Vec::<u8>::with_capacity(LARGE)));
            }
            Some(Event::Received { sink, .. }) => {
                large = (sink as Box<dyn Any>).downcast::<Vec<u8>>().is_ok_and(|all| all[..] == [7; LARGE]);
            }
            Some(Event::Closed(A, CloseReason::Graceful)) => closed[1] = true,
            Some(Event::Connected(A)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((received, large, sent), (MESSAGES, true, true));
    let counters = a.counters();
    assert!(counters.segments > 0, "{counters:?}");
}

#[test]
fn what_was_said_at_a_door_that_is_slammed_goes_by_the_network() {
    refuse(Duration::ZERO);
}

#[test]
fn also_if_that_takes_a_while() {
    refuse(Duration::from_millis(300));
}
