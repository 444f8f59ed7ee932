//! What the fuzz targets call (`fuzz/`): this layer's parsers, given arbitrary bytes. Compiled with
//! `--cfg fuzzing` only.

use crate::mac::MAC_BYTES;
use crate::wire::handshake::{INIT_HEADER_BYTES, InitFrame, Notice};
use crate::wire::{self, Item, Kind, NUMBER_MAX, RANGES_MAX, SessionFrame};

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
    let Some(frame) = SessionFrame::split(input) else { return };
    assert_eq!(frame.head.len() + frame.items.len() + frame.bulk.len() + frame.mac.len(), input.len());
    assert_eq!(frame.header.to_bytes()[..], *frame.head);
    for item in wire::read_items(&frame).unwrap_or_default() {
        match item {
            Item::Message { number, base, body, .. } => {
                assert!(base <= number && number <= NUMBER_MAX && body.len() <= input.len());
            }
            Item::Report { missing, .. } => assert!(missing.len() <= RANGES_MAX),
            Item::Advert { base, next } => assert!(base <= next),
            Item::Ack { .. } | Item::Close | Item::Confirm => {}
        }
    }
}
