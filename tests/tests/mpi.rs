//! MPI programs that know nothing of Ghidrah, built with either library, and not by us.

use std::time::Duration;
use system_tests::{Cluster, Mpi, imb, mpi_program, mpich5_libraries, python, repository};

const FOUR_NODES: [&str; 5] = ["run", "-n", "4", "--per-node", "1"];

#[test]
fn a_benchmark_from_pypi_runs_to_its_end_over_four_nodes() {
    let cluster = Cluster::start();
    let libraries = format!("LD_LIBRARY_PATH={}", mpich5_libraries().display());
    let program = imb();
    let mut args = FOUR_NODES.to_vec();
    args.extend(["--env", &libraries, program.to_str().unwrap()]);
    args.extend(["-npmin", "4", "-msglog", "0:16", "-iter", "300", "Allreduce", "Sendrecv"]);
    let run = cluster.spawn(args).finish_within(Duration::from_secs(120)).succeeded();
    let run = run.saying(&["# Benchmarking Allreduce", "# Benchmarking Sendrecv", "# #processes = 4"]);
    assert!(run.stdout.trim_end().ends_with("# All processes entering MPI_Finalize"), "{run:#?}");
    // Both tables are complete: 0 bytes and 2^0 to 2^16.
    assert_eq!(run.stdout.lines().filter(|l| l.trim_start().starts_with("65536 ")).count(), 2, "{run:#?}");
    assert_eq!(cluster.job(1)["nodes"].as_array().map(Vec::len), Some(4));
    cluster.down();
}

#[test]
fn c_and_python_programs_run_with_either_library() {
    let cluster = Cluster::start();
    for mpi in [Mpi::Mpich5, Mpi::Debian] {
        let program = mpi_program("pi", mpi);
        let program = program.to_str().unwrap();
        cluster.cli(FOUR_NODES.iter().chain(&[program, "1"])).succeeded().saying(&["checksum OK"]);
        // Two ranks a node share memory there.
        cluster.cli(["run", "-n", "4", program, "1"]).succeeded().saying(&["checksum OK"]);
    }
    let (python, ring) = (python(), repository().join("tests/programs/ring.py"));
    let script = [python.to_str().unwrap(), ring.to_str().unwrap()];
    cluster.cli(FOUR_NODES.iter().chain(&script)).succeeded().saying(&["ring of 4", "token OK"]);
    cluster.down();
}

#[test]
fn mpi_messages_travel_by_rcl_if_so_asked() {
    let cluster = Cluster::start();
    let (python, ring) = (python(), repository().join("tests/programs/ring.py"));
    let script = [python.to_str().unwrap(), ring.to_str().unwrap()];
    let by_rcl = ["--transport", "rcl", "--env", "MPIR_CVAR_DEBUG_SUMMARY=1"];
    // Each on a node of its own, and two on each.
    for ranks in [&FOUR_NODES[..], &["run", "-n", "4"]] {
        let run = cluster.cli(ranks.iter().chain(&by_rcl).chain(&script)).succeeded();
        run.saying(&["libfabric provider: rcl", "ring of 4", "token OK"]);
    }
    cluster.down();
}
