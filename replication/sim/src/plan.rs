//! What goes wrong in a run, drawn from its seed.

use cl_base::{PeerId, Rng};
use replication::Mutation;
use std::time::Duration;

/// The faulty client.
pub(crate) const ROGUE: PeerId = PeerId::new(90, 0);

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
    /// Votes towards one other member only, and takes nothing along into new views.
    Courting,
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
    /// Faulty members tolerated; the group has `3f+1`.
    pub(crate) f: usize,
    /// Byzantine members, at most f.
    pub(crate) byzantine: Vec<(usize, Byzantine)>,
    /// Faults of the others: with the Byzantine members never more than f at a time.
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
    /// One client more, a faulty one.
    pub(crate) rogue: bool,
    pub(crate) checkpoint_interval: u64,
    pub(crate) pipeline: u64,
    pub(crate) batch: usize,
    /// T_req and T0; short ones make for many view changes.
    pub(crate) patience: Duration,
    /// Clock offsets of the members from true time, around a second.
    pub(crate) clock: Vec<Duration>,
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Plan {
        let f = if rng.chance(1, 8) { 2 } else { 1 };
        let n = 3 * f + 1;
        let heal = millis(rng.within(1_000, 4_000));
        let byzantine = draw_byzantine(rng, f);
        let mut windows = Vec::new();
        // Each track lets one member after the other fail; tracks have no members in common.
        let tracks = f - byzantine.len();
        for track in 0..tracks {
            let members: Vec<usize> =
                (0..n).filter(|i| i % tracks == track && byzantine.iter().all(|(b, _)| b != i)).collect();
            draw_windows(rng, &members, heal, &mut windows);
        }
        let rough = rng.chance(1, 2);
        Plan {
            f,
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
            rogue: rng.chance(1, 4),
            checkpoint_interval: rng.within(2, 12),
            pipeline: rng.within(1, 8),
            batch: rng.within(1, 8) as usize,
            patience: millis(if rng.chance(1, 2) { 500 } else { rng.within(40, 400) }),
            clock: (0..n).map(|_| millis(rng.within(950, 1_050))).collect(),
        }
    }

    pub(crate) fn kind_of(&self, member: usize) -> Option<Byzantine> {
        self.byzantine.iter().find(|(b, _)| *b == member).map(|(_, kind)| *kind)
    }
}

fn draw_byzantine(rng: &mut Rng, f: usize) -> Vec<(usize, Byzantine)> {
    let kinds = [
        Byzantine::Silent,
        Byzantine::Shunning,
        Byzantine::Lying,
        Byzantine::Garbling,
        Byzantine::Twins,
        Byzantine::Forgetful,
        Byzantine::Courting,
        Byzantine::Replaying,
    ];
    let mut byzantine: Vec<(usize, Byzantine)> = Vec::new();
    for _ in 0..f {
        if rng.chance(1, 2) {
            let kind = kinds[rng.below(kinds.len() as u64) as usize];
            // The first primary is the most rewarding place.
            let member = if rng.chance(1, 2) { 0 } else { rng.below(3 * f as u64 + 1) as usize };
            if byzantine.iter().all(|(b, _)| *b != member) {
                byzantine.push((member, kind));
            }
        }
    }
    byzantine
}

fn draw_windows(rng: &mut Rng, members: &[usize], heal: Duration, windows: &mut Vec<Window>) {
    let mut from = millis(rng.within(0, 500));
    while from < heal {
        let to = (from + millis(rng.within(50, 1_500))).min(heal);
        let fault = [Fault::Crash, Fault::Crash, Fault::CutOff, Fault::OneWay][rng.below(4) as usize];
        let member = *rng.pick(members).expect("a track has members");
        windows.push(Window { from, to, member, fault });
        from = to + millis(if rng.chance(1, 2) { 1 } else { rng.within(1, 800) });
    }
}
