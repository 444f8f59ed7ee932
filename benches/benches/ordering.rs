//! The processor time of one ordered operation, all parties in one thread: a group that tolerates one fault
//! against the same code unreplicated (one member), with signatures (Ed25519) and with MACs.

use benches::group::{Authentication, Group};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use replication_proto::Guarantee;
use std::hint::black_box;

fn ordering(c: &mut Criterion) {
    let mut bench = c.benchmark_group("order one operation");
    bench.throughput(Throughput::Elements(1));
    use Guarantee::{Byzantine, ByzantineTentative, CrashOnly};
    let cases = [
        ("unreplicated, signed", 1, 1, Authentication::Signed, Byzantine),
        ("unreplicated, MACs", 1, 1, Authentication::Macs, Byzantine),
        ("3 active + 1 spare, signed", 4, 3, Authentication::Signed, Byzantine),
        ("3 active + 1 spare, MAC votes", 4, 3, Authentication::MacVotes, Byzantine),
        ("3 active + 1 spare, MACs", 4, 3, Authentication::Macs, Byzantine),
        ("4 active, MACs", 4, 4, Authentication::Macs, Byzantine),
        ("2 phases, 3 active + 1 spare, MACs", 4, 3, Authentication::Macs, ByzantineTentative),
        ("1 phase, 3 active + 1 spare, MACs", 4, 3, Authentication::Macs, CrashOnly),
    ];
    for (name, members, active, authentication, guarantee) in cases {
        for bytes in [64, 1024] {
            let mut group = Group::with(members, active, authentication, guarantee);
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

/// Throughput with a full window of one client.
fn saturated(c: &mut Criterion) {
    let mut bench = c.benchmark_group("order a window of operations");
    let cases = [
        ("unreplicated, MACs", 1, 1, Authentication::Macs),
        ("3 active + 1 spare, signed", 4, 3, Authentication::Signed),
        ("3 active + 1 spare, MACs", 4, 3, Authentication::Macs),
    ];
    for (name, members, active, authentication) in cases {
        let mut group = Group::new(members, active, authentication);
        let op = vec![7; 64];
        bench.throughput(Throughput::Elements(group.order_window(&op)));
        bench.bench_function(format!("{name}/64 B"), |b| b.iter(|| group.order_window(black_box(&op))));
    }
    bench.finish();
}

criterion_group!(benches, ordering, saturated);
criterion_main!(benches);
