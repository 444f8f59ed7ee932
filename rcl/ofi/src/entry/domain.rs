//! Domains.

use super::{NOT_OFFERED, fid, guard, memory, ops, put};
use crate::abi::*;
use crate::domain::Domain as Inner;
use crate::settings::Settings;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A domain as C holds it.
#[repr(C)]
pub(super) struct Object {
    fid: Domain,
    inner: Arc<Inner>,
    watch: JoinHandle<()>,
}

static DOMAIN: OpsDomain = OpsDomain {
    size: size_of::<OpsDomain>(),
    av_open: super::vector::open,
    cq_open: super::completion::open_queue,
    endpoint: super::endpoint::open,
    scalable_ep: NOT_OFFERED,
    cntr_open: super::completion::open_counter,
    poll_open: NOT_OFFERED,
    stx_ctx: NOT_OFFERED,
    srx_ctx: NOT_OFFERED,
    query_atomic: NOT_OFFERED,
    query_collective: NOT_OFFERED,
    endpoint2: NOT_OFFERED,
};
static OPS: Ops = ops(close);

pub(super) unsafe extern "C" fn open(
    _: *mut Fabric,
    _: *mut Info,
    place: *mut *mut Domain,
    context: *mut c_void,
) -> c_int {
    guard(|| {
        let settings = match Settings::from_environment() {
            Ok(settings) => settings,
            Err(error) => {
                eprintln!("rcl: {error}");
                return -FI_EINVAL;
            }
        };
        let inner = Arc::new(Inner::new(settings));
        let Ok(watch) = inner.watch() else { return -FI_ENOMEM };
        let fid = Domain { fid: fid(FI_CLASS_DOMAIN, context, &OPS), ops: &DOMAIN, mr: &memory::OPS_MR };
        let object = Box::new(Object { fid, inner, watch });
        // SAFETY: as libfabric promises.
        unsafe { put(place, Box::into_raw(object).cast()) }
    })
}

/// What is behind a domain of C's.
///
/// # Safety
/// It is one, and not closed.
pub(super) unsafe fn inner<'a, T>(domain: *mut T) -> &'a Arc<Inner> {
    // SAFETY: as the caller says.
    unsafe { &(*domain.cast::<Object>()).inner }
}

unsafe extern "C" fn close(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises.
        if !unsafe { inner(fid) }.lock().endpoints.is_empty() {
            return -FI_EBUSY;
        }
        // SAFETY: as libfabric promises; it came from `open`.
        let object = unsafe { Box::from_raw(fid.cast::<Object>()) };
        object.inner.end_watch();
        // It has ended by itself if a call has panicked.
        let _ = object.watch.join();
        0
    })
}
