//! What a message costs in the protocol, without a network: two parties hand each other their frames.
//!
//! `cargo bench -p rcl --bench connection`

use cl_base::{PeerId, Time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rcl_proto::{Checksum, Config, Event, Heap, Node};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);

struct Pair {
    now: Time,
    a: Node<Heap>,
    b: Node<Heap>,
}

/// Hands over what `from` has to send.
fn carry(now: Time, me: PeerId, from: &mut Node<Heap>, to: &mut Node<Heap>) {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    while let Some(t) = from.poll_transmit(now) {
        let mut frame = Vec::with_capacity(t.head.len() + t.body.len());
        frame.extend_from_slice(t.head);
        frame.extend_from_slice(t.body);
        to.on_frame(now, me, addr, frame);
    }
}

impl Pair {
    fn new(checksum: Checksum) -> Pair {
        let config = Config { checksum, ..Config::new(64_920) };
        let node = || Node::new(config.clone(), &[7; 32], Heap);
        let mut pair = Pair { now: Time::from_nanos(1_000_000_000), a: node(), b: node() };
        pair.a.connect(pair.now, B, SocketAddr::from(([127, 0, 0, 1], 2)));
        for _ in 0..3 {
            pair.round(|_| {});
        }
        pair
    }

    /// Frames each way, and what B reads.
    fn round(&mut self, mut read: impl FnMut(Vec<u8>)) {
        self.now += Duration::from_micros(10);
        carry(self.now, A, &mut self.a, &mut self.b);
        while let Some(event) = self.b.poll_event() {
            if let Event::Message { buf, .. } = event {
                read(buf);
            }
        }
        carry(self.now, B, &mut self.b, &mut self.a);
        while self.a.poll_event().is_some() {}
        self.b.on_deadline(self.now);
        self.a.on_deadline(self.now);
    }
}

fn connection(c: &mut Criterion) {
    for (name, checksum) in [("full", Checksum::Full), ("header", Checksum::Header)] {
        let mut group = c.benchmark_group(format!("checksum {name}"));
        // Longer ones would measure how the allocator fetches their memory and gives it back.
        for (case, len, count) in [("1 of 64 B", 64, 1), ("64 of 64 B", 64, 64), ("1 of 64 KiB", 64 << 10, 1)]
        {
            let mut pair = Pair::new(checksum);
            group.throughput(Throughput::Elements(count));
            group.bench_function(case, |b| {
                b.iter(|| {
                    for _ in 0..count {
                        pair.a.send(B, vec![7; len]).expect("there is room");
                    }
                    let mut received = 0;
                    while received < count {
                        pair.round(|m| {
                            black_box(m);
                            received += 1;
                        });
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots();
    targets = connection
}
criterion_main!(benches);
