//! What the fuzz targets call (`fuzz/`): for each of this layer's parsers a function of arbitrary bytes, which
//! panics if it finds a fault. Compiled with `--cfg fuzzing` only.

pub use crate::endpoint::fuzzing::datagrams;
pub use crate::shm::fuzzing::{neighbour, offer};
#[cfg(feature = "ofi")]
pub use crate::transport::ofi::fuzzing::control;
pub use crate::transport::xdp::fuzzing::frame;
