use super::{Party, Refused, cl_config};
use crate::case::Case;
use cl::{Buf, Clock};
use cl_base::{Incarnation, PeerId, Principal, Time};
use mml::{
    Config, Delivery, Endpoint, Event, Keyring, Member, Roster, SecretKey, SendError, SendStatus, Sequence,
};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Principals that may take part: the receiver and its senders.
const PRINCIPALS: u32 = 66;
/// Frames taken before what they have brought is looked at.
const FRAMES: usize = 64;

/// An end of `mml` whose messages are acknowledged.
pub type Acknowledged = End<true>;
/// An end of `mml` whose messages are not repeated.
pub type Unreliable = End<false>;

/// An endpoint of `mml` with what it stands on.
pub struct End<const ACK: bool> {
    cl: cl::Endpoint,
    mml: Endpoint,
    clock: Clock,
    /// The time when something was last received or nothing was there, which is all the time.
    now: Time,
    /// What has come for [`Party::poll`].
    inbox: VecDeque<(PeerId, Vec<u8>)>,
}

/// The keys of everybody who may take part: known to all, for nothing is secret here.
fn secret(principal: u32) -> SecretKey {
    SecretKey::from_seed([principal as u8; 32])
}

fn roster() -> Result<Roster, String> {
    let member = |number: u32| Member {
        principal: Principal(number),
        name: format!("p{number}"),
        role: "perf".into(),
        key: secret(number).public(),
        address: None,
    };
    Roster::from_members((1..=PRINCIPALS).map(member).collect(), "perf").map_err(|error| error.to_string())
}

/// Whether a message was taken, or there was no room for it.
fn taken(sent: Result<Sequence, SendError>, len: usize) -> Result<bool, String> {
    match sent {
        Ok(_) => Ok(true),
        Err(SendError::Backpressure(_)) => Ok(false),
        Err(error) => Err(format!("message of {len} bytes not sent: {error}")),
    }
}

impl<const ACK: bool> End<ACK> {
    const DELIVERY: Delivery = if ACK { Delivery::Ack } else { Delivery::Unr };

    /// What is due by time; what has happened.
    fn tend(&mut self) -> Result<(), String> {
        if self.mml.next_timeout().is_some_and(|at| at <= self.now) {
            self.mml.handle_timeout(&mut self.cl, self.now);
        }
        while let Some(event) = self.mml.poll_event() {
            match event {
                Event::Down { peer, reason } => {
                    return Err(format!("the session with {peer} has ended: {reason:?}"));
                }
                Event::Failed { seq, reason, .. } => {
                    return Err(format!("message {seq} has failed: {reason:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<const ACK: bool> Party for End<ACK> {
    const RELIABLE: bool = ACK;

    fn open(case: &Case, me: PeerId, bind: IpAddr) -> Result<Self, String> {
        let cl = cl::Endpoint::open(cl_config(case, me, bind)?).map_err(|error| error.to_string())?;
        let roster = roster()?;
        let keyring =
            Keyring::new(me.principal, secret(me.principal.0), &roster).map_err(|e| e.to_string())?;
        let clock = Clock::new();
        let now = clock.now();
        let seed = mml::keys::entropy().map_err(|error| error.to_string())?;
        let life = Incarnation(now.as_nanos());
        let mml = Endpoint::new(Config::default(), me, life, keyring, &roster, seed);
        Ok(End { cl, mml, clock, now, inbox: VecDeque::new() })
    }

    fn addr(&self) -> SocketAddr {
        self.cl.local_addr()
    }

    fn meet(&mut self, peer: PeerId, addr: SocketAddr, calling: bool) {
        self.cl.resolve(peer, addr);
        if calling {
            // It fails for unknown peers only, and then `is_ready` never says yes.
            let _ = self.mml.connect(&mut self.cl, self.now, peer);
        }
    }

    fn is_ready(&self, peer: PeerId) -> bool {
        self.mml.is_up(peer)
    }

    fn below(&self) -> &cl::Endpoint {
        &self.cl
    }

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Buf> {
        self.cl.alloc(len).ok()
    }

    fn send(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        match self.send_copy(to, &buf) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refused::Later(buf)),
            Err(why) => Err(Refused::Never(why)),
        }
    }

    #[inline]
    fn send_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<bool, String> {
        let sent = self.mml.send(&mut self.cl, self.now, to, Self::DELIVERY, 0, contents);
        taken(sent, contents.len())
    }

    fn queue(&mut self, to: PeerId, buf: Buf) -> Result<(), Refused> {
        match self.queue_copy(to, &buf) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refused::Later(buf)),
            Err(why) => Err(Refused::Never(why)),
        }
    }

    #[inline]
    fn queue_copy(&mut self, to: PeerId, contents: &[u8]) -> Result<bool, String> {
        match self.mml.queue(self.now, to, Self::DELIVERY, 0, contents) {
            Ok(sequence) if !ACK && self.mml.status(to, sequence) != SendStatus::Pending => {
                Err(format!("there is no session with {to}"))
            }
            sent => taken(sent, contents.len()),
        }
    }

    #[inline]
    fn drain(&mut self, _max: usize, mut each: impl FnMut(PeerId, &[u8])) -> Result<usize, String> {
        self.now = self.clock.now();
        let mut messages = 0;
        self.mml.receive(&mut self.cl, self.now, FRAMES, |message| {
            messages += 1;
            each(message.from, message.body);
        });
        self.tend()?;
        Ok(messages)
    }

    #[inline]
    fn flush(&mut self) {
        self.mml.flush(&mut self.cl, self.now);
    }

    fn poll(&mut self) -> Result<Option<(PeerId, Buf)>, String> {
        if self.inbox.is_empty() {
            let mut inbox = std::mem::take(&mut self.inbox);
            self.drain(FRAMES, |from, contents| inbox.push_back((from, contents.to_vec())))?;
            self.inbox = inbox;
        }
        let Some((from, contents)) = self.inbox.front() else { return Ok(None) };
        let Ok(buf) = self.cl.alloc_copy(contents) else { return Ok(None) };
        let from = *from;
        self.inbox.pop_front();
        Ok(Some((from, buf)))
    }

    fn park(&mut self, limit: Duration) -> Result<(), String> {
        let due = self.mml.next_timeout().map(|at| at.saturating_since(self.clock.now()));
        self.cl
            .park(Some(due.map_or(limit, |due| due.min(limit))))
            .map_err(|error| format!("cannot sleep: {error}"))
    }
}
