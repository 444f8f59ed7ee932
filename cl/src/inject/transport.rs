use super::{Injection, Side};
use crate::clock::Clock;
use crate::header::HEADER_LEN;
use crate::pool::{HEADROOM, Pool};
use crate::stats::Stats;
use crate::transport::{Recv, Transport, TransportKind, is_transient};
use cl_base::faults::{FaultCounts, Hold, Injector, Shelf, Verdict};
use cl_base::{PeerId, Time};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

/// Datagrams that one call of `recv` takes away before it lets the caller go on.
const TAKEN_PER_RECV: usize = 256;
/// After what time a busy network is tried again with what was held back.
const RETRY: Duration = Duration::from_millis(1);

/// `transport` with an injector in front of it, if any fault is asked for.
pub(crate) fn wrap(
    transport: Box<dyn Transport>,
    injection: Option<Injection>,
    me: PeerId,
    clock: Clock,
) -> Box<dyn Transport> {
    match injection {
        Some(mut injection) if !injection.faults.is_none() => {
            let seed = *injection.seed.get_or_insert_with(|| clock.now().as_nanos());
            tracing::warn!(%me, faults = %injection, "faults are injected on purpose");
            // The same seed for a whole campaign must not make all its parties lose the same messages.
            let seed = seed ^ me.to_u64().rotate_left(32);
            Box::new(Injected::new(transport, injection, seed, clock))
        }
        _ => transport,
    }
}

/// A transport with faults in front of it.
struct Injected {
    inner: Box<dyn Transport>,
    clock: Clock,
    outgoing: Option<Lane>,
    incoming: Option<Lane>,
    /// Not before then is anything sent that was held back.
    retry_at: Time,
    /// The last `recv` stopped though there may be more.
    more: bool,
}

/// One direction.
struct Lane {
    injector: Injector,
    /// Datagrams held back, by the address at the other end.
    shelf: Shelf<SocketAddr, Vec<u8>>,
}

impl Lane {
    fn new(injection: &Injection, seed: u64) -> Lane {
        Lane { injector: Injector::new(injection.faults, seed), shelf: Shelf::new() }
    }
}

impl Injected {
    fn new(inner: Box<dyn Transport>, injection: Injection, seed: u64, clock: Clock) -> Injected {
        let lane = |is_it: bool, seed| is_it.then(|| Lane::new(&injection, seed));
        Injected {
            inner,
            clock,
            outgoing: lane(injection.side != Side::Incoming, seed),
            incoming: lane(injection.side != Side::Outgoing, !seed),
            retry_at: Time::ZERO,
            more: false,
        }
    }

    /// Sends what was held back and whose time has come.
    fn release(&mut self) {
        let Some(lane) = self.outgoing.as_mut().filter(|lane| !lane.shelf.is_empty()) else { return };
        let now = self.clock.now();
        if now < self.retry_at {
            return;
        }
        while let Some((to, bytes)) = lane.shelf.peek_due(now) {
            match self.inner.send(*to, &[IoSlice::new(bytes)]) {
                Err(error) if is_transient(&error) => {
                    self.retry_at = now + RETRY;
                    return;
                }
                // The caller went on long ago; a datagram may be lost.
                Err(error) => tracing::debug!(%error, %to, "the system refused what was held back"),
                Ok(()) => {}
            }
            lane.shelf.pop_due(now);
        }
    }
}

/// `parts` in one piece, damaged as the verdict says.
fn gather(parts: &[IoSlice<'_>], verdict: &Verdict) -> Vec<u8> {
    let mut bytes = parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
    if let Some(damage) = verdict.damage {
        damage.apply(&mut bytes);
    }
    bytes
}

impl Transport for Injected {
    fn kind(&self) -> TransportKind {
        self.inner.kind()
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn receive_buffer(&self) -> usize {
        self.inner.receive_buffer()
    }

    fn count(&self, stats: &mut Stats) {
        self.inner.count(stats);
    }

    fn send(&mut self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let Some(Lane { injector, shelf }) = &mut self.outgoing else { return self.inner.send(to, parts) };
        let before = injector.clone();
        let verdict = injector.judge(parts.iter().map(|part| part.len()).sum());
        if verdict.drop {
            return Ok(());
        }
        // What is neither changed nor kept is not copied.
        let copy = (verdict != Verdict::PASS).then(|| gather(parts, &verdict));
        if verdict.hold.is_none() || verdict.duplicate {
            let sent = match &copy {
                Some(bytes) => self.inner.send(to, &[IoSlice::new(bytes)]),
                None => self.inner.send(to, parts),
            };
            if let Err(error) = sent {
                if is_transient(&error) {
                    // The caller will come again with this datagram, and the same must happen to it then.
                    *injector = before;
                }
                return Err(error);
            }
        }
        if copy.is_none() && shelf.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        if verdict.hold.is_none() {
            shelf.passed(now, to);
        }
        // The copy that the network owes, or the message itself.
        let hold = verdict.hold.or(verdict.duplicate.then_some(Hold::For(Duration::ZERO)));
        if let (Some(hold), Some(bytes)) = (hold, copy)
            && let Err(bytes) = shelf.hold(now, to, bytes, hold)
            && let Err(error) = self.inner.send(to, &[IoSlice::new(&bytes)])
        {
            if is_transient(&error) {
                *injector = before;
            }
            return Err(error);
        }
        self.release();
        Ok(())
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        self.release();
        let Some(Lane { injector, shelf }) = &mut self.incoming else { return self.inner.recv(pool) };
        for _ in 0..TAKEN_PER_RECV {
            if !shelf.is_empty()
                && let now = self.clock.now()
                && let Some((from, bytes)) = shelf.peek_due(now)
            {
                let Ok(mut buf) = pool.alloc(bytes.len()) else { return Recv::Starved };
                // As the transports do it, so that the contents begin where those of a fresh buffer do.
                buf.set_range(HEADROOM - HEADER_LEN, HEADROOM - HEADER_LEN);
                buf.extend_from_slice(bytes);
                let from = *from;
                shelf.pop_due(now);
                return Recv::Datagram(from, buf);
            }
            let (from, mut buf) = match self.inner.recv(pool) {
                Recv::Datagram(from, buf) => (from, buf),
                other => return other,
            };
            let verdict = injector.judge(buf.len());
            if verdict.drop {
                continue;
            }
            if let Some(damage) = verdict.damage {
                damage.apply(&mut buf);
            }
            if verdict.hold.is_none() && !verdict.duplicate && shelf.is_empty() {
                return Recv::Datagram(from, buf);
            }
            let now = self.clock.now();
            let hold = verdict.hold.or(verdict.duplicate.then_some(Hold::For(Duration::ZERO)));
            let kept = hold.is_some_and(|hold| shelf.hold(now, from, buf.to_vec(), hold).is_ok());
            if !kept || verdict.hold.is_none() || verdict.duplicate {
                if verdict.hold.is_none() {
                    shelf.passed(now, from);
                }
                return Recv::Datagram(from, buf);
            }
        }
        self.more = true;
        Recv::Empty
    }

    fn readable_fd(&self) -> RawFd {
        self.inner.readable_fd()
    }

    fn writable_fd(&self) -> RawFd {
        self.inner.writable_fd()
    }

    fn prepare_park(&mut self, pool: &Pool) -> bool {
        !std::mem::take(&mut self.more) && self.inner.prepare_park(pool)
    }

    fn park_directly(&self) -> Option<RawFd> {
        self.inner.park_directly()
    }

    fn prepare_direct_park(&mut self, pool: &Pool) -> bool {
        !std::mem::take(&mut self.more) && self.inner.prepare_direct_park(pool)
    }

    fn deadline(&self) -> Time {
        let due = |lane: &Option<Lane>| lane.as_ref().map_or(Time::MAX, |lane| lane.shelf.next_due());
        let outgoing = due(&self.outgoing).max(self.retry_at);
        outgoing.min(due(&self.incoming)).min(self.inner.deadline())
    }

    fn faults(&self) -> Option<FaultCounts> {
        let mut counts = FaultCounts::default();
        for lane in [&self.outgoing, &self.incoming].into_iter().flatten() {
            counts += lane.injector.counts();
        }
        Some(counts)
    }

    #[cfg(test)]
    fn refuse_sends(&self, count: u32) {
        self.inner.refuse_sends(count);
    }
}

#[cfg(test)]
#[path = "transport_test.rs"]
mod tests;
