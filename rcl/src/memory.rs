use cl::{Buf, Pool};
use rcl_proto::Memory;

/// The endpoint's pool as the protocol sees it.
pub(crate) struct PoolMemory(pub(crate) Pool);

impl Memory for PoolMemory {
    type Buf = Buf;

    fn alloc(&self, capacity: usize) -> Option<Buf> {
        self.0.alloc(capacity).ok()
    }

    fn capacity_max(&self) -> usize {
        self.0.capacity_max()
    }

    fn is_scarce(&self, capacity: usize) -> bool {
        self.0.available(capacity) * 2 <= cl::for_rcl::buffers(&self.0, capacity)
    }

    fn append(buf: &mut Buf, bytes: &[u8]) {
        buf.extend_from_slice(bytes);
    }

    fn advance(buf: &mut Buf, n: usize) {
        buf.advance(n);
    }

    fn renounce(buf: Buf) {
        cl::for_rcl::renounce(buf);
    }
}
