/// Counters of an endpoint since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages accepted for sending.
    pub messages_sent: u64,
    /// Datagrams the socket took.
    pub datagrams_sent: u64,
    /// Bytes of contents in these.
    pub bytes_sent: u64,
    /// Sends refused with a [`SendError`](super::SendError).
    pub sends_refused: u64,
    /// Messages handed to the caller.
    pub messages_received: u64,
    /// Datagrams received, refused ones included.
    pub datagrams_received: u64,
    /// Bytes of contents in the messages handed to the caller.
    pub bytes_received: u64,
    /// Messages handed to processes of this host, and received from them, through shared memory; they are
    /// among the messages above.
    pub shared_sent: u64,
    /// See `shared_sent`.
    pub shared_received: u64,
    /// Messages that were copied on their way by us (short ones into and out of shared memory, fragments and
    /// packed ones into buffers of their own), and datagrams that libfabric could not send at once.
    pub copies: u64,
    /// Times that nothing could be received because the pool was used up.
    pub starved: u64,
    /// What was dropped, and why.
    pub drops: Drops,
}

/// Frames and messages dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Shorter than a header.
    pub truncated: u64,
    /// Not our magic number.
    pub magic: u64,
    /// Another version of the header.
    pub version: u64,
    /// Impossible fragment numbers, or a length that does not fit them.
    pub geometry: u64,
    /// For another party than this endpoint's.
    pub misaddressed: u64,
    /// A fragment that had arrived before.
    pub duplicate_fragment: u64,
    /// A fragment that contradicts earlier ones of its message.
    pub inconsistent_fragment: u64,
    /// A fragment for whose message there was no buffer.
    pub exhausted: u64,
    /// Unfinished messages that gave way to others.
    pub reassembly_evicted: u64,
    /// Unfinished messages that waited too long for the rest.
    pub reassembly_expired: u64,
    /// Messages accepted for sending that the system refused later, at least in part.
    pub send_failed: u64,
    /// Errors of the system while receiving.
    pub receive_failed: u64,
    /// Datagrams for parties that do not say where they are, or take none (libfabric).
    pub unreachable: u64,
    /// Datagrams that do not say where they come from (libfabric).
    pub preamble: u64,
    /// Questions and answers about addresses that make no sense or were not asked for (libfabric).
    pub control: u64,
    /// Frames whose headers contradict themselves, or whose sender cannot be one (AF_XDP).
    pub frame: u64,
}

impl Drops {
    /// All of them together.
    pub fn total(&self) -> u64 {
        let Drops {
            truncated,
            magic,
            version,
            geometry,
            misaddressed,
            duplicate_fragment,
            inconsistent_fragment,
            exhausted,
            reassembly_evicted,
            reassembly_expired,
            send_failed,
            receive_failed,
            unreachable,
            preamble,
            control,
            frame,
        } = *self;
        [
            truncated,
            magic,
            version,
            geometry,
            misaddressed,
            duplicate_fragment,
            inconsistent_fragment,
            exhausted,
            reassembly_evicted,
            reassembly_expired,
            send_failed,
            receive_failed,
            unreachable,
            preamble,
            control,
            frame,
        ]
        .iter()
        .sum()
    }
}
