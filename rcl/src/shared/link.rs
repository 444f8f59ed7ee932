//! One connection: what it has to send, and what it has carried.

use super::word::{Kind, WORD_LEN, word};
use cl::for_rcl::{self, ChannelId};
use cl::{Buf, Endpoint};
use cl_base::PeerId;
use rcl_proto::{Refusal, Sink, Source, TransferId};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a large message that go in one buffer: as many as fit one of 64 KiB with what is in front.
const CHUNK_LEN: usize = (64 << 10) - CHUNK_HEAD_LEN;
const CHUNK_HEAD_LEN: usize = WORD_LEN + 16;
/// Pieces of large messages put into the rings between two looks at what has arrived.
const CHUNKS_PER_ROUND: usize = 16;

/// What is to be sent in its order.
pub(super) enum Waiting {
    Message(Buf),
    Word(Kind, [u64; 2]),
}

pub(super) struct Outgoing {
    pub(super) source: Box<dyn Source>,
    pub(super) at: u64,
    pub(super) flows: bool,
}

pub(super) struct Incoming {
    pub(super) sink: Box<dyn Sink>,
    pub(super) at: u64,
    pub(super) len: u64,
}

/// What a connection has carried and what it holds, for observers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    /// Times that the ring, or what may wait for an answer, was full.
    pub(crate) stalls: u64,
}

impl Traffic {
    #[inline]
    pub(super) fn sent(&mut self, len: u64) {
        self.messages_sent += 1;
        self.bytes_sent += len;
    }

    #[inline]
    pub(super) fn received(&mut self, len: u64) {
        self.messages_received += 1;
        self.bytes_received += len;
    }

    pub(crate) fn add(&mut self, other: Traffic) {
        self.messages_sent += other.messages_sent;
        self.bytes_sent += other.bytes_sent;
        self.messages_received += other.messages_received;
        self.bytes_received += other.bytes_received;
        self.stalls += other.stalls;
    }
}

/// What was accepted for a peer that then did not want to be called over shared memory.
pub(crate) struct Refused {
    pub(crate) peer: PeerId,
    pub(crate) waiting: Vec<Accepted>,
    /// Nothing follows.
    pub(crate) closing: bool,
}

pub(crate) enum Accepted {
    Message(Buf),
    Announced(TransferId, Box<dyn Source>),
}

pub(super) struct Link {
    pub(super) peer: PeerId,
    /// Where we send, and the number we send with.
    pub(super) out: ChannelId,
    pub(super) out_number: u32,
    /// The same of the peer, once it is known.
    pub(super) from: Option<(ChannelId, u32)>,
    /// The connection is our call, which the peer has answered.
    pub(super) is_our_call: bool,
    /// A call of the peer that counts if it refuses ours, or ours ends before that call is taken back.
    pub(super) other: Option<(ChannelId, u32)>,
    pub(super) waiting: VecDeque<Waiting>,
    /// Bytes of messages in there.
    pub(super) waiting_bytes: usize,
    /// The last message was refused for want of room.
    pub(super) stalled: bool,
    pub(super) traffic: Traffic,
    pub(super) fin_wanted: bool,
    pub(super) fin_queued: bool,
    pub(super) fin_received: bool,
    pub(super) outgoing: BTreeMap<u64, Outgoing>,
    pub(super) next_transfer: u64,
    pub(super) announced: BTreeMap<u64, u64>,
    pub(super) incoming: BTreeMap<u64, Incoming>,
}

impl Link {
    pub(super) fn new(peer: PeerId, out: ChannelId, out_number: u32, from: Option<(ChannelId, u32)>) -> Link {
        Link {
            peer,
            out,
            out_number,
            from,
            is_our_call: false,
            other: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stalled: false,
            traffic: Traffic::default(),
            fin_wanted: false,
            fin_queued: false,
            fin_received: false,
            outgoing: BTreeMap::new(),
            next_transfer: 0,
            announced: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.from.is_some()
    }

    pub(super) fn note_refused(&mut self, reason: Refusal) {
        self.traffic.stalls += u64::from(reason == Refusal::Backpressure && !self.stalled);
        self.stalled |= reason == Refusal::Backpressure;
    }

    /// What was accepted for a peer that has never answered, in its order.
    pub(super) fn into_refused(mut self) -> Refused {
        let accepted = |waiting| match waiting {
            Waiting::Message(buf) => Some(Accepted::Message(buf)),
            Waiting::Word(Kind::Announce, [id, _]) => {
                let transfer = self.outgoing.remove(&id)?;
                Some(Accepted::Announced(TransferId(id), transfer.source))
            }
            Waiting::Word(..) => None,
        };
        let waiting = self.waiting.into_iter().filter_map(accepted).collect();
        Refused { peer: self.peer, waiting, closing: self.fin_wanted }
    }

    /// Puts what waits into the ring, in its order. True if nothing is left.
    pub(super) fn pump(&mut self, cl: &mut Endpoint) -> bool {
        if !self.is_open() {
            return false;
        }
        loop {
            let sent = match self.waiting.pop_front() {
                None => break,
                Some(Waiting::Message(buf)) => {
                    let len = buf.len();
                    match send_message(cl, self.out, self.out_number, buf) {
                        Ok(()) => {
                            self.waiting_bytes -= len;
                            continue;
                        }
                        Err(error) => Waiting::Message(error.buf),
                    }
                }
                Some(Waiting::Word(kind, numbers)) => {
                    match send_word(cl, self.out, self.out_number, kind, numbers) {
                        Ok(()) => continue,
                        Err(_) => Waiting::Word(kind, numbers),
                    }
                }
            };
            self.waiting.push_front(sent);
            return false;
        }
        self.pump_transfers(cl) && {
            if self.fin_wanted && !self.fin_queued && self.outgoing.is_empty() {
                self.fin_queued = true;
                self.waiting.push_back(Waiting::Word(Kind::Fin, [0; 2]));
                return self.pump(cl);
            }
            true
        }
    }

    /// Puts pieces of large messages into the ring. True if nothing is left.
    pub(super) fn pump_transfers(&mut self, cl: &mut Endpoint) -> bool {
        for _ in 0..CHUNKS_PER_ROUND {
            let Some((id, transfer)) = self.outgoing.iter_mut().find(|(_, t)| t.flows) else { return true };
            let left = transfer.source.len() - transfer.at;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_LEN);
            let Ok(mut buf) = cl.alloc(CHUNK_HEAD_LEN + len) else { return false };
            buf.extend_from_slice(&word(Kind::Chunk, self.out_number));
            buf.extend_from_slice(&id.to_le_bytes());
            buf.extend_from_slice(&transfer.at.to_le_bytes());
            buf.extend_streaming(transfer.source.chunk(transfer.at, len));
            if for_rcl::send(cl, self.out, buf).is_err() {
                return false;
            }
            transfer.at += len as u64;
            transfer.flows = transfer.at < transfer.source.len();
        }
        false
    }
}

#[inline]
pub(super) fn send_message(
    cl: &mut Endpoint,
    to: ChannelId,
    number: u32,
    mut buf: Buf,
) -> Result<(), cl::SendError> {
    if buf.headroom() < WORD_LEN {
        // A buffer received as a part of something longer, say.
        let Ok(mut copy) = cl.alloc(buf.len()) else {
            return Err(cl::SendError { buf, reason: cl::Refusal::Backpressure });
        };
        copy.extend_from_slice(&buf);
        buf = copy;
    }
    buf.prepend(WORD_LEN).copy_from_slice(&word(Kind::Message, number));
    for_rcl::send(cl, to, buf).map_err(|mut error| {
        error.buf.advance(WORD_LEN);
        error
    })
}

pub(super) fn send_word(
    cl: &mut Endpoint,
    to: ChannelId,
    number: u32,
    kind: Kind,
    numbers: [u64; 2],
) -> Result<(), cl::Refusal> {
    let numbers = [numbers[0].to_le_bytes(), numbers[1].to_le_bytes()];
    let word = u64::from_le_bytes(word(kind, number));
    for_rcl::send_copy(cl, to, Some(word), &numbers.as_flattened()[..kind.numbers_len()])
}
