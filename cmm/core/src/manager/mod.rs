//! The cluster manager as one deterministic state machine: NodeDB, TaskDB, resource allocator and the
//! first-come-first-served queue (dissertation 3.3 and 7.1.2.1).
//!
//! The replication layer executes it identically on every replica. It is told of the world by ordered
//! operations ([`Op`]) and by agreed time ([`Manager::advance`]); it commands by notices
//! ([`Notice`]), on which agents and hardcore act when f+1 replicas sent the same.
//!
//! ## A node's life
//! `absent → up → suspected → dead → reset → up …` A node is suspected when f+1 managers miss its
//! heartbeats, pinged, and officially dead when it does not answer in time (7.1.5). The hardcore then resets
//! it; only its word that nothing runs there any more ends the dead node's share of a job, so a requeued job
//! never runs twice at once.
//!
//! ## A job's life
//! `queued → starting → running → ending → done | failed | cancelled`, or from `ending` back to `queued`.

mod allocate;
mod bundling;
mod node;
mod task;

use crate::api::*;
use crate::identity::{NodeId, Role};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, PeerId, Time};
use node::Node;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use task::{Job, Progress, Share, Stop};

/// What of the configuration the replicas must have in common.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ManagerConfig {
    /// All nodes of the roster.
    pub nodes: Vec<NodeId>,
    /// How many faulty managers are tolerated; f+1 managers must suspect a node.
    pub f: u32,
    /// How long a suspected node has to answer the ping, nanoseconds.
    pub ping_timeout_ns: u64,
    /// When the hardcore is asked again for a reset that it has not confirmed, nanoseconds.
    pub reset_retry_ns: u64,
    /// Whether agents bundle the heartbeats of others ([`crate::heartbeat::Tree`]).
    pub heartbeat_tree: bool,
}

/// Characters of a job's name: it stands in tables and in every event about the job.
const NAME_MAX: usize = 64;

/// Notices that one operation gave rise to, in order.
pub type Notices = Vec<(PeerId, Notice)>;

/// The manager's replicated state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manager {
    config: ManagerConfig,
    nodes: BTreeMap<NodeId, Node>,
    jobs: BTreeMap<JobId, Job>,
    /// Waiting jobs, first come first.
    queue: VecDeque<JobId>,
    /// Final jobs, oldest first.
    finished: VecDeque<JobId>,
    next_job: u64,
    next_nonce: u64,
    events: VecDeque<EventView>,
    next_event: u64,
    /// Managers by node that work in a view above the last logged one.
    views: BTreeMap<(u64, NodeId), BTreeSet<NodeId>>,
    view_logged: Option<u64>,
    now: Time,
}

impl Manager {
    /// A manager that has heard of nothing yet.
    pub fn new(config: ManagerConfig) -> Manager {
        let nodes = config.nodes.iter().map(|n| (*n, Node::absent(Time::ZERO))).collect();
        Manager {
            config,
            nodes,
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            finished: VecDeque::new(),
            next_job: 1,
            next_nonce: 1,
            events: VecDeque::new(),
            next_event: 1,
            views: BTreeMap::new(),
            view_logged: None,
            now: Time::ZERO,
        }
    }

    /// Executes one ordered operation of `from` at the agreed time `now`.
    pub fn apply(&mut self, now: Time, from: PeerId, op: Op, out: &mut Notices) -> Answer {
        self.now = self.now.max(now);
        let role = Role::of(from.principal);
        match (role, op) {
            (Some(Role::Agent(node)), op) if self.nodes.contains_key(&node) => self.of_agent(node, op, out),
            (Some(Role::Manager(node)), op) if self.nodes.contains_key(&node) => {
                self.of_manager(node, op, out)
            }
            (Some(Role::Hardcore), Op::ResetDone { node, incarnation }) => {
                self.reset_done(node, incarnation, out);
                Ok(Reply::Done)
            }
            (Some(Role::User(user)), op) => self.of_user(user, from, op, out),
            (role, _) => Err(Refusal::NotAllowed(match role {
                Some(role) => format!("{role} may not ask this of the manager group"),
                None => format!("{from} has no role in this cluster"),
            })),
        }
    }

    /// Moves agreed time to `now`: nodes that did not answer their ping in time are dead, resets that were
    /// not confirmed are asked for again.
    pub fn advance(&mut self, now: Time, out: &mut Notices) {
        self.now = self.now.max(now);
        let due: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.deadline().is_some_and(|d| d <= self.now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let node = self.node_mut(id);
            if node.ping.is_some_and(|(_, at)| at <= now) {
                self.node_died(id, out);
            } else if node.reset_again.is_some_and(|at| at <= now) {
                self.ask_for_reset(id, out);
            }
        }
    }

    /// When [`Manager::advance`] is needed next, in agreed time.
    pub fn next_deadline(&self) -> Option<Time> {
        self.nodes.values().filter_map(Node::deadline).min()
    }

    /// The life of `node`'s agent that is part of the cluster and not suspected; what heartbeats are
    /// expected from.
    pub fn incarnation_up(&self, node: NodeId) -> Option<Incarnation> {
        self.nodes.get(&node).filter(|n| n.state == NodeState::Up).map(|n| n.incarnation)
    }

    fn of_agent(&mut self, node: NodeId, op: Op, out: &mut Notices) -> Answer {
        match op {
            Op::Join { incarnation, cores } => {
                self.join(node, incarnation, cores, out);
                return Ok(Reply::Admitted);
            }
            Op::Pong { nonce } => {
                let now = self.now;
                let n = self.node_mut(node);
                if n.state == NodeState::Suspected && n.ping.is_some_and(|(sent, _)| sent == nonce) {
                    n.ping = None;
                    n.suspected_by.clear();
                    n.set_state(NodeState::Up, now);
                    self.log("node-answered", format!("{node} answered the ping and is up"));
                    self.schedule(out);
                }
            }
            Op::PartStarted(attempt) => self.part_started(node, attempt, out),
            Op::PartFailed { attempt, rank, code, reason } => {
                if self.of_this_attempt(node, attempt) {
                    let who = rank.map_or(node.to_string(), |r| format!("rank {r} on {node}"));
                    let code = if code == 0 { 1 } else { code };
                    self.stop(attempt.job, JobState::Failed, code, format!("{who}: {reason}"), out);
                }
            }
            Op::PartEnded { attempt } => {
                if self.of_this_attempt(node, attempt) {
                    self.part_ended(node, attempt.job, out);
                }
            }
            Op::ListenerGone(attempt) => {
                if self.of_this_attempt(node, attempt) {
                    let reason = "the terminal that its output went to is gone".to_owned();
                    self.stop(attempt.job, JobState::Cancelled, 129, reason, out);
                }
            }
            Op::Outvoted { manager, times } => {
                self.log(
                    "manager-outvoted",
                    format!("the manager on {manager} was outvoted {times} times by what {node} received"),
                );
            }
            Op::ManagerExited { status } => {
                self.log("manager-exited", format!("the manager on {node} ended with {status}"));
            }
            other => return Err(not_allowed("an agent", &other)),
        }
        Ok(Reply::Done)
    }

    fn of_manager(&mut self, manager: NodeId, op: Op, out: &mut Notices) -> Answer {
        match op {
            Op::Suspect { node, incarnation } => self.suspect(manager, node, incarnation, out),
            Op::Suppresses { node, incarnation } => self.suppresses(manager, node, incarnation, out),
            Op::ViewInstalled { view, primary } => {
                if self.view_logged.is_none_or(|logged| view > logged) {
                    let votes = self.views.entry((view, primary)).or_default();
                    votes.insert(manager);
                    if votes.len() > self.config.f as usize {
                        self.view_logged = Some(view);
                        self.views.retain(|(v, _), _| *v > view);
                        self.log("view", format!("view {view}: the primary manager is on {primary}"));
                    } else if self.views.len() > 16 * self.nodes.len() {
                        self.views.pop_first();
                    }
                }
            }
            other => return Err(not_allowed("a manager", &other)),
        }
        Ok(Reply::Done)
    }

    fn of_user(&mut self, user: u32, from: PeerId, op: Op, out: &mut Notices) -> Answer {
        match op {
            Op::Submit(spec) => self.submit(user, from, spec, out).map(Reply::Submitted),
            Op::Cancel(id) => {
                let job = self.jobs.get(&id).ok_or(Refusal::UnknownJob(id))?;
                if job.user != user && user != 0 {
                    return Err(Refusal::NotAllowed(format!(
                        "job {id} belongs to user {}; only that user or the administrator (user 0) can cancel it",
                        job.user
                    )));
                }
                self.stop(id, JobState::Cancelled, 130, format!("cancelled by user {user}"), out);
                Ok(Reply::Jobs(vec![self.jobs[&id].view(id)]))
            }
            Op::Query(query) => self.query(query),
            other => Err(not_allowed("a user", &other)),
        }
    }

    fn query(&self, query: Query) -> Answer {
        Ok(match query {
            Query::Queue { all, from } => Reply::Jobs(
                self.jobs
                    .range(from..)
                    .filter(|(_, j)| all || !j.state.is_final())
                    .take(JOBS_PER_ANSWER)
                    .map(|(id, j)| j.view(*id))
                    .collect(),
            ),
            Query::Job(id) => Reply::Jobs(vec![self.jobs.get(&id).ok_or(Refusal::UnknownJob(id))?.view(id)]),
            Query::Nodes => Reply::Nodes(self.nodes.iter().map(|(id, n)| n.view(*id)).collect()),
            Query::Events { from } => Reply::Events(
                self.events.iter().filter(|e| e.seq >= from).take(EVENTS_PER_ANSWER).cloned().collect(),
            ),
        })
    }

    // ---- nodes ----

    fn join(&mut self, id: NodeId, incarnation: Incarnation, cores: u32, out: &mut Notices) {
        let now = self.now;
        let node = self.node_mut(id);
        if incarnation <= node.incarnation {
            return; // Said again, or overtaken by a younger life.
        }
        let before = node.state;
        node.incarnation = incarnation;
        node.cores = cores;
        node.ping = None;
        node.reset_again = None;
        node.suspected_by.clear();
        node.missed_by.clear();
        let avoided = std::mem::take(&mut node.withdrawn) || before != NodeState::Absent;
        node.set_state(NodeState::Up, now);
        let again = if before == NodeState::Absent { "joined" } else { "rejoined" };
        self.log("node-up", format!("{id} {again} with {cores} cores"));
        // The new agent's word in its Join: nothing of earlier lives is left there.
        if avoided {
            self.tell_group(id, out);
        }
        self.tell_member(id, out);
        self.shares_lost(id, &format!("{id} was restarted"), out);
        self.shares_ended(id, out);
        self.schedule(out);
    }

    fn suspect(&mut self, manager: NodeId, id: NodeId, incarnation: Incarnation, out: &mut Notices) {
        let (now, timeout) = (self.now, Duration::from_nanos(self.config.ping_timeout_ns));
        let (nonce, quorum) = (self.next_nonce, self.config.f as usize + 1);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.state != NodeState::Up || node.incarnation != incarnation {
            return;
        }
        node.suspected_by.insert(manager);
        if node.suspected_by.len() >= quorum {
            node.set_state(NodeState::Suspected, now);
            node.ping = Some((nonce, now + timeout));
            self.next_nonce += 1;
            out.push((Role::Agent(id).peer(), Notice::Ping { nonce }));
            self.log("node-suspected", format!("{id} sends no heartbeats; it is being pinged"));
        }
    }

    fn node_died(&mut self, id: NodeId, out: &mut Notices) {
        let now = self.now;
        let node = self.node_mut(id);
        node.ping = None;
        node.set_state(NodeState::Dead, now);
        self.log("node-dead", format!("{id} did not answer: it is officially dead; the hardcore resets it"));
        self.ask_for_reset(id, out);
        self.tell_group(id, out);
        self.shares_lost(id, &format!("{id} died"), out);
    }

    fn ask_for_reset(&mut self, id: NodeId, out: &mut Notices) {
        let again = self.now + Duration::from_nanos(self.config.reset_retry_ns);
        let node = self.node_mut(id);
        node.reset_again = Some(again);
        let incarnation = node.incarnation;
        out.push((Role::Hardcore.peer(), Notice::Reset { node: id, incarnation }));
    }

    fn reset_done(&mut self, id: NodeId, incarnation: Incarnation, out: &mut Notices) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.state != NodeState::Dead || node.incarnation != incarnation {
            return;
        }
        node.reset_again = None;
        node.resets += 1;
        node.set_state(NodeState::Reset, now);
        self.log("node-reset", format!("the hardcore has reset {id}"));
        self.shares_ended(id, out);
        self.schedule(out);
    }

    // ---- jobs ----

    fn submit(
        &mut self,
        user: u32,
        owner: PeerId,
        spec: JobSpec,
        out: &mut Notices,
    ) -> Result<JobId, Refusal> {
        self.check(&spec)?;
        let active = self.jobs.len() - self.finished.len();
        if active >= JOBS_ACTIVE_MAX {
            return Err(Refusal::QueueFull(active));
        }
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.log(
            "job-queued",
            format!("job {id} ({}, {} ranks) was submitted by user {user}", spec.name, spec.ranks),
        );
        self.jobs.insert(
            id,
            Job {
                spec,
                owner,
                user,
                state: JobState::Queued,
                number: 0,
                shares: Vec::new(),
                stop: None,
                exit_code: None,
                reason: None,
                submitted: self.now,
                started: None,
                ended: None,
            },
        );
        self.queue.push_back(id);
        self.schedule(out);
        Ok(id)
    }

    fn check(&self, spec: &JobSpec) -> Result<(), Refusal> {
        let bad = |text: String| Err(Refusal::BadJob(text));
        if spec.argv.first().is_none_or(String::is_empty) {
            return bad("no program was named".into());
        }
        if spec.name.is_empty()
            || spec.name.chars().count() > NAME_MAX
            || spec.name.chars().any(char::is_control)
        {
            return bad(format!(
                "a job's name must be 1 to {NAME_MAX} printable characters; choose one with --name"
            ));
        }
        if spec.ranks == 0 || spec.ranks_per_node == Some(0) {
            return bad("a job needs at least 1 rank, and at least 1 on each node".into());
        }
        if !spec.cwd.starts_with('/') {
            return bad(format!("the working directory {:?} is not an absolute path", spec.cwd));
        }
        let listed = || self.nodes.iter().filter(|(_, n)| n.cores > 0);
        let fits =
            allocate::first_fit(listed().map(|(id, n)| (*id, n.cores)), spec.ranks, spec.ranks_per_node);
        if fits.is_none() {
            let cores: u32 = listed().map(|(_, n)| n.cores).sum();
            let spread = spec.ranks_per_node.map_or(String::new(), |p| format!(" at {p} to a node"));
            return bad(format!(
                "{} ranks{spread} do not fit: the cluster has {cores} cores on {} nodes; ask for fewer ranks (-n) or start a larger cluster (`ghidrah nodes` shows what there is)",
                spec.ranks,
                listed().count(),
            ));
        }
        Ok(())
    }

    /// Starts waiting jobs, first come first, as long as the first one fits.
    fn schedule(&mut self, out: &mut Notices) {
        while let Some(&id) = self.queue.front() {
            let job = &self.jobs[&id];
            let free = self.nodes.iter().map(|(n, node)| (*n, node.free()));
            let Some(parts) = allocate::first_fit(free, job.spec.ranks, job.spec.ranks_per_node) else {
                return;
            };
            self.queue.pop_front();
            self.start(id, parts, out);
        }
    }

    fn start(&mut self, id: JobId, parts: Vec<Part>, out: &mut Notices) {
        for part in &parts {
            self.node_mut(part.node).used.insert(id, part.ranks);
        }
        let incarnations: Vec<Incarnation> = parts.iter().map(|p| self.nodes[&p.node].incarnation).collect();
        let job = self.jobs.get_mut(&id).expect("a queued job is in the TaskDB");
        job.state = JobState::Starting;
        job.shares = parts
            .iter()
            .zip(&incarnations)
            .map(|(part, &incarnation)| Share { part: part.clone(), incarnation, progress: Progress::Told })
            .collect();
        let (attempt, spec) = (job.attempt(id), job.spec.clone());
        for (part, incarnation) in parts.iter().zip(incarnations) {
            let launch = Notice::Launch { attempt, incarnation, spec: spec.clone(), parts: parts.clone() };
            out.push((Role::Agent(part.node).peer(), launch));
        }
        let nodes = parts.iter().map(|p| p.node.to_string()).collect::<Vec<_>>().join(", ");
        self.log("job-starting", format!("job {id} starts on {nodes}"));
        self.tell_owner(id, out);
    }

    fn part_started(&mut self, node: NodeId, attempt: Attempt, out: &mut Notices) {
        if !self.of_this_attempt(node, attempt) {
            return;
        }
        let now = self.now;
        let job = self.jobs.get_mut(&attempt.job).expect("of_this_attempt found it");
        let share = job.live_share(node).expect("of_this_attempt found it");
        share.progress = Progress::Started;
        if job.state == JobState::Starting && job.shares.iter().all(|s| s.progress != Progress::Told) {
            job.state = JobState::Running;
            job.started = Some(now);
            self.log("job-running", format!("job {} runs", attempt.job));
            self.tell_owner(attempt.job, out);
        }
    }

    /// Ends a job's attempt: at once if it waits, else by killing what runs; then it becomes `then`.
    /// The first reason given stands.
    fn stop(&mut self, id: JobId, then: JobState, code: i32, reason: String, out: &mut Notices) {
        let job = self.jobs.get_mut(&id).expect("callers looked it up");
        if job.state.is_final() {
            return;
        }
        if let Some(stop) = &mut job.stop {
            // A user's cancel overrules a requeue that is under way.
            if then == JobState::Cancelled && stop.then == JobState::Queued {
                *stop = Stop { then, code, reason };
            }
            return;
        }
        let text = format!("job {id} is being ended: {reason}");
        job.stop = Some(Stop { then, code, reason: reason.clone() });
        if job.state == JobState::Queued {
            self.queue.retain(|q| *q != id);
            self.finish_if_ended(id, out);
            self.schedule(out); // The next in line may fit.
            return;
        }
        job.state = JobState::Ending;
        let attempt = job.attempt(id);
        for share in job.shares.iter().filter(|s| s.progress != Progress::Ended) {
            let kill = Notice::Kill { attempt, reason: reason.clone() };
            out.push((Role::Agent(share.part.node).peer(), kill));
        }
        self.log("job-ending", text);
        self.tell_owner(id, out);
        self.finish_if_ended(id, out);
    }

    fn part_ended(&mut self, node: NodeId, id: JobId, out: &mut Notices) {
        let job = self.jobs.get_mut(&id).expect("callers looked it up");
        let Some(share) = job.live_share(node) else { return };
        share.progress = Progress::Ended;
        self.node_mut(node).used.remove(&id);
        self.finish_if_ended(id, out);
        self.schedule(out);
    }

    fn finish_if_ended(&mut self, id: JobId, out: &mut Notices) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("callers looked it up");
        if !job.all_ended() {
            return;
        }
        let stop = job.stop.take();
        let (state, code, reason) = match stop {
            None => (JobState::Done, 0, None),
            Some(s) => (s.then, s.code, Some(s.reason)),
        };
        job.state = state;
        job.reason = reason;
        if state == JobState::Queued {
            job.number += 1;
            job.shares.clear();
            job.started = None;
            let text = format!("job {id} is queued again: {}", job.reason.as_deref().unwrap_or_default());
            // At the head, where it stood before: it came before whoever waits now.
            self.queue.push_front(id);
            self.log("job-requeued", text);
            self.tell_owner(id, out);
            return;
        }
        job.ended = Some(now);
        job.exit_code = Some(code);
        // It may hold secrets, it is most of a job's bytes, and nobody needs it any more.
        job.spec.env = Vec::new();
        let text = match &job.reason {
            None => format!("job {id} is done"),
            Some(reason) => format!("job {id} {state}: {reason}"),
        };
        self.log(if state == JobState::Done { "job-done" } else { "job-ended" }, text);
        self.tell_owner(id, out);
        self.finished.push_back(id);
        if self.finished.len() > JOBS_FINISHED_MAX
            && let Some(oldest) = self.finished.pop_front()
        {
            self.jobs.remove(&oldest);
        }
    }

    /// Stops every attempt with a live share on `node`, whose processes are lost or about to be.
    fn shares_lost(&mut self, node: NodeId, why: &str, out: &mut Notices) {
        let ids: Vec<JobId> = self.nodes[&node].used.keys().copied().collect();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let Some(share) = job.live_share(node) else { continue };
            let first = share.part.first_rank;
            let last = first + share.part.ranks - 1;
            let ranks = if first == last { format!("rank {first}") } else { format!("ranks {first}-{last}") };
            let then = if job.spec.requeue { JobState::Queued } else { JobState::Failed };
            let advice = if job.spec.requeue { "" } else { "; --requeue would have run it again" };
            self.stop(id, then, 1, format!("{why} with {ranks} of it{advice}"), out);
        }
    }

    /// Notes that no process of any earlier attempt is left on `node`.
    fn shares_ended(&mut self, node: NodeId, out: &mut Notices) {
        let ids: Vec<JobId> = self.nodes[&node].used.keys().copied().collect();
        for id in ids {
            self.part_ended(node, id, out);
        }
    }

    /// Whether `node`'s present agent has a live share of exactly this attempt.
    fn of_this_attempt(&mut self, node: NodeId, attempt: Attempt) -> bool {
        let incarnation = self.nodes[&node].incarnation;
        self.jobs.get_mut(&attempt.job).is_some_and(|job| {
            job.number == attempt.number && job.live_share(node).is_some_and(|s| s.incarnation == incarnation)
        })
    }

    /// Tells the user who waits for the job at a terminal; whoever submitted and left asks later.
    fn tell_owner(&self, id: JobId, out: &mut Notices) {
        let job = &self.jobs[&id];
        if matches!(job.spec.output, Output::Stream { .. }) {
            out.push((job.owner, Notice::JobChanged(job.view(id))));
        }
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("every caller has a node of the roster")
    }

    fn log(&mut self, kind: &str, text: String) {
        self.events.push_back(EventView {
            seq: self.next_event,
            time_ns: self.now.as_nanos(),
            kind: kind.to_owned(),
            text,
        });
        self.next_event += 1;
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
}

fn not_allowed(who: &str, op: &Op) -> Refusal {
    let what = match op {
        Op::Join { .. } => "join",
        Op::Pong { .. } => "answer a ping",
        Op::PartStarted(_) | Op::PartFailed { .. } | Op::PartEnded { .. } | Op::ListenerGone(_) => {
            "report on a job's ranks"
        }
        Op::Outvoted { .. } | Op::ManagerExited { .. } => "report on a manager",
        Op::Suspect { .. } => "suspect a node",
        Op::Suppresses { .. } => "say what a bundler keeps back",
        Op::ViewInstalled { .. } => "announce a view",
        Op::ResetDone { .. } => "confirm a reset",
        Op::Submit(_) => "submit a job",
        Op::Cancel(_) => "cancel a job",
        Op::Query(_) => "query",
    };
    Refusal::NotAllowed(format!("{who} may not {what}"))
}

#[cfg(test)]
mod tests;
