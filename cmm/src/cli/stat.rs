//! `stat`: the counters of running endpoints, read from the pages they keep for it.

mod json;
mod rates;
mod text;

use super::{Failure, Outcome, render};
use cl::counters::{Listing, list};
use clap::Args;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// What follows the options in `ghidrah stat --help`.
pub const HELP: &str = "Examples:
  ghidrah stat                          every endpoint of this user, one line each
  ghidrah stat --pid 1234 --peers       all counters of a process, and those of its peers
  ghidrah stat --rates                  two looks, one second apart, and what went on between them
  ghidrah stat --watch 0.5 --rates      again every half second, until Ctrl-C
  ghidrah stat --cores --rates          what threads do: how long they sleep, what waits for them
  ghidrah stat --json | jq '.endpoints[].counters[\"cl drops\"]'

Root sees the endpoints of all users. The counters are those the process showed last, at most 50 ms behind it
unless it does not poll. They lie in $GHIDRAH_STAT_DIR, if set for the process and for this command, else in
$XDG_RUNTIME_DIR/ghidrah, /dev/shm/ghidrah-UID or /tmp/ghidrah-UID. Ghidrah's own short-lived commands show none.";

/// How far apart the two looks for rates are, unless it is said.
const INTERVAL: Duration = Duration::from_secs(1);
/// What clears a terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `stat`
#[derive(Debug, Args)]
pub struct StatArgs {
    /// Only the endpoints of this process, with all their counters.
    #[arg(long)]
    pid: Option<u32>,
    /// Again and again, every so many seconds (1 if none are given), until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = parse_seconds)]
    watch: Option<Duration>,
    /// All counters of every endpoint.
    #[arg(short, long)]
    all: bool,
    /// The counters of each peer, too, and what was dropped of each.
    #[arg(long)]
    peers: bool,
    /// A line for each thread that runs an event loop.
    #[arg(long)]
    cores: bool,
    /// What happened in each second between two looks, and nothing else.
    #[arg(long)]
    rates: bool,
    /// What each counter means.
    #[arg(long)]
    explain: bool,
    /// Print JSON; with --watch an object in each line.
    #[arg(long)]
    json: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("not within 0.05 to 3600 seconds".to_owned()),
        Err(_) => Err("not a number of seconds".to_owned()),
    }
}

/// Looks, and shows. `verbose`: also what could not be read.
pub(super) fn stat(args: &StatArgs, verbose: bool) -> Outcome {
    let interval = args.watch.unwrap_or(INTERVAL);
    let mut before = if args.rates { Some(look(args)?) } else { None };
    loop {
        if before.is_some() {
            std::thread::sleep(interval);
        }
        let now = look(args)?;
        let sample = Sample { args, verbose, before: before.as_ref(), now: &now, interval };
        if args.json {
            let value = sample.json();
            if args.watch.is_some() {
                println!("{value}");
            } else {
                render::json(&value);
            }
        } else {
            let clear = if args.watch.is_some() && std::io::stdout().is_terminal() { CLEAR } else { "" };
            print!("{clear}{}", sample.text());
        }
        if args.watch.is_none() {
            return Ok(());
        }
        if args.rates {
            before = Some(now);
        } else {
            std::thread::sleep(interval);
        }
    }
}

fn look(args: &StatArgs) -> Result<Listing, Failure> {
    let mut listing = list();
    listing.endpoints.retain(|endpoint| args.pid.is_none_or(|pid| endpoint.pid == pid));
    listing.endpoints.sort_by(|a, b| (a.pid, &a.path).cmp(&(b.pid, &b.path)));
    match args.pid {
        Some(pid) if listing.endpoints.is_empty() => Err(nothing_of(pid)),
        _ => Ok(listing),
    }
}

fn nothing_of(pid: u32) -> Failure {
    let what = match Path::new("/proc").join(pid.to_string()).exists() {
        true => format!("process {pid} shows no counters"),
        false => format!("there is no process {pid}"),
    };
    format!("{what}; `ghidrah stat` lists those that show counters").into()
}

/// What there is to show at one time.
struct Sample<'a> {
    args: &'a StatArgs,
    verbose: bool,
    before: Option<&'a Listing>,
    now: &'a Listing,
    interval: Duration,
}
