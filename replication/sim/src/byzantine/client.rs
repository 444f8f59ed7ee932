//! A faulty client.

use crate::SimKeys;
use crate::ledger::{Command, Op};
use crate::plan::ROGUE;
use cl_base::{PeerId, Rng, codec};
use replication_proto::message::{self, Message, Proof, Request, RequestKind, forge};
use replication_proto::{Config, Keys, Mac};

/// Sequence numbers are few, so that they are used again and again.
const NUMBERS: u64 = 20;

/// Asks what no client should.
pub(crate) struct Rogue {
    config: Config,
    keys: SimKeys,
    rng: Rng,
    last: Option<Request>,
}

impl Rogue {
    pub(crate) fn new(seed: u64, config: &Config) -> Rogue {
        Rogue {
            config: config.clone(),
            keys: SimKeys::new(seed, ROGUE),
            rng: Rng::new(seed ^ 0x0e0e),
            last: None,
        }
    }

    /// The group is in another epoch.
    pub(crate) fn follow(&mut self, config: &Config) {
        self.config = config.clone();
    }

    /// Frames and to whom they go: requests under used and absurd numbers, different ones under one number to
    /// different members, some that only a part of the members can verify, acknowledgements of what never was,
    /// garbage. `asked` is told of each signed command: its number and that of its request.
    pub(crate) fn asks(&mut self, asked: &mut impl FnMut(u64, u64)) -> Vec<(PeerId, Vec<u8>)> {
        let members = self.config.members.clone();
        let one = *self.rng.pick(&members).expect("a group has members");
        match self.rng.below(6) {
            0 => {
                let t = self.rng.below(NUMBERS);
                let mut ask = |to: &PeerId| {
                    let request = self.request(t, asked);
                    (*to, self.frame(request))
                };
                members.iter().map(&mut ask).collect()
            }
            1 => {
                let t = self.rng.below(NUMBERS);
                let request = self.request(t, asked);
                let spoilt = self.rng.next_u64();
                (0..)
                    .zip(&members)
                    .map(|(i, to)| {
                        let mut request = request.clone();
                        match &mut request.proof {
                            Proof::Signed(signature) => signature[3] ^= (spoilt >> i & 1) as u8,
                            // In one vector, as a client does that wants members to disagree.
                            Proof::Macs(macs) => (0..)
                                .zip(macs)
                                .for_each(|(j, mac): (u64, &mut Mac)| mac[3] ^= (spoilt >> j & 1) as u8),
                        }
                        (*to, self.frame(request))
                    })
                    .collect()
            }
            2 => match self.last.clone() {
                Some(request) => members.iter().map(|to| (*to, self.frame(request.clone()))).collect(),
                None => Vec::new(),
            },
            3 => {
                let bytes = (0..self.rng.below(300)).map(|_| self.rng.next_u64() as u8).collect();
                let from = self.rng.next_u64() >> self.rng.below(64);
                vec![(one, bytes), (one, message::encode(&self.config, &Message::NotifyPull { from }))]
            }
            _ => {
                let t = [u64::MAX, 0, self.rng.below(NUMBERS)][self.rng.below(3) as usize];
                let request = self.request(t, asked);
                vec![(one, self.frame(request))]
            }
        }
    }

    fn request(&mut self, t: u64, asked: &mut impl FnMut(u64, u64)) -> Request {
        let rng = &mut self.rng;
        let notified = if rng.chance(1, 4) { rng.next_u64() } else { 0 };
        let op = match rng.below(6) {
            0 => vec![0xff; rng.below(300) as usize],
            n => {
                let nonce = rng.next_u64();
                asked(nonce, t);
                codec::encode(&Command { nonce, op: Op::Tell(ROGUE, n as u32) })
            }
        };
        let macs = rng.chance(1, 2);
        // It may not change the roster, whatever it asks.
        let kind = if rng.chance(1, 20) { RequestKind::Replace } else { RequestKind::Operation };
        let mut request = Request { client: ROGUE, t, notified, kind, op, proof: Proof::Macs(Vec::new()) };
        let statement = forge::request_statement(&self.config, &request).0;
        request.proof = match self.keys.macs(&self.config.members, &statement).filter(|_| macs) {
            Some(macs) => Proof::Macs(macs),
            None => Proof::Signed(self.keys.sign(&statement)),
        };
        self.last = Some(request.clone());
        request
    }

    fn frame(&self, request: Request) -> Vec<u8> {
        message::encode(&self.config, &Message::Request(request))
    }
}
