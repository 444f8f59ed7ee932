//! A group of processes on loopback. This test is a program of its own, because its processes are members, too.

#[path = "../examples/processes.rs"]
#[allow(dead_code)]
mod example;

fn main() {
    if let Err(error) = example::main() {
        panic!("{error}");
    }
}
