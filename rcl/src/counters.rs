//! What the connections do, for those who read the endpoint's counters from outside.

use crate::memory::PoolMemory;
use crate::shared::Links;
use cl::counters::{Group, Label, Live, PeerGroup};
use cl_base::PeerId;
use rcl_proto::{Counters, Node, Sizes};

const TOTALS: &[Label] = &[
    Label::count("segments", "Segments sent for the first time."),
    Label::count("retransmissions", "Segments sent again."),
    Label::count("spurious", "Of these, those whose first copy had arrived."),
    Label::count("timeouts", "Times that no acknowledgement came in time."),
    Label::count("credit_stalls", "Times that a peer held us up for want of credit."),
    Label::count("copies", "Messages copied, into a segment with others or out of one."),
    Label::count("starved", "Times that a message could not be handed out for want of a buffer."),
    Label::level("connections", "Connections by the network."),
    Label::level("shared_connections", "Connections by shared memory."),
];
const DROPS: &[Label] = &[
    Label::count("truncated", "Frames shorter than a header."),
    Label::count("version", "Frames of another version."),
    Label::count("kind", "Frames of a kind that does not exist."),
    Label::count("length", "Frames of a length that their kind does not have."),
    Label::count("checksum", "Frames whose checksum is wrong, or covers too little."),
    Label::count("stale", "Frames of an incarnation that has passed."),
    Label::count("refused", "Calls beyond the greatest number of connections."),
    Label::count("violations", "Connections ended because the peer broke the protocol."),
    Label::count("duplicates", "Segments received more than once."),
];
const OF_PEERS: &[Label] = &[
    Label::count("retransmissions", "Segments sent again to the peer, by this connection."),
    Label::count("credit_stalls", "Times that the peer held us up for want of credit."),
    Label::count("duplicates", "Segments received more than once."),
    Label::level("held", "Bytes of messages accepted for sending and not acknowledged."),
    Label::level("under_way", "Segments under way."),
    Label::level("window", "Segments that the network is thought to bear."),
    Label::level("kept", "Segments received and not read."),
    Label::level("rtt_us", "The smoothed round-trip time, microseconds."),
];

/// Where the counters of this layer are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    totals: Group,
    drops: Group,
    of_peers: PeerGroup,
    /// Those with a connection at the last time.
    peers: Vec<PeerId>,
}

impl Shown {
    pub(crate) fn new(live: &mut Live) -> Shown {
        Shown {
            totals: live.group("rcl", TOTALS),
            drops: live.group("rcl drops", DROPS),
            of_peers: live.peer_group("rcl", OF_PEERS),
            peers: Vec::new(),
        }
    }

    /// Shows what has been counted, and each connection by the network.
    pub(crate) fn show(&mut self, live: &mut Live, node: &Node<PoolMemory>, links: &Links) {
        let mut counters = node.counters();
        counters.stale += links.stale;
        // Those that have ended are set to nothing, unless they are there again.
        for peer in self.peers.drain(..) {
            live.set_peer(self.of_peers, peer, &[0; OF_PEERS.len()]);
        }
        for (peer, counters, sizes) in node.connections() {
            let Sizes { held, under_way, window, kept, round_trip } = sizes;
            let levels = [held, under_way, window, kept].map(|level| level as u64);
            let [held, under_way, window, kept] = levels;
            let Counters { retransmissions, credit_stalls, duplicates, .. } = counters;
            let rtt = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            let values = [retransmissions, credit_stalls, duplicates, held, under_way, window, kept, rtt];
            live.set_peer(self.of_peers, peer, &values);
            self.peers.push(peer);
        }
        // All fields are named, so that a new one is not forgotten here.
        let Counters {
            truncated,
            version,
            kind,
            length,
            checksum,
            stale,
            refused,
            violations,
            copies,
            segments,
            retransmissions,
            spurious,
            duplicates,
            timeouts,
            credit_stalls,
            starved,
        } = counters;
        let (by_network, shared) = (self.peers.len() as u64, links.count() as u64);
        let totals = [
            segments,
            retransmissions,
            spurious,
            timeouts,
            credit_stalls,
            copies,
            starved,
            by_network,
            shared,
        ];
        live.set(self.totals, &totals);
        let drops = [truncated, version, kind, length, checksum, stale, refused, violations, duplicates];
        live.set(self.drops, &drops);
    }
}
