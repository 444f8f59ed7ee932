//! The cluster works over either of the communication layer's transports.

use rustix::process::Signal;
use system_tests::{Cluster, Options};

#[test]
fn without_io_uring_the_cluster_works_as_well() {
    let env = vec![("GHIDRAH_CL_TRANSPORT".to_owned(), "mio".to_owned())];
    let cluster = Cluster::start_with(Options { env, ..Options::default() });
    for (node, daemon) in [(1, "agent"), (1, "manager"), (6, "agent")] {
        assert!(cluster.log(node, daemon).contains("transport=mio"), "{}", cluster.log(node, daemon));
    }
    let pi = cluster.compute_pi(&[], 3);
    cluster.status().primary().signal(Signal::KILL);
    pi.finish().succeeded().saying(&["checksum OK"]);
    cluster.cli(["run", "-n", "6", "/bin/true"]).succeeded();
    cluster.down();
}
