//! Authenticated management messages: the protocol, without I/O
