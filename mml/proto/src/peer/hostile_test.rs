//! A peer that holds a valid key and says whatever it likes.

use super::{Context, Deliver, Link, Peer};
use crate::entropy::Entropy;
use crate::frame::{Content, FrameWriter};
use crate::gate::Gate;
use crate::handshake::SessionKeys;
use crate::session::{Epoch, Session};
use crate::wire::SessionFrame;
use crate::wire::items::{self, BULK, MessageWriter, NUMBER_MAX};
use crate::{Body, Config, Counters, Delivery, Pair};
use cl_base::{Incarnation, PeerId, Rng, Time};
use std::collections::VecDeque;
use std::time::Duration;

const ME: PeerId = PeerId::new(1, 0);
const PEER: PeerId = PeerId::new(2, 0);

fn context() -> Context {
    Context {
        config: Config::default(),
        me: ME,
        incarnation: Incarnation(1),
        entropy: Entropy::new([0; 32]),
        gate: Gate::new(&[0; 32]),
        attempts: 0,
        counters: Counters::default(),
        events: VecDeque::new(),
        spare: Default::default(),
    }
}

fn number(rng: &mut Rng) -> u64 {
    match rng.below(5) {
        0 => rng.below(20),
        1 => rng.below(2000),
        2 => NUMBER_MAX - 1 - rng.below(2000),
        3 => NUMBER_MAX + rng.below(3) - 1,
        _ => rng.next_u64(),
    }
}

fn put_items(rng: &mut Rng, frame: &mut Vec<u8>) {
    let mut writer = MessageWriter::default();
    for _ in 0..rng.below(6) {
        match rng.below(7) {
            0..=2 => {
                let (number, behind) = (number(rng), rng.below(3000));
                let tag = *rng.pick(&[items::UNR, items::ACK, items::NACK, items::ACK | BULK]).unwrap();
                writer.put(frame, tag, number.min(u64::MAX - 1), number.saturating_sub(behind), 8);
                frame.extend_from_slice(&[0; 8]);
            }
            3 => items::put_ack(frame, number(rng), &[rng.next_u64(), rng.next_u64(), 0, rng.next_u64()]),
            4 => items::put_report(
                frame,
                number(rng),
                &[(number(rng), rng.next_u64() as u32), (number(rng), 3)],
            ),
            5 => items::put_advert(frame, number(rng), number(rng)),
            _ => {
                let noise = rng.next_u64().to_le_bytes();
                frame.extend_from_slice(&noise[..rng.below(9) as usize]);
            }
        }
    }
}

#[test]
fn nothing_that_an_authentic_peer_says_panics_or_grows_without_bound() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let (mut cx, mut now) = (context(), Time::from_nanos(1 << 40));
        let pair = Pair::agree(ME.principal, &[1; 32].into(), PEER.principal, [9; 32]).unwrap();
        let mut peer = Peer::new(now, PEER, pair.into(), 0);
        let mine = SessionKeys::new(1, &[1; 32], &[2; 32]);
        let theirs = SessionKeys::new(1, &[2; 32], &[1; 32]);
        peer.known = Some(Incarnation(1));
        let epoch = Epoch::new(mine, 1, 0, now, &cx.config, &mut cx.entropy);
        peer.link = Link::Up(Box::new(Session::new(epoch, None)));
        let mut frame = Vec::new();
        for round in 0..40 {
            let delivery = *rng.pick(&[Delivery::Ack, Delivery::Nack]).unwrap();
            let _ = peer.send(now, &mut cx, delivery, 0, vec![0; 300].into());
            let body = Body::shared(vec![1; 2000]);
            let mut writer = FrameWriter::new(&mut frame, &cx.config);
            put_items(&mut rng, writer.items());
            if rng.chance(1, 3) {
                let n = number(&mut rng) % NUMBER_MAX;
                assert!(writer.push(items::NACK, n, n.saturating_sub(rng.below(9)), 1, Content::Bulk(&body)));
            }
            let bulk = writer.finish(&theirs, round);
            frame.extend_from_slice(bulk.as_deref().unwrap_or_default());
            let cut = SessionFrame::split(&mut frame).expect("well cut");
            peer.on_session_frame(now, &mut cx, cut, Deliver::AsEvents);
            now += Duration::from_millis(rng.below(50));
            if peer.next_timeout(&cx.config).is_some_and(|at| at <= now) {
                peer.on_timeout(now, &mut cx);
            }
            let mut frames = 0;
            while peer.poll_transmit(now, &mut cx, &mut frame).is_some() {
                frames += 1;
                assert!(frames < 200, "seed {seed}: one frame makes us send for ever");
            }
            assert!(cx.events.len() < 4000, "seed {seed}");
        }
        let c = &peer.counters;
        assert!(c.frames_received + c.malformed + c.unknown_session >= 40, "seed {seed}: {c:?}");
    }
}
