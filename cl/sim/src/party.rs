use cl_base::{PeerId, Time};

/// Something that sends and receives datagrams and has deadlines: one end of a protocol, or a model of it.
///
/// After any call that may change something the [`World`](crate::World) calls [`Party::drain`] and then
/// [`Party::next_deadline`].
pub trait Party {
    /// A datagram has arrived. The network may have changed any byte of it.
    fn on_datagram(&mut self, now: Time, from: PeerId, bytes: Vec<u8>);

    /// The deadline has come.
    fn on_deadline(&mut self, now: Time);

    /// When [`Party::on_deadline`] wants to be called; [`Time::MAX`] for never. After `on_deadline` it must
    /// be later than before, at the latest after a few more calls.
    fn next_deadline(&self) -> Time;

    /// Hands over what there is to send.
    fn drain(&mut self, now: Time, out: &mut Outbox);
}

impl<P: Party + ?Sized> Party for Box<P> {
    fn on_datagram(&mut self, now: Time, from: PeerId, bytes: Vec<u8>) {
        (**self).on_datagram(now, from, bytes);
    }

    fn on_deadline(&mut self, now: Time) {
        (**self).on_deadline(now);
    }

    fn next_deadline(&self) -> Time {
        (**self).next_deadline()
    }

    fn drain(&mut self, now: Time, out: &mut Outbox) {
        (**self).drain(now, out);
    }
}

/// Datagrams on their way out of a party.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) datagrams: Vec<(PeerId, Vec<u8>)>,
}

impl Outbox {
    /// Sends a datagram.
    pub fn send(&mut self, to: PeerId, bytes: impl Into<Vec<u8>>) {
        self.datagrams.push((to, bytes.into()));
    }
}
