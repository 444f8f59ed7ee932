//! How two processes of a host come to share memory: one connects to the other's name among the host's
//! Unix sockets and both tell what they share, the descriptors going along.
//!
//! The names are "abstract" ones: they belong to the network namespace like the UDP address they are made
//! of, are in no file system, and vanish with their process. Both sides check that the other one runs as
//! the same user; memory is shared with nobody else.

use super::ring::INLINE_MAX;
use crate::pool::{Pool, PoolConfig, SizeClass};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{PeerId, codec};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt::socket_peercred,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// The version of everything that is shared: the offer, the ring, the returns.
const VERSION: u32 = 2;
/// "GCSM".
const MAGIC: u32 = 0x4d53_4347;
/// An offer is some hundred bytes; more is nonsense.
const OFFER_LEN_MAX: usize = 4096;
/// Size classes that a peer's pool may have.
const CLASSES_MAX: usize = 64;
/// Buffers that a peer's pool may have: some bits of ours are kept for each.
const SLOTS_MAX: u64 = 1 << 22;
/// Connections that wait to be accepted, as far as the system allows: a party that spins accepts every
/// millisecond, and one who connects when they are so many is told to come back.
const BACKLOG: i32 = 1024;
/// The smallest and the largest ring, in words: eight of the longest messages, and 64 MiB.
const RING_WORDS: std::ops::RangeInclusive<usize> = INLINE_MAX..=8 << 20;

/// What one side tells the other, its descriptors beside it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Words {
    magic: u32,
    version: u32,
    peer: PeerId,
    addr: SocketAddr,
    ring_words: u32,
    /// Capacity and count of the pool's size classes.
    classes: Vec<(u64, u32)>,
}

/// What one side says of what it shares, as far as it can be.
#[derive(Debug)]
pub(super) struct Terms {
    /// Whose endpoint it is, by its own word.
    pub(super) peer: PeerId,
    /// The UDP address of that endpoint.
    pub(super) addr: SocketAddr,
    /// The size of the ring in words.
    pub(super) ring_words: usize,
    /// The size classes of its pool.
    pub(super) pool: PoolConfig,
}

/// What one side shares.
#[derive(Debug)]
pub(super) struct Offer {
    /// See [`Terms`].
    pub(super) peer: PeerId,
    /// See [`Terms`].
    pub(super) addr: SocketAddr,
    /// See [`Terms`].
    pub(super) ring_words: usize,
    /// See [`Terms`].
    pub(super) pool: PoolConfig,
    /// The ring it writes.
    pub(super) region: File,
    /// The arena it lends from.
    pub(super) arena: File,
    /// The bell to wake it.
    pub(super) bell: OwnedFd,
}

/// Opens the name of the endpoint at `addr`.
pub(super) fn listen_at(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    bind(&socket, &name(addr)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects to the endpoint at `addr`.
pub(super) fn connect_to(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    connect(&socket, &name(addr)?)?;
    check_user(&socket)?;
    Ok(socket)
}

/// The next one who has connected.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] if it runs as another user, [`io::ErrorKind::ConnectionAborted`] if it is
/// gone already.
pub(super) fn accept_from(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => check_user(&socket).map(|()| Some(socket)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells the other side what we share.
pub(super) fn send_offer(
    socket: &OwnedFd,
    (peer, addr): (PeerId, SocketAddr),
    ring_words: usize,
    pool: &Pool,
    region: &File,
    bell: &OwnedFd,
) -> io::Result<()> {
    let (arena, config) = pool.to_share();
    let classes = config.classes.iter().map(|c| (c.capacity as u64, c.count as u32)).collect();
    let words = Words { magic: MAGIC, version: VERSION, peer, addr, ring_words: ring_words as u32, classes };
    let bytes = codec::encode(&words);
    let fds = [region.as_fd(), arena.as_fd(), bell.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space was made for them");
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What has come from the other side.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// What it shares.
    Offer(Box<Offer>),
    /// It takes and sends no more messages, but may have buffers of ours still.
    Goodbye,
    /// It is gone.
    End,
}

/// What is said instead of an offer by one who leaves.
const GOODBYE: &[u8] = b"bye";

/// Tells the other side that we take and send no more messages. What is lent stays so until the
/// connection is closed.
pub(super) fn say_goodbye(socket: &OwnedFd) {
    // If it cannot be told, it is not there any more or will learn it when the connection closes.
    let _ = rustix::net::send(socket, GOODBYE, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Hears the other side.
///
/// # Errors
/// If it says what cannot be.
pub(super) fn hear(socket: &OwnedFd) -> io::Result<Heard> {
    let mut bytes = [0; OFFER_LEN_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let len = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        Ok(message) if message.bytes == 0 => return Ok(Heard::End),
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(Heard::Nothing),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Heard::End),
        Err(error) => return Err(error.into()),
    };
    if &bytes[..len] == GOODBYE {
        return Ok(Heard::Goodbye);
    }
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let Terms { peer, addr, ring_words, pool } = Terms::parse(&bytes[..len])?;
    let [region, arena, bell] =
        <[OwnedFd; 3]>::try_from(fds).map_err(|fds| refused(format!("{} descriptors", fds.len())))?;
    let (region, arena) = (File::from(region), File::from(arena));
    Ok(Heard::Offer(Box::new(Offer { peer, addr, ring_words, pool, region, arena, bell })))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Terms {
    /// # Errors
    /// If they cannot be.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Terms> {
        let words: Words = codec::decode(bytes).map_err(|error| refused(format!("an offer {error}")))?;
        let Words { magic, version, peer, addr, ring_words, classes } = words;
        if (magic, version) != (MAGIC, VERSION) {
            return Err(refused(format!(
                "it speaks version {version} of the shared memory's layout, not {VERSION}"
            )));
        }
        let ring_words = ring_words as usize;
        if !RING_WORDS.contains(&ring_words) || !ring_words.is_power_of_two() {
            return Err(refused(format!("a ring of {ring_words} words")));
        }
        if classes.len() > CLASSES_MAX {
            return Err(refused(format!("a pool of {} size classes", classes.len())));
        }
        let slots = classes.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        if slots > SLOTS_MAX {
            return Err(refused(format!("a pool of {slots} buffers")));
        }
        let class = |(capacity, count): (u64, u32)| SizeClass {
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            count: count as usize,
        };
        let pool = PoolConfig { classes: classes.into_iter().map(class).collect() };
        Ok(Terms { peer, addr, ring_words, pool })
    }
}

/// A bell: readable once it has been rung.
pub(super) fn bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// A ring size that both sides accept, at least as large as asked for if there is one.
pub(super) fn ring_words(bytes: usize) -> usize {
    (bytes / 8).clamp(*RING_WORDS.start(), *RING_WORDS.end()).next_power_of_two().min(*RING_WORDS.end())
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn name(addr: SocketAddr) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("ghidrah-cl/{addr}").as_bytes())?)
}

fn check_user(socket: &OwnedFd) -> io::Result<()> {
    let (theirs, ours) = (socket_peercred(socket)?.uid, rustix::process::geteuid());
    if theirs == ours {
        return Ok(());
    }
    let why = format!("the peer runs as user {}, we as {}", theirs.as_raw(), ours.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Words)) -> String {
        let addr = SocketAddr::from(([127, 0, 0, 1], 7));
        let classes = vec![(2048, 4096), (65_536, 512)];
        let peer = PeerId::new(1, 0);
        let mut words = Words { magic: MAGIC, version: VERSION, peer, addr, ring_words: 8192, classes };
        assert!(Terms::parse(&codec::encode(&words)).is_ok());
        change(&mut words);
        Terms::parse(&codec::encode(&words)).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn terms_that_cannot_be_are_refused_with_the_reason() {
        assert!(refusal(|words| words.version = 9).contains("version 9"));
        assert!(refusal(|words| words.ring_words = 1000).contains("a ring of 1000 words"));
        assert!(refusal(|words| words.ring_words = 1 << 31).contains("a ring of"));
        assert!(refusal(|words| words.classes = vec![(1, 1); 65]).contains("65 size classes"));
        assert!(refusal(|words| words.classes[0].1 = u32::MAX).contains("buffers"));
    }
}
