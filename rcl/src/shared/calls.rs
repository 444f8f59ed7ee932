//! Which call counts: the peer may call at the same time as we, refuse, or be called by another way.

use super::Links;
use super::link::{Link, Refused, Traffic};
use super::word::Kind;
use crate::Event;
use cl::Endpoint;
use cl::for_rcl::ChannelId;
use cl_base::PeerId;
use rcl_proto::CloseReason;

impl Links {
    /// True if the call of this number has not been answered.
    pub(crate) fn is_calling(&self, peer: PeerId, call: u32) -> bool {
        let link = self.by_peer.get(&peer).and_then(|&index| self.links[index].as_ref());
        link.is_some_and(|link| link.out_number == call && !link.is_open())
    }

    /// Calls `peer` over `channel`; tells the number of the call.
    pub(crate) fn connect(&mut self, cl: &mut Endpoint, peer: PeerId, channel: ChannelId) -> u32 {
        self.next_number = self.next_number.wrapping_add(1).max(1);
        let number = self.next_number;
        self.add(Link::new(peer, channel, number, None));
        self.tell(cl, channel, number, Kind::Hello);
        number
    }

    /// A channel has closed. If the peer had never answered there, it may be that it shares no memory with us: it
    /// has none of what was accepted for it.
    pub(crate) fn on_closed(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        peer: PeerId,
    ) -> Option<Refused> {
        self.orphans.retain(|(to, ..)| *to != channel);
        if self.successors.get(&peer).is_some_and(|(open, _)| *open == channel) {
            self.successors.remove(&peer);
        }
        let index = self.find(peer)?;
        let link = self.link(index);
        if link.out == channel && !link.is_open() {
            let other = link.other.take().filter(|(open, _)| *open != channel);
            let Some((channel, number)) = other else { return Some(self.give_up(index)) };
            self.take_call(cl, index, channel, number);
            return None;
        }
        link.other = link.other.filter(|(open, _)| *open != channel);
        if link.out == channel || link.from.is_some_and(|(from, _)| from == channel) {
            self.end_for_other(cl, index, CloseReason::Dead);
        }
        None
    }

    /// Ends a connection that never was one.
    pub(super) fn give_up(&mut self, index: usize) -> Refused {
        let mut link = self.remove(index);
        // The network counts it.
        let Traffic { messages_sent, bytes_sent, .. } = std::mem::take(&mut link.traffic);
        self.past.messages_sent -= messages_sent;
        self.past.bytes_sent -= bytes_sent;
        link.into_refused()
    }

    pub(super) fn on_call(
        &mut self,
        cl: &mut Endpoint,
        channel: ChannelId,
        from: PeerId,
        number: u32,
        by_network: bool,
    ) {
        if let Some(index) = self.find(from) {
            let link = self.link(index);
            if (!link.is_open() || link.is_our_call) && cl.me() < from {
                // Both have called at once, and our call counts. The answer to it may have overtaken the peer's call.
                link.other = Some((channel, number));
                return;
            }
            if !link.is_open() {
                let (out, call) = (link.out, link.out_number);
                self.tell(cl, out, call, Kind::Reset);
                self.take_call(cl, index, channel, number);
                return;
            }
            if link.from == Some((channel, number)) {
                self.stale += 1;
                return;
            }
            if link.out != channel {
                // If the process that we are connected with has ended, or has given the connection up, that will be
                // heard of at the other channel. Until then it lives, and keeps its name.
                link.other = Some((channel, number));
                return;
            }
            self.end(index, CloseReason::Restarted);
        }
        if by_network {
            self.tell(cl, channel, number, Kind::Refuse);
            return;
        }
        self.be_called(cl, from, channel, number);
    }

    /// Ends a connection; a call of the peer that was not taken back is the next one.
    pub(super) fn end_for_other(&mut self, cl: &mut Endpoint, index: usize, reason: CloseReason) {
        let (peer, other) = (self.link(index).peer, self.link(index).other);
        self.end(index, reason);
        if let Some((channel, number)) = other {
            self.be_called(cl, peer, channel, number);
        }
    }

    /// The peer's call is a new connection, as soon as the application has heard of the end of the one before.
    pub(super) fn be_called(&mut self, cl: &mut Endpoint, peer: PeerId, channel: ChannelId, number: u32) {
        if self.events.iter().any(|event| matches!(event, Event::Closed(of, _) if *of == peer)) {
            self.successors.insert(peer, (channel, number));
            return;
        }
        let index = self.add(Link::new(peer, channel, number, None));
        self.take_call(cl, index, channel, number);
    }

    /// The peer's call is the connection, whatever ours was.
    pub(super) fn take_call(&mut self, cl: &mut Endpoint, index: usize, channel: ChannelId, number: u32) {
        let link = self.link(index);
        let peer = link.peer;
        (link.out, link.out_number, link.from) = (channel, number, Some((channel, number)));
        link.is_our_call = false;
        self.tell(cl, channel, number, Kind::Welcome);
        self.events.push_back(Event::Connected(peer));
        self.pump_link(cl, index);
    }
}
