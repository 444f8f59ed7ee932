//! How the places for connections and the window are shared out, by the addresses peers are at: whoever has one address
//! may have many names.

use crate::config::Config;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Segments that every peer may send, however many there are: one that is lost and one that shows it.
pub(crate) const SHARE_MIN: usize = 2;
/// Peers that have sent nothing yet get such a part of the window together, and those at one address no more than
/// such a part if there are so many addresses, of fewer an equal one.
const PART: usize = 4;
/// Who has an IPv6 address usually has all that begin with so many of its bits.
const PREFIX_V6: u32 = 64;

/// Where a peer is; `None` for our own address, which is shared by whom we run ourselves, and has no bound.
pub(crate) type Group = Option<IpAddr>;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    places: usize,
    /// Of these, those with a peer that has sent something.
    used: usize,
    /// Those that hold a large buffer, for a message that is not complete.
    large: usize,
}

/// Who has what.
pub(crate) struct Shares {
    window: usize,
    places_max: usize,
    per_address: usize,
    own: Option<IpAddr>,
    at: BTreeMap<Group, Count>,
    all: Count,
    /// Segments for each peer that has sent something, and for each at addresses that have too many of them.
    each: usize,
    bounded: Vec<(Group, usize)>,
}

/// What a new connection finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    Full,
    /// There are places, but not for this address.
    AddressFull,
}

impl Shares {
    pub(crate) fn new(config: &Config) -> Shares {
        let mut shares = Shares {
            window: config.window_of_all,
            places_max: config.connections_max,
            per_address: config.connections_per_address,
            own: config.own_address.map(|own| own.to_canonical()),
            at: BTreeMap::new(),
            all: Count::default(),
            each: 0,
            bounded: Vec::new(),
        };
        shares.share_out();
        shares
    }

    pub(crate) fn group(&self, ip: IpAddr) -> Group {
        let ip = ip.to_canonical();
        (Some(ip) != self.own).then_some(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (u128::BITS - PREFIX_V6))).into()
            }
        })
    }

    /// Whether there is a place for one more at an address.
    pub(crate) fn room(&self, group: Group) -> Room {
        if self.all.places >= self.places_max {
            Room::Full
        } else if group.is_some() && self.places(group) >= self.per_address {
            Room::AddressFull
        } else {
            Room::Free
        }
    }

    /// Connections with peers at an address; none counts at our own.
    pub(crate) fn places(&self, group: Group) -> usize {
        group.and_then(|_| self.at.get(&group)).map_or(0, |count| count.places)
    }

    /// True if there are peers that have sent nothing.
    pub(crate) fn has_unused(&self) -> bool {
        self.all.used < self.all.places
    }

    pub(crate) fn begin(&mut self, group: Group) {
        self.all.places += 1;
        self.at.entry(group).or_default().places += 1;
        self.share_out();
    }

    /// A peer there has sent something for the first time.
    pub(crate) fn begin_use(&mut self, group: Group) {
        self.all.used += 1;
        self.at.get_mut(&group).expect("it has a place").used += 1;
        self.share_out();
    }

    pub(crate) fn end(&mut self, group: Group, used: bool) {
        let count = self.at.get_mut(&group).expect("it has a place");
        for count in [&mut self.all, count] {
            count.places -= 1;
            count.used -= usize::from(used);
        }
        if self.at[&group].places == 0 {
            self.at.remove(&group);
        }
        self.share_out();
    }

    /// Segments that a peer may send.
    pub(crate) fn of(&self, group: Group, used: bool) -> usize {
        let own = match self.bounded.iter().find(|(bounded, _)| *bounded == group) {
            Some((_, bounded)) => *bounded,
            None => self.each,
        };
        if used { own } else { own.min(self.of_unused(self.all.places - self.all.used)) }
    }

    /// The same for one that has no connection yet.
    pub(crate) fn of_newcomer(&self, group: Group) -> usize {
        self.of(group, true).min(self.of_unused(self.all.places - self.all.used + 1))
    }

    /// True if no peer there holds a large buffer.
    #[inline]
    pub(crate) fn is_alone(&self, group: Group) -> bool {
        self.all.large == 0 || group.is_none() || self.at.get(&group).is_none_or(|count| count.large == 0)
    }

    /// A peer there has got a large buffer, or no longer has it.
    pub(crate) fn set_large(&mut self, group: Group, holds: bool) {
        let count = self.at.get_mut(&group).expect("it has a place");
        for count in [&mut self.all, count] {
            count.large = if holds { count.large + 1 } else { count.large - 1 };
        }
    }

    fn of_unused(&self, unused: usize) -> usize {
        (self.window / PART / unused.max(1)).max(SHARE_MIN)
    }

    /// Each gets the same, except at addresses where they would get more than their part together.
    fn share_out(&mut self) {
        let Shares { at, all, bounded, .. } = self;
        let reserved = if all.used < all.places { self.window / PART } else { 0 };
        let window = self.window - reserved;
        bounded.clear();
        let used = at.iter().filter(|(_, count)| count.used > 0);
        let parts = used.clone().take(PART).count().max(1);
        bounded.extend(
            used.filter(|(group, count)| group.is_some() && count.used * parts > all.used)
                .map(|(group, count)| (*group, (window / parts / count.used).max(SHARE_MIN))),
        );
        let within: usize = bounded.iter().map(|(group, _)| at[group].used).sum();
        let left = window - bounded.len() * (window / parts);
        self.each = (left / (all.used - within).max(1)).max(SHARE_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 4096;

    fn shares(own: Option<&str>) -> Shares {
        let own_address = own.map(|own| own.parse().unwrap());
        Shares::new(&Config {
            window_of_all: WINDOW,
            connections_max: 100,
            connections_per_address: 25,
            own_address,
            ..Config::new(1000)
        })
    }

    fn group(shares: &Shares, ip: &str) -> Group {
        shares.group(ip.parse().unwrap())
    }

    fn add(shares: &mut Shares, ip: &str, count: usize, used: bool) -> Group {
        let group = group(shares, ip);
        for _ in 0..count {
            shares.begin(group);
            if used {
                shares.begin_use(group);
            }
        }
        group
    }

    #[test]
    fn an_address_has_its_places_and_our_own_has_all() {
        let mut shares = shares(Some("::ffff:10.0.0.9"));
        let there = add(&mut shares, "10.0.0.1", 25, false);
        assert_eq!(shares.room(there), Room::AddressFull);
        let own = add(&mut shares, "10.0.0.9", 75, false);
        assert_eq!((own, shares.room(own)), (None, Room::Full));
        shares.end(there, false);
        assert_eq!(
            (shares.room(own), shares.room(there), shares.places(there)),
            (Room::Free, Room::Free, 24)
        );
    }

    #[test]
    fn neighbours_of_an_ipv6_network_are_one_address() {
        let shares = shares(None);
        assert_eq!(group(&shares, "2001:db8::1"), group(&shares, "2001:db8::2:3:4"));
        assert_ne!(group(&shares, "2001:db8::1"), group(&shares, "2001:db8:0:1::1"));
    }

    #[test]
    fn peers_share_the_window_alike() {
        let mut shares = shares(None);
        assert_eq!(shares.of_newcomer(group(&shares, "10.0.0.1")), WINDOW / 4);
        let first = add(&mut shares, "10.0.0.1", 1, true);
        assert_eq!(shares.of(first, true), WINDOW);
        let second = add(&mut shares, "10.0.0.2", 3, true);
        assert_eq!(shares.of(first, true), WINDOW / 2, "of two addresses each has a half");
        assert_eq!(shares.of(second, true), WINDOW / 6);
        for n in 3..100 {
            add(&mut shares, &format!("10.0.1.{n}"), 1, true);
        }
        assert_eq!((shares.of(first, true), shares.of(second, true)), (WINDOW / 101, WINDOW / 101));
    }

    #[test]
    fn many_at_one_address_get_a_part_together_and_the_idle_another_one() {
        let mut shares = shares(None);
        let honest: Vec<Group> = (1..=8).map(|n| add(&mut shares, &format!("10.0.0.{n}"), 1, true)).collect();
        let crowd = add(&mut shares, "10.0.1.1", 25, true);
        assert_eq!(shares.of(crowd, true), WINDOW / 4 / 25);
        assert_eq!(shares.of(honest[0], true), WINDOW * 3 / 4 / 8);
        let idle = add(&mut shares, "10.0.2.1", 1000, false);
        assert_eq!(shares.of(idle, false), SHARE_MIN);
        assert_eq!(shares.of(honest[0], true), WINDOW * 3 / 4 * 3 / 4 / 8);
        let promised: usize =
            honest.iter().map(|&h| shares.of(h, true)).sum::<usize>() + 25 * shares.of(crowd, true);
        assert!(promised <= WINDOW * 3 / 4);
        for _ in 0..1000 {
            shares.end(idle, false);
        }
        for _ in 0..25 {
            shares.end(crowd, true);
        }
        assert_eq!(shares.of(honest[0], true), WINDOW / 8);
    }

    #[test]
    fn peers_at_our_own_address_are_no_crowd() {
        let mut shares = shares(Some("10.0.0.9"));
        let own = add(&mut shares, "10.0.0.9", 31, true);
        let other = add(&mut shares, "10.0.0.1", 1, true);
        assert_eq!((shares.of(own, true), shares.of(other, true)), (WINDOW / 32, WINDOW / 32));
    }
}
