//! What the connections do, for those who read the endpoint's counters from outside.

use crate::memory::PoolMemory;
use crate::shared::{Links, Traffic};
use cl::counters::{Group, Label, Live, PeerGroup};
use cl_base::PeerId;
use rcl_proto::{Counters, Node, Sizes};
use std::collections::BTreeMap;
use std::time::Duration;

const TOTALS: &[Label] = &[
    Label::count("messages_sent", "Messages accepted for sending; announced ones when they have arrived."),
    Label::count("bytes_sent", "Bytes in these."),
    Label::count("messages_received", "Messages handed out; announced ones when they have arrived."),
    Label::count("bytes_received", "Bytes in these."),
    Label::count("segments", "Segments sent for the first time."),
    Label::count("retransmissions", "Segments sent again."),
    Label::count("spurious", "Of these, those that were not needed, as far as peers have told."),
    Label::count("timeouts", "Times that no acknowledgement came in time."),
    Label::count(
        "credit_stalls",
        "Times that a peer held us up for want of credit, or of room in shared memory.",
    ),
    Label::count("copies", "Messages copied, into a segment with others or out of one."),
    Label::count(
        "starved",
        "Times that a message could not be handed out, or a segment kept, for want of a buffer.",
    ),
    Label::level("connections", "Connections by the network."),
    Label::level("shared_connections", "Connections by shared memory."),
];
const DROPS: &[Label] = &[
    Label::count("truncated", "Frames shorter than a header."),
    Label::count("version", "Frames of another version."),
    Label::count("kind", "Frames of a kind that does not exist."),
    Label::count("length", "Frames of a length that their kind does not have."),
    Label::count("checksum", "Frames whose checksum is wrong, or covers too little."),
    Label::count("stale", "Frames of connections that are no more, or never were."),
    Label::count(
        "refused",
        "Calls beyond the greatest number of connections, or while nobody asks for events.",
    ),
    Label::count("unproven", "Confirmations of calls whose token is not ours, or has expired."),
    Label::count("taken", "Calls in the name of a peer that is connected and lives."),
    Label::count("unanswered", "Frames of no connection that were not answered, for there were too many."),
    Label::count("violations", "Connections ended because the peer broke the protocol."),
    Label::count("duplicates", "Segments received more than once."),
];
/// The counts, and the drops of each peer, are about all connections with it, the levels about the one there is. Over shared
/// memory there are no segments.
const OF_PEERS: &[Label] = &[
    Label::count("messages_sent", "Messages to the peer; announced ones when they have arrived."),
    Label::count("bytes_sent", "Bytes in these."),
    Label::count("messages_received", "Messages from the peer; announced ones when they have arrived."),
    Label::count("bytes_received", "Bytes in these."),
    Label::count("retransmissions", "Segments sent again to the peer."),
    Label::count("spurious", "Of these, those that were not needed, as far as the peer has told."),
    Label::count(
        "credit_stalls",
        "Times that the peer held us up for want of credit, or of room in shared memory.",
    ),
    Label::count("copies", "Messages copied, into a segment with others or out of one."),
    Label::level("held", "Bytes of messages accepted for sending and not acknowledged."),
    Label::level(
        "waiting",
        "Messages accepted, packs of several counted once, of which a part was not sent yet.",
    ),
    Label::level("under_way", "Segments under way."),
    Label::level("window", "Segments that the network is thought to bear."),
    Label::level("kept", "Segments received and not read."),
    Label::level("rtt_us", "The smoothed round-trip time, microseconds."),
];

/// The first so many of [`OF_PEERS`] are counts, and the others levels.
const COUNTS: usize = 8;
/// Of each peer, counts and then drops.
type Counts = [u64; COUNTS + DROPS.len()];

type Levels = [u64; OF_PEERS.len() - COUNTS];

/// What connections with a peer have done, by the network or by shared memory.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// The former ones, and the last one.
    before: Counts,
    last: Counts,
    /// The last one was there at the last look.
    lasts: bool,
}

impl Way {
    fn look(&mut self, counts: Counts) {
        let is_new = !self.lasts || counts.iter().zip(self.last).any(|(now, last)| *now < last);
        if is_new {
            add(&mut self.before, &self.last);
        }
        (self.last, self.lasts) = (counts, true);
    }
}

fn add(to: &mut Counts, what: &Counts) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

/// What is shown of a peer.
#[derive(Debug, Default)]
struct Known {
    network: Way,
    shared: Way,
    levels: Levels,
    /// A connection is there.
    seen: [bool; 2],
}

/// Where the counters of this layer are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    totals: Group,
    drops: Group,
    of_peers: PeerGroup,
    drops_of_peers: PeerGroup,
    /// Those with a row; the counts of connections that have ended stay there.
    peers: BTreeMap<PeerId, Known>,
}

impl Shown {
    pub(crate) fn new(live: &mut Live) -> Shown {
        Shown {
            totals: live.group("rcl", TOTALS),
            drops: live.group("rcl drops", DROPS),
            of_peers: live.peer_group("rcl", OF_PEERS),
            drops_of_peers: live.peer_group("rcl drops", DROPS),
            peers: BTreeMap::new(),
        }
    }

    /// Shows what has been counted, in all and by peer. What no row has, a connection's last moments say, the others' row
    /// has: so the rows together are the total.
    pub(crate) fn show(&mut self, live: &mut Live, node: &Node<PoolMemory>, links: &Links) {
        self.peers.retain(|peer, _| live.has_row(*peer));
        for known in self.peers.values_mut() {
            (known.levels, known.seen) = (Levels::default(), [false; 2]);
        }
        let mut by_network = 0;
        for (peer, counters, sizes) in node.connections() {
            by_network += 1;
            if live.has_row(peer) {
                self.look(peer, &of_network(&counters, sizes), &drops(&counters), false);
            }
        }
        for (peer, carried, held, waiting) in links.each() {
            if live.has_row(peer) {
                self.look(peer, &of_shared(carried, held, waiting), &[0; DROPS.len()], true);
            }
        }
        let all = of_all(node, links);
        let mut others = counts(&of_network(&all, NOTHING), &drops(&all));
        for (peer, known) in &mut self.peers {
            [known.network.lasts, known.shared.lasts] = known.seen;
            let mut row = Counts::default();
            for way in [&known.network, &known.shared] {
                add(&mut row, &way.before);
                add(&mut row, &way.last);
            }
            others.iter_mut().zip(row).for_each(|(others, row)| *others = others.saturating_sub(row));
            let (of_peer, drops_of_peer) = row.split_at(COUNTS);
            live.set_peer(self.of_peers, *peer, &joined(of_peer, &known.levels));
            live.set_peer(self.drops_of_peers, *peer, drops_of_peer);
        }
        let (of_others, drops_of_others) = others.split_at(COUNTS);
        live.set_others(self.of_peers, &joined(of_others, &Levels::default()));
        live.set_others(self.drops_of_peers, drops_of_others);
        live.set(self.totals, &totals(&all, by_network, links.count() as u64));
        live.set(self.drops, &drops(&all));
    }

    fn look(
        &mut self,
        peer: PeerId,
        values: &[u64; OF_PEERS.len()],
        drops: &[u64; DROPS.len()],
        shared: bool,
    ) {
        let known = self.peers.entry(peer).or_default();
        known.seen[usize::from(shared)] = true;
        known.levels.copy_from_slice(&values[COUNTS..]);
        let way = if shared { &mut known.shared } else { &mut known.network };
        way.look(counts(values, drops));
    }
}

/// A row of [`OF_PEERS`].
fn joined(counts: &[u64], levels: &Levels) -> [u64; OF_PEERS.len()] {
    std::array::from_fn(|i| if i < COUNTS { counts[i] } else { levels[i - COUNTS] })
}

/// The state of no connection.
const NOTHING: Sizes =
    Sizes { held: 0, waiting: 0, under_way: 0, window: 0, kept: 0, round_trip: Duration::ZERO };

fn counts(values: &[u64; OF_PEERS.len()], drops: &[u64; DROPS.len()]) -> Counts {
    std::array::from_fn(|i| if i < COUNTS { values[i] } else { drops[i - COUNTS] })
}

/// In the order of [`TOTALS`].
fn totals(counters: &Counters, by_network: u64, by_memory: u64) -> [u64; TOTALS.len()] {
    [
        counters.messages_sent,
        counters.bytes_sent,
        counters.messages_received,
        counters.bytes_received,
        counters.segments,
        counters.retransmissions,
        counters.spurious,
        counters.timeouts,
        counters.credit_stalls,
        counters.copies,
        counters.starved,
        by_network,
        by_memory,
    ]
}

/// In the order of [`DROPS`].
fn drops(counters: &Counters) -> [u64; DROPS.len()] {
    // All fields are named, so that a new one is not forgotten here and above.
    let Counters {
        truncated,
        version,
        kind,
        length,
        checksum,
        stale,
        refused,
        unproven,
        taken,
        unanswered,
        violations,
        messages_sent: _,
        bytes_sent: _,
        messages_received: _,
        bytes_received: _,
        copies: _,
        segments: _,
        retransmissions: _,
        spurious: _,
        duplicates,
        timeouts: _,
        credit_stalls: _,
        starved: _,
    } = *counters;
    [
        truncated, version, kind, length, checksum, stale, refused, unproven, taken, unanswered, violations,
        duplicates,
    ]
}

/// What all connections have done, by the network and by shared memory.
pub(crate) fn of_all(node: &Node<PoolMemory>, links: &Links) -> Counters {
    let mut counters = node.counters();
    counters.stale += links.stale;
    let Traffic { messages_sent, bytes_sent, messages_received, bytes_received, stalls } = links.traffic();
    counters.messages_sent += messages_sent;
    counters.bytes_sent += bytes_sent;
    counters.messages_received += messages_received;
    counters.bytes_received += bytes_received;
    counters.credit_stalls += stalls;
    counters
}

/// A connection by the network, in the order of [`OF_PEERS`].
fn of_network(counters: &Counters, sizes: Sizes) -> [u64; OF_PEERS.len()] {
    let Sizes { held, waiting, under_way, window, kept, round_trip } = sizes;
    let [held, waiting, under_way, window, kept] = [held, waiting, under_way, window, kept].map(|n| n as u64);
    [
        counters.messages_sent,
        counters.bytes_sent,
        counters.messages_received,
        counters.bytes_received,
        counters.retransmissions,
        counters.spurious,
        counters.credit_stalls,
        counters.copies,
        held,
        waiting,
        under_way,
        window,
        kept,
        u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
    ]
}

/// One by shared memory.
fn of_shared(carried: Traffic, held: usize, waiting: usize) -> [u64; OF_PEERS.len()] {
    let Traffic { messages_sent, bytes_sent, messages_received, bytes_received, stalls } = carried;
    let (held, waiting) = (held as u64, waiting as u64);
    [messages_sent, bytes_sent, messages_received, bytes_received, 0, 0, stalls, 0, held, waiting, 0, 0, 0, 0]
}
