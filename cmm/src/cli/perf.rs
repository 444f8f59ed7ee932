//! `ghidrah perf`: the arguments, and what is done with the report. The work is `ghidrah-perf`'s.

use super::{Failure, Outcome};
use clap::Args;
use ghidrah_perf::case::{self, Contents, Effort, Layer, Link, Pacing, Transport, Workload};
use ghidrah_perf::peers::{Peer, Peers};
use ghidrah_perf::plan::{Metric, Plan, Progress, Subject};
use ghidrah_perf::report::Report;
use ghidrah_perf::run::{Launcher, Place};
use ghidrah_perf::{Case, sizes, table, worker};
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
  lat     ping-pong: half the round trip, percentiles; the mean is of a batch without reading the clock
  bw      one way, a window of messages under way: bytes per second that arrive
  rate    the same, messages per second
  incast  several senders to one receiver: bytes per second, and the slowest sender by the mean
  table   the project's table of goals, against everybody

Examples:
  ghidrah perf lat                                      cl over UDP, 8 B to 64 KiB
  ghidrah perf lat --size 8-8K --against udp,ucx        beside a bare socket and UCX, with ratios
  ghidrah perf lat --park --against udp                 asleep while nothing arrives
  ghidrah perf rate --size 64 --window 64 --time 2      two seconds each
  ghidrah perf bw --size 64K,1M --transport mio --json
  ghidrah perf incast --senders 16
  ghidrah perf lat --layer rcl --transport shm          reliable messages through shared memory
  ghidrah perf lat --transport xdp                      AF_XDP, between two network namespaces (root)
  ghidrah perf lat --csv lat.csv --svg lat.svg
  ghidrah perf --listen 10.0.0.2:7000                   on one host,
  ghidrah perf lat --connect 10.0.0.2:7000              and on another
  ghidrah perf table --into docs/PERFORMANCE.md

Two processes are started, one on each of the first two processors (--cores). With --against every round
measures everybody in turn; a ratio is the median of the rounds' ratios. --listen lets whoever reaches the
port use the processor: for networks one trusts.
A busy machine measures itself: `echo -20 > /proc/self/autogroup` in the shell helps (not with MPI ranks in it).";

/// `perf`
#[derive(Debug, Args)]
pub struct PerfArgs {
    /// What to measure: lat, bw, rate, incast; or table.
    #[arg(required_unless_present_any = ["listen", "worker"], value_parser = What::parse)]
    what: Option<What>,
    /// The layer: cl or rcl.
    #[arg(long, default_value = "cl", value_parser = parse_layer)]
    layer: Layer,
    /// What carries the messages: udp, mio, uring, shm, xdp.
    #[arg(long, default_value = "udp")]
    transport: Transport,
    /// Between two network namespaces joined by a pair of virtual Ethernet devices; needs root. With
    /// --transport xdp that is so anyway, unless there is --connect.
    #[arg(long, conflicts_with_all = ["connect", "against"])]
    veth: bool,
    /// Message sizes in bytes: lists, K and M, ranges that double (8-64K).
    #[arg(long, value_name = "SIZES")]
    size: Option<String>,
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
    /// default but for bw).
    #[arg(long, conflicts_with = "copied")]
    loaned: bool,
    /// Contents are copied from and into memory of the program's own (the default for bw).
    #[arg(long)]
    copied: bool,
    /// Senders of an incast.
    #[arg(long, value_name = "N", default_value_t = SENDERS, value_parser = clap::value_parser!(u32).range(1..=i64::from(SENDERS_MAX)))]
    senders: u32,
    /// The processors of the sending and the receiving side.
    #[arg(long, value_name = "A,B", value_parser = parse_cores)]
    cores: Option<[usize; 2]>,
    /// Measure these beside us in the same run: ucx, libfabric, zeromq, udp, iceoryx2.
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    against: Vec<Peer>,
    /// Serve the receiving side to other hosts, until Ctrl-C.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["what", "connect"])]
    listen: Option<SocketAddr>,
    /// Let the host that listens there be the receiving side.
    #[arg(long, value_name = "ADDR", conflicts_with = "against")]
    connect: Option<SocketAddr>,
    /// With table: one short round, to see that all can be measured.
    #[arg(long)]
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

fn parse_layer(text: &str) -> Result<Layer, String> {
    match text {
        "mml" => Err("mml cannot be measured yet; cl and rcl can".to_owned()),
        _ => text.parse(),
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
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let launcher = Launcher { program, args: vec!["perf".into(), "--worker".into()] };
    let mut place = Place { remote: args.connect, ..Place::here(launcher) };
    if let Some(cores) = args.cores {
        place.cores = cores.map(Some);
    }
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let report = plan.measure(&format!("ghidrah {command}"), &place, &peers, show_progress);
    clear_progress();
    show(args, &report)
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
        What::Table if args.quick => return Ok(table::quick()),
        What::Table => return Ok(table::plan(rounds, effort)),
        What::One(workload) => workload,
    };
    let default_sizes = match workload {
        Workload::Lat => "8,64,1K,8K,64K",
        Workload::Rate => "8,64,1K",
        Workload::Bw => "8K,64K,1M",
        Workload::Incast => "1K",
    };
    let sizes = sizes::parse(args.size.as_deref().unwrap_or(default_sizes)).map_err(|e| e.to_string())?;
    let veth = args.veth || (args.transport == Transport::Xdp && args.connect.is_none());
    let mut plan = Plan::new(rounds);
    for size in sizes {
        let case = Case {
            workload,
            layer: args.layer,
            transport: args.transport,
            link: if veth { Link::Veth } else { Link::Host },
            size,
            window: args.window.unwrap_or_else(|| case::default_window(size)),
            pacing: if args.park { Pacing::Park } else { Pacing::Spin },
            contents: match (args.copied, args.loaned, workload) {
                // Bytes per second of bytes that nobody touches would be a number without a meaning.
                (true, ..) | (_, false, Workload::Bw) => Contents::Copied,
                _ => Contents::Loaned,
            },
            senders: if workload == Workload::Incast { args.senders } else { 1 },
            effort,
        };
        plan.add(Subject::Ours(case));
        for peer in &args.against {
            peers.check(*peer, &case).map_err(|error| error.to_string())?;
            for metric in Metric::of(workload) {
                let (goal, floor) = table::limits(&case, *peer, *metric);
                plan.compare(Subject::Ours(case), Subject::Peer(*peer, case), *metric, goal, floor);
            }
        }
    }
    Ok(plan)
}

fn show(args: &PerfArgs, report: &Report) -> Outcome {
    let write = |path: &PathBuf, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    if let Some(path) = &args.csv {
        write(path, &report.csv())?;
    }
    if let Some(path) = &args.svg {
        write(path, &report.svg().ok_or_else(|| "there is nothing to draw".to_owned())?)?;
    }
    if let Some(path) = &args.into {
        let document = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        write(path, &report.insert_into(&document)?)?;
    }
    match report.errors() {
        errors if errors.is_empty() => Ok(()),
        errors => Err(format!("not measured:\n  {}", errors.join("\n  ")).into()),
    }
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
