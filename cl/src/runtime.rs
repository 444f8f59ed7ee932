//! The event loop of dissertation 7.1.3, one thread per core.
//!
//! Figure 7.3: expired timers and received messages go into a queue ordered by priority, the event of
//! the highest priority is handled, and then I/O is polled again. With nothing pending the thread spins
//! or sleeps, as its [`Policy`] says; asleep it uses no processor time until a message, a timer, a
//! descriptor or a mail wakes it. Handlers run to completion; a long one of low priority asks
//! [`Core::should_yield`] now and then, and [posts](Core::post) the rest of its work to itself.
//!
//! Nothing is shared between the loops of two cores. They send each other mail ([`Mailbox`]).
//!
//! What a loop does ([`LoopStats`]), and how much waits for it, is among its endpoint's [counters](crate::counters):
//! `ghidrah stat` shows it by thread.

mod core;
mod doze;
mod mailbox;
mod park;
mod queue;
mod signals;
mod stats;
mod wheel;

pub use self::core::{Core, Readiness, Token};
pub use self::mailbox::{Mailbox, MailboxFull};
pub use self::queue::Priority;
pub use self::signals::{Signal, Signals};
pub use self::stats::LoopStats;
pub use mio::Interest;

use crate::config::{EndpointConfig, OpenError};
use crate::endpoint::Endpoint;
use crate::message::Received;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How often an address that is in use is tried again.
const ADDRESS_POLL: Duration = Duration::from_millis(20);

/// A caller-chosen name of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// What a thread does: the handlers of its events. All of them run on that thread, one at a time.
pub trait Service: Sized {
    /// What other threads (and the service itself) may send it.
    type Mail: Send + 'static;

    /// Called once, before any event.
    fn start(&mut self, cx: &mut Core<Self::Mail>) {
        let _ = cx;
    }

    /// How urgent a message is, judged by its first bytes; it is not authenticated yet.
    fn classify(received: &Received) -> Priority {
        let _ = received;
        Priority::Normal
    }

    /// A message has arrived.
    fn on_message(&mut self, cx: &mut Core<Self::Mail>, received: Received);

    /// A timer has expired.
    fn on_timer(&mut self, cx: &mut Core<Self::Mail>, id: TimerId) {
        let _ = (cx, id);
    }

    /// A registered descriptor has become ready. Read or write it until it would block: readiness is
    /// reported once for each change.
    fn on_ready(&mut self, cx: &mut Core<Self::Mail>, token: Token, readiness: Readiness) {
        let _ = (cx, token, readiness);
    }

    /// A mail has come from another thread, or from [`Core::post`].
    fn on_mail(&mut self, cx: &mut Core<Self::Mail>, mail: Self::Mail) {
        let _ = (cx, mail);
    }

    /// Nothing is pending: the place to send what was held back to be sent together. Called once after
    /// each burst of events, before the thread spins or sleeps.
    fn on_idle(&mut self, cx: &mut Core<Self::Mail>) {
        let _ = cx;
    }
}

/// What a thread does when nothing is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Polls on, using the whole processor: the shortest latency.
    Spin,
    /// Polls on for so long after the last event, then sleeps.
    SpinThenPark(Duration),
    /// Sleeps at once.
    Park,
}

/// How to run a [`Service`].
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The endpoint, if the service has one.
    pub endpoint: Option<EndpointConfig>,
    /// The processor to stay on (an index into those the system lets this process use), if any.
    pub core: Option<usize>,
    /// What to do when nothing is pending.
    pub policy: Policy,
    /// Mails that may wait in the mailbox before senders are turned away.
    pub mailbox_capacity: usize,
    /// How long an address that is in use is waited for: the kernel takes a dead process's rings, and the sockets they
    /// hold, apart some time after the process has ended.
    pub address_wait: Duration,
}

impl RuntimeConfig {
    /// The defaults: not pinned, sleeping when idle, 4096 mails, waiting for no address.
    pub fn new(endpoint: Option<EndpointConfig>) -> RuntimeConfig {
        RuntimeConfig {
            endpoint,
            core: None,
            policy: Policy::Park,
            mailbox_capacity: 4096,
            address_wait: Duration::ZERO,
        }
    }

    /// Opens the endpoint, if there is one.
    fn open_endpoint(&mut self) -> Result<Option<Endpoint>, OpenError> {
        let Some(endpoint) = self.endpoint.take() else { return Ok(None) };
        let begun = Instant::now();
        loop {
            match Endpoint::open(endpoint.clone()) {
                Err(error) if error.is_address_in_use() && begun.elapsed() < self.address_wait => {
                    thread::sleep(ADDRESS_POLL);
                }
                opened => return opened.map(Some),
            }
        }
    }
}

/// A [`Core`] that has not started to run yet, on the thread that will run it.
#[derive(Debug)]
pub struct Runtime<M: Send + 'static> {
    core: Core<M>,
}

impl<M: Send + 'static> Runtime<M> {
    /// Opens the endpoint and the descriptors of the event loop.
    ///
    /// # Errors
    /// [`OpenError`] says what could not be opened.
    pub fn open(config: RuntimeConfig) -> Result<Runtime<M>, OpenError> {
        Ok(Runtime { core: Core::open(config)? })
    }

    /// The core, to look at or prepare before the service starts.
    pub fn core(&mut self) -> &mut Core<M> {
        &mut self.core
    }

    /// The way for other threads to reach the service.
    pub fn mailbox(&self) -> Mailbox<M> {
        self.core.mailbox()
    }

    /// Runs `service` on this thread until it calls [`Core::stop`], and hands it back.
    ///
    /// # Errors
    /// If waiting for events fails, which it does not while the descriptors are sound.
    pub fn run<S: Service<Mail = M>>(mut self, mut service: S) -> io::Result<S> {
        self.core.run(&mut service)?;
        Ok(service)
    }
}

/// A service running on a thread of its own.
#[derive(Debug)]
pub struct Running<S: Service> {
    mailbox: Mailbox<S::Mail>,
    local_addr: Option<SocketAddr>,
    thread: thread::JoinHandle<io::Result<S>>,
}

impl<S: Service> Running<S> {
    /// The way to reach the service.
    pub fn mailbox(&self) -> &Mailbox<S::Mail> {
        &self.mailbox
    }

    /// The address its endpoint is bound to, if it has one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Whether the service has stopped, so that nobody reads its mail any more.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the service has stopped, and hands it back.
    ///
    /// # Errors
    /// As [`Runtime::run`].
    ///
    /// # Panics
    /// If the service panicked: its panic goes on here.
    pub fn join(self) -> io::Result<S> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Runs a service on this thread until it calls [`Core::stop`], and hands it back.
///
/// # Errors
/// [`OpenError`] if what it needs cannot be opened, or waiting fails.
pub fn run<S: Service>(service: S, config: RuntimeConfig) -> Result<S, OpenError> {
    Runtime::open(config)?.run(service).map_err(OpenError::EventLoop)
}

/// Starts a thread called `name` that opens a runtime, makes a service with it and runs that. Returns as
/// soon as the runtime is open.
///
/// # Errors
/// [`OpenError`] if the thread or what it needs cannot be opened.
pub fn spawn<S, F>(name: &str, config: RuntimeConfig, make: F) -> Result<Running<S>, OpenError>
where
    S: Service + Send + 'static,
    F: FnOnce(&mut Core<S::Mail>) -> S + Send + 'static,
{
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut runtime = match Runtime::open(config) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // If nobody listens any more, nobody wants the error either.
                    let _ = tell.send(Err(error));
                    return Err(io::Error::other("the runtime could not be opened"));
                }
            };
            let _ = tell.send(Ok((runtime.mailbox(), runtime.core().local_addr())));
            let service = make(runtime.core());
            runtime.run(service)
        })
        .map_err(OpenError::EventLoop)?;
    match told.recv() {
        Ok(Ok((mailbox, local_addr))) => Ok(Running { mailbox, local_addr, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(OpenError::EventLoop(io::Error::other("the thread ended while it was opening"))),
    }
}
