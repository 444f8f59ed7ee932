//! A worker: the process that runs one end of one workload.

use crate::case::{Case, Layer, Pacing, Workload};
use crate::control::{Channel, FromWorker, Outcome, Side, Task, ToWorker};
use crate::drive::{park, spin};
use crate::faults::Injected;
use crate::party::{Acknowledged, Party, Unreliable, is_met, via};
use crate::role::{Echo, Pinger, Role, Sink, Source};
use crate::stats::Figures;
use cl_base::PeerId;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A task is told at once; a loaded machine takes a while.
const TASK_WAIT: Duration = Duration::from_secs(20);
/// How often a worker that is done looks whether it may go.
const STOP_LOOK: Duration = Duration::from_millis(1);
/// How long the two sides take to share memory, at most.
const MEETING_MAX: Duration = Duration::from_secs(5);
/// The passive side.
const PASSIVE: PeerId = PeerId::new(1, 0);
/// The first of the active side; the others' principals follow.
const ACTIVE: PeerId = PeerId::new(2, 0);

/// Works on one task, told of by standard input and answered on standard output.
pub fn on_standard_streams() {
    serve(std::io::stdin(), std::io::stdout());
}

/// Works for whoever connects to `listener`, one after the other, for ever.
///
/// # Errors
/// If no connection can be accepted.
pub fn on_listener(listener: &TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, from) = listener.accept()?;
        stream.set_nodelay(true)?;
        eprintln!("measuring with {from}");
        serve(stream.try_clone()?, stream);
    }
}

fn serve(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) {
    let mut channel = Channel::<ToWorker>::new(reader, writer);
    // Somebody who connects and says nothing must not keep others out.
    let deadline = Instant::now() + TASK_WAIT;
    let Ok(ToWorker::Prepare(task)) = channel.hear(Some(deadline)) else { return };
    // A thread of its own, which takes its pinning with it when it ends.
    let worked = std::thread::spawn(move || {
        if let Err(why) = work(&task, &mut channel) {
            channel.say(&FromWorker::Failed(why));
        }
    });
    // Its panic has been printed, and the other side hears that the conversation has ended.
    let _ = worked.join();
}

fn work(task: &Task, channel: &mut Channel<ToWorker>) -> Result<(), String> {
    if task.version != crate::VERSION {
        return Err(format!("this is version {}, the other side's is {}", crate::VERSION, task.version));
    }
    if let Some(id) = task.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(format!("the thread could not be pinned to processor {id}"));
    }
    match task.case.layer {
        Layer::Cl => with::<cl::Endpoint>(task, channel),
        Layer::Rcl => with::<rcl::Endpoint>(task, channel),
        Layer::Mml => with::<Acknowledged>(task, channel),
        Layer::MmlUnr => with::<Unreliable>(task, channel),
    }
}

/// Opens the parties, has them introduced, and runs this side's roles with them.
fn with<P: Party>(task: &Task, channel: &mut Channel<ToWorker>) -> Result<(), String> {
    let case = &task.case;
    let mut parties =
        ids(task.side, case).map(|me| P::open(case, me, task.bind)).collect::<Result<Vec<P>, String>>()?;
    channel.say(&FromWorker::Ready(parties.iter().map(Party::addr).collect()));
    let Ok(ToWorker::Begin(addrs)) = channel.hear(None) else {
        return Err("told to stop before it began".to_owned());
    };
    for party in &mut parties {
        meet(party, task, &addrs)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    channel.watch(move || flag.store(true, Ordering::Relaxed));
    match (task.side, case.workload) {
        (Side::Active, Workload::Lat) => play(task, channel, parties, || Pinger::new(case, PASSIVE), &stop),
        (Side::Active, _) => play(task, channel, parties, || Source::new(case, PASSIVE), &stop),
        (Side::Passive, Workload::Lat) => play(task, channel, parties, || Echo::new(case), &stop),
        (Side::Passive, _) => play(task, channel, parties, || Sink::new(case, ACTIVE), &stop),
    }
}

/// Runs the roles, says what came of it, and keeps the parties until told to stop: to the other side, which
/// may still be at work, one that goes is a peer that has died.
fn play<P: Party, R: Role>(
    task: &Task,
    channel: &mut Channel<ToWorker>,
    parties: Vec<P>,
    role: impl Fn() -> R,
    stop: &AtomicBool,
) -> Result<(), String> {
    let mut players: Vec<(P, R)> = parties.into_iter().map(|party| (party, role())).collect();
    match (task.case.pacing, &mut players[..]) {
        (Pacing::Spin, players) => spin(players, stop)?,
        (Pacing::Park, [player]) => park(player, stop)?,
        (Pacing::Park, _) => {
            return Err("several senders on one thread cannot sleep: leave --park out".to_owned());
        }
    }
    let figures: Vec<Figures> = players.iter().map(|(_, role)| role.figures()).collect();
    let other = ids(task.side.other(), &task.case).next().expect("one at least");
    let mut injected = Injected::default();
    for counts in players.iter().filter_map(|(party, _)| party.below().faults()) {
        injected += counts.into();
    }
    let via = via(&players[0].0, &task.case, other)?;
    let outcome = Outcome { figures: together(&figures), via, injected };
    channel.say(&FromWorker::Done(Box::new(outcome)));
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STOP_LOOK);
    }
    Ok(())
}

/// Tells the party where the other side's are; the active side waits until they can be reached as they should.
fn meet<P: Party>(party: &mut P, task: &Task, others: &[SocketAddr]) -> Result<(), String> {
    let calling = task.side == Side::Active;
    let peers: Vec<PeerId> = ids(task.side.other(), &task.case).collect();
    for (peer, addr) in peers.iter().zip(others) {
        party.meet(*peer, *addr, calling);
    }
    let deadline = Instant::now() + MEETING_MAX;
    while calling && !peers.iter().all(|peer| is_met(party, &task.case, *peer)) {
        if party.poll()?.is_some() {
            return Err("a message came before any was sent".to_owned());
        }
        if Instant::now() > deadline {
            return Err(via(party, &task.case, peers[0]).unwrap_or_else(|why| why));
        }
    }
    Ok(())
}

/// The figures of all senders as one: rates add up, losses are averaged, and how fair it was.
fn together(all: &[Figures]) -> Figures {
    if let [one] = all {
        return *one;
    }
    let rates: Vec<f64> = all.iter().filter_map(|f| f.rate).collect();
    let sum: f64 = rates.iter().sum();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let losses: Vec<f64> = all.iter().filter_map(|f| f.loss).collect();
    Figures {
        rate: Some(sum),
        bandwidth: Some(all.iter().filter_map(|f| f.bandwidth).sum()),
        loss: Some(losses.iter().sum::<f64>() / losses.len().max(1) as f64),
        samples: Some(all.iter().filter_map(|f| f.samples).sum()),
        // A sender without a rate has not got anything through at all.
        fairness: Some(if rates.len() == all.len() { slowest / (sum / all.len() as f64) } else { 0.0 }),
        ..Figures::default()
    }
}

/// The parties of a side.
fn ids(side: Side, case: &Case) -> impl Iterator<Item = PeerId> + use<> {
    let (first, count) = match side {
        Side::Active => (ACTIVE, case.senders),
        Side::Passive => (PASSIVE, 1),
    };
    (0..count).map(move |i| PeerId::new(first.principal.0 + i, first.instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_the_slowest_by_the_mean() {
        let sender = |rate| Figures {
            rate: Some(rate),
            bandwidth: Some(8.0 * rate),
            loss: Some(0.0),
            ..Figures::default()
        };
        let figures = together(&[sender(1.0), sender(3.0), sender(2.0)]);
        assert_eq!((figures.rate, figures.bandwidth, figures.fairness), (Some(6.0), Some(48.0), Some(0.5)));
        let starved = together(&[sender(1.0), Figures::default()]);
        assert_eq!(starved.fairness, Some(0.0));
    }
}
