//! Workloads of the benchmarks: what is measured, apart from how.

pub mod group;
