//! Datagrams carried by libfabric: InfiniBand, EFA, Slingshot, Omni-Path, and whatever else it has providers for.
//!
//! The endpoint is of the kind "reliable datagram" (`FI_EP_RDM`), which all these providers have. Parties keep
//! their UDP addresses as names: a UDP socket at the address answers the question where libfabric reaches the
//! party (`control.rs`), and every datagram carries in front where its sender is. The first datagrams to a party
//! wait for its answer; those to one that does not answer are lost, so that nobody waits behind it.
//!
//! Received datagrams are handed up in the pool buffers they landed in. Sent ones are copied once, because the
//! parts are the caller's again at once: the provider copies small ones itself (`fi_inject`), larger ones go into
//! a pool buffer that is kept until they are sent ([`Stats::copies`]).
//!
//! What the provider believes is its own affair: shm trusts all processes of the same user that it exchanges
//! messages with, and leaves its files in /dev/shm when it is killed.

mod abi;
mod choice;
mod control;
mod fabric;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod info;
mod library;
mod peers;

use super::provider::OfiProvider;
use super::socket::UdpSocket;
use super::{Recv, Transport, TransportKind};
use crate::clock::Clock;
use crate::config::OpenError;
use crate::header::HEADER_LEN;
use crate::pool::{Buf, HEADROOM, Pool};
use crate::stats::Stats;
use crate::sys::AlarmFd;
use cl_base::Time;
use control::{Body, CONTROL_LEN, Control, PREAMBLE_LEN, parse_preamble};
use fabric::{Event, Fabric, Wanted};
use library::Library;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use peers::{Answer, Hold, Peers, Route};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Where in its slot a datagram is received: its contents, behind the preamble and our header, then begin where
/// those of a fresh buffer do.
const RECEIVE_AT: usize = HEADROOM - HEADER_LEN - PREAMBLE_LEN;
/// Buffers offered for receiving at most: a burst of so many datagrams is received without us.
const RECEIVES: usize = 64;
/// Buffers are offered again when so many have been used, to do it in one go.
const REFILL: usize = 8;
/// Datagrams being sent at once.
const SENDS: usize = 256;
/// Datagrams being sent to one party at once, so that one that takes none leaves the others most.
const SENDS_PER_PEER: usize = 32;
/// Datagrams injected for one party in a row. The provider does not report of these, so one that it reports of
/// must get through before there are more.
const INJECTS_PER_PEER: usize = 16;
/// Datagrams up to this length are copied by the provider, if it takes them.
const INJECT_MAX: usize = 4096;
/// Questions and answers are looked for so often while the caller spins, and deadlines looked at.
const CHORES: Duration = Duration::from_millis(1);
/// And whenever so many datagrams were received without a pause.
const CHORES_AFTER: u32 = 256;
/// Control datagrams read in one go: a flood of them must not keep us from the others.
const CONTROLS: usize = 16;
/// Events of the provider's handled in one go.
const EVENTS: usize = 256;
/// A sleep ends after this if something is under way, or if the provider cannot wake us: for every sleep
/// without result it takes twice as long ...
const TICK: Duration = Duration::from_millis(1);
/// ... up to this. It is the longest that a datagram waits if the provider (shm) cannot wake a sleeper.
const TICK_MAX: Duration = Duration::from_millis(8);
/// With so many datagrams given to the provider for parties that are gone, it is opened anew: some providers
/// (shm) never report of these, and only so many can be under way.
const STUCK_MAX: usize = SENDS / 2;
/// If that fails, it is tried again after this.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// An endpoint is tried so often if its name is taken: shm names them by the process id and a count, and finds
/// the files of a process that was killed and had the same id. Each try has the next count.
const OPEN_TRIES: usize = 8;
/// For so long at most are datagrams sent on when the endpoint is dropped.
const LINGER: Duration = Duration::from_millis(20);

/// What happened beside what the endpoint counts itself.
#[derive(Default)]
struct Counters {
    copied: u64,
    unreachable: u64,
    send_failed: u64,
    preamble: u64,
    control: u64,
}

/// See the module.
pub(super) struct Ofi {
    fabric: Fabric,
    socket: UdpSocket,
    mtu: usize,
    pool: Pool,
    peers: Peers,
    clock: Clock,
    /// A random number: another life of a party has another.
    incarnation: u64,
    /// What was asked for when this was opened.
    provider: OfiProvider,
    next_reopen: Time,
    arrived: VecDeque<Buf>,
    /// Failed receives not reported yet.
    failed: u32,
    /// Buffers to offer for receiving.
    receives: usize,
    /// Those that are offered.
    offered: usize,
    /// Room for a small datagram in one piece.
    scratch: Vec<u8>,
    since_chores: u32,
    next_chores: Time,
    /// A datagram was refused with "later".
    refused: bool,
    /// Readable when the provider, the socket or the alarm is.
    readable: Poll,
    ready: Events,
    alarm: AlarmFd,
    /// Sleeps since something has arrived.
    idle_sleeps: u32,
    counters: Counters,
    #[cfg(test)]
    refuse: std::sync::atomic::AtomicU32,
}

/// What a provider said to a datagram.
enum Attempt {
    Taken,
    /// Not now. If it was already in a buffer, here it is.
    Busy(Option<Buf>),
    /// There is no buffer for it.
    NoBuffer,
    Failed,
}

impl Ofi {
    /// Opens the first endpoint that works of those that fit, and says which and why.
    pub(super) fn open(
        socket: UdpSocket,
        provider: OfiProvider,
        mtu: usize,
        pool: &Pool,
    ) -> Result<(Ofi, String), OpenError> {
        let (fabric, reason) =
            open_fabric(provider, socket.local_addr(), mtu, pool).map_err(OpenError::Ofi)?;
        let ofi = Ofi::new(fabric, socket, provider, mtu, pool).map_err(OpenError::EventLoop)?;
        Ok((ofi, reason))
    }

    fn new(
        fabric: Fabric,
        socket: UdpSocket,
        provider: OfiProvider,
        mtu: usize,
        pool: &Pool,
    ) -> io::Result<Ofi> {
        let readable = Poll::new()?;
        let alarm = AlarmFd::new()?;
        let fds = [Some(socket.as_raw_fd()), Some(alarm.as_raw_fd()), fabric.wait_fd()];
        fds.into_iter().flatten().try_for_each(|fd| watch(&readable, fd))?;
        // Half of what a small pool has is left for sending and for what the caller keeps.
        let receives = RECEIVES.min(pool.available(mtu) / 2).max(1);
        let clock = Clock::new();
        let mut ofi = Ofi {
            fabric,
            socket,
            mtu,
            pool: pool.clone(),
            peers: Peers::default(),
            clock,
            incarnation: random(),
            provider,
            next_reopen: clock.now(),
            arrived: VecDeque::new(),
            failed: 0,
            receives,
            offered: 0,
            scratch: Vec::with_capacity(INJECT_MAX),
            since_chores: 0,
            next_chores: clock.now(),
            refused: false,
            readable,
            ready: Events::with_capacity(fds.len()),
            alarm,
            idle_sleeps: 0,
            counters: Counters::default(),
            #[cfg(test)]
            refuse: 0.into(),
        };
        ofi.refill();
        Ok(ofi)
    }

    /// Offers buffers for receiving. False if none is offered.
    fn refill(&mut self) -> bool {
        while self.offered < self.receives {
            let Ok(buf) = self.pool.alloc(self.mtu) else { break };
            if self.fabric.receive(buf, PREAMBLE_LEN + self.mtu).is_err() {
                break;
            }
            self.offered += 1;
        }
        self.offered > 0
    }

    /// Hands the provider a datagram for the party at `to`, which has a route.
    fn attempt(&mut self, to: SocketAddr, parts: &[IoSlice<'_>], len: usize) -> Attempt {
        let Some(peer) = self.peers.get_mut(to) else {
            return Attempt::Failed;
        };
        if let Some(route) = &peer.route
            && PREAMBLE_LEN + len <= self.fabric.inject_max()
            && peer.injected < INJECTS_PER_PEER
        {
            self.scratch.clear();
            self.scratch.extend_from_slice(&route.preamble);
            parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
            return match self.fabric.inject(route.addr, &self.scratch) {
                Ok(()) => {
                    peer.injected += 1;
                    Attempt::Taken
                }
                Err(libc::EAGAIN) => Attempt::Busy(None),
                Err(error) => self.failed_to(to, error),
            };
        }
        match self.copy(parts, len) {
            Some(buf) => self.attempt_buf(to, buf),
            None => Attempt::NoBuffer,
        }
    }

    /// As [`Ofi::attempt`], for a datagram in a buffer of its own.
    fn attempt_buf(&mut self, to: SocketAddr, mut buf: Buf) -> Attempt {
        let Some(peer) = self.peers.get_mut(to) else {
            return Attempt::Failed;
        };
        let Some(route) = peer.route.as_ref().filter(|_| peer.posted < SENDS_PER_PEER) else {
            return Attempt::Busy(Some(buf));
        };
        buf.prepend(PREAMBLE_LEN).copy_from_slice(&route.preamble);
        match self.fabric.send(route.addr, to, buf) {
            Ok(()) => {
                peer.post(self.clock.now());
                Attempt::Taken
            }
            Err((mut buf, libc::EAGAIN)) => {
                buf.advance(PREAMBLE_LEN);
                Attempt::Busy(Some(buf))
            }
            Err((_, error)) => self.failed_to(to, error),
        }
    }

    fn failed_to(&mut self, to: SocketAddr, error: i32) -> Attempt {
        tracing::debug!(%to, error = self.fabric.library().error_text(error), "libfabric does not send");
        self.counters.send_failed += 1;
        if let Some(peer) = self.peers.get_mut(to) {
            peer.suspect();
        }
        Attempt::Failed
    }

    /// The parts in one buffer, with room for the preamble in front.
    fn copy(&mut self, parts: &[IoSlice<'_>], len: usize) -> Option<Buf> {
        let mut buf = self.pool.alloc(len).ok()?;
        parts.iter().for_each(|part| buf.extend_from_slice(part));
        self.counters.copied += 1;
        Some(buf)
    }

    /// Lets a datagram wait for its party, or gives it up if the party does not answer.
    fn hold(
        &mut self,
        to: SocketAddr,
        buf: Option<Buf>,
        parts: &[IoSlice<'_>],
        len: usize,
    ) -> io::Result<()> {
        let now = self.clock.now();
        match self.peers.may_hold(to, now) {
            Hold::Wait => {
                let Some(buf) = buf.or_else(|| self.copy(parts, len)) else {
                    return self.later();
                };
                self.peers.hold(to, buf, now);
                self.ask(to, now);
            }
            Hold::Busy => return self.later(),
            Hold::Lost => {
                self.counters.unreachable += 1;
                self.ask(to, now);
            }
        }
        self.progress();
        Ok(())
    }

    fn later(&mut self) -> io::Result<()> {
        self.progress();
        self.refused = true;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Sends on what waits for the party.
    fn send_held(&mut self, to: SocketAddr, now: Time) {
        while let Some(buf) = self.peers.next_held(to) {
            match self.attempt_buf(to, buf) {
                Attempt::Taken => {
                    if let Some(peer) = self.peers.get_mut(to) {
                        peer.progress(now);
                    }
                }
                Attempt::Busy(Some(buf)) => {
                    self.peers.hold_again(to, buf);
                    return;
                }
                Attempt::Busy(None) | Attempt::NoBuffer | Attempt::Failed => {}
            }
        }
    }

    /// Lets the provider work, and takes in what it has. True if anything had happened.
    fn progress(&mut self) -> bool {
        let mut events = 0;
        while events < EVENTS {
            let Some(event) = self.fabric.next() else { break };
            events += 1;
            match event {
                Event::Received(buf) => {
                    self.offered -= 1;
                    self.arrived.push_back(buf);
                }
                Event::ReceiveFailed(error) => {
                    self.offered -= 1;
                    self.failed += 1;
                    tracing::debug!(
                        error = self.fabric.library().error_text(error),
                        "libfabric does not receive"
                    );
                }
                Event::Sent(to, result) => self.on_sent(to, result),
                Event::Stray(error) => {
                    self.counters.send_failed += 1;
                    tracing::debug!(
                        error = self.fabric.library().error_text(error),
                        "libfabric did not send"
                    );
                }
            }
        }
        if self.peers.any_held() {
            let now = self.clock.now();
            for to in self.peers.holding() {
                self.send_held(to, now);
            }
        }
        events > 0
    }

    fn on_sent(&mut self, to: SocketAddr, result: Result<(), i32>) {
        let Some(peer) = self.peers.get_mut(to) else { return };
        peer.posted -= 1;
        peer.injected = 0;
        if peer.posted == 0 {
            peer.retired.drain(..).for_each(|addr| self.fabric.remove(addr));
        }
        match result {
            Ok(()) => peer.progress(self.clock.now()),
            Err(error) => {
                self.failed_to(to, error);
            }
        }
    }

    /// Asks the party at `to` where it is, if it is time to.
    fn ask(&mut self, to: SocketAddr, now: Time) {
        let (incarnation, protocol) = (self.incarnation, self.fabric.protocol());
        if let Some(peer) = self.peers.get_mut(to) {
            ask(&self.socket, to, peer.question(now, random), incarnation, protocol);
        }
    }

    /// What is done now and then: questions, answers, deadlines.
    fn chores(&mut self, now: Time) {
        self.next_chores = now + CHORES;
        self.since_chores = 0;
        self.read_controls(now);
        let (incarnation, protocol) = (self.incarnation, self.fabric.protocol());
        let socket = &self.socket;
        self.counters.unreachable += self.peers.chores(now, |to, peer| {
            ask(socket, to, peer.question(now, random), incarnation, protocol);
        });
        if self.peers.stuck() >= STUCK_MAX && now >= self.next_reopen {
            self.next_reopen = now + REOPEN_AFTER;
            self.reopen();
        }
    }

    /// Opens the provider anew. What is under way is lost; the others find us again as if we had been restarted.
    fn reopen(&mut self) {
        let local = self.socket.local_addr();
        let opened = open_fabric(self.provider, local, self.mtu, &self.pool).and_then(|(fabric, _)| {
            let watched = fabric.wait_fd().map_or(Ok(()), |fd| watch(&self.readable, fd));
            watched.map(|()| fabric).map_err(|error| error.to_string())
        });
        match opened {
            Ok(fabric) => {
                if let Some(fd) = self.fabric.wait_fd() {
                    let _ = self.readable.registry().deregister(&mut SourceFd(&fd));
                }
                self.fabric = fabric;
                self.incarnation = random();
                let lost = self.peers.uproot();
                self.counters.send_failed += lost as u64;
                self.offered = 0;
                self.refill();
                tracing::warn!(
                    lost,
                    "libfabric was opened anew: too much was under way to parties that are gone"
                );
            }
            Err(error) => tracing::error!(error, "libfabric cannot be opened anew"),
        }
    }

    /// Reads control datagrams. True if there may be more.
    fn read_controls(&mut self, now: Time) -> bool {
        for _ in 0..CONTROLS {
            // A byte more than is allowed, to notice what is too long.
            let mut bytes = [0; CONTROL_LEN + 1];
            match self.socket.recv(&mut bytes) {
                Ok((len, from)) => match Control::parse(&bytes[..len]) {
                    Some(control) => self.on_control(control, from, now),
                    None => self.counters.control += 1,
                },
                Err(_) => return false,
            }
        }
        true
    }

    fn on_control(&mut self, control: Control, from: SocketAddr, now: Time) {
        match control.body {
            Body::Question => {
                let answer = Control {
                    body: Body::Answer { asker: from, name: self.fabric.name().to_vec() },
                    nonce: control.nonce,
                    incarnation: self.incarnation,
                    protocol: self.fabric.protocol(),
                };
                // If it is lost, it will be asked for again.
                let _ = self.socket.send(from, &[IoSlice::new(&answer.to_bytes())]);
                // A hint only, for anybody may ask in its name.
                if let Some(peer) = self.peers.get_mut(from)
                    && peer.route.as_ref().is_some_and(|r| r.incarnation != control.incarnation)
                {
                    peer.suspect();
                    self.ask(from, now);
                }
            }
            Body::Answer { asker, name } => {
                let answer =
                    self.peers.get_mut(from).map_or(Answer::Unasked, |peer| peer.answer(now, control.nonce));
                if answer == Answer::Repeated {
                    return;
                }
                if answer == Answer::Unasked
                    || control.protocol != self.fabric.protocol()
                    || !self.is_plausible(&name, from)
                {
                    self.counters.control += 1;
                    tracing::debug!(%from, protocol = ?control.protocol, "an answer that is of no use");
                    return;
                }
                self.learn(from, Route::new(abi::FI_ADDR_UNSPEC, control.incarnation, name, asker));
                self.send_held(from, now);
            }
        }
    }

    /// Whether a party may have that address: one of the right form, and on this host if it is of shared memory.
    fn is_plausible(&self, name: &[u8], from: SocketAddr) -> bool {
        let protocol = self.fabric.protocol();
        let well_formed = if protocol.addr_format == abi::FI_ADDR_STR {
            name.split_last().is_some_and(|(&end, text)| end == 0 && text.iter().all(u8::is_ascii_graphic))
        } else {
            name.len() == self.fabric.name().len()
        };
        let local = || std::net::UdpSocket::bind((from.ip(), 0)).is_ok();
        well_formed && (protocol.protocol != abi::FI_PROTO_SHM || local())
    }

    /// Takes note of how the party at `from` is reached.
    fn learn(&mut self, from: SocketAddr, mut route: Route) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        if let Some(old) = &mut peer.route {
            if old.incarnation == route.incarnation && old.name == route.name {
                old.preamble = route.preamble;
                return;
            }
            tracing::debug!(%from, "a party has another life");
        }
        match self.fabric.insert(&route.name) {
            Ok(addr) => route.addr = addr,
            Err(error) => {
                let error = self.fabric.library().error_text(error);
                tracing::warn!(%from, error, "libfabric does not accept the address of a party");
                self.counters.control += 1;
                return;
            }
        }
        if let Some(old) = peer.route.replace(route) {
            if peer.posted == 0 { self.fabric.remove(old.addr) } else { peer.retired.push(old.addr) }
        }
    }
}

/// Opens the first endpoint that works of those that fit, and says which and why.
fn open_fabric(
    provider: OfiProvider,
    bind: SocketAddr,
    mtu: usize,
    pool: &Pool,
) -> Result<(Fabric, String), String> {
    let library = Library::get()?;
    let wanted =
        Wanted { datagram_max: PREAMBLE_LEN + mtu, receives: RECEIVES, sends: SENDS, register: false };
    let mut refused = Vec::new();
    for info in choice::candidates(library, provider, bind)? {
        let described = info::describe(&info);
        let again = (1..OPEN_TRIES).map_while(|_| info.copy()).collect::<Vec<_>>();
        let mut opened = Fabric::open(library, info, wanted, pool);
        for info in again {
            if !matches!(&opened, Err(failure) if failure.error == libc::EBUSY) {
                break;
            }
            opened = Fabric::open(library, info, wanted, pool);
        }
        match opened {
            Ok(fabric) => {
                let why = if provider.name().is_some() { "asked for" } else { "libfabric's first choice" };
                let mut reason = format!("{why}: {described} by libfabric {}", library.version_text());
                if !refused.is_empty() {
                    reason = format!("{reason}, after {}", refused.join(", "));
                }
                return Ok((fabric, reason));
            }
            Err(failure) => {
                let error = library.error_text(failure.error);
                refused.push(format!("{described} failed ({}: {error})", failure.call));
            }
        }
    }
    Err(refused.join("; "))
}

fn watch(readable: &Poll, fd: RawFd) -> io::Result<()> {
    readable.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE)
}

/// Sends the question `nonce` if there is one. If it is lost, it is repeated.
fn ask(socket: &UdpSocket, to: SocketAddr, nonce: Option<u64>, incarnation: u64, protocol: info::Protocol) {
    if let Some(nonce) = nonce {
        let question = Control { body: Body::Question, nonce, incarnation, protocol };
        let _ = socket.send(to, &[IoSlice::new(&question.to_bytes())]);
    }
}

/// A number that others cannot guess: the standard library seeds its hash tables with such.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl Transport for Ofi {
    fn kind(&self) -> TransportKind {
        TransportKind::Ofi
    }

    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn receive_buffer(&self) -> usize {
        self.receives * self.mtu
    }

    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(test)]
        self.refuse_for_test()?;
        let len = parts.iter().map(|part| part.len()).sum();
        if len > self.mtu {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let fabric = &mut self.fabric;
        let Some(peer) = self.peers.entry(to, || self.clock.now(), |addr| fabric.remove(addr)) else {
            self.counters.unreachable += 1;
            return Ok(());
        };
        let attempt = if peer.is_ready() { self.attempt(to, parts, len) } else { Attempt::Busy(None) };
        match attempt {
            // Lost, if it failed: as datagrams may be. The counter tells.
            Attempt::Taken | Attempt::Failed => Ok(()),
            Attempt::Busy(buf) => self.hold(to, buf, parts, len),
            Attempt::NoBuffer => self.later(),
        }
    }

    fn recv(&mut self, _pool: &Pool) -> Recv {
        self.since_chores += 1;
        if self.since_chores >= CHORES_AFTER {
            self.chores(self.clock.now());
        }
        loop {
            if self.failed > 0 {
                self.failed -= 1;
                return Recv::Failed;
            }
            if let Some(mut buf) = self.arrived.pop_front() {
                self.idle_sleeps = 0;
                if self.receives - self.offered >= REFILL {
                    self.refill();
                }
                let Some(from) = parse_preamble(&buf) else {
                    self.counters.preamble += 1;
                    continue;
                };
                buf.advance(PREAMBLE_LEN);
                return Recv::Datagram(from, buf);
            }
            if !self.progress() || self.arrived.is_empty() {
                break;
            }
        }
        self.refused = false;
        let now = self.clock.now();
        if now >= self.next_chores {
            self.chores(now);
        }
        if self.refill() { Recv::Empty } else { Recv::Starved }
    }

    fn readable_fd(&self) -> RawFd {
        self.readable.as_raw_fd()
    }

    fn writable_fd(&self) -> RawFd {
        // Completions are what makes room, and they make this readable.
        self.readable.as_raw_fd()
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        // What has become ready up to now is looked at below; what becomes ready later is reported anew.
        let _ = self.readable.poll(&mut self.ready, Some(Duration::ZERO));
        let now = self.clock.now();
        self.chores(now);
        let more = self.read_controls(now);
        self.progress();
        if more || self.failed > 0 || !self.arrived.is_empty() || !self.fabric.try_wait() {
            return false;
        }
        let tick = self.refused || self.fabric.wait_fd().is_none() || self.peers.is_restless(now);
        let tick = tick.then(|| (TICK * (1 << self.idle_sleeps.min(8))).min(TICK_MAX));
        self.idle_sleeps = self.idle_sleeps.saturating_add(1);
        if let Err(error) = self.alarm.set(tick) {
            tracing::error!(%error, "an alarm cannot be set");
            return false;
        }
        true
    }

    fn count(&self, stats: &mut Stats) {
        stats.copies += self.counters.copied;
        stats.drops.unreachable += self.counters.unreachable;
        stats.drops.send_failed += self.counters.send_failed;
        stats.drops.preamble += self.counters.preamble;
        stats.drops.control += self.counters.control;
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.refuse.store(count, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Ofi {
    fn refuse_for_test(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        match self.refuse.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)) {
            Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Ofi {
    fn drop(&mut self) {
        let until = self.clock.now() + LINGER;
        while (self.peers.posted() > 0 || self.peers.any_held()) && self.clock.now() < until {
            self.progress();
            self.chores(self.clock.now());
        }
    }
}
