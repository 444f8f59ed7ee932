use crate::config::Config;
use crate::congestion::Congestion;
use crate::memory::{Memory, Source};
use crate::round_trip::RoundTrip;
use crate::wire::{Header, Kind, PACKED_LEN_LEN, bits};
use cl_base::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Messages, packs and the like that are kept at once: their buffers are the pool's, of which there are a
/// few hundred of a kind.
const ITEMS_MAX: usize = 1024;
/// Transfers announced and not done with. The peer keeps as many.
pub(crate) const TRANSFERS_MAX: usize = 1024;
/// Messages of so many bytes are sent from where they lie, if they do not travel alone. Buffers of shorter ones are used again while they
/// are in the sender's cache, where a copy costs less than writing them anew after the other end has read them.
const LASTING_LEN_MIN: usize = 256 << 10;
/// The usual size of a page.
const PAGE: usize = 4096;
/// From so many bytes on a piece of a message is whole pages: an eighth of it is lost to that at most.
const PAGES_FROM: usize = 8 * PAGE;
/// How far a segment may be overtaken before it is lost: quarters of the round-trip time (RFC 8985),
/// one more for each time it turned out to have been late only, up to a whole round trip and more.
const REORDER_QUARTERS_MAX: u32 = 8;
/// Time-outs in a row after which everything under way counts as lost.
const TIMEOUTS_TO_COLLAPSE: u32 = 3;

/// The sending half of a connection: cuts messages, keeps segments until they are acknowledged.
pub(crate) struct Sender<B> {
    segment_len: usize,
    small_len: usize,
    pack_len: usize,
    send_buffer: usize,
    /// What has been accepted and not been acknowledged wholly; the first has number `items_base`.
    items: VecDeque<Item<B>>,
    items_base: u64,
    /// The first item of which not everything has been cut, and how much of it has.
    cut_item: u64,
    cut_at: usize,
    /// Bytes that `items` hold.
    held: usize,
    /// Segments from `una`, the first one not acknowledged, to the newest one.
    segments: VecDeque<Segment>,
    una: u64,
    /// The peer takes segments below this.
    limit: u64,
    /// Numbers of segments to be sent again; those acknowledged meanwhile are passed over.
    lost: VecDeque<u64>,
    /// Segments that are under way as far as is known.
    under_way: usize,
    /// Segments beyond `una` that the peer has.
    received: usize,
    /// Transmissions so far, and the newest of them that is known to have arrived.
    sent: u64,
    arrived: u64,
    /// When the latter was sent.
    arrived_sent_at: Time,
    reorder_quarters: u32,
    /// When a segment overtaken becomes a lost one.
    reorder_at: Time,
    /// When the wait for an acknowledgement began.
    waiting_since: Time,
    /// Segments that may be sent beyond the window: those that ask after a time-out.
    probes: usize,
    /// The window has kept something from being sent.
    limited: bool,
    /// Want of credit has, since something was last sent.
    stalled: bool,
    fin_pushed: bool,
    fin_cut: bool,
    transfers: BTreeMap<u64, Transfer>,
    next_transfer: u64,
    /// Transfers the peer has accepted, of which more is to be cut, in turn.
    flowing: VecDeque<u64>,
    /// The next segment is one of a transfer, if there is one: they take turns with the messages.
    transfers_turn: bool,
    round_trip: RoundTrip,
    congestion: Congestion,
    pub(crate) tally: Tally,
}

/// What a sender has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) copies: u64,
    pub(crate) segments: u64,
    pub(crate) retransmissions: u64,
    pub(crate) spurious: u64,
    pub(crate) timeouts: u64,
    pub(crate) credit_stalls: u64,
}

impl Tally {
    pub(crate) fn sent(&mut self, len: u64) {
        self.messages += 1;
        self.bytes += len;
    }
}

enum Item<B> {
    Whole(B),
    Pack(B),
    Long(B),
    Announce { id: u64, len: u64 },
    Accept(u64),
    Reject(u64),
    Fin,
}

struct Transfer {
    source: Box<dyn Source>,
    /// What has been cut.
    at: u64,
}

struct Segment {
    content: Content,
    state: State,
    sent_at: Time,
    /// The number of its newest transmission; 0 if that was none.
    order: u64,
    /// How often it was sent before. If it was, an acknowledgement does not tell the round-trip time (Karn).
    copy: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Lost,
    /// The peer has it, by the bitmap.
    Received,
}

/// What a segment is made of.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Bytes of an item, the last of it or not.
    Item { kind: Kind, item: u64, start: u32, len: u32, last: bool },
    /// Bytes of a transfer.
    Chunk { id: u64, at: u64, len: u32 },
}

impl Content {
    fn kind(&self) -> Kind {
        match self {
            Content::Item { kind, .. } => *kind,
            Content::Chunk { .. } => Kind::Chunk,
        }
    }
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    /// Nothing more can be sent before an acknowledgement comes.
    pub(crate) answer: bool,
    /// How often it was sent before.
    pub(crate) copy: u8,
    /// See [`Transmit::lasting`](crate::Transmit::lasting).
    pub(crate) lasting: bool,
    content: Content,
    /// What stands between the header and the contents, of the length that its kind has.
    pub(crate) numbers: [u64; 2],
}

/// The peer acknowledges what was never sent, or the like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation;

impl<B: std::ops::Deref<Target = [u8]>> Sender<B> {
    pub(crate) fn new(config: &Config) -> Sender<B> {
        let segment_len = config.segment_len.max(crate::wire::NUMBERS_LEN_MAX + 1);
        let pack_len = config.pack_len.min(segment_len);
        Sender {
            segment_len,
            small_len: config.small_len.min(pack_len / 2).min(usize::from(u16::MAX)),
            pack_len,
            send_buffer: config.send_buffer,
            items: VecDeque::new(),
            items_base: 0,
            cut_item: 0,
            cut_at: 0,
            held: 0,
            segments: VecDeque::new(),
            una: 0,
            limit: 0,
            lost: VecDeque::new(),
            under_way: 0,
            received: 0,
            sent: 0,
            arrived: 0,
            arrived_sent_at: Time::ZERO,
            reorder_quarters: 1,
            reorder_at: Time::MAX,
            waiting_since: Time::ZERO,
            probes: 0,
            limited: false,
            stalled: false,
            fin_pushed: false,
            fin_cut: false,
            transfers: BTreeMap::new(),
            next_transfer: 0,
            flowing: VecDeque::new(),
            transfers_turn: false,
            round_trip: RoundTrip::new(config.rto_min, config.rto_max),
            congestion: Congestion::new(config.window.min(crate::config::WINDOW_MAX), segment_len),
            tally: Tally::default(),
        }
    }

    /// The number of the next segment to be cut.
    pub(crate) fn next(&self) -> u64 {
        self.una + self.segments.len() as u64
    }

    /// True if nothing was ever accepted for sending.
    pub(crate) fn has_said_nothing(&self) -> bool {
        self.items_end() == 0 && self.next() == 0
    }

    fn items_end(&self) -> u64 {
        self.items_base + self.items.len() as u64
    }

    /// Accepts a message, or hands it back if too much waits already. True if it is worth sending at once:
    /// what comes next would not share its segment.
    pub(crate) fn push<M: Memory<Buf = B>>(&mut self, memory: &M, message: B) -> Result<bool, B> {
        let len = message.len();
        let small = len <= self.small_len;
        let uncut = self.cut_item < self.items_end();
        if small && uncut && self.pack(memory, &message) {
            self.tally.sent(len as u64);
            return Ok(false);
        }
        let held = self.held + len.max(1);
        if (self.held > 0 && held > self.send_buffer) || self.items.len() >= ITEMS_MAX {
            return Err(message);
        }
        self.held = held;
        self.tally.sent(len as u64);
        let item = if len <= self.segment_len { Item::Whole(message) } else { Item::Long(message) };
        self.items.push_back(item);
        Ok(!small || uncut)
    }

    /// Puts a copy of a small message into the segment of the one before it. False if there is no room.
    fn pack<M: Memory<Buf = B>>(&mut self, memory: &M, message: &B) -> bool {
        let last = self.items.back_mut().expect("an item waits");
        let append = |pack: &mut B, message: &[u8]| {
            M::append(pack, &(message.len() as u16).to_le_bytes());
            M::append(pack, message);
        };
        match last {
            Item::Pack(pack) if pack.len() + PACKED_LEN_LEN + message.len() <= self.pack_len => {
                append(pack, message);
                self.tally.copies += 1;
                true
            }
            Item::Whole(first)
                if first.len() <= self.small_len
                    && first.len() + message.len() + 2 * PACKED_LEN_LEN <= self.pack_len
                    && self.held + self.pack_len <= self.send_buffer =>
            {
                let Some(mut pack) = memory.alloc(self.pack_len) else { return false };
                append(&mut pack, first);
                append(&mut pack, message);
                self.held = self.held - first.len().max(1) + self.pack_len;
                self.tally.copies += 2;
                *last = Item::Pack(pack);
                true
            }
            _ => false,
        }
    }

    /// Announces a large message, or hands it back if too many are announced.
    pub(crate) fn announce(&mut self, source: Box<dyn Source>) -> Result<u64, Box<dyn Source>> {
        if self.transfers.len() >= TRANSFERS_MAX || self.items.len() >= ITEMS_MAX {
            return Err(source);
        }
        let id = self.next_transfer;
        self.next_transfer += 1;
        self.items.push_back(Item::Announce { id, len: source.len() });
        self.transfers.insert(id, Transfer { source, at: 0 });
        Ok(id)
    }

    /// Answers an announcement of the peer's; there are never more than [`TRANSFERS_MAX`] of them.
    pub(crate) fn answer(&mut self, id: u64, accepted: bool) {
        self.items.push_back(if accepted { Item::Accept(id) } else { Item::Reject(id) });
    }

    /// The peer takes a transfer. True if that was all, as there is nothing in it.
    pub(crate) fn accepted(&mut self, id: u64) -> Result<bool, Violation> {
        let transfer = self.transfers.get(&id).ok_or(Violation)?;
        if transfer.at > 0 || self.flowing.contains(&id) {
            return Err(Violation);
        }
        if transfer.source.is_empty() {
            self.transfers.remove(&id);
            return Ok(true);
        }
        self.flowing.push_back(id);
        Ok(false)
    }

    /// The peer does not.
    pub(crate) fn rejected(&mut self, id: u64) -> Result<(), Violation> {
        match self.transfers.get(&id) {
            Some(t) if t.at == 0 && !self.flowing.contains(&id) => {
                self.transfers.remove(&id);
                Ok(())
            }
            _ => Err(Violation),
        }
    }

    /// Nothing follows what has been accepted.
    pub(crate) fn finish(&mut self) {
        self.fin_pushed = true;
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.fin_pushed
    }

    /// True once everything, the end included, has been sent.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.fin_cut
    }

    /// True once everything, the end included, has been acknowledged.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_cut && self.is_idle()
    }

    /// True if nothing waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.items.is_empty() && self.segments.is_empty() && self.transfers.is_empty()
    }

    /// The next segment to be sent now.
    pub(crate) fn transmit(&mut self, now: Time) -> Option<Outgoing> {
        let open = self.under_way < self.congestion.window() || self.probes > 0;
        while let Some(&sequence) = self.lost.front() {
            let Some(segment) = self.segment(sequence).filter(|s| s.state == State::Lost) else {
                self.lost.pop_front();
                continue;
            };
            if !open {
                self.limited = true;
                return None;
            }
            // Unless the socket has not taken it the last time.
            let again = segment.order > 0;
            segment.copy = segment.copy.saturating_add(u8::from(again));
            self.lost.pop_front();
            self.tally.retransmissions += u64::from(again);
            return Some(self.send(now, sequence));
        }
        if self.next() >= self.limit {
            if self.has_uncut() && !self.stalled {
                self.stalled = true;
                self.tally.credit_stalls += 1;
            }
            return None;
        }
        if !open {
            self.limited |= self.has_uncut();
            return None;
        }
        let content = self.cut()?;
        self.stalled = false;
        let sequence = self.next();
        let segment = Segment { content, state: State::Lost, sent_at: now, order: 0, copy: 0 };
        self.segments.push_back(segment);
        self.tally.segments += 1;
        Some(self.send(now, sequence))
    }

    fn segment(&mut self, sequence: u64) -> Option<&mut Segment> {
        self.segments.get_mut(usize::try_from(sequence.checked_sub(self.una)?).ok()?)
    }

    /// Notes that a segment is on its way now.
    fn send(&mut self, now: Time, sequence: u64) -> Outgoing {
        self.sent += 1;
        let probing = self.probes > 0;
        self.probes = self.probes.saturating_sub(1);
        if self.under_way == 0 {
            self.waiting_since = now;
        }
        self.under_way += 1;
        let order = self.sent;
        let segment = self.segment(sequence).expect("it is kept");
        (segment.state, segment.sent_at, segment.order) = (State::UnderWay, now, order);
        let (content, copy) = (segment.content, segment.copy);
        let full = self.under_way >= self.congestion.window() || self.next() >= self.limit;
        let numbers = match content {
            Content::Chunk { id, at, .. } => [id, at],
            Content::Item { kind, item, .. } => match &self.items[(item - self.items_base) as usize] {
                Item::Long(buf) if kind == Kind::First => [buf.len() as u64, 0],
                Item::Announce { id, len } => [*id, *len],
                Item::Accept(id) | Item::Reject(id) => [*id, 0],
                _ => [0; 2],
            },
        };
        let answer = full || probing;
        let lasting = self.is_lasting(&content);
        Outgoing { sequence, kind: content.kind(), answer, copy, lasting, content, numbers }
    }

    /// The contents of a segment.
    pub(crate) fn body(&self, outgoing: &Outgoing) -> &[u8] {
        match outgoing.content {
            Content::Chunk { id, at, len } => self.transfers[&id].source.chunk(at, len as usize),
            Content::Item { item, start, len, .. } => match &self.items[(item - self.items_base) as usize] {
                Item::Whole(b) | Item::Pack(b) | Item::Long(b) => &b[start as usize..(start + len) as usize],
                _ => &[],
            },
        }
    }

    /// Whether the contents stay where they are until they are acknowledged, or [renounced](Sender::renounce), and are
    /// better not copied. A message that travels alone is there sooner if it is, for while one piece is copied here another is
    /// at the other end; but one that must travel alone is much longer than caches.
    fn is_lasting(&self, content: &Content) -> bool {
        let Content::Item { kind: Kind::First | Kind::Next, item, .. } = content else { return false };
        match &self.items[(item - self.items_base) as usize] {
            Item::Long(buf) => {
                let alone = self.items.len() == 1 && buf.len() <= self.send_buffer;
                buf.len() >= LASTING_LEN_MIN && !alone
            }
            _ => false,
        }
    }

    /// Gives up the messages of which not everything has been acknowledged.
    pub(crate) fn renounce<M: Memory<Buf = B>>(&mut self) {
        for (number, item) in (self.items_base..).zip(self.items.drain(..)) {
            match item {
                Item::Long(buf) if buf.len() >= LASTING_LEN_MIN && number <= self.cut_item => {
                    M::renounce(buf)
                }
                _ => {}
            }
        }
    }

    fn has_uncut(&self) -> bool {
        let fin = self.fin_pushed && !self.fin_cut && self.transfers.is_empty();
        self.cut_item < self.items_end() || !self.flowing.is_empty() || fin
    }

    /// Cuts the next segment off what waits.
    fn cut(&mut self) -> Option<Content> {
        let messages = self.cut_item < self.items_end();
        if !self.flowing.is_empty() && (self.transfers_turn || !messages) {
            self.transfers_turn = false;
            return self.cut_transfer();
        }
        self.transfers_turn = true;
        if !messages {
            if !self.fin_pushed || !self.transfers.is_empty() || self.fin_cut {
                return None;
            }
            self.items.push_back(Item::Fin);
            self.fin_cut = true;
        }
        let item = self.cut_item;
        let whole = |kind, len: usize| Content::Item { kind, item, start: 0, len: len as u32, last: true };
        let content = match &self.items[(item - self.items_base) as usize] {
            Item::Whole(b) => whole(Kind::Whole, b.len()),
            Item::Pack(b) => whole(Kind::Pack, b.len()),
            Item::Announce { .. } => whole(Kind::Announce, 0),
            Item::Accept(_) => whole(Kind::Accept, 0),
            Item::Reject(_) => whole(Kind::Reject, 0),
            Item::Fin => whole(Kind::Fin, 0),
            Item::Long(b) => {
                let kind = if self.cut_at == 0 { Kind::First } else { Kind::Next };
                let start = self.cut_at;
                let end = b.len().min(start + piece_len(self.segment_len - kind.numbers_len()));
                self.cut_at = end;
                let (last, len) = (end == b.len(), (end - start) as u32);
                let content = Content::Item { kind, item, start: start as u32, len, last };
                if !last {
                    return Some(content);
                }
                content
            }
        };
        self.cut_item += 1;
        self.cut_at = 0;
        Some(content)
    }

    fn cut_transfer(&mut self) -> Option<Content> {
        let id = self.flowing.pop_front()?;
        let transfer = self.transfers.get_mut(&id).expect("what flows is there");
        let at = transfer.at;
        let room = (self.segment_len - Kind::Chunk.numbers_len()) as u64;
        let len = room.min(transfer.source.len() - at);
        transfer.at += len;
        if transfer.at < transfer.source.len() {
            self.flowing.push_back(id);
        }
        Some(Content::Chunk { id, at, len: len as u32 })
    }

    /// The socket did not take a segment just handed out: it counts as lost, without blame.
    pub(crate) fn not_sent(&mut self, sequence: u64) {
        if let Some(segment) = self.segment(sequence).filter(|s| s.state == State::UnderWay) {
            (segment.state, segment.order) = (State::Lost, 0);
            self.under_way -= 1;
            self.lost.push_front(sequence);
        }
    }

    /// Takes in what a frame says of arrivals: all segments below `header.ack`, and those in `bitmap`.
    /// Transfers that have arrived wholly are added to `arrived`.
    pub(crate) fn acknowledge(
        &mut self,
        now: Time,
        header: &Header,
        bitmap: &[u8],
        arrived: &mut VecDeque<u64>,
    ) -> Result<(), Violation> {
        let (ack, next) = (header.ack, self.next());
        if ack > next {
            return Err(Violation);
        }
        // One that was overtaken by another may still grant more, but says nothing new of arrivals.
        let grant = u64::from(header.grant).min(crate::config::WINDOW_MAX as u64);
        self.limit = self.limit.max(ack + grant);
        if ack < self.una {
            return Ok(());
        }
        let mut newly = Newly::default();
        while self.una < ack {
            let segment = self.segments.pop_front().expect("segments below the next one are kept");
            self.una += 1;
            if segment.state == State::Received {
                self.received -= 1;
            } else {
                self.note_arrival(now, &segment, &mut newly);
            }
            self.release(&segment.content, arrived);
        }
        for offset in bits(bitmap) {
            let sequence = ack + 1 + offset;
            let Some(&mut Segment { state, content, sent_at, order, copy }) = self.segment(sequence) else {
                return Err(Violation);
            };
            if state != State::Received {
                self.note_arrival(now, &Segment { content, state, sent_at, order, copy }, &mut newly);
                self.segment(sequence).expect("just seen").state = State::Received;
                self.received += 1;
            }
        }
        if newly.count == 0 {
            return Ok(());
        }
        self.waiting_since = now;
        self.round_trip.progress();
        let mut rtt = None;
        if newly.order > self.arrived {
            (self.arrived, self.arrived_sent_at) = (newly.order, newly.sent_at);
            if !newly.again {
                let held = Duration::from_nanos(header.delay.into());
                let sample = now.saturating_since(newly.sent_at).saturating_sub(held);
                self.round_trip.sample(sample);
                self.congestion.sample(now, sample);
                rtt = Some(sample);
            }
        }
        let limited = std::mem::take(&mut self.limited);
        self.congestion.acknowledged(newly.count, newly.order, self.sent, rtt, limited);
        self.detect_loss(now);
        Ok(())
    }

    /// A segment has arrived of which that was not known.
    fn note_arrival(&mut self, now: Time, segment: &Segment, newly: &mut Newly) {
        newly.count += 1;
        if segment.state == State::UnderWay {
            self.under_way -= 1;
        }
        // It cannot have been the second copy that arrived, if that was sent a moment ago.
        let least = self.congestion.base().unwrap_or_default();
        let late = segment.state == State::Lost
            || (segment.copy > 0 && now.saturating_since(segment.sent_at) < least * 3 / 4);
        if late {
            self.reorder_quarters = (self.reorder_quarters + 1).min(REORDER_QUARTERS_MAX);
        } else if segment.order > newly.order {
            (newly.order, newly.sent_at, newly.again) = (segment.order, segment.sent_at, segment.copy > 0);
        }
    }

    /// A segment is acknowledged for good: gives up what it held.
    fn release(&mut self, content: &Content, arrived: &mut VecDeque<u64>) {
        match *content {
            Content::Item { last: false, .. } => {}
            Content::Item { item, .. } => {
                assert_eq!(item, self.items_base, "items are done with in their order");
                self.held -= match self.items.pop_front().expect("it is kept") {
                    Item::Whole(b) | Item::Long(b) => b.len().max(1),
                    Item::Pack(_) => self.pack_len,
                    Item::Announce { .. } | Item::Accept(_) | Item::Reject(_) | Item::Fin => 0,
                };
                self.items_base += 1;
            }
            Content::Chunk { id, at, len } => {
                let all = self.transfers[&id].source.len();
                if at + u64::from(len) == all {
                    self.tally.sent(all);
                    self.transfers.remove(&id);
                    arrived.push_back(id);
                }
            }
        }
    }

    /// Finds segments that later transmissions have overtaken by too long a time (RACK, RFC 8985).
    fn detect_loss(&mut self, now: Time) {
        self.reorder_at = Time::MAX;
        let Some(smooth) = self.round_trip.smooth().filter(|_| self.under_way > 0 && self.received > 0)
        else {
            return;
        };
        let least = self.congestion.base().unwrap_or(smooth);
        let patience = self.round_trip.latest().max(smooth) + least * self.reorder_quarters / 4;
        let (mut beyond, mut lost) = (self.received, 0);
        for (segment, sequence) in self.segments.iter_mut().zip(self.una..) {
            // There is nothing behind the last one that has arrived.
            match segment.state {
                State::Received => beyond -= 1,
                State::UnderWay if segment.order < self.arrived => {
                    let due = segment.sent_at + patience;
                    if due <= now {
                        segment.state = State::Lost;
                        self.lost.push_back(sequence);
                        lost += 1;
                    } else {
                        self.reorder_at = self.reorder_at.min(due);
                    }
                }
                _ => {}
            }
            if beyond == 0 {
                break;
            }
        }
        self.under_way -= lost;
        self.congestion.lost(lost as u64);
    }

    /// Notes a measurement of the round-trip time made before anything was sent: the network may be as empty
    /// then as it never is again, and who does not know that takes the queues of others for the way.
    pub(crate) fn sample(&mut self, now: Time, rtt: Duration) {
        self.round_trip.sample(rtt);
        self.congestion.sample(now, rtt);
    }

    /// When [`Sender::on_deadline`] is to be called.
    pub(crate) fn deadline(&self) -> Time {
        self.reorder_at.min(self.timeout_at())
    }

    fn timeout_at(&self) -> Time {
        if self.under_way > 0 { self.waiting_since + self.round_trip.timeout() } else { Time::MAX }
    }

    /// The deadline has passed: sends the oldest segment again, for the answer tells what has arrived. After
    /// several in vain all that is under way is taken as lost.
    pub(crate) fn on_deadline(&mut self, now: Time) {
        if self.reorder_at <= now {
            self.detect_loss(now);
        }
        if self.timeout_at() > now {
            return;
        }
        self.tally.timeouts += 1;
        self.round_trip.back_off();
        self.waiting_since = now;
        self.probes = 1;
        let all = self.round_trip.backoff() >= TIMEOUTS_TO_COLLAPSE;
        if all {
            self.congestion.collapse();
        }
        let under_way = self.segments.iter_mut().zip(self.una..).filter(|(s, _)| s.state == State::UnderWay);
        for (n, (segment, sequence)) in under_way.take(if all { usize::MAX } else { 1 }).enumerate() {
            segment.state = State::Lost;
            self.under_way -= 1;
            self.lost.insert(n, sequence);
        }
    }

    /// True if there is something to send and the peer does not take it.
    pub(crate) fn is_blocked_by_peer(&self) -> bool {
        self.segments.is_empty() && self.next() >= self.limit && self.has_uncut()
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.round_trip.timeout()
    }

    /// An answer did not come.
    pub(crate) fn back_off(&mut self) {
        self.round_trip.back_off();
    }

    /// The smoothed round-trip time, zero before the first measurement.
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip.smooth().unwrap_or_default()
    }

    /// The peer says how many segments have come again needlessly. It cannot be more than we have sent.
    pub(crate) fn note_needless(&mut self, count: u64) {
        self.tally.spurious = self.tally.spurious.max(count.min(self.tally.retransmissions));
    }

    /// Sizes for the metrics: bytes held, items not sent wholly, segments under way, the window.
    pub(crate) fn sizes(&self) -> (usize, usize, usize, usize) {
        let waiting = (self.items_end() - self.cut_item) as usize + self.flowing.len();
        (self.held, waiting, self.under_way, self.congestion.window())
    }
}

/// How many bytes of a long message are sent together where there is room for so many: whole pages if they are
/// several, for these can be sent from where they are ([`Memory::renounce`]).
fn piece_len(room: usize) -> usize {
    if room < PAGES_FROM { room } else { room - room % PAGE }
}

/// What an acknowledgement tells for the first time.
#[derive(Default)]
struct Newly {
    count: u64,
    /// The newest transmission among the arrivals.
    order: u64,
    sent_at: Time,
    again: bool,
}
