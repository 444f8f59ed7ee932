use crate::{FailReason, SendStatus};
use std::collections::VecDeque;

/// Remembers which settled messages of one kind failed; all others were delivered.
///
/// Messages fail in runs (all that are pending when a session ends), so runs are kept, and only so many.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// Nothing is known of smaller numbers.
    since: u64,
    failed: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    first: u64,
    last: u64,
    reason: FailReason,
}

/// Ends of sessions remembered; who asks for the status of older messages asks too late.
const RUNS_MAX: usize = 64;

impl Outcomes {
    pub(crate) fn new(since: u64) -> Outcomes {
        Outcomes { since, failed: VecDeque::new() }
    }

    /// Records the failure of `number`, which is larger than all before it.
    pub(crate) fn fail(&mut self, number: u64, reason: FailReason) {
        match self.failed.back_mut() {
            Some(run) if run.last + 1 == number && run.reason == reason => run.last = number,
            _ => self.failed.push_back(Run { first: number, last: number, reason }),
        }
        if self.failed.len() > RUNS_MAX {
            let oldest = self.failed.pop_front().expect("there is more than one");
            self.since = oldest.last + 1;
        }
    }

    /// Nothing more is to be said about `number` and those before it.
    pub(crate) fn forget_through(&mut self, number: u64) {
        self.since = self.since.max(number + 1);
    }

    /// The fate of a message that is no longer pending.
    pub(crate) fn status(&self, number: u64) -> SendStatus {
        if number < self.since {
            return SendStatus::Unknown;
        }
        match self.failed.iter().find(|run| (run.first..=run.last).contains(&number)) {
            Some(run) => SendStatus::Failed(run.reason),
            None => SendStatus::Delivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_failures_are_forgotten_and_not_taken_for_deliveries() {
        let mut outcomes = Outcomes::new(10);
        assert_eq!(outcomes.status(9), SendStatus::Unknown);
        assert_eq!(outcomes.status(10), SendStatus::Delivered);
        for i in 0..200 {
            outcomes.fail(20 + 10 * i, FailReason::Silent);
            outcomes.fail(21 + 10 * i, FailReason::Silent);
        }
        assert_eq!(outcomes.failed.len(), RUNS_MAX);
        assert_eq!(outcomes.status(20), SendStatus::Unknown);
        assert_eq!(outcomes.status(2010), SendStatus::Failed(FailReason::Silent));
        assert_eq!(outcomes.status(2011), SendStatus::Failed(FailReason::Silent));
        assert_eq!(outcomes.status(2012), SendStatus::Delivered);
    }
}
