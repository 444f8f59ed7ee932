//! Reliable messages over cl: the protocol, without I/O
