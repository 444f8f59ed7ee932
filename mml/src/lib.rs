//! Authenticated management messages over cl
