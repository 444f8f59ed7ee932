//! The frames by which sessions are established. Nothing is believed before its MAC is verified.

use super::{FORMAT, Kind};
use crate::mac::{MAC_BYTES, Mac};
use cl_base::Incarnation;

/// An ephemeral key and an empty sealed payload.
pub(crate) const NOISE_INIT_BYTES: usize = 32 + 16;
/// An ephemeral key and the sealed [`Accepted`].
pub(crate) const NOISE_RESPONSE_BYTES: usize = 32 + ACCEPTED_BYTES + 16;
pub(crate) const ACCEPTED_BYTES: usize = 16;

pub(crate) const INIT_HEADER_BYTES: usize = 32;
pub(crate) const INIT_BYTES: usize = INIT_HEADER_BYTES + NOISE_INIT_BYTES + 2 * MAC_BYTES;
pub(crate) const RESPONSE_BYTES: usize = 4 + MAC_BYTES + NOISE_RESPONSE_BYTES + MAC_BYTES;
pub(crate) const COOKIE_BYTES: usize = 4 + 3 * MAC_BYTES;
pub(crate) const UNKNOWN_BYTES: usize = 4 + 16 + MAC_BYTES;
pub(crate) const REFUSAL_BYTES: usize = 4 + MAC_BYTES + 8 + MAC_BYTES;

/// What an `init` says in the clear. All of it is in the transcript of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// The lowest and the highest version that the initiator speaks.
    pub(crate) versions: (u8, u8),
    pub(crate) features: u32,
    pub(crate) incarnation: Incarnation,
    /// Larger than in all earlier attempts of this life.
    pub(crate) attempt: u64,
    /// The session of which this is a new epoch; 0 for none.
    pub(crate) continues: u64,
}

impl Init {
    pub(crate) fn to_bytes(self) -> [u8; INIT_HEADER_BYTES] {
        let mut bytes = [0; INIT_HEADER_BYTES];
        bytes[..4].copy_from_slice(&[FORMAT, Kind::Init as u8, self.versions.0, self.versions.1]);
        bytes[4..8].copy_from_slice(&self.features.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[24..].copy_from_slice(&self.continues.to_le_bytes());
        bytes
    }
}

/// An `init` cut into its parts.
pub(crate) struct InitFrame<'a> {
    pub(crate) init: Init,
    pub(crate) noise: &'a [u8],
    /// Names this frame in the answers to it.
    pub(crate) mac: Mac,
    /// All before the cookie's MAC, which covers it.
    pub(crate) text: &'a [u8],
    pub(crate) cookie_mac: &'a [u8],
}

impl<'a> InitFrame<'a> {
    /// Cuts a frame that [`peek_kind`](super::peek_kind) has called an `init`.
    pub(crate) fn split(frame: &'a [u8]) -> InitFrame<'a> {
        let (text, cookie_mac) = frame.split_at(INIT_BYTES - MAC_BYTES);
        let (rest, mac) = text.split_at(text.len() - MAC_BYTES);
        let (header, noise) = rest.split_at(INIT_HEADER_BYTES);
        let init = Init {
            versions: (header[2], header[3]),
            features: u32::from_le_bytes(header[4..8].try_into().expect("4 bytes")),
            incarnation: Incarnation(u64_at(header, 8)),
            attempt: u64_at(header, 16),
            continues: u64_at(header, 24),
        };
        InitFrame { init, noise, mac: mac.try_into().expect("cut to length"), text, cookie_mac }
    }
}

/// What a responder has decided, sealed in its `response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) incarnation: Incarnation,
    pub(crate) features: u32,
    pub(crate) version: u8,
    /// It is a new epoch of the session that the `init` named.
    pub(crate) continued: bool,
}

impl Accepted {
    pub(crate) fn to_bytes(self) -> [u8; ACCEPTED_BYTES] {
        let mut bytes = [0; ACCEPTED_BYTES];
        bytes[..8].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.features.to_le_bytes());
        bytes[12] = self.version;
        bytes[13] = u8::from(self.continued);
        bytes
    }

    pub(crate) fn read(bytes: &[u8; ACCEPTED_BYTES]) -> Accepted {
        Accepted {
            incarnation: Incarnation(u64_at(bytes, 0)),
            features: u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes")),
            version: bytes[12],
            continued: bytes[13] == 1,
        }
    }
}

/// Why an `init` is not answered by a `response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No version in common; the lowest and the highest of the responder's.
    Version(u8, u8),
    /// The responder knows a later life of the initiator.
    Superseded(Incarnation),
}

/// What two parties say to each other outside of sessions, except `init`; under a key that only they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice<'a> {
    Response { echo: Mac, noise: &'a [u8] },
    Cookie { echo: Mac, cookie: Mac },
    Unknown { session: u64, incarnation: Incarnation },
    Refusal { echo: Mac, refused: Refused },
}

impl<'a> Notice<'a> {
    /// The frame, less the MAC at its end.
    pub(crate) fn put(self, frame: &mut Vec<u8>) {
        match self {
            Notice::Response { echo, noise } => {
                frame.extend_from_slice(&[FORMAT, Kind::Response as u8, 0, 0]);
                frame.extend_from_slice(&echo);
                frame.extend_from_slice(noise);
            }
            Notice::Cookie { echo, cookie } => {
                frame.extend_from_slice(&[FORMAT, Kind::Cookie as u8, 0, 0]);
                frame.extend_from_slice(&echo);
                frame.extend_from_slice(&cookie);
            }
            Notice::Unknown { session, incarnation } => {
                frame.extend_from_slice(&[FORMAT, Kind::Unknown as u8, 0, 0]);
                frame.extend_from_slice(&session.to_le_bytes());
                frame.extend_from_slice(&incarnation.0.to_le_bytes());
            }
            Notice::Refusal { echo, refused } => {
                let (reason, value) = match refused {
                    Refused::Version(low, high) => (1, u64::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0])),
                    Refused::Superseded(incarnation) => (2, incarnation.0),
                };
                frame.extend_from_slice(&[FORMAT, Kind::Refusal as u8, reason, 0]);
                frame.extend_from_slice(&echo);
                frame.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// Reads a frame of `kind`, as [`peek_kind`](super::peek_kind) has found it, less its MAC. `None` for a
    /// reason that we do not know.
    pub(crate) fn read(kind: Kind, text: &'a [u8]) -> Option<Notice<'a>> {
        let mac_at =
            |at: usize| text[at..at + MAC_BYTES].try_into().expect("peek_kind has checked the length");
        let echo = || mac_at(4);
        Some(match kind {
            Kind::Response => Notice::Response { echo: echo(), noise: &text[4 + MAC_BYTES..] },
            Kind::Cookie => Notice::Cookie { echo: echo(), cookie: mac_at(4 + MAC_BYTES) },
            Kind::Unknown => {
                Notice::Unknown { session: u64_at(text, 4), incarnation: Incarnation(u64_at(text, 12)) }
            }
            Kind::Refusal => {
                let value = u64_at(text, 4 + MAC_BYTES);
                let [low, high, ..] = value.to_le_bytes();
                let refused = match text[2] {
                    1 => Refused::Version(low, high),
                    2 => Refused::Superseded(Incarnation(value)),
                    _ => return None,
                };
                Notice::Refusal { echo: echo(), refused }
            }
            Kind::Init | Kind::Session => return None,
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
