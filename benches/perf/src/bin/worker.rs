//! A worker by itself, for this crate's tests.

fn main() {
    ghidrah_perf::worker::on_standard_streams();
}
