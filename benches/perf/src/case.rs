//! What one measurement is: a [`Case`].

use crate::faults;
use cl::Injection;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Ping-pong: half the round trip.
    Lat,
    /// One way, many messages under way: bytes per second.
    Bw,
    /// One way, many messages under way: messages per second.
    Rate,
    /// Several senders to one receiver, and whether each gets its share.
    Incast,
}

impl Workload {
    /// True for the workloads of which the time of one message is told, and less is better.
    pub fn is_latency(self) -> bool {
        self == Workload::Lat
    }
}

/// The layer measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Connectionless messages.
    Cl,
    /// Reliable messages.
    Rcl,
    /// Authenticated management messages, acknowledged.
    Mml,
    /// Authenticated management messages, unreliable.
    #[serde(rename = "mml-unr")]
    MmlUnr,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP, as `cl` chooses to drive it.
    Udp,
    /// UDP with non-blocking calls and epoll.
    Mio,
    /// UDP with io_uring.
    Uring,
    /// Memory shared between the two processes.
    Shm,
    /// AF_XDP on a pair of virtual network devices between two network namespaces.
    Xdp,
    /// libfabric, over the provider that it offers first or the one that `GHIDRAH_CL_TRANSPORT=ofi:PROVIDER`
    /// names.
    Ofi,
}

/// What lies between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// This host's loopback device; or the network between it and the host of `--connect`.
    Host,
    /// A pair of virtual Ethernet devices between two network namespaces ([`crate::veth`]).
    Veth,
}

/// What the threads do while nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// Poll on.
    Spin,
    /// Sleep.
    Park,
}

/// Where the contents of messages come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contents {
    /// They are made and read in the message buffer itself; no more than the first bytes are touched.
    Loaned,
    /// They are copied from memory of the sender's own into the message buffer, and out of it at the receiver.
    Copied,
}

/// How long a measurement goes on, its warm-up of a tenth not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// So long.
    Time(Duration),
    /// So many round trips, or messages of each sender.
    Iterations(u64),
}

impl Effort {
    /// The warm-up that belongs to it.
    pub fn warm_up(self) -> Effort {
        self.part(1, 10)
    }

    /// `numerator / denominator` of it, and not nothing.
    pub fn part(self, numerator: u32, denominator: u32) -> Effort {
        match self {
            Effort::Time(time) => Effort::Time(time * numerator / denominator),
            Effort::Iterations(n) => {
                Effort::Iterations((n * u64::from(numerator) / u64::from(denominator)).max(1))
            }
        }
    }
}

/// One thing to measure, ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What is measured.
    pub workload: Workload,
    /// Of which layer.
    pub layer: Layer,
    /// Over what.
    pub transport: Transport,
    /// Between whom.
    pub link: Link,
    /// Bytes in a message.
    pub size: usize,
    /// Messages that each sender may have under way: sent, and not yet known to have been received by the
    /// receiver's program. Not used by [`Workload::Lat`], which has one.
    pub window: u32,
    /// Spinning or sleeping.
    pub pacing: Pacing,
    /// In place or copied.
    pub contents: Contents,
    /// Senders, 1 but for [`Workload::Incast`].
    pub senders: u32,
    /// How long.
    pub effort: Effort,
    /// What happens on purpose to the datagrams of both sides.
    #[serde(with = "faults::as_text")]
    pub faults: Option<Injection>,
}

/// The receiver gives credit four times in a window: often enough that the sender need not stop, seldom
/// enough that credits cost little.
const CREDITS_PER_WINDOW: u32 = 4;

impl Case {
    /// Messages of a sender for which the receiver gives credit at once.
    pub fn messages_per_credit(&self) -> u32 {
        (self.window / CREDITS_PER_WINDOW).max(1)
    }
}

/// Bytes under way that a window should not exceed by default: what a socket's buffer of the usual 208 KiB
/// holds, so that nothing is lost for want of room.
const BYTES_UNDER_WAY: usize = 128 << 10;
/// Enough small messages to fill the largest datagrams several times over.
const WINDOW_MAX: usize = 2048;
/// With fewer a sender cannot be kept busy.
const WINDOW_MIN: usize = 4;

/// The window for messages of `size` bytes if none was asked for.
pub fn default_window(size: usize) -> u32 {
    (BYTES_UNDER_WAY / size.max(1)).clamp(WINDOW_MIN, WINDOW_MAX) as u32
}

macro_rules! names {
    ($($type:ident { $($variant:ident $name:literal),+ $(,)? })+) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $($type::$variant => $name),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<$type, String> {
                match text {
                    $($name => Ok($type::$variant),)+
                    _ => Err(format!("{text:?} is none of {}", [$($name),+].join(", "))),
                }
            }
        }
    )+};
}
pub(crate) use names;

names! {
    Workload { Lat "lat", Bw "bw", Rate "rate", Incast "incast" }
    Layer { Cl "cl", Rcl "rcl", Mml "mml", MmlUnr "mml-unr" }
    Transport { Udp "udp", Mio "mio", Uring "uring", Shm "shm", Xdp "xdp", Ofi "ofi" }
    Link { Host "host", Veth "veth" }
    Pacing { Spin "spin", Park "park" }
    Contents { Loaned "loaned", Copied "copied" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        assert_eq!("incast".parse(), Ok(Workload::Incast));
        assert_eq!(Transport::Xdp.to_string().parse(), Ok(Transport::Xdp));
        assert_eq!(
            "tcp".parse::<Transport>(),
            Err("\"tcp\" is none of udp, mio, uring, shm, xdp, ofi".into())
        );
    }

    #[test]
    fn windows_fit_the_socket() {
        assert_eq!(default_window(0), 2048);
        assert_eq!(default_window(64), 2048);
        assert_eq!(default_window(8 << 10), 16);
        assert_eq!(default_window(1 << 20), 4);
    }

    #[test]
    fn a_part_is_never_nothing() {
        assert_eq!(Effort::Iterations(3).warm_up(), Effort::Iterations(1));
        assert_eq!(
            Effort::Time(Duration::from_secs(1)).part(3, 10),
            Effort::Time(Duration::from_millis(300))
        );
    }
}
