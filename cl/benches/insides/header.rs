use cl::header::{Form, Geometry, Repr};
use cl_base::PeerId;
use criterion::Criterion;
use std::hint::black_box;

/// Bytes of contents in the datagram that is read; they are not looked at.
const CONTENTS_LEN: usize = 64;

pub(crate) fn header(c: &mut Criterion) {
    let repr = Repr {
        source: PeerId::new(1, 0),
        destination: PeerId::new(2, 0),
        message: 7,
        geometry: Geometry::for_message(CONTENTS_LEN, 1 << 16).expect("it is short"),
        form: Form::Plain,
        index: 0,
    };
    let mut datagram = repr.to_bytes().to_vec();
    datagram.resize(datagram.len() + CONTENTS_LEN, 7);
    let mut group = c.benchmark_group("header");
    group.bench_function("encode", |b| b.iter(|| black_box(repr).to_bytes()));
    group
        .bench_function("decode and check", |b| b.iter(|| Repr::parse(black_box(&datagram)).expect("sound")));
    group.finish();
}
