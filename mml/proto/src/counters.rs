/// How often what happened since the start. Frames are counted once, under the first reason to refuse them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed to `poll_transmit`'s caller.
    pub frames_sent: u64,
    /// Frames accepted.
    pub frames_received: u64,
    /// Message transmissions, repetitions included.
    pub messages_sent: u64,
    /// ACK and NACK messages sent again.
    pub retransmitted: u64,
    /// Messages handed up.
    pub messages_delivered: u64,
    /// Messages received again and dropped.
    pub duplicates: u64,
    /// Refused: not a frame of this protocol version, or an authentic frame that breaks its rules.
    pub malformed: u64,
    /// Refused: the sender has no key here.
    pub unknown_peer: u64,
    /// Refused: wrong authentication code.
    pub bad_mac: u64,
    /// Refused: a frame seen before, or too old to tell.
    pub replayed: u64,
    /// Refused: a handshake of an incarnation before the one known.
    pub stale_incarnation: u64,
    /// Refused: a handshake begun earlier than one already taken, or an answer to none under way.
    pub stale_handshake: u64,
    /// Refused: a frame of a session that is not the present one.
    pub unknown_session: u64,
    /// Refused: no room for another peer.
    pub peers_full: u64,
    /// Refused: the caller does not drain its events.
    pub overload: u64,
    /// Messages not taken, and left to be repeated, because they are too far ahead of a missing one.
    pub reorder_full: u64,
    /// UNR messages dropped because the session was not up.
    pub unr_dropped: u64,
    /// `send` refused for back-pressure.
    pub backpressure: u64,
    /// NACK messages of peers lost for good.
    pub gaps: u64,
    /// Handshakes of others that were computed.
    pub handshakes: u64,
    /// New keys for a session that went on.
    pub rekeyed: u64,
    /// Refused: more handshakes than may be computed.
    pub handshakes_refused: u64,
    /// Handshakes sent back for a cookie.
    pub cookies: u64,
    /// Refused: a handshake with no version in common.
    pub incompatible: u64,
}
