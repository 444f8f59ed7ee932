//! `cluster.toml`: what a site decides about its cluster.

use cmm_core::heartbeat::{Tree, looking_period};
use cmm_core::identity::NodeId;
use cmm_core::manager::ManagerConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nodes of a cluster at most: heartbeats and the bootstrap's full mesh are made for this size (the
/// dissertation's design range is 100, section 3.2).
pub const NODES_MAX: usize = 200;

/// The cluster's configuration, the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name: letters, digits and dashes. Part of process groups' names.
    pub name: String,
    /// Tells clusters of the same name apart: 8 hexadecimal digits, made with the cluster.
    pub id: String,
    /// Faulty managers to tolerate; 3f+1 nodes run managers, 2f+1 of them active.
    #[serde(default = "one")]
    pub f: u32,
    /// Period of the agents' heartbeats, milliseconds.
    #[serde(default = "heartbeat")]
    pub heartbeat_ms: u64,
    /// In clusters of so many nodes and more, agents bundle heartbeats for their groups, so that the managers hear of √N agents
    /// and not of N.
    #[serde(default = "heartbeat_tree_nodes")]
    pub heartbeat_tree_nodes: u32,
    /// A node silent for this long is suspected, milliseconds; at least four heartbeats, and where agents bundle ten.
    #[serde(default = "suspect_after")]
    pub suspect_after_ms: u64,
    /// A suspected node that does not answer for this long is dead, milliseconds.
    #[serde(default = "ping_timeout")]
    pub ping_timeout_ms: u64,
    /// How long a request may wait in the manager group before its primary is replaced, milliseconds
    /// (T_req of PROTOCOL.md 2.9).
    #[serde(default = "request_timeout")]
    pub request_timeout_ms: u64,
    /// The hardcore resets the whole cluster when it has not heard f+1 managers for this long, milliseconds.
    #[serde(default = "silence_limit")]
    pub manager_silence_ms: u64,
    /// Whether managers flush their storage to the device before they speak. Without it a replica's memory
    /// survives the death of its process, not a power failure of its machine.
    #[serde(default)]
    pub sync: bool,
    /// The nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
}

/// One node's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its number, from 1.
    pub id: NodeId,
    /// Cores that jobs may use.
    pub cores: u32,
}

fn one() -> u32 {
    1
}
fn heartbeat() -> u64 {
    100
}
fn heartbeat_tree_nodes() -> u32 {
    1_000
}
fn suspect_after() -> u64 {
    1_000
}
fn ping_timeout() -> u64 {
    3_000
}
fn request_timeout() -> u64 {
    500
}
fn silence_limit() -> u64 {
    20_000
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "cannot read {path}: {source}; is this a cluster's directory? (`ghidrah up --dir DIR` makes one)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has unknown or missing fields.
    #[error("{path} is malformed: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what, from the parser.
        message: String,
    },
    /// A value makes no sense.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which value, and what it must be.
        message: String,
    },
}

impl Config {
    /// A configuration with defaults for `nodes` nodes of `cores` cores.
    pub fn local(name: &str, id: &str, nodes: u32, cores: u32) -> Config {
        Config {
            name: name.to_owned(),
            id: id.to_owned(),
            f: one(),
            heartbeat_ms: heartbeat(),
            heartbeat_tree_nodes: heartbeat_tree_nodes(),
            suspect_after_ms: suspect_after(),
            ping_timeout_ms: ping_timeout(),
            request_timeout_ms: request_timeout(),
            manager_silence_ms: silence_limit(),
            sync: false,
            nodes: (1..=nodes).map(|n| NodeConfig { id: NodeId(n), cores }).collect(),
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`]; each says which file and what to change.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let config: Config = toml::from_str(&text)
            .map_err(|e| ConfigError::Malformed { path: path.to_owned(), message: e.to_string() })?;
        config.check().map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })?;
        Ok(config)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration can be written as TOML")
    }

    /// Checks every value; the error says which one is wrong and what it must be.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let name_ok = self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if self.name.is_empty() || self.name.len() > 40 || !name_ok {
            return Err(format!("name {:?} must be 1 to 40 letters, digits and dashes", self.name));
        }
        if self.id.len() != 8 || !self.id.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(format!("id {:?} must be 8 hexadecimal digits", self.id));
        }
        if self.f != 1 {
            return Err(format!("f = {} is not supported yet; f = 1 is", self.f));
        }
        let needed = 3 * self.f as usize + 1;
        if self.nodes.len() < needed || self.nodes.len() > NODES_MAX {
            let n = self.nodes.len();
            return Err(format!(
                "{n} nodes: tolerating {} faulty manager takes {needed} to {NODES_MAX} nodes",
                self.f
            ));
        }
        let mut ids = BTreeSet::new();
        for node in &self.nodes {
            if node.id.0 == 0 || node.id.0 as usize > NODES_MAX {
                return Err(format!("node id {} must be 1 to {NODES_MAX}", node.id.0));
            }
            if !ids.insert(node.id) {
                return Err(format!("node id {} is there twice", node.id.0));
            }
            if node.cores == 0 || node.cores > 4096 {
                return Err(format!("node {}: cores = {} must be 1 to 4096", node.id.0, node.cores));
            }
        }
        let range = |name: &str, v: u64, low: u64, high: u64| {
            if (low..=high).contains(&v) {
                Ok(())
            } else {
                Err(format!("{name} = {v} must be {low} to {high}"))
            }
        };
        range("heartbeat_ms", self.heartbeat_ms, 10, 60_000)?;
        // A heartbeat waits up to a period for a backup to look for it, and again at the next manager, and one may be lost. Where
        // agents bundle it waits once more, and one in three arrives if two bundlers of a group do not work.
        let heartbeats = if self.heartbeat_tree().is_some() { 10 } else { 4 };
        range("suspect_after_ms", self.suspect_after_ms, heartbeats * self.heartbeat_ms, 3_600_000)?;
        range("ping_timeout_ms", self.ping_timeout_ms, 10, 3_600_000)?;
        range("request_timeout_ms", self.request_timeout_ms, 50, 60_000)?;
        range("manager_silence_ms", self.manager_silence_ms, 1_000, 3_600_000)
    }

    /// All node numbers, ascending.
    pub fn node_ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.nodes.iter().map(|n| n.id).collect();
        ids.sort();
        ids
    }

    /// The configuration of one node.
    pub fn node(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// Period of heartbeats.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// Which agents bundle the heartbeats of which others, if any do.
    pub fn heartbeat_tree(&self) -> Option<Tree> {
        (self.nodes.len() >= self.heartbeat_tree_nodes as usize).then(|| Tree::new(self.node_ids()))
    }

    /// How long a request may wait before the primary is replaced.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a node may be silent before it is suspected.
    pub fn suspect_after(&self) -> Duration {
        Duration::from_millis(self.suspect_after_ms)
    }

    /// The name of this cluster's process groups, unlike every other cluster's on the machine.
    pub fn process_group(&self) -> String {
        format!("{}-{}", self.name, self.id)
    }

    /// How often a manager looks for heartbeats.
    pub fn looking(&self) -> Duration {
        looking_period(self.heartbeat(), self.suspect_after())
    }

    /// Heartbeats, and bundles of them, that reach a manager between two looks at most: if the other backup is dead, every
    /// agent's, and less than as many bundles.
    pub fn heartbeats_in_a_look(&self) -> usize {
        let each = self.looking().as_nanos().div_ceil(self.heartbeat().as_nanos());
        2 * self.nodes.len() * usize::try_from(each).expect("a few")
    }

    /// How long the managers may be silent before the hardcore resets the cluster.
    pub fn manager_silence(&self) -> Duration {
        Duration::from_millis(self.manager_silence_ms)
    }

    /// What the manager replicas must have in common.
    pub fn manager(&self) -> ManagerConfig {
        ManagerConfig {
            nodes: self.node_ids(),
            f: self.f,
            ping_timeout_ns: self.ping_timeout_ms * 1_000_000,
            reset_retry_ns: 10_000_000_000,
            heartbeat_tree: self.heartbeat_tree().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_reads_back() {
        let config = Config::local("demo", "0123abcd", 6, 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        assert_eq!(Config::load(&path).unwrap(), config);
    }

    #[test]
    fn every_wrong_value_is_named() {
        let good = Config::local("demo", "0123abcd", 4, 2).to_toml();
        for (from, to, word) in [
            ("name = \"demo\"", "name = \"de mo\"", "name"),
            ("id = \"0123abcd\"", "id = \"0123\"", "hexadecimal"),
            ("f = 1", "f = 2", "f = 2"),
            ("heartbeat_ms = 100", "heartbeat_ms = 1", "heartbeat_ms"),
            ("suspect_after_ms = 1000", "suspect_after_ms = 150", "suspect_after_ms"),
            (
                "heartbeat_tree_nodes = 1000\nsuspect_after_ms = 1000",
                "heartbeat_tree_nodes = 4\nsuspect_after_ms = 700",
                "suspect_after_ms",
            ),
            ("id = 2", "id = 1", "twice"),
            ("id = 2", "id = 0", "node id 0"),
            ("cores = 2", "cores = 0", "cores"),
            ("f = 1", "f = 1\nfoo = 3", "foo"),
            ("f = 1", "f = [", "malformed"),
            ("[[node]]\nid = 4\ncores = 2", "", "3 nodes"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("cluster.toml");
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("cluster.toml"), "{from} -> {to}: {error}");
        }
    }
}
