//! `run` and `submit`.

use super::args::{JobOptions, RunArgs, SubmitArgs};
use super::query::{exit_code, one_job, unexpected};
use super::{Failure, Outcome, ask, render};
use crate::layout::Layout;
use crate::output::Stream;
use crate::user::{Heard, Unanswered, User};
use cl::runtime::{Signal, Signals};
use cmm_core::api::{JobId, JobSpec, JobState, JobView, Op, Output, Reply};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `run` waits for something to happen before it looks around.
const TICK: Duration = Duration::from_millis(100);
/// How long a submission may take: a cluster that recovers is waited for.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(30);
/// How often `run` asks for its job's state, in case the word of its end was lost.
const CHECK_PERIOD: Duration = Duration::from_secs(2);
/// Variables of this shell that mean nothing, or the wrong thing, to the ranks.
const ENV_DROPPED: [&str; 6] = ["PMI_", "PMIX_", "HYDRA_", "GHIDRAH_", "OMPI_", "SLURM_"];

pub(super) fn run(layout: &Layout, args: RunArgs) -> Outcome {
    // Before any thread starts, so that all of them leave these signals to us.
    let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup])
        .map_err(|e| format!("cannot receive signals: {e}"))?;
    let user = User::connect(layout)?;
    let spec = spec(args.job, user.listener())?;
    let id = submit_job(&user, spec)?;
    let mut follow = Follow { progress: args.progress, state: None, printed: Instant::now(), silent: false };
    let mut checked = Instant::now();
    let mut interrupts = 0;
    let job = loop {
        while let Ok(Some(_)) = signals.next() {
            interrupts += 1;
            if interrupts == 1 {
                eprintln!("ghidrah: cancelling job {id} (again to leave at once)");
                if let Err(failure) = ask(&user, Op::Cancel(id)) {
                    eprintln!("ghidrah: {}", failure.text);
                }
            } else {
                return Err(Failure {
                    code: 130,
                    text: format!("left job {id}; `ghidrah job {id}` shows it"),
                });
            }
        }
        match user.hear(TICK) {
            Some(Heard::Output(from, chunk)) => {
                print(&chunk)?;
                user.consumed(from, &chunk);
            }
            Some(Heard::Job(job)) if job.job == id => {
                follow.show(&job);
                if job.state.is_final() {
                    break *job;
                }
            }
            Some(Heard::Job(_)) => {}
            None if checked.elapsed() >= CHECK_PERIOD => {
                checked = Instant::now();
                // A group that does not answer just now may again soon; the job runs on meanwhile.
                let answer = one_job(&user, id);
                follow.answered(id, answer.is_ok());
                if let Ok(job) = answer {
                    follow.show(&job);
                    if job.state.is_final() {
                        break job;
                    }
                }
            }
            None => {}
        }
    };
    // What was under way when the word of the end overtook it.
    while let Some(heard) = user.hear(Duration::ZERO) {
        if let Heard::Output(_, chunk) = heard {
            print(&chunk)?;
        }
    }
    match (job.state, job.exit_code, job.reason) {
        (JobState::Done, ..) => Ok(()),
        (state, code, reason) => Err(Failure {
            code: exit_code(code.unwrap_or(1)).max(1),
            text: format!("job {id} {state}: {}", reason.unwrap_or_default()),
        }),
    }
}

/// What `submit --json` prints.
#[derive(Serialize)]
struct Submitted {
    job: JobId,
    output: String,
}

pub(super) fn submit(layout: &Layout, args: SubmitArgs) -> Outcome {
    let path = std::path::absolute(&args.output).map_err(|e| format!("{}: {e}", args.output.display()))?;
    let path = utf8(&path)?;
    let user = User::connect(layout)?;
    let spec = spec(args.job, Output::File { path: path.clone() })?;
    let id = submit_job(&user, spec)?;
    let output = path.replace("%j", &id.to_string());
    if args.json {
        render::json(&Submitted { job: id, output });
    } else {
        println!("job {id} submitted; output in {output}");
    }
    Ok(())
}

fn submit_job(user: &User, spec: JobSpec) -> Result<JobId, Failure> {
    match user.ask(Op::Submit(spec), SUBMIT_PATIENCE) {
        Ok(answer) => match answer? {
            Reply::Submitted(id) => Ok(id),
            other => Err(unexpected(&other)),
        },
        Err(error @ Unanswered::NoAnswer(_)) => Err(format!(
            "{error}. The job may have been accepted all the same, and run when they are back: look at `ghidrah queue --all` before you submit it again"
        )
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// The job that the options describe.
fn spec(options: JobOptions, output: Output) -> Result<JobSpec, Failure> {
    let cwd = match options.cwd {
        Some(dir) => std::path::absolute(&dir).map_err(|e| format!("{}: {e}", dir.display()))?,
        None => std::env::current_dir().map_err(|e| format!("the working directory: {e}"))?,
    };
    let name = options.name.unwrap_or_else(|| {
        let program = Path::new(&options.argv[0]);
        let file = program.file_name().map_or(options.argv[0].as_str().into(), |n| n.to_string_lossy());
        file.chars().map(|c| if c.is_control() { '?' } else { c }).take(64).collect()
    });
    let mut env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, _)| !ENV_DROPPED.iter().any(|p| k.starts_with(p)))
        .collect();
    // What the user says himself comes last.
    let mut set = options.transport.variables()?;
    for pair in &options.env {
        match pair.split_once('=') {
            Some((k, v)) if !k.is_empty() => set.push((k.to_owned(), v.to_owned())),
            _ => return Err(format!("--env {pair:?} must be NAME=VALUE").into()),
        }
    }
    for (name, value) in set {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    env.sort();
    Ok(JobSpec {
        name,
        argv: options.argv,
        env,
        cwd: utf8(&cwd)?,
        ranks: options.ranks,
        ranks_per_node: options.per_node,
        requeue: options.requeue,
        output,
    })
}

fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}

fn print(chunk: &crate::output::Chunk) -> Outcome {
    let written = match chunk.stream {
        Stream::Out => io::stdout().write_all(&chunk.bytes).and_then(|()| io::stdout().flush()),
        Stream::Err => io::stderr().write_all(&chunk.bytes),
    };
    // A pager that was closed, a full disk behind a redirection. The job hears of it when we are gone.
    written.map_err(|e| Failure {
        code: 74,
        text: format!("cannot write the job's output: {e}; the job is cancelled"),
    })
}

/// Says on standard error how the job comes along, if asked to.
struct Follow {
    progress: bool,
    state: Option<(JobState, u32)>,
    printed: Instant,
    /// The managers did not answer when they were asked last.
    silent: bool,
}

impl Follow {
    fn answered(&mut self, id: JobId, answered: bool) {
        if self.silent == answered {
            self.silent = !answered;
            if answered {
                eprintln!("ghidrah: the managers answer again");
            } else {
                eprintln!(
                    "ghidrah: the managers do not answer; job {id} may run on without word of it (Ctrl-C twice leaves it alone)"
                );
            }
        }
    }

    fn show(&mut self, job: &JobView) {
        let requeued = job.requeues > self.state.map_or(0, |(_, r)| r);
        if requeued {
            eprintln!(
                "ghidrah: job {} runs again from its start: {}",
                job.job,
                job.reason.as_deref().unwrap_or("requeued")
            );
        }
        if self.progress && self.state.map(|(s, _)| s) != Some(job.state) {
            eprintln!(
                "ghidrah: job {} is {} {} (+{:.1} s)",
                job.job,
                job.state,
                render::nodes_short(&job.nodes),
                self.printed.elapsed().as_secs_f64()
            );
        }
        self.state = Some((job.state, job.requeues));
    }
}
