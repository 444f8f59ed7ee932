//! Processes that are killed at random instants, in the middle of messages both ways: the survivor is told in
//! time, gets back all it has lent and frees all it was lent, and never takes a peer for its former self.

mod common;

use cl::{Buf, SharedMemory};
use cl_base::{PeerId, Rng};
use common::{Mix, Receiver, Sender, in_use, verify, within};
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SURVIVOR: PeerId = PeerId::new(1, 0);
const MORTAL: PeerId = PeerId::new(2, 0);
/// Where a process that is to be killed is told its part.
const PART_VARIABLE: &str = "RCL_TEST_PART";
const DEAD_AFTER: Duration = Duration::from_millis(300);
/// How much later half of the deaths may be told at the most: until the kernel has taken a process apart,
const MARGIN: Duration = Duration::from_millis(300);
/// and any of them on a machine with other work, where processes wait for their turn.
const LIMIT: Duration = Duration::from_secs(5);
/// The latest instant to be killed at, after the process has been started.
const LIFE_MAX_US: u64 = 80_000;
/// Received buffers that the survivor keeps until after the death.
const KEPT: usize = 4;
/// The default pool's.
const CLASSES: [usize; 5] = [2 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20];
const MIX: Mix = Mix { shortest: 8, longest: 300 << 10, announced: 2 << 20 };
/// What a process has in use is counted, so there is one survivor in it at a time.
static ALONE: Mutex<()> = Mutex::new(());
/// A process that nobody kills ends by itself.
const FORGOTTEN: Duration = Duration::from_secs(60);

fn config(me: PeerId, bind: SocketAddr, shared: bool) -> EndpointConfig {
    let mut config = EndpointConfig::new(me, bind);
    if !shared {
        config.cl.shared_memory = SharedMemory::Never;
    }
    config.protocol.dead_after = DEAD_AFTER;
    config
}

/// The life of a process that will be killed: says and hears as much as it can.
fn live(part: &str) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let words: Vec<&str> = part.split(' ').collect();
    let [shared, calls] = [words[0] == "shared", words[1] == "calls"];
    let (life, earlier): (u32, u32) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    let (survivor, bind): (SocketAddr, SocketAddr) = (words[4].parse().unwrap(), words[5].parse().unwrap());
    let mut endpoint = Endpoint::open(config(MORTAL, bind, shared)).unwrap();
    let mut sender = None;
    if calls {
        endpoint.connect(SURVIVOR, survivor);
        sender = Some(Sender::new(life, MIX));
    }
    println!("\nbound {}", endpoint.local_addr());
    std::io::stdout().flush().unwrap();
    let mut receiver = Receiver::new(MIX);
    let start = Instant::now();
    while start.elapsed() < FORGOTTEN {
        if let Some(sender) = &mut sender {
            sender.send(&mut endpoint, SURVIVOR);
        }
        match endpoint.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(SURVIVOR)) => {
                sender.get_or_insert_with(|| Sender::new(life, MIX));
            }
            Some(Event::Sent { .. }) => sender.as_mut().unwrap().on_sent(),
            Some(Event::Closed(_, reason)) => panic!("life {life}: the survivor has closed: {reason}"),
            Some(event) => {
                receiver.on_event(&mut endpoint, event);
                assert!(receiver.tag() >= Some(earlier), "life {life}: said to {:?}", receiver.tag());
            }
        }
    }
    panic!("nobody has killed life {life}");
}

/// Who makes the connection, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The mortal calls, after its former self is buried.
    Call,
    /// The survivor calls, after the same.
    BeCalled,
    /// The mortal calls at once, before the survivor knows of the death.
    CallAtOnce,
}

struct Survivor {
    endpoint: Endpoint,
    /// Connections so far.
    connections: u32,
    sender: Option<Sender>,
    receiver: Receiver,
    /// The peer's life of which a message came last.
    life: u32,
    kept: VecDeque<(Buf, u32, u32)>,
    messages: u64,
    /// When the last connection was closed.
    closed: Option<(Instant, CloseReason)>,
    /// From deaths to the news of them.
    took: Vec<Duration>,
    reasons: BTreeMap<String, u32>,
}

/// Free buffers by class, descriptors, shared mappings.
type InUse = (Vec<usize>, (usize, usize));

impl Survivor {
    fn call(&mut self, addr: SocketAddr) {
        self.endpoint.connect(MORTAL, addr);
        self.begin();
    }

    fn begin(&mut self) {
        self.connections += 1;
        (self.sender, self.receiver) = (Some(Sender::new(self.connections, MIX)), Receiver::new(MIX));
    }

    fn step(&mut self) {
        if let Some(sender) = &mut self.sender {
            sender.send(&mut self.endpoint, MORTAL);
        }
        match self.endpoint.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(MORTAL)) => {
                if self.sender.is_none() {
                    self.begin();
                }
            }
            Some(Event::Sent { .. }) => self.sender.as_mut().unwrap().on_sent(),
            Some(Event::Closed(MORTAL, reason)) => {
                assert!(self.sender.take().is_some(), "closed twice");
                self.closed = Some((Instant::now(), reason));
            }
            Some(event) => {
                assert!(self.sender.is_some(), "a message after the end: {event:?}");
                let fresh = self.receiver.tag().is_none();
                let message = self.receiver.on_event(&mut self.endpoint, event);
                let life = self.receiver.tag().unwrap();
                assert!(!fresh || life > self.life, "life {life} speaks after life {}", self.life);
                self.life = life;
                self.messages += 1;
                if let Some((buf, n)) = message.filter(|(buf, _)| buf.len() > 2000) {
                    self.kept.push_back((buf, life, n));
                    if self.kept.len() > KEPT {
                        self.kept.pop_front();
                    }
                }
            }
        }
    }

    fn in_use(&self) -> InUse {
        let pool = self.endpoint.cl().pool();
        (CLASSES.map(|len| pool.available(len)).to_vec(), in_use())
    }

    /// Notes when the news of the death at `killed_at` came, if it did.
    fn note(&mut self, killed_at: Instant) {
        if let Some((at, reason)) = self.closed.take() {
            self.took.push(at.saturating_duration_since(killed_at));
            *self.reasons.entry(reason.to_string()).or_default() += 1;
        }
    }

    /// Waits for the news of the death, and until all that was in use for the dead is free.
    fn bury(&mut self, killed_at: Instant, before: &InUse) {
        within(LIMIT, "the news of the death", || {
            self.step();
            let over = self.sender.is_none() && self.endpoint.sizes(MORTAL).is_none();
            over && self.endpoint.cl().shared() == (0, 0)
        });
        self.note(killed_at);
        // What the dead has lent is as it was, and is given up when it is dropped.
        self.kept.drain(..).for_each(|(buf, life, n)| verify(&buf, life, n));
        let start = Instant::now();
        // One socket may have been connected to the peer that most goes to (cl's lane), and is kept for its
        // next life at the same address.
        let with_lane = (before.0.clone(), (before.1.0 + 1, before.1.1));
        while ![before, &with_lane].contains(&&self.in_use()) {
            self.step();
            let late = start.elapsed() > Duration::from_secs(2);
            assert!(!late, "after life {}: {before:?} and now {:?}", self.life, self.in_use());
        }
    }
}

struct Mortal {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Mortal {
    fn start(test: &str, part: &str) -> Mortal {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--include-ignored", "--nocapture"]).env(PART_VARIABLE, part);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Mortal { child, output }
    }

    fn addr(&mut self) -> SocketAddr {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some(addr) = line.strip_prefix("bound ") {
                return addr.trim().parse().unwrap();
            }
        }
    }

    fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // It may have been killed while it told why it was about to end.
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(ended.is_none() && !said.contains("panicked"), "it has ended by itself: {ended:?}, {said}");
    }
}

/// Kills a peer `kills` times.
fn kill(test: &str, shared: bool, kills: u32, seed: u64) {
    if let Ok(part) = std::env::var(PART_VARIABLE) {
        return live(&part);
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let endpoint = Endpoint::open(config(SURVIVOR, "127.0.0.1:0".parse().unwrap(), shared)).unwrap();
    let here = endpoint.local_addr();
    let mut survivor = Survivor {
        endpoint,
        connections: 0,
        sender: None,
        receiver: Receiver::new(MIX),
        life: 0,
        kept: VecDeque::new(),
        messages: 0,
        closed: None,
        took: Vec::new(),
        reasons: BTreeMap::new(),
    };
    let mut rng = Rng::new(seed);
    // The kernel chooses an address for the first life; the others have the same.
    let mut there: SocketAddr = "127.0.0.1:0".parse().unwrap();
    survivor.step();
    let before = survivor.in_use();
    let mut killed_at: Option<Instant> = None;
    for life in 1..=kills {
        let start = *rng.pick(&[Start::Call, Start::BeCalled, Start::CallAtOnce]).unwrap();
        if let Some(killed_at) = killed_at.filter(|_| start != Start::CallAtOnce) {
            survivor.bury(killed_at, &before);
        }
        let calls = if start == Start::BeCalled { "waits" } else { "calls" };
        let way = if shared { "shared" } else { "network" };
        let part = format!("{way} {calls} {life} {} {here} {there}", survivor.connections);
        let mut mortal = Mortal::start(test, &part);
        if life == 1 || start == Start::BeCalled {
            there = mortal.addr();
        }
        let end = Instant::now() + Duration::from_micros(rng.below(LIFE_MAX_US));
        if start == Start::BeCalled {
            survivor.call(there);
        }
        while Instant::now() < end {
            survivor.step();
            if let Some(killed_at) = killed_at {
                survivor.note(killed_at);
            }
        }
        mortal.kill();
        killed_at = Some(Instant::now());
    }
    survivor.bury(killed_at.unwrap(), &before);
    let Survivor { endpoint, messages, connections, mut took, reasons, .. } = survivor;
    took.sort();
    let (median, longest) = (took[took.len() / 2], *took.last().unwrap());
    println!(
        "{kills} kills, {connections} connections, {messages} messages heard; told after {median:?}, at the most \
         {longest:?}; {reasons:?}"
    );
    assert!(median < DEAD_AFTER + MARGIN, "{median:?}");
    // On a busy machine some lives are over before much is said.
    assert!(messages > 2 * u64::from(kills), "too little was said");
    assert_eq!(endpoint.cl().stats().shared_received > messages / 2, shared, "by the wrong way");
}

#[test]
fn two_hundred_kills_over_shared_memory() {
    kill("two_hundred_kills_over_shared_memory", true, 200, 1);
}

#[test]
fn forty_kills_over_the_network() {
    kill("forty_kills_over_the_network", false, 40, 2);
}

#[test]
#[ignore = "takes more than a minute"]
fn two_hundred_kills_over_the_network() {
    kill("two_hundred_kills_over_the_network", false, 200, 3);
}
