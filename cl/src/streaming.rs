//! Copies that pass this processor's caches by: for memory that another processor has read and will read again. A store into
//! such a line waits until the line has come from the other side, and the other side then waits for it to come back; a store that
//! goes past the caches does neither (`docs/PERFORMANCE.md`: 1.3 to 6 times the bandwidth).
#![allow(unsafe_code)]

/// Shorter ones gain nothing, or less than the next reader on the same processor loses.
pub(crate) const STREAMING_MIN: usize = 4 << 10;

/// Copies `from` into `to`.
///
/// # Panics
/// If they are not of one length.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    /// Bytes of a cache line, and words of 16 bytes in it.
    const LINE: usize = 64;
    assert_eq!(to.len(), from.len());
    let ahead = to.as_ptr().align_offset(LINE).min(to.len());
    let (to_head, to_rest) = to.split_at_mut(ahead);
    let (from_head, from_rest) = from.split_at(ahead);
    to_head.copy_from_slice(from_head);
    let (to_lines, to_tail) = to_rest.as_chunks_mut::<LINE>();
    let (from_lines, from_tail) = from_rest.as_chunks::<LINE>();
    for (to, from) in to_lines.iter_mut().zip(from_lines) {
        let (to, from) = (to.as_mut_ptr().cast::<__m128i>(), from.as_ptr().cast::<__m128i>());
        for word in 0..LINE / size_of::<__m128i>() {
            // SAFETY: both are within their 64 bytes, and `to` is at a multiple of 64. The processor has the instructions: they are
            // a part of every x86_64.
            unsafe { _mm_stream_si128(to.add(word), _mm_loadu_si128(from.add(word))) };
        }
    }
    to_tail.copy_from_slice(from_tail);
    // SAFETY: as above. These stores are seen before every later one, as all others are: whoever is told of them finds them.
    unsafe { _mm_sfence() };
}

/// Copies `from` into `to`.
///
/// # Panics
/// If they are not of one length.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_place_and_length_is_copied_and_nothing_beside() {
        let from: Vec<u8> = (0..1000u32).map(|i| (i % 251) as u8 + 1).collect();
        for start in [0, 1, 15, 63, 64, 100] {
            for len in [0, 1, 16, 63, 64, 65, 127, 128, 129, 300, 700] {
                let mut to = vec![0; 1000];
                copy(&mut to[start..start + len], &from[7..7 + len]);
                assert_eq!(to[start..start + len], from[7..7 + len], "{len} bytes at {start}");
                assert!(
                    to[..start].iter().chain(&to[start + len..]).all(|b| *b == 0),
                    "{len} bytes at {start}"
                );
            }
        }
    }
}
