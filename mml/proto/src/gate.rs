//! Who may make us compute: a handshake costs its responder three scalar multiplications, some hundred
//! microseconds, and whoever asks for one has at first spent nothing.
//!
//! An `init` gets here only with a MAC under the static key of the pair, so strangers cost one hash. What remains
//! are members that misuse their keys, and recordings of members. Against these:
//! - each principal may ask for so many handshakes in a second, and all together for so many;
//! - when half of either is used up, an `init` must in addition carry a MAC over a cookie: this proves that
//!   its sender receives what is sent to the address it writes from (as in WireGuard, section 5.3 of its paper).
//!   That MAC is under the static key of the pair, so a recording does not become one with a cookie for a stranger who
//!   does receive there. Nothing is stored about who was given a cookie.
//!
//! A party that is not remembered is asked for the cookie before a place is made for it. The replay memory lives in those
//! places: were they given to recordings, more recordings than there are places would each look new again when
//! its turn comes, and the places of those who are about to connect would be lost.

use crate::mac::{Mac, MacKey};
use crate::wire::handshake::InitFrame;
use crate::{Config, Pair};
use cl_base::{PeerId, Principal, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a cookie holds, at least; at most twice as long.
pub(crate) const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// Before what the second MAC of an `init` covers; no frame begins with it, so no other MAC under the same key serves.
const COOKIE_DOMAIN: &[u8] = b"cookie";

/// What may be spent: so much per second, and a second's worth at once (generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    /// Until when all that was spent is paid for.
    paid_at: Time,
}

impl Budget {
    /// Spends one of `per_second`; false if there is none left.
    pub(crate) fn take(&mut self, now: Time, per_second: u32) -> bool {
        let price = Duration::from_secs(1) / per_second;
        let paid_at = self.paid_at.max(now) + price;
        let may = paid_at.saturating_since(now) <= Duration::from_secs(1);
        if may {
            self.paid_at = paid_at;
        }
        may
    }

    fn is_half_spent(&self, now: Time) -> bool {
        self.paid_at.saturating_since(now) >= Duration::from_millis(500)
    }
}

/// What is to be done with an `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Welcome,
    /// It is to come again, with this cookie.
    Cookie(Mac),
    /// Too many.
    Refused,
}

pub(crate) struct Gate {
    /// Cookies are made with a key of their own for each [`COOKIE_LIFE`], derived from this one.
    secret: MacKey,
    handshakes: Budget,
    principals: BTreeMap<Principal, Budget>,
    replies: Budget,
    cookies: Budget,
}

impl Gate {
    pub(crate) fn new(secret: &[u8; 32]) -> Gate {
        Gate {
            secret: MacKey::derive("ghidrah mml 1 cookies", secret),
            handshakes: Budget::default(),
            principals: BTreeMap::new(),
            replies: Budget::default(),
            cookies: Budget::default(),
        }
    }

    /// Whether a handshake with `from` may be computed. `is_signed` tells whether the frame has a MAC under a
    /// cookie.
    pub(crate) fn admit(
        &mut self,
        now: Time,
        config: &Config,
        from: PeerId,
        source: SocketAddr,
        is_signed: impl Fn(&Mac) -> bool,
    ) -> Admission {
        let epoch = now.as_nanos() / COOKIE_LIFE.as_nanos() as u64;
        // Only principals of the roster get here, so there are not more entries than those.
        let own = self.principals.get(&from.principal);
        if self.handshakes.is_half_spent(now) || own.is_some_and(|own| own.is_half_spent(now)) {
            let present = self.cookie(epoch, from, source);
            if !is_signed(&present) && !is_signed(&self.cookie(epoch.wrapping_sub(1), from, source)) {
                return Admission::Cookie(present);
            }
        }
        let own = self.principals.entry(from.principal).or_default();
        if own.take(now, config.handshakes_per_principal) && self.handshakes.take(now, config.handshakes) {
            Admission::Welcome
        } else {
            Admission::Refused
        }
    }

    /// Whether something may be said to somebody who has proved nothing.
    pub(crate) fn may_reply(&mut self, now: Time, config: &Config) -> bool {
        self.replies.take(now, config.replies)
    }

    /// Whether a cookie may be told. They have a budget of their own: whoever spends the other answers does not keep
    /// members from connecting.
    pub(crate) fn may_give_cookie(&mut self, now: Time, config: &Config) -> bool {
        self.cookies.take(now, config.cookies)
    }

    fn cookie(&self, epoch: u64, from: PeerId, source: SocketAddr) -> Mac {
        let ip = match source.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(ip) => ip.octets(),
        };
        self.secret.mac(from, from, &[&epoch.to_le_bytes(), &ip, &source.port().to_le_bytes()])
    }
}

/// The second MAC of an `init`, `text`: only the holders of the pair's key can make it, and only with the cookie.
pub(crate) fn cookie_mac(pair: &Pair, cookie: &Mac, from: PeerId, to: PeerId, text: &[u8]) -> Mac {
    pair.notices.mac(from, to, &[COOKIE_DOMAIN, cookie, text])
}

/// Whether `frame`, from `from` to `to`, carries that MAC.
#[must_use]
pub(crate) fn is_signed(pair: &Pair, cookie: &Mac, from: PeerId, to: PeerId, frame: &InitFrame<'_>) -> bool {
    pair.notices.verify(from, to, &[COOKIE_DOMAIN, cookie, frame.text], frame.cookie_mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const A: PeerId = PeerId::new(1, 0);

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn a_budget_gives_a_seconds_worth_at_once_and_then_its_rate() {
        let (mut budget, start) = (Budget::default(), Time::from_nanos(1 << 40));
        assert_eq!((0..1000).filter(|_| budget.take(start, 100)).count(), 100);
        let later = (1..=3000).filter(|i| budget.take(start + SECOND / 1000 * *i, 100)).count();
        assert!((295..=300).contains(&later), "{later} in three seconds");
        assert!(budget.take(start + 10 * SECOND, 100));
    }

    #[test]
    fn under_load_a_cookie_is_asked_for_and_holds_for_one_party_address_and_time() {
        let config = Config { handshakes: 10, handshakes_per_principal: 4, ..Config::default() };
        let (mut gate, now) = (Gate::new(&[3; 32]), Time::from_nanos(1 << 50));
        let b = |i| PeerId::new(i, 0);
        for i in 0..5 {
            assert_eq!(gate.admit(now, &config, b(i), address(1), |_| false), Admission::Welcome);
        }
        let Admission::Cookie(cookie) = gate.admit(now, &config, A, address(1), |_| false) else {
            panic!("half of the budget is spent")
        };
        let with = |cookie| move |wanted: &Mac| *wanted == cookie;
        let asked = |admission| matches!(admission, Admission::Cookie(_));
        assert!(asked(gate.admit(now, &config, b(2), address(1), with(cookie))), "another party's");
        assert!(asked(gate.admit(now, &config, A, address(2), with(cookie))), "of another address");
        assert_eq!(gate.admit(now, &config, A, address(1), with(cookie)), Admission::Welcome);
        // It holds at least for its life, and not for thrice.
        let mut spend = |now, with| {
            for i in 10..20 {
                gate.admit(now, &config, b(i), address(1), |_| false);
            }
            gate.admit(now, &config, A, address(1), with)
        };
        assert_eq!(spend(now + COOKIE_LIFE, with(cookie)), Admission::Welcome);
        assert!(asked(spend(now + 3 * COOKIE_LIFE, with(cookie))), "too old");
    }

    #[test]
    fn one_principal_cannot_spend_what_is_for_all() {
        let config = Config { handshakes: 100, handshakes_per_principal: 4, ..Config::default() };
        let (mut gate, now) = (Gate::new(&[3; 32]), Time::from_nanos(1 << 50));
        let mut count = |principal| {
            let admit = |i| gate.admit(now, &config, PeerId::new(principal, i), address(1), |_| true);
            (0..50).map(admit).filter(|a| *a == Admission::Welcome).count()
        };
        assert_eq!((count(1), count(2)), (4, 4));
    }
}
