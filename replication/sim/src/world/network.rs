//! What lies between the parties: Byzantine senders, cuts, loss, duplication, delay.

use super::{Happening, World};
use crate::SimKeys;
use crate::byzantine::{court, garble, lie, twin_of};
use crate::plan::{Byzantine, Fault};
use cl_base::PeerId;
use replication::{MemberId, message};
use std::time::Duration;

impl World {
    pub(super) fn member_sends(&mut self, i: usize, copy: usize, to: PeerId, mut bytes: Vec<u8>) {
        let from = self.hosts[i].peer;
        match self.faults[i] {
            Some((Fault::CutOff, _)) => return,
            Some((Fault::OneWay, deaf)) if !deaf => return,
            _ => {}
        }
        if let Some(kind) = self.plan.kind_of(i) {
            match kind {
                Byzantine::Silent => return self.judge.fault("messages withheld"),
                Byzantine::Shunning
                    if to == self.hosts[(i + 1 + self.split as usize % 3) % self.hosts.len()].peer =>
                {
                    return self.judge.fault("messages withheld");
                }
                Byzantine::Lying if self.rng.chance(1, 5) => {
                    self.judge.fault("lies");
                    let keys = SimKeys::new(self.options.seed, &self.config.members, from);
                    bytes = lie(&mut self.rng, &self.config, MemberId(i as u8), &keys, &bytes);
                }
                Byzantine::Courting => {
                    let favourite =
                        to == self.hosts[(i + 1 + self.split as usize % 3) % self.hosts.len()].peer;
                    let keys = SimKeys::new(self.options.seed, &self.config.members, from);
                    match court(&self.config, MemberId(i as u8), &keys, favourite, bytes) {
                        Some(changed) => bytes = changed,
                        None => return self.judge.fault("messages withheld"),
                    }
                }
                Byzantine::Garbling if self.rng.chance(1, 5) => {
                    self.judge.fault("garbled messages");
                    bytes = garble(&mut self.rng, &bytes);
                }
                Byzantine::Twins => {
                    self.judge.fault("messages of twins");
                    if !twin_of(self.split, to, &self.config, copy) {
                        return;
                    }
                }
                Byzantine::Replaying => {
                    if self.rng.chance(1, 4)
                        && let Some(old) = self.rng.pick(&self.sent_before).cloned()
                    {
                        self.judge.fault("replays");
                        let to = self.hosts[self.rng.below(self.hosts.len() as u64) as usize].peer;
                        self.transmit(from, to, old);
                    }
                    if self.sent_before.len() < 500 {
                        self.sent_before.push(bytes.clone());
                    } else {
                        let at = self.rng.below(500) as usize;
                        self.sent_before[at] = bytes.clone();
                    }
                }
                _ => {}
            }
        }
        self.transmit(from, to, bytes);
    }

    /// The network: loses, duplicates, delays; only delays a little after the heal.
    pub(super) fn transmit(&mut self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        self.trace(|w| match message::decode(&w.config, &bytes) {
            Ok(m) => {
                let text = format!("{m:?}");
                format!("  {from} > {to} {}", text.chars().take(160).collect::<String>())
            }
            Err(_) => format!("  {from} > {to} garbage"),
        });
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
        for _ in 0..copies {
            let (low, high) = self.plan.delay;
            let mut delay = self.rng.within(low.as_nanos() as u64, high.as_nanos() as u64);
            if rough && self.rng.chance(self.plan.stragglers, 1000) {
                self.judge.fault("delayed");
                delay *= self.rng.within(10, 200);
            }
            let at = self.now + Duration::from_nanos(delay);
            self.schedule(at, Happening::Deliver { from, to, bytes: bytes.clone() });
        }
    }
}
