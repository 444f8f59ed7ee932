//! A failing run made smaller: fewer faults, fewer clients, fewer operations, a calm network, an earlier heal,
//! as long as the same judge objects.

use crate::judge::Report;
use crate::plan::{Plan, Trim};
use crate::world::{Options, run};

/// Runs spent on one failure.
const RUNS_MAX: usize = 300;

/// Which judge objects: the words before the colon.
pub fn kind(violation: &str) -> &str {
    violation.split(':').next().unwrap_or(violation)
}

/// What still goes wrong in a run, one line each with its number.
pub fn faults(options: &Options) -> Vec<String> {
    Plan::of(options).faults().map(|(number, fault)| format!("fault {number}: {fault}")).collect()
}

/// The smallest run found that fails like `options`, which must fail with `report`, and its report. Every step
/// leaves out one thing; what turns out not to matter stays out, until nothing can be left out any more.
pub fn shrink(options: &Options, report: Report) -> (Options, Report) {
    let mut search = Search { best: Options { trace: false, ..options.clone() }, report, runs: 0 };
    loop {
        let before = search.best.trim.clone();
        for (number, _) in Plan::of(&search.best).faults() {
            search.attempt(|trim| {
                trim.without.insert(number);
            });
        }
        search.attempt(|trim| trim.calm = true);
        for clients in 1..3 {
            search.attempt(|trim| trim.clients = Some(trim.clients.unwrap_or(3).min(clients)));
        }
        for ops in [0, 1, 2, 4, 8, 16] {
            search.attempt(|trim| trim.ops = Some(trim.ops.unwrap_or(ops).min(ops)));
        }
        for heal in [250, 500, 1_000, 2_000] {
            search.attempt(|trim| trim.heal_ms = Some(trim.heal_ms.unwrap_or(heal).min(heal)));
        }
        if search.best.trim == before || search.runs >= RUNS_MAX {
            return (search.best, search.report);
        }
    }
}

struct Search {
    best: Options,
    report: Report,
    runs: usize,
}

impl Search {
    fn attempt(&mut self, change: impl FnOnce(&mut Trim)) {
        let mut smaller = self.best.clone();
        change(&mut smaller.trim);
        if smaller.trim == self.best.trim || self.runs >= RUNS_MAX {
            return;
        }
        self.runs += 1;
        let report = run(smaller.clone());
        let wanted = kind(&self.report.violations[0]);
        if report.violations.iter().any(|v| kind(v) == wanted) {
            (self.best, self.report) = (smaller, report);
        }
    }
}
