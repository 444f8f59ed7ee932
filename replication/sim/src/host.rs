//! A member's host: its disk, its clock, its crashes.

use crate::SimKeys;
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::plan::Clock;
use crate::world::EPOCH;
use cl_base::{PeerId, Rng, Time};
use replication_proto::{Config, Effect, Event, MemberId, Replica};
use std::time::Duration;

/// Something a member did that the world must carry out or judge.
pub(crate) enum Output {
    Send { to: PeerId, bytes: Vec<u8> },
    Event(Event),
}

const MILLION: i128 = 1_000_000;

impl Clock {
    /// What it shows at the true time `now`.
    pub(crate) fn shows(self, now: Time) -> Time {
        let elapsed = i128::from(now.saturating_since(EPOCH).as_nanos() as u64);
        EPOCH + self.offset + nanos(elapsed * (MILLION + i128::from(self.drift)) / MILLION)
    }

    /// The true time at which it shows `local`, or a little later.
    fn when(self, local: Time) -> Time {
        let elapsed = i128::from(local.saturating_since(EPOCH + self.offset).as_nanos() as u64);
        let rate = MILLION + i128::from(self.drift);
        EPOCH + nanos((elapsed * MILLION + rate - 1) / rate)
    }
}

fn nanos(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// One member: one replica, two if it is a pair of twins, none while it is down.
pub(crate) struct Host {
    /// Its number in the run; also in the roster, unless it is a newcomer.
    pub(crate) id: MemberId,
    pub(crate) peer: PeerId,
    seed: u64,
    config: Config,
    clock: Clock,
    pub(crate) copies: Vec<Replica<Ledger>>,
    disks: Vec<Disk>,
    /// Falls after so many more effects; what it had not yet done by then is lost.
    pub(crate) falls_after: Option<u64>,
    pub(crate) timer_at: Option<Time>,
    /// Records of which a crash left a piece only.
    pub(crate) torn: u64,
    rng: Rng,
}

impl Host {
    pub(crate) fn new(
        seed: u64,
        config: &Config,
        id: MemberId,
        peer: PeerId,
        clock: Clock,
        copies: usize,
    ) -> Host {
        Host {
            id,
            peer,
            seed,
            config: config.clone(),
            clock,
            copies: Vec::new(),
            disks: vec![Disk::default(); copies],
            falls_after: None,
            timer_at: None,
            torn: 0,
            rng: Rng::new(seed ^ 0xd15c ^ u64::from(id.0) << 32),
        }
    }

    pub(crate) fn local(&self, now: Time) -> Time {
        self.clock.shows(now)
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Whether it is, or was, in a roster.
    pub(crate) fn is_member(&self) -> bool {
        self.config.member(self.peer).is_some()
    }

    /// A newcomer hears that it is in the roster.
    pub(crate) fn join(&mut self, config: &Config, now: Time) {
        self.config = config.clone();
        self.begin(now);
    }

    fn place(&self) -> MemberId {
        self.config.member(self.peer).expect("only members run")
    }

    /// Starts with nothing on its disks.
    pub(crate) fn begin(&mut self, now: Time) {
        let local = self.local(now);
        let place = self.place();
        self.copies.clear();
        for disk in &mut self.disks {
            *disk = Disk::default();
            let keys = Box::new(SimKeys::new(self.seed, self.peer));
            self.copies.push(Replica::new(self.config.clone(), place, keys, Ledger::default(), local));
        }
    }

    /// Starts with what is on its disks.
    pub(crate) fn restart(&mut self, now: Time) -> Result<(), String> {
        let (local, place) = (self.local(now), self.place());
        self.fall();
        for disk in &mut self.disks {
            let records = disk.read().map_err(|e| format!("member {}: its disk is damaged: {e}", self.id))?;
            let keys = Box::new(SimKeys::new(self.seed, self.peer));
            let replica = Replica::recover(
                self.config.clone(),
                place,
                keys,
                Ledger::default(),
                local,
                records.into_iter(),
            )
            .map_err(|e| format!("member {} cannot recover: {e}", self.id))?;
            self.copies.push(replica);
        }
        Ok(())
    }

    /// Goes down.
    pub(crate) fn fall(&mut self) {
        for disk in self.disks.iter_mut().take(self.copies.len()) {
            self.torn += u64::from(disk.crash(&mut self.rng));
        }
        self.copies.clear();
        self.falls_after = None;
        self.timer_at = None;
    }

    pub(crate) fn rot(&mut self) {
        for disk in &mut self.disks {
            disk.rot(&mut self.rng);
        }
    }

    /// Performs the effects of all copies, durable ones here, until the member falls.
    pub(crate) fn drain(&mut self) -> Vec<(usize, Output)> {
        let mut outputs = Vec::new();
        let mut left = self.falls_after.unwrap_or(u64::MAX);
        for (i, replica) in self.copies.iter_mut().enumerate() {
            while left > 0
                && let Some(effect) = replica.poll_effect()
            {
                left -= 1;
                match effect {
                    Effect::Persist(record) => self.disks[i].write(&record),
                    Effect::Send { to, bytes } => {
                        // Whatever was promised is durable before it is said.
                        self.disks[i].sync();
                        outputs.push((i, Output::Send { to, bytes }));
                    }
                    Effect::Event(event) => outputs.push((i, Output::Event(event))),
                }
            }
        }
        if self.falls_after.is_some() {
            self.falls_after = Some(left);
            if left == 0 {
                self.fall();
            }
        }
        outputs
    }

    /// When the member next wants to be called, in true time.
    pub(crate) fn wants(&self) -> Option<Time> {
        self.copies.iter().filter_map(Replica::next_timeout).min().map(|local| self.clock.when(local))
    }
}
