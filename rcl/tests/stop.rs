//! A receiver that stops reading for a while: the sender is stopped, the memory of both stays bounded, and
//! nothing is lost when it goes on.

mod common;

use cl::SharedMemory;
use cl_base::PeerId;
use common::{Mix, Receiver, Sender, resident_mib};
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SENDER: PeerId = PeerId::new(1, 0);
const READER: PeerId = PeerId::new(2, 0);
/// Where the process that reads is told its part.
const PART_VARIABLE: &str = "RCL_TEST_PART";
const MIX: Mix = Mix { shortest: 8, longest: 1 << 20, announced: 4 << 20 };
/// How long the reader reads before it stops, and the sender sends after that.
const READING: Duration = Duration::from_secs(1);
/// When the sender must long have come to a stop.
const SETTLING: Duration = Duration::from_secs(1);
/// The pools of both are 144 MiB each; beside them there are programs, rings and announced messages.
const RESIDENT_MAX_MIB: u64 = 2 * 144 + 64;
/// The memory of a process is measured, so there is one sender in it at a time.
static ALONE: Mutex<()> = Mutex::new(());
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);

fn config(me: PeerId, shared: bool, stop: Duration) -> EndpointConfig {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if shared {
        // The kernel tells who is dead, so that silence says nothing.
        config.protocol.dead_after = Duration::from_millis(300);
    } else {
        config.cl.shared_memory = SharedMemory::Never;
        config.protocol.dead_after = stop + LIMIT;
    }
    config
}

/// Reads, stops, and reads on to the end.
fn read(part: &str) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let words: Vec<&str> = part.split(' ').collect();
    let (shared, stop) = (words[0] == "shared", Duration::from_secs(words[1].parse().unwrap()));
    let mut endpoint = Endpoint::open(config(READER, shared, stop)).unwrap();
    endpoint.connect(SENDER, words[2].parse().unwrap());
    let mut receiver = Receiver::new(MIX);
    let (start, mut rss) = (Instant::now(), Vec::new());
    loop {
        if rss.is_empty() && start.elapsed() > READING {
            rss.push(resident_mib());
            std::thread::sleep(stop);
            rss.push(resident_mib());
        }
        match endpoint.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(SENDER)) => {}
            Some(Event::Closed(SENDER, CloseReason::Graceful)) => break,
            Some(event) => drop(receiver.on_event(&mut endpoint, event)),
        }
    }
    rss.push(resident_mib());
    println!("\nread {} messages, {} bytes; resident {rss:?} MiB", receiver.messages, receiver.bytes);
    assert!(*rss.iter().max().unwrap() < RESIDENT_MAX_MIB);
    // The sender may have to ask again for the last acknowledgement.
    let end = Instant::now();
    while end.elapsed() < Duration::from_secs(1) {
        endpoint.poll();
        std::thread::yield_now();
    }
}

fn stop(test: &str, shared: bool, stop: Duration) {
    if let Ok(part) = std::env::var(PART_VARIABLE) {
        return read(&part);
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut endpoint = Endpoint::open(config(SENDER, shared, stop)).unwrap();
    let way = if shared { "shared" } else { "network" };
    let part = format!("{way} {} {}", stop.as_secs(), endpoint.local_addr());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--include-ignored", "--nocapture"]).env(PART_VARIABLE, part);
    let mut reader = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();

    let mut sender = Sender::new(1, MIX);
    let (mut connected, mut closing) = (None, false);
    let (mut accepted, mut longest) = (Instant::now(), Duration::ZERO);
    let (mut before, mut settled, mut stopped) = (0, 0, 0);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < stop + LIMIT, "{:?} {:?}", endpoint.counters(), endpoint.sizes(READER));
        match endpoint.poll() {
            None => std::thread::yield_now(),
            Some(Event::Connected(READER)) => connected = Some(Instant::now()),
            Some(Event::Sent { .. }) => sender.on_sent(),
            Some(Event::Closed(READER, CloseReason::Graceful)) if closing => break,
            Some(other) => panic!("{other:?}"),
        }
        let Some(since) = connected.map(|c: Instant| c.elapsed()) else { continue };
        if since < READING + stop + READING {
            if sender.send(&mut endpoint, READER) {
                longest = longest.max(accepted.elapsed());
                accepted = Instant::now();
            } else if accepted.elapsed() > SETTLING {
                let now = resident_mib();
                settled = if settled == 0 { now } else { settled };
                stopped = stopped.max(now);
            }
            if since < READING / 2 {
                before = resident_mib();
            }
        } else if !closing {
            closing = true;
            endpoint.close(READER);
        }
    }
    let after = resident_mib();
    // The reader may have to ask again for the last acknowledgement.
    while reader.try_wait().unwrap().is_none() {
        endpoint.poll();
        std::thread::yield_now();
    }
    let (messages, bytes) = (sender.messages, sender.bytes);
    let output = reader.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!(
        "{way}: sent {messages} messages, {bytes} bytes; stopped for {longest:.1?}; resident {before}, stopped \
         {settled} to {stopped}, after {after} MiB\nreader: {}",
        text.lines().find(|l| l.starts_with("read ")).unwrap_or(&text)
    );
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("read {messages} messages, {bytes} bytes")), "{text}");
    assert!(longest > stop * 3 / 4, "nothing has stopped the sender: {longest:?}");
    assert!(stopped <= settled + 2 && stopped < RESIDENT_MAX_MIB, "memory grows while nothing moves");
    assert_eq!(endpoint.cl().stats().shared_sent > messages / 2, shared, "by the wrong way");
}

const SHORT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_reader_stops_for_seconds_over_shared_memory() {
    stop("a_reader_stops_for_seconds_over_shared_memory", true, SHORT);
}

#[test]
fn a_reader_stops_for_seconds_over_the_network() {
    stop("a_reader_stops_for_seconds_over_the_network", false, SHORT);
}

#[test]
#[ignore = "takes a minute"]
fn a_reader_stops_for_a_minute_over_shared_memory() {
    stop("a_reader_stops_for_a_minute_over_shared_memory", true, LONG);
}

#[test]
#[ignore = "takes a minute"]
fn a_reader_stops_for_a_minute_over_the_network() {
    stop("a_reader_stops_for_a_minute_over_the_network", false, LONG);
}
