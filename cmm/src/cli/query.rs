//! `queue`, `job`, `cancel`, `nodes`, `status`, `events`.

use super::args::{CancelArgs, EventsArgs, JobArgs, JsonArgs, QueueArgs};
use super::{Failure, Outcome, PATIENCE, ask, render};
use crate::daemon;
use crate::layout::Layout;
use crate::manager::ManagerStatus;
use crate::user::User;
use cl::Clock;
use cmm_core::api::{EventView, JobId, JobView, NodeView, Op, Query, Reply};
use cmm_core::identity::NodeId;
use serde::Serialize;
use std::time::Duration;

/// How often `job --wait` and `events --follow` look.
const POLL: Duration = Duration::from_millis(250);
/// How long `status` waits for each manager.
const STATUS_PATIENCE: Duration = Duration::from_millis(800);

pub(super) fn queue(layout: &Layout, args: &QueueArgs) -> Outcome {
    let jobs = all_jobs(&User::connect(layout)?, args.all)?;
    if args.json {
        render::json(&jobs);
    } else {
        print!("{}", render::jobs(&jobs, Clock::new().now()));
    }
    Ok(())
}

pub(super) fn all_jobs(user: &User, all: bool) -> Result<Vec<JobView>, Failure> {
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let from = jobs.last().map_or(JobId(0), |j| JobId(j.job.0 + 1));
        match ask(user, Op::Query(Query::Queue { all, from }))? {
            Reply::Jobs(more) if more.is_empty() => return Ok(jobs),
            Reply::Jobs(more) => jobs.extend(more),
            other => return Err(unexpected(&other)),
        }
    }
}

pub(super) fn one_job(user: &User, id: JobId) -> Result<JobView, Failure> {
    match ask(user, Op::Query(Query::Job(id)))? {
        Reply::Jobs(jobs) if jobs.len() == 1 => Ok(jobs.into_iter().next().expect("there is one")),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn job(layout: &Layout, args: &JobArgs) -> Outcome {
    let user = User::connect(layout)?;
    let mut job = one_job(&user, JobId(args.job))?;
    while args.wait && !job.state.is_final() {
        std::thread::sleep(POLL);
        job = one_job(&user, JobId(args.job))?;
    }
    if args.json {
        render::json(&job);
    } else {
        print!("{}", render::job(&job));
    }
    match job.exit_code.filter(|c| args.wait && *c != 0) {
        Some(code) => Err(Failure { code: exit_code(code), text: String::new() }),
        None => Ok(()),
    }
}

pub(super) fn cancel(layout: &Layout, args: &CancelArgs) -> Outcome {
    let user = User::connect(layout)?;
    let mut cancelled = Vec::new();
    let mut failed = Vec::new();
    for id in &args.jobs {
        match ask(&user, Op::Cancel(JobId(*id))) {
            Ok(Reply::Jobs(jobs)) => cancelled.extend(jobs),
            Ok(other) => failed.push(unexpected(&other).text),
            Err(failure) => failed.push(failure.text),
        }
    }
    if args.json {
        render::json(&cancelled);
    } else {
        for job in &cancelled {
            println!("job {} is {}", job.job, job.state);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\nghidrah: ").into()) }
}

pub(super) fn nodes(layout: &Layout, args: &JsonArgs) -> Outcome {
    let nodes = all_nodes(&User::connect(layout)?)?;
    if args.json {
        render::json(&nodes);
    } else {
        print!("{}", render::nodes(&nodes, Clock::new().now()));
    }
    Ok(())
}

pub(super) fn all_nodes(user: &User) -> Result<Vec<NodeView>, Failure> {
    match ask(user, Op::Query(Query::Nodes))? {
        Reply::Nodes(nodes) => Ok(nodes),
        other => Err(unexpected(&other)),
    }
}

/// The answer of `status --json`.
#[derive(Serialize)]
struct Status {
    /// The view in which most managers that answered work.
    view: Option<u64>,
    /// Its primary.
    primary: Option<NodeId>,
    /// Every manager of the group: its own word, or `null` if it is silent.
    managers: Vec<(NodeId, Option<ManagerStatus>)>,
    /// Nodes that are up, of how many.
    nodes_up: usize,
    nodes: usize,
    jobs_active: usize,
    /// Whether the hardcore runs: without it no dead node is reset.
    hardcore: bool,
}

pub(super) fn status(layout: &Layout, args: &JsonArgs) -> Outcome {
    let user = User::connect(layout)?;
    let hardcore = daemon::running(layout).is_some();
    let managers = user.managers(STATUS_PATIENCE)?;
    let agreed = agreed_view(&managers);
    // The managers' own words come first: they are what one needs when the group does not answer.
    if !args.json {
        match agreed {
            Some((view, primary)) => println!("view {view}, primary {primary}"),
            None => println!("no view that f+1 managers agree on"),
        }
        print!("{}", managers_table(&managers));
        if !hardcore {
            println!(
                "the hardcore does not run: no dead node is reset; `ghidrah down` and `up` bring it back"
            );
        }
    }
    let nodes = all_nodes(&user)?;
    let jobs = all_jobs(&user, false)?;
    let up = nodes.iter().filter(|n| n.state == cmm_core::api::NodeState::Up).count();
    if args.json {
        render::json(&Status {
            view: agreed.map(|a| a.0),
            primary: agreed.map(|a| a.1),
            managers,
            nodes_up: up,
            nodes: nodes.len(),
            jobs_active: jobs.len(),
            hardcore,
        });
    } else {
        println!("{up} of {} nodes up, {} jobs waiting or running", nodes.len(), jobs.len());
    }
    Ok(())
}

/// The highest view, and its primary, that two managers (f+1) say they work in.
pub(super) fn agreed_view(managers: &[(NodeId, Option<ManagerStatus>)]) -> Option<(u64, NodeId)> {
    let normal = || managers.iter().filter_map(|(_, s)| s.as_ref()).filter(|s| s.normal);
    let views = normal()
        .map(|s| (s.view, s.primary))
        .filter(|v| normal().filter(|s| (s.view, s.primary) == *v).count() >= 2);
    views.max()
}

fn managers_table(managers: &[(NodeId, Option<ManagerStatus>)]) -> String {
    let now = Clock::new().now();
    let rows: Vec<Vec<String>> = managers
        .iter()
        .map(|(node, status)| match status {
            None => vec![node.to_string(), "no answer".into()],
            Some(s) => vec![
                node.to_string(),
                if s.normal { s.role.clone() } else { format!("{}, changing view", s.role) },
                s.view.to_string(),
                s.executed.to_string(),
                s.stable.to_string(),
                if s.wide { "wide" } else { "" }.to_owned(),
                s.pid.to_string(),
                render::ago(now, s.since_ns),
            ],
        })
        .collect();
    render::table(&["MANAGER", "ROLE", "VIEW", "EXECUTED", "STABLE", "WIDE", "PID", "UP"], &rows)
}

pub(super) fn events(layout: &Layout, args: &EventsArgs) -> Outcome {
    let user = User::connect(layout)?;
    let mut next = 0;
    let mut first = true;
    loop {
        let mut events = events_from(&user, next)?;
        next = events.last().map_or(next, |e| e.seq + 1);
        if let (true, Some(last)) = (first, args.last) {
            events.drain(..events.len().saturating_sub(last));
        }
        first = false;
        for event in &events {
            if args.json {
                println!("{}", serde_json::to_string(event).expect("events can be written as JSON"));
            } else {
                println!("{}", render::event(event));
            }
        }
        if !args.follow {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

pub(super) fn events_from(user: &User, from: u64) -> Result<Vec<EventView>, Failure> {
    let mut events: Vec<EventView> = Vec::new();
    loop {
        let from = events.last().map_or(from, |e| e.seq + 1);
        match user.ask(Op::Query(Query::Events { from }), PATIENCE)?? {
            Reply::Events(more) if more.is_empty() => return Ok(events),
            Reply::Events(more) => events.extend(more),
            other => return Err(unexpected(&other)),
        }
    }
}

pub(super) fn unexpected(reply: &Reply) -> Failure {
    format!("the managers' answer does not fit the question: {reply:?}").into()
}

/// A job's exit code as a process's: what does not fit is 1.
pub(super) fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}
