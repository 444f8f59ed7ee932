use super::Recv;
use super::receive::alloc;
use crate::pool::{Buf, Pool};
use std::net::SocketAddr;

/// The kernel joins at most so many bytes, and who has no such buffers gets the datagrams one by one.
pub(super) const JOINED_LEN_MAX: usize = 65_507;

/// Datagrams of one sender that have come in one piece (UDP generic receive offload), less those handed up.
pub(super) struct Joined {
    from: SocketAddr,
    buf: Buf,
    segment: usize,
}

impl Joined {
    /// `segment`: the length of each but the last.
    pub(super) fn new(from: SocketAddr, buf: Buf, segment: usize) -> Joined {
        Joined { from, buf, segment }
    }

    /// The next datagram of those that came joined. It gets a buffer of its own, for which it is copied: small
    /// buffers that are held on to must not keep large ones.
    pub(super) fn split(joined: &mut Option<Joined>, pool: &Pool) -> Recv {
        let Some(Joined { from, buf, segment }) = joined else { return Recv::Empty };
        let (from, len) = (*from, buf.len().min(*segment));
        let Ok(mut own) = alloc(pool, len) else { return Recv::Starved };
        own.extend_from_slice(&buf[..len]);
        buf.advance(len);
        if buf.is_empty() {
            *joined = None;
        }
        Recv::Datagram(from, own)
    }
}
