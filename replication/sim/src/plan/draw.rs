//! How plans are drawn.

use super::{Clock, Fault, Plan, Span, Strategy, Trouble};
use crate::world::Options;
use cl_base::Rng;
use replication_proto::{Guarantee, VoteAuthentication};
use std::time::Duration;

const STRATEGIES: [Strategy; 14] = [
    Strategy::Silent,
    Strategy::Shunning,
    Strategy::Lying,
    Strategy::Garbling,
    Strategy::Twins,
    Strategy::Equivocating,
    Strategy::Forgetful,
    Strategy::Courting,
    Strategy::Replaying,
    Strategy::Hoarding,
    Strategy::Misinforming,
    Strategy::Boasting,
    Strategy::Usurping,
    Strategy::Flooding,
];

/// What may happen to a correct member; crashes are the most telling.
const TROUBLES: [Trouble; 8] = [
    Trouble::Crash,
    Trouble::Crash,
    Trouble::Crash,
    Trouble::CutOff,
    Trouble::Deaf,
    Trouble::Mute,
    Trouble::Paused,
    Trouble::Slow(Duration::ZERO),
];

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Plan {
    /// What goes wrong in this run.
    pub(crate) fn of(options: &Options) -> Plan {
        let mut plan = Plan::draw(&mut Rng::new(options.seed), options.f, options.faulty);
        // Drawn apart, so that the rest of the run stays as it was.
        let drawn = match Rng::new(options.seed ^ 0x9a).below(8) {
            0 => Guarantee::CrashOnly,
            1 | 2 => Guarantee::ByzantineTentative,
            _ => Guarantee::Byzantine,
        };
        // A rule that is broken on purpose must be noticed with the strongest guarantee, unless told otherwise.
        let usual = if options.sabotage.is_some() { Guarantee::Byzantine } else { drawn };
        plan.draw_replacements(&mut Rng::new(options.seed ^ 0xe0));
        plan.guarantee = options.guarantee.unwrap_or(usual);
        if plan.guarantee == Guarantee::CrashOnly && !options.beyond {
            plan.keep_honest();
        }
        plan.trim(&options.trim);
        plan
    }

    /// Who is replaced, if there are others: one member or two, correct ones as well.
    fn draw_replacements(&mut self, rng: &mut Rng) {
        if self.f == 0 || !rng.chance(1, 3) {
            return;
        }
        let n = 3 * self.f as u64 + 1;
        let first = rng.below(n);
        let mut members = vec![first];
        if rng.chance(1, 3) {
            members.push((first + rng.within(1, n - 1)) % n);
        }
        for member in members {
            let at = millis(rng.within(1, self.heal.as_millis() as u64));
            self.faults.push(Some(Fault::Replace { member: member as usize, at }));
        }
    }

    /// Draws everything. `f` and the number of faulty members are drawn, too, unless they are given.
    fn draw(rng: &mut Rng, f: Option<usize>, faulty: Option<usize>) -> Plan {
        let drawn = [0, 1, 1, 1, 1, 1, 1, 2, 2, 3][rng.below(10) as usize];
        let f = f.unwrap_or(drawn);
        let n = 3 * f + 1;
        let heal = millis(rng.within(1_000, 4_000));
        let faulty = draw_faulty(rng, n, f, faulty);
        let mut faults = Vec::new();
        for member in &faulty {
            draw_faults_of(rng, *member, heal, &mut faults);
        }
        // Each track lets one member after the other fail; tracks have no members in common. So there are f
        // members in trouble at a time, the faulty ones included. A group of one may be down at any time.
        let tracks = if f == 0 { 1 } else { f.saturating_sub(faulty.len()) };
        for track in 0..tracks {
            let members: Vec<usize> = (0..n).filter(|i| i % tracks == track && !faulty.contains(i)).collect();
            draw_troubles(rng, &members, heal, &mut faults);
        }
        // What stops no correct member for good may happen to any number of them.
        if rng.chance(1, 2) {
            draw_partitions(rng, n, heal, &mut faults);
        }
        if rng.chance(1, 12) {
            let from = millis(rng.within(100, heal.as_millis() as u64 - 100));
            faults.push(Fault::PowerCut { span: Span { from, to: (from + millis(200)).min(heal) } });
        }
        let clients = rng.within(1, 3) as usize;
        if rng.chance(1, 5) {
            for client in 0..clients {
                faults.push(Fault::ClientRestart {
                    client,
                    at: millis(rng.within(1, heal.as_millis() as u64)),
                });
            }
        }
        if rng.chance(1, 4) {
            faults.push(Fault::Rogue);
        }
        let rough = rng.chance(1, 2);
        let skewed = rng.chance(1, 2);
        Plan {
            f,
            votes: if rng.chance(1, 2) { VoteAuthentication::Signed } else { VoteAuthentication::Channel },
            guarantee: Guarantee::Byzantine,
            faults: faults.into_iter().map(Some).collect(),
            heal,
            loss: if rough { rng.within(0, 150) } else { 0 },
            duplication: if rough { rng.within(0, 50) } else { 0 },
            delay: (
                Duration::from_micros(rng.within(20, 200)),
                Duration::from_micros(rng.within(300, 10_000)),
            ),
            stragglers: if rough { rng.within(0, 30) } else { 0 },
            clients,
            ops_per_client: rng.within(5, 25),
            ops_after: 3,
            think: millis(rng.within(1, 150)),
            checkpoint_interval: rng.within(2, 12),
            pipeline: rng.within(1, 8),
            batch: rng.within(1, 8) as usize,
            patience: millis(if rng.chance(1, 2) { 500 } else { rng.within(40, 400) }),
            clocks: (0..n)
                .map(|_| Clock {
                    offset: millis(rng.within(950, 1_050)),
                    drift: if skewed { rng.within(0, 4_000) as i64 - 2_000 } else { 0 },
                })
                .collect(),
        }
    }
}

fn draw_faulty(rng: &mut Rng, n: usize, f: usize, wanted: Option<usize>) -> Vec<usize> {
    let count = wanted.unwrap_or_else(|| (0..f).filter(|_| rng.chance(5, 8)).count()).min(n);
    let mut faulty: Vec<usize> = Vec::new();
    while faulty.len() < count {
        // The first primary is the most rewarding place.
        let member = if rng.chance(1, 2) { 0 } else { rng.below(n as u64) as usize };
        if !faulty.contains(&member) {
            faulty.push(member);
        }
    }
    faulty
}

fn draw_faults_of(rng: &mut Rng, member: usize, heal: Duration, faults: &mut Vec<Fault>) {
    if rng.chance(1, 8) {
        let trouble = if rng.chance(1, 3) { Trouble::LosesDisk } else { Trouble::RotsDisk };
        let from = millis(rng.within(100, heal.as_millis() as u64 - 100));
        let to = (from + millis(rng.within(1, 500))).min(heal);
        return faults.push(Fault::Member { member, span: Span { from, to }, trouble });
    }
    let first = *rng.pick(&STRATEGIES).expect("there are strategies");
    faults.push(Fault::Byzantine { member, strategy: first });
    if rng.chance(1, 3) {
        let second = *rng.pick(&STRATEGIES).expect("there are strategies");
        if second != first {
            faults.push(Fault::Byzantine { member, strategy: second });
        }
    }
}

fn draw_troubles(rng: &mut Rng, members: &[usize], heal: Duration, faults: &mut Vec<Fault>) {
    let mut from = millis(rng.within(0, 500));
    while from < heal {
        let to = (from + millis(rng.within(50, 1_500))).min(heal);
        let mut trouble = *rng.pick(&TROUBLES).expect("there are troubles");
        if let Trouble::Slow(by) = &mut trouble {
            *by = millis(rng.within(5, 300));
        }
        let member = *rng.pick(members).expect("a track has members");
        faults.push(Fault::Member { member, span: Span { from, to }, trouble });
        from = to + millis(if rng.chance(1, 2) { 1 } else { rng.within(1, 800) });
    }
}

fn draw_partitions(rng: &mut Rng, n: usize, heal: Duration, faults: &mut Vec<Fault>) {
    for _ in 0..rng.within(1, 3) {
        let from = millis(rng.within(0, heal.as_millis() as u64 - 50));
        let to = (from + millis(rng.within(50, 2_000))).min(heal);
        let flapping = rng.chance(1, 2).then(|| millis(rng.within(5, 200)));
        faults.push(Fault::Partition {
            // One member cut off while others are Byzantine is the most dangerous one.
            side: if rng.chance(2, 3) { 1 << rng.below(n as u64) } else { rng.below(1 << n) },
            span: Span { from, to },
            one_way: rng.chance(1, 2),
            flapping,
        });
    }
}
