//! What runs on the machine, from /proc.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A living process of a cluster; zombies do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, arguments separated by blanks.
    pub command: String,
    /// The node that it belongs to by its environment; none for the hardcore and the user's commands.
    pub node: Option<u32>,
}

impl Process {
    /// Sends it a signal. That it has ended is no error.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// All processes of the cluster whose process groups are named `group` and whose directory is `dir`: those
/// that carry its mark in their environment, and those that name its directory on their command line.
pub(crate) fn of_cluster(group: &str, dir: &Path) -> Vec<Process> {
    let mark = format!("GHIDRAH_NODE={group}:node");
    let dir = dir.to_str().expect("the directory's name is UTF-8");
    let pids = fs::read_dir("/proc").expect("there is /proc").flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let node = environ
                .split(|b| *b == 0)
                .find_map(|v| std::str::from_utf8(v).ok()?.strip_prefix(&mark)?.parse().ok());
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments: Vec<_> = command.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            let ours = node.is_some() || arguments.iter().any(|a| a == dir);
            ours.then(|| Process { pid, command: arguments.join(" ").trim_end().to_owned(), node })
        })
        .collect()
}

/// The control groups of a cluster that are left.
pub(crate) fn control_groups(group: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let directories = mounts.lines().filter_map(|l| {
        let mut fields = l.split(' ');
        let (_, directory, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| Path::new(directory).join(format!("ghidrah-{group}")))
    });
    directories.filter(|d| d.exists()).collect()
}

/// Where the UDP sockets of a process over IPv4 are bound.
pub fn udp_sockets(pid: u32) -> Vec<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let ours: BTreeSet<String> = links
        .filter_map(|fd| {
            let target = fs::read_link(fd.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap_or_default();
    let bound = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let at = |ip: u32, port| SocketAddr::from((ip.to_ne_bytes(), port));
        let socket = at(u32::from_str_radix(ip, 16).ok()?, u16::from_str_radix(port, 16).ok()?);
        ours.contains(*fields.get(9)?).then_some(socket)
    };
    table.lines().filter_map(bound).collect()
}

/// The processor time that these processes' living threads have used so far.
pub fn cpu_time(processes: &[Process]) -> Duration {
    Duration::from_nanos(processes.iter().map(|p| nanoseconds_of(p.pid)).sum())
}

/// The first field of each thread's schedstat. /proc/PID/stat counts in steps of 10 ms, too coarse for a
/// dozen processes that hardly run.
fn nanoseconds_of(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_thread = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum()
}
