use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The signals a daemon waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop in good order.
    Terminate,
    /// SIGINT: stop, from a terminal.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGCHLD: a child has ended (several of them may share one signal).
    Child,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Terminate, Signal::Interrupt, Signal::Hangup, Signal::Child];

    fn number(self) -> libc::c_int {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Hangup => libc::SIGHUP,
            Signal::Child => libc::SIGCHLD,
        }
    }
}

/// Signals as a readable descriptor, for [`Core::register`](super::Core::register).
///
/// The signals are blocked for the calling thread and all threads it starts afterwards, so make this
/// before any other thread. They stay blocked when it is dropped. A child process inherits that unless
/// [`Signals::unblock_in`] is called for its command.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Catches `signals`.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        let numbers: Vec<_> = signals.iter().map(|s| s.number()).collect();
        Ok(Signals(sys::signalfd(&numbers)?))
    }

    /// Has `command` start its process with no signal blocked.
    pub fn unblock_in(command: &mut std::process::Command) -> &mut std::process::Command {
        sys::unblock_signals_in(command)
    }

    /// The next signal that has come, or `None`.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let number = sys::read_signal(&self.0)?;
        Ok(number.and_then(|n| Signal::ALL.into_iter().find(|s| s.number().unsigned_abs() == n)))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
