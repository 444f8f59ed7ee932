//! Sleeping until there may be something to do.

use super::Endpoint;
use super::network::Ended;
use crate::shm::Shm;
use crate::sys;
use cl_base::Time;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

impl Endpoint {
    /// Sleeps until there may be something to poll, or `limit` has passed. After a refusal for want of room in shared
    /// memory, or of buffers that are lent there, it sleeps for 50 us to 4 ms at most, longer each time that nothing has been sent in
    /// between: nobody tells that there is room again. Whoever still wants it polls and tries again then.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn park(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.flush();
        let direct = self.network.transport.park_directly();
        let ready = match direct {
            Some(_) => {
                self.network.ended == Ended::More
                    || !self.network.transport.prepare_direct_park(&self.pool)
                    || !self.prepare_park_shared()
            }
            None => !self.prepare_park(),
        };
        if ready {
            return Ok(());
        }
        if direct.is_some() && self.tally.live.is_some() {
            self.publish(self.clock.now());
        }
        let now = self.clock.now();
        let room_until = self.shm.as_ref().map_or(Time::MAX, Shm::room_until);
        let deadline = self.deadline().min(room_until);
        let own = (deadline != Time::MAX).then(|| deadline.saturating_since(now));
        let limit =
            [limit, own, self.is_starved().then_some(Duration::from_millis(1))].into_iter().flatten().min();
        let interest =
            sys::Readiness { read: direct.unwrap_or(self.readable_fd()), write: self.writable_fd() };
        sys::wait(interest, self.shared_fd(), self.has_backlog(), limit)
    }

    /// Prepares for a sleep on [`Endpoint::readable_fd`]. False if there is something to poll already.
    pub(crate) fn prepare_park(&mut self) -> bool {
        // With datagrams left unread, nothing would announce them again.
        if self.network.ended == Ended::More || !self.network.transport.prepare_park(&self.pool) {
            return false;
        }
        if !self.prepare_park_shared() {
            return false;
        }
        if self.tally.live.is_some() {
            self.publish(self.clock.now());
        }
        true
    }

    fn prepare_park_shared(&mut self) -> bool {
        let Some(shm) = &mut self.shm else { return true };
        let quiet = shm.prepare_park();
        if !quiet {
            shm.unpark();
        }
        quiet
    }

    /// When the endpoint wants to be polled though nothing arrives.
    pub(crate) fn deadline(&self) -> Time {
        self.network.deadline().min(self.shm.as_ref().map_or(Time::MAX, Shm::deadline))
    }

    /// True if something may be waiting that could not be received for want of a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.network.ended == Ended::Starved
    }

    /// The descriptor that becomes readable when there may be something to poll from the network.
    pub(crate) fn readable_fd(&self) -> RawFd {
        self.network.transport.readable_fd()
    }

    /// The descriptor that becomes writable when the network takes datagrams again.
    pub(crate) fn writable_fd(&self) -> RawFd {
        self.network.transport.writable_fd()
    }

    /// The descriptor that becomes readable when there may be something to poll from shared memory.
    pub(crate) fn shared_fd(&self) -> Option<RawFd> {
        self.shm.as_ref().map(Shm::readable_fd)
    }
}
