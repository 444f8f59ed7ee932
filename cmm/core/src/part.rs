//! An attempt's part on one node, as its agent sees it: what to report to the managers, and when.
//!
//! The managers hear three things of a part (dissertation 3.5: the end-to-end confirmation of a command):
//! [`Op::PartStarted`] once all local ranks run, [`Op::PartFailed`] at most once, and [`Op::PartEnded`] when
//! no process of it is left and all its output has arrived where it goes.

use crate::api::{Attempt, ExitStatus, Op, Part};
use std::collections::BTreeMap;

/// One rank on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Starting,
    Running { in_mpi: bool },
    Exited,
}

/// The state of one attempt's ranks on this node.
#[derive(Debug)]
pub struct PartState {
    attempt: Attempt,
    ranks: BTreeMap<u32, Rank>,
    started: bool,
    /// The managers know that it failed, or told us to end it: no more failures are news.
    stopping: bool,
    ended: bool,
}

impl PartState {
    /// A part none of whose ranks has been started.
    pub fn new(attempt: Attempt, part: &Part) -> PartState {
        let ranks = (part.first_rank..part.first_rank + part.ranks).map(|r| (r, Rank::Starting)).collect();
        PartState { attempt, ranks, started: false, stopping: false, ended: false }
    }

    /// Whether the part is being ended: whatever still runs of it must be killed.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether every local rank has come to its end.
    pub fn all_exited(&self) -> bool {
        self.ranks.values().all(|r| *r == Rank::Exited)
    }

    /// A rank's process runs.
    pub fn rank_started(&mut self, rank: u32) -> Option<Op> {
        self.set(rank, Rank::Running { in_mpi: false });
        let all = self.ranks.values().all(|r| *r != Rank::Starting);
        (all && !self.started && !self.stopping).then(|| {
            self.started = true;
            Op::PartStarted(self.attempt)
        })
    }

    /// A rank could not be started; no further one need be tried.
    pub fn rank_not_started(&mut self, rank: u32, code: i32, reason: String) -> Option<Op> {
        for state in self.ranks.values_mut().filter(|s| **s == Rank::Starting) {
            *state = Rank::Exited;
        }
        self.failed(Some(rank), code, reason)
    }

    /// A rank has initialised MPI (`in_mpi`) or finalised it.
    pub fn rank_in_mpi(&mut self, rank: u32, in_mpi: bool) {
        if matches!(self.ranks.get(&rank), Some(Rank::Running { .. })) {
            self.set(rank, Rank::Running { in_mpi });
        }
    }

    /// A rank's process has ended.
    pub fn rank_exited(&mut self, rank: u32, status: ExitStatus) -> Option<Op> {
        let was = self.ranks.get(&rank).copied()?;
        self.set(rank, Rank::Exited);
        match (was, status) {
            (Rank::Running { in_mpi: true }, status) if status.is_success() => {
                self.failed(Some(rank), 1, "left with exit code 0 but without MPI_Finalize".to_owned())
            }
            (_, status) if status.is_success() => None,
            (_, ExitStatus::Code(c)) => self.failed(Some(rank), c, format!("exit code {c}")),
            (_, ExitStatus::Signal(s)) => {
                self.failed(Some(rank), 128 + s, format!("killed by signal {s} ({})", signal_name(s)))
            }
        }
    }

    /// Something went wrong that is not a process's end: an abort, lost output, a broken key exchange.
    pub fn failed(&mut self, rank: Option<u32>, code: i32, reason: String) -> Option<Op> {
        if std::mem::replace(&mut self.stopping, true) {
            return None;
        }
        Some(Op::PartFailed { attempt: self.attempt, rank, code, reason })
    }

    /// The managers want it ended.
    pub fn kill(&mut self) {
        self.stopping = true;
        for state in self.ranks.values_mut().filter(|s| **s == Rank::Starting) {
            *state = Rank::Exited;
        }
    }

    /// All ranks have exited, nothing they left behind runs, and their output has arrived: says so once.
    pub fn gone(&mut self) -> Option<Op> {
        assert!(self.all_exited(), "a part cannot be gone while a rank of it runs");
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        Some(Op::PartEnded { attempt: self.attempt })
    }

    fn set(&mut self, rank: u32, state: Rank) {
        let slot = self.ranks.get_mut(&rank).expect("the rank is of this part");
        *slot = state;
    }
}

/// The name of a signal that ends programs often, else "unusual signal".
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => "unusual signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::JobId;
    use crate::identity::NodeId;

    const ATTEMPT: Attempt = Attempt { job: JobId(4), number: 0 };

    fn part() -> PartState {
        PartState::new(ATTEMPT, &Part { node: NodeId(2), first_rank: 2, ranks: 2 })
    }

    #[test]
    fn a_good_life_is_reported_as_started_and_ended() {
        let mut p = part();
        assert_eq!(p.rank_started(2), None);
        assert_eq!(p.rank_started(3), Some(Op::PartStarted(ATTEMPT)));
        p.rank_in_mpi(2, true);
        p.rank_in_mpi(2, false);
        assert_eq!(p.rank_exited(2, ExitStatus::Code(0)), None);
        assert!(!p.all_exited());
        assert_eq!(p.rank_exited(3, ExitStatus::Code(0)), None);
        assert_eq!(p.gone(), Some(Op::PartEnded { attempt: ATTEMPT }));
        assert_eq!(p.gone(), None);
    }

    #[test]
    fn only_the_first_failure_is_news() {
        let mut p = part();
        p.rank_started(2);
        p.rank_started(3);
        let Some(Op::PartFailed { rank: Some(3), code: 139, reason, .. }) =
            p.rank_exited(3, ExitStatus::Signal(11))
        else {
            panic!("not reported")
        };
        assert!(reason.contains("SIGSEGV"));
        assert!(p.is_stopping());
        assert_eq!(p.rank_exited(2, ExitStatus::Signal(9)), None);
    }

    #[test]
    fn leaving_without_finalize_is_a_failure_even_with_code_0() {
        let mut p = part();
        p.rank_started(2);
        p.rank_in_mpi(2, true);
        assert!(matches!(p.rank_exited(2, ExitStatus::Code(0)), Some(Op::PartFailed { code: 1, .. })));
    }

    #[test]
    fn a_rank_that_cannot_start_takes_the_others_along() {
        let mut p = part();
        assert!(matches!(
            p.rank_not_started(2, 127, "not found".into()),
            Some(Op::PartFailed { code: 127, .. })
        ));
        assert!(p.all_exited());
    }

    #[test]
    fn deaths_that_were_ordered_are_not_failures() {
        let mut p = part();
        p.rank_started(2);
        p.kill();
        assert_eq!(p.rank_exited(2, ExitStatus::Signal(9)), None);
        assert_eq!(p.gone(), Some(Op::PartEnded { attempt: ATTEMPT }));
    }
}
