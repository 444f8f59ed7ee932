use crate::handshake::SessionKeys;
use crate::mac::MAC_BYTES;
use crate::wire::items::{BULK, MESSAGE_HEADER_MAX, MessageWriter, put_padding};
use crate::wire::{BLOCK_BYTES, BOUND_BYTES, DIGEST_BYTES, SESSION_HEADER_BYTES, SessionHeader};
use crate::{Body, Config};

/// Fills one session frame: what is ready together, up to [`Config::frame_bytes`], sealed at once.
pub(crate) struct FrameWriter<'a> {
    frame: &'a mut Vec<u8>,
    limit: usize,
    class: Option<u8>,
    writer: MessageWriter,
    bulk: Option<Body>,
    /// Messages in it.
    pub(crate) messages: u64,
}

/// The body of a message to be put into a frame.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    /// To be copied into it.
    Copied(&'a [u8]),
    /// To go behind it as bulk, as to many others.
    Bulk(&'a Body),
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(frame: &'a mut Vec<u8>, config: &Config) -> FrameWriter<'a> {
        frame.clear();
        frame.resize(SESSION_HEADER_BYTES, 0);
        FrameWriter {
            frame,
            limit: config.frame_bytes - MAC_BYTES - (BLOCK_BYTES - 1),
            class: None,
            writer: MessageWriter::default(),
            bulk: None,
            messages: 0,
        }
    }

    /// Where control items are written, before any message.
    pub(crate) fn items(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.bulk.is_none());
        self.frame
    }

    /// Adds a message; false if it must wait for the next frame: too long for this one, or of another class.
    #[must_use]
    #[inline]
    pub(crate) fn push(&mut self, kind: u8, number: u64, base: u64, class: u8, content: Content<'_>) -> bool {
        let (len, bulk) = match content {
            Content::Copied(body) => (body.len(), false),
            Content::Bulk(body) => (body.len(), true),
        };
        let crowded = self.messages > 0 && self.frame.len() + MESSAGE_HEADER_MAX + len > self.limit;
        if crowded || self.bulk.is_some() || self.class.is_some_and(|c| c != class) {
            return false;
        }
        self.class = Some(class);
        self.messages += 1;
        self.writer.put(self.frame, if bulk { kind | BULK } else { kind }, number, base, len);
        match content {
            Content::Copied(body) => self.frame.extend_from_slice(body),
            Content::Bulk(body) => self.bulk = Some(body.clone()),
        }
        true
    }

    /// Seals the frame. What is returned goes behind it.
    pub(crate) fn finish(self, keys: &SessionKeys, number: u64) -> Option<Body> {
        let FrameWriter { frame, class, bulk, .. } = self;
        put_padding(frame, SESSION_HEADER_BYTES);
        if let Some(bulk) = &bulk {
            frame.extend_from_slice(bulk.digest().as_bytes());
            debug_assert_eq!(bulk.digest().as_bytes().len(), DIGEST_BYTES);
        }
        let bulk_len = bulk.as_ref().map_or(0, |b| b.len());
        let header = SessionHeader {
            class: class.unwrap_or(0),
            bulk_len: u32::try_from(bulk_len).expect("a body is at most u32::MAX bytes"),
            session: keys.id,
            number,
        };
        let header = header.to_bytes();
        frame[..SESSION_HEADER_BYTES].copy_from_slice(&header);
        let tag = keys.send.seal(number, &header[..BOUND_BYTES], &mut frame[SESSION_HEADER_BYTES..]);
        frame.extend_from_slice(&tag);
        bulk
    }
}
