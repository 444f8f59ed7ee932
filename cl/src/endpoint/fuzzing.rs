//! Arbitrary datagrams for the half of an endpoint that takes them in.

use super::network::{Ended, Network};
use crate::clock::Clock;
use crate::counters::Tally;
use crate::header::{HEADER_LEN, MESSAGE_LEN_MAX, Repr};
use crate::pool::{Pool, PoolConfig, SizeClass};
use crate::transport::{Recv, Transport, TransportKind};
use cl_base::PeerId;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;

const ME: PeerId = PeerId::new(1, 0);
const MTU: usize = 1500;
/// Few buffers, so that they are used up now and then.
const CLASSES: [SizeClass; 3] = [
    SizeClass { capacity: 2048, count: 32 },
    SizeClass { capacity: 64 << 10, count: 4 },
    SizeClass { capacity: MESSAGE_LEN_MAX, count: 2 },
];

/// Hands out the input, cut into datagrams: two bytes say how long one is and how it begins.
struct Feed {
    input: Vec<u8>,
    at: usize,
}

impl Feed {
    fn take(&mut self, len: usize) -> &[u8] {
        let from = self.at;
        self.at = self.input.len().min(from + len);
        &self.input[from..self.at]
    }
}

impl Transport for Feed {
    fn kind(&self) -> TransportKind {
        TransportKind::Mio
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn receive_buffer(&self) -> usize {
        MTU
    }

    fn send(&mut self, _to: SocketAddr, _parts: &[IoSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn recv(&mut self, pool: &Pool) -> Recv {
        let &[low, high] = self.take(2) else { return Recv::Empty };
        let len = usize::from(u16::from_le_bytes([low, high & 7])).min(MTU);
        // A few senders.
        let from = SocketAddr::from(([127, 0, 0, 1], 2 + u16::from(high >> 3 & 3)));
        let Ok(mut buf) = pool.alloc(MTU) else { return Recv::Starved };
        buf.extend_from_slice(self.take(len));
        if high & 0x80 != 0 && buf.len() >= HEADER_LEN {
            // What a fuzzer would have to find anew for each datagram: the magic number, version and addressee.
            buf[..3].copy_from_slice(&[b'G', b'C', 1]);
            buf[16..24].copy_from_slice(&ME.to_u64().to_le_bytes());
        }
        Recv::Datagram(from, buf)
    }

    fn readable_fd(&self) -> RawFd {
        unreachable!("nobody sleeps")
    }

    fn writable_fd(&self) -> RawFd {
        unreachable!("nobody sleeps")
    }

    fn prepare_park(&mut self, _pool: &Pool) -> bool {
        true
    }

    #[cfg(test)]
    fn refuse_sends(&self, _count: u32) {}
}

thread_local! {
    static POOL: Pool = Pool::new(&PoolConfig { classes: CLASSES.to_vec() }).expect("memory for some buffers");
}

/// Headers, packed messages and fragments.
pub fn datagrams(input: &[u8]) {
    if let Ok(repr) = Repr::parse(input) {
        assert_eq!(repr.to_bytes()[..], input[..HEADER_LEN]);
    }
    POOL.with(|pool| {
        let feed = Box::new(Feed { input: input.to_vec(), at: 0 });
        let mut network = Network::new(ME, MTU, pool.clone(), Clock::new(), feed);
        let mut tally = Tally::default();
        loop {
            match network.recv(&mut tally) {
                Some(received) => {
                    assert!(received.buf.len() <= MESSAGE_LEN_MAX);
                    std::hint::black_box(
                        received.buf.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)),
                    );
                }
                None if network.ended == Ended::More => {}
                None => break,
            }
        }
        drop(network);
        for SizeClass { capacity, count } in CLASSES {
            assert_eq!(pool.available(capacity), count, "a buffer is lost");
        }
    });
}
