//! Answers as text for people and as JSON for programs.

use cl_base::Time;
use cmm_core::api::{EventView, JobView, NodeView};
use cmm_core::identity::NodeId;
use serde::Serialize;
use std::time::Duration;

/// Prints any answer as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) {
    println!("{}", serde_json::to_string_pretty(value).expect("answers can be written as JSON"));
}

/// Rows of cells under a heading, as wide as they need.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Jobs as a table.
pub fn jobs(jobs: &[JobView], now: Time) -> String {
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|j| {
            let since = j.ended_ns.or(j.started_ns).unwrap_or(j.submitted_ns);
            vec![
                j.job.to_string(),
                j.name.clone(),
                j.user.to_string(),
                j.state.to_string(),
                ago(now, since),
                j.ranks.to_string(),
                nodes_short(&j.nodes),
                j.exit_code.map_or(String::new(), |c| c.to_string()),
                j.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["JOB", "NAME", "USER", "STATE", "SINCE", "RANKS", "NODES", "EXIT", "REASON"], &rows)
}

/// One job, a line for each property.
pub fn job(j: &JobView) -> String {
    let mut text =
        format!("job       {}\nname      {}\nuser      {}\nstate     {}\n", j.job, j.name, j.user, j.state);
    text += &format!("ranks     {}\nnodes     {}\n", j.ranks, nodes_short(&j.nodes));
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("{name:<10}{value}\n");
        }
    };
    line("requeues", (j.requeues > 0).then(|| j.requeues.to_string()));
    line("exit code", j.exit_code.map(|c| c.to_string()));
    line("reason", j.reason.clone());
    line("output", j.output.clone());
    line("submitted", Some(clock(j.submitted_ns)));
    line("started", j.started_ns.map(clock));
    line("ended", j.ended_ns.map(clock));
    text
}

/// Nodes as a table.
pub fn nodes(nodes: &[NodeView], now: Time) -> String {
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|n| {
            vec![
                n.node.to_string(),
                n.state.to_string(),
                ago(now, n.since_ns),
                format!("{}/{}", n.used, n.cores),
                n.resets.to_string(),
                n.jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            ]
        })
        .collect();
    table(&["NODE", "STATE", "SINCE", "CORES", "RESETS", "JOBS"], &rows)
}

/// One entry of the event log.
pub fn event(e: &EventView) -> String {
    format!("{}  {:<16} {}", clock(e.time_ns), e.kind, e.text)
}

/// `node1-3,5`
pub fn nodes_short(nodes: &[NodeId]) -> String {
    let mut ids: Vec<u32> = nodes.iter().map(|n| n.0).collect();
    ids.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let parts: Vec<String> =
        ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if parts.is_empty() { String::new() } else { format!("node{}", parts.join(",")) }
}

/// The time of day in UTC with milliseconds.
pub fn clock(ns: u64) -> String {
    let (s, ms) = (ns / 1_000_000_000, ns / 1_000_000 % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600 % 24, s / 60 % 60, s % 60)
}

/// How long ago, in one unit.
pub fn ago(now: Time, ns: u64) -> String {
    if ns == 0 {
        return "-".to_owned();
    }
    short(now.saturating_since(Time::from_nanos(ns)))
}

/// A duration in one unit.
pub fn short(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..=99 => format!("{s}s"),
        s @ 100..=5_999 => format!("{}m", s / 60),
        s @ 6_000..=172_799 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists_are_folded() {
        let ids = |v: &[u32]| v.iter().map(|n| NodeId(*n)).collect::<Vec<_>>();
        assert_eq!(nodes_short(&ids(&[3, 1, 2, 7])), "node1-3,7");
        assert_eq!(nodes_short(&[]), "");
    }

    #[test]
    fn tables_line_up() {
        let text = table(&["A", "LONG"], &[vec!["wide cell".into(), "x".into()]]);
        assert_eq!(text, "A          LONG\nwide cell  x\n");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(clock(1_700_000_000_123_000_000), "22:13:20.123");
        assert_eq!(short(Duration::from_secs(150)), "2m");
    }
}
