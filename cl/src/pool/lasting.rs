//! Contents that the kernel sends from where they lie.
//!
//! Pages of the arena's file can be given to a socket without copying them (`sendfile`). The kernel reads them
//! when the receiver does, on one host; so what they hold must not change until the receiver is known to
//! have it. If that will never be known, the slot gets other pages: a hole is punched into the file, and
//! the old pages, with what they hold, are the kernel's alone.

use super::{Pages, Pool, Shared};
use crate::sys;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// What one datagram can be gathered from: 17 pages (MAX_SKB_FRAGS) less two for what is copied in front, which may
/// straddle two.
const PAGES_MAX: usize = 15;
/// Where the system says what larger pages there may be: a directory for each size.
const SIZES: &str = "/sys/kernel/mm/transparent_hugepage";

impl Pool {
    /// The file in which `bytes` lie and where, if they can be sent from there: they are part of a slot of this
    /// pool, in pages of its own, and not too many.
    pub(crate) fn lend_pages(&self, bytes: &[u8]) -> Option<(&File, u64)> {
        let shared = &*self.shared;
        if shared.pages != Pages::Plain || !pages_are_small() {
            return None;
        }
        let start = (bytes.as_ptr() as usize).checked_sub(shared.arena.as_ptr() as usize)?;
        let slot = shared.layout.span_at(start)?;
        let (own, end, page) = (whole_pages(slot), start + bytes.len(), sys::page_size());
        if start < own.start || end > own.end || end.div_ceil(page) - start / page > PAGES_MAX {
            return None;
        }
        shared.lends_pages.store(true, Ordering::Relaxed);
        Some((&shared.file, start as u64))
    }
}

impl Shared {
    /// Replaces the pages of a slot, if the kernel may be reading them. False if that is not to be had.
    pub(super) fn replace_pages(&self, class: usize, slot: u32) -> bool {
        let own = whole_pages(self.layout.classes()[class].span(slot));
        if own.is_empty() || !self.lends_pages.load(Ordering::Relaxed) {
            return true;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, own.start as u64, own.len() as u64)
            .inspect_err(|error| tracing::warn!(%error, "a buffer is lost: its pages cannot be replaced"))
            .is_ok()
    }
}

/// The pages of which all bytes are within `slot`.
fn whole_pages(slot: Range<usize>) -> Range<usize> {
    let page = sys::page_size();
    let (start, end) = (slot.start.next_multiple_of(page), slot.end / page * page);
    start..end.max(start)
}

/// Whether shared memory is in pages of the smallest size only. A hole in a part of a larger one that is in
/// use is made by overwriting that part.
fn pages_are_small() -> bool {
    static SMALL: OnceLock<bool> = OnceLock::new();
    *SMALL.get_or_init(|| {
        let Ok(sizes) = std::fs::read_dir(SIZES) else { return true };
        sizes.flatten().all(|size| is_off(&size.path().join("shmem_enabled")))
    })
}

/// Whether the setting says so, or leaves it to that for all sizes, which [`Pages`] tells of; or is none.
fn is_off(setting: &Path) -> bool {
    let off = |s: String| s.contains("[never]") || s.contains("[inherit]");
    std::fs::read_to_string(setting).map_or(true, off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolConfig;
    use std::io::IoSlice;
    use std::net::UdpSocket;

    const LEN: usize = 60_000;

    #[test]
    fn what_was_lent_arrives_as_it_was_though_the_buffer_is_used_again() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        let mut buf = pool.alloc(1 << 20).unwrap();
        buf.resize(LEN);
        buf.fill(1);
        let lent = pool.lend_pages(&buf);
        assert_eq!(lent.is_some(), pool.pages() == Pages::Plain && pages_are_small());
        let Some((file, at)) = lent else { return };
        let [from, to] = [0; 2].map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        to.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let receiver = to.local_addr().unwrap().into();
        sys::send_from(&from, Some(&receiver), &[IoSlice::new(b"head")], file, at, LEN).unwrap();
        let slot = buf.as_ptr();
        buf.renounce();
        let mut again = pool.alloc(1 << 20).unwrap();
        assert_eq!(again.as_ptr(), slot, "the buffer given back last is used first");
        again.resize(LEN);
        again.fill(2);
        let mut received = vec![0; LEN + 100];
        assert_eq!(to.recv(&mut received).unwrap(), LEN + 4);
        assert_eq!(&received[..4], b"head");
        assert!(received[4..LEN + 4].iter().all(|&byte| byte == 1));
        assert!(again.iter().all(|&byte| byte == 2), "and what is put into it stays there");
    }

    #[test]
    fn only_pages_that_a_slot_has_for_itself_are_lent_and_as_many_as_a_datagram_holds() {
        let pool = Pool::new(&PoolConfig::default()).unwrap();
        let mut paged = pool.alloc(1 << 20).unwrap();
        paged.resize(1 << 20);
        let can = pool.pages() == Pages::Plain && pages_are_small();
        let most = PAGES_MAX * sys::page_size();
        for (piece, fits) in [(0..most, true), (0..most + 1, false), (1..most + 1, false), (1..most, true)] {
            assert_eq!(pool.lend_pages(&paged[piece.clone()]).is_some(), fits && can, "{piece:?}");
        }
        let mut small = pool.alloc(64 << 10).unwrap();
        small.resize(64 << 10);
        assert!(pool.lend_pages(&small).is_none(), "it shares its first page or its last one");
        assert!(pool.lend_pages(&[0; 64]).is_none(), "not of the pool");
        let other = Pool::new(&PoolConfig::default()).unwrap();
        let mut large = other.alloc(1 << 20).unwrap();
        large.resize(1 << 20);
        assert!(pool.lend_pages(&large).is_none(), "of another pool");
    }
}
