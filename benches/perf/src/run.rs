//! Running one of our own measurements: two workers are started, introduced to each other, and heard.

use crate::case::{Case, Effort, Link};
use crate::control::{Channel, FromWorker, Outcome, Side, Silence, Task, ToWorker};
use crate::supported;
use crate::veth::Veth;
use std::cell::OnceCell;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long workers take to start and to end, at most, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// While the active side is at work it is looked so often whether the passive one lives.
const LIFE_LOOK: Duration = Duration::from_millis(100);
/// A measurement by count that takes longer than this is given up.
const COUNTED_MAX: Duration = Duration::from_secs(600);

/// How to start a worker of one's own: the program, and what makes it be one.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Where measurements run.
#[derive(Debug)]
pub struct Place {
    /// How local workers are started.
    pub launcher: Launcher,
    /// The processors of the active and of the passive side; `None` leaves it to the system.
    pub cores: [Option<usize>; 2],
    /// Where another host's `--listen` serves the passive side; by default that is a local process, too.
    pub remote: Option<SocketAddr>,
    /// The namespaces that cases of [`Link::Veth`] run in, made when the first is measured.
    pub veth: OnceCell<Result<Veth, String>>,
}

impl Place {
    /// This host, the two sides on the first two of its processors.
    pub fn here(launcher: Launcher) -> Place {
        Place { launcher, cores: two_cores(), remote: None, veth: OnceCell::new() }
    }
}

/// The first two processors that the system lets this process use, or one twice, or none.
pub fn two_cores() -> [Option<usize>; 2] {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let first = cores.first().map(|c| c.id);
    [first, cores.get(1).map(|c| c.id).or(first)]
}

/// Measures `case` once.
///
/// # Errors
/// A sentence that says which side failed, and of what.
pub fn measure(case: &Case, place: &Place) -> Result<Outcome, String> {
    supported::case(case)?;
    let veth = match case.link {
        Link::Host => None,
        Link::Veth => Some(place.veth.get_or_init(Veth::new).as_ref().map_err(String::clone)?),
    };
    let start = |side| Worker::start(&place.launcher, &veth.map(|v| v.inside(side)).unwrap_or_default());
    let (mut passive, binds) = match (place.remote, veth) {
        (Some(addr), _) => Worker::reach(addr)?,
        (None, Some(_)) => (start(1)?, Veth::addresses()),
        (None, None) => (start(1)?, [IpAddr::V4(Ipv4Addr::LOCALHOST); 2]),
    };
    let mut active = start(0)?;
    let task = |side, core, bind| {
        let version = crate::VERSION.to_owned();
        ToWorker::Prepare(Box::new(Task { version, case: *case, side, core, bind }))
    };
    let deadline = Instant::now() + PATIENCE;
    passive.channel.say(&task(Side::Passive, place.cores[1].filter(|_| place.remote.is_none()), binds[1]));
    active.channel.say(&task(Side::Active, place.cores[0], binds[0]));
    let passive_addrs = passive.ready(deadline).map_err(|why| format!("receiving side: {why}"))?;
    let active_addrs = active.ready(deadline).map_err(|why| format!("sending side: {why}"))?;
    passive.channel.say(&ToWorker::Begin(active_addrs));
    active.channel.say(&ToWorker::Begin(passive_addrs));
    let outcome = outcome(&mut active, &passive, Instant::now() + time_for(case.effort))?;
    passive.channel.say(&ToWorker::Stop);
    // The cause, if there is one, is on the side that failed; the other only waits for it in vain.
    // The active side keeps its parties until it is dropped here, after the passive side has ended.
    match (outcome, passive.done(Instant::now() + PATIENCE)) {
        (Ok(mut outcome), Ok(passive)) => {
            outcome.injected += passive.injected;
            outcome.figures.injected = case.faults.map(|_| outcome.injected.total() as f64);
            Ok(outcome)
        }
        (_, Err(why)) => Err(format!("receiving side: {why}")),
        (Err(why), Ok(_)) => Err(format!("sending side: {why}")),
    }
}

/// What the active side has found. If the passive side ends before, it is not waited for.
fn outcome(
    active: &mut Worker,
    passive: &Worker,
    deadline: Instant,
) -> Result<Result<Outcome, String>, String> {
    loop {
        let now = Instant::now();
        match active.done((now + LIFE_LOOK).min(deadline)) {
            Err(why) if why == Silence::TimedOut.to_string() && now < deadline => {}
            outcome => return Ok(outcome),
        }
        match passive.channel.hear(Some(now)) {
            Err(Silence::TimedOut) => {}
            Ok(FromWorker::Failed(why)) => return Err(format!("receiving side: {why}")),
            Ok(_) => return Err("receiving side: it was done before it was told to stop".to_owned()),
            Err(gone) => return Err(format!("receiving side: {gone}")),
        }
    }
}

fn time_for(effort: Effort) -> Duration {
    match effort {
        Effort::Time(time) => time * 2 + PATIENCE,
        Effort::Iterations(_) => COUNTED_MAX,
    }
}

/// A worker as its employer sees it.
struct Worker {
    channel: Channel<FromWorker>,
    child: Option<Child>,
}

impl Worker {
    /// A local one; `before` goes before its command.
    fn start(launcher: &Launcher, before: &[OsString]) -> Result<Worker, String> {
        let program = launcher.program.clone().into_os_string();
        let words: Vec<&OsString> = before.iter().chain([&program]).chain(&launcher.args).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            // The case says which faults are wanted, so that the report does, too.
            .env_remove(cl::FAULTS_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", launcher.program.display()))?;
        let (reader, writer) = child.stdout.take().zip(child.stdin.take()).expect("both are pipes");
        Ok(Worker { channel: Channel::new(reader, writer), child: Some(child) })
    }

    /// The listener at `addr`, and the addresses by which we and it reach each other.
    fn reach(addr: SocketAddr) -> Result<(Worker, [IpAddr; 2]), String> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
            stream.set_nodelay(true)?;
            let binds = [stream.local_addr()?.ip(), stream.peer_addr()?.ip()];
            Ok::<_, std::io::Error>((Channel::new(stream.try_clone()?, stream), binds))
        };
        let (channel, binds) = connect().map_err(|error| {
            format!("nobody answers at {addr} ({error}); there, run: ghidrah perf --listen {addr}")
        })?;
        Ok((Worker { channel, child: None }, binds))
    }

    fn ready(&mut self, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
        match self.channel.hear(Some(deadline)) {
            Ok(FromWorker::Ready(addrs)) => Ok(addrs),
            Ok(FromWorker::Failed(why)) => Err(why),
            Ok(FromWorker::Done(_)) => Err("it was done before it began".to_owned()),
            Err(silence) => Err(silence.to_string()),
        }
    }

    fn done(&mut self, deadline: Instant) -> Result<Outcome, String> {
        match self.channel.hear(Some(deadline)) {
            Ok(FromWorker::Done(outcome)) => Ok(*outcome),
            Ok(FromWorker::Failed(why)) => Err(why),
            Ok(FromWorker::Ready(_)) => Err("it was ready twice".to_owned()),
            Err(silence) => Err(silence.to_string()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
