//! Other messaging systems, measured by their own tools where the distribution has these, and otherwise by
//! small programs that follow them (`benches/peers`).

mod built;
mod process;
mod ucx;

use crate::case::{Case, Contents, Effort, Link, Pacing, Transport, Workload, names};
use crate::stats::Figures;
use std::path::PathBuf;
use std::time::Duration;

/// Somebody to be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// UCX, by its `ucx_perftest`: tagged messages over tcp, or over POSIX shared memory.
    Ucx,
    /// libfabric: tagged messages over its tcp or shm provider.
    Libfabric,
    /// ZeroMQ: request and reply, push and pull, over tcp, or ipc in place of shared memory.
    Zeromq,
    /// A bare UDP socket, one system call for each message.
    Udp,
    /// iceoryx2: publish and subscribe in shared memory.
    Iceoryx2,
}

names! {
    Peer { Ucx "ucx", Libfabric "libfabric", Zeromq "zeromq", Udp "udp", Iceoryx2 "iceoryx2" }
}

/// Why a peer was not measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Its program is not there.
    #[error("{peer} cannot be measured: {program} is missing; {remedy}")]
    Missing {
        /// Whose.
        peer: Peer,
        /// The program.
        program: String,
        /// The command that installs it.
        remedy: &'static str,
    },
    /// It has nothing that would compare.
    #[error("{peer} has nothing to compare with {what}")]
    Incomparable {
        /// Who.
        peer: Peer,
        /// What was to be compared.
        what: String,
    },
    /// It cannot send messages of this size.
    #[error("{peer} cannot send {size} bytes: {most} are the most")]
    TooLong {
        /// Who.
        peer: Peer,
        /// Bytes to be sent.
        size: usize,
        /// Bytes that can be.
        most: usize,
    },
    /// Its program failed.
    #[error("{program}: {why}")]
    Failed {
        /// The command.
        program: String,
        /// What it said, or how it ended.
        why: String,
    },
}

/// A peer's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Network,
    Memory,
}

fn medium(case: &Case) -> Medium {
    match case.transport {
        Transport::Udp | Transport::Mio | Transport::Uring | Transport::Xdp | Transport::Ofi => {
            Medium::Network
        }
        Transport::Shm => Medium::Memory,
    }
}

impl Peer {
    /// What the peer calls the transport that stands against that of `case`.
    pub fn transport(self, case: &Case) -> &'static str {
        match (self, medium(case)) {
            (Peer::Ucx, Medium::Memory) => "posix",
            (Peer::Libfabric, Medium::Memory) => "shm",
            (Peer::Zeromq, Medium::Memory) => "ipc",
            (Peer::Ucx | Peer::Libfabric | Peer::Zeromq, Medium::Network) => "tcp",
            (Peer::Udp, _) if case.pacing == Pacing::Park => "blocking",
            (Peer::Udp, _) => "spinning",
            (Peer::Iceoryx2, _) if case.contents == Contents::Copied => "copied",
            (Peer::Iceoryx2, _) => "loaned",
        }
    }

    /// # Errors
    /// [`PeerError::Incomparable`].
    fn comparable(self, case: &Case) -> Result<(), PeerError> {
        let fits = case.workload != Workload::Incast
            && case.link == Link::Host
            && case.faults.is_none()
            && case.transport != Transport::Xdp
            && match self {
                Peer::Ucx | Peer::Libfabric | Peer::Zeromq => true,
                Peer::Udp => medium(case) == Medium::Network,
                Peer::Iceoryx2 => medium(case) == Medium::Memory && case.workload == Workload::Lat,
            };
        if fits {
            return Ok(());
        }
        let what = match case.link {
            _ if case.faults.is_some() => {
                format!("{} with faults, which happen to nobody but us", case.workload)
            }
            Link::Host => format!("{} over {}", case.workload, case.transport),
            Link::Veth => format!("{} over a veth pair", case.workload),
        };
        Err(PeerError::Incomparable { peer: self, what })
    }
}

/// The longest contents of a UDP datagram over IPv4.
const DATAGRAM_MAX: usize = 65_507;

/// Where the peers' programs are.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The programs that `benches/peers/setup` builds.
    pub built: PathBuf,
}

/// How to get the programs of `benches/peers`.
const BUILD: &str = "run benches/peers/setup in Ghidrah's repository, or name the directory in GHIDRAH_PEERS";

impl Default for Peers {
    /// `$GHIDRAH_PEERS`, else `peers` beside the directory of this program (`target/peers`).
    fn default() -> Peers {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("peers"));
        let built = std::env::var_os("GHIDRAH_PEERS").map(PathBuf::from).or_else(beside);
        Peers { built: built.unwrap_or_else(|| PathBuf::from("target/peers")) }
    }
}

impl Peers {
    /// Whether `peer` can be measured beside `case`, without measuring it.
    ///
    /// # Errors
    /// [`PeerError`] names what is missing and the command that installs it.
    pub fn check(&self, peer: Peer, case: &Case) -> Result<(), PeerError> {
        peer.comparable(case)?;
        if peer == Peer::Udp && case.size > DATAGRAM_MAX {
            return Err(PeerError::TooLong { peer, size: case.size, most: DATAGRAM_MAX });
        }
        match peer {
            Peer::Ucx => ucx::check(),
            _ => self.find(peer).map(drop),
        }
    }

    /// Measures `peer` at what comes closest to `case`, its two sides on `cores`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn measure(&self, peer: Peer, case: &Case, cores: [Option<usize>; 2]) -> Result<Figures, PeerError> {
        self.check(peer, case)?;
        let mut figures = match peer {
            Peer::Ucx => ucx::measure(case, cores)?,
            _ => built::measure(peer, &self.find(peer)?, case, cores)?,
        };
        figures.samples.get_or_insert(iterations(case) as f64);
        Ok(figures)
    }

    /// The version of `peer` as it says itself; a hint if it does not.
    pub fn version(&self, peer: Peer) -> String {
        let version = match peer {
            Peer::Ucx => ucx::version(),
            _ => self.find(peer).ok().and_then(|program| built::version(&program)),
        };
        version.unwrap_or_else(|| "not installed".to_owned())
    }

    /// The program of ours that measures `peer`.
    fn find(&self, peer: Peer) -> Result<PathBuf, PeerError> {
        let program = self.built.join(peer.to_string());
        if program.is_file() {
            return Ok(program);
        }
        Err(PeerError::Missing { peer, program: program.display().to_string(), remedy: BUILD })
    }
}

/// How many messages, or round trips, make up the effort of `case`. Peers' tools count; what a message takes
/// them is known only roughly, and need not be known better.
fn iterations(case: &Case) -> u64 {
    /// Fewer make no percentile.
    const LEAST: u64 = 200;
    let time = match case.effort {
        Effort::Iterations(n) => return n,
        Effort::Time(time) => time,
    };
    let (once, byte) = match (medium(case), case.workload) {
        (Medium::Network, Workload::Lat) => (Duration::from_micros(16), 0.8),
        (Medium::Memory, Workload::Lat) => (Duration::from_nanos(1200), 0.3),
        (Medium::Network, _) => (Duration::from_nanos(3000), 0.25),
        (Medium::Memory, _) => (Duration::from_nanos(150), 0.1),
    };
    let ns = once.as_nanos() as f64 + byte * case.size as f64;
    ((time.as_nanos() as f64 / ns) as u64).max(LEAST)
}
