//! Running other people's programs: output, deadline, end.

use super::PeerError;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The most output taken of a program. What is longer is not the table of figures that was asked for.
const OUTPUT_MAX: u64 = 1 << 20;

/// A process that ends when this is dropped.
pub(super) struct Started {
    child: Child,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command as one would type it.
pub(super) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// `command`, for a process that does not outlive this one, however this one ends.
fn dying_with_us(command: &Command) -> Command {
    let mut dying = Command::new("setpriv");
    dying.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => dying.env(name, value),
            None => dying.env_remove(name),
        };
    }
    dying
}

fn start(command: &mut Command) -> Result<Started, PeerError> {
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(command, "setpriv is missing; apt-get install util-linux"),
        _ => failed(command, error),
    })?;
    Ok(Started { child })
}

fn failed(command: &Command, why: impl ToString) -> PeerError {
    PeerError::Failed { program: show(command), why: why.to_string() }
}

/// Starts a server whose output nobody wants, and waits until it listens at TCP port `port`.
pub(super) fn start_server(command: &mut Command, port: u16, within: Duration) -> Result<Started, PeerError> {
    let mut dying = dying_with_us(command);
    let mut started = start(dying.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let deadline = Instant::now() + within;
    while !listens(port) {
        if let Ok(Some(status)) = started.child.try_wait() {
            return Err(failed(command, format!("the server ended ({status}) before it listened")));
        }
        if Instant::now() >= deadline {
            return Err(failed(command, "the server does not listen"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(started)
}

/// Whether some socket of this host listens at `port`. Looked up, for a connection to try it would be taken
/// for the client.
fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|path| {
        std::fs::read_to_string(path).unwrap_or_default().lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().and_then(|l| l.rsplit(':').next());
            let state = fields.nth(1);
            local.and_then(|p| u16::from_str_radix(p, 16).ok()) == Some(port) && state == Some(LISTEN)
        })
    })
}

/// A TCP port that is free now.
pub(super) fn free_port() -> Option<u16> {
    Some(std::net::TcpListener::bind(("127.0.0.1", 0)).ok()?.local_addr().ok()?.port())
}

/// What a program prints. It is ended if it takes longer than `within`.
pub(super) fn output(command: &mut Command, within: Duration) -> Result<String, PeerError> {
    let mut dying = dying_with_us(command);
    let mut started = start(dying.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let collect = |from: Box<dyn Read + Send>| {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.take(OUTPUT_MAX).read_to_end(&mut bytes);
            let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        told
    };
    let out = collect(Box::new(started.child.stdout.take().expect("it is a pipe")));
    let err = collect(Box::new(started.child.stderr.take().expect("it is a pipe")));
    let Ok(text) = out.recv_timeout(within) else {
        return Err(failed(command, format!("did not end within {} s", within.as_secs())));
    };
    let status = started.child.wait().map_err(|error| failed(command, error))?;
    if status.success() {
        return Ok(text);
    }
    let complaint = err.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    let last = complaint.lines().chain(text.lines()).rfind(|l| !l.trim().is_empty());
    Err(failed(command, format!("{status}: {}", last.unwrap_or("it said nothing").trim())))
}
