//! Process management and local ProcessDB (dissertation 7.1.2.2): the parts of jobs that run on this node.

use super::sink::{Sink, Trouble};
use crate::class::Class;
use crate::config::Config;
use crate::daemon;
use crate::keys::Keyring;
use crate::launch::{Group, RankCommand, RankProcess};
use crate::link::Link;
use crate::output::{CHUNK_MAX, Chunk, Lines, Message, Stream};
use cl::runtime::{Core, Interest, Readiness, Token};
use cl_base::{PeerId, Time, codec};
use cmm_core::api::{Attempt, JobSpec, Op, Part};
use cmm_core::identity::{NodeId, Role};
use cmm_core::part::PartState;
use cmm_core::pmi::{Action, NodeMessage, NodePmi};
use mml::Sequence;
use rustix::process::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

type Cx = Core<()>;

/// Ranks that are to end get this long to do so by themselves.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Processes that a job's ranks left behind are looked for this often until none is left.
const STRAGGLER_POLL: Duration = Duration::from_millis(20);
/// An incomplete line is passed on after this.
const LINE_WAIT: Duration = Duration::from_millis(100);
/// What other agents were told of the key exchange is repeated this often until they answer.
const PMI_RESEND: Duration = Duration::from_secs(1);
/// Messages for attempts that this agent has not been told to start yet.
const EARLY_MAX: usize = 256;
/// Attempts whose part here has ended while other nodes may still send output for the file.
const LINGERING_MAX: usize = 64;

/// What MPICH needs to be told where all "nodes" are one machine's loopback addresses. Each library ignores
/// the other's variables; what the user sets wins.
const LOOPBACK_ENV: [(&str, &str); 4] = [
    ("MPIR_CVAR_CH4_NETMOD", "ofi"),
    ("FI_PROVIDER", "tcp"),
    ("FI_TCP_IFACE", "lo"),
    ("UCX_NET_DEVICES", "lo"),
];
/// MPICH's ranks spin while they wait. Where several share a node that may have fewer processors, this makes
/// them let each other run.
const SHARED_NODE_ENV: [(&str, &str); 2] =
    [("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "1"), ("MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT", "64")];

/// A descriptor of a rank that is watched.
#[derive(Clone, Copy, Debug)]
enum Source {
    Output(Stream),
    Pmi,
}

struct Pipe {
    file: File,
    token: Token,
    lines: Lines,
    /// There may be something to read that was left for want of room.
    ready: bool,
    open: bool,
    flush_at: Option<Time>,
}

struct Rank {
    process: RankProcess,
    exited: bool,
    pipes: BTreeMap<Stream, Pipe>,
    pmi: Option<(UnixStream, Token)>,
}

struct Job {
    parts: Vec<Part>,
    state: PartState,
    pmi: NodePmi,
    pmi_resend_at: Option<Time>,
    group: Group,
    sink: Sink,
    /// Bytes of output taken from the other agents, for the file that this one writes.
    taken: BTreeMap<PeerId, u64>,
    ranks: BTreeMap<u32, Rank>,
    /// Told to end; killed at that time if it has not.
    kill_at: Option<Time>,
    stragglers_at: Option<Time>,
}

/// The output file of an attempt whose part here has ended.
struct Lingering {
    attempt: Attempt,
    parts: Vec<Part>,
    sink: Sink,
    taken: BTreeMap<PeerId, u64>,
}

/// See the module.
pub(super) struct Jobs {
    node: NodeId,
    cluster: String,
    cluster_tag: String,
    loopback: bool,
    jobs: BTreeMap<Attempt, Job>,
    lingering: VecDeque<Lingering>,
    early: VecDeque<(PeerId, Class, Vec<u8>)>,
    tokens: BTreeMap<Token, (Attempt, u32, Source)>,
    ops: VecDeque<Op>,
}

impl Jobs {
    pub(super) fn new(config: &Config, keyring: &Keyring, node: NodeId) -> Jobs {
        let address = daemon::address(keyring, Role::Agent(node));
        Jobs {
            node,
            cluster: config.process_group(),
            cluster_tag: keyring.cluster()[..8].iter().map(|b| format!("{b:02x}")).collect(),
            loopback: address.is_ok_and(|a| a.ip().is_loopback()),
            jobs: BTreeMap::new(),
            lingering: VecDeque::new(),
            early: VecDeque::new(),
            tokens: BTreeMap::new(),
            ops: VecDeque::new(),
        }
    }

    /// The next thing to tell the managers.
    pub(super) fn poll(&mut self) -> Option<Op> {
        self.ops.pop_front()
    }

    // ---- commands of the managers ----

    /// Starts this node's part of an attempt. Said again, it changes nothing.
    pub(super) fn launch(
        &mut self,
        cx: &mut Cx,
        link: &mut Link,
        attempt: Attempt,
        spec: JobSpec,
        parts: Vec<Part>,
    ) {
        if self.jobs.contains_key(&attempt) {
            return;
        }
        let Some(index) = parts.iter().position(|p| p.node == self.node) else {
            tracing::error!(%attempt, "told to start a job that has no part here");
            return;
        };
        tracing::info!(%attempt, program = %spec.argv[0], part = ?parts[index], "launch");
        let part = parts[index].clone();
        let lead = Role::Agent(parts[0].node).peer();
        let (sink, trouble) = Sink::open(cx, link, attempt, &spec.output, lead);
        let mut job = Job {
            state: PartState::new(attempt, &part),
            pmi: NodePmi::new(&self.cluster_tag, attempt, &parts, index),
            pmi_resend_at: None,
            group: Group::job(&self.cluster, &self.node.to_string(), attempt),
            sink,
            taken: BTreeMap::new(),
            ranks: BTreeMap::new(),
            kill_at: None,
            stragglers_at: None,
            parts,
        };
        match trouble {
            Some(trouble) => {
                self.ops.extend(report(&mut job.state, attempt, trouble));
                job.state.kill();
            }
            None => {
                for rank in part.first_rank..part.first_rank + part.ranks {
                    let op = match self.start_rank(cx, &mut job, attempt, rank, &spec) {
                        Ok(()) => job.state.rank_started(rank),
                        Err((code, reason)) => job.state.rank_not_started(rank, code, reason),
                    };
                    self.ops.extend(op);
                    if job.state.is_stopping() {
                        break;
                    }
                }
            }
        }
        self.jobs.insert(attempt, job);
        self.check(cx, attempt);
        for (from, class, body) in std::mem::take(&mut self.early) {
            match class {
                Class::Pmi => self.on_pmi_message(cx, link, from, &body),
                _ => self.on_output(cx, link, from, &body),
            }
        }
    }

    /// Ends every process of an attempt here.
    pub(super) fn kill(&mut self, cx: &mut Cx, attempt: Attempt, reason: &str) {
        match self.jobs.get_mut(&attempt) {
            Some(job) => {
                tracing::info!(%attempt, reason, "kill");
                job.state.kill();
                self.check(cx, attempt);
            }
            // Never started, or long gone.
            None => self.ops.push_back(Op::PartEnded { attempt }),
        }
    }

    /// Ends everything at once, to go down.
    pub(super) fn kill_everything(&mut self) {
        for job in self.jobs.values_mut() {
            job.group.kill_now();
        }
        for (attempt, job) in std::mem::take(&mut self.jobs) {
            if let Err(error) = job.group.kill() {
                tracing::error!(%attempt, %error, "not everything of the job could be ended");
            }
            remove_shared_memory(&job);
            let _ = job.group.remove();
        }
        self.tokens.clear();
    }

    // ---- what the ranks do ----

    pub(super) fn on_ready(&mut self, cx: &mut Cx, link: &mut Link, token: Token, _: Readiness) {
        let Some(&(attempt, rank, source)) = self.tokens.get(&token) else { return };
        match source {
            Source::Output(stream) => self.read_output(cx, link, attempt, rank, stream),
            Source::Pmi => self.read_pmi(cx, link, attempt, rank),
        }
        self.check(cx, attempt);
    }

    /// Some child has ended: sees which ranks have.
    pub(super) fn reap(&mut self, cx: &mut Cx) {
        for attempt in self.attempts() {
            let job = self.jobs.get_mut(&attempt).expect("listed");
            for (number, rank) in job.ranks.iter_mut().filter(|(_, r)| !r.exited) {
                if let Ok(Some(status)) = rank.process.try_wait() {
                    rank.exited = true;
                    tracing::info!(%attempt, rank = number, %status, "rank ended");
                    self.ops.extend(job.state.rank_exited(*number, status));
                }
            }
            self.check(cx, attempt);
        }
    }

    // ---- what other agents and listeners say ----

    /// A message of MPI's key exchange.
    pub(super) fn on_pmi_message(&mut self, cx: &mut Cx, link: &mut Link, from: PeerId, body: &[u8]) {
        let Ok(message) = NodeMessage::decode(body) else { return };
        let attempt = message.attempt;
        let Some(job) = self.jobs.get_mut(&attempt) else {
            return self.keep_early(from, Class::Pmi, body.to_vec());
        };
        if let Some(index) = part_of(&job.parts, from) {
            job.pmi.on_message(index, message);
            self.drain_pmi(cx, link, attempt);
            self.check(cx, attempt);
        }
    }

    /// Output of a job's ranks on another node, for the file that this agent writes; or word that the other
    /// side is done with some of ours.
    pub(super) fn on_output(&mut self, cx: &mut Cx, link: &mut Link, from: PeerId, body: &[u8]) {
        match codec::decode(body) {
            Ok(Message::Chunk(chunk)) => self.on_chunk(cx, link, from, chunk),
            Ok(Message::Consumed { attempt, total }) => {
                let Some(job) = self.jobs.get_mut(&attempt).filter(|j| j.sink.goes_to(from)) else { return };
                job.sink.consumed(total);
                self.read_on(cx, link, attempt);
                self.check(cx, attempt);
            }
            Err(error) => tracing::debug!(%from, %error, "malformed output"),
        }
    }

    fn on_chunk(&mut self, cx: &mut Cx, link: &mut Link, from: PeerId, chunk: Chunk) {
        let (attempt, len) = (chunk.attempt, chunk.bytes.len() as u64);
        let (parts, sink, taken) = if let Some(job) = self.jobs.get_mut(&attempt) {
            (&job.parts, &mut job.sink, &mut job.taken)
        } else if let Some(l) = self.lingering.iter_mut().find(|l| l.attempt == attempt) {
            (&l.parts, &mut l.sink, &mut l.taken)
        } else {
            return self.keep_early(from, Class::Output, codec::encode(&Message::Chunk(chunk)));
        };
        if part_of(parts, from).is_none() {
            return;
        }
        let trouble = sink.write(cx, link, chunk);
        let total = taken.entry(from).or_default();
        *total += len;
        let consumed = codec::encode(&Message::Consumed { attempt, total: *total });
        if let Err(error) = link.send_acknowledged(cx, from, Class::Output, &consumed) {
            tracing::warn!(%from, %error, "cannot say that output was written");
        }
        if let Some(trouble) = trouble {
            match self.jobs.get_mut(&attempt) {
                Some(job) => self.ops.extend(report(&mut job.state, attempt, trouble)),
                None => tracing::error!(%attempt, ?trouble, "the end of the output is lost"),
            }
            self.check(cx, attempt);
        }
    }

    /// A message has arrived: there may be room for what waits.
    pub(super) fn delivered(&mut self, cx: &mut Cx, link: &mut Link, peer: PeerId, sequence: Sequence) {
        for (attempt, job) in &mut self.jobs {
            if job.sink.goes_to(peer) && job.sink.delivered(sequence) {
                if let Some(trouble) = job.sink.retry(cx, link) {
                    self.ops.extend(report(&mut job.state, *attempt, trouble));
                }
                return;
            }
        }
    }

    /// A piece of output was given up.
    pub(super) fn failed(&mut self, cx: &mut Cx, link: &mut Link, peer: PeerId, sequence: Sequence) {
        for attempt in self.attempts() {
            let job = self.jobs.get_mut(&attempt).expect("listed");
            if job.sink.goes_to(peer)
                && let Some(trouble) = job.sink.failed(sequence)
            {
                self.ops.extend(report(&mut job.state, attempt, trouble));
                self.read_on(cx, link, attempt);
                self.check(cx, attempt);
            }
        }
    }

    // ---- time ----

    /// When [`Jobs::on_timer`] is needed next.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.jobs
            .values()
            .flat_map(|job| {
                let lines = job.ranks.values().flat_map(|r| r.pipes.values().filter_map(|p| p.flush_at));
                lines
                    .chain(job.kill_at)
                    .chain(job.stragglers_at)
                    .chain(job.pmi_resend_at)
                    .chain(job.sink.next_timeout())
            })
            .min()
    }

    pub(super) fn on_timer(&mut self, cx: &mut Cx, link: &mut Link) {
        let now = cx.now();
        for attempt in self.attempts() {
            let job = self.jobs.get_mut(&attempt).expect("listed");
            if job.kill_at.is_some_and(|at| at <= now) {
                job.kill_at = None;
                job.group.kill_now();
                job.stragglers_at = Some(now + STRAGGLER_POLL);
            }
            if job.stragglers_at.is_some_and(|at| at <= now) {
                job.stragglers_at = None;
            }
            if job.pmi_resend_at.is_some_and(|at| at <= now) {
                job.pmi_resend_at = None;
                job.pmi.resend();
            }
            if let Some(trouble) = job.sink.on_timer(cx, link) {
                self.ops.extend(report(&mut job.state, attempt, trouble));
            }
            self.flush_lines(cx, link, attempt, now);
            self.drain_pmi(cx, link, attempt);
            self.check(cx, attempt);
        }
    }

    // ---- within ----

    fn attempts(&self) -> Vec<Attempt> {
        self.jobs.keys().copied().collect()
    }

    fn keep_early(&mut self, from: PeerId, class: Class, body: Vec<u8>) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((from, class, body));
    }

    fn start_rank(
        &mut self,
        cx: &mut Cx,
        job: &mut Job,
        attempt: Attempt,
        rank: u32,
        spec: &JobSpec,
    ) -> Result<(), (i32, String)> {
        let here = job.parts.iter().find(|p| p.node == self.node).map_or(1, |p| p.ranks);
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
        };
        if self.loopback {
            env.extend(own(&LOOPBACK_ENV));
        }
        if here > 1 {
            env.extend(own(&SHARED_NODE_ENV));
        }
        env.extend(spec.env.iter().cloned());
        env.extend(job.group.environment());
        env.extend(job.pmi.environment(rank).map(|(k, v)| (k.to_owned(), v)));
        let command =
            RankCommand { argv: spec.argv.clone(), cwd: PathBuf::from(&spec.cwd), env, cpus: Vec::new() };
        let process = command.spawn(&job.group).map_err(|e| (e.shell_code(), e.to_string()))?;
        let mut watch = |fd: &dyn std::os::fd::AsRawFd, source| {
            let token = cx.register(&fd.as_raw_fd(), Interest::READABLE)?;
            self.tokens.insert(token, (attempt, rank, source));
            Ok::<Token, std::io::Error>(token)
        };
        let watched = || -> std::io::Result<Rank> {
            // Each descriptor is watched, read and given up by the same copy.
            let mut pipe = |file: &File, stream| -> std::io::Result<(Stream, Pipe)> {
                let file = file.try_clone()?;
                let token = watch(&file, Source::Output(stream))?;
                let lines = Lines::default();
                Ok((stream, Pipe { file, token, lines, ready: true, open: true, flush_at: None }))
            };
            let pipes =
                BTreeMap::from([pipe(&process.stdout, Stream::Out)?, pipe(&process.stderr, Stream::Err)?]);
            let stream = process.pmi.try_clone()?;
            let pmi = watch(&stream, Source::Pmi)?;
            Ok(Rank { process, exited: false, pipes, pmi: Some((stream, pmi)) })
        };
        match watched() {
            Ok(started) => {
                job.ranks.insert(rank, started);
                Ok(())
            }
            Err(error) => {
                job.group.kill_now();
                Err((
                    71,
                    format!("cannot be watched: {error}; the node may have too many open files (ulimit -n)"),
                ))
            }
        }
    }

    /// Reads a stream as far as there is room for its contents.
    fn read_output(&mut self, cx: &mut Cx, link: &mut Link, attempt: Attempt, rank: u32, stream: Stream) {
        let Some(job) = self.jobs.get_mut(&attempt) else { return };
        let Some(pipe) = job.ranks.get_mut(&rank).and_then(|r| r.pipes.get_mut(&stream)) else { return };
        pipe.ready = true;
        // What ends the line may be in the pipe, however long it stays there for want of room.
        pipe.flush_at = None;
        let mut buffer = [0; CHUNK_MAX];
        while pipe.open && job.sink.has_room() {
            let bytes = match pipe.file.read(&mut buffer) {
                Ok(0) => {
                    pipe.open = false;
                    let _ = cx.deregister(&pipe.file, pipe.token);
                    self.tokens.remove(&pipe.token);
                    pipe.lines.take()
                }
                Ok(n) => pipe.lines.push(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    pipe.ready = false;
                    if !pipe.lines.is_empty() {
                        pipe.flush_at = Some(cx.now() + LINE_WAIT);
                    }
                    return;
                }
            };
            if !bytes.is_empty()
                && let Some(trouble) = job.sink.write(cx, link, Chunk { attempt, rank, stream, bytes })
            {
                self.ops.extend(report(&mut job.state, attempt, trouble));
            }
        }
    }

    /// Reads on where reading stopped for want of room.
    fn read_on(&mut self, cx: &mut Cx, link: &mut Link, attempt: Attempt) {
        let Some(job) = self.jobs.get(&attempt) else { return };
        let left: Vec<(u32, Stream)> = job
            .ranks
            .iter()
            .flat_map(|(r, rank)| rank.pipes.iter().filter(|(_, p)| p.ready && p.open).map(|(s, _)| (*r, *s)))
            .collect();
        for (rank, stream) in left {
            self.read_output(cx, link, attempt, rank, stream);
        }
    }

    fn flush_lines(&mut self, cx: &mut Cx, link: &mut Link, attempt: Attempt, now: Time) {
        let Some(job) = self.jobs.get_mut(&attempt) else { return };
        for (number, rank) in &mut job.ranks {
            for (stream, pipe) in &mut rank.pipes {
                if pipe.flush_at.is_none_or(|at| at > now) {
                    continue;
                }
                pipe.flush_at = None;
                let chunk = Chunk { attempt, rank: *number, stream: *stream, bytes: pipe.lines.take() };
                if let Some(trouble) = job.sink.write(cx, link, chunk) {
                    self.ops.extend(report(&mut job.state, attempt, trouble));
                }
            }
        }
    }

    fn read_pmi(&mut self, cx: &mut Cx, link: &mut Link, attempt: Attempt, number: u32) {
        let Some(job) = self.jobs.get_mut(&attempt) else { return };
        let Some(rank) = job.ranks.get_mut(&number) else { return };
        let mut buffer = [0; 4096];
        while let Some((stream, token)) = &mut rank.pmi {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    job.pmi.on_close(number);
                    let _ = cx.deregister(stream, *token);
                    self.tokens.remove(token);
                    rank.pmi = None;
                }
                Ok(n) => job.pmi.on_bytes(number, &buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.drain_pmi(cx, link, attempt);
    }

    fn drain_pmi(&mut self, cx: &mut Cx, link: &mut Link, attempt: Attempt) {
        let Some(job) = self.jobs.get_mut(&attempt) else { return };
        while let Some(action) = job.pmi.poll_action() {
            match action {
                Action::Reply { rank, bytes } => {
                    let stream = job.ranks.get_mut(&rank).and_then(|r| r.pmi.as_mut());
                    // A rank asks one thing at a time, so an answer always finds room.
                    if let Some(Err(error)) = stream.map(|(s, _)| s.write_all(&bytes)) {
                        tracing::warn!(%attempt, rank, %error, "the rank does not take its PMI answer");
                    }
                }
                Action::Send { to, message } => {
                    let peer = Role::Agent(job.parts[to].node).peer();
                    if let Err(error) = link.send_acknowledged(cx, peer, Class::Pmi, &message.encode()) {
                        tracing::debug!(%peer, %error, "key exchange not sent; it will be repeated");
                    }
                }
                Action::Initialized { rank } => job.state.rank_in_mpi(rank, true),
                Action::Finalized { rank } => job.state.rank_in_mpi(rank, false),
                Action::Abort { rank, code, message } => {
                    let reason = if message.is_empty() { String::new() } else { format!(": {message}") };
                    let code = if code == 0 { 1 } else { code };
                    self.ops.extend(job.state.failed(Some(rank), code, format!("MPI_Abort({code}){reason}")));
                }
            }
        }
        if job.pmi.is_waiting() {
            job.pmi_resend_at.get_or_insert(cx.now() + PMI_RESEND);
        } else {
            job.pmi_resend_at = None;
        }
    }

    /// Moves a part on: ends what is to end, and reports it gone when it is.
    fn check(&mut self, cx: &mut Cx, attempt: Attempt) {
        let Some(job) = self.jobs.get_mut(&attempt) else { return };
        let now = cx.now();
        if !job.state.all_exited() {
            if job.state.is_stopping() && job.kill_at.is_none() && job.stragglers_at.is_none() {
                job.group.signal(Signal::TERM);
                // A stopped process would not see it otherwise.
                job.group.signal(Signal::CONT);
                job.kill_at = Some(now + TERM_GRACE);
            }
            return;
        }
        job.kill_at = None;
        if job.stragglers_at.is_some() {
            return;
        }
        if !job.group.pids().is_empty() {
            job.group.kill_now();
            job.stragglers_at = Some(now + STRAGGLER_POLL);
            return;
        }
        let read = job.ranks.values().all(|r| r.pipes.values().all(|p| !p.open));
        if !read || !job.sink.is_drained() {
            return;
        }
        let Some(mut job) = self.jobs.remove(&attempt) else { return };
        self.ops.extend(job.state.gone());
        for rank in job.ranks.values_mut() {
            if let Some((stream, token)) = rank.pmi.take() {
                let _ = cx.deregister(&stream, token);
                self.tokens.remove(&token);
            }
        }
        remove_shared_memory(&job);
        if let Err(error) = job.group.remove() {
            tracing::debug!(%attempt, %error, "the control group stays");
        }
        tracing::info!(%attempt, "nothing of it is left here");
        if job.parts.len() > 1 && job.parts[0].node == self.node {
            if self.lingering.len() == LINGERING_MAX {
                self.lingering.pop_front();
            }
            let Job { parts, sink, taken, .. } = job;
            self.lingering.push_back(Lingering { attempt, parts, sink, taken });
        }
    }
}

/// Removes what killed ranks could not: MPICH's shared memory of this node.
fn remove_shared_memory(job: &Job) {
    // Usually it is gone already.
    let _ = std::fs::remove_file(job.pmi.shared_memory_file());
}

/// The index of the part whose agent `peer` is.
fn part_of(parts: &[Part], peer: PeerId) -> Option<usize> {
    let node = daemon::agent_node(peer)?;
    parts.iter().position(|p| p.node == node)
}

fn report(state: &mut PartState, attempt: Attempt, trouble: Trouble) -> Option<Op> {
    match trouble {
        Trouble::ListenerGone => {
            tracing::warn!(%attempt, "nobody listens to the output any more");
            Some(Op::ListenerGone(attempt))
        }
        Trouble::Lost(reason) => {
            tracing::warn!(%attempt, reason, "output lost");
            state.failed(None, 74, reason)
        }
    }
}
