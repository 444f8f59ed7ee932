//! Byzantine fault-tolerant replication of a deterministic state machine, without I/O
