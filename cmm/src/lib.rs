//! Ghidrah's daemons and command line
