//! What lies between the parties: adversaries, cuts, loss, duplication, delay.

use super::{Happening, World};
use crate::plan::Trouble;
use cl_base::{PeerId, Time};
use replication_proto::message;
use std::time::Duration;

/// A partition in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    pub(super) side: u64,
    pub(super) since: Time,
    pub(super) one_way: bool,
    pub(super) flapping: Option<Duration>,
}

impl Partition {
    fn cuts(&self, now: Time, from: usize, to: usize) -> bool {
        let inside = |member: usize| self.side >> member & 1 == 1;
        let elapsed = now.saturating_since(self.since).as_nanos();
        let closed = self.flapping.is_none_or(|period| (elapsed / period.as_nanos()).is_multiple_of(2));
        closed && inside(from) != inside(to) && (!self.one_way || inside(to))
    }
}

impl World {
    /// Hands a message over to its receiver.
    pub(super) fn deliver(&mut self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        if let Some(i) = self.host_of(to) {
            match self.troubles[i] {
                Some((Trouble::CutOff | Trouble::Deaf, _)) => return,
                Some((Trouble::Paused, until)) => {
                    return self.schedule(until, Happening::Deliver { from, to, bytes });
                }
                _ => {}
            }
            if !self.hosts[i].is_up() {
                return;
            }
            if let Some(adversary) = &mut self.adversaries[i] {
                adversary.hears(&bytes);
            }
            let twins = self.hosts[i].copies.len() > 1;
            let local = self.hosts[i].local(self.now);
            for (twin, replica) in self.hosts[i].copies.iter_mut().enumerate() {
                if !twins || self.plot.is_twins(&self.config, twin, from) {
                    replica.on_message(local, from, &bytes);
                }
            }
            self.after_member(i);
        } else if let Some(i) = self.clients.iter().position(|c| c.peer == to) {
            let now = self.now;
            self.clients[i].client.on_message(now, from, &bytes);
            self.after_client(i);
        }
    }

    pub(super) fn member_sends(&mut self, i: usize, copy: usize, to: PeerId, bytes: Vec<u8>) {
        let from = self.hosts[i].peer;
        if let Some((Trouble::CutOff | Trouble::Mute, _)) = self.troubles[i] {
            return;
        }
        let Some(adversary) = &mut self.adversaries[i] else {
            return self.transmit(from, to, bytes);
        };
        let judge = &mut self.judge;
        let packets = adversary.sends(&mut self.plot, copy, to, bytes, &mut |kind| judge.fault(kind));
        for packet in packets {
            if packet.later.is_zero() {
                self.transmit(from, packet.to, packet.bytes);
            } else {
                let released = Happening::Release { from, to: packet.to, bytes: packet.bytes };
                self.schedule(self.now + packet.later, released);
            }
        }
    }

    /// The network: loses, duplicates, delays; only delays a little after the heal.
    pub(super) fn transmit(&mut self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        self.trace(|w| {
            match w
                .hosts
                .iter()
                .flat_map(|h| &h.copies)
                .find_map(|r| message::decode(r.config(), &bytes).ok())
            {
                Some(m) => {
                    let text = format!("{m:?}");
                    format!("  {from} > {to} {}", text.chars().take(160).collect::<String>())
                }
                None => format!("  {from} > {to} garbage, or of an epoch that is over"),
            }
        });
        if let (Some(a), Some(b)) = (self.host_of(from), self.host_of(to))
            && self.partitions.values().any(|p| p.cuts(self.now, a, b))
        {
            return self.judge.fault("cut by partitions");
        }
        let rough = self.now < self.healed();
        if rough && self.rng.chance(self.plan.loss, 1000) {
            return self.judge.fault("lost");
        }
        let copies = if rough && self.rng.chance(self.plan.duplication, 1000) {
            self.judge.fault("duplicated");
            2
        } else {
            1
        };
        let slow = self.host_of(to).and_then(|i| self.troubles[i]);
        let slow = if let Some((Trouble::Slow(by), _)) = slow { by } else { Duration::ZERO };
        for _ in 0..copies {
            let (low, high) = self.plan.delay;
            let mut delay = self.rng.within(low.as_nanos() as u64, high.as_nanos() as u64);
            if rough && self.rng.chance(self.plan.stragglers, 1000) {
                self.judge.fault("delayed");
                delay *= self.rng.within(10, 200);
            }
            let at = self.now + Duration::from_nanos(delay) + slow;
            self.schedule(at, Happening::Deliver { from, to, bytes: bytes.clone() });
        }
    }
}
