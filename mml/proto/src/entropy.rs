use cl_base::Rng;
use std::time::Duration;
use zeroize::Zeroizing;

/// Secrets from a secret seed: unpredictable if the seed is, repeatable in a simulation.
pub(crate) struct Entropy {
    seed: Zeroizing<[u8; 32]>,
    drawn: u64,
    /// For what need not be secret.
    rng: Rng,
}

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Entropy {
        let seed = Zeroizing::new(seed);
        let rng = blake3::derive_key("ghidrah mml 1 jitter", &*seed);
        Entropy {
            seed: Zeroizing::new(blake3::derive_key("ghidrah mml 1 nonces", &*seed)),
            drawn: 0,
            rng: Rng::new(u64::from_le_bytes(*rng.first_chunk().expect("32 bytes"))),
        }
    }

    /// 32 bytes that were never drawn before.
    pub(crate) fn draw(&mut self) -> Zeroizing<[u8; 32]> {
        self.drawn += 1;
        Zeroizing::new(*blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes()).as_bytes())
    }

    /// A time between three and five quarters of `time`: so that many who lost the same peer at the same moment do
    /// not call it back at the same moments.
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        time / 4 * 3 + time / 1024 * self.rng.below(512) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_equal_and_jitter_keeps_its_bounds() {
        let mut entropy = Entropy::new([0; 32]);
        assert_ne!(entropy.draw(), entropy.draw());
        assert_ne!(Entropy::new([1; 32]).draw(), Entropy::new([2; 32]).draw());
        let time = Duration::from_millis(1024);
        let drawn: Vec<Duration> = (0..1000).map(|_| entropy.jitter(time)).collect();
        assert!(drawn.iter().all(|t| (time / 4 * 3..time / 4 * 5).contains(t)));
        assert!(drawn.iter().max().unwrap().abs_diff(*drawn.iter().min().unwrap()) > time / 3);
    }
}
