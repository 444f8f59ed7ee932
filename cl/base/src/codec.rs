//! The checked codec: canonical bytes of message bodies and replicated state.
//!
//! The format is [Borsh](https://borsh.io): little-endian, fixed-width integers, `u32` lengths, ordered maps.
//! Equal values have equal bytes, so digests and signatures can be taken over the encoding. Decoding never
//! panics, never trusts a length further than the bytes at hand, and refuses bytes left over.

use borsh::{BorshDeserialize, BorshSerialize};

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than a message of this kind may have.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not an encoding of the type: cut short, left over, or a value out of range.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The canonical bytes of `value`.
///
/// # Panics
/// If a collection in `value` has more than `u32::MAX` elements; limits on our side keep it far below.
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("only a collection of over u32::MAX elements cannot be encoded")
}

/// Decodes a whole message; every byte must be used.
///
/// # Errors
/// [`DecodeError::Malformed`] if `bytes` are not exactly one canonical encoding of a `T`.
pub fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::try_from_slice(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))
}

/// Decodes a whole message of at most `max` bytes.
///
/// # Errors
/// As [`decode`], and [`DecodeError::TooLong`] before anything is looked at.
pub fn decode_bounded<T: BorshDeserialize>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_long_and_huge_lengths_are_refused() {
        let bytes = encode(&vec![1u8, 2, 3]);
        assert_eq!(decode::<Vec<u8>>(&bytes).unwrap(), [1, 2, 3]);
        assert!(decode::<Vec<u8>>(&bytes[..6]).is_err());
        assert!(decode::<Vec<u8>>(&[&bytes[..], &[0]].concat()).is_err());
        assert!(decode::<Vec<u64>>(&[0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(matches!(decode_bounded::<Vec<u8>>(&bytes, 6), Err(DecodeError::TooLong { len: 7, max: 6 })));
    }
}
