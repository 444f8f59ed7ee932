//! Two network namespaces with a veth pair between them, for tests and measurements of what needs a device.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    /// The address of its device.
    pub(crate) fn ip(self) -> Ipv4Addr {
        match self {
            Side::A => Ipv4Addr::new(10, 77, 0, 1),
            Side::B => Ipv4Addr::new(10, 77, 0, 2),
        }
    }

    /// The name of its device.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Side::A => "veth-a",
            Side::B => "veth-b",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The namespaces; removed when dropped.
pub(crate) struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Makes them and a pair of devices that carry packets of `mtu` bytes.
    ///
    /// # Panics
    /// Without `ip`, or without the privilege to use it.
    pub(crate) fn new(mtu: usize) -> Namespaces {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("cl{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespaces = Namespaces { names: ["a", "b"].map(|side| format!("{id}{side}")) };
        namespaces.names.iter().for_each(|name| drop(ip(&["netns", "add", name])));
        let [a, b] = &namespaces.names;
        let (veth_a, veth_b) = (Side::A.device(), Side::B.device());
        ip(&["link", "add", veth_a, "netns", a, "type", "veth", "peer", "name", veth_b, "netns", b]);
        for side in [Side::A, Side::B] {
            let (name, device) = (namespaces.names[side.index()].as_str(), side.device());
            ip(&["-n", name, "link", "set", "lo", "up"]);
            ip(&["-n", name, "link", "set", device, "mtu", &mtu.to_string(), "up"]);
            ip(&["-n", name, "addr", "add", &format!("{}/24", side.ip()), "dev", device]);
        }
        namespaces
    }

    /// Joins them by another pair of devices like the first; the addresses of its ends.
    #[allow(dead_code, reason = "not every user needs one")]
    pub(crate) fn second_link(&self, mtu: usize) -> [Ipv4Addr; 2] {
        let [a, b] = &self.names;
        ip(&["link", "add", "veth-c", "netns", a, "type", "veth", "peer", "name", "veth-d", "netns", b]);
        let ends = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
        for ((name, device), address) in self.names.iter().zip(["veth-c", "veth-d"]).zip(ends) {
            ip(&["-n", name, "link", "set", device, "mtu", &mtu.to_string(), "up"]);
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", device]);
        }
        ends
    }

    /// Does `work` in the namespace of `side`. Sockets made there stay there, whoever uses them.
    pub(crate) fn within<R: Send>(&self, side: Side, work: impl FnOnce() -> R + Send) -> R {
        let path = format!("/var/run/netns/{}", self.names[side.index()]);
        let namespace = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let done = std::thread::scope(|s| {
            s.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("entering a network namespace needs CAP_SYS_ADMIN: run as root");
                work()
            })
            .join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Changes the longest packet that the device of `side` carries.
    #[allow(dead_code, reason = "not every user does")]
    pub(crate) fn set_mtu(&self, side: Side, mtu: usize) {
        ip(&["-n", &self.names[side.index()], "link", "set", side.device(), "mtu", &mtu.to_string()]);
    }

    /// What `ip -j link` says of the device of `side`.
    #[allow(dead_code, reason = "not every user asks")]
    pub(crate) fn link(&self, side: Side) -> String {
        ip(&["-n", &self.names[side.index()], "-j", "link", "show", "dev", side.device()])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `ip` and returns its output.
fn ip(args: &[&str]) -> String {
    let output = Command::new("ip")
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("ip does not start ({error}); apt-get install iproute2"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {} (must be run as root): {stderr}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
