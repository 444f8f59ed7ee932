//! What is known of the other parties: where libfabric reaches them, and what waits for it. No I/O: the time goes
//! in.

use super::abi::FiAddr;
use super::control::{PREAMBLE_LEN, preamble};
use crate::pool::Buf;
use cl_base::Time;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Parties remembered: some addresses each for a large cluster. The one unused longest gives way.
const PEERS_MAX: usize = 8192;
/// Datagrams that wait for a party's answer or for room: a message of 4 MiB, or the handshake of all layers.
const HELD_PER_PEER: usize = 64;
/// Datagrams that wait altogether: as many as the default pool has buffers for the largest, less those for
/// receiving and those being sent.
const HELD_MAX: usize = 256;
/// Until a question is repeated for the first time; each time it takes twice as long.
const ASK_FIRST: Duration = Duration::from_millis(5);
/// The longest until a question is repeated. A party in use is asked as often, to notice that it has another
/// address since it was restarted.
const ASK_MAX: Duration = Duration::from_secs(1);
/// What waits longer than this without one datagram leaving is lost: the party is gone, or might as well be.
const HOLD: Duration = Duration::from_millis(500);
/// A party that has taken a datagram within this time is only busy.
const BUSY: Duration = Duration::from_millis(20);

/// How a party is reached.
pub(super) struct Route {
    pub addr: FiAddr,
    pub incarnation: u64,
    /// The party's address in libfabric's terms.
    pub name: Vec<u8>,
    /// What to put in front of each datagram to it.
    pub preamble: [u8; PREAMBLE_LEN],
}

impl Route {
    pub(super) fn new(addr: FiAddr, incarnation: u64, name: Vec<u8>, called: SocketAddr) -> Route {
        Route { addr, incarnation, name, preamble: preamble(called) }
    }
}

/// Another party.
pub(super) struct Peer {
    pub route: Option<Route>,
    /// Datagrams given to the provider that have not completed.
    pub posted: usize,
    /// Datagrams injected, of which the provider does not report, since one that it reported.
    pub injected: usize,
    /// Addresses of former lives, to be forgotten once nothing is posted.
    pub retired: Vec<FiAddr>,
    waiting: VecDeque<Buf>,
    /// When a datagram left for it last, or the first began to wait.
    progressed: Time,
    /// It has let datagrams wait too long. Others are lost at once until it answers a question.
    silent: bool,
    /// Something was to be sent since the last question.
    used: bool,
    /// The last question.
    nonce: u64,
    asked: Option<Time>,
    /// The last question has been answered.
    answered: bool,
    /// From the last question to the next.
    interval: Duration,
}

impl Peer {
    fn new(now: Time) -> Peer {
        Peer {
            route: None,
            posted: 0,
            injected: 0,
            retired: Vec::new(),
            waiting: VecDeque::new(),
            progressed: now,
            silent: false,
            used: false,
            nonce: 0,
            asked: None,
            answered: false,
            interval: ASK_FIRST,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if a datagram may be handed to the provider now.
    pub(super) fn is_ready(&self) -> bool {
        self.route.is_some() && !self.is_waiting() && !self.silent
    }

    /// A datagram has been handed to the provider, which will report of it.
    pub(super) fn post(&mut self, now: Time) {
        if self.posted == 0 {
            self.progressed = now;
        }
        self.posted += 1;
    }

    /// A datagram has left for it.
    pub(super) fn progress(&mut self, now: Time) {
        self.progressed = now;
        self.silent = false;
    }

    /// A datagram to it has failed: perhaps it is not where it was.
    pub(super) fn suspect(&mut self) {
        if self.answered {
            self.interval = ASK_FIRST;
        }
        self.used = true;
    }

    /// The question to ask now, if it is time for one.
    pub(super) fn question(&mut self, now: Time, nonce: impl FnOnce() -> u64) -> Option<u64> {
        let due = self.asked.is_none_or(|asked| now.saturating_since(asked) >= self.interval);
        if !due || !(self.used || self.is_waiting()) {
            return None;
        }
        if self.asked.is_some() {
            self.interval = (self.interval * 2).min(ASK_MAX);
        }
        // A question repeated is the same question: a late answer to it is as good.
        if self.answered || self.asked.is_none() {
            self.nonce = nonce();
        }
        self.asked = Some(now);
        self.answered = false;
        self.used = false;
        Some(self.nonce)
    }

    /// Takes note of an answer.
    pub(super) fn answer(&mut self, now: Time, nonce: u64) -> Answer {
        if self.asked.is_none() || nonce != self.nonce {
            return Answer::Unasked;
        }
        if self.answered {
            return Answer::Repeated;
        }
        self.answered = true;
        self.interval = ASK_MAX;
        self.progress(now);
        Answer::Fresh
    }

    /// True while a question is open, so that answers should be looked for.
    fn is_asking(&self, now: Time) -> bool {
        !self.answered && self.asked.is_some_and(|asked| now.saturating_since(asked) < ASK_MAX)
    }
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The first to the last question.
    Fresh,
    /// Another to a question that was asked several times.
    Repeated,
    /// To no question of ours.
    Unasked,
}

/// What becomes of a datagram that cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It may wait.
    Wait,
    /// The sender should try again.
    Busy,
    /// It is lost: the party does not answer.
    Lost,
}

/// All other parties.
#[derive(Default)]
pub(super) struct Peers {
    /// Iterated for chores only, whose order does not matter.
    peers: HashMap<SocketAddr, Peer>,
    /// Datagrams that wait.
    held: usize,
}

impl Peers {
    pub(super) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut Peer> {
        self.peers.get_mut(&addr)
    }

    /// The party at `addr`, perhaps made. `forget` is handed the routes of one that gives way. `None` if there is
    /// no room: all are busy.
    pub(super) fn entry(
        &mut self,
        addr: SocketAddr,
        now: impl FnOnce() -> Time,
        forget: impl FnMut(FiAddr),
    ) -> Option<&mut Peer> {
        if !self.peers.contains_key(&addr) {
            if self.peers.len() >= PEERS_MAX && !self.evict(forget) {
                return None;
            }
            self.peers.insert(addr, Peer::new(now()));
        }
        let peer = self.peers.get_mut(&addr)?;
        peer.used = true;
        Some(peer)
    }

    fn evict(&mut self, mut forget: impl FnMut(FiAddr)) -> bool {
        let idle = self.peers.iter().filter(|(_, p)| p.posted == 0 && !p.is_waiting());
        let Some((&addr, _)) = idle.min_by_key(|(_, p)| p.asked.map_or(0, Time::as_nanos)) else {
            return false;
        };
        if let Some(peer) = self.peers.remove(&addr) {
            peer.retired.iter().copied().chain(peer.route.map(|r| r.addr)).for_each(&mut forget);
        }
        true
    }

    /// What is to become of one more datagram to `addr` that cannot be sent now.
    pub(super) fn may_hold(&mut self, addr: SocketAddr, now: Time) -> Hold {
        let Some(peer) = self.peers.get(&addr) else {
            return Hold::Lost;
        };
        if peer.silent {
            Hold::Lost
        } else if peer.waiting.len() < HELD_PER_PEER && self.held < HELD_MAX {
            Hold::Wait
        } else if peer.route.is_some() && now.saturating_since(peer.progressed) < BUSY {
            Hold::Busy
        } else {
            Hold::Lost
        }
    }

    /// Lets a datagram wait, as [`Peers::may_hold`] has allowed.
    pub(super) fn hold(&mut self, addr: SocketAddr, buf: Buf, now: Time) {
        let peer = self.peers.get_mut(&addr).expect("may_hold has seen it");
        if !peer.is_waiting() {
            peer.progressed = now;
        }
        peer.waiting.push_back(buf);
        self.held += 1;
    }

    /// The datagram that waits first for `addr`.
    pub(super) fn next_held(&mut self, addr: SocketAddr) -> Option<Buf> {
        let buf = self.peers.get_mut(&addr)?.waiting.pop_front()?;
        self.held -= 1;
        Some(buf)
    }

    /// Puts back what [`Peers::next_held`] gave.
    pub(super) fn hold_again(&mut self, addr: SocketAddr, buf: Buf) {
        if let Some(peer) = self.peers.get_mut(&addr) {
            peer.waiting.push_front(buf);
            self.held += 1;
        }
    }

    /// True if datagrams wait.
    pub(super) fn any_held(&self) -> bool {
        self.held > 0
    }

    /// The parties for which datagrams wait, and that can be reached.
    pub(super) fn holding(&self) -> Vec<SocketAddr> {
        self.peers.iter().filter(|(_, p)| p.is_waiting() && p.route.is_some()).map(|(a, _)| *a).collect()
    }

    /// Gives up what has waited too long, and has `ask` ask the questions that are due. Returns how many datagrams
    /// are lost.
    pub(super) fn chores(&mut self, now: Time, mut ask: impl FnMut(SocketAddr, &mut Peer)) -> u64 {
        let mut lost = 0;
        for (addr, peer) in &mut self.peers {
            if peer.is_waiting() && now.saturating_since(peer.progressed) >= HOLD {
                lost += peer.waiting.len();
                peer.waiting.clear();
                peer.silent = true;
            }
            let stalled = peer.is_waiting() || peer.posted > 0;
            if stalled && !peer.silent && now.saturating_since(peer.progressed) >= BUSY {
                peer.suspect();
            }
            ask(*addr, peer);
        }
        self.held -= lost;
        lost as u64
    }

    /// True if something is under way that wants attention soon though nothing arrives.
    pub(super) fn is_restless(&self, now: Time) -> bool {
        self.held > 0 || self.peers.values().any(|p| p.posted > 0 || p.used || p.is_asking(now))
    }

    /// Forgets all routes and what was given to the provider, which is no more. Returns how many datagrams that
    /// were.
    pub(super) fn uproot(&mut self) -> usize {
        let lost = self.posted();
        for peer in self.peers.values_mut() {
            peer.route = None;
            peer.retired.clear();
            (peer.posted, peer.injected) = (0, 0);
            peer.asked = None;
            peer.interval = ASK_FIRST;
        }
        lost
    }

    /// Datagrams given to the provider for parties that are silent: perhaps they will never complete.
    pub(super) fn stuck(&self) -> usize {
        self.peers.values().filter(|p| p.silent).map(|p| p.posted).sum()
    }

    /// Datagrams given to the provider that have not completed.
    pub(super) fn posted(&self) -> usize {
        self.peers.values().map(|p| p.posted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Pool, PoolConfig};

    const AT: Time = Time::from_nanos(1 << 40);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn buf() -> Buf {
        Pool::new(&PoolConfig::default()).unwrap().alloc(1).unwrap()
    }

    #[test]
    fn questions_are_asked_ever_more_rarely_and_only_if_somebody_wants_to_send() {
        let mut peers = Peers::default();
        let peer = peers.entry(addr(1), || AT, |_| ()).unwrap();
        let mut asked = Vec::new();
        for ms in 0..4000u64 {
            peer.used = true;
            if peer.question(AT + Duration::from_millis(ms), || ms).is_some() {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 635, 1275, 2275, 3275]);
        let later = AT + Duration::from_secs(9);
        assert_eq!(peer.answer(later, 5), Answer::Unasked, "all of these were one question");
        assert_eq!(peer.answer(later, 0), Answer::Fresh);
        assert_eq!(peer.answer(later, 0), Answer::Repeated);
        peer.used = false;
        assert_eq!(peer.question(later + ASK_MAX, || 1), None, "nobody wants to send");
        peer.suspect();
        assert_eq!(peer.question(later + ASK_MAX, || 1), Some(1), "a new question");
        peer.suspect();
        assert_eq!(peer.question(later + ASK_MAX + ASK_FIRST, || 2), None, "one question at a time");
    }

    #[test]
    fn what_waits_for_a_silent_party_is_lost_after_a_while_and_the_next_at_once() {
        let mut peers = Peers::default();
        for port in 1..=5 {
            peers.entry(addr(port), || AT, |_| ()).unwrap();
            let mut held = 0;
            while peers.may_hold(addr(port), AT) == Hold::Wait {
                peers.hold(addr(port), buf(), AT);
                held += 1;
            }
            assert_eq!(held, if port < 5 { HELD_PER_PEER } else { 0 });
            assert_eq!(peers.may_hold(addr(port), AT), Hold::Lost);
        }
        assert_eq!(peers.chores(AT + HOLD - Duration::from_nanos(1), |_, _| ()), 0);
        assert_eq!(peers.chores(AT + HOLD, |_, _| ()), HELD_MAX as u64);
        assert!(!peers.any_held());
        assert_eq!(peers.may_hold(addr(1), AT + HOLD), Hold::Lost, "it is known to be silent");
        assert_eq!(peers.may_hold(addr(5), AT + HOLD), Hold::Wait, "it is not");
    }

    #[test]
    fn a_party_that_took_something_lately_is_busy() {
        let mut peers = Peers::default();
        let peer = peers.entry(addr(1), || AT, |_| ()).unwrap();
        peer.route = Some(Route::new(0, 1, vec![1], addr(9)));
        while peers.may_hold(addr(1), AT) == Hold::Wait {
            peers.hold(addr(1), buf(), AT);
        }
        assert_eq!(peers.may_hold(addr(1), AT), Hold::Busy);
        assert_eq!(peers.may_hold(addr(1), AT + BUSY), Hold::Lost);
        peers.get_mut(addr(1)).unwrap().progress(AT + BUSY);
        assert_eq!(peers.may_hold(addr(1), AT + BUSY), Hold::Busy);
    }

    #[test]
    fn the_party_asked_longest_ago_gives_way_unless_something_is_under_way() {
        let mut peers = Peers::default();
        for port in 0..PEERS_MAX as u16 {
            let peer = peers.entry(addr(port), || AT, |_| ()).unwrap();
            peer.route = Some(Route::new(port.into(), 1, vec![1], addr(9)));
            peer.question(AT + Duration::from_nanos(port.into()), || 0).unwrap();
        }
        peers.get_mut(addr(0)).unwrap().posted = 1;
        let mut forgotten = Vec::new();
        assert!(peers.entry(addr(60_000), || AT, |a| forgotten.push(a)).is_some());
        assert_eq!(forgotten, [1]);
        assert!(peers.get_mut(addr(1)).is_none() && peers.get_mut(addr(0)).is_some());
    }
}
