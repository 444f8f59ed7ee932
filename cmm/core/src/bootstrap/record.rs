use super::wire::{Certificate, Prepared};
use super::{Configuration, Decision};
use borsh::{BorshDeserialize, BorshSerialize};

/// Everything an agent must remember over a restart.
///
/// Each record is complete and replaces all earlier ones; only the last one written has to be kept. Store
/// it as [`cl_base::codec`] bytes, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// The lowest instance of which nothing was forgotten: votes are cast from there on.
    pub(super) remembers_from: u64,
    /// The instance in which this agent takes part.
    pub(super) instance: u64,
    /// The NO-SERVICEs that opened it; none for the first instance and for one learnt from its decision.
    pub(super) opened_by: Certificate,
    /// The view, and whether it was asked for and not yet begun.
    pub(super) view: u64,
    pub(super) changing: bool,
    /// What was proposed in `view` and supported by this agent.
    pub(super) supported: Option<Configuration>,
    /// The certificate of the highest view in this instance.
    pub(super) prepared: Option<Prepared>,
    /// The highest decision known.
    pub(super) decision: Option<Decision>,
    /// The highest instance to which this agent said NO-SERVICE; 0 if none.
    pub(super) no_service: u64,
}

impl Record {
    /// What an agent remembers that has never taken part, or has forgotten that it did.
    pub(super) fn empty(lost_memory: bool) -> Record {
        Record {
            remembers_from: if lost_memory { u64::MAX } else { 0 },
            instance: 1,
            opened_by: Certificate::default(),
            view: 0,
            changing: false,
            supported: None,
            prepared: None,
            decision: None,
            no_service: 0,
        }
    }

    /// Goes to `instance`, of which nothing has happened yet.
    pub(super) fn enter(&mut self, instance: u64, opened_by: Certificate) {
        self.instance = instance;
        self.opened_by = opened_by;
        self.view = 0;
        self.changing = false;
        self.supported = None;
        self.prepared = None;
    }

    /// The highest instance known to be decided; 0 if none.
    pub(super) fn decided(&self) -> u64 {
        self.decision.as_ref().map_or(0, Decision::instance)
    }
}
