//! Sends that go to many, and sends that leave at once.

use crate::{Body, Delivery, Mml, Outgoing, SendError, Sequence, Transmit};
use cl_base::{PeerId, Time};

/// A frame that may leave now: where it goes, and what goes behind it.
pub type Leaving = (Transmit, Option<Body>);

impl Mml {
    /// Sends `body` to each of `peers`, and tells of each what became of that. The body is kept and, if long, hashed only
    /// once, and then handed to all of them without being copied.
    pub fn send_group<'b>(
        &mut self,
        now: Time,
        peers: &[PeerId],
        delivery: Delivery,
        class: u8,
        body: impl Into<Outgoing<'b>>,
        mut told: impl FnMut(PeerId, Result<Sequence, SendError>),
    ) {
        let body = self.cx.spare.keep(body.into()).for_group(peers.len());
        for peer in peers {
            told(*peer, self.send_body(now, *peer, delivery, class, body.clone().into()));
        }
        self.cx.spare.give(body);
    }

    /// Sends an UNR message, for a caller who can send a frame right now: if nothing else waits to be sent to `peer`, the
    /// message is sealed into `frame`, replacing what is there, and the caller sends that. No queue has seen it, and
    /// nothing of it was kept. Otherwise it is sent as by [`Mml::send`], and `frame` is as it was.
    ///
    /// # Errors
    /// As [`Mml::send`].
    pub fn send_at_once(
        &mut self,
        now: Time,
        peer: PeerId,
        class: u8,
        body: &Outgoing<'_>,
        frame: &mut Vec<u8>,
    ) -> Result<(Sequence, Option<Leaving>), SendError> {
        if body.len() <= self.cx.config.body_bytes_max
            && let Some(known) = self.peers.get_mut(&peer)
            && let Some((number, rest)) = known.fill_at_once(now, &mut self.cx, class, body, frame)
        {
            let transmit = Transmit { to: peer, answers_hello: false };
            return Ok((Sequence { delivery: Delivery::Unr, number }, Some((transmit, rest))));
        }
        Ok((self.send_body(now, peer, Delivery::Unr, class, body.clone())?, None))
    }
}
