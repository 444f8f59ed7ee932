//! `up` and `down`.

use super::args::{DownArgs, UpArgs};
use super::query::all_nodes;
use super::{Failure, Outcome, render};
use crate::config::Config;
use crate::daemon;
use crate::keys::Keyring;
use crate::layout::Layout;
use crate::local::{self, Stopped};
use crate::user::User;
use cmm_core::api::NodeState;
use cmm_core::identity::Role;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub(super) fn up(layout: &Layout, args: &UpArgs) -> Outcome {
    let started = Instant::now();
    let config = if layout.config().exists() {
        drop(daemon::lock(layout)?);
        let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
        let daemons = config.node_ids().into_iter().flat_map(|n| [Role::Agent(n), Role::Manager(n)]);
        for role in daemons.chain([Role::Hardcore, Role::User(0)]) {
            Keyring::load(layout, role)?;
        }
        eprintln!(
            "starting the cluster {} in {} again, with what it remembers ({} nodes; --nodes, --cores and --name \
             are of no effect)",
            config.name,
            layout.root().display(),
            config.nodes.len()
        );
        config
    } else {
        local::create(layout, &args.name, args.nodes, args.cores)?
    };
    start_and_wait(layout, &config, Duration::from_secs(args.wait))?;
    println!(
        "{} nodes are up in {:.1} s. Next: ghidrah{} run -n 4 ./app",
        config.nodes.len(),
        started.elapsed().as_secs_f64(),
        match std::env::var_os("GHIDRAH_DIR") {
            Some(dir) if dir == layout.root().as_os_str() => String::new(),
            _ => format!(" --dir {}", layout.root().display()),
        }
    );
    Ok(())
}

/// Starts the cluster and waits until all its nodes have joined; stops it again if they do not.
pub(super) fn start_and_wait(layout: &Layout, config: &Config, patience: Duration) -> Result<User, Failure> {
    // What is wrong with our own files shows before anything runs.
    let user = User::connect(layout)?;
    let mut hardcore = local::start(layout, config)?;
    let deadline = Instant::now() + patience;
    // A cluster that was up before remembers its nodes as up; what counts is that they join now.
    let since = cl::Clock::new().now().as_nanos();
    let progress = Progress::new();
    let mut wait = || -> Outcome {
        loop {
            if let Ok(Some(status)) = hardcore.try_wait() {
                let log = tail(&layout.hardcore_log());
                return Err(format!("the hardcore ended at once ({status}):\n{log}").into());
            }
            let up = if user.is_located(Duration::from_millis(100)) {
                progress.say("managers elected; nodes are joining");
                all_nodes(&user)?.iter().filter(|n| n.state == NodeState::Up && n.since_ns >= since).count()
            } else {
                progress.say("nodes started; electing the managers");
                0
            };
            if up == config.nodes.len() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "only {up} of {} nodes joined within {patience:?}; their logs are {}/nodes/*/agent.log",
                    config.nodes.len(),
                    layout.root().display()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let outcome = wait();
    progress.end();
    if outcome.is_err()
        && let Err(error) = local::stop_started(layout, config, hardcore)
    {
        eprintln!("ghidrah: {error}");
    }
    outcome.map(|()| user)
}

pub(super) fn down(layout: &Layout, args: &DownArgs) -> Outcome {
    let config = Config::load(&layout.config()).map_err(|e| e.to_string())?;
    match local::stop(layout, &config)? {
        Stopped::Running => println!("the cluster in {} is down", layout.root().display()),
        Stopped::Leftovers => {
            println!("the hardcore of {} had died; what it left has been ended", layout.root().display());
        }
        Stopped::Nothing if !args.purge => {
            return Err(
                format!("no cluster runs in {}; `ghidrah up` starts it", layout.root().display()).into()
            );
        }
        Stopped::Nothing => {}
    }
    if args.purge {
        std::fs::remove_dir_all(layout.root())
            .map_err(|e| format!("cannot remove {}: {e}", layout.root().display()))?;
        println!("{} is removed", layout.root().display());
    }
    Ok(())
}

/// One line on a terminal that says what is being waited for; nothing where nobody watches.
pub(super) struct Progress {
    terminal: bool,
    started: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), started: Instant::now() }
    }

    pub(super) fn say(&self, what: &str) {
        if self.terminal {
            let seconds = self.started.elapsed().as_secs_f64();
            eprint!("\r\x1b[K{what} … {}", render::short(Duration::from_secs_f64(seconds)));
            let _ = std::io::stderr().flush();
        }
    }

    pub(super) fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn tail(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
