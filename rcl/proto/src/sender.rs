use crate::config::Config;
use crate::congestion::{Congestion, RoundTrip};
use crate::wire::{Bitmap, Kind};
use cl_base::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A segment is lost when one sent this many transmissions later has arrived.
const REORDER_MAX: u64 = 3;

/// The sending half of a connection: cuts messages, keeps segments until they are acknowledged.
#[derive(Debug)]
pub(crate) struct Sender {
    segment_len: usize,
    send_buffer: usize,
    /// Messages of which nothing or a part has been cut off: contents and the offset of the rest.
    queue: VecDeque<(Arc<Vec<u8>>, usize)>,
    /// Bytes of messages not acknowledged yet.
    held: usize,
    /// The number of the next segment to be cut.
    next: u64,
    /// The peer takes segments below this.
    limit: u64,
    in_flight: BTreeMap<u64, InFlight>,
    /// Transmissions so far, and the latest of them that is known to have arrived.
    transmissions: u64,
    arrived: u64,
    /// Of these, those to be sent again.
    lost: BTreeSet<u64>,
    /// Of these, those the peer has.
    received: usize,
    fin_wanted: bool,
    fin_sent: bool,
    round_trip: RoundTrip,
    congestion: Congestion,
}

#[derive(Debug)]
struct InFlight {
    kind: Kind,
    message: Arc<Vec<u8>>,
    range: Range<usize>,
    sent_at: Time,
    /// The number of its latest transmission.
    transmission: u64,
    /// Sent more than once, so that an acknowledgement does not tell the round-trip time (Karn).
    again: bool,
    /// The peer has it, by the bitmap.
    received: bool,
}

/// A segment to be sent: its number and where its contents are.
pub(crate) struct Outgoing {
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    pub(crate) message: Arc<Vec<u8>>,
    pub(crate) range: Range<usize>,
}

impl Sender {
    pub(crate) fn new(config: &Config) -> Sender {
        Sender {
            segment_len: config.segment_len.max(1),
            send_buffer: config.send_buffer,
            queue: VecDeque::new(),
            held: 0,
            next: 0,
            limit: 0,
            in_flight: BTreeMap::new(),
            transmissions: 0,
            arrived: 0,
            lost: BTreeSet::new(),
            received: 0,
            fin_wanted: false,
            fin_sent: false,
            round_trip: RoundTrip::new(config.rto_min, config.rto_max),
            congestion: Congestion::new(),
        }
    }

    /// Accepts a message, or hands it back if too much waits already.
    pub(crate) fn push(&mut self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        let held = self.held + message.len().max(1);
        if self.held > 0 && held > self.send_buffer {
            return Err(message);
        }
        self.held = held;
        self.queue.push_back((Arc::new(message), 0));
        Ok(())
    }

    /// Nothing follows what has been accepted.
    pub(crate) fn finish(&mut self) {
        self.fin_wanted = true;
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.fin_wanted
    }

    /// True once everything, the end included, has been acknowledged.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_sent && self.in_flight.is_empty()
    }

    /// The next segment to be sent now.
    pub(crate) fn transmit(&mut self, now: Time) -> Option<Outgoing> {
        let under_way = (self.in_flight.len() - self.received - self.lost.len()) as u64;
        if under_way >= self.congestion.window() {
            return None;
        }
        if let Some(sequence) = self.lost.pop_first() {
            let segment = self.in_flight.get_mut(&sequence).expect("what is lost is in flight");
            self.transmissions += 1;
            (segment.sent_at, segment.again, segment.transmission) = (now, true, self.transmissions);
            let (kind, message) = (segment.kind, Arc::clone(&segment.message));
            return Some(Outgoing { sequence, kind, message, range: segment.range.clone() });
        }
        if self.next >= self.limit {
            return None;
        }
        let (kind, message, range) = self.cut()?;
        let sequence = self.next;
        self.next += 1;
        self.transmissions += 1;
        let segment = InFlight {
            kind,
            message: Arc::clone(&message),
            range: range.clone(),
            sent_at: now,
            transmission: self.transmissions,
            again: false,
            received: false,
        };
        self.in_flight.insert(sequence, segment);
        Some(Outgoing { sequence, kind, message, range })
    }

    /// Cuts the next segment off what waits.
    fn cut(&mut self) -> Option<(Kind, Arc<Vec<u8>>, Range<usize>)> {
        let Some((message, offset)) = self.queue.front_mut() else {
            if !self.fin_wanted || self.fin_sent {
                return None;
            }
            self.fin_sent = true;
            return Some((Kind::Fin, Arc::default(), 0..0));
        };
        let range = *offset..message.len().min(*offset + self.segment_len);
        *offset = range.end;
        let message = Arc::clone(message);
        if range.end < message.len() {
            return Some((Kind::Part, message, range));
        }
        self.queue.pop_front();
        Some((Kind::Last, message, range))
    }

    /// The socket did not take a segment just handed out: it counts as lost, without blame.
    pub(crate) fn not_sent(&mut self, sequence: u64) {
        if self.in_flight.get(&sequence).is_some_and(|s| !s.received) {
            self.lost.insert(sequence);
        }
    }

    /// The peer has all segments below `ack` and those in `bitmap`, and takes those below `limit`. False if
    /// it acknowledges what was never sent.
    pub(crate) fn acknowledge(&mut self, now: Time, ack: u64, bitmap: Option<&Bitmap>, limit: u64) -> bool {
        let newest = bitmap.and_then(|b| b.offsets().next_back()).map_or(ack, |o| ack.saturating_add(2 + o));
        if newest > self.next {
            return false;
        }
        self.limit = self.limit.max(limit);
        let mut acknowledged = 0;
        let mut sample = None;
        while let Some(entry) = self.in_flight.first_entry() {
            if *entry.key() >= ack {
                break;
            }
            let (sequence, segment) = entry.remove_entry();
            self.lost.remove(&sequence);
            if segment.received {
                self.received -= 1;
            } else {
                acknowledged += 1;
                if !segment.again {
                    sample = Some(segment.sent_at);
                    self.arrived = self.arrived.max(segment.transmission);
                }
            }
            if segment.kind == Kind::Last {
                self.held -= segment.message.len().max(1);
            }
        }
        for offset in bitmap.into_iter().flat_map(Bitmap::offsets) {
            let sequence = ack + 1 + offset;
            // An acknowledgement that was overtaken may speak of segments long done with.
            let Some(segment) = self.in_flight.get_mut(&sequence) else { continue };
            if !segment.received {
                segment.received = true;
                self.received += 1;
                self.lost.remove(&sequence);
                acknowledged += 1;
                if !segment.again {
                    sample = Some(segment.sent_at);
                    self.arrived = self.arrived.max(segment.transmission);
                }
            }
        }
        if let Some(sent_at) = sample {
            self.round_trip.sample(now.saturating_since(sent_at));
        }
        if acknowledged > 0 {
            self.round_trip.progress();
            self.congestion.acknowledged(acknowledged);
            self.detect_loss();
        }
        true
    }

    /// Finds segments that later transmissions have overtaken by too much. Of those sent twice it is not
    /// known which copy has arrived, so they tell nothing of others.
    fn detect_loss(&mut self) {
        for (&sequence, segment) in &self.in_flight {
            let overtaken = segment.transmission + REORDER_MAX <= self.arrived;
            if overtaken && !segment.received && self.lost.insert(sequence) {
                self.congestion.lost(sequence, self.next);
            }
        }
    }

    /// When to give up waiting for acknowledgements, if any are awaited.
    pub(crate) fn deadline(&self) -> Time {
        let oldest = self.in_flight.iter().find(|(s, f)| !f.received && !self.lost.contains(s));
        oldest.map_or(Time::MAX, |(_, f)| f.sent_at + self.round_trip.timeout())
    }

    /// The deadline has passed: all that was sent a time-out ago is taken as lost.
    pub(crate) fn on_deadline(&mut self, now: Time) {
        if now < self.deadline() {
            return;
        }
        let timeout = self.round_trip.timeout();
        for (&sequence, segment) in &self.in_flight {
            if !segment.received && now.saturating_since(segment.sent_at) >= timeout {
                self.lost.insert(sequence);
            }
        }
        self.round_trip.back_off();
        self.congestion.timed_out(self.next);
    }

    /// True if there is something to send and the peer does not take it.
    pub(crate) fn is_blocked_by_peer(&self) -> bool {
        let waiting = !self.queue.is_empty() || (self.fin_wanted && !self.fin_sent);
        waiting && self.next >= self.limit && self.in_flight.is_empty()
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> std::time::Duration {
        self.round_trip.timeout()
    }

    /// An answer did not come.
    pub(crate) fn back_off(&mut self) {
        self.round_trip.back_off();
    }
}
