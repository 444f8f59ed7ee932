use crate::wire::Checksum;
use std::net::IpAddr;
use std::time::Duration;

/// Segments that may be under way on one connection at the most: what the bitmap of selective
/// acknowledgements covers.
pub(crate) const WINDOW_MAX: usize = 4096;

/// The settings of a [`Node`](crate::Node)'s connections. Both ends may differ, except in the checksum: a
/// frame that is covered less than demanded is refused.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes behind the header in a frame: what fits a datagram beside [`HEADER_LEN`](crate::HEADER_LEN).
    pub segment_len: usize,
    /// Messages up to this many bytes share segments.
    pub small_len: usize,
    /// Bytes of small messages that are put into one segment.
    pub pack_len: usize,
    /// Segments a peer may be ahead of what our application has read: as many buffers, of `segment_len`
    /// bytes each, may have to be kept for it. At most 4096.
    pub window: usize,
    /// The same for all peers together; each gets its part of it, but two at least. Those that have sent nothing yet get a quarter
    /// together, and so do those at one address, or a half of it if all are at two, a third if at three.
    pub window_of_all: usize,
    /// Bytes of messages accepted for sending and not acknowledged yet, before more are refused. A message
    /// longer than this is accepted when nothing else waits.
    pub send_buffer: usize,
    /// The longest message accepted from a peer, in bytes, if it is not announced; a longer one closes the
    /// connection.
    pub message_len_max: usize,
    /// A peer that says nothing for so long is dead. That is told when this end is next called after that time, if
    /// it is never called later than an eighth of this after its deadlines. If it is, the silence may be its own, and
    /// it asks again, up to three times more and a quarter of this apart.
    pub dead_after: Duration,
    /// Whether a peer from which nothing is awaited is asked if it lives.
    pub keep_alive: bool,
    /// Bounds of the time after which a missing acknowledgement is asked for.
    pub rto_min: Duration,
    /// See `rto_min`.
    pub rto_max: Duration,
    /// Connections at once. For a call beyond that a connection is given up over which nothing has gone for a second since it was
    /// made, or else the call is refused.
    pub connections_max: usize,
    /// Connections at once with peers at one address (of IPv6: in one network of 64 bits) that have called us.
    pub connections_per_address: usize,
    /// Peers at this address, our own, may be as many as there are places, and have as much of the window as others.
    pub own_address: Option<IpAddr>,
    /// What the checksum of every frame sent covers.
    pub checksum: Checksum,
    /// What the checksum of a frame received must cover at least; `None` for as much as that of those sent.
    pub checksum_demanded: Option<Checksum>,
}

impl Config {
    /// The defaults for segments of `segment_len` bytes.
    pub fn new(segment_len: usize) -> Config {
        Config {
            segment_len,
            small_len: 8 << 10,
            pack_len: 16 << 10,
            window: ((4 << 20) / segment_len.max(1)).clamp(16, WINDOW_MAX),
            window_of_all: WINDOW_MAX,
            send_buffer: 8 << 20,
            message_len_max: 16 << 20,
            dead_after: Duration::from_secs(10),
            keep_alive: true,
            rto_min: Duration::from_millis(4),
            rto_max: Duration::from_millis(500),
            connections_max: 4096,
            connections_per_address: 1024,
            own_address: None,
            checksum: Checksum::Full,
            checksum_demanded: None,
        }
    }

    /// Whether all settings can be.
    ///
    /// # Errors
    /// [`ConfigError`] names the first one that cannot, and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, problem, remedy| Err(ConfigError { field, problem, remedy });
        if self.window < WINDOW_LEAST || self.window > WINDOW_MAX {
            return refuse("window", format!("{} segments", self.window), "set it to 2 to 4096");
        }
        if self.window_of_all < WINDOW_LEAST {
            let problem = format!("{} segments for all peers", self.window_of_all);
            return refuse("window_of_all", problem, "set it to 2 at least, better to `window`");
        }
        if self.send_buffer == 0 {
            return refuse(
                "send_buffer",
                "nothing can be sent".into(),
                "set it to the longest message at least",
            );
        }
        if self.message_len_max == 0 {
            return refuse(
                "message_len_max",
                "every message is too long".into(),
                "set it to the longest message",
            );
        }
        if self.connections_max == 0 {
            return refuse("connections_max", "nobody is answered".into(), "set it to 1 at least");
        }
        if self.connections_per_address == 0 {
            let remedy = "set it to 1 at least, better to a quarter of `connections_max`";
            return refuse("connections_per_address", "nobody is answered".into(), remedy);
        }
        if self.dead_after.is_zero() {
            let remedy = "set it to ten times as long as a peer may be held up, 10 s by default";
            return refuse("dead_after", "every peer is dead at once".into(), remedy);
        }
        if self.rto_min.is_zero() {
            return refuse("rto_min", "everything is sent again at once".into(), "set it to 1 ms at least");
        }
        if self.rto_min > self.rto_max {
            let problem = format!("{:?} is above `rto_max`, {:?}", self.rto_min, self.rto_max);
            return refuse("rto_min", problem, "lower it, or raise `rto_max`");
        }
        Ok(())
    }
}

/// The smallest window: one segment that is lost and one that shows it.
const WINDOW_LEAST: usize = 2;

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rcl::Config::{field}: {problem}; {remedy}")]
pub struct ConfigError {
    /// Which.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}
