//! How long it takes from the call of a peer until a message has gone to it and its answer is there, and how long until the
//! connection has ended gracefully: over UDP, through shared memory, and TCP beside them. One thread calls, again and
//! again, another answers, each spinning on a processor of its own. Needs two processors.
//!
//! `cargo bench -p rcl --bench connect`

use cl_base::PeerId;
use core_affinity::CoreId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CALLER: PeerId = PeerId::new(1, 0);
const CALLEE: PeerId = PeerId::new(2, 0);
const MESSAGE: [u8; 8] = *b"question";
/// Each in turn, so often; the medians count.
const ROUNDS: usize = 5;
/// Connections one after the other in a round.
const CONNECTIONS: usize = 500;
/// Between two of them: a party answers 10,000 strangers in a second from one address, and no more.
const PAUSE: Duration = Duration::from_micros(200);

/// Microseconds until the answer is there, and until the end is.
type Took = [f64; 2];

fn pin(number: usize) {
    assert!(core_affinity::set_for_current(CoreId { id: number }), "processor {number} is not to be had");
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls `call` again and again while another thread runs `answer` until it is told to stop. Medians.
fn run(mut call: impl FnMut() -> Took, answer: impl FnOnce(&AtomicBool) + Send) -> Took {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            pin(1);
            answer(&stop);
        });
        pin(0);
        let mut all = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            all.push(call());
            let pause = Instant::now();
            while pause.elapsed() < PAUSE {
                std::hint::spin_loop();
            }
        }
        stop.store(true, Ordering::Relaxed);
        [0, 1].map(|figure| median(all.iter().map(|took| took[figure])))
    })
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64 / 1000.0
}

fn by_rcl(shared: bool) -> Took {
    let open = |me| {
        let mut config = EndpointConfig::new(me, local());
        if !shared {
            config.cl.shared_memory = cl::SharedMemory::Never;
        }
        Endpoint::open(config).expect("an endpoint")
    };
    let (mut caller, mut callee) = (open(CALLER), open(CALLEE));
    let addr = callee.local_addr();
    let call = move || {
        let start = Instant::now();
        caller.connect(CALLEE, addr);
        let buf = caller.alloc_copy(&MESSAGE).expect("a buffer");
        caller.send(CALLEE, buf).expect("a new connection has room");
        loop {
            match caller.poll() {
                Some(Event::Message { .. }) => break,
                Some(Event::Closed(_, why)) => panic!("not connected: {why}"),
                _ => {}
            }
        }
        let answered = micros(start);
        caller.close(CALLEE);
        loop {
            if let Some(Event::Closed(_, why)) = caller.poll() {
                assert_eq!(why, CloseReason::Graceful);
                return [answered, micros(start)];
            }
        }
    };
    run(call, move |stop| {
        while !stop.load(Ordering::Relaxed) {
            if let Some(Event::Message { from, buf }) = callee.poll() {
                callee.send(from, buf).expect("room for an answer");
                callee.flush();
            }
        }
    })
}

/// Reads without sleeping until `into` is full. False if the peer has closed.
fn read_all(stream: &mut TcpStream, into: &mut [u8], stop: &AtomicBool) -> io::Result<bool> {
    let mut done = 0;
    while done < into.len() && !stop.load(Ordering::Relaxed) {
        match stream.read(&mut into[done..]) {
            Ok(0) => return Ok(false),
            Ok(len) => done += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn by_tcp() -> Took {
    let listener = TcpListener::bind(local()).expect("a socket");
    listener.set_nonblocking(true).expect("it may spin");
    let addr = listener.local_addr().expect("it is bound");
    let never = AtomicBool::new(false);
    let call = || {
        let start = Instant::now();
        let mut stream = TcpStream::connect(addr).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(&MESSAGE).expect("a new connection has room");
        stream.set_nonblocking(true).expect("it may spin");
        assert!(read_all(&mut stream, &mut [0; MESSAGE.len()], &never).expect("an answer"));
        let answered = micros(start);
        stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
        assert!(!read_all(&mut stream, &mut [0], &never).expect("the other's end"));
        [answered, micros(start)]
    };
    run(call, |stop| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else { continue };
            stream.set_nodelay(true).expect("a socket");
            stream.set_nonblocking(true).expect("it may spin");
            let mut message = MESSAGE;
            while read_all(&mut stream, &mut message, stop).expect("a message")
                && !stop.load(Ordering::Relaxed)
            {
                stream.write_all(&message).expect("room for an answer");
            }
        }
    })
}

fn main() {
    println!(
        "call, 8 B there and back; call, the same, graceful end; microseconds, medians of {ROUNDS} rounds \
         of {CONNECTIONS} connections"
    );
    let rounds: Vec<[Took; 3]> = (0..ROUNDS).map(|_| [by_rcl(false), by_rcl(true), by_tcp()]).collect();
    let of = |who: usize, figure: usize| median(rounds.iter().map(|round| round[who][figure]));
    for (who, name) in ["rcl over UDP", "rcl through shared memory", "TCP"].into_iter().enumerate() {
        let ratio = |figure| median(rounds.iter().map(|round| round[who][figure] / round[2][figure]));
        let [first, second] = [0, 1].map(|figure| (of(who, figure), ratio(figure)));
        println!("{name}: {:.1} ({:.2}x TCP); {:.1} ({:.2}x)", first.0, first.1, second.0, second.1);
    }
}
