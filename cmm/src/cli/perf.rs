//! `ghidrah perf`: the arguments, and what is done with the report. The work is `ghidrah-perf`'s.

mod outputs;

use super::{Failure, Outcome};
use cl::Injection;
use clap::Args;
use ghidrah_perf::case::{self, Contents, Effort, Layer, Link, Pacing, Transport, Workload};
use ghidrah_perf::peers::{Peer, PeerError, Peers};
use ghidrah_perf::plan::{Metric, Plan, Progress, Subject};
use ghidrah_perf::role::SMALL_COPY_MAX;
use ghidrah_perf::run::{Launcher, Place};
use ghidrah_perf::sizes::SizesError;
use ghidrah_perf::{Case, sizes, supported, table, worker};
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// How long one measurement goes on if nothing is said, and with `--quick`, seconds.
const SECONDS: f64 = 0.5;
/// Rounds if nothing is said; the table asks for at least as many.
const ROUNDS: u32 = 5;
/// Senders of an incast if nothing is said.
const SENDERS: u32 = 8;
/// More share one thread's time in vain.
const SENDERS_MAX: u32 = 64;

pub(super) const HELP: &str = "What is measured:
  lat     ping-pong: half the round trip, percentiles; the mean is of a batch
          without reading the clock
  bw      one way, a window of messages under way: bytes per second that arrive
  rate    the same, messages per second; over cl those of up to 1 KiB are
          copied, by queue_copies and drain (else say --loaned)
  incast  several senders to one receiver: bytes per second, and the slowest
          sender by the mean
  table   the project's table of goals, against everybody

Examples:
  ghidrah perf lat                                cl over UDP, 8 B to 64 KiB
  ghidrah perf lat --size 8-8K --against udp,ucx  beside a bare socket and UCX
  ghidrah perf lat --park --against udp           asleep while nothing arrives
  ghidrah perf rate --size 64 --window 64 --time 2
  ghidrah perf bw --size 64K,1M --transport mio --json
  ghidrah perf incast --senders 16
  ghidrah perf bw --layer rcl --faults drop=1%    on a network that loses
  ghidrah perf lat --layer rcl --transport shm    through shared memory
  ghidrah perf lat --layer mml --copied           authenticated messages
  ghidrah perf lat --transport xdp                AF_XDP on a veth pair (root)
  ghidrah perf lat --transport ofi                libfabric, where built in
  ghidrah perf lat --csv lat.csv --svg lat.svg
  ghidrah perf --listen 10.0.0.2:7000             on one host,
  ghidrah perf lat --connect 10.0.0.2:7000        and on another
  ghidrah perf table --into docs/PERFORMANCE.md

Two processes are started, one on each of the first two processors (--cores).
With --against every round measures everybody in turn; a ratio is the median
of the rounds' ratios. A figure with a question mark rests on few samples.
--listen lets whoever reaches the port use the processor: for networks one
trusts. Ctrl-C ends everything that was started.

A busy machine measures itself: `echo -20 > /proc/self/autogroup` in the shell
helps (not with MPI ranks in it).";

/// `perf`
#[derive(Debug, Args)]
pub struct PerfArgs {
    /// What to measure: lat, bw, rate, incast; or table.
    #[arg(required_unless_present_any = ["listen", "worker"], value_parser = What::parse, value_name = "lat|bw|rate|incast|table")]
    what: Option<What>,
    /// The layer: cl, rcl, mml (acknowledged) or mml-unr; by default cl.
    #[arg(long)]
    layer: Option<Layer>,
    /// What carries the messages: udp, mio, uring, shm, xdp, ofi; by default udp.
    #[arg(long)]
    transport: Option<Transport>,
    /// Between two network namespaces joined by a pair of virtual Ethernet devices; needs root. With
    /// --transport xdp that is so anyway, unless there is --connect.
    #[arg(long, conflicts_with_all = ["connect", "against"])]
    veth: bool,
    /// Message sizes in bytes: lists, K and M, ranges that double (8-64K).
    #[arg(long, value_name = "SIZES", value_parser = parse_sizes)]
    size: Option<Sizes>,
    /// Messages under way, each sender's; by default what 128 KiB hold, 4 to 2048.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: Option<u32>,
    /// Seconds that one measurement goes on.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    time: Option<Duration>,
    /// Round trips, or messages of each sender, instead of --time.
    #[arg(long, value_name = "N", conflicts_with = "time", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    iters: Option<u64>,
    /// Measure each so often and take the median; by default 5.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,
    /// Sleep while nothing arrives, instead of spinning.
    #[arg(long)]
    park: bool,
    /// Messages are handed over in the buffers they are in; only their first bytes are written and read (the
    /// default but for bw, and short messages of cl's rate).
    #[arg(long, conflicts_with = "copied")]
    loaned: bool,
    /// Contents are copied from and into memory of the program's own (the default for bw, and for
    /// short messages of cl's rate).
    #[arg(long)]
    copied: bool,
    /// Senders of an incast; by default 8.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SENDERS_MAX)))]
    senders: Option<u32>,
    /// Lose, corrupt, duplicate, reorder, delay datagrams on purpose: drop=1%,delay=2ms@5%,seed=7. By default
    /// what GHIDRAH_CL_FAULTS says.
    #[arg(long, value_name = "FAULTS", conflicts_with = "against")]
    faults: Option<Injection>,
    /// The processors of the sending and the receiving side.
    #[arg(long, value_name = "A,B", value_parser = parse_cores)]
    cores: Option<[usize; 2]>,
    /// Measure these beside us in the same run: ucx, libfabric, zeromq, udp, iceoryx2.
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    against: Vec<Peer>,
    /// Serve the receiving side to other hosts, until Ctrl-C; they say what is measured.
    #[arg(long, value_name = "ADDR", conflicts_with_all = [
        "what", "layer", "transport", "veth", "size", "against", "connect", "faults", "quick", "into", "json", "csv", "svg",
    ])]
    listen: Option<SocketAddr>,
    /// Let the host that listens there be the receiving side.
    #[arg(long, value_name = "ADDR", conflicts_with = "against")]
    connect: Option<SocketAddr>,
    /// With table: one short round, to see that all can be measured.
    #[arg(long, conflicts_with_all = ["time", "iters", "repeat"])]
    quick: bool,
    /// With table: write it into this document, between its markers.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write the figures of every run to a file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw the figures over the sizes into a file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Be a worker of another `ghidrah perf`.
    #[arg(long, hide = true)]
    worker: bool,
}

impl PerfArgs {
    /// Whether this process is started by another `ghidrah perf`.
    pub(super) fn is_worker(&self) -> bool {
        self.worker
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    One(Workload),
    Table,
}

impl What {
    fn parse(text: &str) -> Result<What, String> {
        match text {
            "table" => Ok(What::Table),
            _ => text.parse().map(What::One).map_err(|error| format!("{error}, table")),
        }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.001..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not within 0.001 to 3600 seconds".to_owned())
    }
}

/// Message sizes in bytes, as they were asked for.
#[derive(Clone, Debug)]
struct Sizes(Vec<usize>);

fn parse_sizes(text: &str) -> Result<Sizes, SizesError> {
    sizes::parse(text).map(Sizes)
}

fn parse_cores(text: &str) -> Result<[usize; 2], String> {
    let cores: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    cores.ok().and_then(|c| c.try_into().ok()).ok_or_else(|| "write two numbers, as in 0,1".to_owned())
}

/// Measures, and shows.
pub(super) fn perf(args: &PerfArgs) -> Outcome {
    if args.worker {
        worker::on_standard_streams();
        return Ok(());
    }
    if let Some(addr) = args.listen {
        return listen(addr);
    }
    let peers = Peers::default();
    let plan = plan(args, &peers)?;
    outputs::check(args)?;
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let launcher = Launcher { program, args: vec!["perf".into(), "--worker".into()] };
    let mut place = Place { remote: args.connect, ..Place::here(launcher) };
    if let Some(cores) = args.cores {
        place.cores = cores.map(Some);
    }
    supported::processors(&place).map_err(Failure::usage)?;
    for case in plan.subjects.iter().map(Subject::case) {
        // What was asked for together cannot be, on any machine; the place and the environment are another matter.
        supported::case(case).map_err(Failure::usage)?;
        supported::at(case, &place)?;
        supported::in_environment(case)?;
    }
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let report = plan.measure(&format!("ghidrah {command}"), &place, &peers, show_progress);
    clear_progress();
    outputs::show(args, &report)
}

fn listen(addr: SocketAddr) -> Outcome {
    let failed = |error: std::io::Error| format!("cannot listen at {addr}: {error}");
    let listener = TcpListener::bind(addr).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    println!("listening at {addr}; on the other host: ghidrah perf lat --connect {addr}");
    worker::on_listener(&listener).map_err(failed)?;
    Ok(())
}

fn plan(args: &PerfArgs, peers: &Peers) -> Result<Plan, Failure> {
    let effort = match args.iters {
        Some(n) => Effort::Iterations(n),
        None => Effort::Time(args.time.unwrap_or(Duration::from_secs_f64(SECONDS))),
    };
    let rounds = args.repeat.unwrap_or(ROUNDS);
    let workload = match args.what.expect("clap requires it") {
        What::Table => {
            refuse_for_table(args)?;
            return Ok(if args.quick { table::quick() } else { table::plan(rounds, effort) });
        }
        What::One(workload) => workload,
    };
    refuse_for(workload, args)?;
    let default_sizes = match workload {
        Workload::Lat => "8,64,1K,8K,64K",
        Workload::Rate => "8,64,1K",
        Workload::Bw => "8K,64K,1M",
        Workload::Incast => "1K",
    };
    let sizes = match &args.size {
        Some(sizes) => sizes.0.clone(),
        None => sizes::parse(default_sizes).expect("the defaults are sizes"),
    };
    let layer = args.layer.unwrap_or(Layer::Cl);
    let transport = args.transport.unwrap_or(Transport::Udp);
    let veth = args.veth || (transport == Transport::Xdp && args.connect.is_none());
    let faults = match args.faults {
        Some(faults) => Some(faults).filter(|injection| !injection.faults.is_none()),
        None => supported::faults_of_environment()?,
    };
    let mut plan = Plan::new(rounds);
    for size in sizes {
        let case = Case {
            workload,
            layer,
            transport,
            link: if veth { Link::Veth } else { Link::Host },
            size,
            window: args.window.unwrap_or_else(|| case::default_window(size)),
            pacing: if args.park { Pacing::Park } else { Pacing::Spin },
            contents: match (args.copied, args.loaned, workload) {
                // Bytes per second of bytes that nobody touches would be a number without a meaning.
                (true, ..) | (_, false, Workload::Bw) => Contents::Copied,
                // The way with the most messages per second, which a program with many short ones would take.
                (_, false, Workload::Rate) if layer == Layer::Cl && size <= SMALL_COPY_MAX => {
                    Contents::Copied
                }
                _ => Contents::Loaned,
            },
            senders: if workload == Workload::Incast { args.senders.unwrap_or(SENDERS) } else { 1 },
            effort,
            faults,
        };
        plan.add(Subject::Ours(case));
        for peer in &args.against {
            match peers.check(*peer, &case) {
                Ok(()) => {}
                // Nobody has asked for this size.
                Err(PeerError::TooLong { .. }) if args.size.is_none() => continue,
                Err(error @ (PeerError::Incomparable { .. } | PeerError::TooLong { .. })) => {
                    return Err(Failure::usage(error.to_string()));
                }
                Err(error) => return Err(error.to_string().into()),
            }
            for metric in Metric::of(workload) {
                let (goal, floor) = table::limits(&case, *peer, *metric);
                plan.compare(Subject::Ours(case), Subject::Peer(*peer, case), *metric, goal, floor);
            }
        }
    }
    Ok(plan)
}

/// The table says itself what is measured.
fn refuse_for_table(args: &PerfArgs) -> Outcome {
    let given = [
        ("--layer", args.layer.is_some()),
        ("--transport", args.transport.is_some()),
        ("--veth", args.veth),
        ("--size", args.size.is_some()),
        ("--window", args.window.is_some()),
        ("--park", args.park),
        ("--loaned", args.loaned),
        ("--copied", args.copied),
        ("--senders", args.senders.is_some()),
        ("--against", !args.against.is_empty()),
        ("--connect", args.connect.is_some()),
        ("--faults", args.faults.is_some() || supported::faults_of_environment()?.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(Failure::usage(format!("the table says itself what is measured: leave {name} out")))
        }
        None => Ok(()),
    }
}

/// What would be ignored is refused.
fn refuse_for(workload: Workload, args: &PerfArgs) -> Outcome {
    let what = if args.into.is_some() {
        "--into is for table"
    } else if args.quick {
        "--quick is for table"
    } else if args.senders.is_some() && workload != Workload::Incast {
        "--senders is for incast"
    } else if args.window.is_some() && workload == Workload::Lat {
        "lat has one message under way: leave --window out"
    } else {
        return Ok(());
    };
    Err(Failure::usage(what))
}

fn show_progress(progress: &Progress) {
    if std::io::stderr().is_terminal() {
        let Progress { done, all, now } = progress;
        eprint!("\r\x1b[K[{}/{all}] {now}", done + 1);
        let _ = std::io::stderr().flush();
    }
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
