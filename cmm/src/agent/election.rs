//! The agent's part in the election of the managers, with its record on disk.

use crate::config::Config;
use crate::daemon;
use crate::keys::Keyring;
use crate::layout::Layout;
use cl_base::{Incarnation, PeerId, Time, codec};
use cmm_core::bootstrap::{self, Bootstrap, Decision, Effect, Event, Record};
use cmm_core::identity::{NodeId, Role};
use replication::journal::Journal;
use std::path::PathBuf;

/// What the agent has to do for the election.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this to another agent.
    Send { to: PeerId, bytes: Vec<u8> },
    /// A group is decided, and what its manager here needs is on disk.
    Decided(Decision),
    /// The record cannot be kept.
    Failed(String),
}

/// See the module.
pub(super) struct Election {
    layout: Layout,
    node: NodeId,
    /// What to start from, until the self-test is over.
    start: Option<Start>,
    bootstrap: Option<Bootstrap>,
    journal: Journal,
    first_boot: PathBuf,
    sync: bool,
    failed: bool,
}

struct Start {
    config: bootstrap::Config,
    keyring: Keyring,
    incarnation: Incarnation,
    records: Vec<Record>,
    lost_memory: bool,
}

impl Election {
    /// Reads the record of earlier lives. The election begins when the self-test is over: when the hardcore
    /// is reached, or has not been for too long ([`Election::on_timer`]).
    pub(super) fn new(
        layout: &Layout,
        config: &Config,
        keyring: &Keyring,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<Election, String> {
        let (journal, records) =
            Journal::open(&layout.bootstrap_record(node), config.sync).map_err(|e| e.to_string())?;
        let records: Vec<Record> = records
            .iter()
            .map(|r| codec::decode(r))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{}: {e}", layout.bootstrap_record(node).display()))?;
        let first_boot = layout.first_boot(node);
        let start = Start {
            config: daemon::election(config, keyring)?,
            keyring: keyring.clone(),
            incarnation,
            lost_memory: !first_boot.exists(),
            records,
        };
        Ok(Election {
            layout: layout.clone(),
            node,
            start: Some(start),
            bootstrap: None,
            journal,
            first_boot,
            sync: config.sync,
            failed: false,
        })
    }

    /// Whether the self-test is over.
    pub(super) fn is_running(&self) -> bool {
        self.bootstrap.is_some()
    }

    /// The hardcore answers: this node can run a manager.
    pub(super) fn hardcore_reached(&mut self, now: Time) {
        self.begin(now, true);
    }

    pub(super) fn on_timer(&mut self, now: Time) {
        match &mut self.bootstrap {
            Some(bootstrap) => bootstrap.on_timeout(now),
            None => {
                tracing::warn!("the hardcore does not answer: this node cannot run a manager");
                self.begin(now, false);
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.bootstrap.as_ref().and_then(Bootstrap::next_timeout)
    }

    pub(super) fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.on_message(now, from, bytes);
        }
    }

    /// The group has answered our JOIN.
    pub(super) fn admitted(&mut self, now: Time) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.admitted(now);
        }
    }

    /// The group does not answer.
    pub(super) fn no_service(&mut self, now: Time) {
        if let Some(bootstrap) = &mut self.bootstrap {
            bootstrap.no_service(now);
        }
    }

    /// The next thing to do. What must be remembered is on disk before what relies on it is handed out.
    pub(super) fn poll(&mut self) -> Option<Step> {
        if self.failed {
            return None;
        }
        loop {
            match self.bootstrap.as_mut()?.poll_effect()? {
                Effect::Persist(record) => {
                    if let Err(error) = self.persist(&record) {
                        self.failed = true;
                        return Some(Step::Failed(error));
                    }
                }
                Effect::Send { to, bytes } => return Some(Step::Send { to, bytes }),
                Effect::Event(Event::Phase { n, text }) => tracing::info!("bootstrap phase {n}: {text}"),
                Effect::Event(event) => tracing::info!(?event, "bootstrap"),
                Effect::Decided(decision) => {
                    return Some(match self.keep(&decision) {
                        Ok(()) => Step::Decided(decision),
                        Err(error) => {
                            self.failed = true;
                            Step::Failed(error)
                        }
                    });
                }
            }
        }
    }

    fn begin(&mut self, now: Time, capable: bool) {
        let Some(start) = self.start.take() else { return };
        let me = Role::Agent(self.node).peer();
        let seed = start.incarnation.0;
        let bootstrap = Bootstrap::recover(
            start.config,
            me,
            Box::new(start.keyring),
            start.incarnation,
            capable,
            now,
            seed,
            start.records,
            start.lost_memory,
        );
        self.bootstrap = Some(bootstrap.expect("every node of the configuration is one of the agents"));
    }

    fn persist(&mut self, record: &Record) -> Result<(), String> {
        self.journal.replace([&codec::encode(record)[..]]).map_err(|e| e.to_string())?;
        match std::fs::remove_file(&self.first_boot) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {e}", self.first_boot.display()))
            }
            _ => Ok(()),
        }
    }

    /// Writes the decision for the manager process, and before it, once, the empty journal of that manager.
    /// From then on a manager that finds no journal knows that it has lost its memory.
    fn keep(&self, decision: &Decision) -> Result<(), String> {
        let path = self.layout.decision(self.node);
        let known = std::fs::read(&path).ok().and_then(|b| codec::decode::<Decision>(&b).ok());
        if known.as_ref().is_some_and(|k| k.instance() == decision.instance()) {
            return Ok(());
        }
        if decision.configuration.members.contains(&Role::Agent(self.node).peer()) {
            Journal::open(&self.layout.replica_storage(self.node, decision.instance()), self.sync)
                .map_err(|e| e.to_string())?;
        }
        let next = path.with_extension("next");
        std::fs::write(&next, codec::encode(decision))
            .and_then(|()| std::fs::rename(&next, &path))
            .map_err(|e| format!("{}: {e}", path.display()))
    }
}
