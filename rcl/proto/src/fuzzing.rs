//! What the fuzz targets call (`fuzz/`): this layer's parser and connections, given arbitrary bytes. Compiled
//! with `--cfg fuzzing` only.

use crate::wire::{self, Header, PACKED_LEN_LEN};
use crate::{Checksum, Config, Event, HEADER_LEN, Heap, Node};
use cl_base::{PeerId, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// A frame's header, and its body as each kind reads it.
pub fn frame(input: &[u8]) {
    if let Ok(header) = Header::parse(input, Checksum::None) {
        let (head, body) = input.split_at(HEADER_LEN);
        for checksum in [Checksum::None, Checksum::Header, Checksum::Full] {
            let mut written = [0; HEADER_LEN];
            header.write(&mut written, body, checksum);
            let frame = [&written, body].concat();
            assert_eq!(Header::parse(&frame, checksum), Ok(header), "{head:?}");
        }
    }
    let mut rest = input;
    while let Some(message) = wire::unpack(rest) {
        rest = &rest[PACKED_LEN_LEN + message.len()..];
    }
    let bits = wire::bits(input).collect::<Vec<_>>();
    assert!(bits.is_sorted() && bits.last().is_none_or(|&bit| bit < input.len() as u64 * 8));
}

const PEERS: [PeerId; 2] = [PeerId::new(1, 0), PeerId::new(2, 0)];
const SEGMENT_LEN: usize = 256;
/// Frames under way in one direction.
const UNDER_WAY_MAX: usize = 32;
/// Announced messages that are taken.
const TAKEN_LEN_MAX: u64 = 4096;

struct End {
    node: Node<Heap>,
    /// Frames to this end, each from where it comes.
    arriving: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// Two parties that talk to each other, while the input says what they do, and what becomes of their frames on
/// the way: lost, doubled, overtaken, altered, invented, sent on from elsewhere. Nothing tells them so, for frames have no checksum.
pub fn conversation(mut input: &[u8]) {
    let config = Config {
        small_len: 64,
        pack_len: 128,
        window: 16,
        message_len_max: 2048,
        send_buffer: 4096,
        checksum: Checksum::None,
        ..Config::new(SEGMENT_LEN)
    };
    let mut ends = [7, 9].map(|secret| End {
        node: Node::new(config.clone(), &[secret; 32], Heap),
        arriving: VecDeque::new(),
    });
    let [addr, elsewhere] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut now = Time::from_nanos(1);
    while let Some(([what, how], rest)) = input.split_first_chunk() {
        input = rest;
        let (who, how) = (usize::from(what >> 7), *how);
        let (me, peer) = (&mut ends[who], PEERS[1 - who]);
        match what % 16 {
            0 => me.node.connect(now, peer, addr),
            1 => drop(me.node.send(peer, vec![how; usize::from(how)])),
            2 => drop(me.node.send(peer, vec![how; usize::from(how) * 12])),
            3 => drop(me.node.send_large(peer, Box::new(vec![how; usize::from(how) * 20]))),
            4 => me.node.close(peer),
            5 => me.node.abort(peer),
            6 => {
                now += Duration::from_micros(u64::from(how) * 100);
                me.node.on_deadline(now);
            }
            7 => {
                now += Duration::from_secs(u64::from(how) / 16);
                me.node.on_deadline(now);
            }
            8 => drop(me.arriving.pop_front()),
            9 => {
                let first = me.arriving.front().cloned();
                me.arriving.extend(first);
            }
            10 if !me.arriving.is_empty() => me.arriving.rotate_left(1),
            11 | 12 => {
                // Altered where it matters: header and numbers.
                let Some(([place, value], rest)) = input.split_first_chunk() else { break };
                input = rest;
                if let Some((_, frame)) = me.arriving.front_mut() {
                    let place = usize::from(*place) % frame.len();
                    frame[place] = frame[place].wrapping_add(*value);
                    if what % 16 == 12 {
                        frame.truncate(usize::from(how).max(1));
                    }
                }
            }
            13 => {
                // Invented, with the numbers of a frame that is under way.
                let (made, rest) = input.split_at(input.len().min(usize::from(how)));
                input = rest;
                let mut made = made.to_vec();
                if let (Some((_, frame)), true) = (me.arriving.front(), made.len() >= HEADER_LEN) {
                    made[..1].copy_from_slice(&frame[..1]);
                    made[3..24].copy_from_slice(&frame[3..24]);
                }
                me.arriving.push_front((addr, made));
            }
            14 => {
                if let Some((from, _)) = me.arriving.front_mut() {
                    *from = elsewhere;
                }
            }
            _ => {}
        }
        for _ in 0..=how % 4 {
            exchange(&mut ends, now, addr);
        }
    }
}

/// Each end takes in a frame, reads what there is, and sends.
fn exchange(ends: &mut [End; 2], now: Time, addr: SocketAddr) {
    for who in 0..2 {
        let [me, other] = ends.get_disjoint_mut([who, 1 - who]).expect("two of two");
        if let Some((from, frame)) = me.arriving.pop_front() {
            me.node.on_frame(now, PEERS[1 - who], from, frame);
        }
        while let Some(event) = me.node.poll_event() {
            match event {
                Event::Announced { from, id, len } if len <= TAKEN_LEN_MAX => {
                    me.node.accept(from, id, Box::new(vec![0u8; len as usize]));
                }
                Event::Announced { from, id, .. } => me.node.reject(from, id),
                _ => {}
            }
        }
        while let Some(out) = me.node.poll_transmit(now) {
            if other.arriving.len() < UNDER_WAY_MAX {
                other.arriving.push_back((addr, [out.head, out.body].concat()));
            }
        }
    }
}
