//! How frames travel between the parties of a group: by [`mml`], or in memory for tests.

use crate::client::ShutOut;
use cl::Received;
use cl::runtime::{Core, TimerId};
use cl_base::{Incarnation, PeerId, Time};
use mml::{Delivery, Event, Keyring, Roster};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// The timer that the service must hand to [`Carrier::on_timer`].
pub(crate) const CARRIER_TIMER: TimerId = TimerId(u64::MAX);

/// The class byte of a group's frames.
const CLASS: u8 = 1;

/// A silent peer is given up after this long. Whether a member is slow or dead is for the protocol to judge, which is
/// quicker; a session only costs a handshake when it is needed again.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// What came.
pub(crate) enum Arrived {
    Frame { from: PeerId, bytes: Vec<u8> },
    Refusal { from: PeerId, why: ShutOut },
}

type Way = Box<dyn Fn(PeerId, Vec<u8>) + Send + Sync>;

/// The parties of a group in memory, by name. A frame for somebody who is not there, or has no room, is lost.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<RwLock<BTreeMap<PeerId, Way>>>);

impl Net {
    /// Frames for `who` go this way from now on.
    pub(crate) fn join(&self, who: PeerId, way: impl Fn(PeerId, Vec<u8>) + Send + Sync + 'static) {
        self.0.write().expect("nobody panics with it").insert(who, Box::new(way));
    }

    pub(crate) fn leave(&self, who: PeerId) {
        self.0.write().expect("nobody panics with it").remove(&who);
    }

    fn send(&self, from: PeerId, to: PeerId, bytes: Vec<u8>) {
        if let Some(way) = self.0.read().expect("nobody panics with it").get(&to) {
            way(from, bytes);
        }
    }
}

/// See the module.
pub(crate) enum Carrier {
    Mml { mml: Box<mml::Endpoint>, arrived: VecDeque<Arrived> },
    Memory { me: PeerId, net: Net },
}

impl Carrier {
    /// By `mml`. The runtime's endpoint must be that of `me`.
    pub(crate) fn mml(
        me: PeerId,
        now: Time,
        keyring: Keyring,
        roster: &Roster,
    ) -> Result<Carrier, mml::keys::NoEntropy> {
        let config =
            mml::Config { dead_after: DEAD_AFTER, forget_after: 3 * DEAD_AFTER, ..mml::Config::default() };
        let seed = mml::keys::entropy()?;
        let mml = mml::Endpoint::new(config, me, Incarnation(now.as_nanos()), keyring, roster, seed);
        Ok(Carrier::Mml { mml: Box::new(mml), arrived: VecDeque::new() })
    }

    pub(crate) fn connect<M: Send + 'static>(&mut self, cx: &mut Core<M>, peers: &[PeerId]) {
        if let Carrier::Mml { mml, .. } = self {
            let now = cx.now();
            for peer in peers.iter().filter(|peer| **peer != mml.me()).copied().collect::<Vec<_>>() {
                if let Err(error) = mml.connect(cx.endpoint_mut(), now, peer) {
                    tracing::debug!(%peer, %error, "cannot connect");
                }
            }
        }
        self.settle(cx);
    }

    /// Sends, or will with the next [`Carrier::flush`]; may be lost.
    pub(crate) fn send(&mut self, now: Time, to: PeerId, bytes: Vec<u8>) {
        match self {
            Carrier::Mml { mml, .. } => {
                if let Err(error) = mml.queue(now, to, Delivery::Unr, CLASS, &bytes[..]) {
                    tracing::debug!(peer = %to, %error, "not sent; the protocol repeats what matters");
                }
            }
            Carrier::Memory { me, net } => net.send(*me, to, bytes),
        }
    }

    pub(crate) fn flush<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        if let Carrier::Mml { mml, .. } = self {
            let now = cx.now();
            mml.flush(cx.endpoint_mut(), now);
        }
        self.settle(cx);
    }

    /// Takes a message from the runtime's endpoint.
    pub(crate) fn on_message<M: Send + 'static>(&mut self, cx: &mut Core<M>, received: Received) {
        if let Carrier::Mml { mml, .. } = self {
            let now = cx.now();
            mml.handle(cx.endpoint_mut(), now, received);
        }
        self.settle(cx);
    }

    /// Takes the expiry of [`CARRIER_TIMER`].
    pub(crate) fn on_timer<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        if let Carrier::Mml { mml, .. } = self {
            let now = cx.now();
            mml.handle_timeout(cx.endpoint_mut(), now);
        }
        self.settle(cx);
    }

    /// What has come, oldest first.
    pub(crate) fn poll(&mut self) -> Option<Arrived> {
        match self {
            Carrier::Mml { arrived, .. } => arrived.pop_front(),
            Carrier::Memory { .. } => None,
        }
    }

    /// Ends all sessions, so that the other sides need not remember us.
    pub(crate) fn close<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        if let Carrier::Mml { mml, .. } = self {
            let now = cx.now();
            for peer in mml.peers_up().collect::<Vec<_>>() {
                mml.disconnect(cx.endpoint_mut(), now, peer);
            }
        }
    }

    fn settle<M: Send + 'static>(&mut self, cx: &mut Core<M>) {
        let Carrier::Mml { mml, arrived } = self else { return };
        while let Some(event) = mml.poll_event() {
            match event {
                Event::Message { from, class: CLASS, body, .. } => {
                    arrived.push_back(Arrived::Frame { from, bytes: body });
                }
                Event::Superseded { peer: from, .. } => {
                    tracing::error!(peer = %from, "{}", ShutOut::Superseded);
                    arrived.push_back(Arrived::Refusal { from, why: ShutOut::Superseded });
                }
                Event::Incompatible { peer: from, .. } => {
                    tracing::error!(peer = %from, "{}", ShutOut::Incompatible);
                    arrived.push_back(Arrived::Refusal { from, why: ShutOut::Incompatible });
                }
                other => tracing::trace!(event = ?other, "mml"),
            }
        }
        match mml.next_timeout() {
            Some(at) => cx.set_timer(at, CARRIER_TIMER),
            None => {
                cx.cancel_timer(CARRIER_TIMER);
            }
        }
    }
}
