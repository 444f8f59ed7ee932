use std::num::NonZeroU32;

/// Names a channel of an endpoint. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    pub(super) index: u32,
    pub(super) birth: NonZeroU32,
}
