use std::time::Duration;

/// The settings of a [`Node`](crate::Node)'s connections. Both ends may differ.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of contents in a segment: what fits a datagram beside [`HEADER_LEN`](crate::HEADER_LEN).
    pub segment_len: usize,
    /// Segments the peer may be ahead of what our application has read; at most 256, which is what the
    /// bitmap of selective acknowledgements covers.
    pub window: u64,
    /// Bytes of messages accepted for sending and not acknowledged yet, before more are refused. A message
    /// longer than this is accepted when nothing else waits.
    pub send_buffer: usize,
    /// The longest message accepted from a peer, in bytes; a longer one closes the connection.
    pub message_len_max: usize,
    /// A peer that says nothing for so long is dead; a little later if this end has not been polled
    /// meanwhile, for then the silence may be its own.
    pub dead_after: Duration,
    /// Bounds of the retransmission time-out.
    pub rto_min: Duration,
    /// See `rto_min`.
    pub rto_max: Duration,
    /// Connections at once; peers beyond that are not answered.
    pub connections_max: usize,
}

/// Segments that an acknowledgement's bitmap covers.
pub(crate) const WINDOW_MAX: u64 = 256;

impl Config {
    /// The defaults for segments of `segment_len` bytes.
    pub fn new(segment_len: usize) -> Config {
        Config {
            segment_len,
            window: WINDOW_MAX,
            send_buffer: 16 << 20,
            message_len_max: 1 << 30,
            dead_after: Duration::from_secs(10),
            rto_min: Duration::from_millis(2),
            rto_max: Duration::from_millis(500),
            connections_max: 4096,
        }
    }
}
