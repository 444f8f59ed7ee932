//! Where an idle thread sleeps: one `mio::Poll` over everything that may wake it.

use crate::sys::AlarmFd;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Events taken from the kernel at once; more stay there for the next time.
const EVENTS: usize = 256;

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const NETWORK: Token = Token(usize::MAX - 2);
const NETWORK_WRITABLE: Token = Token(usize::MAX - 3);
const SHARED: Token = Token(usize::MAX - 4);
/// Tokens from here on are those above.
pub(super) const RESERVED: usize = usize::MAX - 4;

/// The descriptors of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetworkFds {
    pub(super) readable: RawFd,
    pub(super) writable: RawFd,
    pub(super) shared: Option<RawFd>,
}

#[derive(Debug)]
pub(super) struct Park {
    poll: Poll,
    events: Events,
    alarm: AlarmFd,
    /// The alarm is set and may not have gone off.
    alarm_set: bool,
    network: Option<NetworkFds>,
}

impl Park {
    /// A place to sleep, and the bell to wake the sleeper.
    pub(super) fn new(network: Option<NetworkFds>) -> io::Result<(Park, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let alarm = AlarmFd::new()?;
        poll.registry().register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)?;
        if let Some(NetworkFds { readable, shared, .. }) = network {
            poll.registry().register(&mut SourceFd(&readable), NETWORK, Interest::READABLE)?;
            if let Some(shared) = shared {
                poll.registry().register(&mut SourceFd(&shared), SHARED, Interest::READABLE)?;
            }
        }
        let events = Events::with_capacity(EVENTS);
        Ok((Park { poll, events, alarm, alarm_set: false, network }, waker))
    }

    pub(super) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Sleeps for at most `limit` (for ever, if `None`), and hands what has become ready of the registered
    /// descriptors to `ready`. `want_write`: the network's becoming writable is a reason to wake, too.
    pub(super) fn sleep(
        &mut self,
        limit: Option<Duration>,
        want_write: bool,
        ready: impl FnMut(&mio::event::Event),
    ) -> io::Result<()> {
        if limit.is_some() || self.alarm_set {
            self.alarm.set(limit)?;
            self.alarm_set = limit.is_some();
        }
        let watched = self.network.filter(|_| want_write);
        if let Some(NetworkFds { readable, writable, .. }) = watched {
            if readable == writable {
                let both = Interest::READABLE | Interest::WRITABLE;
                self.registry().reregister(&mut SourceFd(&readable), NETWORK, both)?;
            } else {
                let fd = &mut SourceFd(&writable);
                self.registry().register(fd, NETWORK_WRITABLE, Interest::WRITABLE)?;
            }
        }
        let slept = self.take_events(None, ready);
        if let Some(NetworkFds { readable, writable, .. }) = watched {
            if readable == writable {
                self.registry().reregister(&mut SourceFd(&readable), NETWORK, Interest::READABLE)?;
            } else {
                self.registry().deregister(&mut SourceFd(&writable))?;
            }
        }
        slept
    }

    /// Looks for ready descriptors without sleeping.
    pub(super) fn look(&mut self, ready: impl FnMut(&mio::event::Event)) -> io::Result<()> {
        self.take_events(Some(Duration::ZERO), ready)
    }

    fn take_events(
        &mut self,
        timeout: Option<Duration>,
        ready: impl FnMut(&mio::event::Event),
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal: as good a reason to look around as any.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        // The others have done their work by waking us: everything is polled after a sleep.
        self.events.iter().filter(|e| e.token().0 < RESERVED).for_each(ready);
        Ok(())
    }
}
