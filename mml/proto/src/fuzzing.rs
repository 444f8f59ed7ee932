//! What the fuzz targets call (`fuzz/`): this layer's parsers, given arbitrary bytes. Compiled with
//! `--cfg fuzzing` only.

use crate::mac::MAC_BYTES;
use crate::wire::handshake::{INIT_HEADER_BYTES, InitFrame, Notice};
use crate::wire::items::{Item, Items, NUMBER_MAX, RANGES_MAX};
use crate::wire::{self, DIGEST_BYTES, Kind, SessionFrame};

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
