//! Frames that belong to no connection: calls, their confirmations, and what comes too late. Anybody may have made
//! them up, so they are answered without a memory of it, by one frame that is no longer, as often as [`Gate`] allows.

use super::{EVENTS_PER_CONNECTION, Event, Node, SHARE_MIN};
use crate::config::WINDOW_MAX;
use crate::connection::{CloseReason, State};
use crate::gate::{Call, Promise};
use crate::memory::Memory;
use crate::wire::{Header, Kind};
use cl_base::{PeerId, Time};
use std::net::SocketAddr;

impl<M: Memory> Node<M> {
    /// Somebody calls in the name of `peer`, or confirms a call that was answered with what no longer holds. Nothing
    /// changes.
    pub(super) fn on_call(&mut self, now: Time, peer: PeerId, addr: SocketAddr, hello: &Header) {
        let share = self.share(self.places.len() + 1);
        // Both call at once: that is one connection, of which the peer perhaps does not know yet.
        let ours = self.slot(peer).map(|(_, slot)| &mut slot.connection);
        let ours = ours.filter(|c| !c.is_over() && c.remote().is_none_or(|remote| remote == hello.source));
        let ours = ours.map(|c| (c.local(), c.incarnation(), c.receiver.grant(share)));
        if ours.is_none() {
            if hello.source == 0 || hello.ack <= self.latest_incarnation(peer) {
                self.drop_of(peer, |counters| &mut counters.stale);
                return;
            }
            if !self.has_room(peer) {
                self.drop_of(peer, |counters| &mut counters.refused);
                return;
            }
        }
        let (callee, incarnation, grant) = ours.unwrap_or_else(|| {
            let grant = self.config.window.clamp(SHARE_MIN, WINDOW_MAX).min(share);
            (self.next_number(peer), self.next_incarnation, grant as u32)
        });
        let promise = Promise::new(now, grant);
        let call = Call { peer, addr, incarnation: hello.ack, caller: hello.source, callee, promise };
        let welcome = Header {
            kind: Kind::Welcome,
            source: callee,
            destination: hello.source,
            sequence: self.gate.token(now, &call),
            ack: incarnation - 1,
            grant,
            delay: promise.0,
            answer: hello.kind == Kind::Confirm,
            ..Header::EMPTY
        };
        self.answer(now, peer, addr, welcome);
    }

    /// Somebody confirms a call in the name of `peer`. If that is proven, and is the latest call, a connection begins, and
    /// a former one has ended.
    pub(super) fn on_confirm(
        &mut self,
        now: Time,
        peer: PeerId,
        addr: SocketAddr,
        confirm: &Header,
        frame: M::Buf,
    ) {
        let call = Call {
            peer,
            addr,
            incarnation: confirm.ack,
            caller: confirm.source,
            callee: confirm.destination,
            promise: Promise(confirm.delay),
        };
        if !self.gate.proves(now, &call, confirm.sequence) {
            self.drop_of(peer, |counters| &mut counters.unproven);
            return self.on_stale(now, peer, addr, confirm);
        }
        if confirm.ack <= self.latest_incarnation(peer) {
            return self.on_stale(now, peer, addr, confirm);
        }
        if confirm.destination != self.next_number(peer) {
            // The number that was promised has been used up meanwhile, by a call of a former life, say. Nothing has been
            // taken in under it.
            return self.on_call(now, peer, addr, confirm);
        }
        if !self.has_room(peer) {
            self.drop_of(peer, |counters| &mut counters.refused);
            return;
        }
        if let Some((_, former)) = self.slot(peer)
            && !former.reported
        {
            let reason = match former.connection.state() {
                State::Closed(reason) => reason,
                State::Lingering(_) => CloseReason::Graceful,
                _ => CloseReason::Restarted,
            };
            self.events.push_back(Event::Closed(peer, reason));
        }
        self.begin(now, peer, addr);
        let (place, slot) = self.slot(peer).expect("it has just begun");
        slot.connection.receiver.keep_promise(Promise(confirm.delay).grant());
        slot.connection.on_frame::<M>(now, confirm, frame);
        self.announce(place, State::Calling);
    }

    /// A frame of a connection that is no more, or never was. Whoever sent it is told.
    pub(super) fn on_stale(&mut self, now: Time, peer: PeerId, addr: SocketAddr, header: &Header) {
        self.drop_of(peer, |counters| &mut counters.stale);
        let past = self.remembered.get(peer);
        let past = past.filter(|p| (p.remote, p.local) == (header.source, header.destination));
        let reset = Header {
            kind: Kind::Reset,
            source: header.destination,
            destination: header.source,
            sequence: if matches!(header.kind, Kind::Confirm | Kind::Ping) { header.sequence } else { 0 },
            ack: past.map_or(0, |past| past.epitaph),
            ..Header::EMPTY
        };
        self.answer(now, peer, addr, reset);
    }

    /// The number that our end of the next connection with `peer` will have.
    pub(super) fn next_number(&mut self, peer: PeerId) -> u64 {
        let current = self.slot(peer).map(|(_, slot)| slot.connection.local());
        let former = current.or_else(|| self.remembered.get(peer).map(|past| past.local));
        self.gate.number(peer, former, self.remembered.forgotten())
    }

    /// The latest incarnation of `peer` that has proved itself, 0 if none is known.
    pub(super) fn latest_incarnation(&mut self, peer: PeerId) -> u64 {
        let current = self.slot(peer).map_or(0, |(_, slot)| slot.connection.remote_incarnation());
        current.max(self.remembered.get(peer).map_or(0, |past| past.incarnation))
    }

    /// True if there is room for a connection to `peer`, and for what is to be told of it.
    fn has_room(&self, peer: PeerId) -> bool {
        let (peers, events) = (self.places.len(), self.events.len());
        events < EVENTS_PER_CONNECTION * self.config.connections_max
            && (peers < self.config.connections_max || self.places.contains_key(&peer))
    }

    fn answer(&mut self, now: Time, peer: PeerId, addr: SocketAddr, answer: Header) {
        if self.gate.may_answer(now, addr) {
            self.queue_answer(peer, addr, answer);
        } else {
            self.drop_of(peer, |counters| &mut counters.unanswered);
        }
    }
}
