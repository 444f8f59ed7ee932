//! Reliable FIFO messages for applications
