//! Cache lines that another processor has, asked for before they are needed: many at once, where loads and stores
//! themselves would wait for a few. Only a hint, and none on processors for which it is not written.
#![allow(unsafe_code)]

use crate::sync::AtomicU64;

/// Asks for the line of `word`, to be read soon.
#[inline]
pub(crate) fn to_read(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction changes nothing that a program can see.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

/// Asks for the line of `word`, to be written soon; the others lose it.
#[inline]
pub(crate) fn to_write(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction changes nothing that a program can see, and processors that do not have it do nothing for it.
    // By its name, for the compiler takes the one for reading unless it is told that there is this one.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}
