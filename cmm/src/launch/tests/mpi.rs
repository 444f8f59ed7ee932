//! Unmodified MPI programs under our own launcher and key exchange, as agents of several nodes run them.

use super::*;
use cmm_core::api::Part;
use cmm_core::identity::NodeId;
use cmm_core::pmi::{Action, NodePmi};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Compiles `tests/programs/<name>.c`, unless there is no MPI compiler here.
fn build(name: &str, dir: &Path) -> Option<PathBuf> {
    let source = format!("{}/../tests/programs/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let mpicc = std::env::var("GHIDRAH_MPICC").unwrap_or_else(|_| "mpicc.mpich".to_owned());
    let program = dir.join(name);
    let mut compiler = std::process::Command::new(mpicc);
    match compiler.args(["-O2", "-D_DEFAULT_SOURCE", &source, "-o"]).arg(&program).arg("-lm").status() {
        Ok(status) => {
            assert!(status.success(), "{name}.c does not compile");
            Some(program)
        }
        Err(_) => {
            eprintln!("skipped: no MPICH compiler (set GHIDRAH_MPICC)");
            None
        }
    }
}

struct Running {
    node: usize,
    process: RankProcess,
    output: Vec<u8>,
    status: Option<ExitStatus>,
}

/// One job on several nodes of one machine.
struct Job {
    groups: Vec<Group>,
    nodes: Vec<NodePmi>,
    ranks: BTreeMap<u32, Running>,
    finalized: u32,
    abort: Option<(u32, i32)>,
}

impl Job {
    fn start(ranks_of_nodes: &[u32], argv: &[&str]) -> Job {
        let cluster = cluster();
        let mut parts: Vec<Part> = Vec::new();
        for (node, ranks) in (1..).zip(ranks_of_nodes) {
            let first_rank = parts.last().map_or(0, |p| p.first_rank + p.ranks);
            parts.push(Part { node: NodeId(node), first_rank, ranks: *ranks });
        }
        let mut job =
            Job { groups: Vec::new(), nodes: Vec::new(), ranks: BTreeMap::new(), finalized: 0, abort: None };
        for (index, part) in parts.iter().enumerate() {
            let group = Group::job(&cluster, &part.node.0.to_string(), ATTEMPT);
            let pmi = NodePmi::new(&cluster, ATTEMPT, &parts, index);
            for rank in part.first_rank..part.first_rank + part.ranks {
                let mut command = command(&group, argv);
                command.env.extend(pmi.environment(rank).map(|(name, value)| (name.to_owned(), value)));
                for (name, value) in [
                    ("MPIR_CVAR_CH4_NETMOD", "ofi"),
                    ("FI_PROVIDER", "tcp"),
                    ("FI_TCP_IFACE", "lo"),
                    ("UCX_NET_DEVICES", "lo"),
                    ("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "1"),
                    ("MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT", "64"),
                ] {
                    command.env.insert(name.to_owned(), value.to_owned());
                }
                let process = command.spawn(&group).unwrap();
                job.ranks.insert(rank, Running { node: index, process, output: Vec::new(), status: None });
            }
            job.groups.push(group);
            job.nodes.push(pmi);
        }
        job
    }

    /// Serves the ranks once.
    fn step(&mut self) {
        for (rank, running) in &mut self.ranks {
            let mut bytes = [0; 4096];
            match running.process.pmi.read(&mut bytes) {
                Ok(0) => self.nodes[running.node].on_close(*rank),
                Ok(n) => self.nodes[running.node].on_bytes(*rank, &bytes[..n]),
                Err(_) => {}
            }
            while let Ok(n @ 1..) = running.process.stdout.read(&mut bytes) {
                running.output.extend_from_slice(&bytes[..n]);
            }
            if running.status.is_none() {
                running.status = running.process.try_wait().unwrap();
            }
        }
        for from in 0..self.nodes.len() {
            while let Some(action) = self.nodes[from].poll_action() {
                match action {
                    Action::Reply { rank, bytes } => {
                        // A rank that has died meanwhile cannot be answered.
                        let _ = self.ranks.get_mut(&rank).unwrap().process.pmi.write_all(&bytes);
                    }
                    Action::Send { to, message } => self.nodes[to].on_message(from, message),
                    Action::Initialized { .. } => {}
                    Action::Finalized { .. } => self.finalized += 1,
                    Action::Abort { rank, code, .. } => self.abort = Some((rank, code)),
                }
            }
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Job) -> bool) {
        until(what, || {
            self.step();
            done(self)
        });
    }

    fn statuses(&self) -> Vec<Option<ExitStatus>> {
        self.ranks.values().map(|r| r.status).collect()
    }

    fn kill(&mut self) {
        for (group, pmi) in self.groups.iter().zip(&self.nodes) {
            group.kill().unwrap();
            discard(group);
            let _ = std::fs::remove_file(pmi.shared_memory_file());
        }
        self.run_until("all are reaped", |job| job.statuses().iter().all(Option::is_some));
    }
}

#[test]
fn an_mpi_program_runs_across_one_two_and_four_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = build("pi", dir.path()) else { return };
    for ranks_of_nodes in [&[2][..], &[2, 1], &[1, 1, 1, 1]] {
        let mut job = Job::start(ranks_of_nodes, &[program.to_str().unwrap(), "0.5"]);
        job.run_until("all have exited", |job| job.statuses().iter().all(Option::is_some));
        assert!(job.statuses().iter().all(|s| *s == Some(ExitStatus::Code(0))), "{:?}", job.statuses());
        job.step();
        let output = String::from_utf8_lossy(&job.ranks[&0].output).into_owned();
        assert!(output.contains("error < 1e-9") && output.contains("checksum OK"), "{output}");
        assert_eq!(job.finalized as usize, job.ranks.len());
        job.kill();
    }
}

#[test]
fn a_crashed_rank_is_seen_and_the_others_can_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = build("crash", dir.path()) else { return };
    let program = program.to_str().unwrap();
    let mut job = Job::start(&[1, 1], &[program, "1", "0.1", "abort"]);
    job.run_until("the rank crashes", |job| job.ranks[&1].status.is_some());
    assert_eq!(job.statuses(), [None, Some(ExitStatus::Signal(6))]);
    job.kill();
    assert_eq!(job.statuses(), [Some(ExitStatus::Signal(9)), Some(ExitStatus::Signal(6))]);

    let mut job = Job::start(&[1, 1], &[program, "1", "0.1", "mpi"]);
    job.run_until("the rank aborts", |job| job.abort.is_some());
    assert_eq!(job.abort, Some((1, 7)));
    job.kill();
}
