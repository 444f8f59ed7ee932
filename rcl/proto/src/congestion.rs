use std::time::Duration;

/// Segments that may be under way at the start.
const WINDOW_START: u64 = 16;
/// And at the least, so that three later ones can tell of a loss.
const WINDOW_MIN: u64 = 4;

/// The round-trip time, by Jacobson's estimator (RFC 6298), and the time-out that follows from it.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    /// Smoothed time and mean deviation, once there is a sample.
    estimate: Option<(Duration, Duration)>,
    backoff: u32,
    min: Duration,
    max: Duration,
}

impl RoundTrip {
    pub(crate) fn new(min: Duration, max: Duration) -> RoundTrip {
        RoundTrip { estimate: None, backoff: 0, min, max }
    }

    /// Takes in a measurement.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((smooth, deviation)) => ((smooth * 7 + rtt) / 8, (deviation * 3 + smooth.abs_diff(rtt)) / 4),
        });
        self.backoff = 0;
    }

    /// The time-out passed in vain: the next is twice as long.
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    /// Something was acknowledged.
    pub(crate) fn progress(&mut self) {
        self.backoff = 0;
    }

    /// How long to wait for an acknowledgement.
    pub(crate) fn timeout(&self) -> Duration {
        let base = match self.estimate {
            Some((smooth, deviation)) => smooth + deviation * 4,
            None => self.min * 10,
        };
        base.clamp(self.min, self.max).saturating_mul(1 << self.backoff).min(self.max)
    }
}

/// How many segments may be under way: slow start, then additive increase and multiplicative decrease
/// (RFC 5681, in segments), at most one decrease for each window sent.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    window: u64,
    threshold: u64,
    /// Acknowledged since the window last grew.
    credit: u64,
    /// A loss of a segment below this belongs to an earlier decrease.
    recovered_at: u64,
}

impl Congestion {
    pub(crate) fn new() -> Congestion {
        Congestion { window: WINDOW_START, threshold: u64::MAX, credit: 0, recovered_at: 0 }
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// `count` segments were acknowledged.
    pub(crate) fn acknowledged(&mut self, count: u64) {
        if self.window < self.threshold {
            self.window += count;
        } else {
            self.credit += count;
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window += 1;
            }
        }
        self.window = self.window.min(2 * crate::config::WINDOW_MAX);
    }

    /// Segment `lost` was lost, with segments below `next` sent.
    pub(crate) fn lost(&mut self, lost: u64, next: u64) {
        if lost >= self.recovered_at {
            self.recovered_at = next;
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
            self.credit = 0;
        }
    }

    /// The time-out passed: nothing is known of what is under way.
    pub(crate) fn timed_out(&mut self, next: u64) {
        self.lost(next, next);
        self.window = WINDOW_MIN;
    }
}
