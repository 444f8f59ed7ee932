//! The processor time of one ordered operation, all parties in one thread: a group that tolerates one fault
//! against the same code unreplicated (one member), requests and votes signed with Ed25519.

use benches::group::Group;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn ordering(c: &mut Criterion) {
    let mut bench = c.benchmark_group("order one operation");
    bench.throughput(Throughput::Elements(1));
    for (name, members) in [("unreplicated", 1), ("3 active + 1 spare", 4)] {
        for bytes in [64, 1024] {
            let mut group = Group::new(members);
            let before = group.messages();
            group.order(vec![7; bytes]);
            println!("{name}, {bytes} B: {} messages an operation", group.messages() - before);
            bench.bench_function(format!("{name}/{bytes} B"), |b| {
                b.iter(|| group.order(black_box(vec![7; bytes])));
            });
        }
    }
    bench.finish();
}

criterion_group!(benches, ordering);
criterion_main!(benches);
