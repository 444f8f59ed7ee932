//! The door to shared memory: who knocks there, says in time what it shares, and is let in.
//!
//! Anybody on the host can knock, and need not say anything. So no more is kept of strangers than a few
//! connections for a short time; who is turned away without reason comes back.

use super::handshake::{self, Heard, Offer};
use crate::stats::Drops;
use cl_base::Time;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The time to say what one shares. A peer says it at once; more than a busy machine keeps a process from
/// running.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections of which it is not known yet whose they are. With one more the oldest gives way: peers need
/// microseconds to say who they are, so it is hardly one.
const STRANGERS_MAX: usize = 64;
/// Connections accepted at once, so that those who knock without end do not keep the party from its work.
const ACCEPTS_AT_ONCE: usize = 256;

/// Where others connect that want to share memory.
#[derive(Debug)]
pub(super) struct Door {
    listener: OwnedFd,
    /// Those who have not said who they are, the one that has waited longest in front.
    strangers: VecDeque<Stranger>,
    /// How many of these have not been heard in this round, and how many may still be accepted in it.
    unheard: usize,
    accepts: usize,
    /// The name under which all this is watched.
    name: u64,
    /// Of these the counters of strangers.
    turned_away: Drops,
}

#[derive(Debug)]
struct Stranger {
    link: OwnedFd,
    /// When it must have spoken.
    deadline: Time,
}

/// What a stranger has said.
enum Said {
    Nothing,
    Offer(Box<Offer>),
    /// Or that it leaves. It is turned away.
    Nonsense,
}

impl Door {
    /// The door of the endpoint at `addr`. `watch` tells by that name when somebody knocks or speaks.
    pub(super) fn open(addr: SocketAddr, watch: &OwnedFd, name: u64) -> io::Result<Door> {
        let listener = handshake::listen_at(addr)?;
        epoll::add(watch, &listener, epoll::EventData::new_u64(name), epoll::EventFlags::IN)?;
        let (strangers, turned_away) = (VecDeque::new(), Drops::default());
        Ok(Door { listener, strangers, unheard: 0, accepts: 0, name, turned_away })
    }

    /// To be called before the first of several calls of [`Door::next`].
    pub(super) fn begin_round(&mut self) {
        self.unheard = self.strangers.len();
        self.accepts = ACCEPTS_AT_ONCE;
    }

    /// The next of those who knock that says what it shares; in a round everybody is heard once.
    pub(super) fn next(&mut self, watch: &OwnedFd, now: Time) -> Option<(OwnedFd, Offer)> {
        while self.unheard > 0 {
            self.unheard -= 1;
            let Stranger { link, deadline } = self.strangers.pop_front()?;
            match self.hear(&link) {
                Said::Offer(offer) => {
                    let _ = epoll::delete(watch, &link);
                    return Some((link, *offer));
                }
                Said::Nothing => self.strangers.push_back(Stranger { link, deadline }),
                Said::Nonsense => {}
            }
        }
        while self.accepts > 0 {
            self.accepts -= 1;
            let link = match handshake::accept_from(&self.listener) {
                Ok(Some(link)) => link,
                Ok(None) => return None,
                Err(error) => {
                    let is_its_own = matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionAborted
                    );
                    self.turn_away(&error);
                    if is_its_own {
                        continue;
                    }
                    // No descriptor is left, say: for the others neither.
                    return None;
                }
            };
            // Most say at once who they are.
            match self.hear(&link) {
                Said::Offer(offer) => return Some((link, *offer)),
                Said::Nothing => self.wait_for(link, watch, now),
                Said::Nonsense => {}
            }
        }
        None
    }

    fn hear(&mut self, link: &OwnedFd) -> Said {
        match handshake::hear(link) {
            Ok(Heard::Nothing) => Said::Nothing,
            Ok(Heard::Offer(offer)) => Said::Offer(offer),
            Ok(Heard::Goodbye | Heard::End) => {
                self.turned_away.stranger_left += 1;
                Said::Nonsense
            }
            Err(error) => {
                self.turn_away(&error);
                Said::Nonsense
            }
        }
    }

    fn wait_for(&mut self, link: OwnedFd, watch: &OwnedFd, now: Time) {
        let data = epoll::EventData::new_u64(self.name);
        if let Err(error) = epoll::add(watch, &link, data, epoll::EventFlags::IN) {
            return self.turn_away(&error.into());
        }
        if self.strangers.len() == STRANGERS_MAX {
            self.strangers.pop_front();
            self.turned_away.stranger_crowded += 1;
        }
        self.strangers.push_back(Stranger { link, deadline: now + HANDSHAKE_TIMEOUT });
    }

    /// Counts one that is turned away.
    pub(super) fn turn_away(&mut self, error: &io::Error) {
        tracing::debug!(%error, "a process that wants to share memory is turned away");
        *match error.kind() {
            io::ErrorKind::PermissionDenied => &mut self.turned_away.stranger_user,
            io::ErrorKind::ConnectionAborted => &mut self.turned_away.stranger_left,
            io::ErrorKind::InvalidData => &mut self.turned_away.stranger_offer,
            _ => &mut self.turned_away.stranger_refused,
        } += 1;
    }

    /// Turns those away who have had time enough. To be called now and then.
    pub(super) fn expire(&mut self, now: Time) {
        while self.strangers.pop_front_if(|stranger| stranger.deadline <= now).is_some() {
            self.turned_away.stranger_silent += 1;
        }
    }

    /// When somebody will have had time enough.
    pub(super) fn deadline(&self) -> Time {
        self.strangers.front().map_or(Time::MAX, |stranger| stranger.deadline)
    }

    /// Adds those turned away to the endpoint's counters.
    pub(super) fn count(&self, drops: &mut Drops) {
        drops.stranger_silent += self.turned_away.stranger_silent;
        drops.stranger_crowded += self.turned_away.stranger_crowded;
        drops.stranger_left += self.turned_away.stranger_left;
        drops.stranger_user += self.turned_away.stranger_user;
        drops.stranger_offer += self.turned_away.stranger_offer;
        drops.stranger_refused += self.turned_away.stranger_refused;
    }
}
