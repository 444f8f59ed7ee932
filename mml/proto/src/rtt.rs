use crate::Config;
use std::time::Duration;

/// Round-trip estimation after RFC 6298.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
}

impl Rtt {
    /// Takes a measurement, of a message that was sent only once.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variance = rtt / 2;
            }
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The retransmission time-out, after `backoff` expiries in a row.
    pub(crate) fn rto(&self, config: &Config, backoff: u32) -> Duration {
        let base = match self.smoothed {
            None => config.rto_initial,
            Some(smoothed) => (smoothed + self.variance * 4).max(config.rto_min),
        };
        base.saturating_mul(1 << backoff.min(16)).min(config.rto_max)
    }

    /// The least time after which a message that others have overtaken is taken for lost.
    pub(crate) fn overtaken(&self, config: &Config) -> Duration {
        self.smoothed.unwrap_or(config.rto_initial).max(config.rto_min / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_out_follows_the_measurements_within_its_bounds() {
        let config = Config::default();
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(&config, 0), config.rto_initial);
        for _ in 0..100 {
            rtt.sample(Duration::from_millis(10));
        }
        assert!((Duration::from_millis(10)..Duration::from_millis(12)).contains(&rtt.rto(&config, 0)));
        assert_eq!(rtt.rto(&config, 40), config.rto_max);
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(10));
        }
        assert_eq!(rtt.rto(&config, 0), config.rto_min);
    }
}
