/// Which frame numbers were seen, within a window behind the largest.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    /// One more than the largest number accepted.
    next: u64,
    /// Bit `n % WINDOW` tells whether `n` was seen, for `n` in `next - WINDOW .. next`.
    seen: [u64; WINDOW as usize / 64],
}

/// Frames may overtake each other by this much; more than a sender's window of unanswered messages.
const WINDOW: u64 = 1024;

impl ReplayWindow {
    pub(crate) fn new() -> ReplayWindow {
        ReplayWindow { next: 0, seen: [0; WINDOW as usize / 64] }
    }

    /// What [`ReplayWindow::accept`] would say.
    #[inline]
    pub(crate) fn is_new(&self, number: u64) -> bool {
        let old = number < self.next && (number < self.next.saturating_sub(WINDOW) || self.get(number));
        number != u64::MAX && !old
    }

    /// True, once, for a number not seen before and not too old to tell. Call it for authentic frames only.
    #[must_use]
    pub(crate) fn accept(&mut self, number: u64) -> bool {
        if number == u64::MAX || number < self.next.saturating_sub(WINDOW) {
            return false;
        }
        if number >= self.next {
            if number - self.next >= WINDOW {
                self.seen = [0; WINDOW as usize / 64];
            } else {
                for skipped in self.next..number {
                    self.put(skipped, false);
                }
            }
            self.next = number + 1;
        } else if self.get(number) {
            return false;
        }
        self.put(number, true);
        true
    }

    fn get(&self, number: u64) -> bool {
        self.seen[(number % WINDOW / 64) as usize] >> (number % 64) & 1 == 1
    }

    fn put(&mut self, number: u64, seen: bool) {
        let word = &mut self.seen[(number % WINDOW / 64) as usize];
        *word = *word & !(1 << (number % 64)) | u64::from(seen) << (number % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cl_base::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_set_of_everything_seen() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let (mut window, mut seen, mut top) = (ReplayWindow::new(), BTreeSet::new(), 0u64);
            for _ in 0..3000 {
                let jump = if rng.chance(1, 50) { 3000 } else { 40 };
                let number = (top + rng.below(jump)).saturating_sub(rng.below(1100));
                // `top` is one more than the largest accepted, as `next` is.
                let expected = number >= top.saturating_sub(WINDOW) && !seen.contains(&number);
                assert_eq!(window.is_new(number), expected);
                assert_eq!(window.accept(number), expected, "seed {seed}, number {number}, top {top}");
                if expected {
                    seen.insert(number);
                    top = top.max(number + 1);
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX));
        assert!(!window.accept(0));
    }
}
