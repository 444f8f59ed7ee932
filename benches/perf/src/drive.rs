//! Drivers of roles: spinning, and sleeping on `cl`'s runtime.

use crate::party::Party;
use crate::role::{Role, Step, TICK};
use cl::runtime::{Core, Mailbox, Runtime, RuntimeConfig, Service, TimerId};
use cl::{EndpointConfig, Received};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Messages taken from one party before the next has its turn.
const BATCH: usize = 64;
/// Turns between two looks at the clock, for a tick: reading it costs a tenth of the shortest round trip.
const TURNS_PER_LOOK: u32 = 256;

/// Polls the parties in turn until every role has finished or `stop` is set.
///
/// # Errors
/// The first role's or party's that fails.
pub fn spin<P: Party, R: Role>(players: &mut [(P, R)], stop: &AtomicBool) -> Step {
    for (party, role) in players.iter_mut() {
        role.start(party)?;
    }
    let mut last_tick = Instant::now();
    let mut turns = 0u32;
    loop {
        let mut finished = true;
        for (party, role) in players.iter_mut() {
            for _ in 0..BATCH {
                let Some((from, buf)) = party.poll()? else {
                    role.on_idle(party)?;
                    break;
                };
                role.on_message(party, from, buf)?;
            }
            finished &= role.finished();
        }
        if finished || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_LOOK) && last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            for (party, role) in players.iter_mut() {
                role.on_tick(party)?;
            }
        }
        std::hint::spin_loop();
    }
}

/// A thread that sleeps while nothing arrives: a role on `cl`'s runtime.
pub struct Parked {
    runtime: Runtime<()>,
}

/// Wakes a [`Parked`] thread, to end it.
#[derive(Clone)]
pub struct Bell {
    mailbox: Mailbox<()>,
}

impl Bell {
    /// Ends the run.
    pub fn ring(&self) {
        // A full mailbox holds a bell already.
        let _ = self.mailbox.send(());
    }
}

impl Parked {
    /// Opens the runtime with its endpoint.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub fn open(endpoint: EndpointConfig) -> Result<Parked, cl::OpenError> {
        Ok(Parked { runtime: Runtime::open(RuntimeConfig::new(Some(endpoint)))? })
    }

    /// Its endpoint, before the run.
    pub fn endpoint(&mut self) -> &mut cl::Endpoint {
        self.runtime.core().endpoint_mut()
    }

    /// The address of its endpoint.
    pub fn local_addr(&mut self) -> SocketAddr {
        self.endpoint().local_addr()
    }

    /// What ends it from another thread.
    pub fn bell(&self) -> Bell {
        Bell { mailbox: self.runtime.mailbox() }
    }

    /// Runs `role` until it has finished or the bell rings, and hands it back.
    ///
    /// # Errors
    /// The role's, or the runtime's.
    pub fn run<R: Role>(self, role: R) -> Result<R, String> {
        let sleeper = Sleeper { role, outcome: Ok(()) };
        let sleeper = self.runtime.run(sleeper).map_err(|error| format!("event loop: {error}"))?;
        sleeper.outcome.map(|()| sleeper.role)
    }
}

struct Sleeper<R> {
    role: R,
    outcome: Step,
}

impl<R: Role> Sleeper<R> {
    fn after(&mut self, cx: &mut Core<()>, step: Step) {
        if step.is_err() {
            self.outcome = step;
        }
        if self.outcome.is_err() || self.role.finished() {
            cx.stop();
        }
    }

    fn set_tick(cx: &mut Core<()>) {
        let at = cx.now() + TICK;
        cx.set_timer(at, TimerId(0));
    }
}

impl<R: Role> Service for Sleeper<R> {
    type Mail = ();

    fn start(&mut self, cx: &mut Core<()>) {
        Self::set_tick(cx);
        let step = self.role.start(cx.endpoint_mut());
        self.after(cx, step);
    }

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        let step = self.role.on_message(cx.endpoint_mut(), received.from, received.buf);
        self.after(cx, step);
    }

    fn on_timer(&mut self, cx: &mut Core<()>, _id: TimerId) {
        Self::set_tick(cx);
        let step = self.role.on_tick(cx.endpoint_mut());
        self.after(cx, step);
    }

    fn on_idle(&mut self, cx: &mut Core<()>) {
        let step = self.role.on_idle(cx.endpoint_mut());
        self.after(cx, step);
    }

    fn on_mail(&mut self, cx: &mut Core<()>, (): ()) {
        cx.stop();
    }
}
