use crate::Rng;
use std::fmt;
use std::str::FromStr;

/// A certain event, in the units of [`Rate`]: fine enough for bit error rates of good cables.
const CERTAIN: u64 = 1_000_000_000_000;

/// How often something happens: with a probability for each message, or for each byte of it.
///
/// Kept as an integer (in parts of 10^12) and evaluated in integers, so that a seed gives the same run on
/// every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    parts: u64,
    per_byte: bool,
}

/// Why a text is not a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is 1%, 0.01 or 1e-2, between 0 and 100%, perhaps followed by /byte")]
pub struct RateError;

impl Rate {
    /// It does not happen.
    pub const NEVER: Rate = Rate { parts: 0, per_byte: false };
    /// It happens to every message.
    pub const ALWAYS: Rate = Rate { parts: CERTAIN, per_byte: false };

    /// With this probability for each message.
    ///
    /// # Panics
    /// If `probability` is not within `0.0..=1.0`.
    pub const fn per_message(probability: f64) -> Rate {
        assert!(probability >= 0.0 && probability <= 1.0, "a probability is between 0 and 1");
        Rate { parts: (probability * CERTAIN as f64 + 0.5) as u64, per_byte: false }
    }

    /// With this probability for each byte of a message; the message is hit if any byte is.
    ///
    /// # Panics
    /// As [`Rate::per_message`].
    pub const fn per_byte(probability: f64) -> Rate {
        Rate { per_byte: true, ..Rate::per_message(probability) }
    }

    /// True if it never happens.
    pub const fn is_never(self) -> bool {
        self.parts == 0
    }

    /// Decides whether it happens to a message of `len` bytes. Takes nothing from `rng` if it never happens.
    pub fn hits(self, rng: &mut Rng, len: usize) -> bool {
        !self.is_never() && u128::from(rng.next_u64()) < self.chance(len)
    }

    /// The probability for a message of `len` bytes, in parts of 2^64.
    fn chance(self, len: usize) -> u128 {
        const ONE: u128 = 1 << 64;
        let once = u128::from(self.parts) * ONE / u128::from(CERTAIN);
        if !self.per_byte || self.parts == 0 {
            return once;
        }
        // That no byte is hit: (1 - once)^len, by squaring. `factor` is below ONE, so nothing overflows.
        let (mut none, mut factor, mut left) = (ONE, ONE - once, len);
        while left > 0 {
            if left & 1 == 1 {
                none = (none * factor) >> 64;
            }
            factor = (factor * factor) >> 64;
            left >>= 1;
        }
        ONE - none
    }
}

impl FromStr for Rate {
    type Err = RateError;
    fn from_str(text: &str) -> Result<Rate, RateError> {
        let (number, per_byte) = match text.trim().rsplit_once('/') {
            None => (text, false),
            Some((number, "byte")) => (number, true),
            Some((number, "message")) => (number, false),
            Some(_) => return Err(RateError),
        };
        let (number, unit) = match number.trim().strip_suffix('%') {
            Some(percent) => (percent, 100.0),
            None => (number, 1.0),
        };
        let probability = number.trim().parse::<f64>().map_err(|_| RateError)? / unit;
        // Not a number is in no range.
        if !(0.0..=1.0).contains(&probability) {
            return Err(RateError);
        }
        Ok(if per_byte { Rate::per_byte(probability) } else { Rate::per_message(probability) })
    }
}

impl fmt::Display for Rate {
    /// As [`Rate::from_str`](FromStr) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both fit the 53 bits of a float, and its shortest text gives the same integer again.
        let probability = self.parts as f64 / CERTAIN as f64;
        write!(f, "{probability}{}", if self.per_byte { "/byte" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_per_byte_hits_longer_messages_more_often() {
        let p = |rate: Rate, len| rate.chance(len) as f64 / 2f64.powi(64);
        let rate = Rate::per_byte(1e-4);
        for len in [0, 1, 2, 3, 100, 65_000] {
            let expected = 1.0 - (1.0 - 1e-4f64).powi(len as i32);
            assert!((p(rate, len) - expected).abs() < 1e-9, "{len} bytes: {}", p(rate, len));
        }
        assert_eq!((p(Rate::per_byte(1.0), 1), p(Rate::per_byte(1.0), 0)), (1.0, 0.0));
        assert_eq!((p(Rate::ALWAYS, 0), p(Rate::NEVER, 9), p(Rate::per_byte(0.0), 9)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn always_and_never_are_without_exception() {
        let mut rng = Rng::new(1);
        assert!((0..10_000).all(|_| Rate::ALWAYS.hits(&mut rng, 1) && !Rate::NEVER.hits(&mut rng, 1)));
    }
}
