//! What is counted, and the state of a connection, for observers.

use crate::connection::Connection;
use std::time::Duration;

/// What the connections have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames shorter than a header.
    pub truncated: u64,
    /// Frames of another version.
    pub version: u64,
    /// Frames of a kind that does not exist.
    pub kind: u64,
    /// Frames of a length that their kind does not have.
    pub length: u64,
    /// Frames whose checksum is wrong, or covers too little.
    pub checksum: u64,
    /// Frames of connections that are no more, or never were.
    pub stale: u64,
    /// Calls beyond the greatest number of connections, or while the application does not ask for events.
    pub refused: u64,
    /// Confirmations of calls whose token is not ours, or has expired: forged, or meant for a former life of ours.
    pub unproven: u64,
    /// Calls in the name of a peer with which there is a connection, and which lives.
    pub taken: u64,
    /// Frames of no connection that were not answered, because too many came from their address, or at once.
    pub unanswered: u64,
    /// Connections ended because the peer broke the protocol.
    pub violations: u64,
    /// Messages accepted for sending; announced ones when they have arrived.
    pub messages_sent: u64,
    /// Bytes in these.
    pub bytes_sent: u64,
    /// Messages handed out; announced ones when they have arrived.
    pub messages_received: u64,
    /// Bytes in these.
    pub bytes_received: u64,
    /// Messages copied, into a segment with others or out of one.
    pub copies: u64,
    /// Segments sent for the first time.
    pub segments: u64,
    /// Segments sent again.
    pub retransmissions: u64,
    /// Of these, those that were not needed, for another copy has arrived, as far as the peers have told.
    pub spurious: u64,
    /// Segments received more than once.
    pub duplicates: u64,
    /// Times that no acknowledgement came in time.
    pub timeouts: u64,
    /// Times that a peer held us up for want of credit.
    pub credit_stalls: u64,
    /// Times that a message could not be handed out, or a segment kept, for want of a buffer.
    pub starved: u64,
}

/// The state of one connection, for observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of messages accepted for sending and not acknowledged.
    pub held: usize,
    /// Messages, and packs of several, of which a part was not sent yet.
    pub waiting: usize,
    /// Segments under way.
    pub under_way: usize,
    /// Segments that the network is thought to bear.
    pub window: usize,
    /// Segments received and not read.
    pub kept: usize,
    /// The smoothed round-trip time; zero if none has been measured.
    pub round_trip: Duration,
}

impl Sizes {
    pub(super) fn of<B: std::ops::Deref<Target = [u8]>>(connection: &Connection<B>) -> Sizes {
        let (held, waiting, under_way, window) = connection.sender.sizes();
        let round_trip = connection.sender.round_trip();
        Sizes { held, waiting, under_way, window, kept: connection.receiver.kept(), round_trip }
    }
}

impl Counters {
    pub(super) fn add<B: std::ops::Deref<Target = [u8]>>(&mut self, connection: &Connection<B>) {
        let (sent, received) = (&connection.sender.tally, &connection.receiver.tally);
        self.messages_sent += sent.messages;
        self.bytes_sent += sent.bytes;
        self.messages_received += received.messages;
        self.bytes_received += received.bytes;
        self.copies += sent.copies + received.copies;
        self.segments += sent.segments;
        self.retransmissions += sent.retransmissions;
        self.spurious += sent.spurious;
        self.timeouts += sent.timeouts;
        self.credit_stalls += sent.credit_stalls;
        self.duplicates += received.duplicates;
        self.starved += received.stalls;
    }
}
