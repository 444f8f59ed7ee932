//! Connectionless, unreliable, zero-copy messages and the thread-per-core runtime
