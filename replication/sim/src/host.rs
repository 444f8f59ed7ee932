//! A member's host: its durable records, its clock, its crashes.

use crate::SimKeys;
use crate::ledger::Ledger;
use cl_base::codec;
use cl_base::{PeerId, Time};
use replication::{Config, Effect, Event, MemberId, Record, Replica};
use std::time::Duration;

/// Something a member did that the world must carry out or judge.
pub(crate) enum Output {
    Send { to: PeerId, bytes: Vec<u8> },
    Event(Event),
}

/// One member: one replica, two if it is a pair of twins, none while it is down.
pub(crate) struct Host {
    pub(crate) id: MemberId,
    pub(crate) peer: PeerId,
    seed: u64,
    config: Config,
    offset: Duration,
    pub(crate) copies: Vec<Replica<Ledger>>,
    /// Encoded records of each copy, as on a disk.
    disks: Vec<Vec<Vec<u8>>>,
    /// Falls after so many more effects; what it had not yet done by then is lost.
    pub(crate) falls_after: Option<u64>,
    pub(crate) timer_at: Option<Time>,
}

impl Host {
    pub(crate) fn new(seed: u64, config: &Config, id: MemberId, offset: Duration, copies: usize) -> Host {
        let peer = config.peer(id);
        Host {
            id,
            peer,
            seed,
            config: config.clone(),
            offset,
            copies: Vec::new(),
            disks: vec![Vec::new(); copies],
            falls_after: None,
            timer_at: None,
        }
    }

    pub(crate) fn local(&self, now: Time) -> Time {
        now + self.offset
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Starts with nothing on its disks.
    pub(crate) fn begin(&mut self, now: Time) {
        self.copies.clear();
        for disk in &mut self.disks {
            disk.clear();
            let keys = Box::new(SimKeys::new(self.seed, &self.config.members, self.peer));
            let local = now + self.offset;
            self.copies.push(Replica::new(self.config.clone(), self.id, keys, Ledger::default(), local));
        }
    }

    /// Starts with what is on its disks.
    pub(crate) fn restart(&mut self, now: Time) -> Result<(), String> {
        let local = self.local(now);
        self.fall();
        for disk in &self.disks {
            let keys = Box::new(SimKeys::new(self.seed, &self.config.members, self.peer));
            let mut records = Vec::new();
            for bytes in disk {
                records.push(
                    codec::decode::<Record>(bytes).map_err(|e| format!("a record is unreadable: {e}"))?,
                );
            }
            let replica = Replica::recover(
                self.config.clone(),
                self.id,
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
        self.copies.clear();
        self.falls_after = None;
        self.timer_at = None;
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
                    Effect::Persist(record) => {
                        if matches!(record, Record::Checkpoint(_)) {
                            self.disks[i].clear();
                        }
                        self.disks[i].push(codec::encode(&record));
                    }
                    Effect::Send { to, bytes } => outputs.push((i, Output::Send { to, bytes })),
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
        self.copies.iter().filter_map(Replica::next_timeout).min().map(|local| local - self.offset)
    }
}
