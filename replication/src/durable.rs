//! A replica with its stable storage: what the protocol wants remembered is durable before what it wants said is
//! sent (PROTOCOL.md 2.14).

use crate::journal::{Journal, JournalError};
use cl_base::{PeerId, Time, codec};
use replication_proto::{Config, Effect, Event, Keys, MemberId, Record, RecoverError, Replica, StateMachine};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where a replica's records are kept.
pub trait Storage: Send {
    /// Adds a record to what the next [`Storage::commit`] makes durable.
    fn append(&mut self, record: &[u8]);
    /// Makes what was appended durable.
    ///
    /// # Errors
    /// After one the replica must stop: what is kept is unknown.
    fn commit(&mut self) -> Result<(), JournalError>;
    /// Replaces everything by one record, durably; a crash leaves the old or the new contents.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    fn replace(&mut self, record: &[u8]) -> Result<(), JournalError>;
}

impl Storage for Journal {
    fn append(&mut self, record: &[u8]) {
        Journal::append(self, record);
    }
    fn commit(&mut self) -> Result<(), JournalError> {
        Journal::commit(self)
    }
    fn replace(&mut self, record: &[u8]) -> Result<(), JournalError> {
        Journal::replace(self, [record])
    }
}

/// Records that outlive a replica and not the process: for groups in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Vec<Vec<u8>>>>);

impl Memory {
    /// The records, oldest first.
    pub fn records(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

impl Storage for Memory {
    fn append(&mut self, record: &[u8]) {
        self.0.lock().expect("nobody panics with it").push(record.to_vec());
    }
    fn commit(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
    fn replace(&mut self, record: &[u8]) -> Result<(), JournalError> {
        *self.0.lock().expect("nobody panics with it") = vec![record.to_vec()];
        Ok(())
    }
}

/// Why a replica could not be started with its memory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal is not there.
    #[error(
        "{0} is missing: a member must not vote without its memory. Restore it; if this member has never run, make an \
         empty file of that name"
    )]
    Missing(PathBuf),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record cannot be understood.
    #[error("a record of the journal is not of this version: {0}")]
    Record(#[from] cl_base::codec::DecodeError),
    /// The records are not those of one replica's life.
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// What a replica wants done, its records being durable.
#[derive(Debug, Default)]
pub struct Drained {
    /// To be sent, in this order; may be lost.
    pub sends: Vec<(PeerId, Vec<u8>)>,
    /// For logs and metrics.
    pub events: Vec<Event>,
}

/// See the module.
pub struct Durable<S> {
    replica: Replica<S>,
    storage: Box<dyn Storage>,
}

impl<S: StateMachine> Durable<S> {
    /// Starts the replica `me` with the journal at `path`; an empty one is that of a member that has never run. With
    /// `sync` every vote waits for the device.
    ///
    /// # Errors
    /// If the journal is missing or damaged: a replica without its memory must not vote.
    ///
    /// # Panics
    /// As [`Replica::new`].
    pub fn open(
        path: &Path,
        sync: bool,
        config: Config,
        me: MemberId,
        keys: Box<dyn Keys>,
        machine: S,
        now: Time,
    ) -> Result<Durable<S>, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let (journal, records) = Journal::open(path, sync)?;
        Durable::recover(Box::new(journal), &records, config, me, keys, machine, now)
    }

    /// Starts the replica `me` with `records`, which are those in `storage`.
    ///
    /// # Errors
    /// [`OpenError`], if the records make no sense.
    ///
    /// # Panics
    /// As [`Replica::new`].
    pub fn recover(
        storage: Box<dyn Storage>,
        records: &[Vec<u8>],
        config: Config,
        me: MemberId,
        keys: Box<dyn Keys>,
        machine: S,
        now: Time,
    ) -> Result<Durable<S>, OpenError> {
        let replica = if records.is_empty() {
            Replica::new(config, me, keys, machine, now)
        } else {
            tracing::info!(records = records.len(), "back with its memory");
            let records: Vec<Record> = records.iter().map(|r| codec::decode(r)).collect::<Result<_, _>>()?;
            Replica::recover(config, me, keys, machine, now, records.into_iter())?
        };
        Ok(Durable { replica, storage })
    }

    /// See [`Replica::on_message`].
    pub fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        self.replica.on_message(now, from, bytes);
    }

    /// See [`Replica::on_timeout`].
    pub fn on_timeout(&mut self, now: Time) {
        self.replica.on_timeout(now);
    }

    /// See [`Replica::next_timeout`].
    pub fn next_timeout(&self) -> Option<Time> {
        self.replica.next_timeout()
    }

    /// The replica.
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// Takes what the replica wants done, and makes its records durable first: all of them together, so that many
    /// votes share one wait for the device.
    ///
    /// # Errors
    /// If the storage fails. The replica must stop then, with nothing said that relied on it.
    pub fn drain(&mut self) -> Result<Drained, JournalError> {
        let mut drained = Drained::default();
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Persist(record @ Record::Checkpoint(_)) => {
                    self.storage.replace(&codec::encode(&record))?
                }
                Effect::Persist(record) => self.storage.append(&codec::encode(&record)),
                Effect::Send { to, bytes } => drained.sends.push((to, bytes)),
                Effect::Event(event) => drained.events.push(event),
            }
        }
        self.storage.commit()?;
        Ok(drained)
    }
}
