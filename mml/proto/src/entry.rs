use crate::Body;
use cl_base::Time;

/// A message in a sender's queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) class: u8,
    pub(crate) body: Body,
    /// When it was last sent.
    pub(crate) sent: Time,
    pub(crate) attempts: u32,
    /// The peer has it, but not yet all before it.
    pub(crate) arrived: bool,
}

impl Entry {
    pub(crate) fn new(class: u8, body: Body) -> Entry {
        Entry { class, body, sent: Time::ZERO, attempts: 0, arrived: false }
    }
}
