use cl::{Buf, Endpoint};

/// Buffers kept back of each kind that frames are received into; no more than a sixteenth of those there are.
const BUFFERS: usize = 8;
const SIXTEENTH: usize = 16;
/// Datagrams that come joined are received into one of these (`cl` has the kernel join as many as fit 64 KiB).
const JOINED: usize = 65_507;

/// Buffers kept back for frames without contents. A program may hold all others, in what it has received and what
/// it has sent, until these are acknowledged; without a buffer to receive it into, no acknowledgement would be heard, and the peer
/// would be taken for dead.
///
/// They are lent to the endpoint's pool while frames are received that nothing is kept of. Where io_uring receives, some
/// of them stay there. So as long as they are not all here, of no frame anything is kept.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// How many there are of which capacity, and those that are here.
    kinds: [(usize, usize, Vec<Buf>); 2],
    whole: bool,
}

impl Reserve {
    pub(crate) fn new(cl: &Endpoint) -> Reserve {
        let kinds = [cl.mtu(), JOINED].map(|capacity| {
            let count = (cl.pool().available(capacity) / SIXTEENTH).min(BUFFERS);
            (capacity, count, Vec::with_capacity(count))
        });
        let mut reserve = Reserve { kinds, whole: false };
        reserve.fill(cl);
        reserve
    }

    /// True if all of them are here.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Takes back what there is.
    pub(crate) fn fill(&mut self, cl: &Endpoint) {
        self.whole = true;
        for (capacity, count, bufs) in &mut self.kinds {
            while bufs.len() < *count
                && let Ok(buf) = cl.alloc(*capacity)
            {
                bufs.push(buf);
            }
            self.whole &= bufs.len() == *count;
        }
    }

    /// Gives them to the pool, where the next look at the network finds them.
    pub(crate) fn lend(&mut self) {
        self.whole = false;
        self.kinds.iter_mut().for_each(|(.., bufs)| bufs.clear());
    }
}
