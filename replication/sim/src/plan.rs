//! What goes wrong in a run, drawn from its seed.

use cl_base::Rng;
use replication::Mutation;
use std::time::Duration;

/// What the one Byzantine member does, all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byzantine {
    /// Sends nothing.
    Silent,
    /// Sends nothing to one other member.
    Shunning,
    /// Changes fields of what it sends and signs the result.
    Lying,
    /// Changes bits of what it sends.
    Garbling,
    /// Runs twice under one key, each copy with a part of the others: equivocates with every message.
    Twins,
    /// Forgets everything now and then and begins anew.
    Forgetful,
    /// Sends what it sent before once more, much later, to anybody.
    Replaying,
}

/// What happens to a correct member for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is down, then restarts with its records.
    Crash,
    /// It can neither send nor receive.
    CutOff,
    /// It receives but nobody hears it, or the other way round.
    OneWay,
}

/// A rule broken on purpose, to test the judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One of the protocol's own.
    Mutation(Mutation),
    /// Members restart without their records.
    Amnesia,
}

/// One fault window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) member: usize,
    pub(crate) fault: Fault,
}

/// Everything drawn before the run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) byzantine: Option<(usize, Byzantine)>,
    pub(crate) windows: Vec<Window>,
    /// Faults stop here.
    pub(crate) heal: Duration,
    /// Messages lost and duplicated, of a thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// One-way delay, shortest and longest, and how often of a thousand it is far longer.
    pub(crate) delay: (Duration, Duration),
    pub(crate) stragglers: u64,
    pub(crate) clients: usize,
    pub(crate) ops_per_client: u64,
    /// Operations of each client after the heal.
    pub(crate) ops_after: u64,
    pub(crate) think: Duration,
    pub(crate) client_restarts: bool,
    pub(crate) checkpoint_interval: u64,
    pub(crate) pipeline: u64,
    pub(crate) batch: usize,
    /// Clock offsets of the members from true time, around a second.
    pub(crate) clock: [Duration; 4],
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Plan {
        let millis = Duration::from_millis;
        let heal = millis(rng.within(1_000, 4_000));
        let byzantine = rng.chance(1, 2).then(|| {
            let kinds = [
                Byzantine::Silent,
                Byzantine::Shunning,
                Byzantine::Lying,
                Byzantine::Garbling,
                Byzantine::Twins,
                Byzantine::Forgetful,
                Byzantine::Replaying,
            ];
            let kind = kinds[rng.below(kinds.len() as u64) as usize];
            // The first primary is the most rewarding place.
            (if rng.chance(1, 2) { 0 } else { rng.below(4) as usize }, kind)
        });
        let mut windows = Vec::new();
        if byzantine.is_none() {
            let mut from = millis(rng.within(0, 500));
            while from < heal {
                let to = (from + millis(rng.within(50, 1_500))).min(heal);
                let fault = [Fault::Crash, Fault::Crash, Fault::CutOff, Fault::OneWay][rng.below(4) as usize];
                windows.push(Window { from, to, member: rng.below(4) as usize, fault });
                from = to + millis(if rng.chance(1, 2) { 1 } else { rng.within(1, 800) });
            }
        }
        let rough = rng.chance(1, 2);
        Plan {
            byzantine,
            windows,
            heal,
            loss: if rough { rng.within(0, 150) } else { 0 },
            duplication: if rough { rng.within(0, 50) } else { 0 },
            delay: (
                Duration::from_micros(rng.within(20, 200)),
                Duration::from_micros(rng.within(300, 10_000)),
            ),
            stragglers: if rough { rng.within(0, 30) } else { 0 },
            clients: rng.within(1, 3) as usize,
            ops_per_client: rng.within(5, 25),
            ops_after: 3,
            think: millis(rng.within(1, 150)),
            client_restarts: rng.chance(1, 5),
            checkpoint_interval: rng.within(2, 12),
            pipeline: rng.within(1, 8),
            batch: rng.within(1, 8) as usize,
            clock: [0; 4].map(|_| millis(rng.within(950, 1_050))),
        }
    }
}
