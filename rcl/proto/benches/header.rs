//! What a frame's header costs to write and to read, with each kind of checksum, in front of a short and a long body.
//!
//! `cargo bench -p rcl-proto --bench header`
//!
//! The header is private to the crate: it is compiled here from the same file.

#[allow(dead_code, unreachable_pub, reason = "the header needs one number of it")]
#[path = "../src/config.rs"]
mod config;
#[allow(dead_code, unused_imports, unreachable_pub, reason = "of the file only the header is measured")]
#[path = "../src/wire.rs"]
mod wire;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use wire::{Checksum, HEADER_LEN, Header, Kind};

const LENS: [usize; 2] = [64, 8 << 10];

fn header(c: &mut Criterion) {
    let header = Header {
        kind: Kind::Whole,
        answer: false,
        copy: 0,
        source: 1,
        destination: 2,
        sequence: 3,
        ack: 4,
        grant: 5,
        delay: 6,
    };
    for (name, checksum) in [("none", Checksum::None), ("header", Checksum::Header), ("full", Checksum::Full)]
    {
        let mut group = c.benchmark_group(format!("header, checksum {name}"));
        for len in LENS {
            let body = vec![7; len];
            let mut head = [0; HEADER_LEN];
            group.bench_function(BenchmarkId::new("encode", format!("{len} B")), |b| {
                b.iter(|| black_box(header).write(black_box(&mut head), &body, checksum));
            });
            let frame = [&head[..], &body].concat();
            group.bench_function(BenchmarkId::new("decode and check", format!("{len} B")), |b| {
                b.iter(|| Header::parse(black_box(&frame), checksum).expect("it is sound"));
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
    targets = header
}
criterion_main!(benches);
