//! The atomics of what several threads or processes change at once. The crate `cl-loom` compiles the same
//! files with those of a model checker.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
