//! What the fuzz targets call (`fuzz/`): this layer's parsers, given arbitrary bytes. Compiled with
//! `--cfg fuzzing` only.

use crate::mac::MAC_BYTES;
use crate::wire::handshake::{INIT_HEADER_BYTES, InitFrame, Notice};
use crate::wire::items::{Item, Items, NUMBER_MAX, RANGES_MAX};
use crate::wire::{self, DIGEST_BYTES, Kind, SessionFrame};
use crate::{Config, Delivery, Mml, Pair};
use cl_base::{Incarnation, PeerId, Time};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

/// What the fuzzer may have done in one run; a conversation has a few handshakes, each worth a millisecond here.
const STEPS_MAX: usize = 200;
/// Frames under way; more are lost.
const UNDER_WAY_MAX: usize = 32;

/// Two parties that connect, speak, restart and renew their keys over a network that the fuzzer is: it loses, repeats,
/// reorders and alters frames, and invents some under the right static key, as a faulty member would.
pub fn handshake(input: &[u8]) {
    let ids = [PeerId::new(1, 0), PeerId::new(2, 0)];
    let secret = |i: usize| StaticSecret::from([i as u8 + 1; 32]);
    let agree = |me: usize, peer: usize| {
        let public = PublicKey::from(&secret(peer)).to_bytes();
        Arc::new(
            Pair::agree(ids[me].principal, &secret(me), ids[peer].principal, public).expect("honest keys"),
        )
    };
    let pairs = [agree(0, 1), agree(1, 0)];
    let config = Config { rekey_frames: 4, key_frames_max: 8, versions: (1, 3), ..Config::default() };
    let life = |party: usize, number: u64| {
        let pair = pairs[party].clone();
        let mut seed = [party as u8; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let keys = move |_: PeerId, _: PeerId| Some(pair.clone());
        Mml::new(config.clone(), ids[party], Incarnation(number), Box::new(keys), seed)
    };
    let mut parties = [life(0, 1), life(1, 1)];
    let (mut now, mut lives) = (Time::from_nanos(1 << 40), 1);
    let mut under_way: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    let mut numbers = BTreeSet::new();
    let mut bytes = input.iter().copied();
    let source = ([10, 0, 0, 1], 7400).into();
    for _ in 0..STEPS_MAX {
        let Some(byte) = bytes.next() else { break };
        let (party, other) = (usize::from(byte >> 7), usize::from(byte >> 7 ^ 1));
        match byte & 0x0f {
            0 => drop(parties[party].connect(now, ids[other])),
            1 => drop(parties[party].send(now, ids[other], Delivery::Ack, 0, vec![byte; 9])),
            2..=5 => {
                if let Some((to, mut frame)) = under_way.pop_front() {
                    parties[to].handle(now, ids[to ^ 1], source, &mut frame);
                }
            }
            6 => drop(under_way.pop_front()),
            7 => under_way.extend(under_way.front().cloned()),
            8 => under_way.rotate_left(usize::from(!under_way.is_empty())),
            9 => {
                if let Some((_, frame)) = under_way.front_mut() {
                    let at = usize::from(bytes.next().unwrap_or(0)) % frame.len();
                    frame[at] ^= bytes.next().unwrap_or(1);
                }
            }
            10 => {
                // Said under the static key, whatever it is.
                let len = [112 - 32, 100 - 16, 52 - 16, 36 - 16, 44 - 16][usize::from(byte >> 4 & 7) % 5];
                let mut frame: Vec<u8> = bytes.by_ref().take(len).collect();
                frame.resize(len, 0);
                let mac = pairs[other].notices.mac(ids[other], ids[party], &[&frame]);
                frame.extend_from_slice(&mac);
                if len == 112 - 32 {
                    frame.extend_from_slice(&[0; MAC_BYTES]);
                }
                parties[party].handle(now, ids[other], source, &mut frame);
            }
            11 => {
                lives += 1;
                parties[party] = life(party, lives);
            }
            12 => parties[party].disconnect(now, ids[other]),
            _ => {
                now += Duration::from_millis(1 << (byte >> 4 & 7));
                parties.iter_mut().for_each(|party| party.handle_timeout(now));
            }
        }
        for (from, party) in parties.iter_mut().enumerate() {
            let mut frame = Vec::new();
            let mut frames = 0;
            while party.poll_transmit(now, &mut frame).is_some() {
                frames += 1;
                assert!(frames < 100, "one step makes a party send for ever");
                if let Some(number) = wire::peek_number(&frame) {
                    assert!(numbers.insert((from, number)), "two frames under one key and number");
                }
                if under_way.len() < UNDER_WAY_MAX {
                    under_way.push_back((from ^ 1, frame.clone()));
                }
            }
            while party.poll_event().is_some() {}
        }
    }
}

/// A frame as it is taken apart, once before and once as if after it was authenticated.
pub fn frame(input: &[u8]) {
    let class = wire::peek_class(input);
    let Some(kind) = wire::peek_kind(input) else {
        assert_eq!(class, None);
        return;
    };
    match kind {
        Kind::Session => {}
        Kind::Init => {
            let frame = InitFrame::split(input);
            assert_eq!(frame.init.to_bytes()[..], input[..INIT_HEADER_BYTES]);
            assert_eq!([frame.text, frame.cookie_mac].concat(), input);
            return;
        }
        _ => {
            let text = &input[..input.len() - MAC_BYTES];
            if let Some(notice) = Notice::read(kind, text) {
                let mut again = Vec::new();
                notice.put(&mut again);
                assert_eq!(again.len(), text.len());
                assert_eq!(Notice::read(kind, &again), Some(notice));
            }
            return;
        }
    }
    assert_eq!(class, Some(input[2]));
    let mut frame = input.to_vec();
    let Some(frame) = SessionFrame::split(&mut frame) else { return };
    assert_eq!(frame.head.len() + frame.sealed.len() + frame.bulk.len(), input.len());
    assert_eq!(frame.header.to_bytes()[..], *frame.head);
    let digest = if frame.bulk.is_empty() { 0 } else { DIGEST_BYTES };
    let items = Items::new(&frame.sealed[..frame.sealed.len() - MAC_BYTES - digest], frame.bulk);
    let sound = items.are_sound();
    let mut bytes = 0;
    for item in items {
        match item {
            Item::Message { number, base, body, .. } => {
                assert!(base <= number && number < NUMBER_MAX);
                bytes += body.len();
            }
            Item::Report { missing, .. } => assert!(missing.iter().count() <= RANGES_MAX),
            Item::Advert { base, next } => assert!(base <= next),
            Item::Ack { .. } | Item::Close | Item::Confirm => {}
        }
    }
    assert!(bytes <= input.len() && (!sound || frame.bulk.len() <= bytes));
}
