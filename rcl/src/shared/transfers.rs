//! Large messages: announced in their order, accepted or not, and sent in pieces between the others.

use super::link::{Incoming, Outgoing};
use super::word::{Kind, u64_at};
use super::{Links, WAITING_MAX};
use crate::Event;
use cl::Endpoint;
use cl_base::PeerId;
use rcl_proto::{Refusal, Sink, Source, TransferId};

/// Transfers announced and not done with, each way.
pub(super) const TRANSFERS_MAX: usize = 1024;

impl Links {
    pub(crate) fn send_large(
        &mut self,
        cl: &mut Endpoint,
        peer: PeerId,
        source: Box<dyn Source>,
    ) -> Result<TransferId, rcl_proto::SendError<Box<dyn Source>>> {
        let index = self.find(peer).expect("asked before");
        let link = self.link(index);
        if link.fin_wanted || link.fin_received {
            return Err(rcl_proto::SendError { buf: source, reason: Refusal::NotConnected });
        }
        if link.outgoing.len() >= TRANSFERS_MAX || link.waiting.len() >= WAITING_MAX {
            return Err(rcl_proto::SendError { buf: source, reason: Refusal::Backpressure });
        }
        let id = link.next_transfer;
        link.next_transfer += 1;
        let len = source.len();
        link.outgoing.insert(id, Outgoing { source, at: 0, flows: false });
        self.say(cl, index, Kind::Announce, [id, len]);
        Ok(TransferId(id))
    }

    pub(crate) fn accept(&mut self, cl: &mut Endpoint, peer: PeerId, id: TransferId, sink: Box<dyn Sink>) {
        let Some(index) = self.find(peer) else { return };
        let link = self.link(index);
        let Some(len) = link.announced.remove(&id.0) else { return };
        if len == 0 {
            link.traffic.received(0);
            self.events.push_back(Event::Received { from: peer, id, sink });
            self.say(cl, index, Kind::Done, [id.0, 0]);
        } else {
            link.incoming.insert(id.0, Incoming { sink, at: 0, len });
            self.say(cl, index, Kind::Accept, [id.0, 0]);
        }
    }

    pub(crate) fn reject(&mut self, cl: &mut Endpoint, peer: PeerId, id: TransferId) {
        let Some(index) = self.find(peer) else { return };
        if self.link(index).announced.remove(&id.0).is_some() {
            self.say(cl, index, Kind::Reject, [id.0, 0]);
        }
    }

    /// A word about a transfer. False if it is against the rules.
    pub(super) fn on_transfer(&mut self, cl: &mut Endpoint, index: usize, kind: Kind, body: &[u8]) -> bool {
        let link = self.links[index].as_mut().expect("it is there");
        let (peer, id) = (link.peer, u64_at(body, 0));
        let name = TransferId(id);
        match kind {
            Kind::Announce => {
                let len = u64_at(body, 8);
                let many = link.announced.len() + link.incoming.len() >= TRANSFERS_MAX;
                if many || link.incoming.contains_key(&id) || link.announced.insert(id, len).is_some() {
                    return false;
                }
                self.events.push_back(Event::Announced { from: peer, id: name, len });
            }
            Kind::Accept => {
                let Some(transfer) = link.outgoing.get_mut(&id) else { return false };
                if transfer.flows || transfer.at > 0 || transfer.source.is_empty() {
                    return false;
                }
                transfer.flows = true;
                self.pump_link(cl, index);
            }
            Kind::Reject => {
                if link.outgoing.remove(&id).is_none() {
                    return false;
                }
                self.events.push_back(Event::Rejected { by: peer, id: name });
                self.pump_link(cl, index);
            }
            Kind::Done => {
                let Some(done) = link.outgoing.remove(&id).filter(|t| t.at >= t.source.len()) else {
                    return false;
                };
                link.traffic.sent(done.source.len());
                self.events.push_back(Event::Sent { to: peer, id: name });
                self.pump_link(cl, index);
            }
            Kind::Chunk => {
                let (at, bytes) = (u64_at(body, 8), &body[16..]);
                let Some(incoming) = link.incoming.get_mut(&id) else { return false };
                if at != incoming.at || bytes.len() as u64 > incoming.len - at {
                    return false;
                }
                incoming.sink.place(at, bytes.len()).copy_from_slice(bytes);
                incoming.at += bytes.len() as u64;
                if incoming.at == incoming.len {
                    let done = link.incoming.remove(&id).expect("just seen");
                    link.traffic.received(done.len);
                    self.events.push_back(Event::Received { from: peer, id: name, sink: done.sink });
                    self.say(cl, index, Kind::Done, [id, 0]);
                }
            }
            _ => return false,
        }
        true
    }
}
