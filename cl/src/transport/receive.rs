use super::Recv;
use crate::header::HEADER_LEN;
use crate::pool::{Buf, Exhausted, HEADROOM, Pool};
use std::io;

/// A buffer whose contents begin, behind our header, where those of a fresh buffer do.
pub(super) fn alloc(pool: &Pool, len: usize) -> Result<Buf, Exhausted> {
    let mut buf = pool.alloc(len)?;
    buf.set_range(HEADROOM - HEADER_LEN, HEADROOM - HEADER_LEN);
    Ok(buf)
}

/// What `recv`, a non-blocking call, puts into `next` or a fresh buffer (at most `len_max` bytes; it tells how many);
/// or why there is nothing.
#[inline]
pub(super) fn receive<T>(
    len_max: usize,
    next: &mut Option<Buf>,
    pool: &Pool,
    recv: impl FnOnce(&mut [u8]) -> io::Result<(usize, T)>,
) -> Result<(Buf, T), Recv> {
    let mut buf = match next.take() {
        Some(buf) => buf,
        None => alloc(pool, len_max).map_err(|_| Recv::Starved)?,
    };
    match recv(buf.spare_mut(len_max)) {
        Ok((len, about)) => {
            buf.grow(len);
            Ok((buf, about))
        }
        Err(error) => {
            *next = Some(buf);
            Err(if error.kind() == io::ErrorKind::WouldBlock { Recv::Empty } else { Recv::Failed })
        }
    }
}
