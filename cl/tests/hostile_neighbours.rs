//! Processes of the same host that knock at an endpoint's door to shared memory and say what cannot be: each
//! is turned away, and those who share memory already do not notice.

mod common;

use borsh::BorshSerialize;
use cl::{Endpoint, TransportKind};
use cl_base::{PeerId, Rng};
use common::{ALICE, BOB, sharing};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, connect, sendmsg, socket,
};
use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

const CAROL: PeerId = PeerId::new(3, 0);
const MALLORY: PeerId = PeerId::new(666, 0);

fn open(me: PeerId) -> Endpoint {
    Endpoint::open(sharing(me)).unwrap()
}

/// What a process offers that wants to share memory.
#[derive(Clone, BorshSerialize)]
struct Offer {
    magic: u32,
    version: u32,
    peer: PeerId,
    addr: SocketAddr,
    ring_words: u32,
    classes: Vec<(u64, u32)>,
}

impl Offer {
    fn good() -> Offer {
        Offer {
            magic: 0x4d53_4347,
            version: 1,
            peer: MALLORY,
            addr: SocketAddr::from(([127, 0, 0, 1], 9)),
            ring_words: 8192,
            classes: vec![(2048, 16)],
        }
    }
}

/// Connects to the door of the endpoint at `addr`; `None` while too many others wait there.
fn knock(addr: SocketAddr) -> Option<OwnedFd> {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::io::ioctl_fionbio(&socket, true).unwrap();
    let name = SocketAddrUnix::new_abstract_name(format!("ghidrah-cl/{addr}").as_bytes()).unwrap();
    connect(&socket, &name).ok().map(|()| socket)
}

fn say(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    // The other side may have hung up already: as it should.
    let _ = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}

/// A file in memory, as long as any region or arena here has to be, with random words in it.
fn memory(rng: &mut Rng, sealed: bool) -> File {
    let mut file =
        File::from(memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    let noise: Vec<u8> = (0..1 << 17).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    file.write_all(&noise).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    }
    file
}

/// Knocks and misbehaves in one of so many ways.
const WAYS: u64 = 12;

fn misbehave(rng: &mut Rng, way: u64, addr: SocketAddr) -> Option<OwnedFd> {
    let socket = knock(addr)?;
    let null = File::open("/dev/null").unwrap();
    let nulls = [null.as_fd(); 3];
    let mut offer = Offer::good();
    let send = |offer: &Offer, fds: &[BorrowedFd<'_>]| say(&socket, &borsh::to_vec(offer).unwrap(), fds);
    match way {
        0 => {}
        1 => say(&socket, &[], &[]),
        2 => say(&socket, b"bye", &nulls),
        3 => {
            let noise: Vec<u8> = (0..rng.within(1, 200)).map(|_| rng.next_u64() as u8).collect();
            say(&socket, &noise, &nulls);
        }
        // Longer than any offer.
        4 => say(&socket, &[7; 60_000], &[]),
        5 => {
            offer.version = rng.next_u64() as u32;
            send(&offer, &nulls);
        }
        6 => {
            offer.ring_words = rng.next_u64() as u32;
            send(&offer, &nulls);
        }
        7 => {
            let count = rng.below(200);
            offer.classes = (0..count).map(|_| (rng.next_u64(), rng.next_u64() as u32)).collect();
            send(&offer, &nulls);
        }
        // Fewer descriptors, and descriptors of other things.
        8 => send(&offer, &nulls[..rng.below(3) as usize]),
        9 => send(&offer, &nulls),
        // Memory that could be cut short while it is mapped.
        10 => {
            let (ring, arena) = (memory(rng, false), memory(rng, false));
            send(&offer, &[ring.as_fd(), arena.as_fd(), null.as_fd()]);
        }
        // Memory as it should be, but for what is in it.
        _ => {
            let (ring, arena) = (memory(rng, true), memory(rng, true));
            send(&offer, &[ring.as_fd(), arena.as_fd(), null.as_fd()]);
        }
    }
    Some(socket)
}

fn exchange(a: &mut Endpoint, b: &mut Endpoint, n: u32, len: usize) {
    let contents: Vec<u8> = (0..len).map(|i| (i as u32 ^ n) as u8).collect();
    a.send(b.me(), a.alloc_copy(&contents).unwrap()).unwrap();
    let start = Instant::now();
    let received = loop {
        assert!(start.elapsed() < Duration::from_secs(20), "message {n} is not there: {:?}", b.stats());
        assert!(a.poll().is_none());
        if let Some(received) = b.poll() {
            break received;
        }
    };
    assert_eq!((received.from, received.addr), (a.me(), a.local_addr()));
    assert!(received.buf[..] == contents[..], "message {n}");
}

fn shares(a: &mut Endpoint, b: &mut Endpoint) -> bool {
    let (peer, addr) = (b.me(), b.local_addr());
    a.resolve(peer, addr);
    for n in 0..100 {
        exchange(a, b, n, 10);
    }
    a.path(peer).unwrap().kind == TransportKind::SharedMemory
}

#[test]
fn who_says_what_cannot_be_is_turned_away_and_others_do_not_notice() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    assert!(shares(&mut a, &mut b));
    let (mut rng, mut knocked) = (Rng::new(1), 0);
    for n in 0..1500 {
        let way = rng.below(WAYS);
        let socket = misbehave(&mut rng, way, b.local_addr());
        knocked += u32::from(socket.is_some());
        exchange(&mut a, &mut b, n, *rng.pick(&[0, 100, 5000, 60_000]).unwrap());
        // Some hang up at once, some stay until they have been heard.
        if rng.chance(1, 2) {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(2) {
                assert!(b.poll().is_none(), "nothing hostile is a message");
            }
        }
        drop(socket);
    }
    assert!(knocked > 1000, "{knocked}");
    let drops = b.stats().drops;
    assert!(drops.stranger_left > 0 && drops.stranger_offer > 100, "{drops:?}");
    assert_eq!(a.path(BOB).unwrap().kind, TransportKind::SharedMemory);
    // Nothing of theirs is left, and new ones are welcome.
    let start = Instant::now();
    while b.shared().0 > 1 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", b.shared());
        assert!(b.poll().is_none());
    }
    assert!(shares(&mut open(CAROL), &mut b));
}

#[test]
fn those_who_knock_and_say_nothing_keep_nobody_out_and_have_a_second() {
    let (mut a, mut b) = (open(ALICE), open(BOB));
    assert!(shares(&mut a, &mut b));
    let mut silent = Vec::new();
    let start = Instant::now();
    for n in 0.. {
        silent.extend(knock(b.local_addr()));
        if silent.len() == 1000 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{} stand at the door", silent.len());
        exchange(&mut a, &mut b, n, 5000);
    }
    // They stand there, and a newcomer shares memory at once.
    for newcomer in 10..20 {
        let mut c = open(PeerId::new(newcomer, 0));
        assert!(shares(&mut c, &mut b));
        assert!(shares(&mut b, &mut c));
        assert_eq!(c.stats().datagrams_sent, 0);
    }
    let drops = b.stats().drops;
    assert!(drops.stranger_crowded >= 1000 - 64, "{drops:?}");
    // Also one that sleeps shows them out in time.
    let start = Instant::now();
    while b.stats().drops.stranger_silent + b.stats().drops.stranger_crowded < 1000 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", b.stats().drops);
        b.park(None).unwrap();
        while b.poll().is_some() {}
    }
    let hung_up = |socket: &OwnedFd| rustix::net::recv(socket, &mut [0; 1][..], RecvFlags::empty());
    assert!(silent.iter().all(|socket| matches!(hung_up(socket), Ok((_, 0)))));
    exchange(&mut a, &mut b, 0, 100);
}

#[test]
fn one_who_shares_nonsense_and_stays_keeps_nobody_awake() {
    let mut b = open(BOB);
    let mut rng = Rng::new(2);
    let noise = misbehave(&mut rng, WAYS - 1, b.local_addr());
    assert!(noise.is_some());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(20) {
        assert!(b.poll().is_none());
    }
    let start = Instant::now();
    let mut parks = 0;
    while start.elapsed() < Duration::from_millis(300) {
        b.park(Some(Duration::from_millis(100))).unwrap();
        assert!(b.poll().is_none());
        parks += 1;
    }
    assert!(parks < 30, "it slept {parks} times in 300 ms");
}
