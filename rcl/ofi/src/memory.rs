//! The application's memory, and that of processes on the same host.
//!
//! libfabric hands over memory by address, with the promise that it stays while the operation that it was handed over for is
//! under way. [`Area::new`] is where that promise is taken; all else in this crate uses areas.
#![expect(unsafe_code, reason = "memory that is handed over by address")]

use crate::abi::Iovec;
use std::io;

/// Pieces of which the memory of one operation may consist.
pub(crate) const PIECES_MAX: usize = 4;

/// A piece of some process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) len: u64,
}

/// Up to [`PIECES_MAX`] pieces, in order. Whose memory it is, says where it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    pieces: [Piece; PIECES_MAX],
    count: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Piece) -> bool {
        let Some(place) = self.pieces.get_mut(self.count) else { return false };
        *place = piece;
        self.count += 1;
        true
    }

    pub(crate) fn as_slice(&self) -> &[Piece] {
        &self.pieces[..self.count]
    }

    /// Bytes in all of them; `None` if that is no number.
    pub(crate) fn len(&self) -> Option<u64> {
        self.as_slice().iter().try_fold(0_u64, |len, piece| len.checked_add(piece.len))
    }

    /// The part of `len` bytes that begins at `at`, as far as there is so much.
    fn part(&self, mut at: u64, mut len: u64) -> Pieces {
        let mut part = Pieces::default();
        for piece in self.as_slice() {
            let skipped = at.min(piece.len);
            at -= skipped;
            let taken = len.min(piece.len - skipped);
            len -= taken;
            if taken > 0 {
                part.push(Piece { addr: piece.addr + skipped, len: taken });
            }
        }
        part
    }

    fn iovecs(&self) -> ([Iovec; PIECES_MAX], usize) {
        let iovecs = self.pieces.map(|piece| Iovec {
            iov_base: std::ptr::without_provenance_mut(piece.addr as usize),
            iov_len: piece.len as usize,
        });
        (iovecs, self.count)
    }
}

/// Memory of the application that is ours to use until the operation is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Area {
    pieces: Pieces,
    len: usize,
}

impl Area {
    /// `None` if there are too many pieces, one is nowhere, or they have no length together.
    ///
    /// # Safety
    /// `iov` points to `count` descriptions of memory, which is the caller's to hand over and stays until what the area
    /// is for is complete: for reading, or for writing as well if it is for receiving. Nobody else writes there meanwhile.
    pub(crate) unsafe fn new(iov: *const Iovec, count: usize) -> Option<Area> {
        let mut area = Area::default();
        if count > PIECES_MAX || (count > 0 && iov.is_null()) {
            return None;
        }
        for i in 0..count {
            // SAFETY: the caller says that there are so many.
            let iovec = unsafe { &*iov.add(i) };
            if iovec.iov_len == 0 {
                continue;
            }
            if iovec.iov_base.is_null() || isize::try_from(iovec.iov_len).is_err() {
                return None;
            }
            area.len = area.len.checked_add(iovec.iov_len)?;
            area.pieces
                .push(Piece { addr: iovec.iov_base.expose_provenance() as u64, len: iovec.iov_len as u64 });
        }
        Some(area)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of its first byte.
    pub(crate) fn addr(&self) -> usize {
        self.pieces.pieces[0].addr as usize
    }

    pub(crate) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The part of `len` bytes that begins at `at`, as far as there is so much.
    pub(crate) fn part(&self, at: usize, len: usize) -> Area {
        let pieces = self.pieces.part(at as u64, len as u64);
        let len = pieces.as_slice().iter().map(|piece| piece.len as usize).sum();
        Area { pieces, len }
    }

    /// What is in it, piece by piece.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.as_slice().iter().map(|piece| {
            let start = std::ptr::with_exposed_provenance::<u8>(piece.addr as usize);
            // SAFETY: the memory was handed over, whole and for as long as this area is used (`new`).
            unsafe { std::slice::from_raw_parts(start, piece.len as usize) }
        })
    }

    fn slices_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.pieces.as_slice().iter().map(|piece| {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(piece.addr as usize);
            // SAFETY: as above, and it is for receiving; the pieces come one at a time.
            unsafe { std::slice::from_raw_parts_mut(start, piece.len as usize) }
        })
    }

    /// Puts in `bytes`, as many as fit; tells how many.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        for place in self.slices_mut() {
            let n = place.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            place[..n].copy_from_slice(now);
            bytes = later;
        }
        all - bytes.len()
    }

    /// `len` bytes from `at` on, if they are in one piece.
    pub(crate) fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        let mut start = 0;
        for slice in self.slices() {
            if at >= start && at + len <= start + slice.len() {
                return slice.get(at - start..at - start + len);
            }
            start += slice.len();
        }
        None
    }

    /// As [`Area::slice`], to be written.
    pub(crate) fn slice_mut(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        let mut start = 0;
        for slice in self.slices_mut() {
            let end = start + slice.len();
            if at >= start && at + len <= end {
                return slice.get_mut(at - start..at - start + len);
            }
            start = end;
        }
        None
    }
}

/// Copies the beginning of another process's `pieces` into `into`, as much as fits. The kernel asks whether we may: it
/// must be a process of the same user, and one that may be looked into.
///
/// # Errors
/// What the kernel says; what was copied until then is undefined.
pub(crate) fn pull(process: i32, pieces: &Pieces, into: &Area) -> io::Result<()> {
    transfer(pieces, into, |local, n, remote, m| {
        // SAFETY: the memory on our side is an area for receiving; the kernel checks the other side.
        unsafe { libc::process_vm_readv(process, local, n, remote, m, 0) }
    })
}

/// Copies `from` into the beginning of another process's `pieces`, as much as fits.
///
/// # Errors
/// As [`pull`].
pub(crate) fn push(process: i32, pieces: &Pieces, from: &Area) -> io::Result<()> {
    transfer(pieces, from, |local, n, remote, m| {
        // SAFETY: our side is only read; the kernel checks the other side, whose owner has asked for this.
        unsafe { libc::process_vm_writev(process, local, n, remote, m, 0) }
    })
}

fn transfer(
    remote: &Pieces,
    local: &Area,
    call: impl Fn(*const Iovec, u64, *const Iovec, u64) -> isize,
) -> io::Result<()> {
    let total = remote.len().ok_or(io::ErrorKind::InvalidInput)?.min(local.len() as u64);
    let mut done = 0;
    while done < total {
        let (ours, n) = local.pieces.part(done, total - done).iovecs();
        let (theirs, m) = remote.part(done, total - done).iovecs();
        match call(ours.as_ptr(), n as u64, theirs.as_ptr(), m as u64) {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved if moved > 0 => done += moved as u64,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// The address of something of ours that stays where it is, for others to read.
pub(crate) fn address_of(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// The `N` bytes at an address of another process.
///
/// # Errors
/// As [`pull`].
pub(crate) fn peek<const N: usize>(process: i32, addr: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let iovec = Iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: N };
    // SAFETY: one description, of the array, which outlives the call below.
    let area = unsafe { Area::new(&iovec, 1) }.expect("an array is an area");
    let mut pieces = Pieces::default();
    pieces.push(Piece { addr, len: N as u64 });
    pull(process, &pieces, &area)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area_of(parts: &mut [Vec<u8>]) -> Area {
        let iovecs: Vec<Iovec> =
            parts.iter_mut().map(|p| Iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() }).collect();
        // SAFETY: the vectors outlive the areas of these tests.
        unsafe { Area::new(iovecs.as_ptr(), iovecs.len()) }.expect("few pieces")
    }

    #[test]
    fn pieces_are_one_memory() {
        let mut parts = [vec![0; 3], vec![], vec![0; 5]];
        let mut area = area_of(&mut parts);
        assert_eq!(area.len(), 8);
        assert_eq!(area.write(b"abcdefghij"), 8);
        assert_eq!(area.slices().collect::<Vec<_>>(), [&b"abc"[..], b"defgh"]);
        assert_eq!(area.slice(3, 2), Some(&b"de"[..]));
        assert_eq!(area.slice(2, 2), None);
        let part = area.part(2, 3);
        assert_eq!((part.len(), part.slices().collect::<Vec<_>>()), (3, vec![&b"c"[..], b"de"]));
        assert_eq!(area.part(7, 100).len(), 1);
        assert_eq!(area.part(9, 1).len(), 0);
    }

    #[test]
    fn too_many_pieces_and_pieces_nowhere_are_refused() {
        let nowhere = Iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
        // SAFETY: what is described is never used.
        unsafe {
            assert!(Area::new(&nowhere, 1).is_none());
            assert!(Area::new(std::ptr::null(), PIECES_MAX + 1).is_none());
            assert_eq!(Area::new(std::ptr::null(), 0).map(|area| area.len()), Some(0));
        }
    }

    #[test]
    fn memory_of_a_process_is_pulled_and_pushed() {
        let me = std::process::id() as i32;
        let (mut there, mut here) = ([b"some".to_vec(), b"thing".to_vec()], [vec![0; 6], vec![0; 2]]);
        let (there, here) = (area_of(&mut there), area_of(&mut here));
        pull(me, there.pieces(), &here).unwrap();
        assert_eq!(here.slices().collect::<Vec<_>>(), [&b"someth"[..], b"in"]);
        let mut other = [b"ABCDEFGHIJKL".to_vec()];
        push(me, there.pieces(), &area_of(&mut other)).unwrap();
        assert_eq!(there.slices().collect::<Vec<_>>(), [&b"ABCD"[..], b"EFGHI"]);
        assert_eq!(peek(me, address_of(b"probe")).unwrap(), *b"probe");
        assert!(peek::<8>(me, 8).is_err());
    }
}
