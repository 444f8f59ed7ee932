//! What those may make us do who have proved nothing: anybody can send a frame in anybody's name.
//!
//! A call is answered without a memory of it, by one frame that is no longer, with a token: a keyed hash of who has
//! called, from where, and of what was promised. Whoever confirms with the token receives what is sent to that address
//! (as with the Retry of QUIC, RFC 9000, section 8.1; TCP's SYN cookies promise the same with 24 bits, RFC 4987).
//! Only that makes a connection, or puts in question whether the peer lives with which there is one (`connection/doubt.rs`).

use crate::config::WINDOW_MAX;
use cl_base::{PeerId, Time};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a token holds, at least; at most twice as long. More than anybody calls in vain
/// ([`Config::dead_after`](crate::Config::dead_after), 10 s by default).
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(30);
/// Frames per second sent to one address whose owner has proved nothing, and as many at once. Enough for restarts
/// of all parties behind an address; what is reflected to a third party is 0.5 MB/s at the most.
const ANSWERS_PER_SECOND: u32 = 10_000;
/// Addresses share so many allowances, by their hashes. Who wants to keep all others from being answered has to use
/// up every one, with ten million frames per second.
const ALLOWANCES: usize = 1024;

/// What a token is about: a call, and what its answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) peer: PeerId,
    /// Where the call came from.
    pub(crate) addr: SocketAddr,
    /// The caller's number for the connection.
    pub(crate) caller: u64,
    /// The number promised for our end.
    pub(crate) callee: u64,
    /// What else was promised.
    pub(crate) promise: Promise,
}

/// What is to be known again when a call is confirmed; the caller repeats it: how many segments it was granted (13 bits),
/// and when (19 bits, in units of [`TICK`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise(pub(crate) u32);

/// Fine enough for a first measurement of the round-trip time, whose like are 4 s at the most.
const TICK: Duration = Duration::from_micros(8);
const TICK_BITS: u32 = 19;
const _: () = assert!(WINDOW_MAX < 1 << (u32::BITS - TICK_BITS));

impl Promise {
    pub(crate) fn new(now: Time, grant: u32) -> Promise {
        Promise(grant.min(WINDOW_MAX as u32) << TICK_BITS | ticks(now))
    }

    /// Segments that the caller may send at once.
    pub(crate) fn grant(self) -> u32 {
        self.0 >> TICK_BITS
    }

    /// How long ago it was made, or up to a tick more, if that is not longer than those bits can say.
    pub(crate) fn age(self, now: Time) -> Duration {
        TICK * (ticks(now).wrapping_sub(self.0) & TICKS)
    }
}

const TICKS: u32 = (1 << TICK_BITS) - 1;

fn ticks(now: Time) -> u32 {
    (now.as_nanos() / TICK.as_nanos() as u64) as u32 & TICKS
}

/// Tokens, numbers that nobody can guess, and allowances for answers.
pub(crate) struct Gate {
    /// Of this life only.
    secret: [u8; 32],
    /// Until when what was said to the addresses of this place is paid for (generic cell rate algorithm).
    paid_at: Box<[Time; ALLOWANCES]>,
}

impl Gate {
    pub(crate) fn new(secret: &[u8; 32]) -> Gate {
        Gate {
            secret: blake3::derive_key("ghidrah rcl 5 strangers", secret),
            paid_at: Box::new([Time::ZERO; ALLOWANCES]),
        }
    }

    /// What the caller has to say to be believed. Never 0.
    pub(crate) fn token(&self, now: Time, call: &Call) -> u64 {
        self.token_of(epoch(now), call)
    }

    /// True if it is the token of this call, and has not expired.
    pub(crate) fn proves(&self, now: Time, call: &Call, token: u64) -> bool {
        let epoch = epoch(now);
        token == self.token_of(epoch, call) || token == self.token_of(epoch.wrapping_sub(1), call)
    }

    fn token_of(&self, epoch: u64, call: &Call) -> u64 {
        let &Call { peer, addr, caller, callee, promise } = call;
        let (ip, port) = octets(addr);
        let words = [epoch, peer.to_u64(), caller, callee, u64::from(promise.0), u64::from(port)];
        self.hash(Purpose::Token, &words, &ip)
    }

    /// The number of our end of the connection with `peer` that follows the one numbered `former`, or, if that is not
    /// known, the first one since we have forgotten peers for the `forgotten`th time. Nobody can guess it. Never 0.
    pub(crate) fn number(&self, peer: PeerId, former: Option<u64>, forgotten: u64) -> u64 {
        let (known, basis) = former.map_or((0, forgotten), |number| (1, number));
        self.hash(Purpose::Number, &[peer.to_u64(), known, basis], &[])
    }

    /// True if something may be said to `addr`, whose owner has proved nothing; then it counts as said.
    pub(crate) fn may_answer(&mut self, now: Time, addr: SocketAddr) -> bool {
        let (ip, port) = octets(addr);
        let place = self.hash(Purpose::Allowance, &[u64::from(port)], &ip) % ALLOWANCES as u64;
        let paid_at = &mut self.paid_at[place as usize];
        let paid = (*paid_at).max(now) + Duration::from_secs(1) / ANSWERS_PER_SECOND;
        let may = paid.saturating_since(now) <= Duration::from_secs(1);
        if may {
            *paid_at = paid;
        }
        may
    }

    fn hash(&self, purpose: Purpose, words: &[u64], bytes: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&[purpose as u8]);
        for word in words {
            hasher.update(&word.to_le_bytes());
        }
        let hash = hasher.update(bytes).finalize();
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes")).max(1)
    }
}

/// So that no hash is good for two things.
#[derive(Clone, Copy)]
enum Purpose {
    Token,
    Number,
    Allowance,
}

fn epoch(now: Time) -> u64 {
    now.as_nanos() / TOKEN_LIFE.as_nanos() as u64
}

fn octets(addr: SocketAddr) -> ([u8; 16], u16) {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    (ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call {
        peer: PeerId::new(1, 0),
        addr: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 7),
        caller: 17,
        callee: 18,
        promise: Promise(16),
    };

    #[test]
    fn a_token_holds_for_one_call_from_one_address_to_one_life_for_its_time() {
        let (gate, now) = (Gate::new(&[3; 32]), Time::ZERO + 100 * TOKEN_LIFE + Duration::from_secs(7));
        let token = gate.token(now, &CALL);
        assert!(gate.proves(now, &CALL, token));
        assert!(gate.proves(now + TOKEN_LIFE, &CALL, token), "at least so long");
        assert!(!gate.proves(now + 2 * TOKEN_LIFE, &CALL, token), "and no longer");
        assert!(!gate.proves(now, &CALL, token ^ 1) && !gate.proves(now, &CALL, 0));
        assert!(!Gate::new(&[4; 32]).proves(now, &CALL, token), "of another life");
        let others = [
            Call { peer: PeerId::new(1, 1), ..CALL },
            Call { addr: SocketAddr::new(CALL.addr.ip(), 8), ..CALL },
            Call { addr: SocketAddr::from(([10, 0, 0, 2], 7)), ..CALL },
            Call { caller: 18, ..CALL },
            Call { callee: 17, ..CALL },
            Call { promise: Promise(17), ..CALL },
        ];
        for other in others {
            assert!(!gate.proves(now, &other, token), "{other:?}");
        }
    }

    #[test]
    fn a_promise_is_known_again() {
        let now = Time::from_nanos(1 << 60);
        for (grant, later) in [(0, 0), (2, 7), (4096, 20), (4096, 4_000_000)] {
            let (promise, later) = (Promise::new(now, grant), Duration::from_micros(later));
            let age = promise.age(now + later);
            assert_eq!(promise.grant(), grant);
            assert!(age + TICK >= later && age <= later + TICK, "{age:?} for {later:?}");
        }
    }

    #[test]
    fn numbers_follow_from_the_former_one_and_from_what_was_forgotten() {
        let gate = Gate::new(&[3; 32]);
        let number = |peer, former, forgotten| gate.number(PeerId::new(peer, 0), former, forgotten);
        assert_eq!(number(1, None, 4), number(1, None, 4), "the same as long as nothing has become of it");
        assert_eq!(number(1, Some(9), 4), number(1, Some(9), 5), "what is remembered is not forgotten");
        let all = [number(1, None, 4), number(1, None, 5), number(2, None, 4), number(1, Some(4), 4)];
        assert!((1..4).all(|i| !all[..i].contains(&all[i])), "{all:?}");
    }

    #[test]
    fn an_address_is_answered_up_to_its_rate_and_others_all_the_same() {
        let (mut gate, start) = (Gate::new(&[3; 32]), Time::from_nanos(1 << 40));
        let rate = ANSWERS_PER_SECOND as usize;
        let mut count = |now, n| (0..n).filter(|_| gate.may_answer(now, CALL.addr)).count();
        assert_eq!(count(start, 3 * rate), rate, "a second's worth at once");
        let later = count(start + Duration::from_millis(100), rate);
        assert!((rate / 10 - 1..=rate / 10 + 1).contains(&later), "{later} after a tenth of a second");
        let answered =
            (1000..2000).filter(|&port| gate.may_answer(start, ([10, 0, 0, 1], port).into())).count();
        assert!(answered >= 990, "{answered} of a thousand others");
    }
}
