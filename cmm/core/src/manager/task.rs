//! TaskDB: what the manager knows about each job (dissertation 7.1.2.1).

use crate::api::{Attempt, JobId, JobSpec, JobState, JobView, Output, Part};
use crate::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, PeerId, Time};

/// How far a job's part on one node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Progress {
    /// The agent has been told.
    Told,
    /// Its ranks run.
    Started,
    /// No process of it is left on the node.
    Ended,
}

/// One node's share of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Share {
    pub(super) part: Part,
    /// The agent's life that was told; a younger one knows nothing of it.
    pub(super) incarnation: Incarnation,
    pub(super) progress: Progress,
}

/// Why an attempt is being stopped, and what becomes of the job then.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Stop {
    pub(super) then: JobState,
    pub(super) code: i32,
    pub(super) reason: String,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Job {
    pub(super) spec: JobSpec,
    /// Who submitted it and hears of its changes.
    pub(super) owner: PeerId,
    pub(super) user: u32,
    pub(super) state: JobState,
    /// Requeues so far.
    pub(super) number: u32,
    /// The present attempt's shares in rank order; the last one's after the job ended.
    pub(super) shares: Vec<Share>,
    pub(super) stop: Option<Stop>,
    pub(super) exit_code: Option<i32>,
    pub(super) reason: Option<String>,
    pub(super) submitted: Time,
    pub(super) started: Option<Time>,
    pub(super) ended: Option<Time>,
}

impl Job {
    pub(super) fn attempt(&self, job: JobId) -> Attempt {
        Attempt { job, number: self.number }
    }

    /// The share of `node` in the attempt that is under way, unless it has ended there.
    pub(super) fn live_share(&mut self, node: NodeId) -> Option<&mut Share> {
        if self.state.is_final() || self.state == JobState::Queued {
            return None;
        }
        self.shares.iter_mut().find(|s| s.part.node == node && s.progress != Progress::Ended)
    }

    pub(super) fn all_ended(&self) -> bool {
        self.shares.iter().all(|s| s.progress == Progress::Ended)
    }

    pub(super) fn view(&self, job: JobId) -> JobView {
        JobView {
            job,
            requeues: self.number,
            name: self.spec.name.clone(),
            user: self.user,
            state: self.state,
            ranks: self.spec.ranks,
            nodes: self.shares.iter().map(|s| s.part.node).collect(),
            exit_code: self.exit_code,
            reason: self.reason.clone(),
            submitted_ns: self.submitted.as_nanos(),
            started_ns: self.started.map(Time::as_nanos),
            ended_ns: self.ended.map(Time::as_nanos),
            output: match &self.spec.output {
                Output::Stream { .. } => None,
                Output::File { path } => Some(path.replace("%j", &job.to_string())),
            },
        }
    }
}
