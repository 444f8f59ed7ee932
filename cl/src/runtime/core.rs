use super::mailbox::Mailbox;
use super::park::{NetworkFds, Park, RESERVED};
use super::queue::{Priority, RunQueue};
use super::stats::{LoopStats, Shown, Waiting};
use super::wheel::{Expired, Wheel};
use super::{Policy, RuntimeConfig, Service, TimerId};
use crate::clock::Clock;
use crate::config::OpenError;
use crate::endpoint::Endpoint;
use crate::message::Received;
use cl_base::Time;
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Messages that may wait in the run queue before the rest is left in the socket's buffer.
const MESSAGES_QUEUED_MAX: usize = 1024;
/// Mails from other threads that may wait in the run queue before the rest is left in the mailbox.
const MAILS_QUEUED_MAX: usize = 1024;
/// Messages and mails moved to the run queue between two events, so that a flood of them does not keep
/// an urgent one that has already been received waiting.
const BATCH: usize = 64;
/// How long a busy or spinning thread leaves its descriptors unwatched: looking costs a system call.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);
/// When no buffer is free to receive into and nothing else is pending, buffers are awaited this long. They
/// come back from other threads, which do not tell.
const STARVED_RETRY: Duration = Duration::from_millis(2);

/// A registered descriptor. Never reused within a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(usize);

/// What a registered descriptor has become ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read, or the end of it.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side has closed, or an error waits to be read from the descriptor.
    pub closed: bool,
}

enum Event<M> {
    Message(Received),
    Timer(TimerId, u64),
    Ready(Token, Readiness),
    Mail(M),
    Posted(M),
}

/// One thread's event loop, as its [`Service`] sees it: the endpoint, the timers, the descriptors.
pub struct Core<M> {
    clock: Clock,
    now: Time,
    endpoint: Option<Endpoint>,
    park: Park,
    mailbox: Mailbox<M>,
    wheel: Wheel,
    /// Timers that have expired and wait in the run queue, with the number of their expiry there. Never
    /// iterated, so its order does not matter.
    fired: HashMap<TimerId, u64>,
    expiries: u64,
    expired: Vec<Expired>,
    queue: RunQueue<Event<M>>,
    messages_queued: usize,
    mails_queued: usize,
    classify: fn(&Received) -> Priority,
    /// The priority of the event being handled.
    handling: Priority,
    /// Never iterated, so its order does not matter.
    registered: HashSet<Token>,
    next_token: usize,
    last_look: Time,
    policy: Policy,
    pin: Option<usize>,
    stopping: bool,
    stats: LoopStats,
    /// Where others see them, if they can.
    shown: Option<Shown>,
}

impl<M: Send + 'static> Core<M> {
    pub(super) fn open(mut config: RuntimeConfig) -> Result<Core<M>, OpenError> {
        let mut endpoint = config.open_endpoint()?;
        let shown = endpoint.as_mut().and_then(Endpoint::counters).map(Shown::new);
        let network = endpoint.as_ref().map(|e| NetworkFds {
            readable: e.readable_fd(),
            writable: e.writable_fd(),
            shared: e.shared_fd(),
        });
        let (park, waker) = Park::new(network).map_err(OpenError::EventLoop)?;
        let clock = endpoint.as_ref().map_or_else(Clock::new, Endpoint::clock);
        let now = clock.now();
        Ok(Core {
            clock,
            now,
            endpoint,
            park,
            mailbox: Mailbox::new(config.mailbox_capacity, waker),
            wheel: Wheel::new(now),
            fired: HashMap::new(),
            expiries: 0,
            expired: Vec::new(),
            queue: RunQueue::new(),
            messages_queued: 0,
            mails_queued: 0,
            classify: |_| Priority::Normal,
            handling: Priority::Normal,
            registered: HashSet::new(),
            next_token: 0,
            last_look: Time::ZERO,
            policy: config.policy,
            pin: config.core,
            stopping: false,
            stats: LoopStats::default(),
            shown,
        })
    }

    /// The time, read once for each event.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The endpoint.
    ///
    /// # Panics
    /// If the configuration named none.
    pub fn endpoint(&self) -> &Endpoint {
        self.endpoint.as_ref().expect("this runtime was opened without an endpoint")
    }

    /// The endpoint.
    ///
    /// # Panics
    /// If the configuration named none.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        self.endpoint.as_mut().expect("this runtime was opened without an endpoint")
    }

    /// The address the endpoint is bound to, if there is an endpoint.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().map(Endpoint::local_addr)
    }

    /// Sets the timer `id` to expire at `at` (as soon as possible, if that has passed), with normal
    /// priority. A timer of that name which has not been handled yet is replaced.
    pub fn set_timer(&mut self, at: Time, id: TimerId) {
        self.set_timer_with_priority(at, id, Priority::Normal);
    }

    /// As [`Core::set_timer`], with a priority.
    pub fn set_timer_with_priority(&mut self, at: Time, id: TimerId, priority: Priority) {
        self.fired.remove(&id);
        self.wheel.set(id, at, priority);
    }

    /// Cancels the timer `id`: it will not be handled. False if it is not set.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        let fired = self.fired.remove(&id).is_some();
        self.wheel.cancel(id) || fired
    }

    /// Watches a descriptor, which must be non-blocking. [`Service::on_ready`] is called when it becomes
    /// ready, once for each change (edge-triggered).
    ///
    /// # Errors
    /// If the system refuses: the descriptor cannot be watched (a regular file), or is watched already.
    pub fn register(&mut self, fd: &impl AsRawFd, interest: Interest) -> io::Result<Token> {
        assert!(self.next_token < RESERVED, "tokens are never reused");
        let token = Token(self.next_token);
        let registry = self.park.registry();
        registry.register(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token.0), interest)?;
        self.next_token += 1;
        self.registered.insert(token);
        Ok(token)
    }

    /// Watches for something else; what is ready already is reported again.
    ///
    /// # Errors
    /// If `fd` is not registered.
    pub fn reregister(&mut self, fd: &impl AsRawFd, token: Token, interest: Interest) -> io::Result<()> {
        let registry = self.park.registry();
        registry.reregister(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token.0), interest)
    }

    /// No longer watches a descriptor, to be called before it is closed. Nothing more is reported for
    /// `token`.
    ///
    /// # Errors
    /// If `fd` is not registered.
    pub fn deregister(&mut self, fd: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.registered.remove(&token);
        self.park.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// The way for other threads to reach this service.
    pub fn mailbox(&self) -> Mailbox<M> {
        self.mailbox.clone()
    }

    /// Sends the service itself a mail: for the rest of a long piece of work, after
    /// [`Core::should_yield`].
    pub fn post(&mut self, priority: Priority, mail: M) {
        self.queue.push(priority, Event::Posted(mail));
    }

    /// True if an event of higher priority than the one being handled waits. A long handler calls this
    /// now and then (it polls all sources, so not after every step), and if so stops where it is, posts
    /// the rest and returns (7.1.3).
    pub fn should_yield(&mut self) -> bool {
        self.now = self.clock.now();
        self.gather();
        if self.look_is_due() {
            // An error here will show again in the loop itself, which reports it.
            let _ = self.look();
        }
        self.queue.has_above(self.handling)
    }

    /// Ends the loop after the present event. What is still queued is dropped.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Counters of this loop.
    pub fn stats(&self) -> LoopStats {
        self.stats
    }

    pub(super) fn run<S: Service<Mail = M>>(&mut self, service: &mut S) -> io::Result<()> {
        self.pin();
        self.classify = S::classify;
        self.now = self.clock.now();
        service.start(self);
        let mut idle_since: Option<Time> = None;
        while !self.stopping {
            self.now = self.clock.now();
            self.gather();
            self.stats.turns += 1;
            self.show();
            if self.look_is_due() {
                self.look()?;
            }
            if let Some((priority, event)) = self.queue.pop() {
                idle_since = None;
                self.handle(service, priority, event);
            } else if let Some(since) = idle_since {
                self.idle(since)?;
            } else {
                idle_since = Some(self.now);
                service.on_idle(self);
            }
        }
        Ok(())
    }

    fn pin(&self) {
        let Some(index) = self.pin else { return };
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        match cores.get(index) {
            Some(&core) if core_affinity::set_for_current(core) => {}
            _ => tracing::warn!(index, cores = cores.len(), "the thread could not be pinned to its core"),
        }
    }

    /// Moves what has expired and arrived to the run queue.
    fn gather(&mut self) {
        self.wheel.advance(self.now, &mut self.expired);
        for timer in self.expired.drain(..) {
            self.expiries += 1;
            self.fired.insert(timer.id, self.expiries);
            self.queue.push(timer.priority, Event::Timer(timer.id, self.expiries));
        }
        if let Some(endpoint) = &mut self.endpoint {
            for _ in 0..BATCH.min(MESSAGES_QUEUED_MAX - self.messages_queued) {
                let Some(received) = endpoint.poll() else { break };
                self.messages_queued += 1;
                self.queue.push((self.classify)(&received), Event::Message(received));
            }
        }
        for _ in 0..BATCH.min(MAILS_QUEUED_MAX - self.mails_queued) {
            let Some((priority, mail)) = self.mailbox.receive() else { break };
            self.mails_queued += 1;
            self.queue.push(priority, Event::Mail(mail));
        }
    }

    fn handle<S: Service<Mail = M>>(&mut self, service: &mut S, priority: Priority, event: Event<M>) {
        self.handling = priority;
        let start = self.now;
        match event {
            Event::Message(received) => {
                self.messages_queued -= 1;
                self.stats.messages += 1;
                service.on_message(self, received);
            }
            Event::Timer(id, expiry) => {
                // Otherwise it was cancelled or set again after it had expired.
                if self.fired.get(&id) == Some(&expiry) {
                    self.fired.remove(&id);
                    self.stats.timers += 1;
                    service.on_timer(self, id);
                }
            }
            Event::Ready(token, readiness) => {
                if self.registered.contains(&token) {
                    self.stats.ready += 1;
                    service.on_ready(self, token, readiness);
                }
            }
            Event::Mail(mail) => {
                self.mails_queued -= 1;
                self.stats.mails += 1;
                service.on_mail(self, mail);
            }
            Event::Posted(mail) => {
                self.stats.mails += 1;
                service.on_mail(self, mail);
            }
        }
        self.handling = Priority::Normal;
        let took = self.clock.now().saturating_since(start);
        self.stats.handlers += took;
        self.stats.handler_max = self.stats.handler_max.max(took);
    }

    /// One turn with nothing to do since `since`.
    fn idle(&mut self, since: Time) -> io::Result<()> {
        let park = match self.policy {
            Policy::Spin => false,
            Policy::SpinThenPark(limit) => self.now.saturating_since(since) >= limit,
            Policy::Park => true,
        };
        if !park {
            std::hint::spin_loop();
            return Ok(());
        }
        self.sleep()
    }

    /// Sleeps until there may be something to do.
    fn sleep(&mut self) -> io::Result<()> {
        let mut deadline = self.wheel.next_deadline();
        let mut backlog = false;
        if let Some(endpoint) = &mut self.endpoint {
            if !endpoint.prepare_park() {
                return Ok(());
            }
            deadline = deadline.min(endpoint.deadline());
            if endpoint.is_starved() {
                deadline = deadline.min(self.now + STARVED_RETRY);
            }
            backlog = endpoint.has_backlog();
        }
        self.show();
        if !self.mailbox.fall_asleep() {
            return Ok(());
        }
        self.stats.parks += 1;
        let asleep_at = self.clock.now();
        let limit = (deadline != Time::MAX).then(|| deadline.saturating_since(asleep_at));
        let Core { park, queue, .. } = self;
        let slept = park.sleep(limit, backlog, |event| push_ready(queue, event));
        self.mailbox.wake_up();
        self.last_look = self.clock.now();
        self.stats.parked += self.last_look.saturating_since(asleep_at);
        slept
    }

    /// Shows others what this loop does, whenever the endpoint has shown what it does.
    fn show(&mut self) {
        let (Some(shown), Some(endpoint)) = (&mut self.shown, &mut self.endpoint) else { return };
        if let Some(live) = endpoint.counters_written_after(&mut shown.after) {
            let waiting = Waiting { mails: self.mailbox.len(), events: self.queue.len() };
            shown.show(live, &self.stats, waiting);
        }
    }

    fn look_is_due(&self) -> bool {
        !self.registered.is_empty() && self.now.saturating_since(self.last_look) >= LOOK_INTERVAL
    }

    fn look(&mut self) -> io::Result<()> {
        self.last_look = self.now;
        let Core { park, queue, .. } = self;
        park.look(|event| push_ready(queue, event))
    }
}

fn push_ready<M>(queue: &mut RunQueue<Event<M>>, event: &mio::event::Event) {
    let readiness = Readiness {
        readable: event.is_readable(),
        writable: event.is_writable(),
        closed: event.is_read_closed() || event.is_write_closed() || event.is_error(),
    };
    // High: signals and children's ends come this way, and the kernel has merged what it could.
    queue.push(Priority::High, Event::Ready(Token(event.token().0), readiness));
}

impl<M> std::fmt::Debug for Core<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("now", &self.now)
            .field("endpoint", &self.endpoint)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
