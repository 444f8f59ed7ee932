//! The election under faults, by seeds. `BOOTSTRAP_SEEDS=first..end` chooses them.

mod byzantine;
mod keys;
mod scenarios;
mod swarm;
mod world;
