//! Messages between processes of one host through memory that they share.
//!
//! An endpoint that shares memory has a name among the host's Unix sockets, made of its UDP address
//! ([`handshake`]). Another endpoint that resolves that address connects to it, and from then on the two
//! write into rings that both have mapped ([`ring`]): short messages as copies, longer ones by lending the
//! buffer they are in, which comes back when the receiver drops it ([`channel`]). Messages on a channel
//! arrive in order and are not lost while both live; a full ring is told to the sender.
//!
//! The connection is the lifeline: the kernel closes it when a process ends in whatever way, and then what
//! it had borrowed is taken back. Nothing of the shared memory has a name that could outlive its users.

mod bell;
mod channel;
mod door;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod handshake;
pub(crate) mod id;
mod ring;
mod room;

use crate::clock::Clock;
use crate::counters::Traffic;
use crate::message::{Refusal, SendError};
use crate::pool::{Buf, Pool};
use crate::stats::Stats;
pub(crate) use channel::Stop;
use channel::{Channel, Full, State, Trouble};
use cl_base::{PeerId, Time};
use door::Door;
use id::ChannelId;
pub(crate) use ring::INLINE_MAX;
use room::Room;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Processes to share memory with at once; to further ones the messages go by the network. More than a
/// node has processors.
const CHANNELS_MAX: usize = 1024;
/// Events taken from the kernel at once; more stay there for the next time.
const EVENTS: usize = 64;

/// Names of what is watched.
const DOOR: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;

/// Something has become of a channel.
#[derive(Clone, Debug)]
pub(crate) enum ChannelEvent {
    /// A peer has connected to us.
    Accepted(ChannelId, PeerId, SocketAddr),
    /// The peer has answered: memory is shared.
    Opened(PeerId),
    /// Nothing more will come from the peer, nor go to it.
    Closed(ChannelId, PeerId, SocketAddr, String),
}

#[derive(Debug)]
struct Slot {
    birth: NonZeroU32,
    channel: Option<Channel>,
    /// Its end has been told.
    told: bool,
}

/// An endpoint's side of all its channels.
#[derive(Debug)]
pub(crate) struct Shm {
    me: (PeerId, SocketAddr),
    pool: Pool,
    ring_words: usize,
    copy_max: usize,
    clock: Clock,
    door: Door,
    bell: OwnedFd,
    /// Watches the door, the bell and all connections.
    watch: OwnedFd,
    slots: Vec<Slot>,
    /// Of the next channel.
    births: NonZeroU32,
    /// Where the next look begins, so that every channel has its turn.
    turn: usize,
    events: VecDeque<ChannelEvent>,
    asleep: bool,
    /// What went through channels that are no more.
    past_traffic: Vec<(PeerId, Traffic)>,
    /// And in all.
    past: Traffic,
    /// Channels with messages for which no bell has been rung yet.
    unrung: Vec<u32>,
    /// A message was refused for want of room since the last sleep.
    refused: bool,
    room: Room,
}

impl Shm {
    /// Opens the name of `me`.
    pub(crate) fn open(
        me: (PeerId, SocketAddr),
        pool: &Pool,
        clock: Clock,
        ring_bytes: usize,
        copy_max: usize,
    ) -> io::Result<Shm> {
        let bell = handshake::bell()?;
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&watch, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Shm {
            me,
            pool: pool.clone(),
            ring_words: handshake::ring_words(ring_bytes),
            copy_max: copy_max.min(INLINE_MAX),
            clock,
            door: Door::open(me.1, &watch, DOOR)?,
            bell,
            watch,
            slots: Vec::new(),
            births: NonZeroU32::MIN,
            turn: 0,
            events: VecDeque::new(),
            asleep: false,
            past_traffic: Vec::new(),
            past: Traffic::default(),
            unrung: Vec::new(),
            refused: false,
            room: Room::new(),
        })
    }

    /// Messages up to this length are copied.
    pub(crate) fn copy_max(&self) -> usize {
        self.copy_max
    }

    /// Connects to `peer` at `addr`. Messages may be sent at once.
    ///
    /// # Errors
    /// If nobody has that name, or shares no memory with us.
    pub(crate) fn connect(&mut self, peer: PeerId, addr: SocketAddr) -> io::Result<ChannelId> {
        let link = handshake::connect_to(addr)?;
        self.admit(link, (peer, addr), None)
    }

    fn admit(
        &mut self,
        link: OwnedFd,
        peer: (PeerId, SocketAddr),
        offer: Option<handshake::Offer>,
    ) -> io::Result<ChannelId> {
        let index = match self.slots.iter().position(|slot| slot.channel.is_none()) {
            Some(index) => index,
            None if self.slots.len() < CHANNELS_MAX => {
                self.slots.push(Slot { birth: NonZeroU32::MIN, channel: None, told: false });
                self.slots.len() - 1
            }
            None => return Err(io::Error::other("memory is shared with too many processes")),
        };
        let mut channel = Channel::new(link, self.me, peer, self.ring_words, &self.pool, &self.bell)?;
        if let Some(offer) = offer {
            channel.open(offer)?;
        }
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.watch, &*channel.link, data, epoll::EventFlags::IN | epoll::EventFlags::RDHUP)?;
        channel.set_asleep(self.asleep);
        let birth = self.births;
        self.births = birth.checked_add(1).expect("fewer than four thousand million channels");
        self.slots[index] = Slot { birth, channel: Some(channel), told: false };
        Ok(ChannelId { index: index as u32, birth })
    }

    #[inline]
    fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.channel.as_mut().filter(|_| slot.birth == id.birth)
    }

    /// True if messages can be put into the channel.
    pub(crate) fn is_alive(&mut self, id: ChannelId) -> bool {
        self.channel(id).is_some_and(|channel| !channel.is_over())
    }

    /// Hands a message over; the bell is rung by [`Shm::flush`].
    #[inline]
    pub(crate) fn send(&mut self, id: ChannelId, buf: Buf) -> Result<(), SendError> {
        let copy_max = self.copy_max;
        let Some(channel) = self.channel(id) else {
            return Err(SendError { buf, reason: Refusal::Unresolved });
        };
        match channel.send(buf, copy_max) {
            Ok(()) => {
                self.note_unrung(id);
                Ok(())
            }
            Err((buf, full)) => Err(SendError { buf, reason: self.refusal(full) }),
        }
    }

    #[cold]
    fn refusal(&mut self, full: Full) -> Refusal {
        match full {
            Full::Now => {
                self.note_full();
                Refusal::Backpressure
            }
            Full::ForGood => {
                self.flush();
                Refusal::Unresolved
            }
        }
    }

    #[cold]
    fn note_full(&mut self) {
        self.refused = true;
        // The other side may sleep on what it has not been told of yet.
        self.flush();
    }

    /// As [`Shm::send`], for a copy of at most [`INLINE_MAX`] bytes, a word in front of them if given.
    #[inline]
    pub(crate) fn send_copy(
        &mut self,
        id: ChannelId,
        word: Option<u64>,
        contents: &[u8],
    ) -> Result<(), Refusal> {
        let Some(channel) = self.channel(id) else { return Err(Refusal::Unresolved) };
        match channel.send_copy(word, contents) {
            Ok(()) => {
                self.note_unrung(id);
                Ok(())
            }
            Err(full) => Err(self.refusal(full)),
        }
    }

    /// As [`Shm::send_copy`] for each of `messages` in turn, without a word. Tells how many were handed over.
    #[inline]
    pub(crate) fn send_copies<M: AsRef<[u8]>, I: Iterator<Item = M>>(
        &mut self,
        id: ChannelId,
        mut messages: I,
    ) -> (usize, Stop<M>, I) {
        let copy_max = self.copy_max;
        let Some(channel) = self.channel(id) else {
            let stop = messages.next().map_or(Stop::Done, Stop::Other);
            return (0, stop, messages);
        };
        let (count, stop, messages) = channel.send_copies(copy_max, messages);
        if count > 0 {
            self.note_unrung(id);
        }
        if matches!(stop, Stop::Full) {
            self.note_full();
        }
        (count, stop, messages)
    }

    #[inline]
    fn note_unrung(&mut self, id: ChannelId) {
        if self.unrung.last() != Some(&id.index) {
            self.unrung.push(id.index);
        }
    }

    /// Rings the bells of those who sleep and have messages.
    #[inline]
    pub(crate) fn flush(&mut self) {
        while let Some(index) = self.unrung.pop() {
            if let Some(channel) = &mut self.slots[index as usize].channel {
                channel.ring_bell();
            }
        }
    }

    /// The next message of any channel.
    #[inline]
    pub(crate) fn recv(&mut self, stats: &mut Stats) -> Option<(ChannelId, PeerId, SocketAddr, Buf)> {
        let count = self.slots.len();
        for _ in 0..count {
            let index = self.turn;
            // The next one is looked at first the next time.
            self.turn = if index + 1 < count { index + 1 } else { 0 };
            let Slot { birth, channel: Some(channel), .. } = &mut self.slots[index] else { continue };
            match channel.recv(&self.pool) {
                Ok(buf) => {
                    let id = ChannelId { index: index as u32, birth: *birth };
                    return Some((id, channel.peer, channel.addr, buf));
                }
                Err(Trouble::Nothing) => {}
                Err(Trouble::Starved) => stats.starved += 1,
                Err(Trouble::Broken) => channel.state = State::Broken,
            }
        }
        None
    }

    /// Calls `each` with up to `max` messages where they lie, and tells how many.
    #[inline]
    pub(crate) fn visit(
        &mut self,
        max: usize,
        mut each: impl FnMut(ChannelId, PeerId, SocketAddr, &[u8]),
    ) -> usize {
        let channels = self.slots.len();
        let mut count = 0;
        for _ in 0..channels {
            let index = self.turn;
            let Slot { birth, channel: Some(channel), .. } = &mut self.slots[index] else {
                self.turn = if index + 1 < channels { index + 1 } else { 0 };
                continue;
            };
            let (id, peer, addr) =
                (ChannelId { index: index as u32, birth: *birth }, channel.peer, channel.addr);
            let (seen, trouble) = channel.visit(max - count, |contents| each(id, peer, addr, contents));
            count += seen;
            if trouble == Some(Trouble::Broken) {
                channel.state = State::Broken;
            }
            self.turn = if index + 1 < channels { index + 1 } else { 0 };
            if count == max {
                break;
            }
        }
        count
    }

    /// Accepts, hears and buries: what happens rarely. To be called now and then.
    pub(crate) fn tend(&mut self) {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.watch, &mut events, Some(&at_once)).unwrap_or(0);
        let mut knocked = false;
        for event in &events[..count] {
            match event.data.u64() {
                DOOR => knocked = true,
                BELL => self.hush(),
                index => self.hear(index as usize),
            }
        }
        if knocked {
            self.welcome();
        }
        if self.deadline() != Time::MAX {
            self.door.expire(self.clock.now());
        }
        for index in 0..self.slots.len() {
            let Slot { channel: Some(channel), .. } = &mut self.slots[index] else { continue };
            channel.reclaim();
            if channel.is_over() && (channel.state == State::Broken || channel.is_empty()) {
                self.end(index, None);
            }
        }
    }

    /// Lets those in who knock and say what they share.
    fn welcome(&mut self) {
        let now = self.clock.now();
        self.door.begin_round();
        while let Some((link, offer)) = self.door.next(&self.watch, now) {
            let (peer, addr) = (offer.peer, offer.addr);
            match self.admit(link, (peer, addr), Some(offer)) {
                Ok(id) => self.events.push_back(ChannelEvent::Accepted(id, peer, addr)),
                Err(error) => self.door.turn_away(&error),
            }
        }
    }

    fn hear(&mut self, index: usize) {
        let Some(Slot { channel: Some(channel), .. }) = self.slots.get_mut(index) else { return };
        let before = channel.state;
        match channel.tend() {
            Ok(true) if channel.state == State::Open && before == State::Calling => {
                channel.set_asleep(self.asleep);
                let peer = channel.peer;
                // What was sent before there was a bell may lie before a sleeper.
                self.unrung.push(index as u32);
                self.events.push_back(ChannelEvent::Opened(peer));
            }
            Ok(_) => {}
            Err(error) => {
                channel.state = State::Broken;
                self.end(index, Some(error.to_string()));
            }
        }
    }

    /// Tells of a channel's end, and buries it once the other process is gone for certain.
    fn end(&mut self, index: usize, why: Option<String>) {
        let slot = &mut self.slots[index];
        let Some(channel) = &mut slot.channel else { return };
        if !std::mem::replace(&mut slot.told, true) {
            let why = why.unwrap_or_else(|| match channel.state {
                State::Broken => "it has broken the layout of the shared memory".to_owned(),
                _ => "it has ended".to_owned(),
            });
            let id = ChannelId { index: index as u32, birth: slot.birth };
            self.events.push_back(ChannelEvent::Closed(id, channel.peer, channel.addr, why));
            channel.leave();
        }
        if channel.state == State::Broken {
            // Or the nonsense in its ring would keep this thread awake, and this end from being buried.
            channel.stop_listening();
        }
        if channel.state == State::Ended {
            let _ = epoll::delete(&self.watch, &*channel.link);
            let mut channel = slot.channel.take().expect("just seen");
            self.past.add(channel.traffic());
            // Where nobody takes it, it is not kept either.
            if self.past_traffic.len() < CHANNELS_MAX {
                self.past_traffic.push((channel.peer, channel.take_traffic()));
            }
            channel.bury();
        }
    }

    /// When [`Shm::tend`] wants to be called though nothing has come.
    pub(crate) fn deadline(&self) -> Time {
        self.door.deadline()
    }

    /// Adds what only this side knows to the endpoint's counters.
    pub(crate) fn count(&self, stats: &mut Stats) {
        self.door.count(&mut stats.drops);
        self.past.count_shared(stats);
        self.live().for_each(|channel| channel.traffic().count_shared(stats));
    }

    /// What has become of the channels since the last call.
    pub(crate) fn next_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// Becomes readable when something is to be received or tended.
    pub(crate) fn readable_fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }

    /// Asks the others to ring the bell. False if something has arrived already.
    pub(crate) fn prepare_park(&mut self) -> bool {
        self.flush();
        self.look_for_room();
        self.asleep = true;
        self.live().for_each(|channel| channel.set_asleep(true));
        bell::settle();
        self.live().all(Channel::is_empty)
    }

    fn look_for_room(&mut self) {
        let (channels, lent) = self.counts();
        let starved = self.pool.take_exhausted() && lent > 0;
        let refused = std::mem::take(&mut self.refused) && channels > 0;
        if refused || starved || self.room.is_wanted() {
            let sent = self.live().map(|channel| channel.traffic().messages_sent()).sum();
            self.room.look(self.clock.now(), refused || starved, sent);
        }
    }

    /// When a sleep is to end because something was refused for want of room, or of a buffer that others have: that there
    /// is some again nobody tells.
    pub(crate) fn room_until(&self) -> Time {
        self.room.until()
    }

    /// True if the others ring the bell.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// No longer wants the bell.
    pub(crate) fn unpark(&mut self) {
        if std::mem::take(&mut self.asleep) {
            self.live().for_each(|channel| channel.set_asleep(false));
            self.hush();
            self.tend();
        }
    }

    fn hush(&self) {
        let mut count = [0; 8];
        // Nothing to read is fine.
        let _ = rustix::io::read(&self.bell, &mut count);
    }

    /// Channels, and buffers that their other sides have.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.live().count(), self.live().map(Channel::lent).sum())
    }

    /// Tells what has gone to each peer and come from it since the last call.
    pub(crate) fn take_traffic(&mut self, mut tell: impl FnMut(PeerId, Traffic)) {
        self.past_traffic.drain(..).for_each(|(peer, traffic)| tell(peer, traffic));
        for channel in self.slots.iter_mut().filter_map(|slot| slot.channel.as_mut()) {
            tell(channel.peer, channel.take_traffic());
        }
    }

    fn live(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter().filter_map(|slot| slot.channel.as_ref())
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        // What was queued is still read by the others.
        self.flush();
        // The connections stay open as long as buffers lent to us are in use.
        self.live().for_each(Channel::leave);
    }
}
