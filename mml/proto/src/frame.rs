use crate::handshake::SessionKeys;
use crate::mac::MAC_BYTES;
use crate::wire::{self, BULK, BULK_MIN, MESSAGE_HEADER_BYTES, SESSION_HEADER_BYTES, SessionHeader};
use crate::{Body, Config};
use cl_base::PeerId;

/// Fills one session frame: what is ready together, up to [`Config::frame_bytes`], under one MAC.
pub(crate) struct FrameWriter<'a> {
    frame: &'a mut Vec<u8>,
    limit: usize,
    class: Option<u8>,
    bulk: Option<Body>,
    /// Messages in it.
    pub(crate) messages: u64,
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(frame: &'a mut Vec<u8>, config: &Config) -> FrameWriter<'a> {
        frame.clear();
        frame.resize(SESSION_HEADER_BYTES, 0);
        FrameWriter { frame, limit: config.frame_bytes, class: None, bulk: None, messages: 0 }
    }

    /// Where control items are written, before any message.
    pub(crate) fn items(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.bulk.is_none());
        self.frame
    }

    /// Adds a message; false if it must wait for the next frame: too long for this one, or of another class.
    #[must_use]
    pub(crate) fn push(&mut self, kind: u8, number: u64, base: u64, class: u8, body: &Body) -> bool {
        let bytes = self.frame.len() + MESSAGE_HEADER_BYTES + body.len() + MAC_BYTES;
        let alone = self.messages == 0;
        if self.bulk.is_some() || self.class.is_some_and(|c| c != class) || !alone && bytes > self.limit {
            return false;
        }
        self.class = Some(class);
        self.messages += 1;
        if body.len() > BULK_MIN {
            wire::put_message(self.frame, kind | BULK, number, base, body.len());
            self.bulk = Some(body.clone());
        } else {
            wire::put_message(self.frame, kind, number, base, body.len());
            self.frame.extend_from_slice(body);
        }
        true
    }

    pub(crate) fn finish(self, from: PeerId, to: PeerId, keys: &SessionKeys, number: u64) {
        let FrameWriter { frame, class, bulk, .. } = self;
        let bulk_len = bulk.as_ref().map_or(0, |b| b.len());
        let header = SessionHeader {
            class: class.unwrap_or(0),
            bulk_len: u32::try_from(bulk_len).expect("a body is at most u32::MAX bytes"),
            session: keys.id,
            number,
        };
        frame[..SESSION_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let digest: &[u8] = bulk.as_ref().map_or(&[], |b| b.digest().as_bytes());
        let mac = keys.send.mac(from, to, &[frame, digest]);
        frame.reserve(bulk_len + MAC_BYTES);
        if let Some(bulk) = &bulk {
            frame.extend_from_slice(bulk);
        }
        frame.extend_from_slice(&mac);
    }
}
