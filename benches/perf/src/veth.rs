//! Two network namespaces joined by a pair of virtual Ethernet devices, for what needs a device: each side of
//! a measurement runs in one of them.
//!
//! The namespaces have no names and live as long as the two processes that hold them, which end when this
//! program does, however it ends. Nothing is left behind.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

/// Bytes of a packet: as much as fits one 4 KiB page with what AF_XDP and the devices need beside it.
const PACKET_MAX: usize = 3400;
/// IP and UDP headers, of either version.
const HEADERS: usize = 48;
/// Bytes of a datagram.
pub const MTU: usize = PACKET_MAX - HEADERS;

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
const DEVICES: [&str; 2] = ["perf-a", "perf-b"];

/// The two namespaces, that of the active side first.
#[derive(Debug)]
pub struct Veth {
    holders: [Child; 2],
}

impl Veth {
    /// Makes them.
    ///
    /// # Errors
    /// A sentence that says what is missing: mostly, the privilege.
    pub fn new() -> Result<Veth, String> {
        let veth = Veth { holders: [hold()?, hold()?] };
        let [a, b] = [0, 1].map(|i| veth.holders[i].id().to_string());
        run(&[
            "ip", "link", "add", DEVICES[0], "netns", &a, "type", "veth", "peer", "name", DEVICES[1],
            "netns", &b,
        ])?;
        for (i, address) in ADDRESSES.iter().enumerate() {
            let ip = |args: &[&str]| {
                let inside = veth.inside(i);
                let inside = inside.iter().map(|word| word.to_str().expect("ASCII"));
                run(&inside.chain(["ip"]).chain(args.iter().copied()).collect::<Vec<_>>())
            };
            ip(&["link", "set", "lo", "up"])?;
            ip(&["link", "set", DEVICES[i], "mtu", &PACKET_MAX.to_string(), "up"])?;
            ip(&["addr", "add", &format!("{address}/24"), "dev", DEVICES[i]])?;
        }
        Ok(veth)
    }

    /// What goes before a command to run it in the namespace of side `i`.
    pub fn inside(&self, i: usize) -> Vec<OsString> {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holders[i].id())]
            .map(OsString::from)
            .into()
    }

    /// The addresses of the two sides.
    pub fn addresses() -> [IpAddr; 2] {
        ADDRESSES.map(IpAddr::V4)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A process in a network namespace of its own that ends when its standard input does.
fn hold() -> Result<Child, String> {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("unshare: {error}; apt-get install util-linux"))?;
    // Its first line says that it is inside.
    let mut line = String::new();
    let inside = BufReader::new(child.stdout.take().expect("it is a pipe")).read_line(&mut line);
    if matches!(inside, Ok(1..)) {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err("network namespaces for a veth pair cannot be made: run as root, with CAP_SYS_ADMIN".to_owned())
}

fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| format!("{}: {error}; apt-get install iproute2 util-linux", words[0]))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} (must be run as root): {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
