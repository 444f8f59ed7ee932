//! `demo`: the main job, end to end, for a person to follow. A cluster bootstraps itself, an MPI program runs
//! on it, somebody important is killed meanwhile, and the program finishes with the right answer.

use super::args::{DemoArgs, Victim};
use super::query::{agreed_view, all_nodes, events_from, one_job};
use super::updown::{self, Progress};
use super::{Failure, Outcome, ask, render};
use crate::config::Config;
use crate::launch::Group;
use crate::layout::Layout;
use crate::local;
use crate::manager::ManagerStatus;
use crate::output::Stream;
use crate::user::{Heard, User};
use cl::Clock;
use cl::runtime::{self, Signals};
use cmm_core::api::{JobId, JobSpec, JobState, JobView, NodeState, Op, Output, Reply};
use cmm_core::identity::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The program: numerical integration of pi with an exact checksum over all rounds and ranks.
const PROGRAM: &str = include_str!("../../../tests/programs/pi.c");
const RANKS: u32 = 4;
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The promise: so soon after the kill the managers take submissions again.
const SERVICE_WITHIN: Duration = Duration::from_secs(2);
/// How long a reset node may take to be back.
const REJOIN_PATIENCE: Duration = Duration::from_secs(30);
/// The exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// How long a killed manager may take to be back.
const RETURN_PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn demo(layout: Layout, args: &DemoArgs) -> Outcome {
    let story = Story::new()?;
    let scratch = std::env::temp_dir().join(format!("ghidrah-demo-{}", std::process::id()));
    let given = layout.root() != Layout::default_root();
    let layout = if given { layout } else { Layout::new(scratch.join("cluster")) };
    std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let program = match &args.program {
        Some(program) => std::path::absolute(program).map_err(|e| format!("{}: {e}", program.display()))?,
        None => compile(&story, &scratch)?,
    };
    let config = local::create(&layout, "demo", args.nodes, 1)?;
    let outcome = tell(&story, &layout, &config, &program, args);
    if args.keep {
        story.say(&format!(
            "the cluster runs on in {}; `ghidrah --dir {0} down --purge` removes it",
            layout.root().display()
        ));
        return outcome;
    }
    let stopped = local::stop(&layout, &config);
    let failed = outcome.as_ref().is_err_and(|failure| failure.code != INTERRUPTED);
    if failed || stopped.is_err() {
        story.say(&format!("the logs are left in {}", layout.root().display()));
    } else {
        story.say("the cluster is down; nothing of it runs any more");
        let _ = std::fs::remove_dir_all(&scratch);
        let _ = std::fs::remove_dir_all(layout.root());
    }
    stopped?;
    outcome
}

fn tell(story: &Story, layout: &Layout, config: &Config, program: &Path, args: &DemoArgs) -> Outcome {
    // Act 1: the cluster elects its managers.
    story.say(&format!("starting {} nodes, each a process tree of its own with one core", args.nodes));
    let user = updown::start_and_wait(layout, config, START_PATIENCE)?;
    let managers = user.managers(Duration::from_secs(2))?;
    let (view, primary) =
        agreed_view(&managers).ok_or_else(|| failed("no view that two managers agree on"))?;
    story.say(&format!("bootstrapped: view {view}; {}", roles(&managers)));

    // Act 2: an MPI program starts.
    let seconds = args.seconds.to_string();
    let argv = vec![text(program)?, seconds];
    let id = submit(&user, "pi", argv, RANKS, user.listener())?;
    let mut job =
        follow(story, &user, id, None, |j| j.state != JobState::Queued && j.state != JobState::Starting)?;
    if job.state != JobState::Running {
        return Err(failed(&format!("the job did not start: {}", job.reason.unwrap_or_default())));
    }
    let ran_since = Instant::now();
    story.say(&format!("job {id}: {RANKS} MPI ranks run on {}", render::nodes_short(&job.nodes)));
    let half = Duration::from_secs(u64::from(args.seconds)) / 2;
    job = follow(story, &user, id, Some(ran_since + half), |j| j.state.is_final())?;
    if job.state.is_final() {
        return Err(failed(&format!("the job ended too early, {}", job.state)));
    }

    // Act 3: somebody dies in the middle of it.
    let managers = user.managers(Duration::from_secs(2))?;
    let (_, primary) = agreed_view(&managers).unwrap_or((view, primary));
    let victim = kill(story, config, &managers, primary, &job, args.kill)?;
    let killed = Instant::now();

    // Act 4: the managers go on.
    let output = std::env::temp_dir().join(format!("ghidrah-demo-{}.out", std::process::id()));
    let argv = vec!["/bin/hostname".to_owned()];
    let second = submit(&user, "hostname", argv, 1, Output::File { path: text(&output)? })?;
    let gap = killed.elapsed();
    story.say(&format!(
        "job {second} was submitted and accepted {:.0} ms after the kill",
        gap.as_secs_f64() * 1e3
    ));
    if gap > SERVICE_WITHIN {
        return Err(failed(&format!("the managers took {gap:?} to answer; promised are {SERVICE_WITHIN:?}")));
    }
    if args.kill == Victim::Primary {
        let (view, new) = await_primary(&user, victim)?;
        story.say(&format!("view {view}: the primary was {victim}, it is now {new}"));
    }

    // Act 5: the job ends as it should.
    job = follow(story, &user, id, None, |j| j.state.is_final())?;
    let lost_rank = args.kill == Victim::Node;
    match (job.state, lost_rank) {
        (JobState::Done, false) => {
            story.say(&format!(
                "job {id} is done, exit code 0, after {:.1} s",
                ran_since.elapsed().as_secs_f64()
            ));
        }
        (JobState::Failed, true) => {
            story.say(&format!("job {id} was reported failed: {}", job.reason.unwrap_or_default()));
        }
        (state, _) => {
            return Err(failed(&format!("job {id} is {state}: {}", job.reason.unwrap_or_default())));
        }
    }
    let other = wait_for_job(story, &user, second)?;
    let written = std::fs::read_to_string(&output).unwrap_or_default();
    let _ = std::fs::remove_file(&output);
    if other.state != JobState::Done || written.trim().is_empty() {
        return Err(failed(&format!("job {second} is {} and wrote {written:?}", other.state)));
    }
    story.say(&format!("job {second} is done as well"));

    // Act 6: the wounded come back.
    match args.kill {
        Victim::Primary | Victim::Backup => await_return(story, &user, victim)?,
        Victim::Node => await_rejoin(story, &user, victim)?,
    }
    line("\nThe managers' own log of it:");
    for event in events_from(&user, 0)?.iter().filter(|e| !e.kind.starts_with("node-up")) {
        line(&format!("  {}", render::event(event)));
    }
    line("");
    Ok(())
}

fn compile(story: &Story, scratch: &Path) -> Result<PathBuf, Failure> {
    let source = scratch.join("pi.c");
    let program = scratch.join("pi");
    std::fs::write(&source, PROGRAM).map_err(|e| format!("{}: {e}", source.display()))?;
    let mpicc = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".to_owned());
    let output = Command::new(&mpicc)
        .args(["-O2", "-D_DEFAULT_SOURCE"])
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .arg("-lm")
        .output()
        .map_err(|e| {
            format!("cannot run the MPI compiler {mpicc}: {e}; install one (Debian: apt-get install mpich), or name it in $MPICC")
        })?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{mpicc} cannot compile the demonstration program:\n{errors}").into());
    }
    story.say(&format!("compiled an MPI program, unaware of Ghidrah, with {mpicc}"));
    Ok(program)
}

fn submit(user: &User, name: &str, argv: Vec<String>, ranks: u32, output: Output) -> Result<JobId, Failure> {
    let spec = JobSpec {
        name: name.to_owned(),
        argv,
        env: std::env::vars().filter(|(k, _)| k == "PATH" || k == "HOME" || k == "LD_LIBRARY_PATH").collect(),
        cwd: "/".to_owned(),
        ranks,
        ranks_per_node: Some(1),
        requeue: false,
        output,
    };
    match ask(user, Op::Submit(spec))? {
        Reply::Submitted(id) => Ok(id),
        other => Err(super::query::unexpected(&other)),
    }
}

/// Shows a job's output until `done` or until the deadline.
fn follow(
    story: &Story,
    user: &User,
    id: JobId,
    deadline: Option<Instant>,
    done: impl Fn(&JobView) -> bool,
) -> Result<JobView, Failure> {
    let mut checked = Instant::now();
    let mut job = one_job(user, id)?;
    while !done(&job) && deadline.is_none_or(|d| Instant::now() < d) {
        story.check()?;
        match user.hear(Duration::from_millis(50)) {
            Some(Heard::Output(from, chunk)) => {
                let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
                for line in text.lines() {
                    story.output(line, chunk.stream);
                }
                user.consumed(from, &chunk);
            }
            Some(Heard::Job(heard)) if heard.job == id => job = *heard,
            Some(Heard::Job(_)) => {}
            None if checked.elapsed() > Duration::from_secs(1) => {
                checked = Instant::now();
                job = one_job(user, id)?;
            }
            None => {}
        }
    }
    Ok(job)
}

fn kill(
    story: &Story,
    config: &Config,
    managers: &[(NodeId, Option<ManagerStatus>)],
    primary: NodeId,
    job: &JobView,
    victim: Victim,
) -> Result<NodeId, Failure> {
    let status = |wanted: &dyn Fn(&ManagerStatus) -> bool| {
        managers.iter().filter_map(|(_, s)| s.as_ref()).find(|s| wanted(s)).cloned()
    };
    let process = |s: Option<ManagerStatus>, what: &str| -> Result<NodeId, Failure> {
        let s = s.ok_or_else(|| failed(&format!("no {what} to kill")))?;
        let pid = Pid::from_raw(s.pid.cast_signed()).ok_or_else(|| failed("a manager without a process"))?;
        kill_process(pid, Signal::KILL).map_err(|e| format!("kill -9 {}: {e}", s.pid))?;
        story.say(&format!("KILLED the {what} manager on {} (kill -9 {})", s.node, s.pid));
        Ok(s.node)
    };
    match victim {
        Victim::Primary => process(status(&|s| s.node == primary), "primary"),
        Victim::Backup => process(status(&|s| s.role == "backup"), "backup"),
        Victim::Node => {
            // A rank's node that runs no primary, so that it is the node's death that is shown.
            let node = job.nodes.iter().copied().rfind(|n| *n != primary);
            let node = node.ok_or_else(|| failed("no node to kill"))?;
            let group = Group::node(&config.process_group(), &node.to_string());
            let pids = group.pids().len();
            group.kill().map_err(|e| format!("{node}: {e}"))?;
            story.say(&format!("KILLED {node}: kill -9 to all of its {pids} processes"));
            Ok(node)
        }
    }
}

fn await_primary(user: &User, old: NodeId) -> Result<(u64, NodeId), Failure> {
    let progress = Progress::new();
    let deadline = Instant::now() + SERVICE_WITHIN;
    while Instant::now() < deadline {
        if let Ok(managers) = user.managers(Duration::from_millis(300))
            && let Some((view, primary)) = agreed_view(&managers)
            && primary != old
        {
            progress.end();
            return Ok((view, primary));
        }
        progress.say("waiting for the new primary");
    }
    progress.end();
    Err(failed("no new primary was found"))
}

fn await_return(story: &Story, user: &User, node: NodeId) -> Outcome {
    let progress = Progress::new();
    let deadline = Instant::now() + RETURN_PATIENCE;
    while Instant::now() < deadline {
        story.check()?;
        let managers = user.managers(Duration::from_millis(300))?;
        if managers.iter().any(|(n, s)| *n == node && s.as_ref().is_some_and(|s| s.normal)) {
            progress.end();
            story.say(&format!("the manager on {node} is back, with its memory; {}", roles(&managers)));
            return Ok(());
        }
        progress.say(&format!("waiting for the manager on {node} to be back"));
    }
    progress.end();
    Err(failed(&format!("the manager on {node} did not come back within {RETURN_PATIENCE:?}")))
}

fn await_rejoin(story: &Story, user: &User, node: NodeId) -> Outcome {
    let progress = Progress::new();
    let deadline = Instant::now() + REJOIN_PATIENCE;
    while Instant::now() < deadline {
        story.check()?;
        let nodes = all_nodes(user)?;
        if nodes.iter().any(|n| n.node == node && n.state == NodeState::Up && n.resets > 0) {
            progress.end();
            story.say(&format!("the hardcore has reset {node}, and it is part of the cluster again"));
            return Ok(());
        }
        progress.say(&format!("waiting for {node} to be reset and to rejoin"));
        std::thread::sleep(Duration::from_millis(100));
    }
    progress.end();
    Err(failed(&format!("{node} did not rejoin within {REJOIN_PATIENCE:?}")))
}

fn wait_for_job(story: &Story, user: &User, id: JobId) -> Result<JobView, Failure> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        story.check()?;
        let job = one_job(user, id)?;
        if job.state.is_final() || Instant::now() > deadline {
            return Ok(job);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn roles(managers: &[(NodeId, Option<ManagerStatus>)]) -> String {
    let each = managers.iter().map(|(n, s)| match s {
        Some(s) if s.normal => format!("{n} {}", s.role),
        Some(_) => format!("{n} changing view"),
        None => format!("{n} silent"),
    });
    format!("managers: {}", each.collect::<Vec<_>>().join(", "))
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}

fn failed(text: &str) -> Failure {
    format!("the demonstration failed: {text}").into()
}

/// Lines for a person to follow: seconds since the start, time of day, what happened.
struct Story {
    started: Instant,
    signals: Signals,
}

impl Story {
    /// To be made before any thread starts, so that all of them leave these signals to us.
    fn new() -> Result<Story, Failure> {
        use runtime::Signal::{Hangup, Interrupt, Terminate};
        let signals = Signals::new(&[Interrupt, Terminate, Hangup])
            .map_err(|e| format!("cannot receive signals: {e}"))?;
        Ok(Story { started: Instant::now(), signals })
    }

    fn say(&self, what: &str) {
        let clock = render::clock(Clock::new().now().as_nanos());
        line(&format!("[{:7.3} s  {clock}] {what}", self.started.elapsed().as_secs_f64()));
    }

    fn output(&self, text: &str, stream: Stream) {
        let mark = if stream == Stream::Err { "!" } else { "|" };
        line(&format!("{:27}{mark} {text}", ""));
    }

    /// An error if the user has had enough. The cluster has to be stopped first.
    fn check(&self) -> Outcome {
        match self.signals.next() {
            Ok(Some(_)) => Err(Failure { code: INTERRUPTED, text: "interrupted".to_owned() }),
            _ => Ok(()),
        }
    }
}

/// Prints a line. If nobody reads it any more, the cluster has to be stopped all the same.
fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
