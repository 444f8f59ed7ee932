//! How much may be under way: by delay, with tolerance for loss.
//!
//! The window grows while the round-trip time is near the least one seen, and shrinks, at most once in a
//! round trip, by how far it exceeds a target: Swift (Kumar et al., SIGCOMM 2020), with its larger target
//! for small windows, which lets many flows share one bottleneck fairly. Loss alone says little in a network
//! where bits are flipped and datagrams dropped by chance; as in BBRv2 (Cardwell et al., IETF 104) only a
//! round in which much was lost shrinks the window.

use cl_base::Time;
use std::time::Duration;

/// Segments that may be under way at the start: as in RFC 6928.
const WINDOW_START: u64 = 10;
/// And at the least: one to be lost and one that tells of it.
const WINDOW_MIN: u64 = 2;
/// Windows are counted in thousandths of segments.
const UNIT: u64 = 1000;

/// Queueing that is welcome, for it keeps the receiver busy while the sender is not.
const QUEUE_TARGET: Duration = Duration::from_micros(60);
/// No less than what so many segments take at a gigabyte a second, so that those of 64 KiB, of which each
/// costs the processors tens of microseconds, are not taken for a queue by themselves.
const QUEUE_SEGMENTS: u64 = 8;
/// What a window of one segment may queue on top of that; one of n segments the √n-th part.
const QUEUE_SCALED: Duration = Duration::from_micros(240);
/// The strongest decrease in one round, for delay, in thousandths.
const DECREASE_MAX: u64 = 500;
/// Of what is left after a round with much loss, in thousandths.
const AFTER_LOSS: u64 = 700;
/// Much is lost if it is one segment in so many,
const LOSS_ONE_IN: u64 = 8;
/// and at least so many in a round, so that a single loss in a small window is no sign.
const LOSS_MIN: u64 = 3;
/// The least round-trip time is forgotten after so long, for the path may have changed.
const BASE_AGE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u64,
    window_max: u64,
    slow_start: bool,
    queue_target: Duration,
    /// The least round-trip time, of this age and of the one before it.
    base: [Duration; 2],
    base_since: Time,
    /// The round ends when a segment sent after this many transmissions is acknowledged.
    round_end: u64,
    lost: u64,
    delivered: u64,
    may_decrease: bool,
}

impl Congestion {
    /// For at most `window_max` segments of `segment_len` bytes.
    pub(crate) fn new(window_max: usize, segment_len: usize) -> Congestion {
        let segments = Duration::from_nanos(QUEUE_SEGMENTS * segment_len as u64);
        Congestion {
            queue_target: QUEUE_TARGET.max(segments),
            window: WINDOW_START * UNIT,
            window_max: window_max as u64 * UNIT,
            slow_start: true,
            base: [Duration::MAX; 2],
            base_since: Time::ZERO,
            round_end: 0,
            lost: 0,
            delivered: 0,
            may_decrease: true,
        }
    }

    /// Segments that may be under way.
    pub(crate) fn window(&self) -> usize {
        (self.window / UNIT) as usize
    }

    /// The round-trip time of an empty network, as far as known.
    pub(crate) fn base(&self) -> Option<Duration> {
        Some(self.base[0].min(self.base[1])).filter(|&b| b != Duration::MAX)
    }

    fn target(&self, base: Duration) -> Duration {
        let scaled = QUEUE_SCALED * UNIT as u32 / (self.window * UNIT).isqrt() as u32;
        base + self.queue_target.max(base / 2) + scaled
    }

    /// Notes a measurement of the round-trip time.
    pub(crate) fn sample(&mut self, now: Time, rtt: Duration) {
        if now.saturating_since(self.base_since) >= BASE_AGE {
            self.base = [Duration::MAX, self.base[0]];
            self.base_since = now;
        }
        self.base[0] = self.base[0].min(rtt);
    }

    /// `count` segments were acknowledged, the newest of them sent as the `order`-th of `sent` transmissions,
    /// `rtt` being measured. `limited` says whether the window kept anything from being sent.
    pub(crate) fn acknowledged(
        &mut self,
        count: u64,
        order: u64,
        sent: u64,
        rtt: Option<Duration>,
        limited: bool,
    ) {
        self.delivered += count;
        if order >= self.round_end {
            self.end_round(sent);
        }
        let (Some(rtt), Some(base)) = (rtt, self.base()) else { return };
        let target = self.target(base);
        if rtt > target {
            self.slow_start = false;
            if std::mem::take(&mut self.may_decrease) {
                let excess = ((rtt - target).as_nanos() * u128::from(UNIT) / rtt.as_nanos().max(1)) as u64;
                self.shrink(UNIT - (excess * 4 / 5).min(DECREASE_MAX));
            }
        } else if limited {
            let grown = if self.slow_start {
                count * UNIT
            } else {
                // One segment in a round trip, and more if the queue is nearly empty.
                let near = base + (target - base) / 4;
                let steps = if rtt < near { UNIT + self.window / 16 } else { UNIT };
                count * UNIT * steps / self.window
            };
            self.window = (self.window + grown).min(self.window_max);
        }
    }

    /// So many segments were lost.
    pub(crate) fn lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// Nothing was heard for several time-outs: nothing is known of the network.
    pub(crate) fn collapse(&mut self) {
        self.window = WINDOW_MIN * UNIT;
        self.slow_start = true;
    }

    fn end_round(&mut self, sent: u64) {
        if self.lost >= LOSS_MIN && self.lost * LOSS_ONE_IN > self.lost + self.delivered {
            self.slow_start = false;
            self.shrink(AFTER_LOSS);
        }
        self.round_end = sent + 1;
        self.lost = 0;
        self.delivered = 0;
        self.may_decrease = true;
    }

    fn shrink(&mut self, to: u64) {
        self.window = (self.window * to / UNIT).max(WINDOW_MIN * UNIT);
    }
}
