use super::Faults;
use crate::Rng;
use std::ops::AddAssign;
use std::time::Duration;

/// Bytes that one corruption changes at most: a burst, as a bad cable or memory cell makes it.
const BURST_MAX: usize = 4;
/// Messages that overtake a reordered one at most. Networks with several ways displace by a few messages;
/// three also is what makes a receiver believe in a loss.
const OVERTAKERS_MAX: u64 = 3;

/// What happens to one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It is lost; nothing else happens to it then.
    pub drop: bool,
    /// These of its bytes change, in the copy as well.
    pub damage: Option<Damage>,
    /// A copy is sent at once, whatever happens to the message itself.
    pub duplicate: bool,
    /// It is kept back, on a [`Shelf`](super::Shelf).
    pub hold: Option<Hold>,
}

impl Verdict {
    /// Nothing happens.
    pub const PASS: Verdict = Verdict { drop: false, damage: None, duplicate: false, hold: None };
}

/// How long a message is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// For this long.
    For(Duration),
    /// Until so many later messages have gone the same way.
    Behind(u32),
}

/// A change of one to four neighbouring bytes, every one of which is different afterwards: an error burst of
/// at most 32 bits, which a CRC of 32 bits never misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    at: usize,
    masks: [u8; BURST_MAX],
}

impl Damage {
    /// Damage to a message of `len` bytes, of which there is at least one.
    fn new(rng: &mut Rng, len: usize) -> Damage {
        let mut damage = Damage { at: rng.below(len as u64) as usize, masks: [0; BURST_MAX] };
        let burst = rng.within(1, BURST_MAX as u64) as usize;
        damage.masks[..burst].iter_mut().for_each(|mask| *mask = rng.within(1, 255) as u8);
        damage
    }

    /// Does it. A burst that begins in the message may end with it.
    pub fn apply(&self, message: &mut [u8]) {
        message.iter_mut().skip(self.at).zip(self.masks).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// Faults injected so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Messages decided about, untouched ones included.
    pub messages: u64,
    /// Lost.
    pub dropped: u64,
    /// Changed.
    pub corrupted: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back until later ones had passed.
    pub reordered: u64,
    /// Held back for a time.
    pub delayed: u64,
}

impl FaultCounts {
    /// All faults together.
    pub fn total(&self) -> u64 {
        let FaultCounts { messages: _, dropped, corrupted, duplicated, reordered, delayed } = *self;
        dropped + corrupted + duplicated + reordered + delayed
    }
}

impl AddAssign for FaultCounts {
    fn add_assign(&mut self, other: FaultCounts) {
        let FaultCounts { messages, dropped, corrupted, duplicated, reordered, delayed } = other;
        self.messages += messages;
        self.dropped += dropped;
        self.corrupted += corrupted;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.delayed += delayed;
    }
}

/// Decides what happens to one message after another. Equal seeds and equal lengths give equal verdicts.
#[derive(Clone, Debug)]
pub struct Injector {
    faults: Faults,
    rng: Rng,
    counts: FaultCounts,
}

impl Injector {
    /// An injector that repeats itself for equal seeds.
    pub fn new(faults: Faults, seed: u64) -> Injector {
        Injector { faults, rng: Rng::new(seed), counts: FaultCounts::default() }
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Other faults from now on; the generator and the counters go on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What was done so far.
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// What happens to the next message, of `len` bytes, and counts it.
    ///
    /// The kinds of fault are independent of each other, but that a lost message suffers nothing else and a
    /// delayed one is not reordered too. An empty message cannot be corrupted.
    pub fn judge(&mut self, len: usize) -> Verdict {
        let Injector { faults, rng, counts } = self;
        counts.messages += 1;
        if faults.is_none() {
            return Verdict::PASS;
        }
        let chosen = faults.any.hits(rng, len).then(|| rng.below(5));
        if faults.drop.hits(rng, len) || chosen == Some(0) {
            counts.dropped += 1;
            return Verdict { drop: true, ..Verdict::PASS };
        }
        let mut verdict = Verdict::PASS;
        if (faults.corrupt.hits(rng, len) || chosen == Some(1)) && len > 0 {
            counts.corrupted += 1;
            verdict.damage = Some(Damage::new(rng, len));
        }
        if faults.duplicate.hits(rng, len) || chosen == Some(2) {
            counts.duplicated += 1;
            verdict.duplicate = true;
        }
        if faults.reorder.hits(rng, len) || chosen == Some(3) {
            verdict.hold = Some(Hold::Behind(rng.within(1, OVERTAKERS_MAX) as u32));
        }
        if faults.delay.hits(rng, len) || chosen == Some(4) {
            let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
            let (low, high) = (nanos(faults.delay_span.0), nanos(faults.delay_span.1));
            verdict.hold = Some(Hold::For(Duration::from_nanos(rng.within(low, high.max(low)))));
        }
        match verdict.hold {
            Some(Hold::For(_)) => counts.delayed += 1,
            Some(Hold::Behind(_)) => counts.reordered += 1,
            None => {}
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Rate;

    const MESSAGES: u64 = 200_000;

    /// Within five standard deviations of what was asked for.
    fn assert_near(count: u64, probability: f64, what: &str) {
        let expected = MESSAGES as f64 * probability;
        let deviation = (expected * (1.0 - probability)).sqrt();
        assert!((count as f64 - expected).abs() <= 5.0 * deviation, "{what}: {count}, not {expected}");
    }

    #[test]
    fn rates_come_out_as_asked_for() {
        let faults: Faults =
            "drop=10%, corrupt=1e-4/byte, duplicate=3%, reorder=4%, delay=1ms@5%".parse().unwrap();
        let mut injector = Injector::new(faults, 1);
        (0..MESSAGES).for_each(|_| _ = injector.judge(200));
        let counts = injector.counts();
        assert_eq!(counts.messages, MESSAGES);
        assert_near(counts.dropped, 0.1, "dropped");
        assert_near(counts.corrupted, 0.9 * (1.0 - (1.0 - 1e-4f64).powi(200)), "corrupted");
        assert_near(counts.duplicated, 0.9 * 0.03, "duplicated");
        assert_near(counts.reordered, 0.9 * 0.04 * 0.95, "reordered, not delayed");
        assert_near(counts.delayed, 0.9 * 0.05, "delayed");
    }

    #[test]
    fn any_is_each_kind_equally_often_and_one_at_a_time() {
        let faults = Faults { any: Rate::per_message(0.5), ..Faults::NONE };
        let mut injector = Injector::new(faults, 2);
        (0..MESSAGES).for_each(|_| _ = injector.judge(100));
        let c = injector.counts();
        assert_near(c.total(), 0.5, "all");
        for (count, kind) in [
            (c.dropped, "dropped"),
            (c.corrupted, "corrupted"),
            (c.duplicated, "duplicated"),
            (c.reordered, "reordered"),
            (c.delayed, "delayed"),
        ] {
            assert_near(count, 0.1, kind);
        }
    }

    #[test]
    fn equal_seeds_give_equal_verdicts() {
        let faults = Faults { any: Rate::per_message(0.5), ..Faults::NONE };
        let verdicts = |seed| {
            let mut injector = Injector::new(faults, seed);
            (0..1000).map(|i| injector.judge(i)).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(3), verdicts(3));
        assert_ne!(verdicts(3), verdicts(4));
    }

    #[test]
    fn damage_always_changes_something_and_never_the_length() {
        let faults = Faults { corrupt: Rate::ALWAYS, ..Faults::NONE };
        let mut injector = Injector::new(faults, 5);
        for len in 1..300 {
            let mut message = vec![7; len];
            injector.judge(len).damage.expect("it is corrupted").apply(&mut message);
            let changed = message.iter().filter(|&&b| b != 7).count();
            assert!((1..=BURST_MAX).contains(&changed), "{changed} of {len}");
        }
        assert_eq!(injector.judge(0), Verdict::PASS, "nothing to change");
        assert_eq!(injector.counts().corrupted, 299);
    }
}
