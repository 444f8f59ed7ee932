//! A worker: the process that runs one end of one workload.

use crate::case::{Layer, Pacing, Transport, Workload};
use crate::control::{Channel, FromWorker, Side, Task, ToWorker};
use crate::drive::{Bell, Parked, spin};
use crate::party::Party;
use crate::role::{Echo, Pinger, Role, Sink, Source};
use crate::stats::Figures;
use cl::{Endpoint, EndpointConfig, TransportChoice};
use cl_base::PeerId;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let Ok(ToWorker::Prepare(task)) = channel.hear(None) else { return };
    // A thread of its own, which takes its pinning with it when it ends.
    let worked = std::thread::spawn(move || {
        let answer = match work(&task, &mut channel) {
            Ok(figures) => FromWorker::Done(Box::new(figures)),
            Err(why) => FromWorker::Failed(why),
        };
        channel.say(&answer);
    });
    // Its panic has been printed, and the other side hears that the conversation has ended.
    let _ = worked.join();
}

fn work(task: &Task, channel: &mut Channel<ToWorker>) -> Result<Figures, String> {
    if task.version != crate::VERSION {
        return Err(format!("this is version {}, the other side's is {}", crate::VERSION, task.version));
    }
    if let Some(id) = task.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(format!("the thread could not be pinned to processor {id}"));
    }
    match (task.case.layer, task.case.pacing) {
        (Layer::Cl, Pacing::Spin) => spin_cl(task, channel),
        (Layer::Cl, Pacing::Park) => park_cl(task, channel),
        (Layer::Rcl, _) => Err("rcl cannot be measured yet: it does not take message buffers".to_owned()),
    }
}

fn spin_cl(task: &Task, channel: &mut Channel<ToWorker>) -> Result<Figures, String> {
    let endpoints = ids(task)
        .map(|me| Endpoint::open(cl_config(task, me)?).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, String>>()?;
    let addrs = endpoints.iter().map(Endpoint::local_addr).collect();
    let others = begin(channel, addrs, &endpoints[0])?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    channel.watch(move || flag.store(true, Ordering::Relaxed));
    let players = endpoints.into_iter().enumerate().map(|(i, mut endpoint)| {
        introduce(&mut endpoint, task.side, &others);
        (i, endpoint)
    });
    run(task, players, &stop)
}

fn park_cl(task: &Task, channel: &mut Channel<ToWorker>) -> Result<Figures, String> {
    if task.case.senders > 1 {
        return Err(
            "several senders share a thread, which can sleep on one endpoint only: leave --park out".into()
        );
    }
    let me = ids(task).next().expect("one party at least");
    let mut parked = Parked::open(cl_config(task, me)?).map_err(|error| error.to_string())?;
    let addr = parked.endpoint().local_addr();
    let others = begin(channel, vec![addr], parked.endpoint())?;
    introduce(parked.endpoint(), task.side, &others);
    let bell: Bell = parked.bell();
    channel.watch(move || bell.ring());
    let case = &task.case;
    match (task.side, case.workload) {
        (Side::Active, Workload::Lat) => parked.run(Pinger::new(case, PASSIVE)).map(|r| r.figures()),
        (Side::Active, _) => parked.run(Source::new(case, PASSIVE)).map(|r| r.figures()),
        (Side::Passive, Workload::Lat) => parked.run(Echo::new(case)).map(|r| r.figures()),
        (Side::Passive, _) => parked.run(Sink::new(case, ACTIVE)).map(|r| r.figures()),
    }
}

/// Runs the roles of this side spinning, the `i`th with the `i`th party.
fn run<P: Party>(
    task: &Task,
    parties: impl Iterator<Item = (usize, P)>,
    stop: &AtomicBool,
) -> Result<Figures, String> {
    fn all<P: Party, R: Role>(
        players: impl Iterator<Item = (P, R)>,
        stop: &AtomicBool,
    ) -> Result<Figures, String> {
        let mut players: Vec<(P, R)> = players.collect();
        spin(&mut players, stop)?;
        let figures: Vec<Figures> = players.iter().map(|(_, role)| role.figures()).collect();
        Ok(together(&figures))
    }
    let case = &task.case;
    match (task.side, case.workload) {
        (Side::Active, Workload::Lat) => all(parties.map(|(_, p)| (p, Pinger::new(case, PASSIVE))), stop),
        (Side::Active, _) => all(parties.map(|(_, p)| (p, Source::new(case, PASSIVE))), stop),
        (Side::Passive, Workload::Lat) => all(parties.map(|(_, p)| (p, Echo::new(case))), stop),
        (Side::Passive, _) => all(parties.map(|(_, p)| (p, Sink::new(case, ACTIVE))), stop),
    }
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
        // A sender without a rate has not got anything through at all.
        fairness: Some(if rates.len() == all.len() { slowest / (sum / all.len() as f64) } else { 0.0 }),
        ..Figures::default()
    }
}

/// The parties of this side.
fn ids(task: &Task) -> impl Iterator<Item = PeerId> + use<> {
    let (first, count) = match task.side {
        Side::Active => (ACTIVE, task.case.senders),
        Side::Passive => (PASSIVE, 1),
    };
    (0..count).map(move |i| PeerId::new(first.principal.0 + i, first.instance))
}

fn cl_config(task: &Task, me: PeerId) -> Result<EndpointConfig, String> {
    let transport = match task.case.transport {
        Transport::Udp => TransportChoice::Auto,
        Transport::Mio => TransportChoice::Mio,
        Transport::Uring => TransportChoice::Uring,
        other => return Err(format!("cl has no transport {other} yet")),
    };
    Ok(EndpointConfig { transport, ..EndpointConfig::new(me, SocketAddr::new(task.bind, 0)) })
}

/// Says that all is ready, and waits for the other side's addresses.
fn begin(
    channel: &mut Channel<ToWorker>,
    addrs: Vec<SocketAddr>,
    endpoint: &Endpoint,
) -> Result<Vec<SocketAddr>, String> {
    let transport = format!("{} ({})", endpoint.transport(), endpoint.transport_reason());
    channel.say(&FromWorker::Ready { addrs, transport });
    match channel.hear(None) {
        Ok(ToWorker::Begin(addrs)) => Ok(addrs),
        _ => Err("told to stop before it began".to_owned()),
    }
}

/// Tells the endpoint where the other side's parties are.
fn introduce(endpoint: &mut Endpoint, side: Side, others: &[SocketAddr]) {
    let first = match side {
        Side::Active => PASSIVE,
        Side::Passive => ACTIVE,
    };
    for (i, addr) in others.iter().enumerate() {
        endpoint.resolve(PeerId::new(first.principal.0 + i as u32, first.instance), *addr);
    }
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
