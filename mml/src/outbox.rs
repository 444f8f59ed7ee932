//! Frames on their way to the communication layer: several that are ready together are handed over together.

use cl::{Parcel, Refusal};
use cl_base::PeerId;
use mml_proto::Body;
use std::io::IoSlice;
use std::net::SocketAddr;

/// Frames handed over at once; what is saved for each is nearly all saved with so many.
const FRAMES_MAX: usize = 16;
/// With so many bytes the frames that wait leave before there are more: of longer ones a system call is the smaller part,
/// and they should leave while they are in the cache.
const BYTES_MAX: usize = 16 << 10;

/// A frame, and where it goes.
struct Slot {
    frame: Vec<u8>,
    to: PeerId,
    addr: Option<SocketAddr>,
    /// What goes behind the frame.
    rest: Option<Body>,
}

impl Slot {
    fn parcel(&self) -> Parcel<'_> {
        let rest = self.rest.as_deref().unwrap_or_default();
        Parcel { to: self.to, addr: self.addr, parts: [IoSlice::new(&self.frame), IoSlice::new(rest)] }
    }
}

/// What became of frames that were handed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// So many cannot be sent, an address being unknown, say: they are as good as lost on the way, and the protocol treats
    /// them so.
    pub(crate) lost: u64,
    /// For the others there is no room now. They stay.
    pub(crate) stalled: bool,
}

/// See the module. Slots are used again, so nothing is allocated for a frame once warm.
#[derive(Default)]
pub(crate) struct Outbox {
    slots: Vec<Slot>,
    /// The first so many are taken.
    taken: usize,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken == FRAMES_MAX || self.bytes >= BYTES_MAX
    }

    /// Where the next frame is written; [`Outbox::add`] takes it. There must be room.
    pub(crate) fn next_frame(&mut self) -> &mut Vec<u8> {
        if self.taken == self.slots.len() {
            self.slots.push(Slot { frame: Vec::new(), to: PeerId::new(0, 0), addr: None, rest: None });
        }
        &mut self.slots[self.taken].frame
    }

    /// Takes the frame that was written: it goes to `to`, at `addr` if given, with `rest` behind it.
    pub(crate) fn add(&mut self, to: PeerId, addr: Option<SocketAddr>, rest: Option<Body>) {
        assert!(self.taken < FRAMES_MAX, "whoever adds asks whether there is room");
        let slot = &mut self.slots[self.taken];
        self.bytes += slot.frame.len() + rest.as_ref().map_or(0, |rest| rest.len());
        (slot.to, slot.addr, slot.rest) = (to, addr, rest);
        self.taken += 1;
    }

    /// Hands all over.
    pub(crate) fn send(&mut self, cl: &mut cl::Endpoint) -> Sent {
        let (mut lost, mut refused) = (0, [false; FRAMES_MAX]);
        let mut told = |place: usize, sent| match sent {
            Ok(()) => {}
            Err(Refusal::Backpressure) => refused[place] = true,
            Err(Refusal::Unresolved | Refusal::TooLong | Refusal::System(_)) => lost += 1,
        };
        match &self.slots[..self.taken] {
            [] => {}
            [one] => {
                let Parcel { to, addr, parts } = one.parcel();
                let parts = if one.rest.is_none() { &parts[..1] } else { &parts[..] };
                told(0, cl.send_parts(to, addr, parts));
            }
            several => {
                let mut parcels = [several[0].parcel(); FRAMES_MAX];
                for (slot, parcel) in several[1..].iter().zip(&mut parcels[1..]) {
                    *parcel = slot.parcel();
                }
                cl.send_each(&parcels[..several.len()], told);
            }
        }
        let taken = std::mem::take(&mut self.taken);
        self.bytes = 0;
        for (place, refused) in refused[..taken].iter().enumerate() {
            if *refused {
                let slot = &self.slots[place];
                self.bytes += slot.frame.len() + slot.rest.as_ref().map_or(0, |rest| rest.len());
                self.slots.swap(self.taken, place);
                self.taken += 1;
            } else {
                self.slots[place].rest = None;
            }
        }
        Sent { lost, stalled: self.taken > 0 }
    }
}
