//! Clients: correct ones with work to do, and the faulty one.

use super::{Happening, World};
use crate::SimKeys;
use crate::ledger::{Command, Op, SIZE};
use crate::plan::ROGUE;
use cl_base::codec;
use cl_base::{PeerId, Rng, Time};
use replication_proto::{Client, ClientEffect, MemberId, ReadTicket, Ticket};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct ClientHost {
    pub(super) peer: PeerId,
    pub(super) client: Client,
    pub(super) timer_at: Option<Time>,
    next_nonce: u64,
    pub(super) left: u64,
    tickets: BTreeMap<Ticket, u64>,
    /// Reads under way and when they began.
    pub(super) reads: BTreeMap<ReadTicket, Time>,
    rng: Rng,
}

impl World {
    pub(super) fn add_client(&mut self, i: usize) {
        let peer = PeerId::new(50 + i as u32, 0);
        let client = self.new_client(peer);
        self.clients.push(ClientHost {
            peer,
            client,
            timer_at: None,
            next_nonce: 1,
            left: self.plan.ops_per_client,
            tickets: BTreeMap::new(),
            reads: BTreeMap::new(),
            rng: Rng::new(self.options.seed ^ 0xc11e ^ (i as u64) << 32),
        });
        self.after_client(i);
        self.think(i);
    }

    fn new_client(&mut self, peer: PeerId) -> Client {
        let keys = Box::new(SimKeys::new(self.options.seed, peer));
        let mut client = Client::new(&self.config, peer, keys, self.now.as_nanos());
        client.listen(self.now);
        self.judge.client_began(peer);
        client
    }

    pub(super) fn think(&mut self, i: usize) {
        let think = self.clients[i].rng.below(2 * self.plan.think.as_nanos() as u64);
        let at = self.now + Duration::from_nanos(think);
        self.schedule(at, Happening::Submit(i));
    }

    pub(super) fn submit(&mut self, i: usize) {
        if self.clients[i].left == 0 {
            return;
        }
        self.think(i);
        let peer = self.clients[i].peer;
        if self.clients[i].rng.chance(1, 3) {
            let host = &mut self.clients[i];
            // One that asks for too much at once asks again later.
            if let Ok(ticket) = host.client.read(self.now, SIZE.to_vec()) {
                host.reads.insert(ticket, self.now);
                self.after_client(i);
            }
        }
        let rng = &mut self.clients[i].rng;
        let other = PeerId::new(50 + rng.below(self.plan.clients as u64) as u32, 0);
        let op = match rng.below(8) {
            0 | 1 => Op::Add(rng.below(1000) as u32),
            2 => Op::Append(vec![b'x'; rng.below(200) as usize]),
            3 => Op::Put(rng.below(4) as u8, rng.below(1000) as u32),
            4 => Op::Get(rng.below(4) as u8),
            5 | 6 => Op::Tell(other, rng.below(1000) as u32),
            _ => Op::Alarm(rng.below(1500) as u16),
        };
        let host = &mut self.clients[i];
        if !host.client.has_room() {
            return;
        }
        let nonce = host.next_nonce;
        host.next_nonce += 1;
        host.left -= 1;
        let ticket = host
            .client
            .submit(self.now, codec::encode(&Command { nonce, op }))
            .expect("there is room and the operation is short");
        host.tickets.insert(ticket, nonce);
        self.judge.submitted(peer, nonce, self.now);
        self.after_client(i);
    }

    pub(super) fn after_client(&mut self, i: usize) {
        let peer = self.clients[i].peer;
        while let Some(effect) = self.clients[i].client.poll_effect() {
            match effect {
                ClientEffect::Send { to, bytes } => self.transmit(peer, to, bytes),
                ClientEffect::Completed { ticket, result, .. } => {
                    if let Some(nonce) = self.clients[i].tickets.remove(&ticket) {
                        self.trace(|_| format!("{peer} completes {nonce}"));
                        let healed = self.healed();
                        self.judge.completed(peer, nonce, self.now, result, healed);
                    }
                }
                ClientEffect::Notification { seq, body } => {
                    self.trace(|_| format!("{peer} is notified {seq}"));
                    self.judge.notification(peer, seq, body);
                }
                ClientEffect::NotificationsBegin { seq } => self.judge.notifications_begin(peer, seq),
                ClientEffect::EpochBegan { epoch, .. } => {
                    self.trace(|_| format!("{peer} is in epoch {epoch}"));
                    self.newcomers_join(i);
                }
                ClientEffect::Outvoted { member } => {
                    let liar = self.host_of(self.clients[i].client.config().peer(member));
                    let liar = liar.expect("only members are accused");
                    self.judge.outvoted(peer, MemberId(liar as u8));
                }
                ClientEffect::Read { ticket, result } => {
                    if let Some(began) = self.clients[i].reads.remove(&ticket) {
                        self.judge.read(peer, began, self.now, result);
                    }
                }
                ClientEffect::Stale { ticket, .. } => {
                    let nonce = self.clients[i].tickets.get(&ticket).copied().unwrap_or(0);
                    self.judge.stale(peer, nonce);
                }
            }
        }
        if let Some(at) = self.clients[i].client.next_timeout() {
            let at = at.max(self.now);
            if self.clients[i].timer_at.is_none_or(|before| at < before) {
                self.clients[i].timer_at = Some(at);
                self.schedule(at, Happening::ClientTimer(i));
            }
        }
    }

    /// Has a replacement ordered, again and again until the epoch begins.
    pub(super) fn ask_to_replace(&mut self) {
        let now = self.now;
        let host = &mut self.clients[0];
        let Some(replacement) = self.replacements.get(host.client.config().epoch as usize) else { return };
        if host.client.has_room() {
            host.client.replace(now, *replacement).expect("there is room");
        }
        self.after_client(0);
        let pause = Duration::from_millis(self.rng.within(200, 600));
        self.schedule(self.now + pause, Happening::AsksToReplace);
    }

    /// A client has heard of a new roster, and with it the hosts of newcomers in it.
    fn newcomers_join(&mut self, client: usize) {
        let (config, now) = (self.clients[client].client.config().clone(), self.now);
        self.rogue.follow(&config);
        for i in 0..self.hosts.len() {
            if !self.hosts[i].is_member() && config.member(self.hosts[i].peer).is_some() {
                self.judge.fault("newcomers");
                self.hosts[i].join(&config, now);
                self.after_member(i);
            }
        }
    }

    pub(super) fn restart_client(&mut self, i: usize) {
        self.trace(|w| format!("client {} restarts", w.clients[i].peer));
        self.judge.fault("client restarts");
        let peer = self.clients[i].peer;
        self.clients[i].client = self.new_client(peer);
        self.clients[i].tickets.clear();
        self.clients[i].reads.clear();
        self.after_client(i);
    }

    pub(super) fn rogue_asks(&mut self) {
        if self.settling {
            return;
        }
        self.judge.fault("rogue requests");
        let judge = &mut self.judge;
        let frames = self.rogue.asks(&mut |nonce, t| judge.rogue_asked(nonce, t));
        for (to, bytes) in frames {
            self.transmit(ROGUE, to, bytes);
        }
        let pause = Duration::from_millis(self.rng.within(1, 200));
        self.schedule(self.now + pause, Happening::RogueAsks);
    }
}
