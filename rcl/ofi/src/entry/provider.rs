//! The provider, and fabrics.

use super::{NOT_OFFERED, fid, guard, ops, put};
use crate::abi::*;
use crate::offer::{self, NAME};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Of the provider itself.
const VERSION: u32 = version(0, 1);
/// The newest version of the interface that is implemented. It is offered to libraries of an older version as well, which
/// ask for no more than they know.
const INTERFACE: u32 = version(2, 5);

/// What libfabric asks a library for that it has loaded. The core writes into it, so it is not constant, and it is asked for
/// once.
#[unsafe(no_mangle)]
pub(super) extern "C" fn fi_prov_ini() -> *mut c_void {
    let provider = Provider {
        version: VERSION,
        fi_version: INTERFACE,
        context: [ptr::null_mut(); 4],
        name: NAME.as_ptr(),
        getinfo,
        fabric,
        cleanup,
    };
    Box::into_raw(Box::new(provider)).cast()
}

unsafe extern "C" fn getinfo(
    version: u32,
    node: *const c_char,
    _service: *const c_char,
    flags: u64,
    hints: *const Info,
    info: *mut *mut Info,
) -> c_int {
    // SAFETY: as libfabric promises.
    guard(|| unsafe { offer::getinfo(version, node, flags, hints, info) })
}

/// Nothing outlives the domains, which end their threads themselves.
unsafe extern "C" fn cleanup() {}

static FABRIC: OpsFabric = OpsFabric {
    size: size_of::<OpsFabric>(),
    domain: super::domain::open,
    passive_ep: NOT_OFFERED,
    eq_open: NOT_OFFERED,
    wait_open: NOT_OFFERED,
    trywait: NOT_OFFERED,
    domain2: NOT_OFFERED,
};
static OPS: Ops = ops(close);

unsafe extern "C" fn fabric(_: *mut FabricAttr, place: *mut *mut Fabric, context: *mut c_void) -> c_int {
    guard(|| {
        let fabric =
            Fabric { fid: fid(FI_CLASS_FABRIC, context, &OPS), ops: &FABRIC, api_version: INTERFACE };
        // SAFETY: as libfabric promises.
        unsafe { put(place, Box::into_raw(Box::new(fabric))) }
    })
}

unsafe extern "C" fn close(fid: *mut Fid) -> c_int {
    guard(|| {
        // SAFETY: as libfabric promises; it came from `fabric`.
        drop(unsafe { Box::from_raw(fid.cast::<Fabric>()) });
        0
    })
}
