//! What buffers registered with io_uring gain for UDP: a datagram is sent over loopback and received, by one thread, with
//! plain calls, with io_uring's operations on ordinary memory, and with those on registered memory. There is no sleep in
//! it and no second thread, so the difference is the operations' own.
//!
//! `cargo bench -p cl --bench fixed_buffers`
#![allow(unsafe_code)]

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

const SIZES: [usize; 4] = [64, 1024, 8 << 10, 60 << 10];
/// Every way in turn, so often; the medians count.
const ROUNDS: usize = 15;
/// Datagrams of a way in a round.
const DATAGRAMS: u32 = 4_000;
/// Where the received datagram goes: a buffer of its own.
const INTO: u16 = 1;
const FROM: u16 = 0;

/// A way to send, or to receive, a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `send`, `recv`
    Call,
    /// `IORING_OP_WRITE`, `IORING_OP_READ`
    Ring,
    /// `IORING_OP_WRITE_FIXED`, `IORING_OP_READ_FIXED`
    Registered,
}

struct World {
    ring: IoUring,
    sender: UdpSocket,
    receiver: UdpSocket,
    buffers: [Box<[u8]>; 2],
}

impl World {
    fn new() -> World {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.connect(receiver.local_addr().expect("bound")).expect("a route");
        receiver.connect(sender.local_addr().expect("bound")).expect("a route");
        let mut buffers = [vec![1u8; SIZES[3]].into_boxed_slice(), vec![2u8; SIZES[3]].into_boxed_slice()];
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4).expect("io_uring");
        let memory =
            buffers.each_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() });
        // SAFETY: the buffers outlive the ring, which is declared before them, and are not reallocated.
        unsafe { ring.submitter().register_buffers(&memory) }.expect("memory that may be locked");
        World { ring, sender, receiver, buffers }
    }

    fn operate(&mut self, entry: &squeue::Entry, len: usize) {
        // SAFETY: the buffer that the entry names lives as long as the ring, and nobody touches it until the operation has
        // completed, below.
        unsafe { self.ring.submission().push(entry) }.expect("room for one");
        self.ring.submit_and_wait(1).expect("a completion");
        let done = self.ring.completion().next().expect("there is one");
        assert_eq!(usize::try_from(done.result()), Ok(len), "{}", done.result());
    }

    fn send(&mut self, way: Way, len: usize) {
        let (fd, at, n) = (Fd(raw(&self.sender)), self.buffers[0].as_ptr(), len as u32);
        match way {
            Way::Call => assert_eq!(self.sender.send(&self.buffers[0][..len]).expect("room"), len),
            Way::Ring => self.operate(&opcode::Write::new(fd, at, n).build(), len),
            Way::Registered => self.operate(&opcode::WriteFixed::new(fd, at, n, FROM).build(), len),
        }
    }

    fn receive(&mut self, way: Way, len: usize) {
        let (fd, at, n) = (Fd(raw(&self.receiver)), self.buffers[1].as_mut_ptr(), SIZES[3] as u32);
        match way {
            Way::Call => assert_eq!(self.receiver.recv(&mut self.buffers[1]).expect("it is there"), len),
            Way::Ring => self.operate(&opcode::Read::new(fd, at, n).build(), len),
            Way::Registered => self.operate(&opcode::ReadFixed::new(fd, at, n, INTO).build(), len),
        }
    }

    /// Nanoseconds for a datagram there.
    fn run(&mut self, (send, receive): (Way, Way), len: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..DATAGRAMS {
            self.send(send, len);
            self.receive(receive, len);
        }
        start.elapsed().as_nanos() as f64 / f64::from(DATAGRAMS)
    }
}

fn raw(socket: &UdpSocket) -> RawFd {
    socket.as_raw_fd()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    use Way::{Call, Registered, Ring};
    let ways = [
        (Call, Call),
        (Ring, Call),
        (Registered, Call),
        (Call, Ring),
        (Call, Registered),
        (Registered, Registered),
    ];
    let mut world = World::new();
    println!(
        "a datagram sent and received, medians of {ROUNDS} rounds of {DATAGRAMS}, and the rounds' ratio"
    );
    for len in SIZES {
        let rounds: Vec<Vec<f64>> =
            (0..ROUNDS).map(|_| ways.iter().map(|way| world.run(*way, len)).collect()).collect();
        let ratio = |of: usize, by: usize| median(rounds.iter().map(|round| round[of] / round[by]));
        println!("{len} B: calls {:.0} ns", median(rounds.iter().map(|round| round[0])));
        println!(
            "  sent by the ring {:.3}x that, from registered memory {:.3}x the ring's",
            ratio(1, 0),
            ratio(2, 1)
        );
        println!(
            "  received by the ring {:.3}x that, into registered memory {:.3}x the ring's",
            ratio(3, 0),
            ratio(4, 3)
        );
        println!("  both registered {:.3}x the calls", ratio(5, 0));
    }
}
