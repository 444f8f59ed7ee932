use crate::ack::AckArrivals;
use std::time::Duration;

/// The version of the protocol that this code speaks.
pub(crate) const VERSION: u8 = 1;

/// Header, tag, and the control items that travel with messages.
const FRAME_BYTES_MIN: usize = 512;

/// Limits and times of one [`Mml`](crate::Mml). All limits are per peer unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest message body in bytes, sent and accepted.
    pub body_bytes_max: usize,
    /// Messages are bundled into one frame up to this many bytes, so that a bundle fits one packet of an
    /// ordinary network; a single longer message still travels in a frame of its own.
    pub frame_bytes: usize,
    /// Messages that may wait to be sent or acknowledged before `send` reports back-pressure.
    pub queue_messages: usize,
    /// Body bytes that may wait to be sent or acknowledged before `send` reports back-pressure.
    pub queue_bytes: usize,
    /// NACK messages kept for repair after they were sent.
    pub history_messages: usize,
    /// Body bytes of NACK messages kept for repair after they were sent.
    pub history_bytes: usize,
    /// Body bytes of ACK messages held back until the ones before them arrive; what exceeds it is not
    /// acknowledged and comes again.
    pub reorder_bytes: usize,
    /// UNR messages kept while the session is being established; more are dropped and counted.
    pub unr_while_connecting: usize,
    /// Peers remembered at once, over all.
    pub peers_max: usize,
    /// Peers remembered at once of one principal, so that no single key can fill the memory.
    pub instances_max: usize,
    /// Remembered peers that have not yet proved to be alive, over all; the oldest makes room.
    pub half_open_max: usize,
    /// Events waiting for `poll_event`, over all; at this number incoming frames are refused and counted.
    pub events_max: usize,
    /// Retransmission time-out before the first round trip is measured.
    pub rto_initial: Duration,
    /// Shortest retransmission time-out; covers the peer's `ack_delay` and its scheduling.
    pub rto_min: Duration,
    /// Longest interval between repetitions of anything.
    pub rto_max: Duration,
    /// How long a message may wait, under load, for others to the same peer; zero: not at all. See `company.rs`.
    pub company_wait: Duration,
    /// How long an acknowledgement waits for a frame to ride on.
    pub ack_delay: Duration,
    /// How long a gap among NACK messages may be mere reordering before it is asked for.
    pub nack_delay: Duration,
    /// Silence after a NACK message before its sequence number is advertised, to show a lost tail.
    pub advert_delay: Duration,
    /// How long an unanswered handshake is repeated.
    pub connect_timeout: Duration,
    /// How long a peer that owes an answer may be silent before it is declared down. For as long frames under a
    /// session's former keys are accepted: the peer has heard of the new ones by then, or is down.
    pub dead_after: Duration,
    /// At most one handshake per interval is provoked by frames of unknown sessions.
    pub probe_interval: Duration,
    /// An unused peer may be forgotten to make room after this time; must be well above the peers'
    /// `dead_after`, or a message that is still being repeated could be delivered twice.
    pub forget_after: Duration,
    /// The lowest and the highest version of the protocol that may be agreed on.
    pub versions: (u8, u8),
    /// What this party can do beyond the version, one bit each; a session has what both can do.
    pub features: u32,
    /// Keys of a session are renewed when they have been used for this long (or up to a quarter less: chosen at
    /// random, so that sessions which began together are not renewed together). Idle sessions keep theirs.
    pub rekey_after: Duration,
    /// Keys of a session are renewed after so many frames of this side.
    pub rekey_frames: u64,
    /// With so many frames of this side a key is used up, and nothing is sent before there is a new one.
    pub key_frames_max: u64,
    /// Handshakes of others computed in a second, over all; they cost some hundred microseconds each.
    pub handshakes: u32,
    /// Handshakes computed in a second for all instances of one principal.
    pub handshakes_per_principal: u32,
    /// Frames of unknown sessions that are answered in a second, over all.
    pub replies: u32,
    /// Cookies told in a second, over all. One costs less than the hash that the `init` has cost before, and a frame.
    pub cookies: u32,
}

impl Config {
    pub(crate) fn ack_arrivals(&self) -> AckArrivals {
        AckArrivals { reorder_bytes: self.reorder_bytes, ack_delay: self.ack_delay }
    }

    /// # Panics
    /// If a value makes no sense: that is a mistake of the program, found at its first start.
    pub(crate) fn check(&self) {
        let positive = [self.rto_initial, self.rto_min, self.advert_delay];
        assert!(positive.iter().all(|d| *d > Duration::ZERO), "repetition without a pause");
        assert!(
            self.rto_min <= self.rto_max && self.rto_initial <= self.rto_max,
            "a maximum below its minimum"
        );
        assert!(self.frame_bytes >= FRAME_BYTES_MIN, "frames without room for a message");
        assert!(self.body_bytes_max <= 1 << 30, "bodies are hashed and copied whole");
        assert!(
            self.half_open_max > 0 && self.instances_max > 0 && self.peers_max > 0,
            "no room for any peer"
        );
        assert!(self.versions.0 <= self.versions.1, "no version to agree on");
        assert!(
            0 < self.rekey_frames && self.rekey_frames < self.key_frames_max,
            "keys used up before they are renewed"
        );
        assert!(
            self.handshakes > 0 && self.handshakes_per_principal > 0 && self.replies > 0 && self.cookies > 0,
            "nobody could connect"
        );
        assert!(self.forget_after > self.dead_after * 2, "peers forgotten while their messages are repeated");
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            body_bytes_max: 1 << 20,
            frame_bytes: 1400,
            queue_messages: 4096,
            queue_bytes: 16 << 20,
            history_messages: 1024,
            history_bytes: 4 << 20,
            reorder_bytes: 1 << 20,
            unr_while_connecting: 16,
            peers_max: 65_536,
            instances_max: 256,
            half_open_max: 256,
            events_max: 65_536,
            rto_initial: Duration::from_millis(20),
            rto_min: Duration::from_millis(2),
            rto_max: Duration::from_millis(500),
            // What five frames cost that leave by themselves.
            company_wait: Duration::from_micros(20),
            ack_delay: Duration::from_micros(500),
            nack_delay: Duration::from_millis(1),
            advert_delay: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(5),
            dead_after: Duration::from_secs(2),
            probe_interval: Duration::from_millis(50),
            forget_after: Duration::from_secs(10),
            versions: (VERSION, VERSION),
            features: 0,
            // As in WireGuard: long enough that its cost is nothing, short enough that a stolen key is soon worthless.
            rekey_after: Duration::from_secs(120),
            // Far below what any of the primitives allows under one key.
            rekey_frames: 1 << 30,
            key_frames_max: 1 << 31,
            handshakes: 1000,
            handshakes_per_principal: 64,
            replies: 1000,
            // A few hundredths of a core; with fewer, a faster flood of recordings would take them from members.
            cookies: 10_000,
        }
    }
}
