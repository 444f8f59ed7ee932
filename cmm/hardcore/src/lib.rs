//! The trusted hardcore: votes on reset commands and powers nodes off and on
