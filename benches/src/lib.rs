//! Benchmarks of every layer
