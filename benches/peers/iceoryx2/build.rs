//! Tells the program which version of iceoryx2 it is built with: the lock file's.

fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let version = lock
        .split_once("name = \"iceoryx2\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("of unknown version");
    println!("cargo::rustc-env=ICEORYX2_VERSION={version}");
}
