//! What is said between the manager group and everybody else: operations that are ordered, the answers, and
//! the notices that the group sends by itself (commands to agents and hardcore, news to users).
//!
//! All of it travels in Borsh (`cl_base::codec`). An operation's sender is authenticated by the layers
//! below; what it may say follows from its [`Role`](crate::identity::Role).

use crate::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, PeerId, Time};
use serde::Serialize;
use std::fmt;

/// Largest encoded operation: it must fit one datagram with room for headers and a certificate.
pub const OP_BYTES_MAX: usize = 48 * 1024;
/// Jobs that may wait or run at once. Bounds the replicated state; a site with more has runaway scripts.
pub const JOBS_ACTIVE_MAX: usize = 10_000;
/// Finished jobs that `job` and `queue --all` can still show.
pub const JOBS_FINISHED_MAX: usize = 1_000;
/// Entries of the event log that are kept.
pub const EVENTS_MAX: usize = 2_000;
/// Jobs in one answer; the asker goes on behind the last one. Keeps an answer within one message.
pub const JOBS_PER_ANSWER: usize = 100;
/// Events in one answer; the asker goes on behind the last one. Keeps an answer within one message.
pub const EVENTS_PER_ANSWER: usize = 200;

/// A job, numbered from 1 in the order of submission; never reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize,
)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One try at running a job: the job and how often it was requeued before (from 0).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Serialize,
)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// 0 at first, one more after each requeue.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.number)
    }
}

/// Where the ranks' standard output and error go.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Output {
    /// To the submitting user's terminal, as it is written.
    Stream {
        /// The user's party that listens.
        to: PeerId,
        /// Its transport address, `ip:port`.
        address: String,
    },
    /// Appended to a file by the agent of rank 0's node. `%j` is the job number.
    File {
        /// Absolute path.
        path: String,
    },
}

/// A job as its user describes it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct JobSpec {
    /// For people; by default the program's file name.
    pub name: String,
    /// Program and arguments; at least the program.
    pub argv: Vec<String>,
    /// The environment of every rank; agents add what MPI needs.
    pub env: Vec<(String, String)>,
    /// Working directory of every rank, absolute.
    pub cwd: String,
    /// MPI processes to start, at least 1; each takes one core.
    pub ranks: u32,
    /// At most this many ranks on one node; `None`: as many as it has cores free.
    pub ranks_per_node: Option<u32>,
    /// Back into the queue instead of failed when a node dies.
    pub requeue: bool,
    /// Where the output goes.
    pub output: Output,
}

/// The ranks of a job on one node. Ranks are numbered node after node.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct Part {
    /// The node.
    pub node: NodeId,
    /// The first rank there.
    pub first_rank: u32,
    /// How many ranks are there, at least 1.
    pub ranks: u32,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub enum ExitStatus {
    /// `exit(code)`.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code a shell would show: a signal counts as 128 plus its number.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(c) => c,
            ExitStatus::Signal(s) => 128 + s,
        }
    }

    /// Whether the process ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(c) => write!(f, "exit code {c}"),
            ExitStatus::Signal(s) => write!(f, "signal {s}"),
        }
    }
}

/// An operation that the manager group orders and executes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Op {
    /// An agent asks for its node to be part of the cluster (the JOIN of dissertation 6.2). All processes of
    /// earlier incarnations on that node are gone.
    Join {
        /// This life of the agent.
        incarnation: Incarnation,
        /// Cores for ranks.
        cores: u32,
    },
    /// An agent answers [`Notice::Ping`].
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// An agent has started all its ranks of an attempt.
    PartStarted(Attempt),
    /// Something went wrong with an agent's part of an attempt: the whole attempt must be stopped.
    PartFailed {
        /// Which attempt.
        attempt: Attempt,
        /// The rank concerned, if it was one.
        rank: Option<u32>,
        /// Exit code for the job, not 0.
        code: i32,
        /// What happened, for the user, with the next step.
        reason: String,
    },
    /// No process of an attempt is left on the agent's node.
    PartEnded {
        /// Which attempt.
        attempt: Attempt,
    },
    /// The user's terminal that an attempt's output went to is gone.
    ListenerGone(Attempt),
    /// An agent saw a manager contradict what the group said.
    Outvoted {
        /// The node of the manager that lied.
        manager: NodeId,
        /// How often since the last report.
        times: u64,
    },
    /// An agent's manager process ended; it starts it again from its storage.
    ManagerExited {
        /// How it ended.
        status: ExitStatus,
    },
    /// A manager replica has missed a node's heartbeats (dissertation 7.1.5).
    Suspect {
        /// The silent node.
        node: NodeId,
        /// The incarnation that fell silent.
        incarnation: Incarnation,
    },
    /// A manager replica misses the heartbeats of several agents by one that was to bundle them.
    Suppresses {
        /// The bundler's node.
        node: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// A manager replica works in a new view.
    ViewInstalled {
        /// Its number.
        view: u64,
        /// The node of its primary.
        primary: NodeId,
    },
    /// The hardcore has carried out [`Notice::Reset`]: every process the node had is gone.
    ResetDone {
        /// The node.
        node: NodeId,
        /// The incarnation that was to be ended.
        incarnation: Incarnation,
    },
    /// A user submits a job.
    Submit(JobSpec),
    /// A user ends a job.
    Cancel(JobId),
    /// A user asks.
    Query(Query),
}

/// What users can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Query {
    /// Jobs: the waiting and running ones, or all that are remembered.
    Queue {
        /// Finished ones too.
        all: bool,
        /// First job wanted; an answer holds at most [`JOBS_PER_ANSWER`].
        from: JobId,
    },
    /// One job.
    Job(JobId),
    /// All nodes.
    Nodes,
    /// The event log from this sequence number on, at most [`EVENTS_PER_ANSWER`] entries.
    Events {
        /// First sequence number wanted.
        from: u64,
    },
}

/// The answer to an [`Op`].
pub type Answer = Result<Reply, Refusal>;

/// A granted [`Op`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Reply {
    /// Taken note of.
    Done,
    /// The node is part of the cluster (ADMIT).
    Admitted,
    /// The job's number.
    Submitted(JobId),
    /// To [`Query::Queue`] and [`Query::Job`].
    Jobs(Vec<JobView>),
    /// To [`Query::Nodes`].
    Nodes(Vec<NodeView>),
    /// To [`Query::Events`].
    Events(Vec<EventView>),
}

/// Why an [`Op`] was not carried out. The text says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, thiserror::Error)]
pub enum Refusal {
    /// Not an operation.
    #[error(
        "the manager group could not decode the request; is this command of the same version as the cluster?"
    )]
    Malformed,
    /// The sender's role does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// The job description cannot be carried out.
    #[error("{0}")]
    BadJob(String),
    /// No such job.
    #[error("there is no job {0}; `ghidrah queue --all` lists the jobs that are remembered")]
    UnknownJob(JobId),
    /// The queue is full.
    #[error("the queue holds {0} jobs already; wait for some to end or cancel some")]
    QueueFull(usize),
}

/// What the group sends by itself; the receiver acts when f+1 replicas sent the same.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Notice {
    /// To agents: start your part.
    Launch {
        /// The attempt.
        attempt: Attempt,
        /// The agent's life that is meant; a later one must ignore it.
        incarnation: Incarnation,
        /// What to start.
        spec: JobSpec,
        /// All parts, in rank order; the first one's agent collects the output and the PMI exchange.
        parts: Vec<Part>,
    },
    /// To agents: end every process of the attempt and say [`Op::PartEnded`].
    Kill {
        /// The attempt.
        attempt: Attempt,
        /// Why, for the log.
        reason: String,
    },
    /// To agents: are you alive? Answer with [`Op::Pong`].
    Ping {
        /// To be repeated.
        nonce: u64,
    },
    /// To agents: by these bundlers, and by no others of yours, send no heartbeats.
    Avoid {
        /// The bundlers' nodes.
        bundlers: Vec<NodeId>,
    },
    /// To the hardcore: power-reset the node, then say [`Op::ResetDone`].
    Reset {
        /// The node.
        node: NodeId,
        /// The incarnation that must end; a younger one must be left alone.
        incarnation: Incarnation,
    },
    /// To the user who waits for a job.
    JobChanged(JobView),
}

/// A job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for cores.
    Queued,
    /// Its agents have been told.
    Starting,
    /// All ranks are running.
    Running,
    /// Its processes are being ended.
    Ending,
    /// All ranks ended with code 0.
    Done,
    /// It did not come to a good end.
    Failed,
    /// Ended on a user's wish.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen to the job.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            JobState::Queued => "queued",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Ending => "ending",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        })
    }
}

/// A job as users see it. Times are agreed time, in nanoseconds since the UNIX epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct JobView {
    /// Its number.
    pub job: JobId,
    /// How often it has been requeued.
    pub requeues: u32,
    /// Its name.
    pub name: String,
    /// The user's number.
    pub user: u32,
    /// Its state.
    pub state: JobState,
    /// How many ranks.
    pub ranks: u32,
    /// Where they run or ran last.
    pub nodes: Vec<NodeId>,
    /// The exit code of `run`: 0 only for [`JobState::Done`]; `None` until it is final.
    pub exit_code: Option<i32>,
    /// Why it failed or was cancelled or requeued last.
    pub reason: Option<String>,
    /// When it was submitted.
    pub submitted_ns: u64,
    /// When all its ranks were running.
    pub started_ns: Option<u64>,
    /// When it became final.
    pub ended_ns: Option<u64>,
    /// The file its output goes to; `None` if it went to the user's terminal.
    pub output: Option<String>,
}

/// A node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// In the roster, but its agent has not joined.
    Absent,
    /// Part of the cluster.
    Up,
    /// Silent; being asked.
    Suspected,
    /// Officially dead; the hardcore has been asked to reset it.
    Dead,
    /// Reset; its agent has not joined again yet.
    Reset,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NodeState::Absent => "absent",
            NodeState::Up => "up",
            NodeState::Suspected => "suspected",
            NodeState::Dead => "dead",
            NodeState::Reset => "reset",
        })
    }
}

/// A node as users see it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct NodeView {
    /// Its number.
    pub node: NodeId,
    /// Its state.
    pub state: NodeState,
    /// Cores for ranks.
    pub cores: u32,
    /// Cores taken.
    pub used: u32,
    /// Jobs with ranks there.
    pub jobs: Vec<JobId>,
    /// When the state last changed, agreed time in nanoseconds since the UNIX epoch.
    pub since_ns: u64,
    /// Resets by the hardcore so far.
    pub resets: u32,
}

/// An entry of the event log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct EventView {
    /// Counted from 1.
    pub seq: u64,
    /// Agreed time, nanoseconds since the UNIX epoch.
    pub time_ns: u64,
    /// What kind, one word with dashes, for filters.
    pub kind: String,
    /// What happened, for people.
    pub text: String,
}

impl EventView {
    /// The time of the event.
    pub fn time(&self) -> Time {
        Time::from_nanos(self.time_ns)
    }
}
