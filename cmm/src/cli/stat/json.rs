//! Counters for programs.

use super::Sample;
use super::rates::{peer_of, rates, total_of};
use cl::counters::{Counter, PeerCounters, Snapshot};
use serde_json::{Map, Value, json};

impl Sample<'_> {
    pub(super) fn json(&self) -> Value {
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
}

fn by_group<'a>(values: impl Iterator<Item = (&'a Counter, Value)>) -> Value {
    let mut groups = Map::new();
    for (counter, value) in values {
        let group = groups.entry(counter.group.clone()).or_insert_with(|| json!({}));
        group[&counter.name] = value;
    }
    Value::Object(groups)
}
