//! The cluster directory: where everything of a local cluster lies.
//!
//! ```text
//! DIR/cluster.toml          configuration, the same for all
//! DIR/keys/roster.toml      pinned public keys and addresses
//! DIR/keys/NAME.key         secret keys, mode 0600
//! DIR/hardcore/             log, lock of the running cluster
//! DIR/nodes/nodeN/          a node's own: logs, bootstrap record, its manager's storage
//! ```
//! On a real site each machine has its own copy of the first two, and of the secret keys only its own.

use cmm_core::identity::NodeId;
use std::path::{Path, PathBuf};

/// A cluster's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout under `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Layout {
        Layout { root: root.into() }
    }

    /// The directory that is used when none is named: `$GHIDRAH_DIR`, else `ghidrah/` under
    /// `$XDG_STATE_HOME`, else under `~/.local/state`.
    pub fn default_root() -> PathBuf {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        var("GHIDRAH_DIR").unwrap_or_else(|| {
            var("XDG_STATE_HOME")
                .or_else(|| var("HOME").map(|h| h.join(".local/state")))
                .unwrap_or_else(|| PathBuf::from("/var/lib"))
                .join("ghidrah")
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("cluster.toml")
    }

    /// Where the roster and the keys are.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The roster.
    pub fn roster(&self) -> PathBuf {
        self.keys().join("roster.toml")
    }

    /// The secret key of the roster entry `name`.
    pub fn key(&self, name: &str) -> PathBuf {
        self.keys().join(format!("{name}.key"))
    }

    /// The key that is about to replace that of `name`.
    pub fn new_key(&self, name: &str) -> PathBuf {
        self.keys().join(format!("{name}.new"))
    }

    /// A node's own directory.
    pub fn node(&self, node: NodeId) -> PathBuf {
        self.root.join("nodes").join(node.to_string())
    }

    /// What a node's agent must remember of the bootstrap.
    pub fn bootstrap_record(&self, node: NodeId) -> PathBuf {
        self.node(node).join("bootstrap")
    }

    /// There as long as the node's agent has never taken part in an election, so that one that finds no
    /// record knows whether it has lost it.
    pub fn first_boot(&self, node: NodeId) -> PathBuf {
        self.node(node).join("first-boot")
    }

    /// The decided manager group, for the node's manager process.
    pub fn decision(&self, node: NodeId) -> PathBuf {
        self.node(node).join("decision")
    }

    /// The storage of the node's manager replica of group `instance`.
    pub fn replica_storage(&self, node: NodeId, instance: u64) -> PathBuf {
        self.node(node).join(format!("replica-{instance}"))
    }

    /// The log of a node's `agent` or `manager`.
    pub fn node_log(&self, node: NodeId, daemon: &str) -> PathBuf {
        self.node(node).join(format!("{daemon}.log"))
    }

    /// The hardcore's directory.
    pub fn hardcore(&self) -> PathBuf {
        self.root.join("hardcore")
    }

    /// Locked, and holding the hardcore's process id, as long as the cluster runs.
    pub fn lock(&self) -> PathBuf {
        self.hardcore().join("lock")
    }

    /// The hardcore's log.
    pub fn hardcore_log(&self) -> PathBuf {
        self.hardcore().join("hardcore.log")
    }
}
