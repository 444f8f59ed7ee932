use std::time::Duration;

/// The longest a receiver holds an acknowledgement back in the hope of a frame to put it in.
pub(crate) const ACK_DELAY: Duration = Duration::from_micros(100);
/// Doublings of the time-out at the most; it is bounded by the configuration long before.
const BACKOFF_MAX: u32 = 16;
/// The time-out in terms of the smallest one, before anything is measured.
const UNMEASURED: u32 = 10;

/// The round-trip time, by Jacobson's estimator (RFC 6298), and the time-out that follows from it.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    /// Smoothed time and mean deviation, once there is a sample.
    estimate: Option<(Duration, Duration)>,
    latest: Duration,
    backoff: u32,
    min: Duration,
    max: Duration,
}

impl RoundTrip {
    pub(crate) fn new(min: Duration, max: Duration) -> RoundTrip {
        RoundTrip { estimate: None, latest: Duration::ZERO, backoff: 0, min, max }
    }

    /// Takes in a measurement.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        self.latest = rtt;
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((smooth, deviation)) => ((smooth * 7 + rtt) / 8, (deviation * 3 + smooth.abs_diff(rtt)) / 4),
        });
    }

    /// The time-out passed in vain: the next is twice as long.
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// Something was acknowledged.
    pub(crate) fn progress(&mut self) {
        self.backoff = 0;
    }

    /// Time-outs in a row.
    pub(crate) fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The newest measurement.
    pub(crate) fn latest(&self) -> Duration {
        self.latest
    }

    /// The smoothed time, if anything was measured.
    pub(crate) fn smooth(&self) -> Option<Duration> {
        self.estimate.map(|e| e.0)
    }

    /// How long to wait for an acknowledgement.
    pub(crate) fn timeout(&self) -> Duration {
        let base = match self.estimate {
            Some((smooth, deviation)) => smooth + deviation * 4 + ACK_DELAY,
            None => self.min * UNMEASURED,
        };
        base.clamp(self.min, self.max).saturating_mul(1 << self.backoff).min(self.max)
    }
}
