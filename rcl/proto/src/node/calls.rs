//! Frames that belong to no connection: calls, their confirmations, and what comes too late. Anybody may have made
//! them up, so they are answered without a memory of it, by one frame that is no longer, as often as [`Gate`] allows.

use super::{EVENTS_PER_CONNECTION, Event, Node};
use crate::config::WINDOW_MAX;
use crate::connection::{CloseReason, Newcomer, State, Verdict};
use crate::gate::{Call, Promise};
use crate::memory::Memory;
use crate::shares::{Group, Room, SHARE_MIN};
use crate::wire::{CallRefusal, Header, Kind};
use cl_base::{PeerId, Time};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

/// A connection over which nothing has gone for so long since it was made may be given up for another one: longer than anybody who
/// has something to say waits with it.
const UNUSED_LIFE: Duration = Duration::from_secs(1);
/// If no such was found, it is looked for again after this: each time all are looked at.
const SEARCH_PAUSE: Duration = Duration::from_millis(10);

impl<M: Memory> Node<M> {
    /// Somebody calls in the name of `peer`, or confirms a call that was answered with what no longer holds. Nothing
    /// changes.
    pub(super) fn on_call(&mut self, now: Time, peer: PeerId, addr: SocketAddr, hello: &Header) {
        let group = self.shares.group(addr.ip());
        let share = self.shares.of_newcomer(group);
        // Both call at once: that is one connection, of which the peer perhaps does not know yet.
        let ours = self.slot(peer).map(|(_, slot)| &mut slot.connection);
        let ours = ours.filter(|c| c.is_with(hello.source, addr));
        let ours = ours.map(|c| (c.local(), c.receiver.grant(share)));
        if ours.is_none() {
            if hello.source == 0 {
                self.drop_of(peer, |counters| &mut counters.stale);
                return;
            }
            // If a place has to be given up for it, that is done once the call is confirmed.
            let room = self.room(peer, group);
            if room != Room::Free && (now < self.search_at || !self.shares.has_unused()) {
                return self.refuse_for(now, peer, addr, hello, room);
            }
        }
        let (callee, grant) = ours.unwrap_or_else(|| {
            let grant = self.config.window.clamp(SHARE_MIN, WINDOW_MAX).min(share);
            (self.next_number(peer), grant as u32)
        });
        let promise = Promise::new(now, grant);
        let call = Call { peer, addr, caller: hello.source, callee, promise };
        let welcome = Header {
            kind: Kind::Welcome,
            source: callee,
            destination: hello.source,
            sequence: self.gate.token(now, &call),
            grant,
            delay: promise.0,
            answer: hello.kind == Kind::Confirm,
            ..Header::EMPTY
        };
        self.answer(now, peer, addr, welcome);
    }

    /// Somebody confirms a call in the name of `peer`. If that is proven a connection begins, unless the peer with which there is
    /// one says that it lives.
    pub(super) fn on_confirm(&mut self, now: Time, peer: PeerId, addr: SocketAddr, confirm: &Header) {
        let call = Call {
            peer,
            addr,
            caller: confirm.source,
            callee: confirm.destination,
            promise: Promise(confirm.delay),
        };
        if !self.gate.proves(now, &call, confirm.sequence) {
            self.drop_of(peer, |counters| &mut counters.unproven);
            return self.on_stale(now, peer, addr, confirm);
        }
        let current = self.slot(peer).map(|(_, slot)| &slot.connection);
        if current.is_some_and(|c| c.is_with(confirm.source, addr))
            || confirm.destination != self.next_number(peer)
        {
            // The number that was promised does not hold: there is another one, or it has been used up meanwhile, by a
            // call of a former life, say. Nothing has been taken in under it.
            return self.on_call(now, peer, addr, confirm);
        }
        let newcomer = Newcomer { addr, confirm: *confirm };
        if let Some((place, slot)) = self.slot(peer).filter(|(_, slot)| !slot.connection.is_over()) {
            slot.connection.doubt(now, newcomer);
            return self.settle(now, place);
        }
        self.admit(now, peer, newcomer);
    }

    /// Does what is to be done about who has called in the name of a peer with which there is a connection, if
    /// that is known by now.
    pub(super) fn settle(&mut self, now: Time, place: usize) {
        let slot = self.slots[place].as_mut().expect("it is there");
        let (peer, remote) = (slot.peer, slot.connection.remote());
        match slot.connection.verdict() {
            None => self.touch(place),
            Some(Verdict::Admitted(newcomer)) => {
                self.touch(place);
                self.admit(now, peer, newcomer);
            }
            // It is the peer itself, and called when it did not know of our call.
            Some(Verdict::Refused(newcomer)) if remote == Some(newcomer.confirm.source) => {
                self.touch(place);
                self.on_call(now, peer, newcomer.addr, &newcomer.confirm);
            }
            Some(Verdict::Refused(newcomer)) => {
                self.touch(place);
                self.drop_of(peer, |counters| &mut counters.taken);
                self.refuse(now, peer, newcomer.addr, &newcomer.confirm, CallRefusal::NameTaken);
            }
            Some(Verdict::Followed(newcomer)) => {
                self.touch(place);
                self.on_call(now, peer, newcomer.addr, &newcomer.confirm);
            }
        }
    }

    /// A call that is proven becomes a connection, in the place of a former one.
    fn admit(&mut self, now: Time, peer: PeerId, Newcomer { addr, confirm }: Newcomer) {
        let group = self.shares.group(addr.ip());
        let room = self.room(peer, group);
        if room != Room::Free && !self.make_room(now, group, room) {
            return self.refuse_for(now, peer, addr, &confirm, room);
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
        slot.called = true;
        slot.connection.receiver.keep_promise(Promise(confirm.delay).grant());
        slot.connection.on_confirm(now, &confirm);
        self.announce(now, place, State::Calling);
    }

    /// Refuses a call for want of a place.
    fn refuse_for(&mut self, now: Time, peer: PeerId, addr: SocketAddr, call: &Header, room: Room) {
        self.drop_of(peer, |counters| &mut counters.refused);
        let why = if room == Room::AddressFull { CallRefusal::AddressFull } else { CallRefusal::Full };
        self.refuse(now, peer, addr, call, why);
    }

    /// Tells the caller why it is not answered, or its confirmation not taken.
    fn refuse(&mut self, now: Time, peer: PeerId, addr: SocketAddr, call: &Header, why: CallRefusal) {
        let (source, destination) = (call.destination, call.source);
        let refusal =
            Header { kind: Kind::Refuse, source, destination, sequence: why.to_wire(), ..Header::EMPTY };
        self.answer(now, peer, addr, refusal);
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
            sequence: if matches!(header.kind, Kind::Confirm | Kind::Ping | Kind::Ask) {
                header.sequence
            } else {
                0
            },
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

    /// Whether there is room for a connection to `peer`, and for what is to be told of it.
    fn room(&self, peer: PeerId, group: Group) -> Room {
        if self.events.len() >= EVENTS_PER_CONNECTION * self.config.connections_max {
            Room::Full
        } else if self.places.contains_key(&peer) {
            Room::Free
        } else {
            self.shares.room(group)
        }
    }

    /// Gives up a connection over which nothing has gone: the oldest at the address of which there are most, or at this one
    /// if it has all that it may have. False if there is none.
    fn make_room(&mut self, now: Time, group: Group, room: Room) -> bool {
        if now < self.search_at || self.events.len() >= EVENTS_PER_CONNECTION * self.config.connections_max {
            return false;
        }
        let unused = self.slots.iter().flatten().filter(|slot| {
            let idle = slot.called && !slot.used && slot.connection.sender.has_said_nothing();
            let here = room == Room::Full || slot.group == group;
            idle && here && now.saturating_since(slot.since) >= UNUSED_LIFE
        });
        let oldest = unused.max_by_key(|slot| (self.shares.places(slot.group), Reverse(slot.since)));
        let Some(peer) = oldest.map(|slot| slot.peer) else {
            self.search_at = now + SEARCH_PAUSE;
            return false;
        };
        let (_, slot) = self.slot(peer).expect("just found");
        let (reported, over) = (slot.reported, slot.connection.is_over());
        let (reset, addr) = (slot.connection.reset(), slot.connection.addr);
        if !over {
            self.queue_answer(peer, addr, reset);
        }
        if !reported {
            self.events.push_back(Event::Closed(peer, CloseReason::Unused));
        }
        self.forget(peer);
        true
    }

    fn answer(&mut self, now: Time, peer: PeerId, addr: SocketAddr, answer: Header) {
        if self.gate.may_answer(now, addr) {
            self.queue_answer(peer, addr, answer);
        } else {
            self.drop_of(peer, |counters| &mut counters.unanswered);
        }
    }
}
