//! Deterministic simulation of replica groups
