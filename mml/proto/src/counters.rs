/// Declares the counters once: the public fields, their names and meanings, and their values in the same order.
macro_rules! counters {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[doc = $meaning:literal])+ $field:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $field: u64,)+
        }

        impl $name {
            /// Names and meanings, in the order of their declaration.
            pub const NAMES: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), concat!($($meaning),+)),)+];

            /// The values, in the same order.
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field),+]
            }

            pub(crate) fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

counters! {
/// How often what happened since the start. Frames are counted once, under the first reason to refuse them.
pub struct Counters {
    /// Frames handed to `poll_transmit`'s caller.
    frames_sent,
    /// Frames accepted.
    frames_received,
    /// Message transmissions, repetitions included.
    messages_sent,
    /// ACK and NACK messages sent again.
    retransmitted,
    /// Messages handed up.
    messages_delivered,
    /// Messages received again and dropped.
    duplicates,
    /// Refused: not a frame of this protocol version, or an authentic frame that breaks its rules.
    malformed,
    /// Refused: the sender has no key here.
    unknown_peer,
    /// Refused: wrong authentication code.
    bad_mac,
    /// Refused: a frame seen before, or too old to tell.
    replayed,
    /// Refused: a handshake of an incarnation before the one known.
    stale_incarnation,
    /// Refused: a handshake begun earlier than one already taken, or an answer to none under way.
    stale_handshake,
    /// Refused: a frame of a session that is not the present one.
    unknown_session,
    /// Refused: no room for another peer.
    peers_full,
    /// Refused: the caller does not drain its events.
    overload,
    /// Messages not taken, and left to be repeated, because they are too far ahead of a missing one.
    reorder_full,
    /// UNR messages dropped because the session was not up.
    unr_dropped,
    /// `send` refused for back-pressure.
    backpressure,
    /// NACK messages of peers lost for good.
    gaps,
    /// Handshakes of others that were computed.
    handshakes,
    /// New keys for a session that went on.
    rekeyed,
    /// Refused: more handshakes than may be computed.
    handshakes_refused,
    /// Handshakes sent back for a cookie.
    cookies,
    /// Refused: a handshake with no version in common.
    incompatible,
}
}
