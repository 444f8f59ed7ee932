//! `stat`: the counters of running endpoints, read from the pages they keep for it.

use super::{Failure, Outcome, render};
use cl::Clock;
use cl::counters::{Counter, Kind, Listing, PeerCounters, Snapshot, list};
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::IsTerminal;
use std::time::Duration;

/// What follows the options in `ghidrah stat --help`.
pub const HELP: &str = "Examples:
  ghidrah stat                          every endpoint of this user, one line each
  ghidrah stat --pid 1234 --peers       all counters of a process, and those of its peers
  ghidrah stat --rates                  two looks, one second apart, and what went on between them
  ghidrah stat --watch 0.5 --rates      again every half second, until Ctrl-C
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
    /// The counters of each peer, too.
    #[arg(long)]
    peers: bool,
    /// What happened in each second between two looks.
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

/// Looks, and shows.
pub(super) fn stat(args: &StatArgs) -> Outcome {
    let interval = args.watch.unwrap_or(INTERVAL);
    let mut before = args.rates.then(|| look(args));
    loop {
        if before.is_some() {
            std::thread::sleep(interval);
        }
        let now = look(args);
        let sample = Sample { args, before: before.as_ref(), now: &now, interval };
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
            return match args.pid {
                Some(pid) if now.endpoints.is_empty() => Err(nothing_of(pid)),
                _ => Ok(()),
            };
        }
        if args.rates {
            before = Some(now);
        } else {
            std::thread::sleep(interval);
        }
    }
}

fn look(args: &StatArgs) -> Listing {
    let mut listing = list();
    listing.endpoints.retain(|endpoint| args.pid.is_none_or(|pid| endpoint.pid == pid));
    listing.endpoints.sort_by(|a, b| (a.pid, &a.path).cmp(&(b.pid, &b.path)));
    listing
}

fn nothing_of(pid: u32) -> Failure {
    format!("process {pid} shows no counters; `ghidrah stat` lists those that do").into()
}

/// What there is to show at one time.
struct Sample<'a> {
    args: &'a StatArgs,
    before: Option<&'a Listing>,
    now: &'a Listing,
    interval: Duration,
}

impl Sample<'_> {
    /// The same endpoint at the last look, and the seconds since.
    fn before(&self, endpoint: &Snapshot) -> Option<(&Snapshot, f64)> {
        let same = |e: &&Snapshot| {
            (&e.path, e.pid, e.started_ticks) == (&endpoint.path, endpoint.pid, endpoint.started_ticks)
        };
        let before = self.before?.endpoints.iter().find(same)?;
        // Exactly between the two times of writing; but a sleeper writes when it wakes.
        let between = endpoint.written.saturating_since(before.written);
        let elapsed = if between > self.interval * 2 { self.interval } else { between };
        Some((before, elapsed.max(Duration::from_millis(1)).as_secs_f64()))
    }

    fn json(&self) -> Value {
        let endpoints: Vec<Value> = self.now.endpoints.iter().map(|e| self.endpoint_json(e)).collect();
        let skipped = self.now.skipped.iter().map(|(path, why)| json!({"path": path, "reason": why}));
        json!({
            "endpoints": endpoints,
            "skipped": skipped.collect::<Vec<_>>(),
            "removed": self.now.removed,
            "directories": self.now.directories,
        })
    }

    fn endpoint_json(&self, endpoint: &Snapshot) -> Value {
        let about: Map<String, Value> =
            endpoint.about.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        let totals = || endpoint.totals.iter().map(|(counter, value)| (counter, *value));
        let mut value = json!({
            "pid": endpoint.pid,
            "party": endpoint.me.to_string(),
            "about": about,
            "opened_ns": endpoint.opened.as_nanos(),
            "written_ns": endpoint.written.as_nanos(),
            "counters": by_group(totals().map(|(counter, value)| (counter, value.into()))),
        });
        let before = self.before(endpoint);
        if let Some((before, seconds)) = before {
            let rates = rates(totals(), |counter| total_of(before, counter), seconds);
            value["rates"] = by_group(rates.map(|(counter, rate)| (counter, rate.into())));
        }
        if self.args.peers {
            let peer = |peer: &PeerCounters| {
                let values = || endpoint.peer_counters.iter().zip(peer.values.iter().copied());
                let mut value = json!({
                    "peer": peer.peer.map(|peer| peer.to_string()),
                    "counters": by_group(values().map(|(counter, value)| (counter, value.into()))),
                });
                if let Some((before, seconds)) = before {
                    let rates = rates(values(), |counter| peer_of(before, peer, counter), seconds);
                    value["rates"] = by_group(rates.map(|(counter, rate)| (counter, rate.into())));
                }
                value
            };
            value["peers"] = endpoint.peers.iter().map(peer).collect();
        }
        value
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.now.endpoints.is_empty() {
            text += "no endpoint of this user shows its counters; start a process that has one (`ghidrah up`), \
                     with the same GHIDRAH_STAT_DIR if that is set\n";
        } else {
            text += &self.summary();
        }
        // Whoever wants to know what they mean wants to see them.
        let all = self.args.all || (self.args.explain && !self.args.peers);
        if all || self.args.pid.is_some() {
            self.now.endpoints.iter().for_each(|endpoint| text += &self.details(endpoint));
        } else if self.args.peers {
            self.now.endpoints.iter().for_each(|endpoint| text += &self.peers(endpoint));
        }
        for (path, why) in &self.now.skipped {
            text += &format!("skipped {}: {why}\n", path.display());
        }
        text
    }

    /// A line for each endpoint.
    fn summary(&self) -> String {
        let now = Clock::new().now();
        let row = |endpoint: &Snapshot| {
            let before = self.before(endpoint);
            let cell =
                |name: &str| match endpoint.totals.iter().find(|(c, _)| c.group == "cl" && c.name == name) {
                    None => "-".to_owned(),
                    Some((counter, value)) => match before {
                        // One that was not there at the first look has no rates yet.
                        None if self.args.rates => "-".to_owned(),
                        None => short(*value as f64),
                        Some((before, seconds)) => {
                            short(rate(*value, total_of(before, counter), seconds)) + "/s"
                        }
                    },
                };
            let drops = endpoint.totals.iter().filter(|(c, _)| is_of_drops(c));
            let drops: Vec<String> = drops.filter_map(|(c, value)| self.drop(before, c, *value)).collect();
            vec![
                endpoint.pid.to_string(),
                about(endpoint, "program").rsplit('/').next().unwrap_or_default().to_owned(),
                endpoint.me.to_string(),
                about(endpoint, "address").to_owned(),
                about(endpoint, "transport").to_owned(),
                render::ago(now, endpoint.opened.as_nanos()),
                cell("messages_sent"),
                cell("messages_received"),
                cell("bytes_sent"),
                cell("bytes_received"),
                if drops.is_empty() { "-".to_owned() } else { drops.join(", ") },
            ]
        };
        let rows: Vec<Vec<String>> = self.now.endpoints.iter().map(row).collect();
        let heading = [
            "PID",
            "PROGRAM",
            "PARTY",
            "ADDRESS",
            "TRANSPORT",
            "UP",
            "SENT",
            "RECEIVED",
            "BYTES OUT",
            "BYTES IN",
            "DROPS",
        ];
        render::table(&heading, &rows)
    }

    /// Drops for one reason, if there were any, or in each second between the two looks.
    fn drop(&self, before: Option<(&Snapshot, f64)>, counter: &Counter, value: u64) -> Option<String> {
        let name = &counter.name;
        match before {
            Some((before, seconds)) => {
                let rate = rate(value, total_of(before, counter), seconds);
                (rate > 0.0).then(|| format!("{name} {}/s", short(rate.ceil())))
            }
            None => (value > 0 && !self.args.rates).then(|| format!("{name} {value}")),
        }
    }

    /// All counters of an endpoint, a line each; of drops only those that there were.
    fn details(&self, endpoint: &Snapshot) -> String {
        let before = self.before(endpoint);
        let shown = endpoint.totals.iter().filter(|(counter, value)| !is_of_drops(counter) || *value > 0);
        let row = |(counter, value): &(Counter, u64)| {
            let mut row = vec![counter.group.clone(), counter.name.clone(), value.to_string()];
            if self.args.rates {
                row.push(match (before, counter.kind) {
                    (Some((before, seconds)), Kind::Count) => {
                        short(rate(*value, total_of(before, counter), seconds))
                    }
                    _ => String::new(),
                });
            }
            if self.args.explain {
                row.push(counter.meaning.clone());
            }
            row
        };
        let rows: Vec<Vec<String>> = shown.map(row).collect();
        let mut heading = vec!["OF", "COUNTER", "VALUE"];
        heading.extend(self.args.rates.then_some("PER SECOND"));
        heading.extend(self.args.explain.then_some("MEANING"));
        let mut text = format!("\nprocess {}, party {}\n", endpoint.pid, endpoint.me);
        text += &render::table(&heading, &rows);
        if self.args.peers {
            text += &self.peers(endpoint);
        }
        text
    }

    /// A line for each peer of an endpoint, in a table for each layer that counts by peer.
    fn peers(&self, endpoint: &Snapshot) -> String {
        let mut layers: Vec<&str> = endpoint.peer_counters.iter().map(|c| c.group.as_str()).collect();
        layers.dedup();
        layers.into_iter().map(|layer| self.peers_of(endpoint, layer)).collect()
    }

    fn peers_of(&self, endpoint: &Snapshot, layer: &str) -> String {
        let before = self.before(endpoint);
        let row = |peer: &PeerCounters| {
            let name = peer.peer.map_or_else(|| "others".to_owned(), |peer| peer.to_string());
            let cell = |(counter, value): (&Counter, &u64)| match (before, counter.kind) {
                (Some((before, seconds)), Kind::Count) => {
                    short(rate(*value, peer_of(before, peer, counter), seconds)) + "/s"
                }
                (None, Kind::Count) if self.args.rates => "-".to_owned(),
                _ => short(*value as f64),
            };
            let values = endpoint.peer_counters.iter().zip(&peer.values).filter(|(c, _)| c.group == layer);
            std::iter::once(name).chain(values.map(cell)).collect()
        };
        let rows: Vec<Vec<String>> = endpoint.peers.iter().map(row).collect();
        let columns = || endpoint.peer_counters.iter().filter(|c| c.group == layer);
        let title = |counter: &Counter| counter.name.to_uppercase().replace('_', " ");
        let heading: Vec<String> = std::iter::once("PEER".to_owned()).chain(columns().map(title)).collect();
        let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
        let of = format!("\npeers of {} in process {}, by {layer}\n", endpoint.me, endpoint.pid);
        let table = of + &render::table(&heading, &rows);
        if !self.args.explain {
            return table;
        }
        let meanings: Vec<Vec<String>> = columns().map(|c| vec![title(c), c.meaning.clone()]).collect();
        table + "\n" + &render::table(&["COLUMN", "MEANING"], &meanings)
    }
}

fn about<'a>(endpoint: &'a Snapshot, key: &str) -> &'a str {
    endpoint.about.iter().find(|(k, _)| k == key).map_or("-", |(_, value)| value)
}

fn is_of_drops(counter: &Counter) -> bool {
    counter.group.ends_with(" drops")
}

fn total_of(endpoint: &Snapshot, counter: &Counter) -> u64 {
    endpoint.totals.iter().find(|(c, _)| c == counter).map_or(0, |(_, value)| *value)
}

fn peer_of(endpoint: &Snapshot, peer: &PeerCounters, counter: &Counter) -> u64 {
    let column = endpoint.peer_counters.iter().position(|c| c == counter);
    let row = endpoint.peers.iter().find(|p| p.peer == peer.peer);
    row.zip(column).and_then(|(row, column)| row.values.get(column).copied()).unwrap_or(0)
}

fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

/// What the counts among the counters have grown by in a second.
fn rates<'a>(
    values: impl Iterator<Item = (&'a Counter, u64)>,
    before: impl Fn(&Counter) -> u64,
    seconds: f64,
) -> impl Iterator<Item = (&'a Counter, f64)> {
    let counts = values.filter(|(counter, _)| counter.kind == Kind::Count);
    counts.map(move |(counter, value)| (counter, rate(value, before(counter), seconds)))
}

fn by_group<'a>(values: impl Iterator<Item = (&'a Counter, Value)>) -> Value {
    let mut groups = Map::new();
    for (counter, value) in values {
        let group = groups.entry(counter.group.clone()).or_insert_with(|| json!({}));
        group[&counter.name] = value;
    }
    Value::Object(groups)
}

/// A number of at most five digits and a unit, up to 10^17.
fn short(value: f64) -> String {
    let (divided, unit) = match value {
        v if v < 100_000.0 => return format!("{v:.0}"),
        v if v < 1e8 => (v / 1e3, "k"),
        v if v < 1e11 => (v / 1e6, "M"),
        v if v < 1e14 => (v / 1e9, "G"),
        v => (v / 1e12, "T"),
    };
    format!("{divided:.0}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let all = [0.0, 99_999.0, 100_000.0, 99_999_000.0, 1e8, 1e17].map(short);
        assert_eq!(all, ["0", "99999", "100k", "99999k", "100M", "100000T"]);
    }
}
