//! The table of the project's goals, as data: what is compared with whom, what we want and what must be.

use crate::case::{Case, Contents, Effort, Layer, Link, Pacing, Transport, Workload, default_window};
use crate::peers::Peer;
use crate::plan::{Metric, Plan, Subject};
use std::time::Duration;

/// Whom we are compared with.
#[derive(Clone, Copy, Debug)]
enum Rival {
    Peer(Peer),
    /// Ourselves, otherwise: another layer or transport.
    Ours(Layer, Transport),
    /// The peer measured in place, whatever ours does.
    Loaned(Peer),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    workload: Workload,
    layer: Layer,
    transport: Transport,
    link: Link,
    pacing: Pacing,
    contents: Contents,
    sizes: &'static [usize],
    /// 0 stands for the default.
    window: u32,
    rival: Rival,
    metric: Metric,
    goal: f64,
    floor: Option<f64>,
}

const SMALL: &[usize] = &[8, 64];
const DATAGRAMS: &[usize] = &[8, 64, 1 << 10, 8 << 10];
const KIB: &[usize] = &[1 << 10];
const KIB64: &[usize] = &[64 << 10];
const MIB: &[usize] = &[1 << 20];

/// A row of latencies, spinning, in place.
const fn lat(layer: Layer, transport: Transport, sizes: &'static [usize], rival: Rival) -> Row {
    Row {
        workload: Workload::Lat,
        layer,
        transport,
        link: Link::Host,
        pacing: Pacing::Spin,
        contents: Contents::Loaned,
        sizes,
        window: 0,
        rival,
        metric: Metric::P50,
        goal: 1.0,
        floor: None,
    }
}

/// A row of message rates.
const fn rate(layer: Layer, transport: Transport, sizes: &'static [usize], rival: Rival) -> Row {
    Row { workload: Workload::Rate, metric: Metric::Rate, ..lat(layer, transport, sizes, rival) }
}

/// A row of bandwidths.
const fn bw(layer: Layer, transport: Transport, sizes: &'static [usize], rival: Rival) -> Row {
    Row { workload: Workload::Bw, metric: Metric::Bandwidth, ..lat(layer, transport, sizes, rival) }
}

use Contents::Copied;
use Layer::{Cl, Mml, MmlUnr, Rcl};
use Peer::{Iceoryx2, Libfabric, Ucx, Zeromq};
use Rival::{Loaned, Ours, Peer as Against};
use Transport::{Shm, Udp, Xdp};

const ROWS: &[Row] = &[
    Row { contents: Copied, goal: 0.70, floor: Some(1.0), ..lat(Cl, Shm, SMALL, Against(Ucx)) },
    Row {
        contents: Copied,
        metric: Metric::P99,
        goal: 0.80,
        floor: Some(1.0),
        ..lat(Cl, Shm, SMALL, Against(Ucx))
    },
    Row { contents: Copied, goal: 8.0, floor: Some(3.0), ..rate(Cl, Shm, &[64], Against(Ucx)) },
    Row { goal: 0.4, ..lat(Cl, Shm, KIB64, Loaned(Iceoryx2)) },
    Row { contents: Copied, goal: 3.0, ..lat(Cl, Shm, KIB64, Loaned(Iceoryx2)) },
    Row { contents: Copied, goal: 1.0, floor: Some(0.8), ..bw(Cl, Shm, KIB64, Against(Libfabric)) },
    Row { goal: 1.10, floor: Some(1.25), ..lat(Cl, Udp, DATAGRAMS, Against(Peer::Udp)) },
    Row { pacing: Pacing::Park, goal: 1.05, floor: Some(1.2), ..lat(Cl, Udp, DATAGRAMS, Against(Peer::Udp)) },
    Row { contents: Copied, goal: 20.0, floor: Some(8.0), ..rate(Cl, Udp, &[64], Against(Peer::Udp)) },
    Row { link: Link::Veth, goal: 0.65, floor: Some(0.85), ..lat(Cl, Xdp, &[64, 1 << 10], Ours(Cl, Udp)) },
    Row { goal: 0.70, floor: Some(0.9), ..lat(Rcl, Udp, DATAGRAMS, Against(Ucx)) },
    Row { goal: 0.80, floor: Some(0.9), ..lat(Rcl, Udp, DATAGRAMS, Against(Libfabric)) },
    Row { goal: 0.45, ..lat(Rcl, Udp, KIB64, Against(Ucx)) },
    Row { goal: 0.9, floor: Some(1.0), ..lat(Rcl, Udp, KIB64, Against(Libfabric)) },
    Row { window: 64, goal: 20.0, floor: Some(5.0), ..rate(Rcl, Udp, &[64], Against(Ucx)) },
    Row { window: 64, goal: 2.0, ..rate(Rcl, Udp, &[64], Against(Zeromq)) },
    Row { goal: 0.95, floor: Some(0.8), ..bw(Rcl, Udp, MIB, Against(Ucx)) },
    Row { goal: 1.15, floor: Some(1.3), ..lat(Rcl, Shm, SMALL, Ours(Cl, Shm)) },
    Row { goal: 0.9, floor: Some(0.7), ..rate(Rcl, Shm, &[64], Ours(Cl, Shm)) },
    Row { contents: Copied, goal: 1.15, floor: Some(1.4), ..lat(Mml, Udp, KIB, Ours(Rcl, Udp)) },
    Row { contents: Copied, goal: 0.85, floor: Some(0.6), ..rate(Mml, Udp, KIB, Ours(Rcl, Udp)) },
    // Half a microsecond more, and one and a half, than 3.4.
    Row { contents: Copied, goal: 1.15, floor: Some(1.44), ..lat(MmlUnr, Udp, &[64], Ours(Cl, Udp)) },
];

impl Row {
    fn case(&self, size: usize, effort: Effort) -> Case {
        let window = if self.window == 0 { default_window(size) } else { self.window };
        let Row { workload, layer, transport, link, pacing, contents, .. } = *self;
        Case {
            workload,
            layer,
            transport,
            link,
            size,
            window,
            pacing,
            contents,
            senders: 1,
            effort,
            faults: None,
        }
    }

    fn rival(&self, case: Case) -> Subject {
        match self.rival {
            Rival::Peer(peer) => Subject::Peer(peer, case),
            Rival::Loaned(peer) => Subject::Peer(peer, Case { contents: Contents::Loaned, ..case }),
            Rival::Ours(layer, transport) => Subject::Ours(Case { layer, transport, ..case }),
        }
    }
}

/// The whole table: every row at each of its sizes.
pub fn plan(rounds: u32, effort: Effort) -> Plan {
    let mut plan = Plan::new(rounds);
    for row in ROWS {
        for size in row.sizes {
            let case = row.case(*size, effort);
            plan.compare(Subject::Ours(case), row.rival(case), row.metric, Some(row.goal), row.floor);
        }
    }
    plan
}

/// The table for a test: one short round.
pub fn quick() -> Plan {
    plan(1, Effort::Time(Duration::from_millis(20)))
}

/// Goal and floor that the table sets for `metric` of `case` against `peer`, if it does.
pub fn limits(case: &Case, peer: Peer, metric: Metric) -> (Option<f64>, Option<f64>) {
    let same = |row: &&Row| {
        let wanted = Case { window: case.window, ..row.case(case.size, case.effort) };
        let against = matches!(row.rival, Rival::Peer(p) | Rival::Loaned(p) if p == peer);
        wanted == *case && row.sizes.contains(&case.size) && row.metric == metric && against
    };
    ROWS.iter().find(same).map_or((None, None), |row| (Some(row.goal), row.floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_measured_once() {
        let plan = quick();
        assert_eq!(plan.comparisons.len(), ROWS.iter().map(|row| row.sizes.len()).sum::<usize>());
        for (i, subject) in plan.subjects.iter().enumerate() {
            assert!(!plan.subjects[..i].contains(subject), "twice: {subject:?}");
        }
    }

    #[test]
    fn floors_are_easier_than_goals() {
        for row in ROWS {
            let Some(floor) = row.floor else { continue };
            assert_eq!(floor > row.goal, row.metric.less_is_better(), "{row:?}");
        }
    }

    #[test]
    fn a_case_finds_its_limits() {
        let effort = Effort::Iterations(1);
        let case = ROWS[0].case(64, effort);
        assert_eq!(limits(&case, Ucx, Metric::P50), (Some(0.70), Some(1.0)));
        assert_eq!(limits(&case, Ucx, Metric::P99), (Some(0.80), Some(1.0)));
        assert_eq!(limits(&case, Zeromq, Metric::P50), (None, None));
        assert_eq!(limits(&Case { size: 128, ..case }, Ucx, Metric::P50), (None, None));
    }
}
