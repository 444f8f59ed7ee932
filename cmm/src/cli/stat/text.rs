//! Counters for people.

use super::super::render;
use super::Sample;
use super::rates::{peer_of, rate, total_of};
use cl::Clock;
use cl::counters::{Counter, Kind, PeerCounters, Snapshot};

impl Sample<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.now.endpoints.is_empty() {
            text += "no endpoint of this user shows its counters; start a process that has one (`ghidrah up`), \
                     with the same GHIDRAH_STAT_DIR if that is set\n";
        } else if self.args.cores {
            text += &self.cores();
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
        // Where there is nothing else to show, it may be the reason.
        if self.verbose || self.args.explain || self.now.endpoints.is_empty() {
            for (path, why) in &self.now.skipped {
                text += &format!("skipped {}: {why}\n", path.display());
            }
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
                program(endpoint),
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

    /// A line for each endpoint whose thread runs an event loop.
    fn cores(&self) -> String {
        let row = |endpoint: &Snapshot| {
            let value = |of: &Snapshot, name: &str| {
                let mut totals = of.totals.iter();
                totals.find(|(c, _)| c.group == "runtime" && c.name == name).map(|(_, value)| *value)
            };
            let now = |name: &str| value(endpoint, name).unwrap_or(0);
            value(endpoint, "turns")?;
            // Since it was opened, or since the first look.
            let lived = endpoint.written.saturating_since(endpoint.opened).as_secs_f64().max(0.001);
            let since = self.before(endpoint);
            let grown = |name: &str| {
                now(name) - since.map_or(0, |(before, _)| value(before, name).unwrap_or(0)).min(now(name))
            };
            let seconds = since.map_or(lived, |(_, seconds)| seconds);
            let count = |name: &str| match since {
                None if self.args.rates => "-".to_owned(),
                None => short(now(name) as f64),
                Some(_) => short(grown(name) as f64 / seconds) + "/s",
            };
            // One that sleeps says how long when it wakes.
            let share = |name: &str| format!("{:.1}%", (grown(name) as f64 / 1e4 / seconds).min(100.0));
            Some(vec![
                endpoint.pid.to_string(),
                program(endpoint),
                endpoint.me.to_string(),
                now("processor").to_string(),
                count("turns"),
                count("messages"),
                count("timers"),
                count("ready"),
                count("mails"),
                count("parks"),
                share("parked_us"),
                share("handlers_us"),
                now("mailbox").to_string(),
                now("run_queue").to_string(),
            ])
        };
        let rows: Vec<Vec<String>> = self.now.endpoints.iter().filter_map(row).collect();
        if rows.is_empty() {
            return "no endpoint here has a thread that runs an event loop\n".to_owned();
        }
        let heading = [
            "PID",
            "PROGRAM",
            "PARTY",
            "CORE",
            "TURNS",
            "MESSAGES",
            "TIMERS",
            "READY",
            "MAILS",
            "PARKS",
            "ASLEEP",
            "HANDLERS",
            "MAILBOX",
            "RUN QUEUE",
        ];
        render::table(&heading, &rows)
    }

    /// All counters of an endpoint, a line each; of drops only those that there were.
    fn details(&self, endpoint: &Snapshot) -> String {
        let before = self.before(endpoint);
        let row = |(counter, value): &(Counter, u64)| {
            let grown = value - before.map_or(0, |(before, _)| total_of(before, counter)).min(*value);
            if is_of_drops(counter) && grown == 0 {
                return None;
            }
            let shown = match (before, counter.kind) {
                (Some((_, seconds)), Kind::Count) => short(grown as f64 / seconds) + "/s",
                (None, Kind::Count) if self.args.rates => "-".to_owned(),
                _ => value.to_string(),
            };
            let mut row = vec![counter.group.clone(), counter.name.clone(), shown];
            row.extend(self.args.explain.then(|| counter.meaning.clone()));
            Some(row)
        };
        let rows: Vec<Vec<String>> = endpoint.totals.iter().filter_map(row).collect();
        let value = if self.args.rates { "PER SECOND, OR NOW" } else { "VALUE" };
        let mut heading = vec!["OF", "COUNTER", value];
        heading.extend(self.args.explain.then_some("MEANING"));
        let mut text = format!("\nprocess {}, party {}\n", endpoint.pid, endpoint.me);
        text += &render::table(&heading, &rows);
        if self.args.peers {
            text += &self.peers(endpoint);
        }
        text
    }

    /// A line for each peer of an endpoint, in a table for each layer that counts by peer, and one for each reason for
    /// which something of a peer was dropped.
    fn peers(&self, endpoint: &Snapshot) -> String {
        let mut layers: Vec<&str> = endpoint.peer_counters.iter().map(|c| c.group.as_str()).collect();
        layers.retain(|layer| !layer.ends_with(DROPS));
        layers.dedup();
        let tables: String = layers.into_iter().map(|layer| self.peers_of(endpoint, layer)).collect();
        tables + &self.drops_by_peer(endpoint)
    }

    fn peers_of(&self, endpoint: &Snapshot, layer: &str) -> String {
        let before = self.before(endpoint);
        let row = |peer: &PeerCounters| {
            let cell = |(counter, value): (&Counter, &u64)| match (before, counter.kind) {
                (Some((before, seconds)), Kind::Count) => {
                    short(rate(*value, peer_of(before, peer, counter), seconds)) + "/s"
                }
                (None, Kind::Count) if self.args.rates => "-".to_owned(),
                _ => short(*value as f64),
            };
            let values = endpoint.peer_counters.iter().zip(&peer.values).filter(|(c, _)| c.group == layer);
            std::iter::once(name(peer)).chain(values.map(cell)).collect()
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

    /// What was dropped of each peer, if anything was.
    fn drops_by_peer(&self, endpoint: &Snapshot) -> String {
        let before = self.before(endpoint);
        let mut rows = Vec::new();
        for peer in &endpoint.peers {
            for (counter, value) in endpoint.peer_counters.iter().zip(&peer.values) {
                let grown =
                    value - before.map_or(0, |(before, _)| peer_of(before, peer, counter)).min(*value);
                if !is_of_drops(counter) || grown == 0 {
                    continue;
                }
                let shown = match before {
                    Some((_, seconds)) => short((grown as f64 / seconds).ceil()) + "/s",
                    None if self.args.rates => "-".to_owned(),
                    None => short(*value as f64),
                };
                let layer = counter.group.trim_end_matches(DROPS).to_owned();
                let mut row = vec![name(peer), layer, counter.name.clone(), shown];
                row.extend(self.args.explain.then(|| counter.meaning.clone()));
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return String::new();
        }
        let mut heading = vec!["PEER", "BY", "REASON", "DROPS"];
        heading.extend(self.args.explain.then_some("MEANING"));
        format!("\ndropped of {} in process {}, by peer\n", endpoint.me, endpoint.pid)
            + &render::table(&heading, &rows)
    }
}

/// Ends the names of groups of drops.
const DROPS: &str = " drops";

fn name(peer: &PeerCounters) -> String {
    peer.peer.map_or_else(|| "others".to_owned(), |peer| peer.to_string())
}

fn program(endpoint: &Snapshot) -> String {
    about(endpoint, "program").rsplit('/').next().unwrap_or_default().to_owned()
}

fn about<'a>(endpoint: &'a Snapshot, key: &str) -> &'a str {
    endpoint.about.iter().find(|(k, _)| k == key).map_or("-", |(_, value)| value)
}

fn is_of_drops(counter: &Counter) -> bool {
    counter.group.ends_with(DROPS)
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
