//! Where an attempt's output goes from this node, and how much of it is under way.

use crate::class::Class;
use crate::link::Link;
use crate::output::{Chunk, IN_FLIGHT_MAX, Message, Stream};
use cl::runtime::Core;
use cl_base::{PeerId, Time, codec};
use cmm_core::api::{Attempt, Output};
use mml::{SendError, Sequence};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// A user's terminal is asked this often whether it is still there.
const PROBE_PERIOD: Duration = Duration::from_secs(5);

/// What the sink has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The user's terminal is gone.
    ListenerGone,
    /// The output cannot be kept; the sentence is for the user.
    Lost(String),
}

enum Target {
    /// A file that this agent writes: it has the job's first rank.
    File(File, String),
    /// Another party: the user's terminal, or the agent that writes the file.
    Peer { to: PeerId, is_user: bool },
    /// Nobody wants it any more.
    Nowhere,
}

/// See the module.
pub(super) struct Sink {
    attempt: Attempt,
    target: Target,
    /// Messages that have not arrived yet.
    in_flight: BTreeSet<Sequence>,
    /// Bytes passed on, and bytes of them that the other side is done with.
    sent: u64,
    consumed: u64,
    /// What the message layer had no room for.
    backlog: VecDeque<Chunk>,
    probe_at: Option<Time>,
}

impl Sink {
    /// Opens the way for the output of `attempt`; `lead` is the agent of its first rank, which writes the
    /// file if there is one.
    pub(super) fn open<M: Send + 'static>(
        cx: &mut Core<M>,
        link: &mut Link,
        attempt: Attempt,
        output: &Output,
        lead: PeerId,
    ) -> (Sink, Option<Trouble>) {
        let (target, trouble) = match output {
            Output::File { path } if lead == link.me() => {
                let path = path.replace("%j", &attempt.job.to_string());
                match OpenOptions::new().create(true).append(true).open(&path) {
                    Ok(file) => (Target::File(file, path), None),
                    Err(error) => (Target::Nowhere, Some(cannot_write(&path, &error))),
                }
            }
            Output::File { .. } => (Target::Peer { to: lead, is_user: false }, None),
            Output::Stream { to, address } => match address.parse() {
                Ok(address) => {
                    cx.endpoint_mut().resolve(*to, address);
                    link.connect(cx, *to);
                    (Target::Peer { to: *to, is_user: true }, None)
                }
                Err(_) => {
                    let text = format!("{address:?} is no address for the output");
                    (Target::Nowhere, Some(Trouble::Lost(text)))
                }
            },
        };
        let probe_at = matches!(target, Target::Peer { is_user: true, .. }).then(|| cx.now() + PROBE_PERIOD);
        let sink = Sink {
            attempt,
            target,
            in_flight: BTreeSet::new(),
            sent: 0,
            consumed: 0,
            backlog: VecDeque::new(),
            probe_at,
        };
        (sink, trouble)
    }

    /// Whether more may be read from the ranks.
    pub(super) fn has_room(&self) -> bool {
        self.sent - self.consumed < IN_FLIGHT_MAX as u64 && self.backlog.is_empty()
    }

    /// Whether everything that was written has been consumed or given up.
    pub(super) fn is_drained(&self) -> bool {
        self.sent == self.consumed && self.backlog.is_empty()
    }

    /// When [`Sink::on_timer`] is needed.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.probe_at
    }

    /// Sees whether the user's terminal is still there.
    pub(super) fn on_timer<M: Send + 'static>(
        &mut self,
        cx: &mut Core<M>,
        link: &mut Link,
    ) -> Option<Trouble> {
        self.probe_at.filter(|at| *at <= cx.now())?;
        self.probe_at = Some(cx.now() + PROBE_PERIOD);
        if !self.in_flight.is_empty() {
            return None; // Their fate will tell.
        }
        self.write(cx, link, Chunk { attempt: self.attempt, rank: 0, stream: Stream::Out, bytes: Vec::new() })
    }

    /// Passes a chunk on.
    pub(super) fn write<M: Send + 'static>(
        &mut self,
        cx: &mut Core<M>,
        link: &mut Link,
        chunk: Chunk,
    ) -> Option<Trouble> {
        match &mut self.target {
            Target::Nowhere => None,
            Target::File(file, path) => {
                let error = file.write_all(&chunk.bytes).err()?;
                let trouble = cannot_write(path, &error);
                self.target = Target::Nowhere;
                Some(trouble)
            }
            Target::Peer { .. } => {
                self.backlog.push_back(chunk);
                self.retry(cx, link)
            }
        }
    }

    /// Tries again what the message layer had no room for.
    pub(super) fn retry<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link) -> Option<Trouble> {
        let Target::Peer { to, .. } = self.target else { return None };
        while let Some(chunk) = self.backlog.front() {
            let (len, message) = (chunk.bytes.len(), codec::encode(&Message::Chunk(chunk.clone())));
            match link.send_acknowledged(cx, to, Class::Output, &message) {
                Ok(sequence) => {
                    self.in_flight.insert(sequence);
                    self.sent += len as u64;
                    self.backlog.pop_front();
                }
                // What is under way makes room when it arrives.
                Err(SendError::Backpressure(_)) if !self.in_flight.is_empty() => return None,
                Err(error) => {
                    tracing::warn!(attempt = %chunk.attempt, %error, "output could not be sent");
                    return self.lose();
                }
            }
        }
        None
    }

    /// Whether messages to `peer` are ours to account for.
    pub(super) fn goes_to(&self, peer: PeerId) -> bool {
        matches!(self.target, Target::Peer { to, .. } if to == peer)
    }

    /// A message has arrived; true if it was one of ours.
    pub(super) fn delivered(&mut self, sequence: Sequence) -> bool {
        self.in_flight.remove(&sequence)
    }

    /// The other side is done with so many bytes.
    pub(super) fn consumed(&mut self, total: u64) {
        // A wrong number can only hurt the one that says it.
        self.consumed = total.clamp(self.consumed, self.sent);
    }

    /// A message was given up: the other side is gone.
    pub(super) fn failed(&mut self, sequence: Sequence) -> Option<Trouble> {
        if self.in_flight.contains(&sequence) { self.lose() } else { None }
    }

    fn lose(&mut self) -> Option<Trouble> {
        self.in_flight.clear();
        self.backlog.clear();
        self.consumed = self.sent;
        self.probe_at = None;
        match std::mem::replace(&mut self.target, Target::Nowhere) {
            Target::Peer { is_user: true, .. } => Some(Trouble::ListenerGone),
            Target::Peer { to, .. } => Some(Trouble::Lost(format!(
                "the output could not be delivered to the agent {to} that writes it"
            ))),
            Target::File(..) | Target::Nowhere => None,
        }
    }
}

fn cannot_write(path: &str, error: &std::io::Error) -> Trouble {
    let dir = Path::new(path).parent().map_or(String::new(), |d| d.display().to_string());
    let next = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            format!("free space in {dir} or choose another file with --output, then submit again")
        }
        std::io::ErrorKind::NotFound => {
            format!("make the directory {dir} or choose another file with --output")
        }
        _ => "choose another file with --output".to_owned(),
    };
    Trouble::Lost(format!("cannot write the output to {path}: {error}; {next}"))
}
