//! How the measuring program talks to the two workers of a run: a line of JSON for each message, over a
//! child's standard input and output, or TCP to another host.

use crate::case::Case;
use crate::faults::Injected;
use crate::stats::Figures;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The longest line taken from the other side. The longest sent names 64 addresses.
const LINE_MAX: u64 = 64 << 10;
/// Messages that may wait to be looked at; more are left in the pipe.
const WAITING_MAX: usize = 16;

/// Which end of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Pings, or sends; and measures.
    Active,
    /// Echoes, or receives.
    Passive,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Active => Side::Passive,
            Side::Passive => Side::Active,
        }
    }
}

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Must be this program's own, for case and figures are as it has them.
    pub version: String,
    /// The measurement.
    pub case: Case,
    /// This worker's end of it.
    pub side: Side,
    /// The processor to stay on.
    pub core: Option<usize>,
    /// The address to bind.
    pub bind: IpAddr,
}

/// What a worker has found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The figures; the passive side has none.
    pub figures: Figures,
    /// How messages to the other side have travelled, and why.
    pub via: String,
    /// What was done on purpose to the datagrams of this side; of both, once they are put together.
    pub injected: Injected,
}

/// To a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToWorker {
    /// Open what the task needs, and say [`FromWorker::Ready`].
    Prepare(Box<Task>),
    /// The other end's addresses, one for each of its parties: begin.
    Begin(Vec<SocketAddr>),
    /// End, though there might be more to come.
    Stop,
}

/// From a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromWorker {
    /// All is open, the worker's parties at these addresses.
    Ready(Vec<SocketAddr>),
    /// The workload has ended.
    Done(Box<Outcome>),
    /// It has failed, for this reason.
    Failed(String),
}

/// Why nothing came from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Not in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// It has gone, or sends what is no message.
    #[error("it ended without an answer")]
    Gone,
}

/// One end of the conversation. A thread, asleep nearly always, reads what comes.
pub struct Channel<In> {
    writer: Box<dyn Write + Send>,
    incoming: Receiver<In>,
}

impl<In: DeserializeOwned + Send + 'static> Channel<In> {
    /// A conversation over these two.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Channel<In> {
        let (tell, incoming) = mpsc::sync_channel(WAITING_MAX);
        let mut reader = BufReader::new(reader);
        std::thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                    Ok(n) if n > 0 => {}
                    _ => return,
                }
                let Ok(message) = serde_json::from_slice(&line) else { return };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        Channel { writer: Box::new(writer), incoming }
    }

    /// Says something. That nobody listens shows when the answer does not come.
    pub fn say(&mut self, message: &impl Serialize) {
        let mut line = serde_json::to_vec(message).expect("messages can be written as JSON");
        line.push(b'\n');
        let _ = self.writer.write_all(&line).and_then(|()| self.writer.flush());
    }

    /// What the other side says next, or until `deadline`.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn hear(&self, deadline: Option<Instant>) -> Result<In, Silence> {
        let Some(deadline) = deadline else { return self.incoming.recv().map_err(|_| Silence::Gone) };
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.incoming.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::TimedOut,
            RecvTimeoutError::Disconnected => Silence::Gone,
        })
    }

    /// Calls `end` when the other side says anything more, or hangs up. Nothing can be heard any more.
    pub fn watch(&mut self, end: impl FnOnce() + Send + 'static) {
        // A channel whose sender is gone: what is heard of it is silence.
        let incoming = std::mem::replace(&mut self.incoming, mpsc::channel().1);
        std::thread::spawn(move || {
            let _ = incoming.recv();
            end();
        });
    }
}
